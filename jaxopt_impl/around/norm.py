"""The global norm: a sum of squares in which no addition rounds, so that its order is free.  Mirror: torch_ref/around/norm.py

    m = max |xᵢ| < 2ᴱ,   yᵢ = xᵢ 2⁻ᴱ,   S = Σ ⌊yᵢ² / q⌋,   ‖x‖ = √(S q + what is left) 2ᴱ

Of each square the whole number of quanta q is taken. q = 2^(−bits·digits) depends on the number of elements only, so S is the same whole
number in any order, split into any leaves and over any devices; so is whether anything is left. S is kept as digits of so many bits, each
an int64 (reproducible summation: Demmel & Nguyen 2015).

- The square of a float32 or of a half is exact in float64. That of a float64 is four such terms (`squares`).
- n terms leave less than n q of a sum S q >= 1/4: 2⁻⁴¹ of it for 2²⁷ elements in 2 digits, 2⁻⁶⁰ for 2³¹ in 3. The root halves that, and
  is rounded once. So the norm in float32 is the correctly rounded one, unless a number between two of float32 is less than 2⁻⁴² below it.
  In float64 there is a digit more: 2⁻⁷⁵.

A digit is cut off by adding 1.5 · 2⁵² times its unit: to the nearest one, which then stands in the last bits of the sum; of the last digit
one is taken back where that was too much. Integers are added, since
XLA on CPU makes vectors of these additions, and not of those of float64 (15 ms in the place of 100 at 32M elements). TPUs have no float64:
there the squares are cut by integers as well. Where the platform flushes subnormals, they count as 0.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import keystr, tree_leaves_with_path

from .. import binary64, checks
from .. import numerics as nx
from ..platforms import instead

_INTEGERS = {"float32": (np.int32, np.uint32), "float64": (np.int64, np.uint64)}
_UPPER, _EVEN = np.uint64((1 << 64) - (1 << 27)), np.uint64((1 << 64) - 2)  # the first 26 bits of a float64; all but the last one
_TINY = 2.0**-300  # below it no square reaches a quantum, and what is computed of them may underflow


def global_norm(tree, axis_name=None) -> jax.Array:
    """The norm of all leaves together, with the same bits in whatever order, on however many devices.

        ‖x‖ = √Σ xᵢ²

    Args:
        tree: of arrays; a None is no leaf.
        axis_name: in a `shard_map` or `vmap`, the axis (or axes) over which every leaf is spread. What `jit` spreads needs no name.
    Shapes: any to [].  Dtypes: float32, float64, bfloat16, float16, also mixed; the norm is float64 if a leaf is, else float32.
    Raises: TypeError where a leaf is not floating point, naming it.
    Exactness: the correctly rounded norm, up to 2²⁷ elements unless a number between two of float32 is less than 2⁻⁴² below it; in float64
        unless one is less than 2⁻⁷⁵ below. NaN if there is one, else infinity if there is one; no square overflows or underflows.
        Bit-equal to `torch_ref.get_total_norm`. Run on CPU; for GPU and TPU compiled, not run.
    Differs from: optax.tree.norm (squares overflow and underflow, and are summed in the leaves' dtype, in an order that is XLA's; that of
        halves is a half).
    Source: Demmel & Nguyen 2015, "Parallel Reproducible Summation".
    Example:
        >>> import jax.numpy as jnp
        >>> global_norm({"w": jnp.array([3e30, 0.0]), "b": jnp.array(4e30)})
        Array(5.e+30, dtype=float32)
    """
    return norm_of("global_norm", tree, axis_name)


def norm_of(name: str, tree, axis_name) -> jax.Array:
    """The same for `name`, which is what error messages begin with."""
    leaves = [(f"params{keystr(path)}", jnp.asarray(x, jnp.result_type(x))) for path, x in tree_leaves_with_path(tree)]
    arrays = [checked(name, path, x) for path, x in leaves]
    if not any(x.size for x in arrays):
        return jnp.zeros([], norm_dtype(arrays))
    with jax.enable_x64(True):
        return _norm([x for x in arrays if x.size], axis_name)


def checked(name: str, path: str, x: jax.Array) -> jax.Array:
    """The same leaf, which is floating point; to compile it for a TPU is an error if it is a float64."""
    checks.floating(name, path, x.dtype.name)
    if x.dtype != np.float64:
        return x
    return nx.refused_on_tpu(x, f"{name}: {path} is float64, which TPUs do not have; float32 is needed.")


def norm_dtype(leaves) -> np.dtype:
    """The dtype of the norm of these leaves."""
    return np.dtype(np.float64 if any(jnp.result_type(x) == np.float64 for x in leaves) else np.float32)


@partial(jax.jit, static_argnums=1)
def _norm(leaves: list[jax.Array], axis_name) -> jax.Array:
    dtype = norm_dtype(leaves)
    arrays = [nx.wrap(x, x.dtype.name).x for x in nx.barrier(*leaves)]
    count = sum(x.size * (4 if x.dtype == np.float64 else 1) for x in arrays) * (1 if axis_name is None else lax.axis_size(axis_name))
    bits, digits = layout(count, dtype.name)
    largest = magnitude(arrays, dtype, axis_name)
    sums = instead(
        sums_of_squares(largest, *arrays, bits=bits, digits=digits),
        *(() if dtype == np.float64 else (largest, *arrays)),
        **({} if dtype == np.float64 else {"tpu": partial(sums_by_integers, bits=bits, digits=digits)}),
    )
    if axis_name is not None:
        sums = lax.psum(sums, axis_name)
    if dtype == np.float64:
        return root64(sums, largest, bits=bits)
    return instead(root32(sums, largest, bits=bits), sums, largest, tpu=partial(root_by_integers, bits=bits))


def layout(count: int, dtype: str) -> tuple[int, int]:
    """The bits of a digit, and how many there are, so that the sum of so many terms fits: of its first digit, into 62 bits."""
    k = (count - 1).bit_length()
    return min(50, 62 - k), 2 + (k > 27) + (dtype == "float64")


def magnitude(arrays: list[jax.Array], dtype: np.dtype, axis_name) -> jax.Array:
    """The largest magnitude, NaN if there is one.

    By the bits, as integers: where the parts of a maximum are on several devices of a CPU, XLA loses a NaN. The largest signed integer is
    the largest positive number, the largest unsigned one the largest negative number if there is one. (Both at once: a reduction of one
    array of integers is slower by far.)
    """
    found = []
    for x in arrays:
        signed, unsigned = _INTEGERS[x.dtype.name]
        both = lax.bitcast_convert_type(x, signed), lax.bitcast_convert_type(x, unsigned)
        positive, negative = lax.reduce(both, (signed(0), unsigned(0)), lambda a, b: tuple(map(lax.max, a, b)), range(x.ndim))
        bits = lax.max(positive, lax.bitcast_convert_type(negative & unsigned(np.iinfo(signed).max), signed))
        own = lax.bitcast_convert_type(bits, x.dtype).astype(dtype)
        found.append(lax.bitcast_convert_type(own, _INTEGERS[dtype.name][0]))
    largest = jnp.max(jnp.stack(found))
    return lax.bitcast_convert_type(largest if axis_name is None else lax.pmax(largest, axis_name), dtype)


def sums_of_squares(largest: jax.Array, *arrays: jax.Array, bits: int, digits: int) -> jax.Array:
    """The digits of S, and how many arrays have something left: int64 [digits + 1]."""
    exponent = -exponent_of(largest)
    scales = [power_of_two(exponent)]
    if largest.dtype == np.float64:  # one power of two could overflow
        scales = [power_of_two(exponent >> 1), power_of_two(exponent - (exponent >> 1))]
    units = [np.float64(1.5 * 2.0 ** (52 - bits * (i + 1))) for i in range(digits)]
    scales, unknown = lax.optimization_barrier((scales, [jnp.asarray(unit) for unit in units]))  # (a + c) - c with a constant c is a to XLA
    sums = jnp.zeros([digits + 1], np.int64)
    for x in arrays:
        y = x.astype(np.float64)
        for scale in scales:
            y = y * scale
        if x.dtype == np.float64:
            sums = sums.at[-1].add(jnp.any((x != 0) & (jnp.abs(y) < _TINY)).astype(np.int64))
        for term in squares(y) if x.dtype == np.float64 else [y * y]:
            cut = []
            for unit in unknown:
                shifted = term + unit
                cut.append(lax.bitcast_convert_type(shifted, np.int64))
                term = term - (shifted - unit)
            left = lax.bitcast_convert_type(term, np.int64)
            cut[-1] = cut[-1] + (left >> 63)  # one less where too much was cut off, and what is left is negative
            offsets = np.array([_wrapped(x.size * int(unit.view(np.int64))) for unit in units] + [0])
            sums = sums + _reduced(cut, left) - offsets
    return sums


def _reduced(cut: list[jax.Array], left: jax.Array) -> jax.Array:
    """The sum of each digit, and 1 if anything is left. All at once: XLA on CPU would write what two reductions take to memory first."""

    def both(a, b):
        return *map(lax.add, a[:-1], b[:-1]), lax.bitwise_or(a[-1], b[-1])

    *sums, rest = lax.reduce([*cut, left], [np.int64(0)] * (len(cut) + 1), both, range(left.ndim))
    return jnp.stack([*sums, (rest != 0).astype(np.int64)])


def _wrapped(number: int) -> int:
    """A whole number modulo 2⁶⁴, as an int64 has it."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def squares(y: jax.Array) -> list[jax.Array]:
    """Four float64 >= 0 whose sum is y², each exact, so that contraction cannot change them: of 26 bits and the 27 after them."""
    y = jnp.abs(y)
    upper, even = (lax.bitcast_convert_type(lax.bitcast_convert_type(y, np.uint64) & mask, np.float64) for mask in (_UPPER, _EVEN))
    lower = y - upper
    return [upper * upper, 2 * upper * lower, (even - upper) * lower, (y - even) * lower]


def exponent_of(x: jax.Array) -> jax.Array:
    """E with 2ᴱ⁻¹ <= x < 2ᴱ, for x > 0: int64."""
    wide = x.astype(np.float64)
    normal = lax.bitcast_convert_type(wide, np.int64) >> 52
    subnormal = lax.bitcast_convert_type(wide * np.float64(2.0**54), np.int64) >> 52
    return jnp.where(normal == 0, subnormal - 54, normal) - 1022


def power_of_two(exponent: jax.Array) -> jax.Array:
    """2^exponent in float64, for exponents from −1022 to 1023."""
    return lax.bitcast_convert_type((exponent + 1023) << 52, np.float64)


def sums_by_integers(largest: jax.Array, *arrays: jax.Array, bits: int, digits: int) -> jax.Array:
    """The same without float64; subnormals are 0. (The digits are others, the number that they make is not.)"""
    with jax.enable_x64(True):  # it is traced when it is lowered
        exponent = _parts32(largest)[1] + 24
        sums = jnp.zeros([digits + 1], np.int64)
        for x in arrays:
            m, own = _parts32(x)
            rest, shift = m * m, 2 * (own - exponent)
            cut = []
            for _ in range(digits):
                shift = shift + bits
                down = jnp.clip(-shift, 0, 62)
                cut.append(jnp.where(shift > 0, rest << jnp.clip(shift, 0, 62), rest >> down))
                rest = rest & (1 << down) - 1
            sums = sums + _reduced(cut, rest)
        return sums


def _parts32(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """m and e with |x| = m 2ᵉ, m < 2²⁴; int64."""
    magnitude = (lax.bitcast_convert_type(x, np.uint32) & np.uint32(0x7FFFFFFF)).astype(np.int64)
    field = magnitude >> 23
    return jnp.where(field == 0, 0, magnitude & (1 << 23) - 1 | 1 << 23), field - 150


def normalized(sums: jax.Array, bits: int) -> tuple[jax.Array, jax.Array, list[tuple[jax.Array, jax.Array]]]:
    """S q as (number + Σ rest 2^-places) 2^exponent, number in [2⁶², 2⁶³) and each rest below its 2^places."""
    *whole, _ = sums
    for i in reversed(range(1, len(whole))):
        carry = whole[i] >> bits
        whole[i - 1], whole[i] = whole[i - 1] + carry, whole[i] - (carry << bits)
    number, taken, rests, places = whole[0], jnp.int64(0), [], jnp.int64(0)
    for digit in whole[1:]:
        free = jnp.clip(lax.clz(number) - 1, 0, bits)
        left = bits - free
        number, taken, places = number << free | digit >> left, taken + free, places + left
        rests.append((digit & (1 << left) - 1, places))
    return number, -bits - taken, rests


def root32(sums: jax.Array, largest: jax.Array, *, bits: int) -> jax.Array:
    """The norm in float32. 52 bits of S, the last one for all that follow, tell on which side of a number between two it is."""
    number, exponent, _ = _to_odd(sums, bits)
    root = jnp.sqrt(number.astype(np.float64) * power_of_two(exponent + 2 * exponent_of(largest)))
    return _or_itself(nx.fence(nx.fence(root).astype(np.float32)), largest)


def root_by_integers(sums: jax.Array, largest: jax.Array, *, bits: int) -> jax.Array:
    """The same without float64."""
    with jax.enable_x64(True):
        number, exponent, _ = _to_odd(sums, bits)
        of_largest = _parts32(largest)[1] + 24
        square = binary64.multiply(binary64.from_array(number), (exponent + 2 * of_largest + 1023 << 52).astype(np.uint64))
        return _or_itself(binary64.to_float32(binary64.sqrt(square)), largest)


def _to_odd(sums, bits):
    number, exponent, rests = normalized(sums, bits)
    more = (number & (1 << 11) - 1 | sums[-1]) != 0
    for rest, _ in rests:
        more = more | (rest != 0)
    return number >> 11 | more.astype(np.int64), exponent + 11, rests


def root64(sums: jax.Array, largest: jax.Array, *, bits: int) -> jax.Array:
    """The norm in float64, rounded once: long division's root of the first 120 bits of S, a bit in each turn."""
    number, exponent, rests = normalized(sums, bits)
    following, more = jnp.int64(0), sums[-1] != 0  # the 62 bits after the number
    for rest, places in rests:
        over = jnp.maximum(places - 62, 0)
        following, more = following | rest >> over << jnp.maximum(62 - places, 0), more | (rest & (1 << over) - 1 != 0)
    odd = exponent & 1
    high, low = (number << odd | following >> 62 - odd).astype(np.uint64), following.astype(np.uint64) << (2 + odd).astype(np.uint64)

    def one_bit(_, carry):
        root, rest, high, low = carry
        rest = rest << np.uint64(2) | high >> np.uint64(62)
        tried = root << np.uint64(2) | np.uint64(1)
        fits = rest >= tried
        root, rest = root << np.uint64(1) | fits.astype(np.uint64), jnp.where(fits, rest - tried, rest)
        return root, rest, high << np.uint64(2) | low >> np.uint64(62), low << np.uint64(2)

    root, rest, high, _ = lax.fori_loop(0, 60, one_bit, (jnp.uint64(0), jnp.uint64(0), high, low))
    more = more | (rest != 0) | (high != 0)
    exponent = (exponent >> 1) + exponent_of(largest) + 1023 + 32
    norm = binary64.rounded(root << np.uint64(2) | more.astype(np.uint64), exponent.astype(np.int32))
    return _or_itself(lax.bitcast_convert_type(norm, np.float64), largest)


def _or_itself(norm: jax.Array, largest: jax.Array) -> jax.Array:
    """The norm; but 0, infinity and NaN are their own."""
    finite = jnp.where(largest < np.inf, norm, largest)
    return jnp.where(largest == 0, jnp.zeros_like(norm), finite)
