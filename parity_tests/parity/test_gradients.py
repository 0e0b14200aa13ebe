"""Gradients that are scaled, skipped or accumulated before the optimizer has them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from optparity._arrays import to_numpy, to_torch
from optparity.parity.bits import differing
from optparity.parity.streams import gradients, parameters
from optparity.parity.subnormals import torch_flushing_like_jax
from optparity.registry import OPTIMIZERS, Row


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_scaler_that_skips_a_step_is_apply_if_finite(name):
    """torch.amp.GradScaler skips a step whose gradients overflow; so does optax.apply_if_finite: neither counts it."""
    row = Row(name, "all")
    params = parameters({"w": (257,)}, "float32")
    drawn = [g["w"] for g, _ in zip(gradients("normal", params), range(8), strict=False)]
    drawn[3][5], drawn[6][7] = np.inf, np.nan
    tx = optax.apply_if_finite(row.tx, max_consecutive_errors=100)
    x, state = jnp.asarray(params["w"]), tx.init(jnp.asarray(params["w"]))
    y = torch.nn.Parameter(to_torch(params["w"], copy=True))
    optimizer = row.torch([y])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6)
    update = jax.jit(tx.update)
    for g in drawn:
        u, state = update(jnp.asarray(g), state, x)
        x = optax.apply_updates(x, u)
        scale = scaler.get_scale() if scaler._scale is not None else 2.0**10
        y.grad = to_torch(g, copy=True) * scale  # a power of two: unscaled to the same bits
        scaler.scale(torch.ones(()))
        scaler.step(optimizer)
        scaler.update()
        assert not differing(np.asarray(x), to_numpy(y.detach())).any()
    assert int(state.total_notfinite) == 2
    assert int(state.inner_state.step) == 6


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_accumulated_gradients(name):
    """optax.MultiSteps averages (in a running mean of its own rounding); torch sums. Of two equal halves both make the same bits; of
    others, torch must be given the mean that MultiSteps computed: the frameworks accumulate differently, the rules do not.
    """
    row = Row(name, "all")
    params = parameters({"w": (257,)}, "float32")
    tx = optax.MultiSteps(row.tx, 2)
    x, state = jnp.asarray(params["w"]), tx.init(jnp.asarray(params["w"]))
    y = torch.nn.Parameter(to_torch(params["w"], copy=True))
    optimizer = row.torch([y])
    with jax.numpy_dtype_promotion("standard"), torch_flushing_like_jax():
        update = jax.jit(tx.update)
        for g, _ in zip(gradients("normal", params), range(6), strict=False):
            for _ in range(2):
                u, state = update(jnp.asarray(g["w"]), state, x)
                x = optax.apply_updates(x, u)
            y.grad = to_torch(g["w"], copy=True) / 2 + to_torch(g["w"], copy=True) / 2
            optimizer.step()
            assert not differing(np.asarray(x), to_numpy(y.detach())).any()
