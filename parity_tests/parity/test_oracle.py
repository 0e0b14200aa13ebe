"""Both packages against an independent oracle: the same bits as one rounding per operation gives, and near the exact formula."""

import functools
import itertools

import gmpy2  # noqa: F401  (the oracle's arithmetic: missing, it must fail here and now)
import jax.numpy as jnp
import numpy as np
import pytest

from optparity.parity.bits import differing
from optparity.parity.contexts import CONTEXTS
from optparity.parity.jax_side import JaxSide
from optparity.parity.streams import STREAMS, gradients, parameters
from optparity.parity.subnormals import torch_flushing_like_jax
from optparity.parity.torch_side import TorchSide
from optparity.registry import ROWS

from .. import oracle
from ..sampling import FULL, sampled

ELEMENTS, STEPS = 13, 20
CASES = [(row, dtype) for row in ROWS for dtype in row.dtypes]
ONE_DTYPE = {row: row.dtypes[i % len(row.dtypes)] for i, row in enumerate(ROWS)}  # another one each time


@functools.cache
def drawn(stream, dtype, elements, steps):
    params = parameters({"w": (elements,)}, dtype)
    return params["w"], [g["w"] for g in itertools.islice(gradients(stream, params), steps)]


def walk_jax(row, p, gs):
    side = JaxSide(row.tx, {"w": p}, CONTEXTS["jit"])
    for g in gs:
        ((params, state),) = side.steps([{"w": g}])[0]
        yield params["w"], {field: value["w"] for field, value in state._asdict().items() if field != "step" and value is not None}


def walk_torch(row, p, gs):
    side = TorchSide(row.torch, [p])
    for g in gs:
        side.step([g])
        yield side.params()[0].copy(), {field: values[0].copy() for field, values in side.state().items() if field != "step"}


@pytest.mark.parametrize(("row", "dtype"), sampled(CASES, lambda row, dtype: row in FULL or dtype == ONE_DTYPE[row]), ids=str)
def test_both_packages_have_the_oracles_bits(row, dtype):
    """Every stream, as the rows of one array."""
    starts, gradients_of = zip(*(drawn(stream, dtype, ELEMENTS, STEPS) for stream in STREAMS), strict=True)
    expected = [oracle.walk(oracle.Rounded, row.optimizer, row.arguments, p, gs) for p, gs in zip(starts, gradients_of, strict=True)]
    for walk in (walk_jax, walk_torch):
        with torch_flushing_like_jax():
            seen = list(walk(row, np.stack(starts), [np.stack(gs) for gs in zip(*gradients_of, strict=True)]))
        assert len(seen) == STEPS
        for (i, stream), (t, (params, state)) in itertools.product(enumerate(STREAMS), enumerate(seen)):
            right, right_state = expected[i][t]
            assert set(state) == set(right_state)
            for field, array in {"params": params, **state}.items():
                got, correct = array[i], oracle.to_numpy(right if field == "params" else right_state[field], array.dtype)
                assert not differing(got, correct).any(), f"{walk.__name__}, {stream}, step {t + 1}, {field}: {got} is not {correct}"


@pytest.mark.parametrize(("row", "dtype"), CASES, ids=str)
def test_the_bits_are_near_the_exact_formula(row, dtype):
    """|computed - exact| <= the bound that running error analysis derives, which itself is small: right, not only the same."""
    p, gs = drawn("normal", dtype, ELEMENTS, STEPS)
    exact = oracle.walk(oracle.Bounded, row.optimizer, row.arguments, p, gs)
    with torch_flushing_like_jax():
        seen = list(walk_torch(row, p, gs))
    for t, ((params, state), (right, right_state)) in enumerate(zip(seen, exact, strict=True), 1):
        for field, got in {"params": params, **state}.items():
            for computed, number in zip(got.tolist(), right if field == "params" else right_state[field], strict=True):
                assert abs(computed - number.value) <= number.bound, f"step {t}, {field}"
    # In units of the last place of 1, which is what parameters and moments are about: derived, not measured.
    largest = max(float(number.bound) for numbers in (right, *right_state.values()) for number in numbers)
    assert largest < 2000 * float(jnp.finfo(dtype).eps)


def test_the_oracle_flushes_as_the_processor_does():
    """Tiny is judged after rounding to full precision: (1 - 2^-24) * 2^-126 is flushed, though gradual underflow would round it up."""
    number = lambda x: oracle.Rounded(x, oracle.FLOAT32)  # noqa: E731
    least = number(2.0**-126)
    assert (least * number(1 - 2.0**-24)).value == 0
    assert (least * number(0.5)).value == 0
    assert ((least * number(2.0)) * number(0.5)).value == least.value
    negative = -(least * number(0.5))
    assert str(negative.value) == "-0.0"


def test_the_oracle_keeps_the_subnormals_of_float16():
    number = lambda x: oracle.Rounded(x, oracle.FORMATS["float16"])  # noqa: E731
    assert float((number(2.0**-14) * 0.5).value) == 2.0**-15
    assert float((number(2.0**-24) * 0.75).value) == 2.0**-24
    assert float((number(2.0**-24) * 0.5).value) == 0
    assert float((number(60000.0) * 2.0).value) == float("inf")


def test_the_oracle_keeps_subnormals_where_it_is_told_to():
    number = lambda x: oracle.Gradual(x, oracle.FLOAT32)  # noqa: E731
    least = number(2.0**-126)
    assert (least * number(1 - 2.0**-24)).value == least.value  # gradual underflow rounds it up
    assert float((least * number(0.5)).value) == 2.0**-127
    assert float((number(2.0**-149) * 0.75).value) == 2.0**-149
    assert str((number(-(2.0**-149)) * 0.5).value) == "-0.0"
    assert float((number(2.0**-149) + number(2.0**-149)).value) == 2.0**-148
    assert float(number(2.0**-148).sqrt().value) == 2.0**-74
    assert number(2.0**-149).sign().value == 1
