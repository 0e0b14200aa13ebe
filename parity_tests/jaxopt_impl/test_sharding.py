"""Optimizer state spread over devices: the bits of one device, a share of its memory, and nothing to send."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxopt_impl import adam, recipe, zero_shardings
from optparity.parity.bits import differing
from optparity.parity.streams import gradients, parameters
from optparity.registry import ROWS

from ..sampling import FULL, sampled

SHAPES = {"embedding": (64, 24), "kernel": (24, 16), "uneven": (7, 5), "bias": (16,), "scale": ()}
COLLECTIVES = re.compile(r"\b(all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all|collective-broadcast)\b")


@pytest.fixture
def mesh():
    return Mesh(np.array(jax.devices()[:8]), ("data",))


def specs(shardings):
    return jax.tree.map(lambda sharding: tuple(sharding.spec), shardings)


def bytes_on_each_device(tree) -> list[int]:
    held = dict.fromkeys(jax.devices()[:8], 0)
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            held[shard.device] += shard.data.nbytes
    return list(held.values())


def test_the_longest_dimension_that_divides(mesh):
    state = adam(0.1).init(parameters(SHAPES, "float32"))
    found = specs(zero_shardings(parameters(SHAPES, "float32"), state, mesh))
    expected = {"embedding": ("data",), "kernel": ("data",), "uneven": (), "bias": ("data",), "scale": ()}
    assert found.exp_avg == found.exp_avg_sq == expected
    assert found.step == ()


def test_axes_that_a_parameter_has_are_kept(mesh):
    """Tensor parallelism beside it, and a parameter that lies on the data axis already, as under FSDP."""
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("data", "model"))
    put = lambda shape, *spec: jax.device_put(jnp.zeros(shape), NamedSharding(mesh, PartitionSpec(*spec)))  # noqa: E731
    params = {"columns": put((8, 16), None, "model"), "rows": put((16, 8), ("model",)), "fsdp": put((4, 12), "data"), "none": put((2, 6))}
    found = specs(zero_shardings(params, adam(0.1).init(params), mesh))
    assert found.exp_avg == {"columns": ("data", "model"), "rows": ("model", "data"), "fsdp": ("data",), "none": ()}


def test_states_of_optax_and_chains(mesh):
    params = parameters(SHAPES, "float32")
    for tx in (optax.adamw(0.1), optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 2).gradient_transformation(), recipe(0.1, 10)):
        state = jax.eval_shape(tx.init, params)
        found = zero_shardings(params, state, mesh)
        assert jax.tree.structure(found) == jax.tree.structure(state)
        for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(found), strict=True):
            assert (tuple(sharding.spec) == ()) == (leaf.shape in ((), (7, 5)))


def test_an_axis_that_is_not_there(mesh):
    with pytest.raises(ValueError, match=r"^zero_shardings: the mesh has no axis 'x'; one of 'data' is needed\.$"):
        zero_shardings({}, {}, mesh, "x")


def compiled(function, *arguments) -> str:
    text = function.lower(*arguments).compile().as_text()
    assert text
    return text


CASES = [(row, dtype) for row in ROWS for dtype in row.dtypes]


@pytest.mark.parametrize(
    ("row", "dtype"), sampled(CASES, lambda row, dtype: row in FULL and row.optimizer in ("adam", "sgd") and dtype == "float32"), ids=str
)
def test_sharded_state_has_the_bits_of_one_device(row, dtype, mesh):
    """ZeRO-1: parameters whole on every device, state spread; an eighth of its bytes on each, and no collective before the update."""
    with jax.enable_x64(dtype == "float64"):
        start, tx = parameters(SHAPES, dtype), row.tx
        fed = list(itertools.islice(gradients("normal", start), 10))

        def step(params, state, g):
            updates, state = tx.update(g, state, params)
            return optax.apply_updates(params, updates), state

        alone, its = jax.tree.map(jnp.array, start), tx.init(start)
        shardings = zero_shardings(start, its, mesh)
        whole = NamedSharding(mesh, PartitionSpec())
        params, state = jax.device_put(start, whole), jax.device_put(its, shardings)
        spread = jax.jit(step, out_shardings=(whole, shardings))
        for g in fed:
            alone, its = jax.jit(step)(alone, its, g)
            params, state = spread(params, state, jax.device_put(g, whole))
        for a, b in zip(jax.tree.leaves((params, state)), jax.tree.leaves((alone, its)), strict=True):
            assert not differing(np.asarray(a), np.asarray(b)).any()
        small = sum(x.nbytes for x in jax.tree.leaves(its) if x.ndim == 0 or x.shape == (7, 5))
        total = sum(x.nbytes for x in jax.tree.leaves(its))
        assert bytes_on_each_device(state) == [(total - small) // 8 + small] * 8

        everything = zero_shardings(start, start, mesh)
        update = jax.jit(tx.update, in_shardings=(everything, shardings, everything), out_shardings=(everything, shardings))
        assert not COLLECTIVES.search(compiled(update, fed[0], its, start))
        if total > small:  # then the parameters are gathered after it: the pattern finds what it looks for
            assert COLLECTIVES.search(compiled(spread, params, state, fed[0]))
