"""Optimizers as optax transforms whose every + - * / and sqrt rounds once, bit-equal to their twins in `torch_ref`."""

from .adagrad import adagrad
from .momentum import momentum
from .sgd import sgd

OPTIMIZERS = {"sgd": sgd, "momentum": momentum, "adagrad": adagrad}

__all__ = ["OPTIMIZERS", "adagrad", "momentum", "sgd"]
