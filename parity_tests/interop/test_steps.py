"""At which step a run is, and what has no state yet."""

import numpy as np
import pytest
import torch

import torch_ref
from optparity import interop
from optparity.registry import OPTIMIZERS

from .states import sgd_state_dict, state_dicts_same


def test_the_step_of_sgd():
    params = {"a": np.ones(3, np.float32)}
    step_of = lambda given, **step: int(interop.from_torch(given, params, optimizer="SGD", **step).state.step)  # noqa: E731
    assert step_of(sgd_state_dict()) == 1
    assert step_of(sgd_state_dict(), step=9) == 9
    assert step_of(sgd_state_dict(0)) == 0
    assert step_of({**sgd_state_dict(), "state": {}}) == 0
    assert step_of(sgd_state_dict(0, initial_lr=0.1), step=9) == 9
    for given, step, message in [
        (sgd_state_dict(0, initial_lr=0.1), None, "its state holds no step, and the learning rate depends on it; step is needed"),
        (sgd_state_dict(), 0, "step 0 was given, but momentum_buffer is there, so that a step was taken"),
        ({**sgd_state_dict(), "state": {}}, 3, r"params\[0\] has no state, but step 3 was given"),
        (sgd_state_dict(), -1, "0 <= step <= 2147483647; got -1"),
    ]:
        with pytest.raises(ValueError, match=f"^SGD: {message}"):
            step_of(given, step=step)


def test_missing_state_starts_as_new_only_where_it_is_named():
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in "ab")
    optimizer = torch_ref.Adam([("a", a), ("b", b)])
    a.square().sum().backward()
    optimizer.step()
    params = {"a": a.detach().numpy(), "b": np.ones(2, np.float32)}
    with pytest.raises(ValueError, match=r"^Adam: params\['b'\] has no state, but others of its group have some; list it in missing"):
        interop.from_torch(optimizer, params)
    _, state, groups = interop.from_torch(optimizer, params, missing=["b"])
    assert not state.exp_avg["b"].any()
    back = interop.to_torch_state_dict(state, groups)["state"]
    state_dicts_same(back[0], optimizer.state_dict()["state"][0])
    assert back[1]["step"] == 1

    for dampening in (0, 0.5):
        optimizer = torch_ref.SGD([("a", a), ("b", b)], lr=0.1, momentum=0.9, dampening=dampening)
        optimizer.step()
        if dampening:
            with pytest.raises(ValueError, match=r"^SGD: params\['b'\] has no state, and with dampening a first step differs from step 1"):
                interop.from_torch(optimizer, params, missing=["b"])
        else:
            assert not interop.from_torch(optimizer, params, missing=["b"]).state.momentum_buffer["b"].any()


def test_a_run_that_has_not_begun():
    for make in (entry.torch for entry in OPTIMIZERS.values()):
        optimizer = make([torch.nn.Parameter(torch.ones(2))], lr=0.1)
        imported = interop.from_torch(optimizer, {"w": np.ones(2, np.float32)})
        assert int(imported.state.step) == 0
        state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), optimizer.state_dict())
