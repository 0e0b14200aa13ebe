"""Optimizers as optax transforms whose every + - * / and sqrt rounds once, bit-equal to their twins in `torch_ref`."""

from .adagrad import adagrad
from .adam import adam, adamw
from .around.master_weights import master_weights
from .around.stochastic_rounding import stochastic_rounding
from .lion import lion
from .momentum import momentum
from .packing import pack, unpack
from .rmsprop import rmsprop
from .sgd import sgd

__all__ = ["adagrad", "adam", "adamw", "lion", "master_weights", "momentum", "pack", "rmsprop", "sgd", "stochastic_rounding", "unpack"]
