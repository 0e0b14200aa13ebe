"""How torch holds a step: a number, a tensor of many dtypes, and of shape (1,) where torch before 2.1 was fused or capturable."""

import jax.numpy as jnp
import pytest
import torch

from optparity import interop
from optparity.interop.groups import STEP_DTYPES, STEP_KINDS

from .states import adam_state_dict, altered, state_dicts_same

PARAMS = {"a": jnp.ones(3), "b": jnp.ones((2, 3))}
STEPS = {"int": 3, "float": 3.0}
STEPS |= {dtype: torch.tensor(3, dtype=getattr(torch, dtype)) for dtype in STEP_DTYPES}
STEPS |= {f"{dtype}[1]": torch.tensor([3], dtype=getattr(torch, dtype)) for dtype in STEP_DTYPES}


def with_step(step):
    return adam_state_dict(**{f"state__{i}__step": step for i in range(2)})


@pytest.mark.parametrize("kind", STEPS)
def test_a_step_comes_back_as_it_was(kind):
    saved = with_step(STEPS[kind])
    imported = interop.from_torch(saved, PARAMS, optimizer="Adam")
    assert imported.state.step == 3
    assert imported.groups[0].step_kind == kind
    state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), saved)


def test_every_kind_is_tried():
    assert {None, *STEPS} == set(STEP_KINDS)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (torch.tensor(3, dtype=torch.uint8), r"params\[0\] has step 3 of dtype uint8; a number is needed, or one of int32, int64, float16"),
        (torch.tensor(True), r"params\[0\] has step True of dtype bool; a number"),
        (True, r"params\[0\] has step True of dtype bool; a number"),
        ("3", r"params\[0\] has step 3 of dtype str; a number"),
        (torch.tensor(3 + 0j), r"params\[0\] has step .* of dtype complex64; a number"),
        (torch.tensor(3.0).to(torch.float8_e4m3fn), r"params\[0\] has a step that is no number: .*[Ff]loat8_e4m3fn"),
        (torch.tensor([3.0]).to_sparse(), r"params\[0\] has a step that is no number: a dense tensor"),
        (torch.ones(1, 1), r"params\[0\] has step .*; a whole number is needed"),
        (torch.ones(0), r"params\[0\] has step .*; a whole number is needed"),
        (torch.tensor([2.5]), r"params\[0\] has step .*; a whole number is needed"),
        (torch.tensor(float("inf"), dtype=torch.bfloat16), r"params\[0\] has step .*; a whole number is needed"),
        (float("nan"), r"params\[0\] has step nan; a whole number is needed"),
    ],
    ids=str,
)
def test_what_is_no_step_is_named(step, message):
    with pytest.raises((ValueError, TypeError), match=message):
        interop.from_torch(with_step(step), PARAMS, optimizer="Adam")


def test_two_kinds_in_a_group_are_refused():
    saved = altered(with_step(torch.tensor(3.0)), {"state__1__step": torch.tensor([3.0])})
    with pytest.raises(ValueError, match=r"params\[0\] counts in float32, params\[1\] in float32\[1\]; a group counts in one"):
        interop.from_torch(saved, PARAMS, optimizer="Adam")


@pytest.mark.parametrize(("dtype", "last"), [(torch.bfloat16, 256), (torch.float16, 2048), (torch.float32, 2**24)], ids=str)
def test_where_torchs_counter_stops(dtype, last):
    """x + 1 is x there: torch's own counter stays. That number is carried and said, and no greater one is written."""
    step = torch.tensor(last, dtype=dtype)
    assert step + 1 == step
    saved = with_step(step)
    with pytest.warns(
        UserWarning, match=rf"^Adam: torch counts steps in \w+, which stops at {last}: what it says from there on is {last}\."
    ):
        imported = interop.from_torch(saved, PARAMS, optimizer="Adam")
    with pytest.warns(UserWarning, match=f"which stops at {last}"):
        state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), saved)
    state = imported.state._replace(step=imported.state.step + 1)
    with pytest.raises(ValueError, match=rf"Adam: step {last + 1} of params\[0\]: torch counts in \w+, which stops at {last}"):
        interop.to_torch_state_dict(state, imported.groups)
