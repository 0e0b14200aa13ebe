"""Moments in few bits, by hand; what they save as torchao measured it stands in test_measured_by_others.py."""

import pytest

from optparity.accounting import Cruncher, Setup, estimate
from optparity.accounting.low_precision import quantized

SHAPES = [(64, 64), (128, 256), (4095,), (4100,)]  # the last two: too small, and not of whole blocks


@pytest.mark.parametrize(
    ("moments", "codes", "scales"),
    [
        ("8-bit", 4096 + 32768, (4096 + 32768) // 256 + 2 * 256),
        ("4-bit", (4096 + 32768) // 2, (4096 + 32768) // 128 + 2 * 16),
        ("fp8", 4096 + 32768, (4096 + 32768) // 256),
    ],
)
def test_by_hand(moments, codes, scales):
    state = quantized(SHAPES, "bfloat16", moments, 2)
    assert state.arrays == {"uint8": 2 * codes, "float32": 2 * 4 * scales, "bfloat16": 2 * 2 * (4095 + 4100)}
    assert state.scalars == {"float32": 4 * 4}


@pytest.mark.parametrize(("options", "moments"), [({}, 2), ({"amsgrad": True}, 3)])
def test_master_weights_stay(options, moments):
    """With a float32 master copy, and without: all in bfloat16."""
    p = 64 * 64 + 64
    setups = Setup("adamw", options, moments="8-bit", mixed_precision=True), Setup("adamw", options, moments="8-bit", dtype="bfloat16")
    master, none = (estimate(Cruncher(64, 1), 1, setup=setup).memory[1].optimizer_state for setup in setups)
    scales = 4 * (64 * 64 // 256 + 256)
    assert master == {"uint8": moments * 64 * 64, "float32": 4 * p + moments * (scales + 4 * 64) + 8}
    assert none == {"uint8": moments * 64 * 64, "float32": moments * scales + 8, "bfloat16": moments * 2 * 64}


def test_a_first_moment_in_bfloat16_is_the_optimizers_own():
    whole, half = (estimate(Cruncher(64, 1), 1, setup=Setup("adam", options)).memory[1] for options in ({}, {"mu_dtype": "bfloat16"}))
    assert whole.totals["optimizer_state"] - half.totals["optimizer_state"] == 2 * (64 * 64 + 64)
