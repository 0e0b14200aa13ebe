"""The rules once more, by people who have not read the kernels: one rounding per operation, done by MPFR, number by number.

Each optimizer is a function of its name, `rule(g, p, state, t, **arguments) -> (u, state)`, over any kind of number. Three kinds are here:
- `Rounded`: a number of float32 or float64 that rounds each result to nearest-even, and flushes what is too small. It says what the
  right bits are.
- `Gradual`: the same where subnormals are kept, as IEEE 754 has it.
- `Bounded`: the exact value (400 bits) with a bound on the error that `Rounded` can have collected on its way there. It says that the
  right bits are near the formula: running error analysis (Higham 2002, Accuracy and Stability, section 3.3), in which each operation
  adds at most u = 2^-precision relative to its result, and passes on the errors of its operands.
"""

# gmpy2's stub leaves its functions out.
# pyright: reportAttributeAccessIssue=false

import collections
import functools
import itertools
import math
from dataclasses import dataclass

import gmpy2
import numpy as np


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: bits of precision, exponent of the first number too large, exponent of the least normal number.

    `computed` is the format in which the operations of a half type are carried out, before each result is rounded to it.
    """

    precision: int
    overflow: int
    least_normal: int
    computed: "Format | None" = None

    @property
    def context(self):
        """MPFR's: exponents without a lower end, so that what is tiny is judged after rounding to full precision."""
        return gmpy2.context(precision=self.precision, emax=self.overflow, emin=-100_000)

    @property
    def gradual(self):
        """MPFR's, with subnormals; it counts exponents from 0.5 on."""
        least = self.least_normal - self.precision + 2
        return gmpy2.context(precision=self.precision, emax=self.overflow, emin=least, subnormalize=True)


FLOAT32 = Format(24, 128, -126)
FORMATS = {
    "float32": FLOAT32,
    "float64": Format(53, 1024, -1022),
    "bfloat16": Format(8, 128, -126, FLOAT32),
    "float16": Format(11, 16, -14, FLOAT32),
}


class Rounded:
    """A number of a format; subnormals of the format that it is computed in are zeros wherever one goes into an operation or comes out."""

    def __init__(self, value, fmt: Format):
        self.value, self.format, self.computed = gmpy2.mpfr(value), fmt, fmt.computed or fmt

    def constant(self, number: float):
        """A number as this format has it, rounded once: not to the format in which it is computed before."""
        exact = gmpy2.mpfr(number) if self.format.computed else self._of(number)
        return type(self)(exact, self.format).into(self.format)

    def into(self, fmt: Format):
        """The same number rounded to another format."""
        return type(self)(self.value, fmt)._rounded(lambda value: value, self)

    def _rounded(self, operation, *operands):
        operands = [o.value if isinstance(o, Rounded) else self._of(o) for o in operands]
        with self._context():
            value = self._flushed(operation(*(self._flushed(o) for o in operands)))
        if self.format.computed:
            with self.format.gradual:
                value = +value
        return type(self)(value, self.format)

    def _of(self, number: float):
        with self._context():
            return +gmpy2.mpfr(number)

    def _context(self):
        return self.computed.context

    def _flushed(self, value):
        tiny = value != 0 and abs(value) < gmpy2.exp2(self.computed.least_normal)
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
        return type(self)(-self.value, self.format)  # a change of sign is no operation: it keeps subnormals

    def sqrt(self):
        return self._rounded(gmpy2.sqrt, self)

    def sign(self):
        """±1; a zero and NaN as they are; what the processor flushes is a zero."""
        value = self._flushed(self.value)
        whole = value if value == 0 or gmpy2.is_nan(value) else gmpy2.copy_sign(gmpy2.mpfr(1), value)
        return type(self)(whole, self.format)

    def largest(self, o):
        """The larger one; NaN if one is."""
        if gmpy2.is_nan(self.value):
            return self
        return o if gmpy2.is_nan(o.value) or o.value > self.value else self


class Gradual(Rounded):
    """A number of a format whose subnormals are kept: gradual underflow."""

    def _context(self):
        return self.computed.gradual

    def _flushed(self, value):
        return value


class Bounded:
    """An exact value, and how far from it the rounded computation can be."""

    EXACT = gmpy2.context(precision=400)

    def __init__(self, value, fmt: Format, bound=0):
        self.value, self.format, self.bound = gmpy2.mpfr(value), fmt, bound

    def constant(self, number: float):
        """A number as this format has it."""
        return self._of(number)

    def into(self, fmt: Format):
        """The same number rounded to another format."""
        with self.EXACT:
            return Bounded(self.value, fmt)._result(self.value, self.bound)

    def _of(self, o) -> "Bounded":
        return o if isinstance(o, Bounded) else self._result(gmpy2.mpfr(o), 0)

    def _result(self, value, bound) -> "Bounded":
        """Rounded once more: by u of its size, twice for halves, which are rounded to float32 first; by half a subnormal near 0."""
        for fmt in (self.format.computed, self.format):
            if fmt:
                bound += gmpy2.exp2(-fmt.precision) * (abs(value) + bound) + gmpy2.exp2(fmt.least_normal - fmt.precision)
        return Bounded(value, self.format, bound)

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
        return Bounded(-self.value, self.format, self.bound)

    def sqrt(self):
        with self.EXACT:
            root, least = gmpy2.sqrt(self.value), gmpy2.sqrt(max(self.value - self.bound, 0))
            return self._result(root, self.bound / (root + least) if self.bound else 0)

    def sign(self):
        """±1, exact where the bound leaves no doubt."""
        return Bounded(gmpy2.sign(self.value), self.format, 0 if abs(self.value) > self.bound else 2)

    def largest(self, o):
        """The larger value, with the larger bound: |max(a, b) - max(x, y)| <= max(|a - x|, |b - y|)."""
        return Bounded(max(self.value, o.value), self.format, max(self.bound, o.bound))


def sgd(g, p, state, t, learning_rate, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False):
    g = _gradient(g, p, weight_decay, maximize)
    if momentum == 0:
        return -(learning_rate * g), {}
    buffer = 1 * g if t == 1 else momentum * state["momentum_buffer"] + (1 - dampening) * g
    direction = g + momentum * buffer if nesterov else buffer
    return -(learning_rate * direction), {"momentum_buffer": buffer}


def momentum(g, p, state, t, learning_rate, momentum=0.9, weight_decay=0.0, maximize=False):
    g = _gradient(g, p, weight_decay, maximize)
    velocity = momentum * state["momentum_buffer"] - learning_rate * g
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
    start = g.constant(initial_accumulator_value) if t == 1 else state["sum"]
    seen = start + g * g
    rate = learning_rate / (1 + (t - 1) * lr_decay)
    denominator = (seen + eps).sqrt() if eps_in_sqrt else seen.sqrt() + eps
    return -(rate * g / denominator), {"sum": seen}


def rmsprop(g, p, state, t, learning_rate, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False, maximize=False):
    g = _gradient(g, p, weight_decay, maximize)
    mean_square = alpha * state["square_avg"] + (1 - alpha) * (g * g)
    after = {"square_avg": mean_square}
    variance = mean_square
    if centered:
        mean = after["grad_avg"] = alpha * state["grad_avg"] + (1 - alpha) * g
        variance = mean_square - mean * mean
    denominator = variance.sqrt() + eps
    if not momentum:
        return -(learning_rate * g / denominator), after
    buffer = after["momentum_buffer"] = momentum * state["momentum_buffer"] + g / denominator
    return -(learning_rate * buffer), after


def adam(
    g,
    p,
    state,
    t,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    amsgrad=False,
    maximize=False,
    decoupled=False,
):
    g = _gradient(g, p, 0.0 if decoupled else weight_decay, maximize)
    mean = b1 * state["exp_avg"] + (1 - b1) * g
    mean_square = b2 * state["exp_avg_sq"] + (1 - b2) * (g * g)
    after = {"exp_avg": mean, "exp_avg_sq": mean_square}
    if amsgrad:
        after["max_exp_avg_sq"] = mean_square = state["max_exp_avg_sq"].largest(mean_square)
    rate = learning_rate / (1 - binary_power(b1, t))
    correction = math.sqrt(1 - binary_power(b2, t))
    quotient = rate * mean / (mean_square.sqrt() / correction + eps)
    if decoupled and weight_decay:
        quotient = quotient + (learning_rate * weight_decay) * p
    return -quotient, after


def adamw(g, p, state, t, learning_rate, weight_decay=1e-2, **arguments):
    return adam(g, p, state, t, learning_rate, weight_decay=weight_decay, decoupled=True, **arguments)


def lion(g, p, state, t, learning_rate, b1=0.9, b2=0.99, weight_decay=0.0, maximize=False):
    g = -g if maximize else g
    average = state["exp_avg"]
    direction = (b1 * average + (1 - b1) * g).sign()
    if weight_decay:
        direction = direction + weight_decay * p
    return -(learning_rate * direction), {"exp_avg": b2 * average + (1 - b2) * g}


def binary_power(base: float, t: int) -> float:
    """base^t from the binary digits of t, the least one first, each product rounded to float64."""
    squares = itertools.accumulate(range(t.bit_length() - 1), lambda square, _: square * square, initial=base)
    return functools.reduce(lambda product, pair: product * pair[1] if t >> pair[0] & 1 else product, enumerate(squares), 1.0)


def _gradient(g, p, weight_decay, maximize):
    g = -g if maximize else g
    return g + weight_decay * p if weight_decay else g


def walk(kind: type, optimizer: str, arguments: dict, params: np.ndarray, gradients: list[np.ndarray]) -> list[tuple[list, dict]]:
    """Parameters and state after each step, as lists of numbers of a kind."""
    own, rule = FORMATS[params.dtype.name], globals()[optimizer]
    arguments = dict(arguments)
    wide = FORMATS[arguments.pop("accumulator_dtype", params.dtype.name)]
    zeros = collections.defaultdict(lambda: kind(0, wide))  # what every average starts at
    elements = [(kind(p, own), zeros) for p in params.tolist()]
    seen = []
    for t, gradient in enumerate(gradients, 1):
        for i, (g, (p, state)) in enumerate(zip(gradient.tolist(), elements, strict=True)):
            at_p = p if wide is own else p.into(wide)
            u, state = rule(kind(g, wide), at_p, state, t, **arguments)
            elements[i] = (p + (u if wide is own else u.into(own)), state)
        seen.append(([p for p, _ in elements], {field: [s[field] for _, s in elements] for field in elements[0][1]}))
    return seen


def to_numpy(numbers: list[Rounded], dtype) -> np.ndarray:
    """As an array; every NaN alike."""
    return np.array([math.nan if gmpy2.is_nan(n.value) else float(n.value) for n in numbers]).astype(dtype)
