"""A model of Flax goes on with the run of its twin in PyTorch."""

import jax
import matplotlib.image
import numpy as np
import optax
import pytest
import torch
from flax import nnx

import torch_ref
from optparity import interop
from optparity.parity.subnormals import torch_flushing_like_jax
from tools import moving_a_run as moving

from .states import state_dicts_same


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("make", [torch_ref.Adam, torch.optim.Adam], ids=["torch_ref", "torch.optim"])
def test_a_flax_model_goes_on_with_its_torch_twins_run(make):
    """Kernels (in, out) against weights (out, in): weights and Adam's state carried mid-run on the digits.

    Fed the same gradients in a closed loop, JAX and torch_ref differ in no element at any step.
    """
    model = moving.in_torch()
    optimizer = make(model.named_parameters(), lr=3e-3, betas=(0.8, 0.99))
    for step in range(1, 21):
        moving.torch_step(model, optimizer, step)
    _, start = nnx.split(moving.InFlax(nnx.Rngs(1)), nnx.Param)
    params = interop.weights_from_torch(dict(model.named_parameters()), start, **moving.TWIN)
    tx, state, groups = interop.from_torch(optimizer, params, **moving.TWIN)
    assert int(state.step) == 20
    reference = moving.in_torch()
    reference.load_state_dict(model.state_dict())
    exact = torch_ref.Adam(reference.named_parameters())
    exact.load_state_dict(interop.to_torch_state_dict(state, groups))
    update = jax.jit(tx.update)
    with torch_flushing_like_jax():
        for step in range(21, 41):
            moving.torch_step(reference, exact, step)
            theirs = {name: p.grad for name, p in reference.named_parameters()}
            updates, state = update(interop.weights_from_torch(theirs, params, **moving.TWIN), state, params)
            params = optax.apply_updates(params, updates)
            weights = {name: p.detach() for name, p in reference.named_parameters()}
            state_dicts_same(interop.weights_to_torch(params, **moving.TWIN), weights)
            state_dicts_same(interop.to_torch_state_dict(state, groups), exact.state_dict())


@pytest.mark.usefixtures("as_users_have_it")
def test_with_gradients_of_its_own_the_run_goes_on_where_it_was(tmp_path):
    """The losses of both sides are drawn together; where the moments are dropped, the loss jumps."""
    losses = moving.curves(50, 80)
    np.testing.assert_allclose(losses["JAX"], losses["PyTorch"], rtol=1e-3)
    jump = np.array(losses["JAX, moments dropped"]) / losses["PyTorch"]
    assert (jump[:50] == 1).all()
    assert jump[51:61].mean() > 1.3
    moving.draw(losses, 50, tmp_path / "losses.png")
    assert matplotlib.image.imread(tmp_path / "losses.png").shape[1] > 500
