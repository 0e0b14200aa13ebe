"""Optimizers as optax transforms whose every + - * / and sqrt rounds once, bit-equal to their twins in `torch_ref`."""

from .adagrad import adagrad
from .adam import adam, adamw
<<<<<<< HEAD
<<<<<<< HEAD
from .around import schedules
=======
from .around.averages import averaged, params_ema, params_swa
from .around.masks import by_path, frozen, partition_by_path
>>>>>>> averages
=======
from .around.accumulation import accumulate
from .around.loss_scale import apply_if_finite, loss_scale, scaled
>>>>>>> accumulation
from .lion import lion
from .momentum import momentum
from .packing import pack, unpack
from .rmsprop import rmsprop
from .sgd import sgd

<<<<<<< HEAD
<<<<<<< HEAD
__all__ = ["adagrad", "adam", "adamw", "lion", "momentum", "pack", "rmsprop", "schedules", "sgd", "unpack"]
=======
__all__ = [
    "adagrad",
    "adam",
    "adamw",
    "averaged",
    "by_path",
    "frozen",
    "lion",
    "momentum",
    "pack",
    "params_ema",
    "params_swa",
    "partition_by_path",
    "rmsprop",
    "sgd",
    "unpack",
]
>>>>>>> averages
=======
__all__ = [
    "accumulate",
    "adagrad",
    "adam",
    "adamw",
    "apply_if_finite",
    "lion",
    "loss_scale",
    "momentum",
    "pack",
    "rmsprop",
    "scaled",
    "sgd",
    "unpack",
]
>>>>>>> accumulation
