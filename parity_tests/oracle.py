"""The rules once more, by people who have not read the kernels: one rounding per operation, done by MPFR, number by number.

`RULES[name](numbers, g, p, state, t, **arguments) -> (u, state)` is written over any kind of number, and two kinds are here:
- `Rounded`: a number of float32 or float64 that rounds each result to nearest-even, and flushes what is too small. It says what the
  right bits are.
- `Bounded`: the exact value (400 bits) with a bound on the error that `Rounded` can have collected on its way there. It says that the
  right bits are near the formula: running error analysis (Higham 2002, Accuracy and Stability, section 3.3), in which each operation
  adds at most u = 2^-precision relative to its result, and passes on the errors of its operands.
"""

# gmpy2's stub leaves its functions out.
# pyright: reportAttributeAccessIssue=false

import math
from dataclasses import dataclass

import gmpy2
import numpy as np


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: bits of precision, exponent of the first number too large, exponent of the least normal number."""

    precision: int
    overflow: int
    least_normal: int

    @property
    def context(self):
        return gmpy2.context(precision=self.precision, emax=self.overflow, emin=-100_000)


FORMATS = {"float32": Format(24, 128, -126), "float64": Format(53, 1024, -1022)}


class Rounded:
    """A number of a format; subnormals are zeros wherever one goes into an operation or comes out of it, as on XLA's CPU backend."""

    def __init__(self, value, fmt: Format):
        self.value, self.format = value, fmt

    def _rounded(self, operation, *operands):
        operands = [o.value if isinstance(o, Rounded) else self._of(o) for o in operands]
        with self.format.context:
            return Rounded(self._flushed(operation(*(self._flushed(o) for o in operands))), self.format)

    def _of(self, number: float):
        with self.format.context:
            return +gmpy2.mpfr(number)

    def _flushed(self, value):
        tiny = value != 0 and abs(value) < gmpy2.exp2(self.format.least_normal)
        return gmpy2.copy_sign(gmpy2.mpfr(0), value) if tiny else value

    def __add__(self, o):
        return self._rounded(lambda a, b: a + b, self, o)

    def __sub__(self, o):
        return self._rounded(lambda a, b: a - b, self, o)

    def __mul__(self, o):
        return self._rounded(lambda a, b: a * b, self, o)

    def __truediv__(self, o):
        return self._rounded(lambda a, b: a / b, self, o)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return Rounded(-self.value, self.format)  # a change of sign is no operation: it keeps subnormals

    def sqrt(self):
        return self._rounded(gmpy2.sqrt, self)


class Bounded:
    """An exact value, and how far from it the rounded computation can be."""

    EXACT = gmpy2.context(precision=400)

    def __init__(self, value, bound, precision: int):
        self.value, self.bound, self.precision = value, bound, precision

    def _of(self, o) -> "Bounded":
        return o if isinstance(o, Bounded) else Bounded(gmpy2.mpfr(o), 0, self.precision)._then_rounded()

    def _then_rounded(self) -> "Bounded":
        unit = gmpy2.exp2(-self.precision)
        return Bounded(self.value, self.bound + unit * (abs(self.value) + self.bound), self.precision)

    def _result(self, value, bound) -> "Bounded":
        return Bounded(value, bound, self.precision)._then_rounded()

    def __add__(self, o):
        with self.EXACT:
            o = self._of(o)
            return self._result(self.value + o.value, self.bound + o.bound)

    def __sub__(self, o):
        with self.EXACT:
            o = self._of(o)
            return self._result(self.value - o.value, self.bound + o.bound)

    def __mul__(self, o):
        with self.EXACT:
            o = self._of(o)
            passed_on = abs(self.value) * o.bound + abs(o.value) * self.bound + self.bound * o.bound
            return self._result(self.value * o.value, passed_on)

    def __truediv__(self, o):
        with self.EXACT:
            o = self._of(o)
            quotient = self.value / o.value
            return self._result(quotient, (self.bound + abs(quotient) * o.bound) / (abs(o.value) - o.bound))

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return Bounded(-self.value, self.bound, self.precision)

    def sqrt(self):
        with self.EXACT:
            root, least = gmpy2.sqrt(self.value), gmpy2.sqrt(max(self.value - self.bound, 0))
            return self._result(root, self.bound / (root + least) if self.bound else 0)


def sgd(g, p, state, t, learning_rate, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False):
    g = _gradient(g, p, weight_decay, maximize)
    if momentum == 0:
        return -(learning_rate * g), {}
    buffer = g if t == 1 else momentum * state["momentum_buffer"] + (1 - dampening) * g
    direction = g + momentum * buffer if nesterov else buffer
    return -(learning_rate * direction), {"momentum_buffer": buffer}


def momentum(g, p, state, t, learning_rate, momentum=0.9, weight_decay=0.0, maximize=False):
    g = _gradient(g, p, weight_decay, maximize)
    velocity = momentum * state.get("momentum_buffer", 0.0 * g) - learning_rate * g
    return velocity, {"momentum_buffer": velocity}


def adagrad(
    g,
    p,
    state,
    t,
    learning_rate,
    lr_decay=0.0,
    weight_decay=0.0,
    initial_accumulator_value=0.0,
    eps=1e-5,
    eps_in_sqrt=True,
    maximize=False,
):
    g = _gradient(g, p, weight_decay, maximize)
    seen = state.get("sum", initial_accumulator_value) + g * g
    rate = learning_rate / (1 + (t - 1) * lr_decay)
    denominator = (seen + eps).sqrt() if eps_in_sqrt else seen.sqrt() + eps
    return -(rate * g / denominator), {"sum": seen}


def _gradient(g, p, weight_decay, maximize):
    g = -g if maximize else g
    return g + weight_decay * p if weight_decay else g


RULES = {"sgd": sgd, "momentum": momentum, "adagrad": adagrad}


def walk(optimizer: str, arguments: dict, params: np.ndarray, gradients: list[np.ndarray], number) -> list[tuple[list, dict]]:
    """Parameters and state after each step, as lists of numbers; `number(x)` makes one of a float."""
    rule = RULES[optimizer]
    elements = [(number(p), {}) for p in params.tolist()]
    seen = []
    for t, gradient in enumerate(gradients, 1):
        for i, (g, (p, state)) in enumerate(zip(gradient.tolist(), elements, strict=True)):
            u, state = rule(number(g), p, state, t, **arguments)
            elements[i] = (p + u, state)
        seen.append(([p for p, _ in elements], {field: [s[field] for _, s in elements] for field in elements[0][1]}))
    return seen


def rounded(dtype: str):
    """A maker of `Rounded` numbers."""
    return lambda x: Rounded(gmpy2.mpfr(x), FORMATS[dtype])


def bounded(dtype: str):
    """A maker of `Bounded` numbers: exact to begin with."""
    return lambda x: Bounded(gmpy2.mpfr(x), 0, FORMATS[dtype].precision)


def to_numpy(numbers: list[Rounded], dtype: str) -> np.ndarray:
    return np.array([math.nan if gmpy2.is_nan(n.value) else float(n.value) for n in numbers], dtype)
