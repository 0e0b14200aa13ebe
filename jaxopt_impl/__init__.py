"""Optimizers as optax transforms whose every + - * / and sqrt rounds once, bit-equal to their twins in `torch_ref`."""

from .adagrad import adagrad
from .adam import adam, adamw
from .applied import update_and_apply
from .around import schedules
from .around.accumulation import accumulate
from .around.averages import averaged, params_ema, params_swa
from .around.clipping import clip_by_global_norm, clip_by_value
from .around.loss_scale import apply_if_finite, loss_scale, scaled
from .around.masks import by_path, frozen, partition_by_path
from .around.master_weights import master_weights
from .around.norm import global_norm
from .around.recipe import is_matrix, recipe
from .around.stochastic_rounding import stochastic_rounding
from .lion import lion
from .momentum import momentum
from .packing import pack, unpack
from .rmsprop import rmsprop
from .sgd import sgd
from .sharding import zero_shardings

__all__ = [
    "accumulate",
    "adagrad",
    "adam",
    "adamw",
    "apply_if_finite",
    "averaged",
    "by_path",
    "clip_by_global_norm",
    "clip_by_value",
    "frozen",
    "global_norm",
    "is_matrix",
    "lion",
    "loss_scale",
    "master_weights",
    "momentum",
    "pack",
    "params_ema",
    "params_swa",
    "partition_by_path",
    "recipe",
    "rmsprop",
    "scaled",
    "schedules",
    "sgd",
    "stochastic_rounding",
    "unpack",
    "update_and_apply",
    "zero_shardings",
]
