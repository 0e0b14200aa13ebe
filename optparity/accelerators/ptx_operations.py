"""What each PTX instruction computes, in NumPy: a table of those that are known. What is not in it is refused wherever it is met.

Registers have no type; an instruction says as what it reads them. A conversion or an operation that rounds is here only if it rounds once,
to nearest-even (`.rn`), and keeps subnormals (no `.ftz`): there is no `fma`, and no conversion from float64 to a half, which skips float32.
"""

import enum
from collections.abc import Callable, Iterator
from typing import NamedTuple

import ml_dtypes
import numpy as np

FLOATS = ("f16", "bf16", "f32", "f64")
_SIGNED, _UNSIGNED, _BITS = ([f"{letter}{bits}" for bits in (16, 32, 64)] for letter in "sub")
TYPES: dict[str, np.dtype] = {
    "pred": np.dtype(bool),
    "b8": np.dtype(np.uint8),
    "u8": np.dtype(np.uint8),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    **{f"f{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (16, 32, 64)},
    **{f"{letter}{bits}": np.dtype(f"u{bits // 8}") for letter in "ub" for bits in (16, 32, 64)},
}


class Kind(enum.Enum):
    """What an instruction does to a floating-point value."""

    MOVES = "its bits go on as they are, or in part"
    ROUNDS = "a result is rounded once, or exact"
    APPROXIMATES = "a result is off by some units in the last place"
    COMPARES = "what it is decides something"
    COUNTS = "integer arithmetic"


class Operation(NamedTuple):
    """`function(*sources) -> result`, of arrays of the named types."""

    function: Callable
    sources: tuple[str, ...]
    result: str
    kind: Kind


def _arithmetic() -> Iterator[tuple[str, Operation]]:
    for t in FLOATS:
        for name, function in {"add": np.add, "sub": np.subtract, "mul": np.multiply}.items():
            yield f"{name}.rn.{t}", Operation(function, (t, t), t, Kind.ROUNDS)
        for name, function in {"neg": np.negative, "abs": np.abs}.items():
            yield f"{name}.{t}", Operation(function, (t,), t, Kind.ROUNDS)
        for name, larger in {"max": True, "min": False}.items():
            yield f"{name}.{t}", Operation(_extreme(larger, nan=False), (t, t), t, Kind.ROUNDS)
            yield f"{name}.NaN.{t}", Operation(_extreme(larger, nan=True), (t, t), t, Kind.ROUNDS)
    for t in ("f32", "f64"):
        yield f"div.rn.{t}", Operation(np.divide, (t, t), t, Kind.ROUNDS)
        yield f"sqrt.rn.{t}", Operation(np.sqrt, (t,), t, Kind.ROUNDS)
        yield f"rcp.rn.{t}", Operation(np.reciprocal, (t,), t, Kind.ROUNDS)
        yield f"copysign.{t}", Operation(lambda sign, x: np.copysign(x, sign), (t, t), t, Kind.ROUNDS)
    for opcode in ("div.full.f32", "div.approx.f32"):
        yield opcode, Operation(np.divide, ("f32", "f32"), "f32", Kind.APPROXIMATES)
    roots = {"sqrt": np.sqrt, "rsqrt": lambda x: np.reciprocal(np.sqrt(x)), "rcp": np.reciprocal}
    for name, function in roots.items():
        yield f"{name}.approx.f32", Operation(function, ("f32",), "f32", Kind.APPROXIMATES)


def _extreme(larger: bool, nan: bool) -> Callable:
    """max or min: +0 is above -0; of NaN and a number the number, or with `nan` NaN."""

    def function(a, b):
        below = (a < b) | ((a == b) & np.signbit(a))
        chosen = np.where(below == larger, b, a)
        if nan:
            return np.where(np.isnan(a) | np.isnan(b), a.dtype.type(np.nan), chosen)
        return np.where(np.isnan(a), b, np.where(np.isnan(b), a, chosen))

    return function


def _conversions() -> Iterator[tuple[str, Operation]]:
    for to, source in (("f32", "f16"), ("f32", "bf16"), ("f64", "f16"), ("f64", "f32")):
        yield f"cvt.{to}.{source}", _cast(to, source)
    for to, source in (("f16", "f32"), ("bf16", "f32"), ("f32", "f64")):
        yield f"cvt.rn.{to}.{source}", _cast(to, source)
    for source in ("s32", "u32", "s64", "u64"):
        for to in ("f32", "f64"):
            yield f"cvt.rn.{to}.{source}", _cast(to, source)
    for to in ("s32", "u32", "s64", "u64"):
        for source in ("f32", "f64"):
            for name, function in {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}.items():
                yield f"cvt.{name}.{to}.{source}", Operation(_whole(function, to), (source,), to, Kind.COUNTS)
    for to in (*_SIGNED, *_UNSIGNED):
        for source in (*_SIGNED, *_UNSIGNED):
            yield f"cvt.{to}.{source}", Operation(lambda x, to=to: x.astype(TYPES[to]), (source,), to, Kind.MOVES)


def _cast(to: str, source: str) -> Operation:
    return Operation(lambda x: x.astype(TYPES[to]), (source,), to, Kind.ROUNDS)


def _whole(function: Callable, to: str) -> Callable:
    """To a whole number: what is out of range becomes the nearest, NaN becomes 0."""
    limits = np.iinfo(TYPES[to])

    def convert(x):
        whole = np.where(np.isnan(x), 0, function(x.astype(np.float64)))
        inside = (whole >= limits.min) & (whole < float(limits.max) + 1)
        return np.where(inside, np.where(inside, whole, 0).astype(TYPES[to]), np.where(whole < 0, limits.min, limits.max).astype(TYPES[to]))

    return convert


def _integers() -> Iterator[tuple[str, Operation]]:
    two = {"add": np.add, "sub": np.subtract, "mul.lo": np.multiply, "min": np.minimum, "max": np.maximum}
    for t in (*_SIGNED, *_UNSIGNED):
        for name, function in two.items():
            yield f"{name}.{t}", Operation(function, (t, t), t, Kind.COUNTS)
        yield f"mad.lo.{t}", Operation(lambda a, b, c: a * b + c, (t, t, t), t, Kind.COUNTS)
        yield f"shr.{t}", Operation(_shifted(np.right_shift), (t, "u32"), t, Kind.MOVES)
    for t in _SIGNED:
        yield f"neg.{t}", Operation(np.negative, (t,), t, Kind.COUNTS)
        yield f"abs.{t}", Operation(np.abs, (t,), t, Kind.COUNTS)
    for narrow, wide in (("s16", "s32"), ("u16", "u32"), ("s32", "s64"), ("u32", "u64")):
        multiply = lambda a, b, wide=wide: a.astype(TYPES[wide]) * b.astype(TYPES[wide])  # noqa: E731
        add = lambda a, b, c, wide=wide: a.astype(TYPES[wide]) * b.astype(TYPES[wide]) + c  # noqa: E731
        yield f"mul.wide.{narrow}", Operation(multiply, (narrow, narrow), wide, Kind.COUNTS)
        yield f"mad.wide.{narrow}", Operation(add, (narrow, narrow, wide), wide, Kind.COUNTS)


def _bits() -> Iterator[tuple[str, Operation]]:
    for t in (*_BITS, "pred"):
        for name, function in {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}.items():
            yield f"{name}.{t}", Operation(function, (t, t), t, Kind.MOVES)
        yield f"not.{t}", Operation(np.invert, (t,), t, Kind.MOVES)
    for t in _BITS:
        yield f"shl.{t}", Operation(_shifted(np.left_shift), (t, "u32"), t, Kind.MOVES)
        yield f"shr.{t}", Operation(_shifted(np.right_shift), (t, "u32"), t, Kind.MOVES)
    for t in ("b32", "b64"):
        yield f"clz.{t}", Operation(_leading_zeros, (t,), "u32", Kind.COUNTS)
    yield "bfe.u32", Operation(_field, ("u32", "u32", "u32"), "u32", Kind.MOVES)
    yield "lop3.b32", Operation(_by_table, ("b32", "b32", "b32", "u32"), "b32", Kind.MOVES)
    for t in (*_BITS, *_SIGNED, *_UNSIGNED, *FLOATS):
        yield f"selp.{t}", Operation(lambda a, b, p: np.where(p, a, b), (t, t, "pred"), t, Kind.MOVES)
    for t in (*_BITS, *_SIGNED, *_UNSIGNED, *FLOATS, "pred"):
        yield f"mov.{t}", Operation(lambda x: x, (t,), t, Kind.MOVES)


def _shifted(function: Callable) -> Callable:
    """A shift by as many bits as there are, or more, leaves nothing but the sign."""

    def shift(x, by):
        most = 8 * x.dtype.itemsize - 1
        shifted = function(x, np.minimum(by, most).astype(x.dtype))
        return np.where(by > most, function(shifted, x.dtype.type(1)), shifted)

    return shift


def _leading_zeros(x):
    count = np.full(x.shape, 8 * x.dtype.itemsize, np.uint32)
    for bit in range(8 * x.dtype.itemsize):
        count = np.where(x >> x.dtype.type(bit) != 0, np.uint32(8 * x.dtype.itemsize - 1 - bit), count)
    return count


def _field(x, position, length):
    """`length` bits of x from `position` on; each is below 256."""
    shift = _shifted(np.right_shift)(x, position & np.uint32(255))
    length = length & np.uint32(255)
    return shift & (_shifted(np.left_shift)(np.ones_like(x), length) - np.uint32(1))


def _by_table(a, b, c, table):
    """Bit by bit of a, b and c what the table of eight bits has at the number that they make."""
    found = np.zeros(np.broadcast_shapes(a.shape, b.shape, c.shape), np.uint32)
    for number in range(8):
        chosen = np.where((table >> np.uint32(number)) & np.uint32(1), ~np.uint32(0), np.uint32(0))
        row = [x if number & place else ~x for x, place in ((a, 4), (b, 2), (c, 1))]
        found = found | (row[0] & row[1] & row[2] & chosen)
    return found


def _comparisons() -> Iterator[tuple[str, Operation]]:
    ordered = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
    for t in (*_SIGNED, *_UNSIGNED):
        yield from _decided(ordered, t)
    for t in _BITS:
        yield from _decided({name: ordered[name] for name in ("eq", "ne")}, t)
    is_nan = lambda a, b: np.isnan(a) | np.isnan(b)  # noqa: E731
    numbers = {name: lambda a, b, f=f: f(a, b) & ~is_nan(a, b) for name, f in ordered.items()}  # false if one is NaN, `ne` too
    unordered = {f"{name}u": lambda a, b, f=f: f(a, b) | is_nan(a, b) for name, f in ordered.items()}
    for t in FLOATS:
        yield from _decided({**numbers, **unordered, "nan": is_nan, "num": lambda a, b: ~is_nan(a, b)}, t)


def _decided(comparisons: dict[str, Callable], t: str) -> Iterator[tuple[str, Operation]]:
    """`setp`, alone or joined with a predicate."""
    for name, compare in comparisons.items():
        yield f"setp.{name}.{t}", Operation(compare, (t, t), "pred", Kind.COMPARES)
        for word, join in {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}.items():
            joined = lambda a, b, p, compare=compare, join=join: join(compare(a, b), p)  # noqa: E731
            yield f"setp.{name}.{word}.{t}", Operation(joined, (t, t, "pred"), "pred", Kind.COMPARES)


OPERATIONS = dict([*_arithmetic(), *_conversions(), *_integers(), *_bits(), *_comparisons()])
