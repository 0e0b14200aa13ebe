"""Arithmetic in eager PyTorch that rounds once per operation.  Mirror: jaxopt_impl/numerics.py

Left out, since they round otherwise: `alpha=`, `addcmul`, `addcdiv`, `lerp` (FMAs on AVX2), `torch.sqrt` on CPU (MKL's, not
correctly rounded), and division by a Python number on CUDA (may become a product with its reciprocal).
"""

from __future__ import annotations

import numbers

import numpy as np
import torch
from torch import Tensor

DTYPES = ("float32", "float64")

Count = Tensor | None
Number = float  # a hyper-parameter


class Exact:
    """A tensor on which + - * / round once, to its dtype; Python numbers are rounded to that dtype first."""

    __slots__ = ("x",)

    def __init__(self, x: Tensor):
        self.x = x

    def _of(self, other) -> Tensor | float:
        return other.x if isinstance(other, Exact) else other

    def __add__(self, other):
        return Exact(self.x + self._of(other))

    def __sub__(self, other):
        return Exact(self.x - self._of(other))

    def __mul__(self, other):
        return Exact(self.x * self._of(other))

    def __truediv__(self, other):
        return Exact(self.x / torch.as_tensor(self._of(other), dtype=self.x.dtype, device=self.x.device))

    def __neg__(self):
        return Exact(-self.x)

    def __rsub__(self, other):
        return Exact(other - self.x)

    def __rtruediv__(self, other):
        return Exact(torch.full_like(self.x, other)) / self

    __radd__, __rmul__ = __add__, __mul__


def sqrt(a: Exact) -> Exact:
    """Correctly rounded on every device: NumPy's on CPU, elsewhere through float64 (which is enough for float32)."""
    if a.x.device.type != "cpu":
        return Exact(a.x.double().sqrt().to(a.x.dtype))
    root = torch.empty_like(a.x)
    with np.errstate(invalid="ignore"):
        np.sqrt(a.x.numpy(), out=root.numpy())
    return Exact(root)


def where(condition: bool, a: Exact, b: Exact) -> Exact:
    return a if condition else b


def known(value) -> float:
    """A hyper-parameter's value."""
    if isinstance(value, numbers.Real) or (isinstance(value, Tensor) and value.numel() == 1):
        return float(value)
    raise TypeError(f"a number is needed, not {value!r}")
