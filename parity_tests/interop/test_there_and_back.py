"""A run carried across goes on with the same bits: PyTorch to JAX, JAX to PyTorch, there and back."""

import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_impl
import torch_ref
from optparity import interop
from optparity.parity.contexts import on_mesh
from optparity.parity.streams import gradients, parameters
from optparity.parity.subnormals import torch_flushing_like_jax
from optparity.parity.torch_side import TorchSide
from optparity.registry import ROWS

from ..sampling import ACCUMULATORS, sampled
from .states import AFTER, BEFORE, PARAMS, SIZES, JaxRun, same_leaves, state_dicts_same

CASES = sampled(
    ((row, dtype) for row in ROWS for dtype in ("float32", "bfloat16") if dtype in row.dtypes),
    lambda row, dtype: dtype == "bfloat16" if row in ACCUMULATORS else dtype == ("float32", "bfloat16")[ROWS.index(row) % 2],
)


@pytest.mark.parametrize(("row", "dtype"), CASES, ids=str)
def test_goes_on_with_the_same_bits(row, dtype):
    """k steps in torch_ref and n more in JAX are k + n steps in torch_ref, the same from JAX to torch, and there and back is equal."""
    params = parameters(SIZES, dtype)
    drawn = list(itertools.islice(gradients("wide", params), BEFORE + AFTER))
    in_jax = JaxRun(row.tx, params)
    with torch_flushing_like_jax():
        whole, other = TorchSide(row.torch, jax.tree.leaves(params)), None
        for t, gradient in enumerate(drawn):
            if t == BEFORE:
                there = dict(zip(params, whole.params(), strict=True))
                imported = interop.from_torch(whole.optimizer, there, step=None if whole.optimizer.has_step else BEFORE)
                state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), whole.optimizer.state_dict())
                carried = JaxRun(imported.tx, there, imported.state)
                other = TorchSide(row.torch, jax.tree.leaves(jax.tree.map(np.array, in_jax.params)))
                groups = interop.describe(params, (row.optimizer, row.arguments), parameters=list(params))
                other.optimizer.load_state_dict(interop.to_torch_state_dict(in_jax.state, groups))
                assert other.optimizer.state_dict()["param_groups"] == whole.optimizer.state_dict()["param_groups"]
            if t < BEFORE:
                in_jax.step(gradient)
            else:
                carried.step(gradient)
                other.step(jax.tree.leaves(gradient))
            whole.step(jax.tree.leaves(gradient))
        same_leaves(carried.params, whole.params())
        same_leaves(dict(zip(params, other.params(), strict=True)), whole.params())
        state_dicts_same(other.optimizer.state_dict()["state"], whole.optimizer.state_dict()["state"])
        state_dicts_same(interop.to_torch_state_dict(carried.state, imported.groups), whole.optimizer.state_dict())


def test_float32_accumulators_of_float32_are_torchs_own():
    arguments = {"learning_rate": 0.1, "accumulator_dtype": jnp.float32}
    groups = interop.describe(PARAMS, ("adam", arguments), parameters=list(PARAMS))
    state = jaxopt_impl.adam(**arguments).init(PARAMS)
    state_dicts_same(interop.to_torch_state_dict(state, groups, like="torch.optim"), interop.to_torch_state_dict(state, groups))


def test_a_state_dict_of_halves_tells_its_accumulators():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    optimizer = torch_ref.Adam([torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))], accumulator_dtype="float32")
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3, dtype=torch.bfloat16)
    optimizer.step()
    imported = interop.from_torch(optimizer.state_dict(), params, optimizer="Adam")
    assert imported.state.exp_avg["w"].dtype == jnp.float32
    assert imported.groups[0].accumulator_dtype == "float32"
    _, state = imported.tx.update(params, imported.state, params)
    assert state.exp_avg["w"].dtype == jnp.float32


def test_both_sides_have_memory_of_their_own():
    """What either side does next in place, its tensor of a learning rate included, the other does not see."""
    weight, rate = torch.nn.Parameter(torch.ones(64, 64)), torch.tensor(0.5)
    optimizer = torch_ref.Adam([("w", weight)], lr=rate)
    weight.grad = torch.ones(64, 64)
    optimizer.step()
    params = interop.weights_from_torch({"w": weight}, {"w": np.zeros((64, 64), np.float32)})
    imported = interop.from_torch(optimizer, params, layouts={"w": None})
    written = interop.to_torch_state_dict(jax.tree.map(np.array, imported.state), imported.groups)
    before = [np.asarray(x).copy() for x in (params["w"], imported.state.exp_avg["w"], written["state"][0]["exp_avg"])]
    in_numpy = jax.tree.map(np.array, imported.state)
    interop.to_torch_state_dict(in_numpy, imported.groups)["state"][0]["exp_avg"].zero_()
    optimizer.step()
    rate.fill_(7.0)
    for now, then in zip((params["w"], imported.state.exp_avg["w"], written["state"][0]["exp_avg"]), before, strict=True):
        np.testing.assert_array_equal(np.asarray(now), then)
    assert in_numpy.exp_avg["w"].all()
    for lr in (imported.groups[0].options["lr"], written["param_groups"][0]["lr"]):
        assert lr == 0.5


def test_state_is_where_its_leaf_is():
    weights = {"spread": torch.ones(16), "whole": torch.ones(7)}
    parameters = [torch.nn.Parameter(weight) for weight in weights.values()]
    optimizer = torch_ref.Adam(zip(weights, parameters, strict=True))
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    start = on_mesh({name: np.zeros(weight.shape, np.float32) for name, weight in weights.items()})
    params = interop.weights_from_torch(weights, start)
    _, state, groups = interop.from_torch(optimizer, params)
    for tree in (params, state.exp_avg, state.exp_avg_sq):
        for path, leaf in tree.items():
            assert leaf.sharding.is_equivalent_to(start[path].sharding, 1), path
    assert not start["spread"].sharding.is_fully_replicated
    assert state.step.sharding.is_fully_replicated
    assert len(state.step.sharding.device_set) == 8
    state_dicts_same(interop.to_torch_state_dict(state, groups), optimizer.state_dict())


def test_reading_needs_no_torch():
    """Tensors are known by what they can do; the package is imported, and reads an array of its own kind, where torch is not there."""
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, optparity.interop as interop\n"
        "group = dict(lr=0.1, momentum=0.0, dampening=0, weight_decay=0, params=[0])\n"
        "given = dict(state={}, param_groups=[group])\n"
        "assert int(interop.from_torch(given, [np.ones(2, np.float32)], optimizer='SGD', step=5).state.step) == 5\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
