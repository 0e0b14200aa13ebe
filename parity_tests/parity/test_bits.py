"""Bit patterns and distances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optparity.parity.bits import as_hex, differing, digest, ulp_distance

numbers = st.floats(width=32, allow_nan=False)


def f32(*values):
    return np.array(values, np.float32)


@given(numbers, st.integers(0, 1000))
def test_distance_counts_the_steps_between_numbers(x, n):
    a = b = np.float32(x)
    with np.errstate(all="ignore"):
        for _ in range(n):
            b = np.nextafter(b, np.float32(np.inf))
    crosses_zero = a <= 0 < b or (a < 0 and b == 0 and not np.signbit(b))
    reached = n if np.isfinite(b) else None
    distance = int(ulp_distance(f32(a), f32(b))[0])
    if reached is not None:
        assert abs(distance - reached) <= (1 if crosses_zero or a == 0 else 0)


@given(numbers, numbers, numbers)
def test_distance_is_a_metric(x, y, z):
    d = lambda a, b: int(ulp_distance(f32(a), f32(b))[0])  # noqa: E731
    assert d(x, y) == d(y, x)
    assert d(x, z) <= d(x, y) + d(y, z)
    assert (d(x, y) == 0) == (not differing(f32(x), f32(y)).any())


@pytest.mark.parametrize(
    ("a", "b", "ulp"),
    [
        (0.0, -0.0, 1),
        (1.0, np.nextafter(np.float32(1), np.float32(2)), 1),
        (np.inf, np.finfo("f4").max, 1),
        (np.nan, np.nan, 0),
        (np.nan, 1.0, 2**32 - 1),
        (-np.inf, np.inf, 2 * 0x7F800000 + 1),
    ],
)
def test_special_distances(a, b, ulp):
    assert int(ulp_distance(f32(a), f32(b))[0]) == ulp
    assert differing(f32(a), f32(b)).any() == (ulp > 0)


def test_float64_distances_do_not_overflow():
    a, b = np.array([-np.inf]), np.array([np.inf])
    assert int(ulp_distance(a, b)[0]) == 2 * 0x7FF0000000000000 + 1


def test_nan_payloads_are_one_nan():
    quiet, other = f32(np.nan), np.array([0x7FC00001], np.uint32).view(np.float32)
    assert not differing(quiet, other).any()
    assert digest([quiet]) == digest([other])
    assert digest([f32(0.0)]) != digest([f32(-0.0)])


def test_hex():
    assert as_hex(np.float32(1)) == "0x3f800000"
    assert as_hex(np.float64(-2)) == "0xc000000000000000"
