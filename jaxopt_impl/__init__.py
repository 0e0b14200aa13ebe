"""Optimizers as optax transforms whose every + - * / and sqrt rounds once, bit-equal to their twins in `torch_ref`."""

from .adagrad import adagrad
from .adam import adam, adamw
from .around import schedules
from .around.averages import averaged, params_ema, params_swa
from .around.masks import by_path, frozen, partition_by_path
from .around.master_weights import master_weights
from .around.stochastic_rounding import stochastic_rounding
from .lion import lion
from .momentum import momentum
from .packing import pack, unpack
from .rmsprop import rmsprop
from .sgd import sgd

__all__ = [
    "adagrad",
    "adam",
    "adamw",
    "averaged",
    "by_path",
    "frozen",
    "lion",
    "master_weights",
    "momentum",
    "pack",
    "params_ema",
    "params_swa",
    "partition_by_path",
    "rmsprop",
    "schedules",
    "sgd",
    "stochastic_rounding",
    "unpack",
]
