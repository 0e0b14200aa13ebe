"""Half precision: injected numbers, accumulators in float32, an epsilon that is 0."""

import copy
import functools
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_impl
from optparity._arrays import to_numpy, to_torch
from optparity.parity.bits import differing
from optparity.parity.streams import gradients, parameters
from optparity.registry import OPTIMIZERS, Row

from .. import assert_identical
from ..sampling import ACCUMULATORS

ADVICE = r"say accumulator_dtype='float32'; with a state in float16, eps near 1e-4 is what works\."


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_injected_into_halves(name, dtype):
    """optax would round the learning rate to the leaves' dtype: a warning says so; with hyperparam_dtype=float32 parity holds."""
    row = Row(name, "all")
    params = parameters({"w": (257,)}, dtype)
    inject = functools.partial(optax.inject_hyperparams, OPTIMIZERS[name].jax)
    rounded = inject()(**row.arguments)
    state = rounded.init(params)
    with pytest.warns(UserWarning, match=rf"{name}: \w+ arrives in {dtype}, which rounds it: say hyperparam_dtype=jnp.float32"):
        rounded.update(params, state, params)

    exact = inject(hyperparam_dtype=jnp.float32)(**row.arguments)
    as_float32 = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in row.arguments.items()}
    make = lambda leaves: OPTIMIZERS[name].torch(leaves, **OPTIMIZERS[name].in_torch(as_float32))  # noqa: E731
    assert_identical(exact, make, params, gradients("normal", params), steps=20, context="train_step")


def test_accumulator_dtype_can_be_injected_around():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    expected = jaxopt_impl.adam(0.125, accumulator_dtype=jnp.float32)
    u, _ = expected.update(params, expected.init(params))
    inject = functools.partial(optax.inject_hyperparams, jaxopt_impl.adam, hyperparam_dtype=jnp.float32)
    for tx in (
        inject()(0.125, accumulator_dtype="float32"),
        inject(static_args=("accumulator_dtype",))(0.125, accumulator_dtype=jnp.float32),
    ):
        v, _ = jax.jit(tx.update)(params, tx.init(params), params)
        assert not differing(np.asarray(u["w"]), np.asarray(v["w"])).any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("row", ACCUMULATORS, ids=str)
def test_accumulators_survive_a_checkpoint(row, dtype):
    """torch.optim would cast the float32 state of halves to the parameter's dtype when loading; the same run is gone on with here."""
    values = parameters({"w": (257,)}, dtype)["w"]
    drawn = [g["w"] for g, _ in zip(gradients("normal", {"w": values}), range(8), strict=False)]

    def walk(p, optimizer, steps):
        for g in steps:
            p.grad = to_torch(g, copy=True)
            optimizer.step()
        return to_numpy(p.detach())

    p, q = (torch.nn.Parameter(to_torch(values, copy=True)) for _ in range(2))
    whole = walk(p, row.torch([p]), drawn)
    first = row.torch([q])
    walk(q, first, drawn[:4])
    second = row.torch([q])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert all(v.dtype == torch.float32 for v in second.state[q].values())
    assert not differing(walk(q, copy.deepcopy(second), []), walk(q, second, [])).any()
    assert not differing(walk(q, second, drawn[4:]), whole).any()
    assert copy.deepcopy(second).accumulator_dtype == "float32"


@pytest.mark.parametrize("name", [name for name, entry in OPTIMIZERS.items() if not np.float16(entry.defaults.get("eps", 1))])
def test_an_epsilon_that_float16_cannot_hold(name):
    """0 / 0 at a zero gradient: the same NaN everywhere, after a warning on both sides that says what to set."""
    message = rf"{name}: eps=1e-08 is 0 in float16 \(leaf params.*\), so that a zero gradient gives NaN: {ADVICE}$"
    params = {"w": np.ones(4, np.float16)}
    tx = OPTIMIZERS[name].jax(0.1)
    with pytest.warns(UserWarning, match=message):
        tx.init(params)
    with pytest.warns(UserWarning, match=message):
        OPTIMIZERS[name].torch([torch.nn.Parameter(torch.ones(4, dtype=torch.float16))])
    zero = [{"w": np.zeros(4, np.float16)}]
    assert_identical(tx, lambda p: OPTIMIZERS[name].torch(p, lr=0.1), params, zero)
    u, _ = tx.update(zero[0], tx.init(params), params)
    assert np.isnan(np.asarray(u["w"])).all()
    wide = OPTIMIZERS[name].jax(0.1, accumulator_dtype="float32")
    u, _ = wide.update(zero[0], wide.init(params), params)
    assert not np.isnan(np.asarray(u["w"])).any()


def warned(make, eps, dtype, **arguments):
    """What both packages say of an epsilon; the leaf, which they name otherwise, apart."""
    said = []
    p = torch.nn.Parameter(torch.ones(2, dtype=getattr(torch, dtype)))
    for begin in (
        lambda: make.jax(0.1, eps=eps, **arguments).init({"w": jnp.ones(2, dtype)}),
        lambda: make.torch([p], eps=eps, **arguments),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            begin()
        said.append([re.sub(r"\(leaf .*?\)", "(leaf)", str(warning.message)) for warning in caught])
    assert said[0] == said[1]
    return said[0]


@pytest.mark.parametrize("name", [name for name, entry in OPTIMIZERS.items() if "eps" in entry.defaults])
def test_an_epsilon_that_float16_holds_and_that_is_too_small(name):
    """6e-8 is the least number of float16: nothing is NaN, but the square of a small gradient is 0, and the update 1e4 times too large."""
    make, outside = OPTIMIZERS[name], {"eps_in_sqrt": False} if name == "adagrad" else {}
    text = rf"{name}: eps=6e-08 is small where the square of a gradient is 0 in float16 \(leaf\), so that updates .* rate: {ADVICE}"
    (said,) = warned(make, 6e-8, "float16", **outside)
    assert re.fullmatch(text, said)
    for eps, dtype, arguments in ((1e-4, "float16", {}), (2**-14, "float16", {}), (0, "float16", {}), (6e-8, "bfloat16", {})):
        assert warned(make, eps, dtype, **outside, **arguments) == []
    assert warned(make, 6e-8, "float16", **outside, accumulator_dtype="float32") == []
    if outside:  # in the root it keeps the quotient small
        assert warned(make, 6e-8, "float16") == []


@pytest.mark.parametrize(("eps", "dtype"), [(1e-50, "float32"), (1e-50, "bfloat16")])
def test_an_epsilon_that_is_0_in_other_dtypes(eps, dtype):
    """No advice for float16 there."""
    text = f"adam: eps=1e-50 is 0 in {dtype} (leaf), so that a zero gradient gives NaN: a larger eps is needed."
    assert warned(OPTIMIZERS["adam"], eps, dtype) == [text]


def test_the_advice_on_float16_works():
    """Adam's first step is about the learning rate, whatever the gradient, if the state is in float32; with the tiny epsilon it is not."""
    g = jnp.asarray([0, 1e-4, 1e-3, 4e-3], jnp.float16)
    steps = {}
    for name, arguments in {"float32": {"accumulator_dtype": "float32"}, "tiny": {"eps": 6e-8}, "1e-4": {"eps": 1e-4}}.items():
        tx = jaxopt_impl.adam(1e-3, **arguments)
        steps[name] = np.abs(np.asarray(tx.update(g, tx.init(g), g)[0], np.float64)) / 1e-3
    np.testing.assert_allclose(steps["float32"], [0, 1, 1, 1], rtol=1e-3)
    assert steps["tiny"][0] == 0
    assert steps["tiny"][1:].min() > 1000
    assert steps["1e-4"].max() < 50
