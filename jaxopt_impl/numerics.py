"""Arithmetic that XLA cannot change: each + - * / and sqrt rounds once.  Mirror: torch_ref/numerics.py

XLA merges neighbouring operations: a product into the addition that follows (an FMA), two constant factors into one, a
quotient into the next division, a division by a scalar or by a square root into a product with a reciprocal. Each merge
drops a rounding or adds one. Two things stop it, and no other part of the package knows them:

- `barrier` at a kernel's entry hides from the algebraic simplifier what the caller computed. It does not stop the FMA.
- `fence(x) = x + copysign(0, x)` equals x for every x, and no compiler can know that: the added zero is sometimes -0.
  A fenced product is no longer a product, so nothing merges with it; a fenced divisor is no longer a scalar or a root.

An `Exact` remembers which operations its value could merge with (`merges`), and is fenced only where it meets one.
"""

from __future__ import annotations

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

DTYPES = ("float32", "float64")

Count = jax.Array | None
Number = Any  # a hyper-parameter: a float, an array [] or a schedule; in a kernel a float or a `Scalar`

_SIGN_BIT = {"float32": np.int32(-(2**31)), "float64": np.int64(-(2**63))}


def signed_zero(x: jax.Array) -> jax.Array:
    """+0 or -0, with the sign of x: nothing to IEEE arithmetic, an unknown to a compiler."""
    sign_bit = _SIGN_BIT[x.dtype.name]
    bits = lax.bitcast_convert_type(x, sign_bit.dtype)
    return lax.bitcast_convert_type(bits & sign_bit, x.dtype)


def fence(x: jax.Array) -> jax.Array:
    """x, as a value that nothing can be merged with. (Like any addition, it flushes a subnormal where XLA does.)"""
    return x + signed_zero(x)


class Exact:
    """A leaf on which + - * / round once, to its dtype; Python numbers and `Scalar`s are rounded to that dtype first.

    `merges` names what XLA would merge with this value: "+" an addition (or subtraction) of it, "*" a product with it, "/" a division
    of it, "c" the addition of another constant.
    """

    __slots__ = ("merges", "x")
    __array_ufunc__ = None  # so that a NumPy number on the left leaves the operation to us

    def __init__(self, x: Any, merges: str = "+"):
        self.x, self.merges = x, merges  # a value from outside may be a product; `barrier` hid the rest

    def apart(self, operation: str) -> jax.Array:
        """The array, fenced if it could merge with the operation."""
        return fence(self.x) if set(operation) & set(self.merges) else self.x

    def __add__(self, other):
        kind, (a, b), merges = _addends(self, other)
        return kind(a + b, merges)

    def __sub__(self, other):
        kind, (a, b), merges = _addends(self, other)
        return kind(a - b, merges)

    def __mul__(self, other):
        kind, a, b = _meet(self, other)
        scaled = a.x.ndim != b.x.ndim or not a.x.ndim  # only a scalar factor can be folded into the next one
        return kind(a.apart("*") * b.apart("*"), "+*" if scaled else "+")

    def __truediv__(self, other):
        kind, a, b = _meet(self, other)
        numerator = a.apart("/")
        return kind(numerator / (b.x + signed_zero(numerator)), "/")

    def __neg__(self):
        return type(self)(-self.x, self.merges.replace("/", ""))

    def __radd__(self, other):
        return _constant(other, self) + self

    def __rsub__(self, other):
        return _constant(other, self) - self

    def __rmul__(self, other):
        return _constant(other, self) * self

    def __rtruediv__(self, other):
        return _constant(other, self) / self


class Scalar(Exact):
    """A hyper-parameter known only at run time: float64 among its kind, rounded once where it meets a leaf.

    Needs `jax.enable_x64(True)` around it, which the shell provides.
    """

    def rounded(self, dtype) -> Exact:
        # Both sides of the conversion are fenced: LLVM narrows float32(float64(a) * float64(b)) to a float32 product.
        return Exact(fence(fence(self.x).astype(dtype)), "")


def _constant(number, like: Exact) -> Exact:
    return type(like)(np.asarray(number, like.x.dtype), "c")


def _meet(a: Exact, b) -> tuple[type[Exact], Exact, Exact]:
    """The kind of the result, and both operands in its dtype."""
    if not isinstance(b, Exact):
        b = _constant(b, a)
    if type(a) is type(b):
        return type(a), a, b
    if isinstance(a, Scalar):
        return Exact, a.rounded(b.x.dtype), b
    return Exact, a, b.rounded(a.x.dtype)  # type: ignore[attr-defined]  (b is the Scalar)


def _addends(a: Exact, b) -> tuple[type[Exact], list, str]:
    """The kind of a sum, its two arrays, and what the sum could merge with."""
    kind, a, b = _meet(a, b)
    constants = [v for v in (a, b) if "c" in v.merges]
    return kind, [v.apart("+c" if len(constants) == 2 else "+") for v in (a, b)], "c" if constants else ""


def sqrt(a: Exact) -> Exact:
    return type(a)(jnp.sqrt(a.x), "")  # never a divisor unfenced, see __truediv__


def where(condition, a: Exact, b: Exact) -> Exact:
    return Exact(jnp.where(condition, a.x, b.x), "".join(sorted({*a.merges, *b.merges})))


def barrier(*arrays):
    """The same arrays (or None), opaque to the algebraic simplifier, so that constants do not fold into the rule."""
    return lax.optimization_barrier(arrays)


def result(a: Exact) -> jax.Array:
    """The array of a finished update, apart from whatever the caller does with it next."""
    return fence(a.x) if a.merges.strip("/") else a.x


def known(value) -> float | None:
    """A hyper-parameter's value, or None where only the run will tell: a schedule, a tracer, an array spread over hosts."""
    if isinstance(value, numbers.Real):
        return float(value)
    if callable(value):
        return None
    if isinstance(value, jax.Array) and value.ndim == 0:
        return None if isinstance(value, Tracer) or not value.is_fully_addressable else float(value)
    raise TypeError(f"a number is needed, not {value!r}")


def off(value) -> bool:
    """Whether a term is switched off: by a Python 0 or False only, never by what a traced hyper-parameter may hold."""
    return isinstance(value, numbers.Real) and not value


def scalar(value) -> Scalar | float:
    """A hyper-parameter as kernels take it: a Python number stays one, an array becomes a float64 `Scalar`."""
    if isinstance(value, numbers.Real):
        return value if isinstance(value, bool) else float(value)
    return Scalar(barrier(jnp.asarray(value))[0].astype(jnp.float64), "")
