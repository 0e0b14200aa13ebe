"""torch.optim's optimizers with each operation rounded once, bit-equal to their twins in `jaxopt_impl`."""

from .adagrad import AdaGrad
from .adam import Adam, AdamW
from .around.accumulation import Accumulator
from .around.loss_scale import ApplyIfFinite, GradScaler
from .lion import Lion
from .momentum import Momentum
from .rmsprop import RMSprop
from .schedule import ScheduleLR
from .sgd import SGD

__all__ = ["SGD", "Accumulator", "AdaGrad", "Adam", "AdamW", "ApplyIfFinite", "GradScaler", "Lion", "Momentum", "RMSprop", "ScheduleLR"]
