"""The verdict of float64: rounding shrinks, another formula stays."""

import math

import numpy as np
import optax
import pytest
import torch

from optparity.parity.streams import gradients, parameters
from optparity.registry import ROWS
from optparity.versus import Course, Place, Verdict, against
from optparity.versus.rounding import verdicts

from ..sampling import EXHAUSTIVE

pytestmark = pytest.mark.usefixtures("as_users_have_it")
W = Place("params", "['w']")


def told(first, second, *, dtype="float32", stream="normal", steps=6, **how):
    params = parameters({"w": (8, 3), "s": ()}, dtype)
    return against(first, second, params, gradients(stream, params), steps=steps, float64=True, **how).rounding


def torch_adam(**arguments):
    return lambda params: torch.optim.Adam(params, **{"lr": 0.1, **arguments})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_one_formula_in_two_roundings(dtype):
    found = told(optax.adam(0.1, eps=1e-4), torch_adam(eps=1e-4), dtype=dtype)
    assert {verdict.kind for verdict in found.values()} <= {"same", "rounding"}
    assert found[W].kind == "rounding"
    assert found[W].step == 1
    assert found[W].shrinks > 24


@pytest.mark.parametrize(
    ("arguments", "fields", "step"),
    [
        ({"eps": 1.1e-8}, ["params"], 1),
        ({"eps": 1e-12}, ["params"], 1),
        ({"betas": (float(np.float32(0.9)), 0.999)}, ["params", "mu = exp_avg"], 1),  # of rounding, the bits of float32 do not tell
        ({"betas": (0.9, float(np.float32(0.999)))}, ["params", "nu = exp_avg_sq"], 1),
        ({"lr": float(np.float32(0.1))}, ["params"], 1),
        ({"amsgrad": True}, ["params"], None),
        ({"weight_decay": 1e-6}, ["params", "mu = exp_avg", "nu = exp_avg_sq"], 1),
    ],
)
def test_another_formula_however_near(arguments, fields, step):
    """Most of these are within the noise of float32."""
    found = told(optax.adam(0.1), torch_adam(**arguments))
    of_w = {place.name or place.stage: verdict for place, verdict in found.items() if place.leaf == "['w']"}
    assert [name for name, verdict in of_w.items() if verdict.kind == "another formula"] == fields
    assert step is None or of_w[fields[-1]].step <= step + 1
    assert all(verdict.kind in ("same", "rounding") for name, verdict in of_w.items() if name not in fields)


def test_from_the_step_on_which_the_formulas_part():
    """A learning rate that halves at the fourth step."""
    late = optax.sgd(optax.piecewise_constant_schedule(0.125, {3: 0.5}))
    found = told(late, lambda params: torch.optim.SGD(params, lr=0.125))
    assert (found[W].kind, found[W].step) == ("another formula", 4)
    assert str(found[W]) == "another formula, from step 4"


def test_a_state_that_stays_narrow_leaves_it_open():
    found = told(optax.adam(0.1, mu_dtype="float32"), torch_adam())
    assert str(found[W]) == "unknown: jax keeps mu in float32 beside float64 parameters"
    assert found[Place("state", "['w']", "nu = exp_avg_sq")].kind == "rounding"


def test_state_need_not_be_compared_for_it():
    assert told(optax.adam(0.1, mu_dtype="float32"), torch_adam(), state=False)[W].kind == "unknown"


@pytest.mark.parametrize("stream", ["zeros", "huge", "inf", "nan", "subnormal", "wide", "constant"])
def test_gradients_that_break_optimizers(stream):
    """What overflows in float32 and does not in float64 is rounding, too."""
    found = told(optax.adam(0.1), torch_adam(), stream=stream)
    assert {verdict.kind for verdict in found.values()} <= {"same", "rounding"}


SAME_FORMULA = [row for row in ROWS if row.stock_torch and row.optimizer in ("sgd", "adam", "adamw", "rmsprop")]


@EXHAUSTIVE
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("row", SAME_FORMULA, ids=str)
def test_our_rules_and_torchs_are_one_formula(row, dtype):
    for stream in ("normal", "wide", "zeros"):
        for place, verdict in told(row.torch, row.stock_torch, dtype=dtype, stream=stream, steps=60).items():
            assert verdict.kind in ("same", "rounding"), f"{row} on {stream}: {place}: {verdict}"


def courses(*pairs):
    """Of one array of a 1 at each step: how far in float32, and in float64."""
    lower, higher = Course("a", "b"), Course("a", "b")
    for step, (far, there) in enumerate(pairs, 1):
        lower.note(step, W, np.array([1 + far], np.float32), np.array([1], np.float32))
        higher.note(step, W, np.array([1 + there], np.float64), np.array([1], np.float64))
    return lower, higher, {W: 2.0**-23}


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ([(0, 0), (0, 0)], Verdict("same")),
        ([(0, 0), (2**-20, 2**-49)], Verdict("rounding", 2, 29.0)),
        ([(2**-10, 2**-37)], Verdict("rounding", 1, 27.0)),
        ([(2**-20, 0)], Verdict("rounding", 1, math.inf)),
        ([(2**-20, 2**-49), (2**-20, 2**-30)], Verdict("another formula", 2, 10.0)),
        ([(0, 2**-30)], Verdict("another formula", 1, 0.0)),
        ([(0, 2**-52)], Verdict("rounding", 1, 0.0)),
        ([(np.nan, np.nan)], Verdict("another formula", 1, 0.0)),
        ([(np.inf, 0)], Verdict("rounding", 1, math.inf)),
    ],
)
def test_of_distances(pairs, verdict):
    assert verdicts(*courses(*pairs))[W] == verdict
