"""`adamw(mask=...)`: the rule with decay on some leaves, without on the others, over one state."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_impl
import torch_ref
from optparity.parity.bits import differing
from optparity.parity.streams import gradients, parameters
from optparity.parity.subnormals import torch_flushing_like_jax
from optparity.parity.torch_side import TorchSide

SIZES = {"b": (3,), "s": (7,), "w": (5, 7)}
MASK = {"b": False, "s": False, "w": True}
ARGUMENTS = {"learning_rate": 0.01, "b2": 0.99, "weight_decay": 0.1}


def of_matrices(tree):
    return jax.tree.map(lambda x: x.ndim > 1, tree)


def two_groups(parameters, **arguments):
    b, s, w = parameters
    groups = [{"params": [w]}, {"params": [b, s], "weight_decay": 0.0}]
    return torch_ref.AdamW(groups, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1, **arguments)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("arguments", [{}, {"amsgrad": True, "maximize": True}, {"accumulator_dtype": "float32"}], ids=str)
def test_a_mask_has_the_bits_of_two_groups(dtype, arguments):
    params: Any = parameters(SIZES, dtype)
    eps = {} if dtype != "float16" or "accumulator_dtype" in arguments else {"eps": 1e-4}
    tx = jaxopt_impl.adamw(**ARGUMENTS, **arguments, **eps, mask=MASK)
    state, update = tx.init(params), jax.jit(tx.update)
    assert jax.tree.structure(state) == jax.tree.structure(jaxopt_impl.adamw(**ARGUMENTS, **arguments, **eps).init(params))
    with torch_flushing_like_jax():
        other = TorchSide(functools.partial(two_groups, **arguments, **eps), jax.tree.leaves(params))
        for _, gradient in zip(range(5), gradients("normal", params), strict=False):
            other.step(jax.tree.leaves(gradient))
            updates, state = update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            for name, a, b in zip(params, jax.tree.leaves(params), other.params(), strict=True):
                assert not differing(np.asarray(a), b).any(), name


@pytest.mark.parametrize(
    "mask", [MASK, of_matrices, {"b": np.bool_(False), "s": False, "w": jnp.array(True)}], ids=["tree", "function", "arrays"]
)
def test_the_forms_of_a_mask(mask):
    """A leaf has the update of the transform with decay, or of the one without; both differ, so that neither is taken for the other."""
    params = {name: jnp.full(shape, 2.0, jnp.float32) for name, shape in SIZES.items()}
    by = {
        decay: jaxopt_impl.adamw(0.1, weight_decay=decay).update(params, jaxopt_impl.adamw(0.1).init(params), params)
        for decay in (0.5, 0.0)
    }
    tx = jaxopt_impl.adamw(0.1, weight_decay=0.5, mask=mask)
    updates, state = tx.update(params, tx.init(params), params)
    for name in params:
        np.testing.assert_array_equal(updates[name], by[0.5 if MASK[name] else 0.0][0][name])
        assert (by[0.5][0][name] != by[0.0][0][name]).all()
    jax.tree.map(np.testing.assert_array_equal, state, by[0.5][1])


def test_a_mask_may_be_a_prefix():
    params = {"layer": {"b": jnp.ones(2), "w": jnp.ones((2, 2))}, "norm": jnp.ones(2)}
    tx = jaxopt_impl.adamw(0.1, weight_decay=0.5, mask={"layer": True, "norm": False})
    whole = jaxopt_impl.adamw(0.1, weight_decay=0.5, mask={"layer": {"b": True, "w": True}, "norm": False})
    for a, b in zip(*(jax.tree.leaves(each.update(params, each.init(params), params)) for each in (tx, whole)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mask", [True, False, MASK], ids=str)
def test_a_step_is_counted_once_if_any_leaf_takes_it(mask):
    params = {name: jnp.ones(shape) for name, shape in SIZES.items()}
    tx = jaxopt_impl.adamw(0.1, mask=mask)
    for updates, count in [(params, 1), ({**params, "w": None}, 1), (dict.fromkeys(params), 0)]:
        assert int(tx.update(updates, tx.init(params), params)[1].step) == count
    empty = jaxopt_impl.adamw(0.1, mask=mask) if mask is not MASK else jaxopt_impl.adamw(0.1, mask={})
    assert int(empty.update({}, empty.init({}), {})[1].step) == int(jaxopt_impl.adamw(0.1).update({}, empty.init({}), {})[1].step)


def test_leaves_without_gradient_keep_their_state_under_a_mask():
    params = {name: jnp.ones(shape) for name, shape in SIZES.items()}
    tx = jaxopt_impl.adamw(0.1, mask=MASK)
    _, state = tx.update(params, tx.init(params), params)
    updates, after = tx.update({"b": None, "s": jnp.ones(7), "w": None}, state, params)
    assert updates["b"] is None
    assert updates["w"] is None
    for name in "bw":
        np.testing.assert_array_equal(after.exp_avg[name], state.exp_avg[name])
    assert (after.exp_avg["s"] != state.exp_avg["s"]).all()
    assert int(after.step) == 2


def test_inside_of_other_transforms():
    """In a partition a mask of all parameters is one of those that are there; inject_hyperparams is told that a function is no schedule."""
    params = {name: jnp.full(shape, 2.0, jnp.float32) for name, shape in SIZES.items()}
    bare = jaxopt_impl.adamw(0.125, weight_decay=0.5, mask=of_matrices)
    expected, _ = bare.update(params, bare.init(params), params)
    for tx in [
        optax.partition(
            {"a": jaxopt_impl.adamw(0.125, weight_decay=0.5, mask=MASK), "z": optax.set_to_zero()}, {"b": "z", "s": "a", "w": "a"}
        ),
        optax.inject_hyperparams(jaxopt_impl.adamw, static_args=("mask", "b1", "b2", "eps"))(0.125, weight_decay=0.5, mask=of_matrices),
    ]:
        updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
        for name in "sw":
            np.testing.assert_array_equal(updates[name], expected[name])


def test_masks_that_are_refused():
    params = {"b": jnp.ones(3), "w": jnp.ones((2, 3))}
    for mask, error, message in [
        ({"b": False}, ValueError, r"adamw: mask is no prefix of the parameters' tree; got PyTreeDef\(\{'b': \*\}\), parameters PyTreeDef"),
        (lambda tree: [True], ValueError, "adamw: mask is no prefix of the parameters' tree; got "),
        ({"b": "no", "w": True}, TypeError, r"adamw: mask\['b'\] is 'no'; True or False is needed"),
        ({"b": 0, "w": True}, TypeError, r"adamw: mask\['b'\] is 0; True or False is needed"),
        ({"b": np.zeros(3, bool), "w": True}, TypeError, r"adamw: mask\['b'\] is array.*; True or False is needed"),
    ]:
        with pytest.raises(error, match=f"^{message}"):
            jaxopt_impl.adamw(0.1, mask=mask).init(params)
    with pytest.raises(TypeError, match=r"^adamw: mask\['b'\] is .*; True or False is needed, known when the step is traced"):
        jax.jit(jaxopt_impl.adamw(0.1, mask=lambda tree: jax.tree.map(lambda x: x.sum() > 0, tree)).init)(params)
    tx = jaxopt_impl.adamw(0.1, mask={"b": False, "w": True})
    with pytest.raises(ValueError, match=r"^adamw: weight_decay needs the parameters"):
        tx.update(params, tx.init(params))
