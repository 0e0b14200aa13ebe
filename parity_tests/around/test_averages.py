"""Averages of parameters: what they are, by an oracle; what stock calls the same; and what must not change them."""

# gmpy2's stub leaves its functions out.
# pyright: reportAttributeAccessIssue=false

import copy
import itertools
import math
from typing import Any

import gmpy2
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import torch
from torch import nn
from torch.optim import swa_utils

import jaxopt_impl
import torch_ref
from jaxopt_impl import averaged, numerics, params_ema, params_swa
from jaxopt_impl.around.averages import Hyper, prepare
from optparity._arrays import to_numpy, to_torch
from optparity.parity.bits import differing, ulp_distance
from torch_ref.around import averages as theirs

from .. import oracle
from ..sampling import sampled

DTYPES = ("float32", "float64", "bfloat16", "float16")
WARM_UP = {"decay": 0.95, "min_decay": 0.3, "update_after_step": 2, "use_warmup": True, "warmup_gamma": 3.0, "warmup_power": 0.6}


def stream(dtype, steps=12, size=24, seed=0):
    """Parameters as they move in training, and some zeros of both signs."""
    rng = np.random.default_rng(seed)
    walk = rng.standard_normal((steps, size)).cumsum(axis=0) * np.ldexp(1.0, rng.integers(-12, 9, size))
    walk[:, :3] = np.copysign(0.0, walk[:, :3])
    return list(walk.astype(np.dtype(dtype) if dtype != "bfloat16" else ml_dtypes.bfloat16))


def averages_in_jax(tx, parameters):
    """The state after each of the parameters, to which an update of −0 leads. What `init` saw is NaN: nothing of it may be left."""
    params = [jnp.asarray(p) for p in parameters]
    state, update = tx.init(jnp.full_like(params[0], jnp.nan)), jax.jit(tx.update)
    for p in params:
        updates, state = update(jnp.full_like(p, -0.0), state, p)
        assert not updates.any()
        assert jnp.signbit(updates).all()
        yield state


def module(p):
    return nn.ParameterList([nn.Parameter(to_torch(p, copy=True))])


def averages_in_torch(make, parameters):
    """The averaged model after each of the parameters."""
    model = module(np.full_like(parameters[0], np.nan))
    average = make(model)
    for p in parameters:
        model[0].data.copy_(to_torch(p))
        average.update_parameters(model)
        yield average


def same(a, b):
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype
    assert not differing(a, b).any()


def of_oracle(parameters, dtype, average):
    """What a rule on numbers makes of each element's stream: `average(a or None, p, n) -> a`, and what it starts with."""
    fmt = oracle.FORMATS[dtype]
    columns = []
    for column in zip(*(p.astype(np.float64) for p in parameters), strict=True):
        a, seen = None, []
        for n, p in enumerate(column):
            a = average(a, oracle.Rounded(float(p), fmt), n)
            seen.append(float(a.value))
        columns.append(seen)
    return np.array(columns).T


def exact_decay(n, decay=0.999, min_decay=0.0, update_after_step=0, use_warmup=False, warmup_gamma=1.0, warmup_power=2 / 3):
    """timm's, by MPFR, rounded to float64 at the end; 0 copies."""
    n = max(0, n - update_after_step)
    if not n:
        return 0.0
    if not use_warmup:
        return decay
    with gmpy2.context(precision=400):
        warm = 1 - (1 + n / gmpy2.mpfr(warmup_gamma)) ** -gmpy2.mpfr(warmup_power)
        return float(max(min(warm, decay), min_decay))


def ema(**arguments):
    def average(a, p, n):
        decay = exact_decay(n, **arguments)
        return decay * a + (1 - decay) * p if decay else p

    return average


def equal(a, p, n):
    return a + (p - a) / float(n + 1) if n else p


def from_zero(a, p, n):
    a = oracle.Rounded(0, p.format) if a is None else a
    return 0.8 * a + (1 - 0.8) * p


RULES = {
    "torch": (params_ema(0.9), {"decay": 0.9}, ema(decay=0.9)),
    "warm-up": (params_ema(**WARM_UP), WARM_UP, ema(**WARM_UP)),
    "optax": (params_ema(0.8, form="optax"), {"decay": 0.8, "form": "optax"}, from_zero),
    "equal": (params_swa(), {}, equal),
}


# The decay of the warm-up is not rounded once in float64, so there is no oracle of its bits there.
CASES = [(rule, dtype) for rule in RULES for dtype in DTYPES if (rule, dtype) != ("warm-up", "float64")]


@pytest.mark.parametrize(("rule", "dtype"), sampled(CASES, lambda rule, dtype: dtype in ("float32", "float16")))
def test_both_sides_are_what_the_oracle_says(rule, dtype):
    """MPFR, number by number: in JAX and in PyTorch, at every step."""
    tx, arguments, average = RULES[rule]
    parameters = stream(dtype)
    with jax.enable_x64(dtype == "float64"):
        expected = of_oracle(parameters, dtype, average)
        states = averages_in_jax(tx, parameters)
        models = averages_in_torch(lambda model: torch_ref.AveragedModel(model, **arguments), parameters)
        for want, state, model in zip(expected, states, models, strict=True):
            got = state.average if state.biased_average is None else state.biased_average
            same(got, want.astype(parameters[0].dtype))
            same(to_numpy(model.module[0]), got)


def decay_of(hyper, n) -> float:
    return float(prepare(hyper._replace(n=float(n))).decay)


@pytest.mark.parametrize("arguments", [{"use_warmup": True}, {"use_warmup": True, "warmup_power": 0.75}, WARM_UP], ids=str)
def test_the_decay_of_the_warm_up_is_the_formula_s(arguments):
    """Of 10,000 steps: each within an ulp of float32 of the exact decay; equal to it rounded once in nearly all."""
    values = {"decay": 0.9999, "min_decay": 0.0, "warmup_gamma": 1.0, "warmup_power": 2 / 3, **arguments}
    after = values.pop("update_after_step", 0)
    ns = [*range(1, 200), *range(200, 10_000, 37), 10**6, 2**31 - 1]
    hyper = Hyper(**values)
    got = np.array([decay_of(hyper, n) for n in ns])
    exact = np.array([exact_decay(n + after, **{**values, "update_after_step": after}) for n in ns])
    np.testing.assert_allclose(got, exact, rtol=2**-50, atol=0)
    unlike = np.float32(got) != np.float32(exact)
    assert unlike.mean() < 1e-3


def test_the_decay_is_the_same_bits_in_jax_and_in_torch():
    with jax.enable_x64(True):
        hyper = {"decay": 0.9999, "use_warmup": True, "warmup_power": 0.75}
        traced = jax.jit(lambda n: prepare(Hyper(**hyper, n=numerics.scalar(n))).decay.in_float64())
        for n in (1, 2, 3, 10, 1000, 123_456, 2**31 - 1):
            assert float(traced(jnp.int32(n))) == theirs.prepare(theirs.Hyper(**hyper, n=float(n))).decay


def test_timm_s_first_decays():
    """With γ = κ = 1 the average is the equal one: 1/2, 2/3, ... (timm's own comment)."""
    hyper = Hyper(0.9999, use_warmup=True, warmup_gamma=1.0, warmup_power=1.0)
    assert [decay_of(hyper, n) for n in (1, 2, 3)] == [0.5, 1 - 1 / 3, 0.75]
    assert math.isclose(decay_of(Hyper(0.9999, use_warmup=True, warmup_power=2 / 3), 31_622), 0.999, rel_tol=1e-5)


STOCK = {  # ours, and what stock is told
    "EMA": ({"decay": 0.9}, {"avg_fn": swa_utils.get_ema_avg_fn(0.9)}),
    "SWA": ({}, {"avg_fn": swa_utils.get_swa_avg_fn()}),
}


class Normed(nn.Module):
    """A model with buffers, one of which is a whole number."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 5), nn.BatchNorm1d(5)

    def forward(self, x):
        return self.norm(self.linear(x))


def trained(steps, *averages, dtype=torch.float32, seed=0):
    """A model that has been trained so, and averaged by each that is made of it."""
    torch.manual_seed(seed)
    model = Normed().to(dtype)
    made = [average(model) for average in averages]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(7, 3).to(dtype)).square().sum().backward()
        optimizer.step()
        for average in made:
            average.update_parameters(model)
    return model, *made


def states_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        same(to_numpy(a[key]), to_numpy(b[key]))


HERE = {("EMA", True, torch.bfloat16), ("SWA", False, torch.float32)}  # in `make test`


@pytest.mark.parametrize(
    ("kind", "use_buffers", "dtype"),
    sampled(
        itertools.product(STOCK, (False, True), (torch.float32, torch.float64, torch.bfloat16)),
        lambda *case: case in HERE,
    ),
)
def test_stock_with_a_function_of_one_tensor_agrees(kind, use_buffers, dtype):
    """swa_utils' `get_ema_avg_fn` and `get_swa_avg_fn` round once too, in eager PyTorch on CPU."""
    ours, stock = STOCK[kind]
    make = (
        lambda model: torch_ref.AveragedModel(model, use_buffers=use_buffers, **ours),
        lambda model: swa_utils.AveragedModel(model, use_buffers=use_buffers, **stock),
    )
    _, own, other = trained(20, *make, dtype=dtype)
    states_same(own.state_dict(), other.state_dict())


@pytest.mark.parametrize("kind", STOCK)
def test_stock_with_a_function_of_many_tensors_is_an_ulp_away(kind):
    """lerp is an FMA: one step from the same average ends up to an ulp of the larger operand away, in up to half of the elements."""
    multi = {"EMA": swa_utils.get_ema_multi_avg_fn(0.9), "SWA": swa_utils.get_swa_multi_avg_fn()}[kind]
    parameters = [np.random.default_rng(seed).standard_normal(10_000, np.float32) for seed in (1, 2)]
    makes = (
        lambda model: torch_ref.AveragedModel(model, **STOCK[kind][0]),
        lambda model: swa_utils.AveragedModel(model, multi_avg_fn=multi),
    )
    *_, own = averages_in_torch(makes[0], parameters)
    *_, stock = averages_in_torch(makes[1], parameters)
    own, stock = to_numpy(own.module[0]), to_numpy(stock.module[0])
    assert 0.05 < differing(own, stock).mean() < 0.6
    assert (abs(own - stock) <= np.spacing(np.maximum(*map(abs, parameters)))).all()


@pytest.mark.parametrize("kind", STOCK)
def test_checkpoints_are_exchanged_with_stock(kind):
    """Stock goes on from ours, and ours from stock's, to the same bits."""
    ours, stock = STOCK[kind]
    makes = (lambda model: torch_ref.AveragedModel(model, **ours), lambda model: swa_utils.AveragedModel(model, **stock))
    for first, second in (makes, makes[::-1]):
        model, before = trained(5, first)
        after = second(Normed())
        after.load_state_dict(copy.deepcopy(before.state_dict()))
        for average in (before, after):
            nn.init.constant_(model.linear.weight, 0.3)
            average.update_parameters(model)
        assert int(after.n_averaged) == 6
        states_same(before.state_dict(), after.state_dict())


@pytest.mark.usefixtures("as_users_have_it")
def test_optax_ema_of_the_parameters_is_the_same_average():
    """Step by step without a jit optax's own sums round once too; debiased it divides by 1 − βⁿ in float32."""
    parameters = stream("float32")
    tx, stock, raw = params_ema(0.8, form="optax"), optax.ema(0.8), optax.ema(0.8, debias=False)
    state, stock_state, raw_state = (t.init(jnp.asarray(parameters[0])) for t in (tx, stock, raw))
    for p in map(jnp.asarray, parameters):
        _, state = tx.update(jnp.full_like(p, -0.0), state, p)
        read, stock_state = stock.update(p, stock_state)
        biased, raw_state = raw.update(p, raw_state)
        same(state.biased_average, biased)
        assert ulp_distance(averaged(state, 0.8), np.asarray(read)).max() <= 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_sides_read_the_same_debiased_average(dtype):
    """The same as MPFR's, too; and the module of PyTorch computes with it."""
    parameters = stream(dtype, steps=4)
    with jax.enable_x64(dtype == "float64"):
        states = averages_in_jax(params_ema(0.8, form="optax"), parameters)
        models = averages_in_torch(lambda model: torch_ref.AveragedModel(model, decay=0.8, form="optax"), parameters)
        for n, (state, model) in enumerate(zip(states, models, strict=True), 1):
            biased, read = np.asarray(state.biased_average), averaged(state, 0.8)
            same(to_numpy(model.averaged()["0"]), read)
            same(jax.jit(averaged, static_argnums=1)(state, 0.8), read)
            fmt, divisor = oracle.FORMATS[dtype], 1 - oracle.binary_power(0.8, n)
            expected = [float((oracle.Rounded(float(a), fmt) / divisor).value) for a in biased]
            same(read, np.array(expected).astype(biased.dtype))


def test_the_averaged_model_computes_with_the_average():
    model, ema, swa = trained(6, lambda m: torch_ref.AveragedModel(m, decay=0.5, form="optax"), lambda m: torch_ref.AveragedModel(m))
    x = torch.randn(4, 3)
    for average in (ema, swa):
        average.eval()
        plain = copy.deepcopy(model).eval()
        plain.load_state_dict({**plain.state_dict(), **average.averaged()})
        assert torch.equal(average(x), plain(x))


@pytest.mark.parametrize("n", [2**24 + 1, 2**31 - 2])
def test_a_long_run_counts_as_a_short_one(n):
    """Where n is no float32, and where βⁿ is 0."""
    a, p = stream("float32", steps=2)
    for tx, arguments, _ in RULES.values():
        state = tx.init(jnp.asarray(a))
        field = "average" if state.biased_average is None else "biased_average"
        state = state._replace(n_averaged=jnp.int32(n), **{field: jnp.asarray(a)})
        _, state = jax.jit(tx.update)(jnp.full_like(p, -0.0), state, jnp.asarray(p))
        model = module(a)
        average = torch_ref.AveragedModel(model, **arguments)
        average.module[0].data.copy_(to_torch(a))
        average.n_averaged.fill_(n)
        model[0].data.copy_(to_torch(p))
        average.update_parameters(model)
        same(to_numpy(average.module[0]), getattr(state, field))
        assert int(state.n_averaged) == int(average.n_averaged) == n + 1
        decay = arguments.get("decay") if field != "average" else None
        same(to_numpy(average.averaged()["0"]), averaged(state, decay))


RESUMED = {"warm-up": params_ema(**WARM_UP), "optax": params_ema(0.7, form="optax"), "swa": params_swa(start=2, every=3)}


@pytest.mark.parametrize("kind", RESUMED)
def test_saved_and_restored_midway(kind):
    """Through NumPy, as a checkpoint goes."""
    tx, parameters = RESUMED[kind], [jnp.asarray(p) for p in stream("float32", steps=9)]
    one = other = tx.init(parameters[0])
    for i, p in enumerate(parameters):
        if i == 4:
            leaves, treedef = jax.tree.flatten(other)
            other = treedef.unflatten([jnp.asarray(np.array(x)) for x in leaves])
        _, one = tx.update(jnp.full_like(p, 0.1), one, p)
        _, other = tx.update(jnp.full_like(p, 0.1), other, p)
        jax.tree.map(same, one, other)


@pytest.mark.parametrize("ours", [{"decay": 0.9, **WARM_UP}, {"decay": 0.9, "form": "optax"}, {}], ids=["warm-up", "optax", "swa"])
def test_saved_and_restored_midway_in_torch(ours):
    model, one = trained(4, lambda m: torch_ref.AveragedModel(m, **ours))
    other = torch_ref.AveragedModel(Normed(), **ours)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for weight in (0.1, 0.7):
        nn.init.constant_(model.linear.weight, weight)
        one.update_parameters(model)
        other.update_parameters(model)
    states_same(one.state_dict(), other.state_dict())


def test_a_bfloat16_average_does_not_move_and_an_accumulator_does():
    """1 − β = 0.0001 is far below half a unit in the last place of a bfloat16."""
    params, there = jnp.full(3, 1.0, jnp.bfloat16), jnp.full(3, 1.25, jnp.bfloat16)
    for accumulator_dtype, moves in ((None, False), ("float32", True)):
        tx = params_ema(0.9999, accumulator_dtype=accumulator_dtype)
        state, update = tx.init(params), jax.jit(tx.update)
        for p in [params, *[there] * 200]:
            _, state = update(jnp.zeros_like(p), state, p)
        assert bool((averaged(state) > 1).all()) == moves
    model = nn.Linear(1, 1).bfloat16()
    assert torch_ref.AveragedModel(model, decay=0.9999, accumulator_dtype=torch.float32).module.weight.dtype == torch.float32


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("inner", [optax.sgd(0.3), optax.adam(0.1)], ids=["sgd", "adam"])
def test_what_is_averaged_is_what_apply_updates_makes(inner):
    """Of any optimizer, in one jit: its last product must not become an FMA with the parameter on one of the two ways."""
    tx = optax.chain(inner, params_ema(0.9))
    rng = np.random.default_rng(0)
    params, g = (jnp.asarray(rng.standard_normal(10_000, np.float32)) for _ in range(2))

    @jax.jit
    def train_step(params, state, g):
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    after, state = train_step(params, tx.init(params), g)
    same(averaged(state), after)


def test_nothing_compiles_at_the_second_call():
    for tx in (params_ema(**WARM_UP), params_ema(form="optax"), params_swa(start=1, every=2)):
        update, read = jax.jit(tx.update), jax.jit(lambda state: averaged(state, 0.5))
        params = {"w": jnp.ones((8, 3)), "b": jnp.ones(3)}
        state = tx.init(params)
        for _ in range(3):
            updates, state = update(jax.tree.map(jnp.ones_like, params), state, params)
            params = optax.apply_updates(params, updates)
            read(state)
        assert update._cache_size() == read._cache_size() == 1


def test_the_average_is_found_wherever_it_stands():
    params = {"w": jnp.ones(3), "none": None}
    inner = optax.chain(jaxopt_impl.sgd(0.1), params_swa())
    for tx in (inner, optax.MultiSteps(inner, 1), optax.apply_if_finite(inner, 3), optax.with_extra_args_support(inner)):
        found = averaged({"step": 3, "opt": tx.init(params)})
        assert found["none"] is None
        same(found["w"], params["w"])


def test_a_part_without_a_gradient_is_averaged_too():
    """As update_parameters does it; a gradient None leaves the parameter, and its average goes on towards it."""
    params: Any = {"a": jnp.full(2, 3.0), "b": jnp.full(2, 5.0)}
    tx: Any = optax.chain(jaxopt_impl.sgd(1.0), params_ema(0.5))
    state, one = tx.init(params), jnp.ones(2)
    for b in (one, one, None):
        updates, state = tx.update({"a": one, "b": b}, state, params)
        assert (updates["b"] is None) == (b is None)
        params = jax.tree.map(lambda u, p: p if u is None else p + u, updates, params, is_leaf=lambda u: u is None)
    same(averaged(state)["a"], jnp.full(2, 0.75))
    same(averaged(state)["b"], jnp.full(2, 3.25))


def test_leaves_of_numpy_and_of_python_are_arrays():
    params: Any = {"a": np.ones(2, np.float32), "b": 2.0}
    tx: Any = params_ema(0.5)
    _, state = tx.update({"a": np.ones(2, np.float32), "b": 1.0}, tx.init(params), params)
    same(averaged(state)["a"], jnp.full(2, 2.0))
    same(averaged(state)["b"], jnp.float32(3.0))


ONE = jnp.ones(2)
READ = {
    "none": (optax.sgd(0.1, momentum=0.9).init(ONE), "averaged: the state of one average of parameters is needed; got 0."),
    "two": (optax.chain(params_swa(), params_ema()).init(ONE), "averaged: the state of one average of parameters is needed; got 2."),
    "no decay": (params_ema(form="optax").init(ONE), "averaged: form='optax' keeps a biased average; its decay is needed."),
}


@pytest.mark.parametrize("what", READ)
def test_what_cannot_be_read_is_refused(what):
    state, message = READ[what]
    with pytest.raises(ValueError, match=f"^{message}$"):
        averaged(state)


def test_what_cannot_be_averaged_is_refused():
    tx = params_swa()
    with pytest.raises(ValueError, match=r"^params_swa: the parameters are averaged; call update\(updates, state, params\)\.$"):
        tx.update(ONE, tx.init(ONE))
    with pytest.raises(ValueError, match=r"^params_swa: the update has another tree than the parameters: "):
        tx.update({"b": ONE}, tx.init({"a": ONE}), {"a": ONE})
    with pytest.raises(ValueError, match=r"^params_swa: the average has another tree than the parameters: "):
        tx.update({"b": ONE}, tx.init({"a": ONE}), {"b": ONE})
    with pytest.raises(ValueError, match=r"^Invalid start value: -1 \(params_swa: start >= 0\)$"):
        params_swa(start=-1)
    with pytest.raises(ValueError, match=r"^Invalid every value: 0 \(params_swa: every >= 1\)$"):
        params_swa(every=0)


def test_a_leaf_of_whole_numbers_is_refused_on_both_sides():
    message = "{} has dtype int32; a floating-point dtype (float32, float64, bfloat16, float16) is needed."
    with pytest.raises(TypeError) as ours:
        params_ema().init([jnp.ones(2, jnp.int32)])
    with pytest.raises(TypeError) as of_torch:
        torch_ref.AveragedModel(nn.ParameterList([nn.Parameter(torch.ones(2, dtype=torch.int32), requires_grad=False)]), decay=0.9)
    assert str(ours.value) == message.format("params_ema: leaf params[0]")
    assert str(of_torch.value) == message.format("params_ema: leaf params['0']")
