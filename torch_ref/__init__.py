"""torch.optim's optimizers with each operation rounded once, bit-equal to their twins in `jaxopt_impl`."""

from . import lr_scheduler
from .adagrad import AdaGrad
from .adam import Adam, AdamW
from .around import schedules
from .around.averages import AveragedModel
from .around.masks import param_groups
from .around.master_weights import MasterWeights
from .around.stochastic_rounding import StochasticRounding
from .lion import Lion
from .lr_scheduler import ScheduleLR
from .momentum import Momentum
from .rmsprop import RMSprop
from .sgd import SGD

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "AveragedModel",
    "Lion",
    "MasterWeights",
    "Momentum",
    "RMSprop",
    "ScheduleLR",
    "StochasticRounding",
    "lr_scheduler",
    "param_groups",
    "schedules",
]
