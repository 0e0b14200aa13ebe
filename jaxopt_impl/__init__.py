"""Optimizers as optax transforms whose every + - * / and sqrt rounds once, bit-equal to their twins in `torch_ref`."""

from .adagrad import adagrad
from .adam import adam, adamw
from .around.accumulation import accumulate
from .around.loss_scale import apply_if_finite, loss_scale, scaled
from .lion import lion
from .momentum import momentum
from .packing import pack, unpack
from .rmsprop import rmsprop
from .sgd import sgd

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
