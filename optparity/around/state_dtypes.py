"""State in other dtypes: first moments in bfloat16, float32 masters of half parameters, stochastic rounding to bfloat16."""

from typing import Any

import optax

from ..registry import OPTIMIZERS, Refused
from .piece import Piece


def _first_moment_in_jax(optimizer: str, **arguments: Any) -> optax.GradientTransformation:
    return OPTIMIZERS[optimizer].jax(**arguments)


def _first_moment_in_torch(optimizer: str, **arguments: Any):
    entry = OPTIMIZERS[optimizer]
    return lambda params: entry.torch(params, **entry.in_torch(arguments))


_ADAM = {"learning_rate": 0.1, "eps": 1e-4, "mu_dtype": "bfloat16"}  # an eps that float16 holds

MU_DTYPE = Piece(
    name="mu_dtype",
    rows={
        "default": {"optimizer": "adamw", **_ADAM},
        "adam, all": {"optimizer": "adam", **_ADAM, "b1": 0.8, "weight_decay": 0.1, "amsgrad": True, "maximize": True},
        "adamw, float32 accumulators": {"optimizer": "adamw", **_ADAM, "weight_decay": 0.1, "accumulator_dtype": "float32"},
        "lion": {"optimizer": "lion", "learning_rate": 0.1, "weight_decay": 0.1, "mu_dtype": "bfloat16"},
    },
    jax=_first_moment_in_jax,
    torch=_first_moment_in_torch,
    refused=tuple(
        Refused(
            {"optimizer": optimizer, "learning_rate": 0.1, "mu_dtype": dtype},
            f"{optimizer}: mu_dtype {dtype} is not supported; bfloat16 or None is needed.",
        )
        for optimizer, dtype in (("adam", "float16"), ("adamw", "float32"), ("lion", "bf16"))
    ),
    differs="Stock optax rounds the product with the old moment to bfloat16 as well; torch.optim keeps moments in the parameter's dtype.",
)

PIECES = (MU_DTYPE,)
