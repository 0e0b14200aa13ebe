"""Float32 gradients of bfloat16 and float16 parameters, with a float32 accumulator: what a loop that accumulates in float32 has."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_impl
from optparity._arrays import to_torch
from optparity.parity.bits import differing
from optparity.parity.contexts import CONTEXTS
from optparity.parity.jax_side import JaxSide
from optparity.parity.streams import STREAMS, gradients, parameters
from optparity.registry import HALVES, OPTIMIZERS, ROWS, Row

from .. import assert_identical, oracle
from ..sampling import ACCUMULATORS, DEFAULTS, FULL, sampled


def wide(row):
    """The row with its accumulator in float32, in JAX and in PyTorch."""
    arguments = {**row.arguments, "accumulator_dtype": "float32"}
    return row.entry.jax(**arguments), lambda params: row.entry.torch(params, **row.entry.in_torch(arguments))


def fed(dtype, streams=tuple(STREAMS), elements=257, steps=10):
    """Parameters of a half, and gradients in float32 whose bits a half cannot hold: a row for each stream."""
    params = {"w": np.stack([parameters({"w": (elements,)}, dtype)["w"]] * len(streams))}
    drawn = [itertools.islice(gradients(stream, {"w": np.zeros(elements, "f4")}), steps) for stream in streams]
    return params, [{"w": np.stack([g["w"] for g in rows])} for rows in zip(*drawn, strict=True)]


@pytest.mark.parametrize(
    ("row", "dtype"),
    sampled(itertools.product(ROWS, HALVES), lambda row, dtype: row in ACCUMULATORS or HALVES[ROWS.index(row) % 2] == dtype),
    ids=str,
)
def test_no_bit_differs(row, dtype):
    """Every row, in PyTorch with `grad_dtype`: parameters and state at every step."""
    tx, make = wide(row)
    params, drawn = fed(dtype)
    report = assert_identical(tx, make, params, drawn, context="train_step")
    assert report.steps == 10
    state = tx.init(params)
    assert all(leaf.dtype == np.float32 for field, leaf in _arrays(state))
    assert tx.update(drawn[0], state, params)[0]["w"].dtype == params["w"].dtype


def _arrays(state):
    return [(field, value["w"]) for field, value in state._asdict().items() if field != "step" and value is not None]


@pytest.mark.parametrize(
    ("row", "context"),
    sampled(itertools.product(FULL, sorted(CONTEXTS)), lambda row, context: (FULL.index(row) - sorted(CONTEXTS).index(context)) % 9 == 0),
    ids=str,
)
def test_in_every_context(row, context):
    tx, make = wide(row)
    dtype = HALVES[FULL.index(row) % 2]
    params = parameters({"w": (80,), "v": (8, 3)}, dtype)
    like = {name: np.zeros(leaf.shape, "f4") for name, leaf in params.items()}
    assert_identical(tx, make, params, gradients("normal", like), steps=10, context=context)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("row", ACCUMULATORS, ids=str)
def test_the_bits_are_the_oracles(row, dtype):
    params, drawn = fed(dtype, ("normal",), elements=13)
    start, gs = params["w"][0], [g["w"][0] for g in drawn]
    assert any((g.astype(start.dtype).astype("f4") != g).all() for g in gs)
    expected = oracle.walk(oracle.Rounded, row.optimizer, row.arguments, start, gs)
    side = JaxSide(row.tx, {"w": start}, CONTEXTS["jit"])
    for g, (right, _) in zip(gs, expected, strict=True):
        ((got, _),) = side.steps([{"w": g}])[0]
        assert not differing(got["w"], oracle.to_numpy(right, start.dtype)).any()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_half_gradient_has_the_bits_that_it_had(name):
    """Widened by hand it is the same gradient, and the update is as it was."""
    tx, _ = wide(Row(name, "all"))
    params, (g, *_) = fed("bfloat16", ("normal",))
    half = {"w": g["w"].astype(params["w"].dtype)}
    narrow, widened = (jax.jit(tx.update)(x, tx.init(params), params) for x in (half, {"w": half["w"].astype("f4")}))
    for a, b in zip(jax.tree.leaves(narrow), jax.tree.leaves(widened), strict=True):
        assert a.dtype == b.dtype
        assert not differing(np.asarray(a), np.asarray(b)).any()


def test_without_the_parameters_the_update_has_the_gradients_dtype():
    """Nothing says what the leaf's is; `update(updates, state, params)` does."""
    tx, g = jaxopt_impl.adam(0.1, accumulator_dtype="float32"), jnp.ones(2)
    state = tx.init(jnp.ones(2, jnp.bfloat16))
    assert tx.update(g, state)[0].dtype == np.float32
    assert tx.update(g, state, jnp.ones(2, jnp.bfloat16))[0].dtype == jnp.bfloat16
    with pytest.raises(ValueError, match=r"^adam: leaf params has no parameter; gradients, parameters and state"):
        tx.update(g, state, [jnp.ones(2, jnp.bfloat16)])


REFUSED = [
    ("bfloat16", "float32", None, "bfloat16 is needed, or float32 with accumulator_dtype='float32'"),
    ("bfloat16", "float16", "float32", "bfloat16 is needed, or float32 with accumulator_dtype='float32'"),
    ("float32", "bfloat16", None, "float32 is needed"),
    ("float32", "float16", "float32", "float32 is needed"),
]


@pytest.mark.parametrize(("leaf", "gradient", "accumulator", "needed"), REFUSED)
@pytest.mark.parametrize("row", DEFAULTS, ids=str)
def test_other_gradients_are_refused(row, leaf, gradient, accumulator, needed):
    """With one line, the same on both sides, whether or not the rule reads the parameters."""
    arguments = {**row.arguments, "accumulator_dtype": accumulator}
    p, g = np.ones(2, jnp.dtype(leaf)), np.ones(2, jnp.dtype(gradient))
    message = re.escape(f"{row.optimizer}: leaf params[0] has dtype {leaf} but its gradient has {gradient}; {needed}.")
    tx = row.entry.jax(**arguments)
    with pytest.raises(TypeError, match=message):
        tx.update([jnp.asarray(g)], tx.init([jnp.asarray(p)]), [jnp.asarray(p)])
    parameter = torch.nn.Parameter(to_torch(p, copy=True))
    parameter.grad_dtype = getattr(torch, gradient)
    parameter.grad = to_torch(g, copy=True)
    with pytest.raises(TypeError, match=message):
        row.entry.torch([parameter], **row.entry.in_torch(arguments)).step()
