"""Runs to carry across, states to alter, and how two of them are compared."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from optparity._arrays import to_numpy
from optparity.parity.bits import differing

SIZES = {"b": (3,), "w": (5, 7)}


BEFORE, AFTER = 3, 4


PARAMS = {"a": np.ones(3, np.float32), "b": np.ones((2, 3), np.float32)}


def state_dicts_same(a, b):
    """Every bit, every key, every kind of number; tensors by dtype as well."""
    assert type(a) is type(b), (a, b)
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert not differing(to_numpy(a), to_numpy(b)).any()
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            state_dicts_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            state_dicts_same(x, y)
    else:
        assert a == b or (a != a and b != b)


def same_leaves(params, expected):
    for name, a, b in zip(params, jax.tree.leaves(params), expected, strict=True):
        assert not differing(np.asarray(a), b).any(), name


class JaxRun:
    def __init__(self, tx, params, state=None):
        self.params = jax.tree.map(jnp.array, params)
        self.state = tx.init(self.params) if state is None else state
        self._update = jax.jit(tx.update)

    def step(self, gradient):
        updates, self.state = self._update(jax.tree.map(jnp.array, gradient), self.state, self.params)
        self.params = optax.apply_updates(self.params, updates)


def altered(tree, changes):
    """A tree of dicts and lists with changes at a__0__b; a change to None removes."""
    for where, value in changes.items():
        *path, last = (int(key) if key.isdecimal() else key for key in where.split("__"))
        at = tree
        for key in path:
            at = at[key]
        if value is None:
            del at[last]
        else:
            at[last] = value
    return tree


def adam_state_dict(**changes):
    """A good state_dict of Adam over a (3) and b (2, 3), with changes."""
    state = {
        i: {"step": torch.tensor(3.0), "exp_avg": torch.ones(shape), "exp_avg_sq": torch.ones(shape)}
        for i, shape in enumerate([(3,), (2, 3)])
    }
    group = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "params": [0, 1]}
    given = {"state": state, "param_groups": [group]}
    return altered(given, changes)


def sgd_state_dict(momentum=0.9, **group):
    group = {"lr": 0.1, "momentum": momentum, "dampening": 0, "weight_decay": 0, "params": [0], **group}
    return {"state": {0: {"momentum_buffer": torch.ones(3)}} if momentum else {}, "param_groups": [group]}
