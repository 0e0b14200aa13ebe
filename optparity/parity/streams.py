"""Named, seeded gradient streams: what an optimizer meets in training, and what breaks one.

`STREAMS[name](rng, step, shape, dtype)` draws one leaf of one step; `rng` is a fresh generator per stream, leaf and step, so a stream
can be entered anywhere and does not depend on the order of its leaves. Only exactly portable arithmetic follows the draw.
"""

import zlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np


def _normal(rng, step, shape, dtype):
    return rng.standard_normal(shape, np.float32).astype(dtype)


def _wide(rng, step, shape, dtype):
    """Magnitudes from 1e-12 to 1e4, all in one leaf (from 0 on in float16)."""
    return np.ldexp(rng.standard_normal(shape, np.float32), rng.integers(-40, 14, shape, np.int32)).astype(dtype)


def _zeros(rng, step, shape, dtype):
    """Zeros of both signs, in whole leaves (odd steps) or among other numbers (even steps)."""
    zeros = np.copysign(np.zeros(shape, dtype), _normal(rng, step, shape, dtype))
    return zeros if step % 2 else np.where(rng.random(shape) < 0.5, zeros, _normal(rng, step, shape, dtype))


def _constant(rng, step, shape, dtype):
    """The same number everywhere, always: what a loss linear in a bias gives."""
    return np.full(shape, 0.1, dtype)


def _alternating(rng, step, shape, dtype):
    """One number with the sign of the step."""
    return np.full(shape, 0.1 if step % 2 else -0.1, dtype)


def _subnormal(rng, step, shape, dtype):
    """Subnormals and the smallest normal numbers, put together as bits, so that no arithmetic can flush them on the way."""
    unsigned, nmant = np.dtype(f"u{np.dtype(dtype).itemsize}"), jnp.finfo(dtype).nmant
    sign, exponent, mantissa = (rng.integers(0, n, shape, np.uint64) for n in (2, 4, 2**nmant))
    return np.asarray(sign << (8 * unsigned.itemsize - 1) | exponent << nmant | mantissa).astype(unsigned).view(dtype)


def _huge(rng, step, shape, dtype):
    """Up to the largest finite number: squares and sums overflow."""
    maxexp = jnp.finfo(dtype).maxexp
    magnitude = np.ldexp(rng.standard_normal(shape), rng.integers(maxexp // 2 - 3, maxexp - 3, shape, np.int32))
    return magnitude.astype(dtype)


def _among(special: float):
    """A few special values among normal ones, from step 3 on."""

    def draw(rng, step, shape, dtype):
        hit = rng.random(shape) < (0.01 if step > 2 else 0)
        special_signed = np.copysign(np.full(shape, special, dtype), _normal(rng, step, shape, dtype))
        return np.where(hit, special_signed, _normal(rng, step, shape, dtype))

    return draw


STREAMS: dict[str, Callable] = {
    "normal": _normal,
    "wide": _wide,
    "zeros": _zeros,
    "constant": _constant,
    "alternating": _alternating,
    "subnormal": _subnormal,
    "huge": _huge,
    "inf": _among(np.inf),
    "nan": _among(np.nan),
}


def gradients(stream: str, params, seed: int = 0) -> Iterator:
    """The steps of a stream, as pytrees like `params`, without end."""
    leaves, treedef = jax.tree.flatten(params)
    step = 0
    while True:
        step += 1
        yield treedef.unflatten(
            [STREAMS[stream](_rng(seed, stream, step, i), step, leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)]
        )


def parameters(sizes: dict[str, tuple[int, ...]], dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Normal parameters of the given shapes, one in a hundred a zero of either sign."""
    params = {}
    for i, (name, shape) in enumerate(sizes.items()):
        rng = _rng(seed, "parameters", 0, i)
        values = _normal(rng, 0, shape, dtype)
        params[name] = np.where(rng.random(shape) < 0.01, np.copysign(np.zeros_like(values), values), values)
    return params


def _rng(*key) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(k.encode()) if isinstance(k, str) else k for k in key])
