"""Groups and what is in them: partitions, schedules, learning rates."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_impl
import torch_ref
from optparity import interop
from optparity.parity.streams import gradients, parameters
from optparity.parity.subnormals import torch_flushing_like_jax
from optparity.parity.torch_side import TorchSide
from optparity.registry import OPTIMIZERS

from .states import AFTER, BEFORE, PARAMS, SIZES, JaxRun, adam_state_dict, same_leaves, state_dicts_same


def test_groups_become_a_partition_and_come_back():
    """Two groups of other hyper-parameters, one amsgrad, named in another order than the leaves, one transposed: the same bits."""
    params = {"b": np.ones(3, np.float32), "v": np.full((7, 5), 0.5, np.float32), "w": np.ones((5, 7), np.float32)}
    shapes = {"w": (5, 7), "v": (5, 7), "b": (3,)}

    def make(parameters):
        decay = {"params": [("w", parameters[0]), ("v", parameters[1])], "weight_decay": 0.1, "amsgrad": True, "name": "decayed"}
        return torch_ref.AdamW([decay, {"params": [("b", parameters[2])], "lr": torch.tensor(0.25)}], lr=0.01, weight_decay=0)

    rng = np.random.default_rng(0)
    drawn = [{name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()} for _ in range(BEFORE + AFTER)]
    layouts = {"v": (1, 0)}
    with torch_flushing_like_jax():
        whole = TorchSide(make, [np.ones((5, 7), np.float32), np.full((5, 7), 0.5, np.float32), np.ones(3, np.float32)])
        for gradient in drawn[:BEFORE]:
            whole.step(list(gradient.values()))
        w, v, b = whole.params()
        imported = interop.from_torch(whole.optimizer, {"b": b, "v": v.T, "w": w}, layouts=layouts)
        assert isinstance(imported.state, optax.transforms.PartitionState)
        assert jax.tree.structure(imported.state) == jax.tree.structure(imported.tx.init(params))
        state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), whole.optimizer.state_dict())
        carried = JaxRun(imported.tx, {"b": b, "v": v.T, "w": w}, imported.state)
        for gradient in drawn[BEFORE:]:
            whole.step(list(gradient.values()))
            carried.step({**gradient, "v": gradient["v"].T})
        w, v, b = whole.params()
        same_leaves(carried.params, [b, v.T, w])
        state_dicts_same(interop.to_torch_state_dict(carried.state, imported.groups), whole.optimizer.state_dict())

    labels = {"b": "plain", "v": "decayed", "w": "decayed"}
    arguments = {
        "decayed": {"learning_rate": 0.01, "weight_decay": 0.1, "amsgrad": True},
        "plain": {"learning_rate": 0.25, "weight_decay": 0},
    }
    tx = optax.partition({label: jaxopt_impl.adamw(**each) for label, each in arguments.items()}, labels)
    groups = interop.describe(
        params,
        {label: ("adamw", each) for label, each in arguments.items()},
        labels=labels,
        layouts=layouts,
        names={"w": 0, "v": 1, "b": 2},
    )
    begun = JaxRun(tx, params)
    for gradient in drawn:
        begun.step({**gradient, "v": gradient["v"].T})
    state_dicts_same(interop.to_torch_state_dict(begun.state, groups)["state"], whole.optimizer.state_dict()["state"])


def test_a_partition_with_one_label():
    labels = {"a": "all", "b": "all"}
    tx = optax.partition({"all": jaxopt_impl.adam(0.1)}, labels)
    groups = interop.describe(PARAMS, {"all": ("adam", {"learning_rate": 0.1})}, labels=labels, parameters=list(PARAMS))
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    alone = jaxopt_impl.adam(0.1)
    _, expected = alone.update(PARAMS, alone.init(PARAMS), PARAMS)
    state_dicts_same(interop.to_torch_state_dict(state, groups), interop.to_torch_state_dict(expected, groups))


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_schedule_goes_on_at_its_step(name):
    """SGD holds no step, so it is given; the learning rates that follow are those of the schedule from there on."""
    arguments = OPTIMIZERS[name].rows.get("dampening", {})
    schedule = jax.jit(optax.cosine_decay_schedule(0.1, 20))
    params = parameters(SIZES, "float32")
    drawn = list(itertools.islice(gradients("normal", params), BEFORE + AFTER))
    with torch_flushing_like_jax():
        whole = TorchSide(lambda p: OPTIMIZERS[name].torch(p, lr=0.1, **arguments), jax.tree.leaves(params))
        scheduler = torch_ref.ScheduleLR(whole.optimizer, schedule)
        for t, gradient in enumerate(drawn):
            if t == BEFORE:
                there = dict(zip(params, whole.params(), strict=True))
                if not OPTIMIZERS[name].has_step:
                    with pytest.raises(
                        ValueError, match=r"^SGD: its state holds no step, and the learning rate depends on it; step is needed"
                    ):
                        interop.from_torch(whole.optimizer, there, learning_rate=schedule)
                imported = interop.from_torch(whole.optimizer, there, step=BEFORE, learning_rate=schedule)
                carried = JaxRun(imported.tx, there, imported.state)
            if t >= BEFORE:
                carried.step(gradient)
            whole.step(jax.tree.leaves(gradient))
            scheduler.step()
        same_leaves(carried.params, whole.params())
        with pytest.raises(ValueError, match=r"^to_torch_state_dict: group 0 has a schedule in JAX; learning_rate is needed"):
            interop.to_torch_state_dict(carried.state, imported.groups)
        back = interop.to_torch_state_dict(carried.state, imported.groups, learning_rate=schedule)
        state_dicts_same(back, whole.optimizer.state_dict())


def test_learning_rates_are_given_by_group():
    """Numbers are in the groups from then on; a schedule's value is the one at the state's step."""
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in "ab"]
    optimizer = torch_ref.SGD([{"params": [("a", weights[0])]}, {"params": [("b", weights[1])]}], lr=0.5)
    params = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    tx, state, groups = interop.from_torch(optimizer, params, learning_rate=[0.25, None])
    updates, state = tx.update(params, state, params)
    assert [float(update[0]) for update in jax.tree.leaves(updates)] == [-0.25, -0.5]
    rates = lambda groups=groups, **given: [  # noqa: E731
        group["lr"] for group in interop.to_torch_state_dict(state, groups, **given)["param_groups"]
    ]
    assert rates() == [0.25, 0.5]
    assert rates(learning_rate=0.125) == [0.125, 0.125]
    assert rates(learning_rate=[lambda step: jnp.float32(step / 8), np.float32(2)]) == [0.125, 2.0]
    half = interop.from_torch(optimizer, params, learning_rate=[lambda step: 0.1, 0.75], step=0).groups
    assert rates(half, learning_rate=[3, None]) == [3, 0.75]
    with pytest.raises(ValueError, match=r"^to_torch_state_dict: group 0 has a schedule in JAX; learning_rate is needed"):
        rates(half, learning_rate=[None, 3])
    with pytest.raises(ValueError, match=r"^to_torch_state_dict: one learning_rate for each of 2 groups is needed; got 3"):
        rates(learning_rate=[0.1, 0.1, 0.1])
    for wrong in ("0.1", True, (0.1, 0.1), np.ones(2), lambda step: "0.1"):
        with pytest.raises(ValueError, match=r"^to_torch_state_dict: learning_rate is a number, a schedule, or a list of these"):
            rates(learning_rate=wrong)
    with pytest.raises(ValueError, match=r"^from_torch: learning_rate is a number, a schedule, or a list of these"):
        interop.from_torch(optimizer, params, learning_rate="0.1")


def test_betas_may_be_tensors():
    betas = tuple(map(torch.tensor, (0.5, 0.75)))
    given = [adam_state_dict(), adam_state_dict(param_groups__0__betas=betas)]
    given[0]["param_groups"][0]["betas"] = (0.5, 0.75)
    numbers, tensors = (interop.from_torch(each, PARAMS, optimizer="Adam") for each in given)
    for a, b in zip(*(jax.tree.leaves(each.tx.update(PARAMS, each.state, PARAMS)) for each in (numbers, tensors)), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    state_dicts_same(interop.to_torch_state_dict(tensors.state, tensors.groups), given[1])
