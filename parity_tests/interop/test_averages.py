"""An average of the parameters goes on in the other framework, with the same bits."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn
from torch.optim import swa_utils

import torch_ref
from jaxopt_impl import averaged, params_ema, params_swa, sgd
from optparity.interop import Matching, average_from_torch, average_to_torch, weights_from_torch
from optparity.parity.bits import differing

PARAMS: Any = {"norm": {"bias": jnp.zeros(2), "scale": jnp.ones(2)}, "hidden": {"bias": jnp.zeros(2), "kernel": jnp.zeros((3, 2))}}


class Model(nn.Module):
    """The same in torch: another order, other names, a transposed kernel, and buffers."""

    def __init__(self):
        super().__init__()
        self.hidden, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)


def moved(model, by):
    """The model after a step that adds so much."""
    with torch.no_grad():
        for p in model.parameters():
            p += by
    return model


def same_as(model, params, matching):
    """The leaves are the parameters of a torch model."""
    for a, b in zip(jax.tree.leaves(weights_from_torch(model, params, matching=matching)), jax.tree.leaves(params), strict=True):
        assert not differing(np.asarray(a), np.asarray(b)).any()


KINDS = {
    "stock EMA": (params_ema(0.9), lambda m: swa_utils.AveragedModel(m, avg_fn=swa_utils.get_ema_avg_fn(0.9))),
    "EMA": (params_ema(0.9), lambda m: torch_ref.AveragedModel(m, decay=0.9)),
    "optax": (params_ema(0.9, form="optax"), lambda m: torch_ref.AveragedModel(m, decay=0.9, form="optax")),
    "SWA": (params_swa(), torch_ref.AveragedModel),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_average_goes_on_in_the_other(kind):
    """From torch to JAX, a step in both, and back to torch."""
    tx, make = KINDS[kind]
    torch.manual_seed(0)
    model = Model()
    theirs = make(model)
    for _ in range(3):
        theirs.update_parameters(moved(model, 0.3))
    matching = Matching(PARAMS, model)
    params = weights_from_torch(model, PARAMS, matching=matching)
    chain = optax.chain(sgd(0.1), tx)
    state = average_from_torch(theirs, chain.init(PARAMS), matching=matching)

    _, after = jax.jit(chain.update)(jax.tree.map(jnp.zeros_like, params), state, params)
    own = after[1]
    theirs.update_parameters(model)
    same_as(theirs.module, own.average if own.biased_average is None else own.biased_average, matching)
    assert int(own.n_averaged) == 4

    back = make(Model())
    missing, unexpected = back.load_state_dict(average_to_torch(after, matching=matching), strict=False)
    assert not unexpected
    assert all("norm" in name for name in missing)  # buffers
    same_as(back.module, own.average if own.biased_average is None else own.biased_average, matching)
    assert int(back.n_averaged) == 4


def test_a_state_dict_goes_as_its_model_does():
    model = Model()
    theirs = torch_ref.AveragedModel(moved(model, 0.7))
    theirs.update_parameters(model)
    matching, state = Matching(PARAMS, model), params_swa(every=2).init(PARAMS)
    ways = [average_from_torch(given, state, matching=matching) for given in (theirs, theirs.state_dict())]
    jax.tree.map(np.testing.assert_array_equal, *ways)
    same_as(model, averaged(ways[1]), matching)


REFUSED = {
    "no average": (
        *(lambda: torch_ref.AveragedModel(Model()), sgd(0.1)),
        "average_from_torch: one state of params_ema or params_swa is needed; got 0.",
    ),
    "two averages": (
        *(lambda: torch_ref.AveragedModel(Model()), optax.chain(params_swa(), params_ema())),
        "average_from_torch: one state of params_ema or params_swa is needed; got 2.",
    ),
    "another form": (
        *(lambda: swa_utils.AveragedModel(Model()), params_ema(form="optax")),
        "average_from_torch: the state holds a biased_average, the AveragedModel another form; the same form is needed on both sides.",
    ),
    "a model's state_dict": (
        *(lambda: Model().state_dict(), params_swa()),
        "average_from_torch: there is no n_averaged; the state_dict of an AveragedModel is needed.",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_carry_over_is_refused(what):
    make, tx, message = REFUSED[what]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        average_from_torch(make(), tx.init(PARAMS))
