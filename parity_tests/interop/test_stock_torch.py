"""torch.optim's own state: carried whole, gone on with, and written."""

import itertools

import jax
import numpy as np
import pytest
import torch

import torch_ref
from optparity import interop
from optparity.parity.bits import ulp_distance
from optparity.parity.streams import gradients, parameters
from optparity.parity.torch_side import TorchSide
from optparity.registry import OPTIMIZERS, ROWS, Row
from tools.pages import ROOT

from ..sampling import FULL
from .states import AFTER, BEFORE, SIZES, JaxRun, same_leaves, state_dicts_same


@pytest.mark.parametrize(
    ("row", "dtype"),
    [(row, dtype) for row in ROWS if row.stock_torch for dtype in ("float32", "bfloat16") if dtype in row.dtypes],
    ids=str,
)
def test_stock_moments_are_carried_whole(row, dtype):
    """Every configuration of torch.optim: its state is in JAX bit for bit, and back again, param_groups included."""
    params = parameters(SIZES, dtype)
    stock = TorchSide(row.stock_torch, jax.tree.leaves(params))
    for gradient in itertools.islice(gradients("wide", params), BEFORE):
        stock.step(jax.tree.leaves(gradient))
    _, state, groups = interop.from_torch(stock.optimizer, dict(zip(params, stock.params(), strict=True)))
    kept = {field: value for field, value in stock.state().items() if field != "step"}
    assert kept.keys() == {field for field in state._fields if field != "step" and getattr(state, field) is not None}
    for field, arrays in kept.items():
        same_leaves(getattr(state, field), arrays)
    for like in interop.torch_state.LIKE:
        state_dicts_same(interop.to_torch_state_dict(state, groups, like=like), stock.optimizer.state_dict())
    steps = jax.tree.leaves(stock.state().get("step"))
    assert int(state.step) == (int(steps[0]) if steps else int(bool(kept)))


def documented_drift(optimizer, dtype):
    """The largest distance in ulp that docs/drift.md has for torch.optim's for-loop."""
    page = (ROOT / "docs" / "drift.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith(f"| `{optimizer}` (") and f"| {dtype} |" in line]
    return float(line.split("|")[3].split(",")[1].removesuffix(" ulp "))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [name for name, entry in OPTIMIZERS.items() if entry.stock_torch])
def test_after_stock_the_next_steps_drift_no_further_than_documented(name, dtype):
    row, params = Row(name, OPTIMIZERS[name].drift_row), parameters({"w": (1003,)}, dtype)
    assert row.stock_torch is not None
    drawn = list(itertools.islice(gradients("normal", params), BEFORE + AFTER))
    stock = TorchSide(row.stock_torch, jax.tree.leaves(params))
    for gradient in drawn[:BEFORE]:
        stock.step(jax.tree.leaves(gradient))
    imported = interop.from_torch(stock.optimizer, {"w": stock.params()[0]})
    carried = JaxRun(imported.tx, {"w": stock.params()[0]}, imported.state)
    for gradient in drawn[BEFORE:]:
        stock.step(jax.tree.leaves(gradient))
        carried.step(gradient)
    ulp = ulp_distance(np.asarray(carried.params["w"]), stock.params()[0])
    assert ulp.max() <= documented_drift(name, dtype)
    assert np.median(ulp) <= 1


@pytest.mark.parametrize("row", [row for row in FULL if row.exchanges_state], ids=str)
def test_a_run_born_in_jax_goes_on_in_torch_optim(row):
    params = parameters(SIZES, "float32")
    run = JaxRun(row.tx, params)
    drawn = list(itertools.islice(gradients("normal", params), BEFORE + AFTER))
    for gradient in drawn[:BEFORE]:
        run.step(gradient)
    make = getattr(torch.optim, row.entry.stock_torch.name)
    stock = TorchSide(lambda weights: make(weights, lr=1.0), [np.array(leaf) for leaf in jax.tree.leaves(run.params)])
    groups = interop.describe(params, (row.optimizer, row.arguments), parameters=list(params))
    stock.optimizer.load_state_dict(interop.to_torch_state_dict(run.state, groups, like="torch.optim"))
    for gradient in drawn[BEFORE:]:
        run.step(gradient)
        stock.step(jax.tree.leaves(gradient))
    for ours, theirs in zip(jax.tree.leaves(run.params), stock.params(), strict=True):
        np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-5, atol=1e-5)


def test_stock_adagrads_eps_is_outside_the_root():
    params = {"w": np.ones(3, np.float32)}
    for optimizer, inside in ((torch.optim.Adagrad, False), (torch_ref.AdaGrad, True)):
        tx, state, _ = interop.from_torch(optimizer([torch.nn.Parameter(torch.ones(3))], lr=1.0, eps=0.25), params)
        updates, _ = tx.update({"w": np.full(3, 2.0, np.float32)}, state)
        expected = -np.float32(2) / (np.sqrt(np.float32(4.25)) if inside else np.float32(2.25))
        np.testing.assert_array_equal(np.asarray(updates["w"]), np.full(3, expected))


def test_old_checkpoints_count_in_numbers():
    """torch before 1.12 had `step` as an int, and no flags in its groups."""
    group = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "params": [0]}
    old = {"state": {0: {"step": 7, "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}}, "param_groups": [group]}
    imported = interop.from_torch(old, {"w": np.ones(2, np.float32)}, optimizer="Adam")
    assert int(imported.state.step) == 7
    state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), old)
