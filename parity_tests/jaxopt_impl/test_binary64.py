"""Binary64 by integers has the bits of the hardware's float64, as NumPy has them: subnormal numbers are kept."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_impl import binary64
from jaxopt_impl import numerics as nx
from optparity.parity.bits import differing
from optparity.registry import ROWS

from ..oracle import binary_power
from ..sampling import EXHAUSTIVE, FULL, sampled

SPECIAL = np.array([0, 1, 1.5, 3, np.inf, np.nan, 2.0**-1074, 2.0**-1022 - 2.0**-1074, 2.0**-1022, np.finfo(float).max])
SIZES = pytest.mark.parametrize("elements", [100_000, pytest.param(10_000_000, marks=EXHAUSTIVE)])
OPERATIONS = {
    "+": (lambda a, b: a + b, np.add),
    "-": (lambda a, b: a - b, np.subtract),
    "*": (lambda a, b: a * b, np.multiply),
    "/": (lambda a, b: a / b, np.divide),
}


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True), np.errstate(all="ignore"):
        yield


def any_bits(rng, elements) -> np.ndarray:
    return rng.integers(0, 2**64, elements, np.uint64).view(np.float64)


def pairs(elements):
    """Of every size, of near exponents, of few bits (exact results, ties), with subnormal results; the special ones in each."""
    rng = np.random.default_rng(0)
    special = np.concatenate([SPECIAL, -SPECIAL])
    a, b = any_bits(rng, elements), any_bits(rng, elements)
    near = exponents(b, (a.view(np.uint64) >> 52 & 2047).astype(int) + rng.integers(-60, 61, elements))
    few = [bits(x.view(np.uint64) & np.uint64((0xFFF << 52) | (0xF << 48))) for x in (a, near)]
    small = exponents(a, rng.integers(0, 60, elements)), exponents(b, rng.choice([0, 1, 1022, 1023, 1060], elements))
    for x, y in ((a, b), (a, near), few, small):
        x, y = x.copy(), y.copy()
        for z, one in zip((x, y), np.meshgrid(special, special), strict=True):
            z[: one.size] = one.ravel()
        yield x, y


def exponents(x, exponent) -> np.ndarray:
    fraction = x.view(np.uint64) & np.uint64((1 << 63) | ((1 << 52) - 1))
    return bits(fraction | (np.clip(exponent, 0, 2046).astype(np.uint64) << np.uint64(52)))


def bits(x) -> np.ndarray:
    return np.asarray(x, np.uint64).view(np.float64)


def number(x) -> binary64.Binary64:
    return binary64.Binary64(jnp.asarray(x.view(np.uint64)))


SCALAR = nx.Scalar(lambda x: x, 0.0)


@SIZES
@pytest.mark.parametrize("sign", OPERATIONS)
def test_operators_round_once(sign, elements):
    ours, numpy = OPERATIONS[sign]
    for a, b in pairs(elements):
        assert not differing(bits(ours(number(a), number(b)).bits), numpy(a, b)).any()


@SIZES
def test_roots_and_negation(elements):
    for a, _ in pairs(elements):
        assert not differing(bits(nx.sqrt(number(a)).bits), np.sqrt(a)).any()
        np.testing.assert_array_equal(np.asarray((-number(a)).bits), (-a).view(np.uint64))


@SIZES
def test_comparison_and_whole_numbers(elements):
    """`less`, NaN and both zeros included; `floor`, also of numbers whose last bits are worth a half, one, two."""
    for a, b in pairs(elements):
        np.testing.assert_array_equal(nx.less(SCALAR, SCALAR).operation(number(a), number(b)), a < b)
        near_whole = exponents(a, 1023 + 51 + np.arange(elements) % 4 - (np.arange(elements) % 53) * (np.arange(elements) % 2))
        for x in (a, b, near_whole, np.round(np.clip(a, -1e9, 1e9))):
            assert not differing(bits(nx.floor(number(x)).bits), np.floor(x)).any()


def test_powers_of_two():
    n = np.arange(-1022, 1024)
    assert not differing(bits(nx.power_of_two(number(n.astype(float))).bits), np.ldexp(1.0, n)).any()
    for x in (np.ldexp(1.0, n), np.ldexp(1 + np.random.default_rng(3).random(n.size), n), np.ldexp(2 - 2.0**-52, n)):
        np.testing.assert_array_equal(bits(nx.exponent(number(x)).bits), n)


def test_numbers_are_compared_and_scaled_as_python_has_it():
    """The named operations on a `Scalar` in float64, and on Python's floats."""
    x = np.array([0.0, -0.0, 0.75, -0.75, 1.0, 3.0, -2.5, 2.0**40 + 0.5, np.inf, np.nan, 1e-300])
    y = np.roll(x, 3)

    def of(operation):
        def one(a, b):
            return operation(nx.Scalar(lambda v: v, a), nx.Scalar(lambda v: v, b)).in_float64()

        return np.asarray(jax.jit(jax.vmap(one))(x, y))

    def of_python(operation):
        return np.array([operation(float(a), float(b)) for a, b in zip(x, y, strict=True)])

    for operation in (lambda a, b: nx.floor(a) + 0 * b, nx.minimum, nx.maximum, lambda a, b: nx.where(nx.less(a, b), 1.0, b)):
        assert not differing(of(operation), of_python(operation)).any()
    assert not differing(of(nx.minimum), np.where(y < x, y, x)).any()
    assert not differing(of(nx.maximum), np.where(x < y, y, x)).any()
    positive = np.array([1.0, 0.3, 2.0**1023, 2.0**-1022, 6.5])
    exponent = jax.jit(jax.vmap(lambda a: nx.exponent(nx.Scalar(lambda v: v, a)).in_float64()))(positive)
    np.testing.assert_array_equal(exponent, np.frexp(positive)[1] - 1)
    np.testing.assert_array_equal([nx.exponent(float(a)) for a in positive], exponent)
    scaled = jax.jit(jax.vmap(lambda n: nx.power_of_two(nx.Scalar(lambda v: v, n)).in_float64()))(np.arange(-1022.0, 1024.0))
    np.testing.assert_array_equal(scaled, [nx.power_of_two(float(n)) for n in range(-1022, 1024)])


@SIZES
def test_to_float32_and_back(elements):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 2**32, elements, np.uint32).view(np.float32)
    x[: SPECIAL.size] = SPECIAL
    assert not differing(bits(binary64.from_array(jnp.asarray(x)).astype(np.uint64)), x.astype(np.float64)).any()
    halfway = x.astype(np.float64) * (1 + rng.choice([0, 2.0**-24, -(2.0**-24), 2.0**-24 + 2.0**-52, 2.0**-25], elements))
    for wide in (halfway, exponents(any_bits(rng, elements), rng.integers(1023 - 155, 1023 + 130, elements)), any_bits(rng, elements)):
        assert not differing(np.asarray(binary64.to_float32(number(wide).bits)), wide.astype(np.float32)).any()


def test_whole_numbers():
    rng = np.random.default_rng(2)
    x = rng.integers(-(2**63), 2**63 - 1, 10_000) >> rng.integers(0, 63, 10_000)
    for kind in (np.int64, np.int32, np.int8):
        np.testing.assert_array_equal(bits(binary64.from_array(jnp.asarray(x.astype(kind)))), x.astype(kind).astype(np.float64))


def test_a_number_of_python_stands_on_either_side():
    x = np.array([0.3, -7.0])
    for ours, _ in OPERATIONS.values():
        np.testing.assert_array_equal(bits(ours(0.1, number(x)).bits), ours(0.1, x))
        np.testing.assert_array_equal(bits(ours(number(x), 3).bits), ours(x, 3))


COUNTS = np.unique(np.concatenate([np.arange(70), 2 ** np.arange(31), 2 ** np.arange(1, 32) - 1, 10 ** np.arange(10)])).astype(np.int32)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999, 1 - 2.0**-40])
def test_powers(beta):
    t = binary64.Binary64.of(jnp.asarray(COUNTS))
    np.testing.assert_array_equal(bits(binary64.power(beta, t).bits), [binary_power(beta, n) for n in COUNTS.tolist()])


@pytest.mark.parametrize(("row", "injected"), sampled(itertools.product(ROWS, [False, True]), lambda row, injected: row in FULL), ids=str)
def test_prepare_has_the_bits_of_float64(row, injected):
    """What a kernel makes of its hyper-parameters once a step, at each t of the grid, by integers and by this machine's float64.

    Also the numbers of `step`: 1 - beta, -lr.
    """
    shell = row.tx.update.__self__
    values = shell.hyper._asdict()
    if injected:
        values = {field: np.float32(value) if type(value) is float else value for field, value in values.items()}

    def scalars(t):
        at_t = {"t": nx.scalar(t), "first": t == 1}
        given = {field: nx.scalar(jnp.asarray(value) if type(value) is np.float32 else value) for field, value in values.items()}
        prepared = shell.prepare(type(shell.hyper)(**{field: at_t.get(field, value) for field, value in given.items()}))
        found = [value for value in prepared if isinstance(value, nx.Scalar)]
        return found + [f(value) for value in given.values() if isinstance(value, nx.Scalar) for f in (lambda x: 1 - x, lambda x: -x)]

    t = jnp.asarray(COUNTS[1:])
    by_float64 = jax.jit(jax.vmap(lambda t: [s.in_float64() for s in scalars(t)]))(t)
    by_integers = jax.jit(jax.vmap(lambda t: [s.computed(binary64.Binary64.of).bits for s in scalars(t)]))(t)
    assert by_float64 or not (injected or "t" in values)
    for expected, got in zip(by_float64, by_integers, strict=True):
        assert not differing(bits(got), np.asarray(expected)).any()
