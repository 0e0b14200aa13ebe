"""Packed leaves: the same bits as leaf by leaf, there and back, and inside a training step."""

import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding

from jaxopt_impl import pack, unpack
from jaxopt_impl.packing import Packed
from optparity.parity.bits import differing
from optparity.parity.contexts import on_mesh
from optparity.registry import ROWS, Row

from ..sampling import ACCUMULATORS, FULL, sampled
from .trees import same

ADAM = Row("adam", "all")


def params():
    rng = np.random.default_rng(0)
    x = lambda dtype, *shape: jnp.asarray(rng.standard_normal(shape), dtype)  # noqa: E731
    return {
        "a": (x("float32", 3, 4), None),
        "b": [x("float32"), jnp.zeros((0, 2)), x("bfloat16", 5)],
        "large": x("float32", 50, 50),
        "c": {},
        "d": x("float32", 7),
    }


def test_there_and_back():
    packed = pack(params())
    assert {dtype: flat.shape for dtype, flat in packed.flat.items()} == {"float32": (20,), "bfloat16": (5,)}
    assert [leaf.shape for leaf in packed.kept] == [(50, 50)]
    same(unpack(packed), params())
    same(jax.jit(lambda tree: unpack(pack(tree)))(params()), params())
    assert not pack(params(), below=0).flat
    assert not pack(params(), below=2501).kept


@pytest.mark.parametrize("row", sampled(zip(ROWS), lambda row: row in (*FULL, ACCUMULATORS[0])), ids=str)
def test_a_packed_training_step_has_the_same_bits(row):
    """Gradients of the packed loss, update, and parameters, with the state taken apart and packed again in the middle."""
    start = params()
    target = jax.tree.map(lambda p: p + jnp.asarray(1, p.dtype), start)

    def train_step(tree, state):
        def loss(tree):
            squares = jax.tree.map(lambda p, t: ((p - t) ** 2).astype("float32").sum(), unpack(tree), target)
            return sum(jax.tree.leaves(squares))

        updates, state = row.tx.update(jax.grad(loss)(tree), state, tree)
        return optax.apply_updates(tree, updates), state

    packed, leaves = pack(start), start
    packed_state, state = row.tx.init(packed), row.tx.init(leaves)
    step = jax.jit(train_step)
    for t in range(4):
        packed, packed_state = step(packed, packed_state)
        leaves, state = step(leaves, state)
        same(unpack(packed), leaves)
        same(unpack(packed_state), state)
        if t == 1 and any(isinstance(field, Packed) for field in packed_state):
            packed_state = pack(unpack(packed_state), like=packed)
    assert differing(np.asarray(leaves["large"]), np.asarray(start["large"])).any()
    assert step._cache_size() == 2


def test_gradients_are_packed_as_their_parameters_are():
    packed = pack(params())
    gradients = jax.tree.map(lambda p: p.astype("float32") * 2, params())
    like = pack(gradients, like=packed)
    assert jax.tree.structure(like) == jax.tree.structure(packed)
    assert like.flat["bfloat16"].dtype == jnp.float32
    same(unpack(like), gradients)


def test_a_step_counter_is_no_parameter():
    """Though parameters that are one number have its structure and shape."""
    tx, p = ADAM.tx, jnp.float32(2.0)
    state = pack(tx.init(p), like=pack(p))
    assert state.step.dtype == jnp.int32
    same(state, tx.init(pack(p)))


def test_integers_of_the_parameters_shapes_are_packed_as_they_are():
    like = pack({"w": jnp.ones((2, 3)), "b": jnp.ones(3)})
    signs = {"w": jnp.ones((2, 3), jnp.int8), "b": jnp.zeros(3, jnp.int8)}
    packed = pack((signs, jnp.zeros((), jnp.int32)), like=like)
    assert packed[0].flat["float32"].dtype == jnp.int8
    same(unpack(packed)[0], signs)


def test_a_layout_is_the_same_in_another_process():
    layout = pack(params()).layout
    code = "import pickle, sys; x = pickle.load(sys.stdin.buffer); assert {x: 0}[type(x)(x.treedef, x.shapes, x.dtypes)] == 0"
    hash(layout)
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(layout), check=True)


def test_optax_flatten_has_the_same_bits():
    """The way that asks no change of the loss."""
    p = {"a": jnp.linspace(-1, 1, 12).reshape(3, 4), "b": jnp.linspace(1, 2, 5)}
    flat = optax.flatten(ADAM.tx)
    u, _ = jax.jit(ADAM.tx.update)(p, ADAM.tx.init(p), p)
    v, _ = jax.jit(flat.update)(p, flat.init(p), p)
    same(u, v)


def test_an_axis_in_front_stays_in_front():
    lanes = jax.tree.map(lambda p: jnp.stack([p, p]), params())
    same(unpack(jax.vmap(pack)(lanes)), lanes)


def test_sharded_leaves_are_kept():
    placed = on_mesh({"spread": np.ones(1000, "f4"), "whole": np.ones(7, "f4")})
    packed = pack(placed)
    assert [leaf.shape for leaf in packed.kept] == [(1000,)]
    assert isinstance(packed.kept[0].sharding, NamedSharding)
    assert not packed.kept[0].sharding.is_fully_replicated


def test_what_cannot_be_packed_is_named():
    with pytest.raises(TypeError, match=r"pack: leaf params\['a'\] is a str; an array is needed"):
        pack({"a": "text"})
    with pytest.raises(ValueError, match="pack: no part of the tree has the structure and shapes"):
        pack({"a": jnp.ones(3)}, like=pack({"a": jnp.ones(4)}))
    with pytest.raises(TypeError, match="pack: the leaves packed as float32 have dtypes bfloat16, float32; one dtype is needed"):
        pack({"a": jnp.ones(3), "b": jnp.ones(3, "bfloat16")}, like=pack({"a": jnp.ones(3), "b": jnp.ones(3)}))
