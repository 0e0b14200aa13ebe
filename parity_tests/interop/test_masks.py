"""A decay mask as torch's two groups, and torch's two groups as one transform with a mask: the same bits."""

import functools
import itertools
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_impl
import torch_ref
from optparity import interop
from optparity.interop import masks
from optparity.parity.streams import gradients, parameters
from optparity.parity.subnormals import torch_flushing_like_jax
from optparity.parity.torch_side import TorchSide

from .states import AFTER, BEFORE, JaxRun, same_leaves, state_dicts_same
from .wrapped import FORMS, PARAMS, code, coded, described, same

SIZES = {"b": (3,), "s": (7,), "w": (5, 7)}
MASK = {"b": False, "s": False, "w": True}
ARGUMENTS = {"learning_rate": 0.01, "b2": 0.99, "weight_decay": 0.1}
ORDER = ("w", "b", "s")  # of torch's parameters: the group that decays first


def of_matrices(tree):
    return jax.tree.map(lambda x: x.ndim > 1, tree)


def two_groups(named, **arguments):
    """As training scripts have it: what has two axes decays, the rest does not."""
    groups = [
        {"params": [(name, p) for name, p in zip(SIZES, named, strict=True) if p.ndim > 1]},
        {"params": [(name, p) for name, p in zip(SIZES, named, strict=True) if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch_ref.AdamW(groups, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1, **arguments)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mask", [MASK, of_matrices], ids=["tree", "function"])
@pytest.mark.parametrize("arguments", [{}, {"amsgrad": True}, {"accumulator_dtype": "float32"}], ids=str)
def test_a_mask_is_two_groups_and_they_are_a_mask(dtype, mask, arguments):
    """k steps in JAX and n in torch are k + n steps in torch, as are k in torch and n in JAX; and there and back is equal."""
    params = parameters(SIZES, dtype)
    drawn = list(itertools.islice(gradients("wide", params), BEFORE + AFTER))
    pair = ("adamw", {**ARGUMENTS, **arguments, "mask": mask})
    in_jax = JaxRun(jaxopt_impl.adamw(**pair[1]), params)
    with torch_flushing_like_jax():
        make = functools.partial(two_groups, **arguments)
        whole, other = TorchSide(make, jax.tree.leaves(params)), None
        for t, gradient in enumerate(drawn):
            if t == BEFORE:
                there = dict(zip(params, whole.params(), strict=True))
                partition = interop.from_torch(whole.optimizer, there)
                imported = interop.with_mask(partition, params)
                assert jax.tree.structure(imported.state) == jax.tree.structure(in_jax.state)
                state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), whole.optimizer.state_dict())
                carried = JaxRun(imported.tx, there, imported.state)
                other = TorchSide(make, jax.tree.leaves(jax.tree.map(np.array, in_jax.params)))
                written = interop.to_torch_state_dict(in_jax.state, interop.describe(params, pair, parameters=ORDER))
                assert [group["weight_decay"] for group in written["param_groups"]] == [0.1, 0.0]
                other.optimizer.load_state_dict(written)
            if t < BEFORE:
                in_jax.step(gradient)
            else:
                carried.step(gradient)
                other.step(jax.tree.leaves(gradient))
            whole.step(jax.tree.leaves(gradient))
        same_leaves(carried.params, whole.params())
        same_leaves(dict(zip(params, other.params(), strict=True)), whole.params())
        state_dicts_same(other.optimizer.state_dict()["state"], whole.optimizer.state_dict()["state"])
        state_dicts_same(interop.to_torch_state_dict(carried.state, imported.groups), whole.optimizer.state_dict())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("around", ["bare", "chain", "inject", "masked decay"])
def test_one_state_for_two_groups_by_values(form, around):
    """Every moment is at its parameter, in whatever the state stands."""
    mask = {"dec": False, "enc": {"b": False, "w": True}}
    make = {
        "bare": lambda: jaxopt_impl.adamw(**ARGUMENTS, mask=mask),
        "chain": lambda: optax.chain(optax.clip(1.0), jaxopt_impl.adamw(**ARGUMENTS, mask=mask)),
        "inject": lambda: optax.inject_hyperparams(jaxopt_impl.adamw)(**ARGUMENTS, mask=mask),
        "masked decay": lambda: optax.chain(optax.masked(optax.add_decayed_weights(0.1), mask), jaxopt_impl.adamw(**ARGUMENTS)),
    }[around]
    state = coded("adamw", make().init(PARAMS))
    groups = described(PARAMS, ("adamw", {**ARGUMENTS, "mask": mask}))
    order = ["enc.w", "dec.b", "dec.w", "enc.b"]
    assert [[leaf.path for leaf in group.leaves] for group in groups] == [order[:1], order[1:]]
    written = interop.to_torch_state_dict(FORMS[form](state), groups)
    for i, path in enumerate(order):
        for field in ("exp_avg", "exp_avg_sq"):
            assert (written["state"][i][field].numpy() == code(field, path)).all()
    partition = interop.from_torch(written, PARAMS, optimizer="AdamW", parameters=order)
    back = interop.with_mask(partition, PARAMS)
    same(back.state, coded("adamw", jaxopt_impl.adamw(**ARGUMENTS).init(PARAMS)))
    state_dicts_same(interop.to_torch_state_dict(back.state, back.groups), written)


def test_optax_adamw_with_a_mask_goes_to_torch():
    stock = coded("adamw", optax.adamw(0.01, b2=0.99, weight_decay=0.1, mask=of_matrices).init(PARAMS))
    for form in FORMS.values():
        state = interop.from_optax("adamw", form(stock), PARAMS)
        written = interop.to_torch_state_dict(state, described(PARAMS, ("adamw", {**ARGUMENTS, "mask": of_matrices})))
        assert [len(group["params"]) for group in written["param_groups"]] == [2, 2]
        for i, path in enumerate(["dec.w", "enc.w", "dec.b", "enc.b"]):
            assert (written["state"][i]["exp_avg"].numpy() == code("exp_avg", path)).all()


def test_masks_by_label():
    """In a partition each label's mask is taken apart; a group that would be empty is left out; without a mask nothing changes."""
    pair, plain = ("adamw", {**ARGUMENTS, "mask": of_matrices}), ("adam", {"learning_rate": 0.1})
    labels = {"dec": {"b": "a", "w": "a"}, "enc": {"b": "p", "w": "p"}}
    groups = described(PARAMS, {"a": pair, "p": plain}, labels)
    assert [(group.label, [leaf.path for leaf in group.leaves], group.options["weight_decay"]) for group in groups] == [
        ("a, decay", ["dec.w"], 0.1),
        ("a, no_decay", ["dec.b"], 0.0),
        ("p", ["enc.b", "enc.w"], 0.0),
    ]
    tx = optax.partition({"a": jaxopt_impl.adamw(**pair[1]), "p": jaxopt_impl.adam(0.1)}, labels)
    written = interop.to_torch_state_dict(coded("adam", tx.init(PARAMS)), groups)
    for i, path in enumerate(["dec.w", "dec.b", "enc.b", "enc.w"]):
        assert (written["state"][i]["exp_avg"].numpy() == code("exp_avg", path)).all()
    assert [group.label for group in described(PARAMS, ("adamw", {**ARGUMENTS, "mask": True}))] == ["decay"]
    with pytest.raises(ValueError, match=r"^describe: the label 'a, decay' is that of the mask of label 'a'; another is needed"):
        masks.split(PARAMS, {"a": pair, "a, decay": plain}, labels)
    assert masks.split(PARAMS, plain) == (plain, None)
    assert masks.split(PARAMS, {"a": plain}, labels) == ({"a": plain}, labels)


TWO = {"a": jnp.ones((2, 3)), "b": jnp.ones(3)}


def of_torch(optimizer="AdamW", step=1.0, learning_rate=None, **changes):
    """What comes of two groups of which the second, with these changes, does not decay."""
    weights = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(3))]
    groups = [{"params": weights[:1]}, {"params": weights[1:], "weight_decay": 0.0, **changes}]
    made = getattr(torch_ref, optimizer)(groups, lr=0.1, weight_decay=0.5)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    made.step()
    made.state[weights[1]]["step"].fill_(step)
    return interop.from_torch(made.state_dict(), TWO, optimizer=optimizer, learning_rate=learning_rate)


def test_groups_that_are_no_mask_are_refused():
    for changes, message in [
        ({"lr": 0.2}, "with_mask: groups 0 and 1 differ in lr, so that each needs a state of its own"),
        ({"amsgrad": True}, "with_mask: groups 0 and 1 differ in amsgrad"),
        ({"weight_decay": 0.25}, "with_mask: groups of one state have one weight_decay, or 0; got 0.25, 0.5"),
        ({"optimizer": "Adam"}, "with_mask: groups of AdamW are needed; group 0 is of Adam"),
        ({"step": 2.0}, r"with_mask: one transform has one step; the groups stand at 1, 2\."),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            interop.with_mask(of_torch(**changes), TWO)


def test_a_schedule_is_given_to_the_one_transform_as_well():
    schedule = optax.constant_schedule(0.25)
    scheduled = of_torch(learning_rate=schedule)
    with pytest.raises(ValueError, match=r"^with_mask: group 0 has a schedule; learning_rate is needed"):
        interop.with_mask(scheduled, TWO)
    by_schedule, by_number = interop.with_mask(scheduled, TWO, learning_rate=schedule), interop.with_mask(of_torch(learning_rate=0.25), TWO)
    updates = [jax.jit(each.tx.update)(TWO, each.state, TWO)[0] for each in (by_schedule, by_number, of_torch())]
    same(*updates[:2])
    assert (updates[0]["a"] != updates[2]["a"]).all()


def test_one_state_needs_groups_of_one_transform():
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones(3)}
    state = jaxopt_impl.adamw(0.1).init(params)
    pair: dict[Hashable, Any] = {"a": ("adamw", {"learning_rate": 0.1}), "b": ("adamw", {"learning_rate": 0.2})}
    for groups, message in [
        (described(params, pair, labels={"a": "a", "b": "b"}), "to_torch_state_dict: groups 'a' and 'b' differ in lr, so that each"),
        (
            described(params, {"a": pair["a"], "b": ("adam", {"learning_rate": 0.1})}, labels={"a": "a", "b": "b"}),
            "to_torch_state_dict: groups 'a' and 'b' differ in class, so that each needs a state of its own",
        ),
        (
            described({**params, "c": jnp.ones(3)}, dict.fromkeys("ab", pair["a"]), labels={"a": "a", "b": "b", "c": "b"}),
            "to_torch_state_dict: leaf c is in a group, but not in the state at the root",
        ),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            interop.to_torch_state_dict(state, groups)
    more = jaxopt_impl.adamw(0.1).init({**params, "c": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"^to_torch_state_dict: leaf c is in no group"):
        interop.to_torch_state_dict(more, described(params, dict.fromkeys("ab", pair["a"]), labels={"a": "a", "b": "b"}))
    without = described(params, {label: ("sgd", {"learning_rate": 0.1}) for label in "ab"}, labels={"a": "a", "b": "b"})
    assert interop.to_torch_state_dict(jaxopt_impl.sgd(0.1).init(params), without)["state"] == {}
