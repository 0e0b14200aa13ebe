"""A hyper-parameter of 0 that only the run will tell, as `optax.inject_hyperparams` makes it, has the bits of a Python 0."""

from itertools import islice, product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_impl
import torch_ref
from optparity.parity.bits import differing
from optparity.parity.streams import gradients, parameters
from optparity.registry import DTYPES, OPTIMIZERS, Row

from .. import assert_identical
from ..sampling import FULL, sampled

STREAMS = ("normal", "zeros", "subnormal", "inf", "nan")


def settings(row):
    """What a row says, as float32 has it, with one number after the other a 0; Nesterov's momentum cannot be one."""
    given = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in row.arguments.items()}
    for name, default in row.entry.defaults.items():
        if type(given.get(name, default)) is float:
            yield {**given, name: 0.0} | ({"nesterov": False} if name == "momentum" and "nesterov" in given else {})


CASES = [(arguments, row, dtype) for row, dtype in product(FULL, DTYPES) for arguments in settings(row)]


def special(dtype):
    """A row for each stream: parameters among which are zeros of both signs and infinities."""
    w = parameters({"w": (len(STREAMS), 64)}, dtype)["w"]
    w[:, :6] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30]
    return w


def walked(tx, dtype, steps=4):
    """After each step the update and the state, and at the end the parameters."""
    p = jnp.asarray(special(dtype))
    drawn = [islice(gradients(stream, {"w": np.asarray(p)[0]}), steps) for stream in STREAMS]
    state, update, seen = tx.init(p), jax.jit(tx.update), []
    for rows in zip(*drawn, strict=True):
        u, state = update(jnp.stack([g["w"] for g in rows]), state, p)
        p = optax.apply_updates(p, u)
        seen.append((u, p, getattr(state, "inner_state", state)))
    return seen


@pytest.mark.parametrize(
    ("arguments", "row", "dtype"),
    sampled(CASES, lambda arguments, row, dtype: dtype == "float32" or (dtype == "float16" and row.optimizer in ("sgd", "rmsprop"))),
    ids=str,
)
def test_an_injected_0_is_a_python_0(arguments, row, dtype):
    """Every number of every optimizer: updates, parameters, and the state that both have."""
    number = jnp.dtype("float64" if dtype == "float64" else "float32")
    make = OPTIMIZERS[row.optimizer].jax
    injected = walked(optax.inject_hyperparams(make, hyperparam_dtype=number)(**arguments), dtype)
    for ours, python in zip(injected, walked(make(**arguments), dtype), strict=True):
        for got, expected in zip(ours[:2], python[:2], strict=True):
            assert not differing(np.asarray(got), np.asarray(expected)).any()
        for field, expected in python[2]._asdict().items():
            got = getattr(ours[2], field)
            if expected is None and got is not None:  # the limit: a buffer that a Python 0 does not keep, and that stays as it was
                assert (field, arguments["momentum"]) == ("momentum_buffer", 0)
                start = 0.0 if row.optimizer == "rmsprop" else -0.0
                assert not differing(np.asarray(got), np.full_like(got, start)).any()
            elif expected is not None:
                assert not differing(np.asarray(got), np.asarray(expected)).any()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_injected_0_is_a_0_of_torch(name):
    """In compare, beside an optimizer that skips the term; parameters that are infinite are there."""
    row = Row(name, "default")
    zeros = {key: 0.0 for key in ("weight_decay", "lr_decay", "dampening") if key in row.entry.defaults}
    given = {key: float(np.float32(value)) for key, value in {**row.entry.defaults, **row.arguments}.items() if type(value) is float}
    tx = optax.inject_hyperparams(row.entry.jax)(**{**given, **zeros})
    params = {"w": special("float32")}
    make = lambda ps: row.entry.torch(ps, **row.entry.in_torch({**given, **zeros}))  # noqa: E731
    for stream in STREAMS:
        assert_identical(tx, make, params, gradients(stream, params), steps=4, context="train_step")


def test_a_momentum_that_is_0_at_first():
    """Changed in mid-run, to a number and back, on both sides: torch begins the buffer when it needs one."""
    tx = optax.inject_hyperparams(jaxopt_impl.sgd)(0.5, momentum=0.0)
    p, g = jnp.asarray([1.0, -0.0, 3.0]), jnp.asarray([0.25, -0.0, np.inf])
    q = torch.nn.Parameter(torch.tensor([1.0, -0.0, 3.0]))
    optimizer, state = torch_ref.SGD([q], lr=0.5), tx.init(p)
    for momentum in (0.0, 0.0, 0.75, 0.75, 0.0, 0.75):
        state.hyperparams["momentum"] = jnp.asarray(momentum)
        optimizer.param_groups[0]["momentum"] = momentum
        u, state = jax.jit(tx.update)(g, state, p)
        p = optax.apply_updates(p, u)
        q.grad = torch.tensor([0.25, -0.0, np.inf])
        optimizer.step()
        assert not differing(np.asarray(p), q.detach().numpy()).any()


@pytest.mark.parametrize("name", [name for name, entry in OPTIMIZERS.items() if "weight_decay" in entry.defaults])
def test_the_derivative_at_0_is_the_formulas(name):
    """By an injected weight decay: what a weight decay a little above 0 changes, not nothing."""
    make, p, g = OPTIMIZERS[name].jax, jnp.asarray([2.0, 3.0]), jnp.asarray([0.5, -0.25])

    def moved(weight_decay):
        tx = make(0.5, weight_decay=weight_decay)
        u, _ = tx.update(g, tx.init(p), p)
        return jnp.sum(jnp.asarray(u) * jnp.asarray([1.0, 2.0]))

    at_0, near_0 = jax.grad(moved)(0.0), jax.grad(moved)(1e-6)
    np.testing.assert_allclose(at_0, near_0, rtol=1e-3, atol=1e-4)
