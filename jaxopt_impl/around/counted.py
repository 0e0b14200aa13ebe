"""What a schedule is: a function of the count of steps, in float64, rounded once.  In PyTorch: torch_ref/around/counted.py"""

from collections.abc import Callable
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from .. import numerics as nx


class Schedule:
    """A schedule of optax, `count -> value`, whose bits do not depend on who calls it.

    Args:
        rule: the value as a function of the count; both are numbers: float64, `nx.Scalar` where only the run will tell. It is made of
            + - * / and what `nx` and `functions` offer for numbers, so that its bits are the same eager, compiled, and in PyTorch.
    Shapes: the value has the shape of the count, mostly [].  Dtypes: float32; float64 with x64. The count is a whole number: Python's,
        NumPy's or JAX's.
    Exactness: bit-equal to `torch_ref.schedules` of the same name. Run on CPU; GPU and TPU not run.
    Example:
        >>> halved = Schedule(lambda t: 0.5 / (t + 1))
        >>> halved(1)
        Array(0.25, dtype=float32)
    """

    def __init__(self, rule: Callable):
        self.rule = rule

    def __call__(self, count) -> jax.Array:
        return self._compiled(count)

    @cached_property
    def _compiled(self) -> Callable:
        return jax.jit(lambda count: jnp.vectorize(self._value)(count))

    def _value(self, count) -> jax.Array:
        dtype = jnp.result_type(float).name  # outside of the next line
        with jax.enable_x64(True):
            value = self.rule(nx.scalar(count))
            return value.rounded_to(dtype) if isinstance(value, nx.Scalar) else jnp.asarray(np.dtype(dtype).type(value))
