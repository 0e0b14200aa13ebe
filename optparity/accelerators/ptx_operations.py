"""What each PTX instruction computes, in NumPy: a table of those that are known. What is not in it is refused wherever it is met.

What rounds is here only if it rounds once, to nearest-even (`.rn`), and keeps subnormals (no `.ftz`). So there is no `fma`, nothing that is
`.approx` or `.full`, and no conversion of float64 to a half, which leaves out the rounding to float32. Registers have no type: an
instruction says as what it reads them.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import ml_dtypes
import numpy as np

_FLOATS = ("f16", "bf16", "f32", "f64")
_SIGNED, _UNSIGNED, _BITS = ([f"{letter}{bits}" for bits in (16, 32, 64)] for letter in "sub")
TYPES: dict[str, np.dtype] = {
    "pred": np.dtype(bool),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    **{f"f{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (16, 32, 64)},
    **{f"{letter}{bits}": np.dtype(f"u{bits // 8}") for letter in "ub" for bits in (8, 16, 32, 64)},
}


class Operation(NamedTuple):
    """`function(*sources) -> result`, of arrays of the named types."""

    function: Callable
    sources: tuple[str, ...]
    result: str


def _floats() -> Iterator[tuple[str, Operation]]:
    for t in _FLOATS:
        for name, function in {"add": np.add, "sub": np.subtract, "mul": np.multiply}.items():
            yield f"{name}.rn.{t}", Operation(function, (t, t), t)
        for name, function in {"neg": np.negative, "abs": np.abs}.items():
            yield f"{name}.{t}", Operation(function, (t,), t)
        yield f"max.{t}", Operation(_larger_number, (t, t), t)
        yield f"max.NaN.{t}", Operation(_larger, (t, t), t)
    for t in ("f32", "f64"):
        yield f"div.rn.{t}", Operation(np.divide, (t, t), t)
        yield f"sqrt.rn.{t}", Operation(np.sqrt, (t,), t)
        yield f"rcp.rn.{t}", Operation(np.reciprocal, (t,), t)
        yield f"copysign.{t}", Operation(lambda sign, x: np.copysign(x, sign), (t, t), t)


def _larger(a, b):
    """NaN if one is; +0 is above -0."""
    below = (a < b) | ((a == b) & np.signbit(a))
    return np.where(np.isnan(a) | np.isnan(b), a.dtype.type(np.nan), np.where(below, b, a))


def _larger_number(a, b):
    """Of NaN and a number the number."""
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, _larger(a, b)))


def _conversions() -> Iterator[tuple[str, Operation]]:
    for to, source in (("f32", "f16"), ("f32", "bf16"), ("f64", "f16"), ("f64", "bf16"), ("f64", "f32")):
        yield f"cvt.{to}.{source}", _cast(to, source)
    for to, source in (("f16", "f32"), ("bf16", "f32"), ("f32", "f64"), ("f64", "s32")):
        yield f"cvt.rn.{to}.{source}", _cast(to, source)
    yield "cvt.rn.bf16x2.f32", Operation(_two_halves, ("f32", "f32"), "b32")


def _cast(to: str, source: str) -> Operation:
    return Operation(lambda x: x.astype(TYPES[to]), (source,), to)


def _two_halves(upper, lower):
    """Two bfloat16 in one register."""
    bits = [np.asarray(x.astype(TYPES["bf16"])).view(np.uint16).astype(np.uint32) for x in (upper, lower)]
    return bits[0] << np.uint32(16) | bits[1]


def _integers() -> Iterator[tuple[str, Operation]]:
    for t in (*_SIGNED, *_UNSIGNED):
        for name, function in {"add": np.add, "sub": np.subtract, "mul.lo": np.multiply}.items():
            yield f"{name}.{t}", Operation(function, (t, t), t)
        yield f"shr.{t}", Operation(_shifted(np.right_shift), (t, "u32"), t)
    yield "mul.wide.u32", Operation(lambda a, b: a.astype(np.uint64) * b.astype(np.uint64), ("u32", "u32"), "u64")
    yield "mul.wide.s32", Operation(lambda a, b: a.astype(np.int64) * b.astype(np.int64), ("s32", "s32"), "s64")


def _bits() -> Iterator[tuple[str, Operation]]:
    for t in (*_BITS, "pred"):
        for name, function in {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}.items():
            yield f"{name}.{t}", Operation(function, (t, t), t)
        yield f"not.{t}", Operation(np.invert, (t,), t)
    for t in _BITS:
        yield f"shl.{t}", Operation(_shifted(np.left_shift), (t, "u32"), t)
        yield f"shr.{t}", Operation(_shifted(np.right_shift), (t, "u32"), t)
    yield "bfe.u32", Operation(_field, ("u32", "u32", "u32"), "u32")
    for t in (*_BITS, *_SIGNED, *_UNSIGNED, *_FLOATS):
        yield f"selp.{t}", Operation(lambda a, b, chosen: np.where(chosen, a, b), (t, t, "pred"), t)
        yield f"mov.{t}", Operation(lambda x: x, (t,), t)


def _shifted(function: Callable) -> Callable:
    """A shift by as many bits as there are, or more, leaves nothing but the sign."""

    def shift(x, by):
        most = 8 * x.dtype.itemsize - 1
        shifted = function(x, np.minimum(by, most).astype(x.dtype))
        return np.where(by > most, function(shifted, x.dtype.type(1)), shifted)

    return shift


def _field(x, position, length):
    """`length` bits of x from `position` on."""
    mask = _shifted(np.left_shift)(np.uint32(1), length) - np.uint32(1)
    return _shifted(np.right_shift)(x, position) & mask


def _comparisons() -> Iterator[tuple[str, Operation]]:
    ordered = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
    for t in (*_SIGNED, *_UNSIGNED, *_BITS):
        for name, compare in ordered.items():
            if t not in _BITS or name in ("eq", "ne"):
                yield f"setp.{name}.{t}", Operation(compare, (t, t), "pred")
    for t in _FLOATS:
        for name, compare in ordered.items():  # where one is NaN it does not hold, `ne` either, and with a `u` it does
            yield f"setp.{name}.{t}", Operation(lambda a, b, f=compare: f(a, b) & ~_one_is_nan(a, b), (t, t), "pred")
            yield f"setp.{name}u.{t}", Operation(lambda a, b, f=compare: f(a, b) | _one_is_nan(a, b), (t, t), "pred")
        yield f"setp.nan.{t}", Operation(_one_is_nan, (t, t), "pred")
        yield f"setp.num.{t}", Operation(lambda a, b: ~_one_is_nan(a, b), (t, t), "pred")


def _one_is_nan(a, b):
    return np.isnan(a) | np.isnan(b)


OPERATIONS = dict([*_floats(), *_conversions(), *_integers(), *_bits(), *_comparisons()])
