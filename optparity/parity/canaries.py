"""One small expression per rewrite: what this jax backend and this torch build make of it, plain and fenced, against NumPy.

`CANARIES` are the rewrites of XLA. Each holds an expression over any kind of array, so that the same text runs plain (`jax.numpy`), fenced
(`jaxopt_impl.numerics`) and in NumPy, whose operations each round once. `TORCH` are the operations of PyTorch that kernels use or avoid.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_impl import numerics as nx

from .bits import differing

ELEMENTS = 2**20
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 2.0**60, 2.0**-40]  # no quotient of three is subnormal


@dataclass(frozen=True)
class Canary:
    """An expression that XLA may rewrite.

    Attributes:
        name: what it is called here.
        becomes: what the rewrite makes of it.
        expression: `f(m, a, b, c, d)` over arrays, `m` having `sqrt` and `sign`; c and d are not negative, as every divisor of a rule.
        prepare: what happens to the arrays inside the same jit, before the expression, and outside of any kernel.
        rewritten_by: the jax versions (major.minor) that do so on x86 CPU, as measured.
        halves: whether it is tried in bfloat16 and float16 as well: arrays only, since NumPy rounds a Python number to the half type.
    """

    name: str
    becomes: str
    expression: Callable
    prepare: Callable = lambda *arrays: arrays
    rewritten_by: frozenset[str] = frozenset({"0.10", "0.12"})
    halves: bool = False


class InNumPy:
    """What the expressions mean: one rounding each, and a sign that keeps zeros and NaN (np.sign makes +0 of -0)."""

    sqrt = staticmethod(np.sqrt)

    @staticmethod
    def sign(x: np.ndarray) -> np.ndarray:
        """+1 or -1; zeros and NaN as they are."""
        return np.where((x == 0) | np.isnan(x), x, np.copysign(np.ones_like(x), x))


ONCE = frozenset({"0.10"})
NEVER = frozenset()


def _scalar(a, b, c, d):
    return a, b, c[3], d  # an array [] that is known at run time only


CANARIES = [
    Canary("a*b + c", "fma(a, b, c)", lambda m, a, b, c, d: a * b + c, halves=True),
    Canary("p + p, p = a*b", "fma(a, b, p)", lambda m, a, b, c, d: (lambda p: p + p)(a * b), rewritten_by=NEVER),
    Canary("a - b*c", "fma(-b, c, a)", lambda m, a, b, c, d: a - b * c, halves=True),
    Canary("a + b, a = x*y outside the kernel", "fma(x, y, b)", lambda m, a, b, c, d: a + b, lambda a, b, c, d: (a * c, b, c, d)),
    Canary("a / sqrt(c)", "a * rsqrt(c)", lambda m, a, b, c, d: a / m.sqrt(c), halves=True),
    Canary("0.1 / sqrt(c)", "0.1 * rsqrt(c)", lambda m, a, b, c, d: 0.1 / m.sqrt(c)),
    Canary("a / (1.0 * sqrt(c))", "a * rsqrt(c)", lambda m, a, b, c, d: a / (1.0 * m.sqrt(c))),
    Canary("a*b/1.0 + c", "fma(a, b, c)", lambda m, a, b, c, d: a * b / 1.0 + c),
    Canary("a / 3.0", "a * (1/3.0)", lambda m, a, b, c, d: a / 3.0),
    Canary("a / s, s an array []", "a * (1/s)", lambda m, a, b, c, d: a / c, _scalar),
    Canary("(a*0.1)*0.3", "a * (0.1*0.3)", lambda m, a, b, c, d: (a * 0.1) * 0.3, rewritten_by=ONCE),
    Canary("(a*0.1)*s, s an array []", "a * (0.1*s)", lambda m, a, b, c, d: (a * 0.1) * c, _scalar, rewritten_by=ONCE),
    Canary(
        "a*0.3, a = x*0.1 outside the kernel",
        "x * (0.1*0.3)",
        lambda m, a, b, c, d: a * 0.3,
        lambda a, b, c, d: (a * 0.1, b, c, d),
        ONCE,
    ),
    Canary("(a+0.1)+0.3", "a + (0.1+0.3)", lambda m, a, b, c, d: (a + 0.1) + 0.3, rewritten_by=ONCE),
    Canary("0.3 + (a+0.1)", "(0.3+0.1) + a", lambda m, a, b, c, d: 0.3 + (a + 0.1), rewritten_by=ONCE),
    Canary("(a/d)/c", "a / (d*c)", lambda m, a, b, c, d: (a / d) / c, halves=True),
    Canary("a/c, a = x/d outside the kernel", "x / (d*c)", lambda m, a, b, c, d: a / c, lambda a, b, c, d: (a / d, b, c, d)),
    Canary("a / (c/d)", "(a*d) / c", lambda m, a, b, c, d: a / (c / d)),
    Canary("a / (sqrt(c) + 0.0)", "a * rsqrt(c)", lambda m, a, b, c, d: a / (m.sqrt(c) + 0.0)),
    Canary("a / (c/d + 0.0)", "(a*d) / c", lambda m, a, b, c, d: a / (c / d + 0.0)),
    Canary("a / (sqrt(c) + d)", "a * rsqrt(c) by way of d", lambda m, a, b, c, d: a / (m.sqrt(c) + d), rewritten_by=NEVER, halves=True),
    Canary("a / c", "an approximate division", lambda m, a, b, c, d: a / c, rewritten_by=NEVER, halves=True),
    Canary("c * sign(a - b)", "a sign that is no more", lambda m, a, b, c, d: c * m.sign(a - b), rewritten_by=NEVER, halves=True),
    Canary("sqrt(c)", "an approximate root", lambda m, a, b, c, d: m.sqrt(c), rewritten_by=NEVER, halves=True),
]


def inputs(dtype: str, elements: int = ELEMENTS) -> list[np.ndarray]:
    """Random a and b, c and d >= 0, each pair of special values among them."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(elements).astype(dtype) for _ in range(4)]
    if dtype == "float16":
        for x in arrays[:2]:
            x[::3] *= np.float16(2.0**-14)  # its subnormals are within reach, and kept
    with np.errstate(over="ignore"):  # what float16 does not hold is inf there
        pairs = np.array([(x, y) for x in SPECIAL for y in SPECIAL], dtype)
    for i, x in enumerate(arrays):
        x[-len(pairs) :] = pairs[:, i % 2]
    a, b, c, d = arrays
    return [a, b, np.abs(c), np.abs(np.roll(d, 1))]


def rounded_once(canary: Canary, dtype: str, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """What the expression means: its results in NumPy, from arrays that are prepared."""
    with np.errstate(all="ignore"):
        return np.asarray(canary.expression(InNumPy, *arrays)).astype(dtype, copy=False)


def plain_and_fenced(canary: Canary, dtype: str = "float32", elements: int = ELEMENTS) -> tuple[float, float]:
    """The share of results that are not those of NumPy: of the plain expression under jit, and of the fenced one."""
    arrays = inputs(dtype, elements)

    @jax.jit
    def plain(*arrays):
        return canary.expression(jnp, *canary.prepare(*arrays))

    @jax.jit
    def fenced(*arrays):
        exact = [nx.wrap(x, dtype) for x in nx.barrier(*canary.prepare(*arrays))]
        return nx.finish(canary.expression(nx, *exact))

    with jax.enable_x64(dtype == "float64"):
        prepared = jax.jit(canary.prepare)(*arrays)  # here, since an x/d outside of the kernel is this backend's own
        expected = rounded_once(canary, dtype, [np.asarray(x) for x in prepared])
        return tuple(float(differing(np.asarray(f(*arrays)), expected).mean()) for f in (plain, fenced))  # type: ignore[return-value]


@dataclass(frozen=True)
class TorchCanary:
    """An operation of PyTorch that may round otherwise than once per + - * / sqrt.

    Attributes:
        name: what is written.
        torch: `f(torch, a, b, c, d)` over tensors.
        numpy: the same over arrays, each operation rounded once.
        used: whether `torch_ref` uses it, and so must find it exact.
        rounds_otherwise: whether it does on x86 with AVX2 and MKL, as measured.
    """

    name: str
    torch: Callable
    numpy: Callable
    used: bool = False
    rounds_otherwise: bool = False


def _exactly(operation):
    def through_numerics(torch, *tensors):
        from torch_ref import numerics

        return operation(numerics, *(numerics.Rounded(x) for x in tensors)).x

    return through_numerics


TORCH = [
    TorchCanary(
        "a.add(b, alpha=0.1)",
        lambda t, a, b, c, d: a.add(b, alpha=0.1),
        lambda a, b, c, d: a + b * a.dtype.type(0.1),
        rounds_otherwise=True,
    ),
    TorchCanary("a.addcmul(b, c)", lambda t, a, b, c, d: a.addcmul(b, c), lambda a, b, c, d: a + b * c, rounds_otherwise=True),
    TorchCanary(
        "a.addcdiv(b, c, value=0.1)", lambda t, a, b, c, d: a.addcdiv(b, c, value=0.1), lambda a, b, c, d: a + a.dtype.type(0.1) * b / c
    ),
    TorchCanary(
        "a.lerp(b, 0.1)", lambda t, a, b, c, d: a.lerp(b, 0.1), lambda a, b, c, d: a + a.dtype.type(0.1) * (b - a), rounds_otherwise=True
    ),
    TorchCanary("torch.sqrt(c)", lambda t, a, b, c, d: t.sqrt(c), lambda a, b, c, d: np.sqrt(c), rounds_otherwise=True),
    TorchCanary("a / 3.0", lambda t, a, b, c, d: a / 3.0, lambda a, b, c, d: a / a.dtype.type(3.0)),
    TorchCanary("torch_ref: a + b", _exactly(lambda m, a, b, c, d: a + b), lambda a, b, c, d: a + b, used=True),
    TorchCanary("torch_ref: a - b", _exactly(lambda m, a, b, c, d: a - b), lambda a, b, c, d: a - b, used=True),
    TorchCanary("torch_ref: a * b", _exactly(lambda m, a, b, c, d: a * b), lambda a, b, c, d: a * b, used=True),
    TorchCanary("torch_ref: a / c", _exactly(lambda m, a, b, c, d: a / c), lambda a, b, c, d: a / c, used=True),
    TorchCanary("torch.sign(a)", lambda t, a, b, c, d: t.sign(a), lambda a, b, c, d: InNumPy.sign(a), rounds_otherwise=True),
    TorchCanary("torch_ref: sign(a)", _exactly(lambda m, a, b, c, d: m.sign(a)), lambda a, b, c, d: InNumPy.sign(a), used=True),
    TorchCanary("torch_ref: sqrt(c)", _exactly(lambda m, a, b, c, d: m.sqrt(c)), lambda a, b, c, d: np.sqrt(c), used=True),
    *(
        TorchCanary(
            f"torch_ref: a {sign} 0.1",
            _exactly(lambda m, a, b, c, d, f=f: f(a, 0.1)),
            lambda a, b, c, d, f=f: f(a, a.dtype.type(0.1)),
            used=True,
        )
        for sign, f in {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}.items()
    ),
]


def torch_differing(canary: TorchCanary, dtype: str = "float32", device: str = "cpu", elements: int = ELEMENTS) -> float:
    """The share of results that are not those of NumPy."""
    import torch

    arrays = inputs(dtype, elements)
    with np.errstate(all="ignore"):
        expected = canary.numpy(*arrays)
    got = canary.torch(torch, *(torch.from_numpy(x).to(device) for x in arrays))
    return float(differing(got.cpu().numpy(), expected).mean())
