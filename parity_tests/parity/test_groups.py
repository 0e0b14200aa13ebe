"""Groups of parameters against partitions, and what counts their steps."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_impl
import torch_ref
from optparity._arrays import to_numpy
from optparity.parity.bits import differing
from optparity.parity.streams import gradients, parameters
from optparity.registry import DTYPES, OPTIMIZERS

from .. import assert_identical
from ..sampling import sampled


@pytest.mark.parametrize(
    ("context", "dtype"),
    sampled(product(["train_step", "scan", "eager"], DTYPES), lambda context, dtype: context == "train_step" or dtype == "float32"),
)
def test_groups_are_partitions(context, dtype):
    """Three groups that differ in lr, weight decay and flags, and a fourth that is frozen, against optax.partition."""
    params = parameters({"frozen": (5,), "first": (257,), "second": (3, 7), "third": (11,)}, dtype)
    settings = {
        "first": {"learning_rate": 0.1, "weight_decay": 0.01, "amsgrad": True, "eps": 1e-3},
        "second": {"learning_rate": 0.01, "weight_decay": 0.0, "maximize": True, "eps": 1e-3},
        "third": {"learning_rate": 0.001, "weight_decay": 0.1, "b1": 0.5, "eps": 1e-3},
    }
    tx = optax.partition(
        {"frozen": optax.set_to_zero(), **{name: jaxopt_impl.adam(**given) for name, given in settings.items()}},
        {name: name for name in params},
    )

    def make(leaves):
        by_name = dict(zip(sorted(params), leaves, strict=True))  # the order of jax.tree.leaves
        groups = [{"params": [by_name[name]], **OPTIMIZERS["adam"].in_torch(given)} for name, given in settings.items()]
        return torch_ref.Adam(groups)

    report = assert_identical(tx, make, params, gradients("normal", params), steps=20, context=context)
    assert {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"} <= set(report.compared)


def test_one_counter_or_one_per_parameter():
    """Documented: a leaf that misses its first gradient has its first step later in torch, and never in optax's counting."""
    tx = jaxopt_impl.sgd(0.1, momentum=0.9, dampening=0.5)
    p = {"a": jnp.ones(1), "b": jnp.ones(1)}
    state = tx.init(p)
    a, b = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    optimizer = torch_ref.SGD([a, b], lr=0.1, momentum=0.9, dampening=0.5)
    for g in ({"a": jnp.ones(1), "b": None}, {"a": jnp.ones(1), "b": jnp.ones(1)}):
        u, state = tx.update(g, state, p)
        p = optax.apply_updates(p, jax.tree.map(lambda x: jnp.zeros(1) if x is None else x, u, is_leaf=lambda x: x is None))
        a.grad, b.grad = (None if g[name] is None else torch.ones(1) for name in ("a", "b"))
        optimizer.step()
    assert not differing(np.asarray(p["a"]), to_numpy(a.detach())).any()
    np.testing.assert_allclose([np.asarray(p["b"]).item(), b.item()], [1 - 0.05, 1 - 0.1], rtol=1e-6)
