"""torch.optim's optimizers with each operation rounded once, bit-equal to their twins in `jaxopt_impl`."""

from . import lr_scheduler
from .adagrad import AdaGrad
from .adam import Adam, AdamW
from .around import schedules
from .around.accumulation import Accumulator
from .around.averages import AveragedModel
from .around.clipping import clip_grad_norm_, clip_grad_value_
from .around.loss_scale import ApplyIfFinite, GradScaler
from .around.masks import param_groups
from .around.master_weights import MasterWeights
from .around.norm import get_total_norm
from .around.recipe import Recipe, is_matrix
from .around.stochastic_rounding import StochasticRounding
from .lion import Lion
from .lr_scheduler import ScheduleLR
from .momentum import Momentum
from .rmsprop import RMSprop
from .sgd import SGD

__all__ = [
    "SGD",
    "Accumulator",
    "AdaGrad",
    "Adam",
    "AdamW",
    "ApplyIfFinite",
    "AveragedModel",
    "GradScaler",
    "Lion",
    "MasterWeights",
    "Momentum",
    "RMSprop",
    "Recipe",
    "ScheduleLR",
    "StochasticRounding",
    "clip_grad_norm_",
    "clip_grad_value_",
    "get_total_norm",
    "is_matrix",
    "lr_scheduler",
    "param_groups",
    "schedules",
]
