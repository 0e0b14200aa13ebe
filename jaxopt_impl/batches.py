"""A divisor under `jax.vmap`: where only the numerator has a batch, XLA sees one divisor for many, and takes its reciprocal."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_own_divisor = Primitive("own_divisor")


def own_divisor(divisor: jax.Array, numerator: jax.Array, zero: Callable) -> jax.Array:
    """The divisor as it is; but where `vmap` gives an axis to the numerator alone, one for each, by `zero(numerator)` added to it."""
    return _own_divisor.bind(divisor, jnp.broadcast_to(numerator, divisor.shape), zero=zero)


def _batched(arrays, axes, *, zero):
    divisor, numerator = (x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(arrays, axes, strict=True))
    if axes[0] is None:
        divisor = jnp.broadcast_to(divisor, numerator.shape) + zero(numerator)
    return own_divisor(divisor, numerator, zero), 0


_own_divisor.def_impl(lambda divisor, numerator, zero: divisor)
_own_divisor.def_abstract_eval(lambda divisor, numerator, zero: divisor)
batching.primitive_batchers[_own_divisor] = _batched
ad.primitive_jvps[_own_divisor] = lambda arrays, tangents, zero: (_own_divisor.bind(*arrays, zero=zero), tangents[0])
mlir.register_lowering(_own_divisor, lambda ctx, divisor, numerator, zero: [divisor])
