"""A value that is computed otherwise on some platforms: one traced program, and each compiler gets the operations that are right there."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_instead = Primitive("instead")


def instead(value: jax.Array, *arguments: jax.Array, **functions: Callable) -> jax.Array:
    """`value`, except where the program is compiled for a platform that is named here: there `functions[platform](*arguments)`.

    Args:
        value: an array; its derivatives are those of the result, everywhere.
        arguments: arrays, what the functions take.
        functions: by platform ("cpu", "tpu", "gpu"; "other" are those that are none of them): what computes an array like `value`. It is
            traced when the program is lowered for that platform, so it costs nothing elsewhere.
    """
    return _instead.bind(value, *arguments, functions=tuple(functions.items()))


def _here(value, *arguments, functions):
    """Outside of a jit: on the platform where the value lies."""
    (platform,) = {device.platform for device in value.devices()}
    return _on(platform, functions, value, *arguments)


def _on(platform, functions, value, *arguments):
    known = platform if platform in ("cpu", "tpu", "gpu") else "gpu" if platform in ("cuda", "rocm") else "other"
    function = dict(functions).get(known)
    return function(*arguments) if function else value


def _lowering(platform):
    def lower(ctx, *operands, functions):
        return mlir.lower_fun(lambda *arrays: _on(platform, functions, *arrays), multiple_results=False)(ctx, *operands)

    return lower


def _batched(arrays, axes, *, functions):
    """Every array with its batch in front; the value has one in any case, since the result may."""
    size = next(x.shape[axis] for x, axis in zip(arrays, axes, strict=True) if axis is not None)
    value, *arguments = (x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(arrays, axes, strict=True))
    if axes[0] is None:
        value = jnp.broadcast_to(value, (size, *value.shape))
    along = tuple(axis if axis is None else 0 for axis in axes[1:])
    mapped = {platform: jax.vmap(function, along, axis_size=size) for platform, function in functions}
    return instead(value, *arguments, **mapped), 0


_instead.def_impl(_here)
_instead.def_abstract_eval(lambda value, *_, functions: value)
batching.primitive_batchers[_instead] = _batched
ad.primitive_jvps[_instead] = lambda arrays, tangents, functions: (_instead.bind(*arrays, functions=functions), tangents[0])
mlir.register_lowering(_instead, _lowering("other"))
for platform in ("cpu", "cuda", "rocm", "tpu"):
    mlir.register_lowering(_instead, _lowering(platform), platform=platform)
