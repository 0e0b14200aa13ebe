"""What HLO's operations do, in NumPy: bits moved and numbers computed, each float result rounded once.

Two tables: of operations that need the numbers alone (`ELEMENTWISE`), and of those that need the instruction too (`TYPED`). An operation on
floats meets arrays of one dtype, so NumPy's arithmetic is HLO's. Scalars are NumPy's, on which Python's operators are the fastest.
"""

import functools
import operator
import re
from collections.abc import Callable

import ml_dtypes
import numpy as np

from .hlo import Array, Instruction

_WORDS = {"true": True, "false": False}
_COMPARE = {"EQ": operator.eq, "NE": operator.ne, "LT": operator.lt, "LE": operator.le, "GT": operator.gt, "GE": operator.ge}


def _right(signed: str, x, n):
    """A shift to the right, as of the one or the other kind of whole numbers."""
    kind = f"{signed}{x.dtype.itemsize}"
    return (x.view(kind) >> n.view(kind)).view(x.dtype)


def _leading_zeros(x):
    bits = np.frexp(np.asarray(x, np.float64))[1]  # exact for the 32 bits that it is asked for
    return (8 * x.dtype.itemsize - bits).astype(x.dtype)[()]


ELEMENTWISE: dict[str, Callable] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: np.reciprocal(np.sqrt(x)),
    "maximum": np.maximum,
    "minimum": np.minimum,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    "negate": operator.neg,
    "abs": operator.abs,
    "sign": lambda x: np.where((x == 0) | (x != x), x, np.copysign(x.dtype.type(1), x).astype(x.dtype))[()],
    "is-finite": np.isfinite,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "not": operator.invert,
    "shift-left": operator.lshift,  # by the width or more nothing is left, in HLO as in NumPy
    "shift-right-logical": functools.partial(_right, "u"),
    "shift-right-arithmetic": functools.partial(_right, "i"),
    "count-leading-zeros": _leading_zeros,
    "select": lambda p, a, b: np.where(p, a, b) if p.ndim else a if p else b,
}


def _result(i: Instruction) -> Array:
    (result,) = i.results
    return result


def _convert(i: Instruction) -> Callable:
    to = _result(i).dtype

    def convert(x):
        if to.kind not in "iu" or x.dtype.kind in "iub":
            return x.astype(to)
        low, high = float(np.iinfo(to).min), float(np.iinfo(to).max) + 1
        wide = np.nan_to_num(np.asarray(x, np.float64), nan=0.0, posinf=high, neginf=low)  # float32 and halves: exact
        inside = np.where((wide > low) & (wide < high), wide, 0).astype(to)
        return np.where(wide >= high, np.iinfo(to).max, np.where(wide <= low, np.iinfo(to).min, inside)).astype(to)[()]

    return convert


def _bitcast_convert(i: Instruction) -> Callable:
    to, shape = _result(i).dtype, _result(i).shape
    return lambda x: np.ascontiguousarray(x).reshape(-1).view(to).reshape(shape)[()]


def _reduce_precision(i: Instruction) -> Callable:
    if (i.attribute("exponent_bits"), i.attribute("mantissa_bits")) != ("8", "7"):
        raise NotImplementedError("only to bfloat16")
    return lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32)


def _constant(i: Instruction) -> Callable:
    dtype, shape = _result(i).dtype, _result(i).shape
    words = re.findall(r"[^\s{},]+", i.inside)
    if "..." in words:
        raise NotImplementedError("its text is left out")
    value = np.array([_WORDS[word] if word in _WORDS else dtype.type(word) for word in words], dtype).reshape(shape)[()]
    return lambda: value


def _broadcast(i: Instruction) -> Callable:
    axes, shape = i.numbers("dimensions"), _result(i).shape
    thin = [shape[axis] if axis in axes else 1 for axis in range(len(shape))]
    return lambda x: np.broadcast_to(np.reshape(x, thin), shape)


def _slice(i: Instruction) -> Callable:
    bounds = re.findall(r"\[(\d+):(\d+)(?::(\d+))?\]", i.attributes)
    slices = tuple(slice(int(start), int(stop), int(step or 1)) for start, stop, step in bounds)
    return lambda x: x[slices]


def _window(x, sizes, starts):
    """The part of x that starts there, moved to lie inside."""
    starts = [int(np.clip(start, 0, whole - size)) for start, whole, size in zip(starts, x.shape, sizes, strict=True)]
    return tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))


def _dynamic_update_slice(i: Instruction) -> Callable:
    def update(x, part, *starts):
        x = np.array(x)
        x[_window(x, part.shape, starts)] = part
        return x

    return update


def _compare(i: Instruction) -> Callable:
    return _COMPARE[i.attribute("direction")]


def _iota(i: Instruction) -> Callable:
    (axis,) = i.numbers("iota_dimension")
    dtype, shape = _result(i).dtype, _result(i).shape
    value = np.indices(shape)[axis].astype(dtype)
    return lambda: value


def _custom_call(i: Instruction) -> Callable:
    """What a TPU's program has no instruction for: memory that is written later, parts put together, 64 bits taken apart."""
    target, result = i.attribute("custom_call_target"), _result(i)
    if target == "AllocateBuffer":
        return lambda: np.zeros(result.shape, result.dtype)
    if target == "ConcatBitcast":
        return lambda *parts: np.concatenate(parts, np.not_equal(parts[0].shape, result.shape).argmax())
    if result.dtype.kind not in "iu" or target not in ("X64Combine", "X64SplitLow", "X64SplitHigh"):
        raise NotImplementedError(target)
    if target == "X64Combine":
        return lambda low, high: (low.astype(np.uint64) | high.astype(np.uint64) << np.uint64(32)).view(result.dtype)
    by = np.uint64(32 if target == "X64SplitHigh" else 0)
    return lambda x: (x.view(np.uint64) >> by).astype(np.uint32).view(result.dtype)


TYPED: dict[str, Callable[[Instruction], Callable]] = {
    "convert": _convert,
    "bitcast-convert": _bitcast_convert,
    "reduce-precision": _reduce_precision,
    "compare": _compare,
    "constant": _constant,
    "broadcast": _broadcast,
    "slice": _slice,
    "iota": _iota,
    "custom-call": _custom_call,
    "bitcast": lambda i: lambda x: np.reshape(x, _result(i).shape)[()],
    "reshape": lambda i: lambda x: np.reshape(x, _result(i).shape)[()],
    "transpose": lambda i: lambda x: np.transpose(x, i.numbers("dimensions")),
    "concatenate": lambda i: lambda *parts: np.concatenate(parts, i.numbers("dimensions")[0]),
    "dynamic-slice": lambda i: lambda x, *starts: x[_window(x, i.numbers("dynamic_slice_sizes"), starts)],
    "dynamic-update-slice": _dynamic_update_slice,
    "copy": lambda i: lambda x: x,
    "copy-start": lambda i: lambda x: x,  # to another memory, while the program goes on
    "copy-done": lambda i: lambda x: x,
    "slice-start": _slice,
    "slice-done": lambda i: lambda x: x,
    "opt-barrier": lambda i: lambda x: x,
    "tuple": lambda i: lambda *parts: parts,
    "get-tuple-element": lambda i: operator.itemgetter(*i.numbers("index")),
}
