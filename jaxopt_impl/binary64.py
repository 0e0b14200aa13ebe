"""IEEE 754 binary64 by integer operations, for hyper-parameters where there is no float64: a TPU has pairs of float32 in its place.

A number is its 64 bits, in a uint64. Each operation makes an exact significand m of 63 bits, the last of which says "or a little more", and
`rounded` cuts it to 53, to nearest-even. Subnormal numbers, infinities and signs of zero are IEEE's; every NaN is one NaN.
Needs `jax.enable_x64(True)` around it. Quotient and root are long division, a bit in each turn of a loop: they are made for a few scalars.
"""

from __future__ import annotations

import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_SIGN, _INFINITY, _NAN = (np.uint64(bits) for bits in (1 << 63, 0x7FF << 52, 0xFFF << 51))
_FRACTION, _HIDDEN_BIT = (np.uint64(bits) for bits in ((1 << 52) - 1, 1 << 52))
_ONE = np.float64(1).view(np.uint64)


class Binary64:
    """A number of binary64 with the operators + - * / and negation; Python's numbers may stand on either side."""

    __slots__ = ("bits",)

    def __init__(self, bits: jax.Array | np.uint64):
        self.bits = bits

    @classmethod
    def of(cls, x):
        """A Python number, or an array: a float32 or an integer. A truth value stays one."""
        if not isinstance(x, jax.Array):
            return cls(bits_of(x))
        return x if x.dtype == bool else cls(from_array(x))

    def __neg__(self) -> Binary64:
        return Binary64(self.bits ^ _SIGN)

    def __add__(self, other) -> Binary64:
        return Binary64(add(self.bits, bits_of(other)))

    def __radd__(self, other) -> Binary64:
        return Binary64(add(bits_of(other), self.bits))

    def __sub__(self, other) -> Binary64:
        return Binary64(add(self.bits, bits_of(other) ^ _SIGN))

    def __rsub__(self, other) -> Binary64:
        return Binary64(add(bits_of(other), self.bits ^ _SIGN))

    def __mul__(self, other) -> Binary64:
        return Binary64(multiply(self.bits, bits_of(other)))

    def __rmul__(self, other) -> Binary64:
        return Binary64(multiply(bits_of(other), self.bits))

    def __truediv__(self, other) -> Binary64:
        return Binary64(divide(self.bits, bits_of(other)))

    def __rtruediv__(self, other) -> Binary64:
        return Binary64(divide(bits_of(other), self.bits))


def bits_of(number: Binary64 | numbers.Real) -> jax.Array | np.uint64:
    """The bits of a number; of Python's in NumPy, since a TPU's compiler would make a pair of float32 of a constant."""
    return number.bits if isinstance(number, Binary64) else np.float64(number).view(np.uint64)


@jax.jit
def add(a: jax.Array, b: jax.Array) -> jax.Array:
    """a + b."""
    a, b = jnp.where(_magnitude(a) < _magnitude(b), b, a), jnp.where(_magnitude(a) < _magnitude(b), a, b)
    (m, exponent), (n, smaller) = _parts(a), _parts(b)
    m, n = m << np.uint64(9), n << np.uint64(9)
    by = jnp.clip(exponent - smaller, 0, 63).astype(np.uint64)
    n = (n >> by) | ((n >> by) << by != n).astype(np.uint64)
    m = jnp.where(_sign(a) == _sign(b), m + n, m - n)
    zero = jnp.where(_sign(a) == _sign(b), _sign(a), np.uint64(0))
    total = jnp.where(m == 0, zero, _sign(a) | rounded(m, exponent + 1))
    both_infinite = (_magnitude(b) == _INFINITY) & (_sign(a) != _sign(b))
    return jnp.where(_is_nan(a) | _is_nan(b) | both_infinite, _NAN, jnp.where(_magnitude(a) == _INFINITY, a, total))


@jax.jit
def multiply(a: jax.Array, b: jax.Array) -> jax.Array:
    """a * b."""
    (m, exponent), (n, other) = _parts(a), _parts(b)
    low = np.uint64((1 << 27) - 1)
    (m1, m0), (n1, n0) = ((x >> np.uint64(27), x & low) for x in (m, n))
    last = m0 * n0
    middle = m1 * n0 + m0 * n1 + (last >> np.uint64(27))
    rest = (middle & np.uint64((1 << 16) - 1)) | (last & low)
    m = (m1 * n1 << np.uint64(11)) + (middle >> np.uint64(16)) | (rest != 0).astype(np.uint64)  # the product without its last 43 bits
    sign = _sign(a) ^ _sign(b)
    product = jnp.where((m == 0), np.uint64(0), rounded(m, exponent + other - 1022))
    infinite = (_magnitude(a) == _INFINITY) | (_magnitude(b) == _INFINITY)
    zero = (_magnitude(a) == 0) | (_magnitude(b) == 0)
    return jnp.where(_is_nan(a) | _is_nan(b) | (infinite & zero), _NAN, sign | jnp.where(infinite, _INFINITY, product))


@jax.jit
def divide(a: jax.Array, b: jax.Array) -> jax.Array:
    """a / b."""
    a, b = jnp.broadcast_arrays(a, b)
    (m, exponent), (n, other) = _parts(a), _parts(b)

    def one_bit(_, carry):
        q, rest = carry
        fits = rest >= n
        return q << np.uint64(1) | fits.astype(np.uint64), jnp.where(fits, rest - n, rest) << np.uint64(1)

    q, rest = lax.fori_loop(0, 62, one_bit, (jnp.zeros_like(m), m))
    quotient = rounded(q << np.uint64(1) | (rest != 0).astype(np.uint64), exponent - other + 1023)
    sign = _sign(a) ^ _sign(b)
    infinite = (_magnitude(a) == _INFINITY) | (_magnitude(b) == 0)
    zero = (_magnitude(a) == 0) | (_magnitude(b) == _INFINITY)
    quotient = jnp.where(zero, np.uint64(0), jnp.where(infinite, _INFINITY, quotient))
    return jnp.where(_is_nan(a) | _is_nan(b) | (infinite & zero), _NAN, sign | quotient)


@jax.jit
def sqrt(a: jax.Array) -> jax.Array:
    """The square root of a."""
    m, exponent = _parts(a)
    odd = (exponent - 1023) & 1

    def one_bit(_, carry):
        root, rest, digits = carry
        rest = rest << np.uint64(2) | digits >> np.uint64(62)
        tried = root << np.uint64(2) | np.uint64(1)
        fits = rest >= tried
        return root << np.uint64(1) | fits.astype(np.uint64), jnp.where(fits, rest - tried, rest), digits << np.uint64(2)

    digits = m << (10 + odd).astype(np.uint64)
    root, rest, _ = lax.fori_loop(0, 56, one_bit, (jnp.zeros_like(m), jnp.zeros_like(m), digits))
    root = rounded(root << np.uint64(7) | (rest != 0).astype(np.uint64), ((exponent - 1023 - odd) >> 1) + 1023)
    root = jnp.where((_magnitude(a) == 0) | (a == _INFINITY), a, root)
    return jnp.where(_is_nan(a) | ((_sign(a) != 0) & (_magnitude(a) != 0)), _NAN, root)


def power(base: Binary64 | numbers.Real, t: Binary64) -> Binary64:
    """base**t for a whole number t >= 0: binary powering, least significant bit first."""
    return Binary64(_power(jnp.broadcast_to(bits_of(base), jnp.shape(t.bits)), t.bits))


@jax.jit
def _power(base, t):
    def one_bit(carry):
        t, base, result = carry
        return t >> np.uint64(1), multiply(base, base), jnp.where(t & np.uint64(1) == 1, multiply(result, base), result)

    m, exponent = _parts(t)
    whole = m >> jnp.clip(1023 + 52 - exponent, 0, 63).astype(np.uint64)
    return lax.while_loop(lambda carry: (carry[0] > 0).any(), one_bit, (whole, base, jnp.full_like(t, _ONE)))[2]


@jax.jit
def less(a: jax.Array, b: jax.Array) -> jax.Array:
    """Whether a < b."""
    both_zero = (_magnitude(a) | _magnitude(b)) == 0
    return ~(_is_nan(a) | _is_nan(b) | both_zero) & (_ascending(a) < _ascending(b))


@jax.jit
def floor(a: jax.Array) -> jax.Array:
    """The largest whole number that is not above a."""
    _, exponent = _parts(a)
    below_one = exponent < 1023
    fraction = np.uint64((1 << 52) - 1) >> jnp.clip(exponent - 1023, 0, 52).astype(np.uint64)
    cut = jnp.where(below_one, _sign(a), a & ~fraction)
    # One more where it is negative and something was cut off: the bits of a whole number of that size, counted from its last.
    down = jnp.where(below_one, _SIGN | _ONE, (a | fraction) + np.uint64(1))
    floored = jnp.where((cut != a) & (_sign(a) != 0), down, cut)
    return jnp.where(_is_nan(a), _NAN, jnp.where(exponent >= 1023 + 52, a, floored))


@jax.jit
def power_of_two(a: jax.Array) -> jax.Array:
    """2 to the power a, a whole number from -1022 to 1023."""
    m, exponent = _parts(a)
    whole = (m >> jnp.clip(1023 + 52 - exponent, 0, 63).astype(np.uint64)).astype(np.int64)
    return (jnp.where(_sign(a) == 0, whole, -whole) + 1023).astype(np.uint64) << np.uint64(52)


def from_array(x: jax.Array) -> jax.Array:
    """The same number: of a float32, a bfloat16, a float16 or an integer."""
    if x.dtype == np.float64:
        raise TypeError("a float64 array is a pair of float32 where binary64 is computed by integers; float32 is needed")
    if jnp.issubdtype(x.dtype, jnp.floating):
        return from_float32(x.astype(np.float32))
    x = x.astype(np.int64)
    m = lax.abs(x).astype(np.uint64)
    return jnp.where(x == 0, np.uint64(0), jnp.where(x < 0, _SIGN, np.uint64(0)) | rounded(m, jnp.full(jnp.shape(x), 1023 + 62, np.int32)))


@jax.jit
def from_float32(x: jax.Array) -> jax.Array:
    """The same number."""
    bits = lax.bitcast_convert_type(x, np.uint32).astype(np.uint64)
    sign, magnitude = bits >> np.uint64(31) << np.uint64(63), bits & np.uint64(0x7FFFFFFF)
    normal = magnitude + np.uint64(896 << 23) << np.uint64(29)
    subnormal = jnp.where(magnitude == 0, np.uint64(0), rounded(magnitude, jnp.full(jnp.shape(x), 1023 + 62 - 149, np.int32)))
    finite = jnp.where(magnitude < np.uint64(1 << 23), subnormal, normal)
    infinite = jnp.where(magnitude == np.uint64(0xFF << 23), _INFINITY, _NAN)
    return sign | jnp.where(magnitude < np.uint64(0xFF << 23), finite, infinite)


@jax.jit
def to_float32(a: jax.Array) -> jax.Array:
    """Rounded to float32, once."""
    m, exponent = _parts(a)
    exponent = exponent - 1023 + 127
    bits = _cut(m, 29 + jnp.clip(1 - exponent, 0, 25)) + (jnp.maximum(exponent, 1) - 1).astype(np.uint64) * np.uint64(1 << 23)
    bits = jnp.where((exponent > 254) | (_magnitude(a) >= _INFINITY), np.uint64(0xFF << 23), bits)
    bits = jnp.where(_is_nan(a), np.uint64(0x1FF << 22), bits) | a >> np.uint64(63) << np.uint64(31)
    return lax.bitcast_convert_type(bits.astype(np.uint32), np.float32)


def _parts(x):
    """The significand, a whole number in [2⁵², 2⁵³), and the biased exponent, below 1 for a subnormal number. Of 0 the significand is 0."""
    exponent, fraction = (_magnitude(x) >> np.uint64(52)).astype(np.int32), x & _FRACTION
    missing = lax.clz(fraction) - np.uint64(11)
    subnormal = exponent == 0
    significand = jnp.where(subnormal, fraction << missing, fraction | _HIDDEN_BIT)
    return significand, jnp.where(subnormal, 1 - missing.astype(np.int32), exponent)


def rounded(m, exponent):
    """The bits of m 2^(exponent − 1023 − 62), for m in (0, 2⁶³), rounded once, to fewer bits where it is subnormal."""
    missing = lax.clz(m) - np.uint64(1)
    m, exponent = m << missing, exponent - missing.astype(np.int32)
    m = jnp.where(exponent < -52, np.uint64(1), m)  # less than half of the smallest number
    bits = _cut(m, 10 + jnp.clip(1 - exponent, 0, 53)) + ((jnp.maximum(exponent, 1) - 1).astype(np.uint64) << np.uint64(52))
    return jnp.where(exponent > 2046, _INFINITY, bits)


def _cut(m, count):
    """m without its last bits, so many, rounded to nearest-even."""
    count = count.astype(np.uint64)
    half = (np.uint64(1) << (count - np.uint64(1))) - np.uint64(1) + (m >> count & np.uint64(1))
    return m + half >> count


def _magnitude(x):
    return x & ~_SIGN


def _sign(x):
    return x & _SIGN


def _ascending(x):
    """The bits of a number, changed so that they are in the order of the numbers."""
    return jnp.where(_sign(x) == 0, x | _SIGN, ~x)


def _is_nan(x):
    return _magnitude(x) > _INFINITY
