"""Gradients that are None: always, as those of a frozen layer, or now and then."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_impl
import torch_ref
from jaxopt_impl.applied import apply_updates
from optparity._arrays import to_numpy
from optparity.parity.bits import differing
from optparity.parity.contexts import CONTEXTS
from optparity.parity.streams import gradients, parameters
from optparity.registry import OPTIMIZERS, Row

from .. import assert_identical, compare
from ..sampling import FULL, sampled

SHAPES = {"a": (16,), "frozen": (8, 3), "z": (5,)}


def fed(steps=10, without=lambda step: ("frozen",)):
    """Parameters, and gradients that leave some out at each step."""
    params = parameters(SHAPES, "float32")
    drawn = [g for g, _ in zip(gradients("normal", params), range(steps), strict=False)]
    return params, [{name: None if name in without(t) else g[name] for name in g} for t, g in enumerate(drawn, 1)]


@pytest.mark.parametrize(
    ("row", "context"),
    sampled(
        [(row, context) for row in FULL for context in CONTEXTS],
        lambda row, context: FULL.index(row) % 3 == list(CONTEXTS).index(context) % 3,
    ),
    ids=str,
)
def test_a_frozen_layer_is_compared_in_every_context(row, context):
    """It stays as it is on both sides, and so does its state, which torch does not even begin."""
    params, drawn = fed()
    report = assert_identical(row.tx, row.torch, params, drawn, context=context)
    started = row.tx.init({name: np.zeros(shape, "f4") for name, shape in SHAPES.items()})._asdict()
    uncounted = set() if row.entry.has_step else {"step"}
    assert set(report.compared) == {"params", *(field for field, value in started.items() if value is not None)} - uncounted
    lanes = 2 if context == "vmap" else 1
    size, kept = sum(np.prod(shape) for shape in SHAPES.values()), len(report.compared) - 1 - row.entry.has_step
    counters = 2 if row.entry.has_step else 0  # of those that have had every gradient
    assert report.elements == lanes * (size * (1 + kept) + counters)


def moved(tx, leaf):
    """The transform, but that it moves one leaf of its state or of its updates, whose gradient is None."""

    def update(updates, state, params=None):
        u, after = tx.update(updates, state, params)
        if leaf == "params":
            return {**u, "frozen": jnp.full((8, 3), 1e-3)}, after
        return u, after._replace(exp_avg={**after.exp_avg, "frozen": after.exp_avg["frozen"] + 1e-3})

    return optax.GradientTransformation(tx.init, update)


@pytest.mark.parametrize(("leaf", "named"), [("params", "params['frozen']"), ("state", "exp_avg['frozen']")])
def test_a_frozen_layer_that_moves_is_seen(leaf, named):
    params, drawn = fed()
    report = compare(moved(jaxopt_impl.adam(0.1), leaf), lambda ps: torch_ref.Adam(ps, lr=0.1), params, drawn)
    assert report.first_difference.step == 1
    assert report.first_difference.leaf == named


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("context", ["jit", "scan"])
def test_a_gradient_that_is_none_now_and_then(name, context):
    """Where no rule asks for the step, both sides are the same; where one does, they part at the first step after the gap, documented."""
    row = Row(name, "default")
    params, drawn = fed(without=lambda t: ("frozen",) if t in (2, 5) else ())
    report = compare(row.tx, row.torch, params, drawn, context=context)
    if name in ("adam", "adamw"):
        assert (report.first_difference.step, report.first_difference.leaf) == (3, "params['frozen']")
        assert report.identical is False
    else:
        assert report.identical


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_in_which_nobody_has_a_gradient_is_none(name):
    """It is not counted, as PyTorch's is not: the next steps have the bits of both."""
    row = Row(name, "all")
    params, drawn = fed(without=lambda t: SHAPES if t in (1, 4) else ())
    p, state, update = params, row.tx.init(params), jax.jit(row.tx.update)
    q = {name: torch.nn.Parameter(torch.tensor(x)) for name, x in params.items()}
    optimizer = row.torch(list(q.values()))
    for g in drawn:
        u, state = update(g, state, p)
        p = apply_updates(p, u)
        for key, parameter in q.items():
            parameter.grad = None if g[key] is None else torch.tensor(g[key])
        optimizer.step()
        assert not any(differing(np.asarray(p[key]), to_numpy(q[key].detach())).any() for key in SHAPES)
    assert int(state.step) == 8


def test_what_to_use_in_the_place_of_apply_updates():
    """optax's own takes no None; where there is none, both make the same bits."""
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    updates: dict[str, Any] = {"a": jnp.ones(2), "b": None}
    with pytest.raises(TypeError, match="unsupported operand"):
        optax.apply_updates(params, updates)
    after = apply_updates(params, updates)
    assert after["a"].tolist() == [2, 2]
    assert after["b"] is params["b"]
    both = jax.jit(apply_updates).lower(params, params).as_text(), jax.jit(optax.apply_updates).lower(params, params).as_text()
    assert both[0] == both[1]
