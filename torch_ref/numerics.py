"""Arithmetic in eager PyTorch that rounds once per operation.  Mirror: jaxopt_impl/numerics.py

Left out, since they round otherwise: `alpha=`, `addcmul`, `addcdiv`, `lerp` (FMAs on AVX2), `torch.sqrt` on CPU (MKL's, not
correctly rounded), and division by a Python number on CUDA (may become a product with its reciprocal).

bfloat16 and float16 are computed in float32 and rounded after each operation. Spelled out: eager torch would multiply such a tensor by a
Python number that way, but add one only after rounding the number itself.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .shards import local

DTYPES = ("float32", "float64", "bfloat16", "float16")
HALVES = ("bfloat16", "float16")
_FORMATS = {"float32": (24, 128), "bfloat16": (8, 128), "float16": (11, 16)}  # bits of precision, exponent of the first number too large

Count = Tensor | None
Number = float  # a hyper-parameter


class Rounded:
    """A tensor on which + - * / round once, to its dtype; Python numbers are rounded to the dtype of the computation first."""

    __slots__ = ("dtype", "x")

    def __init__(self, x: Tensor, dtype: str | None = None):
        self.x, self.dtype = x, dtype or dtype_name(x.dtype)

    def then(self, x: Tensor) -> Rounded:
        """The result of an operation on this, rounded to this dtype."""
        return Rounded(x.to(getattr(torch, self.dtype)).float() if self.dtype in HALVES else x, self.dtype)

    def __add__(self, other):
        return self.then(self.x + _operand(other))

    def __sub__(self, other):
        return self.then(self.x - _operand(other))

    def __mul__(self, other):
        return self.then(self.x * _operand(other))

    def __truediv__(self, other):
        return self.then(self.x / torch.as_tensor(_operand(other), dtype=self.x.dtype, device=self.x.device))

    def __rtruediv__(self, other):
        return self.then(torch.as_tensor(other, dtype=self.x.dtype, device=self.x.device) / self.x)

    def __neg__(self):
        return Rounded(-self.x, self.dtype)

    __radd__, __rmul__ = __add__, __mul__


def _operand(other) -> Tensor | float:
    return other.x if isinstance(other, Rounded) else other


def sqrt(a) -> Any:
    """Correctly rounded on every device: NumPy's on CPU, elsewhere through float64 (enough for float32); of a Python number too."""
    if not isinstance(a, Rounded):
        return math.sqrt(a)
    if a.x.device.type != "cpu":
        return a.then(a.x.double().sqrt().to(a.x.dtype))
    root = torch.empty_like(a.x)
    with np.errstate(invalid="ignore"):
        np.sqrt(a.x.numpy(), out=root.numpy())
    return a.then(root)


def sign(a: Rounded) -> Rounded:
    """+1 or -1; a zero of either sign, and NaN, as they are (torch.sign makes +0 of each)."""
    return a.then(torch.where(a.x.isnan(), a.x, torch.copysign((a.x != 0).to(a.x.dtype), a.x)))


def where(condition: bool, a: Number, b: Number) -> Number:
    """One of two hyper-parameters, not of two leaves."""
    return a if condition else b


def less(a: Any, b: Number) -> Any:
    """Whether a leaf, or a hyper-parameter, is less than a hyper-parameter: a condition for `choose`, or for `where`."""
    if isinstance(a, Rounded):
        return a.x < torch.as_tensor(b, dtype=a.x.dtype, device=a.x.device)
    return a < b


def floor(a: Number) -> Number:
    """The largest whole number that is not above a hyper-parameter."""
    return float(np.floor(a))


def exponent(a: Number) -> Number:
    """The n with 2ⁿ <= a < 2ⁿ⁺¹, of a hyper-parameter a >= 2⁻¹⁰²²."""
    return math.frexp(a)[1] - 1.0


def power_of_two(n: Number) -> Number:
    """2ⁿ, of a whole number from -1022 to 1023."""
    return math.ldexp(1.0, int(n))


def unless_zero(number: Number, a: Rounded, b: Rounded | Callable[[], Rounded]) -> Rounded:
    """a; but b, or what it returns, where a hyper-parameter is 0. (Kernels test it before, so here it is a.)"""
    if number:
        return a
    return b() if callable(b) else b


def maximum(a: Any, b: Any) -> Any:
    """The larger of two leaves, NaN if one is; or of two hyper-parameters, which are numbers."""
    if not isinstance(a, Rounded):
        return where(less(a, b), b, a)
    return Rounded(torch.maximum(a.x, b.x), a.dtype)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of a leaf and a Python number, NaN if one is; or of two hyper-parameters, which are numbers."""
    if not isinstance(a, Rounded):
        return where(less(b, a), b, a)
    return a.then(torch.clamp(a.x, max=b))


def clamp(a: Rounded, least: Number, most: Number) -> Rounded:
    """a, but not below the least and not above the most number. By choosing: zeros and NaN stay."""
    low, high = (torch.as_tensor(number, dtype=a.x.dtype, device=a.x.device) for number in (least, most))
    return a.then(torch.where(a.x < low, low, torch.where(a.x > high, high, a.x)))


def choose(condition: Any, a: Any, b: Any) -> Any:
    """One of two leaves, whole; or of two counts or arrays [] of a state."""
    if isinstance(a, Rounded):
        return a.then(torch.where(condition, a.x, b.x))
    return a if condition else b


def like(a: Rounded, leaf: Rounded) -> Rounded:
    """a, in the dtype that a leaf is computed in."""
    return Rounded(a.x.to(leaf.x.device, leaf.x.dtype), leaf.dtype)


def power(base: float, t: float) -> float:
    """base**t by binary powering in float64, least significant bit first: the same bits everywhere, which `pow` does not promise.

    t is a whole number from 0 to 2^31 - 1.
    """
    result, t = 1.0, int(t)
    while t:
        if t & 1:
            result = result * base
        base, t = base * base, t >> 1
    return result


def state_dtype(leaf_dtype: str, accumulator: str | None) -> str:
    """The dtype of a leaf's state: its own, or the accumulator's for halves."""
    return accumulator if accumulator and leaf_dtype in HALVES else leaf_dtype


def dtype_name(dtype) -> str:
    return str(dtype).removeprefix("torch.")


def rounded_to(number: float, dtype: str) -> float:
    """A Python number as a leaf's dtype has it, rounded once: NumPy and torch go through float32 on their way to a half."""
    if dtype == "float64" or not math.isfinite(number):
        return number
    precision, overflow = _FORMATS[dtype]
    unit = math.ldexp(1.0, max(math.frexp(number)[1], 3 - overflow) - precision)
    size = abs(round(number / unit) * unit)
    return math.copysign(size if size < 2.0**overflow else math.inf, number)


def wrap(tensor: Tensor, dtype: str) -> Rounded:
    """What lies here of a tensor as kernels take it, in its own dtype, or in a wider one for halves."""
    tensor = local(tensor)
    if dtype_name(tensor.dtype) not in HALVES:
        return Rounded(tensor)
    return Rounded(tensor.double() if dtype == "float64" else tensor.float(), dtype)


def unwrap(a: Rounded, dtype: str | None = None) -> Tensor:
    """The tensor of a leaf, in its dtype, or rounded once to bfloat16."""
    x = a.x
    if dtype not in (None, a.dtype) and a.dtype == "float64":
        # First to the precision of a bfloat16, so that float32 on the way rounds nothing: 45 bits are dropped, a tie goes to even.
        bits = x.view(torch.int64)
        x = torch.where(x.isfinite(), ((bits + (2**44 - 1) + ((bits >> 45) & 1)) & -(2**45)).view(torch.float64), x).float()
    return x.to(getattr(torch, dtype or a.dtype))


def finish(a: Rounded, dtype: str) -> Tensor:
    """The tensor of a finished update, rounded to the parameter's dtype."""
    return a.x.to(getattr(torch, dtype))


def narrowed(a: Rounded, dtype: str) -> Rounded:
    """A float32 number rounded to a half, and float32 again."""
    return Rounded(a.x.to(getattr(torch, dtype)).float(), a.dtype)


def narrowed_by(a: Rounded, bits: Tensor) -> Rounded:
    """A float32 number rounded to bfloat16 up or down by 16 random bits, and float32 again.

    The lower half of its bits is the fraction that is dropped: the sum with the random ones carries as often as that is large. Infinity
    and NaN stay.
    """
    rounded = (a.x.view(torch.int32) + bits & -0x10000).view(torch.float32)
    return Rounded(torch.where(a.x.isfinite(), rounded, a.x), a.dtype)


def update_to(p: Rounded, q: Rounded) -> Rounded:
    """The update that makes q of p: q - p; -0 where their bits are the same, so that a zero keeps its sign and infinity stays."""
    u = q - p
    return Rounded(torch.where(p.x.view(torch.int32) == q.x.view(torch.int32), -0.0, u.x), u.dtype)


def rotate_left(words: Tensor, by: int) -> Tensor:
    """Words of 32 bits, turned around: int32, whose sign the shift to the right would repeat."""
    return words << by | words >> 32 - by & (1 << by) - 1


def word(number: int) -> Tensor:
    """A whole number modulo 2^32 as a word of 32 bits: an int32, in which addition wraps around."""
    return torch.tensor(number & 0xFFFFFFFF).to(torch.int32)


def static_value(value) -> float:
    """A hyper-parameter's value."""
    if isinstance(value, numbers.Real) or (isinstance(value, Tensor) and value.numel() == 1):
        return float(value)
    raise TypeError(f"a number is needed, not {value!r}")


def scalar(value: Tensor) -> float:
    """A tensor [] of a state, as a hyper-parameter."""
    return float(value)


def reciprocal(number: Number) -> Number:
    """1 / a hyper-parameter; of 0 infinity."""
    return 1 / number if number else math.copysign(math.inf, number)


def in_float32(number: Number) -> Tensor:
    """A hyper-parameter rounded once to float32, as a tensor [] of a state; `scalar` of it goes on with what is left."""
    return torch.tensor(number, dtype=torch.float64).float()


def is_finite(a: Rounded | Tensor) -> bool:
    """Whether no element is infinite or NaN."""
    return bool((a.x if isinstance(a, Rounded) else a).isfinite().all())
