"""What a state starts at: a Python number, rounded once to the state's dtype, in both packages."""

from fractions import Fraction

import gmpy2
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_impl
import torch_ref
from jaxopt_impl import numerics as nx
from optparity._arrays import to_numpy, to_torch
from optparity.parity.bits import as_bits, as_hex
from torch_ref import numerics as torch_nx

from .. import oracle

# Numbers that a stop at float32 would round otherwise, one bit pattern for each; the greatest finite one and the first that is infinite.
STARTS = {
    "float16": {
        1 + 2**-11 + 2**-40: 0x3C01,
        2.0**-25 + 2.0**-60: 0x0001,
        2.0**-25: 0,
        65519.999999999: 0x7BFF,
        65520.0: 0x7C00,
        1e5: 0x7C00,
    },
    "bfloat16": {
        1 + 2**-8 + 2**-40: 0x3F81,
        2.0**-134 * (1 + 2**-30): 0x0001,
        1e-41: 0,
        3.396e38 - 1e30: 0x7F7F,
        3.4e38: 0x7F80,
        1e39: 0x7F80,
    },
    "float32": {1 + 2**-24 + 2**-50: 0x3F800001, 1 + 2**-24: 0x3F800000, 2.0**-150: 0, 1e39: 0x7F800000},
}
CASES = [(dtype, number, bits) for dtype, starts in STARTS.items() for number, bits in starts.items()]


@pytest.mark.parametrize(("dtype", "number", "bits"), CASES)
def test_the_accumulator_starts_at_the_nearest_number(dtype, number, bits):
    ones = np.ones(3, jnp.dtype(dtype))
    ours = np.asarray(jaxopt_impl.adagrad(0.1, initial_accumulator_value=number).init(jnp.asarray(ones)).sum)
    p = torch.nn.Parameter(to_torch(ones, copy=True))
    theirs = to_numpy(torch_ref.AdaGrad([p], initial_accumulator_value=number).state[p]["sum"])
    for start in (ours, theirs):
        assert start.dtype == ones.dtype
        assert [hex(x) for x in as_bits(start)] == [hex(bits)] * 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_number_is_rounded_as_mpfr_does(dtype):
    """Numbers near the middle between two of the dtype's, of all sizes, zeros of both signs and subnormals among them."""
    rng = np.random.default_rng(0)
    fmt = oracle.FORMATS[dtype]
    whole = np.ldexp(rng.integers(0, 2 ** (fmt.precision + 1), 3000) + 0.0, rng.integers(fmt.least_normal - 30, fmt.overflow, 3000))
    near = np.concatenate([whole, whole * (1 + 2.0**-52), whole * (1 - 2.0**-53), [0.0, np.inf]])
    for number in [*near.tolist(), *(-near).tolist()]:
        with fmt.gradual:
            expected = float(+gmpy2.mpfr(number))
        assert as_hex(nx.rounded_to(number, dtype)) == as_hex(torch_nx.rounded_to(number, dtype)) == as_hex(expected), number


def test_the_oracle_rounds_a_start_once():
    number = 1 + 2**-8 + 2**-40
    start = oracle.Rounded(0, oracle.FORMATS["bfloat16"]).constant(number)
    assert Fraction(float(start.value)) == 1 + Fraction(1, 128)
