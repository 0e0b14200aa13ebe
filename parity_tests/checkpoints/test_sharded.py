"""Checkpoints of state that is spread over devices: written on eight, read on two and on one."""

import itertools

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import torch
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxopt_impl import zero_shardings
from optparity import interop
from optparity.parity.bits import differing
from optparity.parity.streams import gradients, parameters
from optparity.registry import Row

SHAPES = {"embedding": (64, 24), "uneven": (7, 5), "scale": ()}
ROW = Row("adam", "all")
START = parameters(SHAPES, "float32")
FED = list(itertools.islice(gradients("normal", START), 10))


def mesh_of(devices: int) -> Mesh:
    return Mesh(np.array(jax.devices()[:devices]), ("data",))


def spread(tree, devices: int):
    """A tree of parameters and state on so many devices: parameters whole, the state spread."""
    params, state = tree
    mesh = mesh_of(devices)
    return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), params), zero_shardings(params, state, mesh)


def step(params, state, g):
    updates, state = ROW.tx.update(g, state, params)
    return optax.apply_updates(params, updates), state


def walked(params, state, fed, devices: int):
    shardings = spread((params, state), devices)
    params, state = jax.device_put((params, state), shardings)
    advance = jax.jit(step, out_shardings=shardings)
    for g in fed:
        params, state = advance(params, state, jax.device_put(g, shardings[0]))
    return params, state


def same(a, b) -> bool:
    return not any(differing(np.asarray(x), np.asarray(y)).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture
def whole_way():
    return walked(START, ROW.tx.init(START), FED, 1)


@pytest.mark.parametrize("devices", [2, 1])
def test_orbax_restores_on_another_number_of_devices(devices, whole_way, tmp_path):
    """And goes on with the bits of a run that never stopped."""
    before = walked(START, ROW.tx.init(START), FED[:5], 8)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "step", before)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), before)
    target = jax.tree.map(lambda x, to: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=to), shapes, spread(shapes, devices))
    with ocp.StandardCheckpointer() as checkpointer:
        params, state = checkpointer.restore(tmp_path / "step", target)
    assert same((params, state), before)
    assert len(state.exp_avg["embedding"].sharding.device_set) == devices
    assert same(walked(params, state, FED[5:], devices), whole_way)


def test_a_sharded_state_goes_to_torch_and_back():
    """Torch's state_dict, from arrays that lie on eight devices, is the one of a single device."""
    params, state = walked(START, ROW.tx.init(START), FED, 8)
    groups = interop.describe(params, (ROW.optimizer, ROW.arguments), parameters=list(START))
    state_dict = interop.to_torch_state_dict(state, groups)
    alone = interop.to_torch_state_dict(walked(START, ROW.tx.init(START), FED, 1)[1], groups)
    assert state_dict["param_groups"] == alone["param_groups"]
    for i, fields in alone["state"].items():
        assert all(torch.equal(state_dict["state"][i][field], value) for field, value in fields.items())
    imported = interop.from_torch(state_dict, START, optimizer="Adam", parameters=list(START))
    assert same(jax.device_put(imported.state, zero_shardings(START, imported.state, mesh_of(8))), state)
