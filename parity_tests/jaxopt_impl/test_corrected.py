"""The quotient and root from approximations: the program that XLA makes of them, run in NumPy with approximations that are wrong."""

import functools

import jax
import numpy as np
import pytest

from jaxopt_impl import corrected
from optparity.accelerators.hlo_interpreter import Machine, program
from optparity.parity.bits import differing

from ..sampling import EXHAUSTIVE

ELEMENTS = 2**18
SPECIAL = np.array([0, 1, 3, np.inf, np.nan, 2**-149, 2**-126 - 2**-149, 2**-126, 3 * 2**-140, 2**127 * (2 - 2**-23)], np.float32)
OFF = pytest.mark.parametrize("off", [0, 4, 30])


@functools.cache
def run(function, operands: int, off: int, flush: bool, elements: int = ELEMENTS):
    """The compiled program of a function, run in NumPy, where a reciprocal or a reciprocal root is wrong by up to so many ulp."""
    arrays = [jax.ShapeDtypeStruct((elements,), np.float32)] * operands
    text = jax.jit(function).lower(*arrays).compile().as_text()
    assert text
    return program(text, Machine(off, flush, seed=off))


def any_bits(rng) -> np.ndarray:
    return rng.integers(0, 2**32, ELEMENTS, np.uint32).view(np.float32)


def near(rng, x, exponents) -> np.ndarray:
    """Other significands, and exponents that differ from those of x by so much."""
    exponent = np.clip((x.view(np.uint32) >> 23 & 255).astype(np.int32) + exponents, 0, 254).astype(np.uint32)
    return ((any_bits(rng).view(np.uint32) & np.uint32(0x807FFFFF)) | (exponent << 23)).view(np.float32)


def operands():
    """Numbers of every size; quotients of every size, about 1, at overflow, and subnormal; each pair of special numbers among them."""
    rng = np.random.default_rng(0)
    for exponents in (None, 0, 127, -127, -140):
        a = any_bits(rng)
        b = any_bits(rng) if exponents is None else near(rng, a, -exponents)
        special = np.concatenate([SPECIAL, -SPECIAL])
        for x, pairs in zip((a, b), np.meshgrid(special, special), strict=True):
            x[: pairs.size] = pairs.ravel()
        yield a, b


@OFF
def test_quotients_round_once(off):
    for a, b in operands():
        (got,) = run(corrected.quotient, 2, off, False)([a, b])
        with np.errstate(all="ignore"):
            assert not differing(got, a / b).any()


@OFF
def test_roots_round_once(off):
    for x, _ in operands():
        (got,) = run(corrected.sqrt, 1, off, False)([x])
        with np.errstate(all="ignore"):
            assert not differing(got, np.sqrt(x)).any()


@pytest.mark.parametrize("first", [0, *(pytest.param(start, marks=EXHAUSTIVE) for start in range(ELEMENTS, 2**24, ELEMENTS))])
def test_every_significand_has_its_root(first):
    """With both parities of the exponent."""
    x = (np.arange(first, first + ELEMENTS, dtype=np.uint32) + np.uint32(127 << 23)).view(np.float32)
    (got,) = run(corrected.sqrt, 1, 4, False)([x])
    np.testing.assert_array_equal(got, np.sqrt(x))


@OFF
def test_quotients_that_are_nearly_halfway(off):
    """As near as they come to the middle of two numbers: b times an odd number of 25 bits is a 2²⁴, give or take a few units."""
    rng = np.random.default_rng(1)
    b = rng.integers(2**23, 2**24, 4 * ELEMENTS) | 1
    inverse = b.copy()
    for _ in range(5):
        inverse = inverse * (2 - b * inverse) % 2**24  # Newton's, modulo 2²⁴
    beyond = rng.choice([-3, -1, 1, 3], b.size)
    a = ((2**24 + beyond * inverse % 2**24) * b - beyond) >> 24
    keep = np.flatnonzero(a < 2**24)[:ELEMENTS]
    a, b = (x[keep].astype(np.float32) for x in (a, b))
    (got,) = run(corrected.quotient, 2, off, False)([a, b])
    np.testing.assert_array_equal(got, a / b)


def test_ties_of_subnormal_quotients_go_to_even():
    """A number of few bits, divided by powers of two."""
    rng = np.random.default_rng(2)
    a = np.ldexp(rng.integers(1, 2**8, ELEMENTS), rng.integers(-149, -120, ELEMENTS)).astype(np.float32)
    b = np.ldexp(1.0, rng.integers(0, 12, ELEMENTS)).astype(np.float32)
    (got,) = run(corrected.quotient, 2, 4, False)([a, b])
    assert not differing(got, a / b).any()


def test_where_the_backend_flushes_so_do_they():
    """As a division that takes subnormal operands for 0, and makes a subnormal quotient 0."""
    for a, b in operands():
        (got,) = run(corrected.quotient, 2, 4, True)([a, b])
        with np.errstate(all="ignore"):
            assert not differing(got, flushed(flushed(a) / flushed(b))).any()
        (got,) = run(corrected.sqrt, 1, 4, True)([a])
        with np.errstate(all="ignore"):
            assert not differing(got, np.sqrt(flushed(a))).any()


def flushed(x):
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)


def test_on_this_machine_too():
    """Compiled and run: here subnormals are flushed, and a sum is a sum."""
    for a, b in operands():
        with np.errstate(all="ignore"):
            assert not differing(np.asarray(jax.jit(corrected.quotient)(a, b)), flushed(flushed(a) / flushed(b))).any()
            assert not differing(np.asarray(jax.jit(corrected.sqrt)(a)), np.sqrt(flushed(a))).any()
