"""Arithmetic that XLA cannot change: each + - * / and sqrt rounds once.  Mirror: torch_ref/numerics.py

XLA merges neighbouring operations: a product into the addition that follows (an FMA), two constant factors into one, a
quotient into the next division, a division by a scalar or by a square root into a product with a reciprocal. Each merge
drops a rounding or adds one. Three things stop it, and no other part of the package knows them:

- `barrier` at a kernel's entry hides from the algebraic simplifier what the caller computed. It does not stop the FMA.
- `fence(x) = x + copysign(0, x)` equals x for every x, -0 too (where subnormals are not flushed). XLA does not simplify it: it may drop the
  addition of -0, not of +0, and cannot tell which zero this is.
  A fenced product is no longer a product, so nothing merges with it; a fenced divisor is no longer a root.
- A float32 array is divided by a scalar as a product with its reciprocal, both in float64: rounded, that is the quotient
  (`divided_by_scalar` has the proof).

The divisions and roots of float32 that GPUs and TPUs have are approximate. There they are made exact: on GPUs through float64
(`_through_float64`), elsewhere by an exact remainder in integers (corrected.py). What is traced holds both; `instead` leaves the choice to
the compilation. TPUs have no float64 either: `Scalar`s are computed there by integers (binary64.py).

A `Rounded` remembers which operations XLA would fuse with its value (`Fuses`), and is fenced only before one of them.

bfloat16 and float16 are computed in float32 and rounded after each operation. That is a fence by itself, but for float16 products on
processors that compute in float16 (see `_UNDER_ROUNDING`).
"""

from __future__ import annotations

import enum
import functools
import itertools
import math
import numbers
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from . import binary64, corrected
from .batches import own_divisor
from .platforms import instead

DTYPES = ("float32", "float64", "bfloat16", "float16")
HALVES = ("bfloat16", "float16")
_FORMATS = {"float32": (24, 128), "bfloat16": (8, 128), "float16": (11, 16)}  # bits of precision, exponent of the first number too large

Count = jax.Array | None

Number = Any  # a hyper-parameter: a float, an array [] or a schedule; in a kernel a float or a `Scalar`

_SIGN_BIT = {"float32": np.uint32(2**31), "float64": np.uint64(2**63)}  # unsigned: the TPU's compiler refuses int64 here


def signed_zero(x: jax.Array, *others: jax.Array) -> jax.Array:
    """+0 or -0, with the sign of x, or of the product of all: nothing to IEEE arithmetic, an unknown to a compiler."""
    bits = functools.reduce(operator.xor, map(_bits, (x, *others)))
    return lax.bitcast_convert_type(bits & _SIGN_BIT[x.dtype.name], x.dtype)


def _bits(x: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(x, _SIGN_BIT[x.dtype.name].dtype)


def fence(x: jax.Array) -> jax.Array:
    """x, as a value that nothing can be merged with. (Like any addition, it flushes a subnormal where XLA does.)"""
    return x + signed_zero(x)


def _round_bfloat16(x: jax.Array) -> jax.Array:
    return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


@jax.custom_jvp
def _round_float16(x: jax.Array) -> jax.Array:
    # Not `reduce_precision(x, 5, 10)`, which flushes float16's subnormals. The halves of the bits are taken apart and put together again,
    # so that the two conversions do not meet: XLA may drop such a pair (`xla_allow_excess_precision`).
    bits = lax.bitcast_convert_type(x.astype(jnp.float16), jnp.int16)
    bits = (bits & np.int16(0x7FFF)) | (bits & np.int16(-0x8000))
    return lax.bitcast_convert_type(bits, jnp.float16).astype(jnp.float32)


_round_float16.defjvp(lambda primals, tangents: (_round_float16(*primals), tangents[0]))

_ROUND = {"bfloat16": _round_bfloat16, "float16": _round_float16}


class Fuses(enum.Flag):
    """Operations that XLA would fuse with the one that made a value. A value is fenced only before one of these."""

    NOTHING = 0
    ADD = enum.auto()  # it is a product:           a*b + c       -> fma(a, b, c)
    SCALE = enum.auto()  # it was scaled:           (a*2)*3       -> a*6
    DIVIDE = enum.auto()  # it is a quotient:       (a/b)/c       -> a/(b*c)
    DIVIDE_BY = enum.auto()  # it is a root:        a/sqrt(b)     -> a*rsqrt(b)
    ADD_CONSTANT = enum.auto()  # it has a constant: (a + 1) + 2  -> a + 3
    ANYTHING = ADD | SCALE | DIVIDE | DIVIDE_BY | ADD_CONSTANT


# What still fuses when a half's result was rounded. Where a processor computes in float16 (AVX512-FP16), LLVM takes the conversions around
# a product and a sum away, and contracts what is left: float16(float32(float16(a*b)) + c) -> fma(a, b, c). No processor adds in bfloat16.
_UNDER_ROUNDING = {"bfloat16": Fuses.NOTHING, "float16": Fuses.ADD}


class Rounded:
    """A leaf on which + - * / round once, to `dtype`. `x` holds it, in float32 for bfloat16 and float16.

    Python numbers and `Scalar`s are rounded to the dtype of `x` first.
    """

    __slots__ = ("dtype", "fuses", "x")
    __array_ufunc__ = None  # so that a NumPy number on the left leaves the operation to us

    def __init__(self, x: Any, fuses: Fuses = Fuses.ADD, dtype: str | None = None):
        self.x, self.fuses, self.dtype = x, fuses, dtype or x.dtype.name

    def before(self, operation: Fuses) -> jax.Array:
        """The array as the operation may take it: fenced if the two would fuse."""
        return fence(self.x) if self.fuses & operation else self.x

    def then(self, x: jax.Array, fuses: Fuses) -> Rounded:
        """The result of an operation on this, rounded to this dtype."""
        if self.dtype in _ROUND:
            return Rounded(_ROUND[self.dtype](x), fuses & _UNDER_ROUNDING[self.dtype], self.dtype)
        return Rounded(x, fuses, self.dtype)

    def __add__(self, other):
        a, b = _meet(self, other)
        a, b, fuses = _addends(a, b, minus=False)
        return self.then(a + b, fuses)

    def __sub__(self, other):
        a, b = _meet(self, other)
        a, b, fuses = _addends(a, b, minus=True)
        return self.then(a - b, fuses)

    def __mul__(self, other):
        a, b = _meet(self, other)
        scaled = a.x.ndim != b.x.ndim or not a.x.ndim  # only a scalar factor can be folded into the next one
        fuses = Fuses.ADD | Fuses.SCALE if scaled else Fuses.ADD
        return self.then(a.before(Fuses.SCALE) * b.before(Fuses.SCALE), fuses | _if_dropped(1, a, b))

    def __truediv__(self, other):
        """For divisors > 0 or +0 only, as those of every rule are: the zero of a divisor's fence has the sign of the numerator."""
        a, b = _meet(self, other)
        fuses, numerator = Fuses.DIVIDE | _if_dropped(1, a, b), a.before(Fuses.DIVIDE)
        if numerator.ndim and not b.x.ndim and numerator.dtype == np.float32:
            quotient = divided_by_scalar(numerator, b.x)
        else:
            merging = b.fuses & (Fuses.DIVIDE | Fuses.DIVIDE_BY) or not b.x.ndim
            unknown = b.x if isinstance(numerator, np.ndarray) else numerator  # a constant's zero would be one too
            quotient = numerator / (b.x + signed_zero(unknown) if merging else own_divisor(b.x, unknown, signed_zero))
        return self.then(_exact(quotient, operator.truediv, corrected.quotient, numerator, b.x), fuses)

    def __neg__(self):
        return Rounded(-self.x, self.fuses & ~Fuses.DIVIDE, self.dtype)

    def __radd__(self, other):
        return self.constant(other) + self

    def __rsub__(self, other):
        return self.constant(other) - self

    def __rmul__(self, other):
        return self.constant(other) * self

    def __rtruediv__(self, other):
        return self.constant(other) / self

    def constant(self, number) -> Rounded:
        """A Python number in the dtype that this is computed in."""
        return Rounded(np.asarray(number, self.x.dtype), Fuses.ADD_CONSTANT, self.dtype)


class _Argument(NamedTuple):
    """The place of an array among arguments."""

    index: int


class Scalar:
    """A hyper-parameter known only at run time: float64 among its kind, rounded once where it meets a leaf.

    It holds what is to be computed, an operation and its operands, not the number. So it is computed in float64 where there is one, and by
    integers on a TPU. Needs `jax.enable_x64(True)` around it, which `transform` provides.
    """

    __slots__ = ("ahead", "operands", "operation")
    __array_ufunc__ = None  # as Rounded's

    def __init__(self, operation: Callable, *operands: Any):
        self.operation, self.operands = operation, operands
        self.ahead: dict[str, jax.Array] = {}  # itself by dtype, where `round_ahead` was called

    def __add__(self, other):
        return _operated(operator.add, self, other)

    def __sub__(self, other):
        return _operated(operator.sub, self, other)

    def __mul__(self, other):
        return _operated(operator.mul, self, other)

    def __truediv__(self, other):
        return _operated(operator.truediv, self, other)

    def __radd__(self, other):
        return Scalar(operator.add, other, self)

    def __rsub__(self, other):
        return Scalar(operator.sub, other, self)

    def __rmul__(self, other):
        return Scalar(operator.mul, other, self)

    def __rtruediv__(self, other):
        return Scalar(operator.truediv, other, self)

    def __neg__(self):
        negated = Scalar(operator.neg, self)
        negated.ahead = {to: -x for to, x in self.ahead.items()}
        return negated

    def computed(self, number: Callable, arrays: Sequence[jax.Array] = (), known: dict[int, Any] | None = None) -> Any:
        """What `number` makes of the operands, operated on; of `arrays` in the place of the operands that are an `_Argument`.

        A `Scalar` that stands in several places is computed once: `known` has by `id` what is computed already.
        """
        known = {} if known is None else known

        def value(x):
            return (
                x.computed(number, arrays, known) if isinstance(x, Scalar) else number(arrays[x.index] if isinstance(x, _Argument) else x)
            )

        if id(self) not in known:
            known[id(self)] = self.operation(*map(value, self.operands))
        return known[id(self)]

    def arrays(self, seen: set[int] | None = None) -> list[jax.Array]:
        """The arrays that it is computed from."""
        seen = set() if seen is None else seen
        if id(self) in seen:
            return []
        seen.add(id(self))
        found = (operand.arrays(seen) if isinstance(operand, Scalar) else [operand] for operand in self.operands)
        return [x for x in itertools.chain(*found) if isinstance(x, jax.Array)]

    def is_zero(self) -> jax.Array:
        """Whether a hyper-parameter, as it was given, is 0 of either sign, or a subnormal that is flushed where this is computed.

        (Its bits would be no help: LLVM makes the comparison of floats of theirs.)
        """
        (given,) = self.operands
        return jnp.asarray(given == 0)

    def of_arguments(self, index: Iterator[int], known: dict[int, Scalar] | None = None) -> Scalar:
        """The same of arrays that are not there yet: a program that is compiled later must not hold those of this trace."""
        known = {} if known is None else known
        if id(self) not in known:
            arguments = (
                x.of_arguments(index, known) if isinstance(x, Scalar) else _Argument(next(index)) if isinstance(x, jax.Array) else x
                for x in self.operands
            )
            known[id(self)] = Scalar(self.operation, *arguments)
        return known[id(self)]

    def in_float64(self) -> jax.Array:
        """The number in float64."""
        return fence(self.computed(_in_float64).x)

    def by_integers(self, *arrays: jax.Array) -> jax.Array:
        """The number by integers, of these arrays, rounded to float32."""
        with jax.enable_x64(True):  # it is traced when it is lowered, where the caller's is over
            return binary64.to_float32(self.computed(binary64.Binary64.of, arrays).bits)

    def rounded(self, like: Rounded) -> Rounded:
        """In the dtype that `like` is computed in."""
        to = like.x.dtype.name
        return Rounded(self.ahead[to] if to in self.ahead else self.rounded_to(to), Fuses.NOTHING, like.dtype)

    def rounded_to(self, to: str) -> jax.Array:
        """Rounded once, to float32, or as it is, for float64."""
        # Both sides of the conversion are fenced: LLVM narrows float32(float64(a) * float64(b)) to a float32 product.
        rounded = fence(self.in_float64().astype(to))
        if to == "float64":
            return rounded  # for leaves that a TPU refuses
        return instead(rounded, *self.arrays(), tpu=self.of_arguments(itertools.count()).by_integers)


def _in_float64(x):
    """A number, or a truth value, as `Scalar`s are computed with where there is float64."""
    if not isinstance(x, jax.Array):
        return Rounded(np.asarray(x, np.float64), Fuses.ADD_CONSTANT)
    return x if x.dtype == bool else Rounded(x.astype(np.float64), Fuses.NOTHING)


def _operated(operation, a: Scalar, b):
    """What an operator makes of a `Scalar` and what stands on its right."""
    return operation(a.rounded(b), b) if isinstance(b, Rounded) else Scalar(operation, a, b)


def _meet(a: Rounded, b) -> tuple[Rounded, Rounded]:
    """Both operands in the dtype of the first."""
    return a, b.rounded(a) if isinstance(b, Scalar) else b if isinstance(b, Rounded) else a.constant(b)


def _addends(a: Rounded, b: Rounded, *, minus: bool) -> tuple[jax.Array, jax.Array, Fuses]:
    """The two arrays of a sum or difference, and what it could merge with.

    Where both are fenced, one zero does for both: -0 where their signs differ, added before a minus and subtracted before a plus. It may
    turn a -0 into +0, but never where the result is -0, which only -0 - +0 and -0 + -0 are. What a compiler knows of one addend (a
    constant's sign) does not take the fence from the other; but it must not know how the two signs go together.
    """
    addition = Fuses.ADD | (Fuses.ADD_CONSTANT & a.fuses & b.fuses)
    fuses = (Fuses.ADD_CONSTANT & (a.fuses | b.fuses)) | _if_dropped(0, a, b)
    if a.fuses & addition and b.fuses & addition and a.x is not b.x:
        zero = signed_zero(a.x, b.x)
        return (a.x + zero, b.x + zero, fuses) if minus else (a.x - zero, b.x - zero, fuses)
    return a.before(addition), b.before(addition), fuses


def _if_dropped(number: int, a: Rounded, b: Rounded) -> Fuses:
    """What an operation could merge with beside its own: if one operand is a constant that XLA drops, whatever the other could."""
    dropped = any(isinstance(v.x, np.ndarray) and not v.x.ndim and v.x == number for v in (a, b))
    return a.fuses | b.fuses if dropped else Fuses.NOTHING


def divided_by_scalar(a: jax.Array, b: jax.Array) -> jax.Array:
    """float32 a / b, where XLA's own is a * (1 / b). In float64 that is within 2⁻⁵² of the quotient, which, where it is a normal
    number, is at least 2⁻⁴⁹ away from every number between two of float32 (in units of itself): so it rounds to the same one. Rules
    use it where the quotient is normal or 0, as √v / c with c <= 1 is, or where CPUs flush one that is subnormal, as of means.
    """
    with jax.enable_x64(True):
        return (a.astype(np.float64) * (1 / b.astype(np.float64))).astype(np.float32)


def _exact(value: jax.Array, operation: Callable, by_integers: Callable, *operands: jax.Array) -> jax.Array:
    """The value of an operation on float32 that other backends than the CPU's approximate: there it is computed otherwise."""
    if value.dtype != np.float32:
        return value
    return instead(value, *operands, gpu=functools.partial(_through_float64, operation), tpu=by_integers, other=by_integers)


def _through_float64(operation, *operands):
    """A float32 quotient or root of any operands, rounded to float64 first, which changes nothing: 53 bits are two more than twice 24."""
    with jax.enable_x64(True):  # fenced on both sides, as a `Scalar` that is rounded
        return fence(fence(operation(*(x.astype(np.float64) for x in operands))).astype(np.float32))


def sqrt(a):
    """The square root; of a Python number too."""
    if isinstance(a, Scalar):
        return Scalar(sqrt, a)
    if isinstance(a, Rounded):
        return a.then(_exact(jnp.sqrt(a.x), jnp.sqrt, corrected.sqrt, a.x), Fuses.DIVIDE_BY)
    return binary64.Binary64(binary64.sqrt(a.bits)) if isinstance(a, binary64.Binary64) else math.sqrt(a)


def sign(a: Rounded) -> Rounded:
    """+1 or -1; a zero of either sign, and NaN, as they are."""
    return a.then(jnp.sign(a.x), Fuses.NOTHING)


def where(condition, a: Number, b: Number) -> Number:
    """One of two hyper-parameters, not of two leaves."""
    if isinstance(condition, bool):
        return a if condition else b
    return Scalar(_select, condition, a, b)


def _select(condition, a, b):
    if isinstance(a, binary64.Binary64):
        return binary64.Binary64(lax.select(condition, jnp.asarray(a.bits), jnp.asarray(b.bits)))
    return Rounded(lax.select(condition, jnp.asarray(a.x), jnp.asarray(b.x)), a.fuses | b.fuses)


def less(a: Any, b: Number) -> Any:
    """Whether a leaf, or a hyper-parameter, is less than a hyper-parameter: a condition for `choose`, or for `where`."""
    if isinstance(a, Rounded):
        a, b = _meet(a, b)
        return a.x < b.x
    return Scalar(_less, a, b) if isinstance(a, Scalar) or isinstance(b, Scalar) else a < b


def _less(a, b):
    if isinstance(a, binary64.Binary64):
        return binary64.less(jnp.asarray(a.bits), jnp.asarray(b.bits))
    return jnp.asarray(a.x) < jnp.asarray(b.x)


def floor(a: Number) -> Number:
    """The largest whole number that is not above a hyper-parameter."""
    if isinstance(a, Scalar):
        return Scalar(floor, a)
    if isinstance(a, binary64.Binary64):
        return binary64.Binary64(binary64.floor(a.bits))
    return a.then(jnp.floor(a.x), Fuses.NOTHING) if isinstance(a, Rounded) else float(np.floor(a))


def exponent(a: Number) -> Number:
    """The n with 2ⁿ <= a < 2ⁿ⁺¹, of a hyper-parameter a >= 2⁻¹⁰²²."""
    if isinstance(a, Scalar):
        return Scalar(exponent, a)
    if isinstance(a, binary64.Binary64):
        return binary64.Binary64(binary64.from_array(_biased(a.bits) - 1023))
    if isinstance(a, Rounded):
        return Rounded((_biased(_bits(jnp.asarray(a.x))) - 1023).astype(np.float64), Fuses.NOTHING)
    return math.frexp(a)[1] - 1.0


def _biased(bits: Any) -> jax.Array:
    """The exponent of a positive float64, as its bits have it."""
    return (bits >> np.uint64(52)).astype(np.int64)


def power_of_two(n: Number) -> Number:
    """2ⁿ, of a whole number from -1022 to 1023."""
    if isinstance(n, Scalar):
        return Scalar(power_of_two, n)
    if isinstance(n, binary64.Binary64):
        return binary64.Binary64(binary64.power_of_two(n.bits))
    if isinstance(n, Rounded):
        bits = (jnp.asarray(n.x).astype(np.int64) + 1023).astype(np.uint64) << np.uint64(52)
        return Rounded(lax.bitcast_convert_type(bits, np.float64), Fuses.NOTHING)
    return math.ldexp(1.0, int(n))


def unless_zero(number: Number, a: Rounded, b: Rounded | Callable[[], Rounded]) -> Rounded:
    """a; but b where a hyper-parameter is 0, so that one that only the run will tell switches a term off as a Python 0 does.

    To compute with it would be no substitute: 0 times infinity is NaN, and the sum with a zero loses the sign of another. What b costs to
    compute is a function, which is not called where the number is known.
    """
    if not isinstance(number, Scalar):
        return a
    b = b() if callable(b) else b
    return type(a)(_unless(number.is_zero(), a.x, b.x), a.fuses | b.fuses, a.dtype)


@jax.custom_jvp
def _unless(zero, a, b):
    return lax.select(zero, b, a)


_unless.defjvp(lambda primals, tangents: (_unless(*primals), tangents[1]))  # a's at 0 too: of the formula, by the hyper-parameter as well


def maximum(a: Any, b: Any) -> Any:
    """The larger of two leaves, NaN if one is; or of two hyper-parameters, which are numbers."""
    if not isinstance(a, Rounded):
        return where(less(a, b), b, a)
    return type(a)(jnp.maximum(a.x, b.x), a.fuses | b.fuses, a.dtype)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of a leaf and a Python number, NaN if one is; or of two hyper-parameters, which are numbers."""
    if not isinstance(a, Rounded):
        return where(less(b, a), b, a)
    return a.then(jnp.minimum(a.x, a.constant(b).x), Fuses.ANYTHING)


def clamp(a: Rounded, least: Number, most: Number) -> Rounded:
    """a, but not below the least and not above the most number. By choosing: zeros and NaN stay."""
    low, high = (_meet(a, number)[1].x for number in (least, most))
    return a.then(jnp.where(a.x < low, low, jnp.where(a.x > high, high, a.x)), Fuses.NOTHING)


def choose(condition: Any, a: Any, b: Any) -> Any:
    """One of two leaves, whole; or of two counts or arrays [] of a state."""
    if isinstance(a, Rounded):
        return a.then(jnp.where(condition, a.x, b.x), Fuses.NOTHING)
    return jnp.where(condition, a, b)


def like(a: Rounded, leaf: Rounded) -> Rounded:
    """a, in the dtype that a leaf is computed in."""
    if a.x.dtype == leaf.x.dtype:
        return Rounded(a.x, a.fuses, leaf.dtype)
    return Rounded(fence(fence(a.x).astype(leaf.x.dtype)), Fuses.NOTHING, leaf.dtype)  # else LLVM narrows what made it


def power(base, t):
    """base**t by binary powering in float64, least significant bit first: the same bits everywhere, which `pow` does not promise.

    t is a whole number from 0 to 2^31 - 1.
    """
    if isinstance(t, Scalar):
        return Scalar(power, base, t) if isinstance(base, Scalar) else Scalar(functools.partial(power, base), t)
    if isinstance(t, binary64.Binary64):
        return binary64.power(base, t)
    if isinstance(t, int | float):
        return _known_power(base, int(t))
    bits = lax.convert_element_type(t.x, jnp.int32)
    result = t.constant(1.0)
    for i in range(31):
        product = result * base
        result = _select((bits >> i) & 1 == 1, product, result)
        base = base * base
    return result


def _known_power(base, t: int):
    result = 1.0
    while t:
        if t & 1:
            result = result * base
        base, t = base * base, t >> 1
    return result


def state_dtype(leaf_dtype: str, accumulator: str | None) -> str:
    """The dtype of a leaf's state: its own, or the accumulator's for halves."""
    return accumulator if accumulator and leaf_dtype in _ROUND else leaf_dtype


def dtype_name(dtype) -> str:
    return jnp.dtype(dtype).name


def rounded_to(number: float, dtype: str) -> float:
    """A Python number as a leaf's dtype has it, rounded once: NumPy and torch go through float32 on their way to a half."""
    if dtype == "float64" or not math.isfinite(number):
        return number
    precision, overflow = _FORMATS[dtype]
    unit = math.ldexp(1.0, max(math.frexp(number)[1], 3 - overflow) - precision)
    size = abs(round(number / unit) * unit)
    return math.copysign(size if size < 2.0**overflow else math.inf, number)


def barrier(*arrays):
    """The same arrays (or None), opaque to the algebraic simplifier, so that constants do not fold into the rule."""
    return jax.tree.map(lax.optimization_barrier, arrays)  # one for each: a barrier for all would make each wait for the others


def wrap(array: jax.Array, dtype: str) -> Rounded:
    """An array as kernels take it, in its own dtype, or in a wider one for halves."""
    own = array.dtype.name
    if own not in _ROUND:
        return Rounded(array)
    wide = _ROUND[own](array.astype(jnp.float32))  # it is rounded already, but XLA may have kept more than its dtype holds
    return Rounded(wide.astype(dtype) if dtype == "float64" else wide, _UNDER_ROUNDING.get(dtype, Fuses.NOTHING), dtype)


def unwrap(a: Rounded, dtype: str | None = None) -> jax.Array:
    """The array of a leaf, in its dtype, or rounded once to bfloat16."""
    if dtype in (None, a.dtype):
        return a.x.astype(a.dtype)
    x = a.x
    if a.dtype == "float64":  # first to the precision of a bfloat16, so that float32 on the way rounds nothing
        x = lax.reduce_precision(x, exponent_bits=11, mantissa_bits=7).astype(jnp.float32)
    return _ROUND[str(dtype)](x).astype(dtype)


def finish(a: Rounded, dtype: str | None = None) -> jax.Array:
    """The array of a finished update, rounded to the leaf's dtype, and apart from whatever the caller does with it next."""
    x = a.before(Fuses.ANYTHING)
    if dtype in (None, a.dtype):
        return x.astype(a.dtype)
    return _ROUND[str(dtype)](x).astype(dtype)  # an accumulator's: where nothing adds bfloat16, XLA takes a mere conversion away


def narrowed(a: Rounded, dtype: str) -> Rounded:
    """A float32 number rounded to a half, and float32 again."""
    return Rounded(_ROUND[dtype](a.x), a.fuses & _UNDER_ROUNDING[dtype], a.dtype)


def narrowed_by(a: Rounded, bits: jax.Array) -> Rounded:
    """A float32 number rounded to bfloat16 up or down by 16 random bits, and float32 again.

    The lower half of its bits is the fraction that is dropped: the sum with the random ones carries as often as that is large. Infinity
    and NaN stay.
    """
    own = _bits(a.x)
    finite = own & np.uint32(0x7F800000) != np.uint32(0x7F800000)
    rounded = lax.bitcast_convert_type(own + bits & np.uint32(0xFFFF0000), jnp.float32)
    return Rounded(lax.select(finite, rounded, a.x), Fuses.NOTHING, a.dtype)


def update_to(p: Rounded, q: Rounded) -> Rounded:
    """The update that makes q of p: q - p; -0 where their bits are the same, so that a zero keeps its sign and infinity stays."""
    u = q - p
    return Rounded(lax.select(_bits(p.x) == _bits(q.x), jnp.full_like(u.x, -0.0), u.x), u.fuses, u.dtype)


def places(like: jax.Array) -> jax.Array:
    """For each element its number in the array, the last axis counted first, as a word of 32 bits."""
    numbers, stride = jnp.zeros(like.shape, jnp.uint32), 1
    for axis in reversed(range(like.ndim)):
        numbers = numbers + lax.broadcasted_iota(jnp.uint32, like.shape, axis) * np.uint32(stride)
        stride *= like.shape[axis]
    return numbers


def static_value(value) -> float | None:
    """A hyper-parameter's value, or None where only the run will tell: a schedule, a tracer, an array spread over hosts."""
    if isinstance(value, numbers.Real):
        return float(value)
    if callable(value):
        return None
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return float(value)
    if isinstance(value, jax.Array) and value.ndim == 0:
        return None if isinstance(value, Tracer) or not value.is_fully_addressable else float(value)
    raise TypeError(f"a number is needed, not {value!r}")


def is_static_zero(value) -> bool:
    """Whether a term is switched off: by a Python 0 or False only, never by what a traced hyper-parameter may hold."""
    return isinstance(value, numbers.Real) and not value


def round_ahead(hyper, dtypes) -> None:
    """Round the `Scalar`s among these here, for all leaves of these dtypes, instead of once for each leaf."""
    for to in sorted({"float32" if dtype in _ROUND else dtype for dtype in dtypes}):
        for value in hyper:
            if isinstance(value, Scalar):
                value.ahead[to] = value.rounded_to(to)


def scalar(value) -> Scalar | float:
    """A hyper-parameter as kernels take it: a Python number stays one, an array becomes a float64 `Scalar`."""
    if isinstance(value, numbers.Real):
        return value if isinstance(value, bool) else float(value)
    if isinstance(value, np.ndarray):
        return Scalar(lambda number: number, value.item())  # not as an array, which on a TPU could not hold a float64
    array = barrier(jnp.asarray(value))[0]
    return Scalar(lambda number: number, array.astype(np.int32) if array.dtype == bool else array)


def reciprocal(number: Number) -> Number:
    """1 / a hyper-parameter; of 0 infinity."""
    return 1 / number


def in_float32(number: Number) -> jax.Array:
    """A hyper-parameter rounded once to float32, as an array [] of a state; `scalar` of it goes on with what is left."""
    return number.rounded_to("float32")


def is_finite(a: Rounded | jax.Array) -> jax.Array:
    """Whether no element is infinite or NaN."""
    return jnp.isfinite(a.x if isinstance(a, Rounded) else a).all()


def refused_on_tpu(x: jax.Array, message: str) -> jax.Array:
    """x; but to compile it for a TPU is a TypeError."""

    def refuse(_):
        raise TypeError(message)

    return instead(x, x, tpu=refuse)
