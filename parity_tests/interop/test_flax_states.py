"""A run that goes on in an Optimizer of Flax NNX or a TrainState of Linen, and comes back from there."""

from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from flax.core import freeze
from flax.training.train_state import TrainState

import jaxopt_impl
import torch_ref
from optparity import interop

from .states import state_dicts_same
from .wrapped import (
    ARGUMENTS,
    PARAMS,
    RATE,
    STEP,
    as_flax_has_it,
    as_orbax_has_it,
    coded,
    described,
    names_its_parameters,
    ours,
    same,
    stock,
)

NAMES, LAYOUTS = {"kernel": "weight", "bias": "bias"}, {"kernel": (1, 0)}
AROUND = {
    "bare": lambda tx: tx,
    "chain": lambda tx: optax.chain(optax.identity(), tx),
    "inject": lambda tx: optax.chain(optax.inject_hyperparams(optax.scale)(1.0), tx),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
}


def in_torch(steps=1):
    torch.manual_seed(0)
    linear = torch.nn.Linear(3, 2)
    optimizer = torch_ref.AdamW(linear.named_parameters(), lr=RATE)
    for _ in range(steps):
        train(linear, optimizer)
    return linear, optimizer


def train(linear, optimizer):
    """The gradients are the same numbers in both frameworks: kernels of ones."""
    for parameter in linear.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("around", AROUND)
def test_a_run_goes_on_in_an_nnx_optimizer_and_comes_back(around):
    linear, optimizer = in_torch()
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    weights = interop.weights_from_torch(dict(linear.named_parameters()), nnx.state(model, nnx.Param), names=NAMES, layouts=LAYOUTS)
    nnx.update(model, weights)
    tx, state, groups = interop.from_torch(optimizer, nnx.state(model, nnx.Param), names=NAMES, layouts=LAYOUTS)
    opt = nnx.Optimizer(model, AROUND[around](tx), wrt=nnx.Param)
    told = {"step": 1} if around == "apply_if_finite" else {}
    assert interop.to_flax(state, opt, **told) is opt
    assert int(opt.step.get_value()) == 1
    assert opt.step.get_value().dtype == jnp.uint32
    state_dicts_same(interop.to_torch_state_dict(opt.opt_state, groups), optimizer.state_dict())
    gradients = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    nnx.jit(lambda opt, model, gradients: opt.update(model, gradients))(opt, model, gradients)
    train(linear, optimizer)
    for given in (opt, opt.opt_state, nnx.state(opt), nnx.to_pure_dict(nnx.state(opt))):
        state_dicts_same(interop.to_torch_state_dict(given, groups), optimizer.state_dict())
    back = interop.weights_to_torch(nnx.state(model, nnx.Param), names=NAMES, layouts=LAYOUTS)
    for name, value in linear.named_parameters():
        assert torch.equal(back[name], value.detach())


@pytest.mark.usefixtures("as_users_have_it")
def test_the_line_for_nnx_without_a_function():
    """What the documentation may show of Flax's own: the leaves of a state of the same structure."""
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    tx = jaxopt_impl.adam(RATE)
    state = jax.tree.map(lambda x: x + 1, tx.init(nnx.state(model, nnx.Param)))
    by_hand, by_function = (nnx.Optimizer(model, tx, wrt=nnx.Param) for _ in range(2))
    nnx.update(by_hand.opt_state, nnx.state(nnx.as_pure(state)))
    interop.to_flax(state, by_function)
    same(nnx.as_pure(by_hand.opt_state), nnx.as_pure(by_function.opt_state))


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("params", [PARAMS, freeze(PARAMS)], ids=["dict", "FrozenDict"])
def test_a_train_state_there_and_back(name, params):
    """As it is, and as Flax's and Orbax's checkpoints have it."""
    tx = optax.chain(optax.clip_by_global_norm(1.0), ours(name)())
    groups = described(params, (name, {"learning_rate": RATE, **ARGUMENTS[name]}))
    bare = coded(name, ours(name)().init(params))
    expected = interop.to_torch_state_dict(bare, groups)
    new = TrainState.create(apply_fn=None, params=params, tx=tx)
    train_state = interop.to_flax(bare, new)
    assert train_state.step == STEP
    same(train_state.opt_state, coded(name, tx.init(params)))
    restored = flax.serialization.msgpack_restore(flax.serialization.to_bytes(train_state))
    fields = {"step": train_state.step, "params": params, "opt_state": train_state.opt_state}
    for form in (train_state, restored, as_orbax_has_it(fields), as_flax_has_it(fields)):
        state_dicts_same(interop.to_torch_state_dict(form, groups), expected)
    counted = interop.to_flax(bare, new.replace(step=jnp.asarray(0, jnp.int32))).step
    assert (counted.dtype, int(counted)) == (jnp.int32, STEP)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_train_state_of_stock_optax_is_read(name):
    theirs = TrainState.create(apply_fn=None, params=PARAMS, tx=optax.chain(optax.clip(1.0), stock(name)()))
    theirs = theirs.replace(opt_state=coded(name, theirs.opt_state), step=STEP)
    told: dict[str, Any] = {"learning_rate": RATE} if name == "rmsprop" else {}
    for form in (theirs, as_flax_has_it({"step": STEP, "params": PARAMS, "opt_state": theirs.opt_state})):
        found = interop.from_optax(name, form, PARAMS, **told)
        names_its_parameters(found)
        same(found, coded(name, ours(name)().init(PARAMS)))


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_an_nnx_optimizer_of_stock_optax_is_read(name):
    """Its state has the parameters' tree, variables and all; and what it gives goes on in an Optimizer of ours."""
    model = nnx.Sequential(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), nnx.Linear(3, 3, rngs=nnx.Rngs(1)))
    opt = nnx.Optimizer(model, stock(name)(), wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    leaves, treedef = jax.tree.flatten(params)
    for _ in range(2):
        opt.update(model, treedef.unflatten([jnp.full_like(leaf, 1 + i) for i, leaf in enumerate(leaves)]))
    found = interop.from_optax(name, opt, params)
    assert jax.tree.structure(found) == jax.tree.structure(ours(name)().init(params))
    field, theirs = {"adam": ("exp_avg", lambda state: state[0][0].mu), "sgd": ("momentum_buffer", lambda state: state[0][0].trace)}[name]
    moments = jax.tree.leaves(nnx.as_pure(theirs(opt.opt_state)))
    assert len({float(moment.flat[0]) for moment in map(np.asarray, moments)}) == 4
    for a, b in zip(jax.tree.leaves(nnx.as_pure(getattr(found, field))), moments, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    mine = interop.to_flax(found, nnx.Optimizer(model, ours(name)(), wrt=nnx.Param))
    same(nnx.as_pure(mine.opt_state), nnx.as_pure(found))
    assert int(mine.step.get_value()) == 2


def test_steps_that_a_target_does_not_count_are_given():
    bare = coded("adam", ours("adam")().init(PARAMS))
    new = TrainState.create(apply_fn=None, params=PARAMS, tx=optax.MultiSteps(ours("adam")(), 2).gradient_transformation())
    with pytest.raises(ValueError, match=r"^to_flax: the steps of TrainState are not told by a state at \[7\]; step is needed\."):
        interop.to_flax(bare, new)
    train_state = interop.to_flax(bare, new, step=14)
    assert (train_state.step, int(train_state.opt_state.gradient_step)) == (14, STEP)
    groups = described(PARAMS, ("adam", {"learning_rate": RATE}))
    state_dicts_same(interop.to_torch_state_dict(train_state, groups), interop.to_torch_state_dict(bare, groups))


@pytest.mark.usefixtures("as_users_have_it")
def test_targets_that_do_not_fit_are_refused_and_left_as_they_are():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    params, tx = nnx.state(model, nnx.Param), ours("adam")()
    state = jax.tree.map(lambda x: x + 1, tx.init(params))
    groups = described(params, ("adam", {"learning_rate": RATE}))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tx.init(params)._replace(step=None))._replace(step=state.step)
    other = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    for given, target, message in [
        (
            state,
            nnx.Optimizer(model, optax.adam(RATE), wrt=nnx.Param),
            "wrapped: ScaleByAdamState at 0 is no part of a state of jaxopt_impl",
        ),
        (state, nnx.Optimizer(model, ours("sgd")(), wrt=nnx.Param), r"wrapped: momentum_buffer is of no leaves; bias, kernel in the place"),
        (
            half,
            nnx.Optimizer(model, tx, wrt=nnx.Param),
            "wrapped: exp_avg of leaf bias has dtype bfloat16; the state that goes on has float32",
        ),
        (
            state,
            nnx.Optimizer(other, tx, wrt=nnx.Param),
            r"wrapped: exp_avg of leaf bias has shape \(2,\); the state that goes on has \(3,\)",
        ),
        (state, optax.EmptyState(), "to_flax: a TrainState or an nnx.Optimizer is needed; got EmptyState"),
        (
            optax.EmptyState(),
            nnx.Optimizer(model, tx, wrt=nnx.Param),
            r"wrapped: the place at the root \(bias, kernel\) needs one state; there are none",
        ),
    ]:
        before = jax.tree.map(np.array, nnx.as_pure(getattr(target, "opt_state", ())))
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            interop.to_flax(given, target)
        same(jax.tree.map(np.array, nnx.as_pure(getattr(target, "opt_state", ()))), before)
    opt = interop.to_flax(state, nnx.Optimizer(model, tx, wrt=nnx.Param))
    opt.step.set_value(jnp.asarray(5, jnp.uint32))
    with pytest.raises(ValueError, match=r"^to_torch_state_dict: the count at step stands at 5, the state at opt_state at step 1\."):
        interop.to_torch_state_dict(opt, groups)
    linen = TrainState.create(apply_fn=None, params=PARAMS, tx=tx).replace(step=3)
    with pytest.raises(ValueError, match=r"^to_torch_state_dict: the count at step stands at 3, the state at opt_state at step 0\."):
        interop.to_torch_state_dict(linen, described(PARAMS, ("adam", {"learning_rate": RATE})))


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("around", [around for around in AROUND if around != "inject"])
def test_a_state_of_nnx_variables_stays_one(around):
    """Params of NNX are trees of variables: a state with arrays in their places is refused by the next update."""
    params = nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.Param)
    gradients = jax.tree.map(jnp.ones_like, params)
    stock, here = (AROUND[around](adam) for adam in (optax.adam(RATE), jaxopt_impl.adam(RATE)))
    state = stock.update(gradients, stock.init(params), params)[1]
    found = interop.from_optax("adam", state, params)
    filled, returned = interop.wrapped(found, here.init(params)), interop.to_optax("adam", found, stock.init(params))
    assert jax.tree.structure(filled) == jax.tree.structure(here.init(params))
    assert jax.tree.structure(returned) == jax.tree.structure(state)
    same(returned, state)
    here.update(gradients, filled, params)
