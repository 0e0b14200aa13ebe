"""torch.optim's optimizers with each operation rounded once, bit-equal to their twins in `jaxopt_impl`."""

from . import lr_scheduler
from .adagrad import AdaGrad
from .adam import Adam, AdamW
<<<<<<< HEAD
<<<<<<< HEAD
from .around import schedules
=======
from .around.averages import AveragedModel
from .around.masks import param_groups
>>>>>>> averages
=======
from .around.accumulation import Accumulator
from .around.loss_scale import ApplyIfFinite, GradScaler
>>>>>>> accumulation
from .lion import Lion
from .lr_scheduler import ScheduleLR
from .momentum import Momentum
from .rmsprop import RMSprop
from .sgd import SGD

<<<<<<< HEAD
<<<<<<< HEAD
__all__ = ["SGD", "AdaGrad", "Adam", "AdamW", "Lion", "Momentum", "RMSprop", "ScheduleLR", "lr_scheduler", "schedules"]
=======
__all__ = ["SGD", "AdaGrad", "Adam", "AdamW", "AveragedModel", "Lion", "Momentum", "RMSprop", "ScheduleLR", "param_groups"]
>>>>>>> averages
=======
__all__ = ["SGD", "Accumulator", "AdaGrad", "Adam", "AdamW", "ApplyIfFinite", "GradScaler", "Lion", "Momentum", "RMSprop", "ScheduleLR"]
>>>>>>> accumulation
