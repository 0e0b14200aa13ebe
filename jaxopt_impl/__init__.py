"""Optimizers as optax transforms whose every + - * / and sqrt rounds once, bit-equal to their twins in `torch_ref`."""

from .adagrad import adagrad
from .adam import adam, adamw
from .around.clipping import clip_by_global_norm, clip_by_value
from .around.norm import global_norm
from .lion import lion
from .momentum import momentum
from .packing import pack, unpack
from .rmsprop import rmsprop
from .sgd import sgd

__all__ = [
    "adagrad",
    "adam",
    "adamw",
    "clip_by_global_norm",
    "clip_by_value",
    "global_norm",
    "lion",
    "momentum",
    "pack",
    "rmsprop",
    "sgd",
    "unpack",
]
