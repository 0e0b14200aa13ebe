"""What this jax backend has."""

import jax

from ..registry import DTYPES


def dtypes() -> tuple[str, ...]:
    """The dtypes that rules can be run in: a TPU has no float64."""
    return tuple(dtype for dtype in DTYPES if dtype != "float64" or jax.default_backend() != "tpu")
