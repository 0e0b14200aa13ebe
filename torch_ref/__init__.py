"""torch.optim's optimizers with each operation rounded once, bit-equal to their twins in `jaxopt_impl`."""

from .adagrad import AdaGrad
from .adam import Adam, AdamW
from .around.clipping import clip_grad_norm_, clip_grad_value_
from .around.norm import get_total_norm
from .lion import Lion
from .momentum import Momentum
from .rmsprop import RMSprop
from .schedule import ScheduleLR
from .sgd import SGD

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Lion",
    "Momentum",
    "RMSprop",
    "ScheduleLR",
    "clip_grad_norm_",
    "clip_grad_value_",
    "get_total_norm",
]
