"""Programs that are broken on purpose: what the checks of accelerators must see."""

import contextlib
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxopt_impl import numerics as nx
from optparity.accelerators import programs
from optparity.accelerators.programs import Built
from optparity.registry import Row


def unfenced(row: Row, dtype: str) -> Built:
    """A rule without any fence, and with the quotient and the root of the backend."""
    return _with(
        programs.train_step(row, dtype),
        signed_zero=lambda x, *others: np.zeros([], x.dtype),
        divided_by_scalar=lambda a, b: a / b,
        barrier=lambda *arrays: arrays,
        _exact=lambda value, *others: value,
    )


def approximate(row: Row, dtype: str) -> Built:
    """A rule that takes the backend's quotient and root for exact."""
    return _with(programs.train_step(row, dtype), _exact=lambda value, *others: value)


def without_fence(name: str, dtype: str) -> Built:
    """A canary whose factors and sums are not fenced."""
    return _with(programs.fenced_canary(name, dtype), fence=lambda x: x)


def without_rounding(row: Row, dtype: str) -> Built:
    """A rule in half precision of which only the results are rounded."""
    return _with(programs.train_step(row, dtype), _ROUND={dtype: lambda x: x})


def signed_bits(row: Row, dtype: str) -> Built:
    """A float64 that is fenced by a sign bit in an int64."""

    def fenced(x):
        bits = lax.bitcast_convert_type(x.astype(jnp.float64), jnp.int64)
        return (x + lax.bitcast_convert_type(bits & np.int64(-(2**63)), jnp.float64)).astype(dtype)

    def in_float64(x):
        with jax.enable_x64(True):
            return fenced(x)

    return Built(in_float64, (jax.ShapeDtypeStruct((), dtype),))


def _with(built: Built, **replaced: Callable | dict) -> Built:
    """The same program, traced with other functions in the place of those of `numerics`."""

    def function(*arguments):
        with contextlib.ExitStack() as stack:
            for name, other in replaced.items():
                stack.enter_context(mock.patch.object(nx, name, other))
            return built.function(*arguments)

    return built._replace(function=function)
