"""One function of the paths, for both frameworks: what is decayed, what is frozen, and what is said of a function that does not fit."""

import copy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from torch import nn

import torch_ref
from jaxopt_impl import adamw, by_path, frozen, partition_by_path, sgd
from optparity._arrays import to_numpy
from optparity.parity.bits import differing

from ..sampling import EXHAUSTIVE


class Pair(NamedTuple):
    kernel: Any
    bias: Any


def decayed(path):
    return not path.endswith("bias")


def same(a, b):
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype
    assert not differing(a, b).any()


def seen(tree):
    """The paths that a function is asked about."""
    paths = []
    by_path(lambda path: not paths.append(path))(tree)
    return paths


def test_paths_are_spelled_as_torch_spells_them():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])

    tree = {"layers": [{"bias": 0, "weight": 0}, {"bias": 0, "weight": 0}]}
    assert sorted(seen(tree)) == sorted(name for name, _ in Model().named_parameters())
    assert seen({"a": (Pair(0, 0),), "b": {"c.d": 0}}) == ["a.0.kernel", "a.0.bias", "b.c.d"]


@EXHAUSTIVE
def test_a_variable_of_nnx_has_the_path_of_its_attribute():
    params = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)
    assert sorted(seen(params)) == ["bias", "kernel"]
    tx: Any = adamw(0.1, mask=by_path(decayed))
    tx.update(params, tx.init(params), params)


def test_a_mask_is_what_the_function_says():
    params = {"a": Pair(jnp.ones(3), jnp.ones(2)), "b": None}
    assert by_path(decayed)(params) == {"a": Pair(True, False), "b": True}
    assert by_path(lambda path: None if path == "b" else "rest")(params) == {"a": Pair("rest", "rest"), "b": "frozen"}


# Parameters of both frameworks by the same names; the embedding holds zeros of both signs.
VALUES = {
    "embedding": np.array([[0.0, -0.0, 1.5]], np.float32),
    "layers.0.bias": np.array([0.25, -0.0], np.float32),
    "layers.0.weight": np.array([[0.5, -2.0], [3.0, -0.0]], np.float32),
}


def tree(flat):
    """The nested tree that has these paths."""
    return {"embedding": flat["embedding"], "layers": [{"bias": flat["layers.0.bias"], "weight": flat["layers.0.weight"]}]}


def in_jax(tx, steps):
    """What some steps make of the parameters, with gradients of all, of all but the bias, and of none."""
    params, grads = tree({k: jnp.asarray(v) for k, v in VALUES.items()}), tree({k: jnp.asarray(0.5 - v) for k, v in VALUES.items()})
    state = tx.init(params)
    for step in range(steps):
        given: Any = jax.tree.map(lambda g: None, grads) if step % 3 == 2 else copy.deepcopy(grads)
        if step % 3 == 1:
            given["layers"][0]["bias"] = None
        updates, state = jax.jit(tx.update)(given, state, params)
        params = jax.tree.map(lambda u, p: p if u is None else p + u, updates, params, is_leaf=lambda u: u is None)
    return params


def in_torch(make, steps):
    """The same in PyTorch."""
    params = {name: nn.Parameter(torch.from_numpy(value.copy())) for name, value in VALUES.items()}
    optimizer = make(params)
    for step in range(steps):
        for name, p in params.items():
            absent = step % 3 == 2 or (step % 3 == 1 and name.endswith("bias"))
            p.grad = None if absent else torch.from_numpy(0.5 - VALUES[name])
        optimizer.step()
    return tree({name: to_numpy(p) for name, p in params.items()}), optimizer


def test_one_function_decays_the_same_in_both():
    tx = adamw(0.1, weight_decay=0.5, mask=by_path(decayed))
    options = {True: {"weight_decay": 0.5}, False: {"weight_decay": 0.0}}
    make = lambda params: torch_ref.AdamW(torch_ref.param_groups(params.items(), decayed, options), lr=0.1)  # noqa: E731
    theirs, optimizer = in_torch(make, 2)
    jax.tree.map(same, in_jax(tx, 2), theirs)
    assert [group["param_names"] for group in optimizer.param_groups] == [["embedding", "layers.0.weight"], ["layers.0.bias"]]


def label(path):
    return None if path == "embedding" else "bias" if path.endswith("bias") else "rest"


def test_one_function_freezes_the_same_in_both():
    """And steps each part with its own options; a gradient may be None. SGD has no counter of steps, which JAX has one of for all."""
    tx = partition_by_path(label, {"rest": sgd(0.1, momentum=0.9, weight_decay=0.5), "bias": sgd(0.3, momentum=0.9)})
    options = {"rest": {"weight_decay": 0.5}, "bias": {"lr": 0.3}}
    make = lambda params: torch_ref.SGD(torch_ref.param_groups(params.items(), label, options), lr=0.1, momentum=0.9)  # noqa: E731
    ours, (theirs, optimizer) = in_jax(tx, 6), in_torch(make, 6)
    jax.tree.map(same, ours, theirs)
    same(ours["embedding"], VALUES["embedding"])
    assert [group["param_names"] for group in optimizer.param_groups] == [["layers.0.weight"], ["layers.0.bias"]]


def test_labels_may_be_true_and_false():
    """Beside "frozen", which does not sort with them: the state's keys are words."""
    tx = partition_by_path(lambda path: None if path == "embedding" else decayed(path), {True: sgd(0.1), False: sgd(0.0)})
    ours = in_jax(tx, 1)
    same(ours["layers"][0]["bias"], VALUES["layers.0.bias"])
    assert differing(np.asarray(ours["layers"][0]["weight"]), VALUES["layers.0.weight"]).any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("jitted", [False, True])
def test_a_frozen_parameter_keeps_the_sign_of_its_zeros(dtype, jitted):
    """optax.set_to_zero loses it, as −0 + +0 is +0, but for a jit that holds both and drops the sum."""
    params = jnp.array([0.0, -0.0, 1.5, -jnp.inf, jnp.nan], dtype)
    for tx, keeps in ((frozen(), True), (optax.set_to_zero(), jitted)):

        def step(p, tx=tx):
            updates, _ = tx.update(jnp.ones_like(p), tx.init(p), p)
            return optax.apply_updates(p, updates)

        after = np.asarray((jax.jit(step) if jitted else step)(params))
        assert differing(after, np.asarray(params)).any() != keeps


def rest(path):
    return "rest"


REFUSED = {
    "a label without options": (label, {"rest": {}}, ValueError, "leaf layers.0.bias has label 'bias'; one of 'rest' or None is needed."),
    "options without a label": (rest, {"rest": {}, "head": {}}, ValueError, "no leaf has label 'head'; the labels are 'rest'."),
    "options of what is frozen": (
        *(label, {"rest": {}, "bias": {}, "frozen": {}}, ValueError),
        "label 'frozen' has no options: what has it is not stepped.",
    ),
    "no label": (
        *(lambda path: 1.0, {"rest": {}}, TypeError),
        "the function of paths gives 1.0 for embedding; True, False, a label (str) or None is needed.",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_both_sides_refuse_with_the_same_text(what):
    function, options, error, message = REFUSED[what]
    with pytest.raises(error) as ours:
        partition_by_path(function, {label: sgd(0.1) for label in options}).init(tree(VALUES))
    with pytest.raises(error) as theirs:
        torch_ref.param_groups([(name, torch.ones(1)) for name in VALUES], function, options)
    assert str(ours.value) == str(theirs.value) == f"partition_by_path: {message}"


def test_a_mask_of_no_truth_values_is_refused():
    with pytest.raises(TypeError, match=r"^by_path: the function of paths gives 3 for a; True, False, a label "):
        by_path(lambda path: 3)({"a": 0})
    with pytest.raises(TypeError, match=r"^adamw: mask\['a'\] is 'rest'; True or False is needed, known when the step is traced\.$"):
        adamw(0.1, mask=by_path(rest)).init({"a": jnp.ones(1)})
    with pytest.raises(ValueError, match=r"^adamw: mask is no prefix of the parameters' tree; "):
        adamw(0.1, mask=by_path(decayed)({"a": 0, "b": 0})).init({"a": jnp.ones(1)})
