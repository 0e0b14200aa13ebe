"""Functions of numbers in float64, the same bits everywhere, as libm's and XLA's are not.  Mirror: jaxopt_impl/around/functions.py

A function is reduced exactly to a short interval, where it is a fixed polynomial: + - * / and nothing else, each rounded once. A number is
a Python float, or in JAX an `nx.Scalar`. The error is a few 2⁻⁵³ of the value, so that what is rounded to float32 is almost always the
nearest one. Whatever ends below 2⁻¹⁰²² may be 0.
"""

from .. import numerics as nx

_SINE = (  # (−1)ᵏ (π/2)²ᵏ⁺¹ / (2k+1)!, Taylor's of sin(πx/2)
    1.5707963267948966,
    -0.6459640975062463,
    0.07969262624616705,
    -0.004681754135318688,
    0.00016044118478735983,
    -3.598843235212085e-06,
    5.692172921967927e-08,
    -6.688035109811468e-10,
    6.0669357311061955e-12,
)
_ARTANH = tuple(1 / n for n in range(3, 25, 2))  # 1/(2k+1), of artanh(z) = z + z³/3 + z⁵/5 ...
_EXP = tuple(1 / n for n in (1, 1, 2, 6, 24, 120, 720, 5040, 40320, 362880, 3628800, 39916800, 479001600, 6227020800))  # 1/k!

_LN2 = (
    0.6931471803691238,
    1.9082149292705877e-10,
)  # ln 2 in two parts; the first has 33 bits, so that its product with a whole number is exact
_LOG2_E = 1.4426950408889634
_SQRT2 = 1.4142135623730951


def half_cosine(done, left):
    """The parts of a way along a cosine: (1 + cos(π done))/2 that is left, and (1 − cos(π done))/2 that is done.

    `left` is 1 − done, between 0 and 1, both as exact as they can be: near the end a cosine is the square of what is left.
    At done = 0 and 1 the parts are exactly 0 and 1.
    """
    x = nx.minimum(done, left)
    sine = x * _polynomial(_SINE, x * x)
    small = sine * sine
    large = 1 - small
    before_half = nx.less(done, left)
    return nx.where(before_half, large, small), nx.where(before_half, small, large)


def log(x):
    """The natural logarithm of a number from 2⁻¹⁰²² to 2¹⁰²²."""
    n = nx.exponent(x)
    x = x * nx.power_of_two(-n)
    upper = nx.less(_SQRT2, x)
    n, x = nx.where(upper, n + 1, n), nx.where(upper, x * 0.5, x)
    z = (x - 1) / (x + 1)
    zz = z * z
    return n * _LN2[0] + (n * _LN2[1] + 2 * z * zz * _polynomial(_ARTANH, zz) + 2 * z)


def exp(x):
    """e to the power x: 0 below -708, infinite above 709."""
    near = nx.maximum(nx.minimum(x, 709.0), -708.0)
    n = nx.floor(near * _LOG2_E + 0.5)
    rest = near - n * _LN2[0] - n * _LN2[1]
    value = _polynomial(_EXP, rest) * nx.power_of_two(n)
    return nx.where(nx.less(x, -708.0), 0.0, nx.where(nx.less(709.0, x), float("inf"), value))


def power_of(x, y):
    """x to the power y, for x >= +0 and a Python number y >= 0: by binary powering where y is whole, else e^(y log x)."""
    if y == int(y):
        return nx.power(x, int(y))
    return nx.where(nx.less(0.0, x), exp(y * log(x)), 0.0)


def _polynomial(coefficients, x):
    """c₀ + c₁x + c₂x² ..., by Horner's rule."""
    *rest, value = coefficients
    for coefficient in reversed(rest):
        value = value * x + coefficient
    return value
