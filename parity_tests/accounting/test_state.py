"""The optimizer's state, in bytes."""

import jax
import jax.numpy as jnp
import optax
import pytest
import torch
from torch import nn

from optparity.accounting import (
    Cruncher,
    Setup,
    estimate,
)
from optparity.accounting.state import state
from optparity.registry import ROWS

from .models import by_dtype

STATE_LEAVES = {"w": (3, 4), "b": (5,), "scale": ()}


@pytest.mark.parametrize(("row", "dtype"), [(row, dtype) for row in ROWS for dtype in row.dtypes], ids=str)
def test_state_of_every_row(row, dtype):
    """Estimated and measured bytes, by dtype, after a step in PyTorch and as initialised in JAX: ours and torch.optim's."""
    shapes = {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in STATE_LEAVES.items()}
    options = {name: value for name, value in row.arguments.items() if name != "learning_rate"}
    in_jax = row.tx.init({name: jnp.ones(shape, dtype) for name, shape in STATE_LEAVES.items()})
    assert state(row.optimizer, shapes, **options).bytes == by_dtype(jax.tree.leaves(in_jax))
    assert state(row.tx, shapes).bytes == by_dtype(jax.tree.leaves(in_jax))
    ours = state(row.optimizer, shapes, "torch", **options).bytes
    stock = None if "accumulator_dtype" in options else row.stock_torch
    for make in (row.torch, *([stock] if stock else [])):
        parameters = [nn.Parameter(torch.ones(shape, dtype=getattr(torch, dtype))) for shape in STATE_LEAVES.values()]
        optimizer = make(parameters)
        for p in parameters:
            p.grad = torch.ones_like(p)
        optimizer.step()
        kept = [value for one in optimizer.state_dict()["state"].values() for value in one.values() if isinstance(value, torch.Tensor)]
        assert ours == by_dtype(kept)


def test_state_of_float64_without_x64():
    """JAX would have halved it."""
    assert not jax.config.jax_enable_x64
    assert state("adam", jax.ShapeDtypeStruct((3, 4), "float64")).bytes == {"float64": 192, "int32": 4}
    assert estimate(Cruncher(4, 2), 2, setup=Setup(dtype="float64", framework="jax")).memory[0].total == 2 * 640


def test_state_of_any_optax_transform():
    params = {"w": jnp.ones((3, 4)), "b": jnp.ones(5)}
    for tx in (optax.lion(0.1), optax.chain(optax.clip(1.0), optax.adam(0.1)), optax.inject_hyperparams(optax.adamw)(learning_rate=0.1)):
        assert state(tx, params).bytes == by_dtype(jax.tree.leaves(tx.init(params)))
    with pytest.raises(ValueError, match=r"^accounting: PyTorch's layout is known for a name"):
        state(optax.lion(0.1), params, "torch")
