"""The float32 quotient and root that round once, from approximate ones: for backends whose own do not, as those of TPUs.

The significands A and B are whole numbers of 24 bits. An approximation says what Q = A 2ˢ / B is, give or take some units. What it is
exactly is told by the remainder R = A 2ˢ − Q B: it is small, so its low 32 bits are all of it, and integers wrap around everywhere alike.
R / B, again approximately, corrects Q to the nearest whole number; the sign of what remains says on which side of it the quotient is.
The root is the same with R = N − Q². Neither needs float64, an FMA, or a reciprocal that is better than 30 units in the last place.

Every case of IEEE 754 is here: zeros, infinities, NaN, overflow, and subnormal numbers, kept where the backend's additions keep them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_SIGN, _INFINITY, _FRACTION, _ONE = (np.uint32(bits) for bits in (0x80000000, 0x7F800000, 0x007FFFFF, 0x3F800000))
_HIDDEN_BIT = np.uint32(0x00800000)


def quotient(a: jax.Array, b: jax.Array) -> jax.Array:
    """a / b, rounded once. The reciprocal that it takes, of a number in [1, 2), may be off by 30 units in the last place."""
    a, b = _flushed(a), _flushed(b)
    (m, exponent), (n, divisor_exponent) = _parts(a), _parts(b)
    short = (m < n).astype(np.uint32)  # 1 where the quotient of the significands is below 1, and takes a bit more
    r = 1 / _significand(n, np.uint32(0))
    q = _whole(_significand(m, short) * r)
    rest = _signed((m << (short + np.uint32(23))) - _unsigned(q) * n)
    k, n = _nearest(rest.astype(np.float32) * r * np.float32(2**-23)), _signed(n)
    q, rest = q + k, rest - k * n
    k = (2 * rest > n).astype(np.int32) - (2 * rest < -n).astype(np.int32)  # (the second only where products do not round to nearest)
    q, rest = q + k, rest - k * n
    bits = _assembled(q, rest, exponent - divisor_exponent + 127 - _signed(short))
    sign = (_bits(a) ^ _bits(b)) & _SIGN
    return _flushed(jnp.where(_is_number(a) & _is_number(b), _float(bits | sign), _as_limits(a, b)))


def sqrt(x: jax.Array) -> jax.Array:
    """The square root of x, rounded once. The reciprocal root that it takes, of a number in [1, 4), may be off by 30 units likewise."""
    x = _flushed(x)
    m, exponent = _parts(x)
    odd = (exponent - 127) & 1
    n = m << _unsigned(odd)
    y = _significand(m, _unsigned(odd))
    r = lax.rsqrt(y)
    q = _whole(y * r)
    q = q + _nearest(_rest_of_square(n, q).astype(np.float32) * r * np.float32(2**-24))
    rest = _rest_of_square(n, q)
    q = q + (rest > q).astype(np.int32) - (rest <= -q).astype(np.int32)  # (q ± 1/2)² = q² ± q + 1/4: never a tie
    bits = _unsigned((((exponent - 127 - odd) >> 1) + 126 << 23) + q)
    negative = (_bits(x) & _SIGN != 0) & (_bits(x) & ~_SIGN != 0)
    return jnp.where(negative, np.float32(np.nan), jnp.where(_is_number(x), _float(bits), x))


def _parts(x):
    """The significand, a whole number in [2²³, 2²⁴), and the biased exponent, below 1 for a subnormal number; of x = 0 no matter what."""
    bits = _bits(x) & ~_SIGN
    exponent, fraction = _signed(bits >> np.uint32(23)), bits & _FRACTION
    missing = lax.clz(fraction) - np.uint32(8)
    subnormal = exponent == 0
    significand = jnp.where(subnormal, fraction << missing, fraction | _HIDDEN_BIT)
    return significand, jnp.where(subnormal, 1 - _signed(missing), exponent)


def _assembled(q, rest, exponent):
    """The bits of (q + less than 1/2 with the sign of `rest`) 2^(exponent − 150): rounded once, to fewer bits where it is subnormal."""
    wide = _unsigned(4 * q + jnp.clip(rest, -1, 1))
    dropped = _unsigned(2 + jnp.clip(1 - exponent, 0, 25))
    half = (np.uint32(1) << (dropped - np.uint32(1))) - np.uint32(1) + ((wide >> dropped) & np.uint32(1))  # a tie goes to even
    bits = ((wide + half) >> dropped) + (_unsigned(jnp.maximum(exponent, 1) - 1) << np.uint32(23))
    return jnp.where(exponent > 254, _INFINITY, bits)


def _as_limits(a, b):
    """a / b where one is 0, infinite or NaN: a product, where 0 and infinity have changed places in b."""
    limit = (_bits(b) & ~_SIGN == 0) | (_bits(b) & ~_SIGN == _INFINITY)
    return a * _float(jnp.where(limit, _bits(b) ^ _INFINITY, _bits(b)))


def _is_number(x):
    """Whether x is neither 0 nor infinite nor NaN. By its bits: a compiler that thinks of gradual underflow may reword `x == 0`."""
    return (_bits(x) & ~_SIGN) - np.uint32(1) < _INFINITY - np.uint32(1)


def _rest_of_square(n, q):
    return _signed((n << np.uint32(23)) - _unsigned(q) * _unsigned(q))


def _significand(m, doubled):
    """A significand as a number in [1, 2), or doubled."""
    return _float(((m & _FRACTION) | _ONE) + (doubled << np.uint32(23)))


def _whole(x):
    """2²³ x as a whole number, for x in [1, 2), or nearly."""
    return _signed(_bits(x) - (_ONE - _HIDDEN_BIT))


def _nearest(x):
    """The nearest whole number: the last bits of a sum with 3 · 2²²."""
    return _signed(_bits(x + np.float32(3 * 2**22)) - np.float32(3 * 2**22).view(np.uint32))


def _flushed(x):
    """x, where a subnormal number becomes 0 if it does so in an addition."""
    return x + _float(_bits(x) & _SIGN)


def _bits(x):
    return lax.bitcast_convert_type(x, np.uint32)


def _float(bits):
    return lax.bitcast_convert_type(bits, np.float32)


def _signed(x):
    return lax.bitcast_convert_type(x, np.int32)


def _unsigned(x):
    return lax.bitcast_convert_type(x, np.uint32)
