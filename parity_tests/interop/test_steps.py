"""At which step a run is, and what has no state yet."""

import numpy as np
import pytest
import torch

import torch_ref
from optparity import interop
from optparity.parity.subnormals import torch_flushing_like_jax
from optparity.registry import OPTIMIZERS, ROWS

from .states import JaxRun, same_leaves, sgd_state_dict, state_dicts_same


def test_the_step_of_sgd():
    params = {"a": np.ones(3, np.float32)}
    step_of = lambda given, **step: int(interop.from_torch(given, params, optimizer="SGD", **step).state.step)  # noqa: E731
    assert step_of(sgd_state_dict()) == 1
    assert step_of(sgd_state_dict(), step=9) == 9
    assert step_of(sgd_state_dict(0)) == 0
    assert step_of({**sgd_state_dict(), "state": {}}) == 0
    with pytest.warns(
        UserWarning, match=r"^SGD: group 0 has initial_lr, which a scheduler left\. .* stays 0\.1 unless learning_rate= is given"
    ):
        assert step_of(sgd_state_dict(0, initial_lr=0.1), step=9) == 9
    for given, step, message in [
        (sgd_state_dict(0, initial_lr=0.1), None, "its state holds no step, and the learning rate depends on it; step is needed"),
        (sgd_state_dict(), 0, "step 0 was given, but momentum_buffer is there, so that a step was taken"),
        ({**sgd_state_dict(), "state": {}}, 3, r"params\[0\] has no state, but step 3 was given"),
        (sgd_state_dict(), -1, "0 <= step <= 2147483647; got -1"),
    ]:
        with pytest.raises(ValueError, match=f"^SGD: {message}"):
            step_of(given, step=step)


@pytest.mark.parametrize("cycle", [False, True])
@pytest.mark.parametrize(("make", "key"), [(torch.optim.Adam, "b1"), (torch.optim.SGD, "momentum"), (torch.optim.RMSprop, "momentum")])
def test_a_scheduled_momentum_is_asked_for(make, key, cycle):
    """OneCycleLR moves the momentum too, Adam's first beta, unless it is told not to."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = make([weight], lr=0.1, **({} if key == "b1" else {"momentum": 0.9}))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9, cycle_momentum=cycle)
    weight.grad = torch.ones(3)
    optimizer.step()
    scheduler.step()
    params, given = {"w": weight.detach().numpy()}, {"learning_rate": lambda count: 0.1, "step": 1}
    if cycle:
        with pytest.raises(
            ValueError, match=r": a scheduler moves (betas|momentum) \(base_momentum is 0\.85\); .* momentum= is needed, the value"
        ):
            interop.from_torch(optimizer, params, **given)
        given["momentum"] = 0.875
    (group,) = interop.from_torch(optimizer, params, **given).groups
    now = group.options["betas"][0] if key == "b1" else group.options["momentum"]
    assert now == (0.875 if cycle else 0.9)


def test_momentum_is_of_what_has_one():
    with pytest.raises(ValueError, match=r"^Adagrad: it has no momentum; got momentum=0\.5"):
        interop.from_torch(torch.optim.Adagrad([torch.nn.Parameter(torch.ones(1))]), [np.ones(1, np.float32)], momentum=0.5)


def test_missing_state_starts_as_new_only_where_it_is_named():
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in "ab")
    optimizer = torch_ref.Adam([("a", a), ("b", b)])
    a.square().sum().backward()
    optimizer.step()
    params = {"a": a.detach().numpy(), "b": np.ones(2, np.float32)}
    with pytest.raises(ValueError, match=r"^Adam: params\['b'\] has no state, but others of its group have some; list it in missing"):
        interop.from_torch(optimizer, params)
    _, state, groups = interop.from_torch(optimizer, params, missing=["b"])
    for leaves, names in (
        ({"x": "a", "y": "b"}, ["params['b']"]),
        ({"x": "a", "y": "b"}, ["b"]),
        ({"x": "a", "y": "b"}, ["y"]),
        ({"b": "a", "a": "b"}, ["b"]),
    ):
        other = {path: params[name] for path, name in leaves.items()}
        if names == ["b"] and "b" in leaves:
            with pytest.raises(ValueError, match=r"^missing: b is the path of one leaf and the name of another's parameter"):
                interop.from_torch(optimizer, other, names=leaves, missing=names)
        else:
            assert not interop.from_torch(optimizer, other, names=leaves, missing=names).state.exp_avg["y"].any()
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


def unequal(make, **arguments):
    """Three parameters that have taken 3, 5 and 3 steps, in one group and one of their own; and the leaves."""
    weights = {name: torch.nn.Parameter(torch.arange(1.0, 4.0) * i) for i, name in enumerate("abcd", 1)}
    first = [(name, weights[name]) for name in "abc"]
    optimizer = make([{"params": first}, {"params": [("d", weights["d"])], "lr": 0.5}], lr=0.1, **arguments)
    for t in range(5):
        for name, weight in weights.items():
            weight.grad = torch.tensor([0.1, -0.2, 0.3]) * (t + 1) if name in "bd" or t < 3 else None
        optimizer.step()
    return optimizer, weights


@pytest.mark.parametrize(
    ("make", "arguments", "parts"),
    [
        (torch_ref.Adam, {}, 3),
        (torch_ref.AdamW, {"amsgrad": True}, 3),
        (torch_ref.RMSprop, {"momentum": 0.9}, 2),
        (torch_ref.AdaGrad, {}, 2),
        (torch_ref.AdaGrad, {"lr_decay": 0.1}, 3),
    ],
)
def test_parameters_at_different_steps_go_on_each_at_its_own(make, arguments, parts):
    """A part of the partition for each step where the rule uses it. Then the same bits as torch_ref's, and there and back is equal."""
    optimizer, weights = unequal(make, **arguments)
    run = lambda: {name: weight.detach().numpy().copy() for name, weight in weights.items()}  # noqa: E731
    imported = interop.from_torch(optimizer, run())
    assert len(imported.groups) == parts
    state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), optimizer.state_dict())
    rates = [
        group["lr"] for group in interop.to_torch_state_dict(imported.state, imported.groups, learning_rate=[0.2, None])["param_groups"]
    ]
    assert rates == [0.2, 0.5]
    carried = JaxRun(imported.tx, run(), imported.state)
    with torch_flushing_like_jax():
        for t in range(4):
            gradients = {name: np.array([0.3, -0.1, 0.2], np.float32) * np.float32(t + i) for i, name in enumerate(weights)}
            for name, weight in weights.items():
                weight.grad = torch.from_numpy(gradients[name])
            optimizer.step()
            carried.step(gradients)
            same_leaves(carried.params, run().values())
    state_dicts_same(interop.to_torch_state_dict(carried.state, imported.groups), optimizer.state_dict())


def test_whether_a_rule_uses_the_step_is_as_the_registry_says():
    """What a row prepares at step 1 and at step 1,000 differs exactly where it does."""
    for row in ROWS:
        (group,) = interop.describe(np.ones(2, np.float32), (row.optimizer, row.arguments))
        if not row.entry.has_step:
            continue
        state, p = row.tx.init(np.ones(2, np.float32)), np.ones(2, np.float32)
        at = [row.tx.update(p, state._replace(step=np.int32(step)), p)[0] for step in (1, 1000)]
        assert group.uses_step == bool((np.asarray(at[0]) != np.asarray(at[1])).any()), str(row)


def test_a_run_that_has_not_begun():
    for make in (entry.torch for entry in OPTIMIZERS.values()):
        optimizer = make([torch.nn.Parameter(torch.ones(2))], lr=0.1)
        imported = interop.from_torch(optimizer, {"w": np.ones(2, np.float32)})
        assert int(imported.state.step) == 0
        state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), optimizer.state_dict())
