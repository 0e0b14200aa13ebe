"""Optimizers as optax transforms whose every + - * / and sqrt rounds once, bit-equal to their twins in `torch_ref`."""

from .adagrad import adagrad
from .adam import adam, adamw
from .around.averages import averaged, params_ema, params_swa
from .lion import lion
from .momentum import momentum
from .packing import pack, unpack
from .rmsprop import rmsprop
from .sgd import sgd

__all__ = ["adagrad", "adam", "adamw", "averaged", "lion", "momentum", "pack", "params_ema", "params_swa", "rmsprop", "sgd", "unpack"]
