"""The optimizer's state, from the transforms themselves: `jax.eval_shape` of their `init`, so that every flag counts by itself."""

import warnings
from collections import Counter
from typing import Any, NamedTuple

import jax
import optax

from ..registry import OPTIMIZERS
from . import checks
from .memory import Bytes, nbytes, plus, total


class State(NamedTuple):
    """Bytes by dtype: what grows with the parameters, and the step counters."""

    arrays: Bytes
    scalars: Bytes

    @property
    def bytes(self) -> dict[str, int]:
        return plus(self.arrays, self.scalars)


def state(optimizer: str | optax.GradientTransformation, params: Any, framework: str = "jax", **options: Any) -> State:
    """The bytes of an optimizer's state, exact in both frameworks.

    JAX keeps one int32 step, PyTorch a float32 step for each parameter (float64 where that is the default dtype; not counted here).

    Args:
        optimizer: a name of `optparity.OPTIMIZERS`, or (in JAX) any optax transform.
        params: a pytree of arrays or `jax.ShapeDtypeStruct`s; nothing is allocated.
        framework: whose layout: "jax" or "torch".
        options: the optimizer's arguments (`amsgrad=True`, `accumulator_dtype="float32"`); the learning rate may be left out.
    Raises: ValueError for an unknown optimizer or option, an option of another kind than its default, or where PyTorch's layout of an
        optax transform is asked for.
    Example:
        >>> state("adam", {"w": jax.ShapeDtypeStruct((3, 4), "float32")}, amsgrad=True).bytes
        {'float32': 144, 'int32': 4}
    """
    tx = transform(optimizer, **options)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    leaves = jax.tree.leaves(params)
    wide = any(leaf.dtype.itemsize == 8 for leaf in leaves)  # counted as 4 without x64
    each = isinstance(optimizer, str) and leaves  # our rules treat each leaf by itself, so that one of many alike is enough
    several = [(n, leaf) for leaf, n in Counter(leaves).items()] if each else [(1, params)]
    with jax.enable_x64(wide or jax.config.read("jax_enable_x64")), warnings.catch_warnings(action="ignore"):  # ε does not matter here
        kept = [(n, jax.tree.leaves(jax.eval_shape(tx.init, of))) for n, of in several]
    arrays = total((dtype, n * count) for n, of in kept for dtype, count in nbytes(leaf for leaf in of if not _counter(leaf)).items())
    scalars = nbytes(leaf for leaf in kept[0][1] if _counter(leaf))
    if framework == "torch":
        if not isinstance(optimizer, str):
            raise ValueError("accounting: PyTorch's layout is known for a name of optparity.OPTIMIZERS only; got an optax transform.")
        scalars = total([("float32", 4 * len(leaves))]) if OPTIMIZERS[optimizer].has_step else {}
    return State(arrays, scalars)


def transform(optimizer: str | optax.GradientTransformation, **options: Any) -> optax.GradientTransformation:
    """The transform of that name with these options."""
    if not isinstance(optimizer, str):
        if options:
            raise ValueError(f"accounting: options are for an optimizer named by its name; got an optax transform and {options}.")
        if not callable(getattr(optimizer, "init", None)):
            raise ValueError(f"accounting: an optimizer is a name of optparity.OPTIMIZERS or an optax transform; got {optimizer!r}.")
        return optimizer
    checks.options(optimizer, options)
    return OPTIMIZERS[optimizer].jax(**{"learning_rate": 0.0, **options})


def _counter(leaf: Any) -> bool:
    return not leaf.shape and jax.numpy.issubdtype(leaf.dtype, jax.numpy.integer)
