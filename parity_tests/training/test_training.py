"""Around the step: schedules, groups, injected hyper-parameters, gradient scaling and accumulation, checkpoints of halves."""

import copy
import functools

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
from optparity.parity.subnormals import torch_flushing_like_jax
from optparity.parity.torch_side import from_numpy, to_numpy
from optparity.registry import DTYPES, OPTIMIZERS, ROWS

from .. import assert_identical

SCHEDULES = {
    "constant": optax.constant_schedule(0.01),
    "step": optax.piecewise_constant_schedule(0.01, {10: 0.5, 20: 0.1}),
    "cosine": optax.cosine_decay_schedule(0.01, 40, alpha=0.1),
    "warm-up": optax.warmup_cosine_decay_schedule(1e-4, 0.01, 10, 40, 1e-5),
}


class Scheduled:
    """An optimizer and its scheduler as one, for the harness."""

    def __init__(self, optimizer, scheduler):
        self.optimizer, self.scheduler = optimizer, scheduler

    @property
    def state(self):
        return self.optimizer.state

    def step(self):
        self.optimizer.step()
        self.scheduler.step()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_schedules(name, schedule):
    """A transform with the schedule, and torch_ref driven by the shipped helper: 0 differing bits, compiled or not."""
    row = next(row for row in ROWS if row.optimizer == name and row.label.startswith("all"))
    params = parameters({"w": (257,)}, "float32")
    arguments = {**row.arguments, "learning_rate": SCHEDULES[schedule]}
    tx = OPTIMIZERS[name].jax(**arguments)

    def make(given):
        optimizer = row.torch(given)
        return Scheduled(optimizer, torch_ref.ScheduleLR(optimizer, jax.jit(SCHEDULES[schedule])))

    with jax.numpy_dtype_promotion("standard"):  # optax's schedules promote
        for context in ("train_step", "scan"):
            assert_identical(tx, make, params, gradients("normal", params), steps=50, context=context)


def test_a_scheduler_is_saved_without_its_schedule():
    optimizer = torch_ref.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = torch_ref.ScheduleLR(optimizer, lambda count: 1.0 / (1 + count))
    for _ in range(3):
        optimizer.step(), scheduler.step()
    again = torch_ref.ScheduleLR(optimizer, lambda count: 1.0 / (1 + count))
    again.load_state_dict(scheduler.state_dict())
    assert "schedule" not in scheduler.state_dict()
    optimizer.step(), again.step()
    assert optimizer.param_groups[0]["lr"] == float(np.float32(0.2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("context", ["eager", "train_step", "scan"])
def test_groups_are_partitions(context, dtype):
    """Three groups that differ in lr, weight decay and flags, and a fourth that is frozen, against optax.partition."""
    params = parameters({"frozen": (5,), "first": (257,), "second": (3, 7), "third": (11,)}, dtype)
    settings = {
        "first": {"learning_rate": 0.1, "weight_decay": 0.01, "amsgrad": True, "eps": 1e-3},
        "second": {"learning_rate": 0.01, "weight_decay": 0.0, "maximize": True, "eps": 1e-3},
        "third": {"learning_rate": 0.001, "weight_decay": 0.1, "b1": 0.5, "eps": 1e-3},
    }
    tx = optax.partition(
        {"frozen": optax.set_to_zero(), **{name: jaxopt_impl.adam(**given) for name, given in settings.items()}},
        {name: name for name in params},
    )

    def make(leaves):
        by_name = dict(zip(sorted(params), leaves, strict=True))  # the order of jax.tree.leaves
        groups = [{"params": [by_name[name]], **OPTIMIZERS["adam"].in_torch(given)} for name, given in settings.items()]
        return torch_ref.Adam(groups)

    report = assert_identical(tx, make, params, gradients("normal", params), steps=20, context=context)
    assert {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"} <= set(report.compared)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_injected_into_halves(name, dtype):
    """optax would round the learning rate to the leaves' dtype: a warning says so; with hyperparam_dtype=float32 parity holds."""
    row = next(row for row in ROWS if row.optimizer == name and row.label.startswith("all"))
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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_scaler_that_skips_a_step_is_apply_if_finite(name):
    """torch.amp.GradScaler skips a step whose gradients overflow; so does optax.apply_if_finite: neither counts it."""
    row = next(row for row in ROWS if row.optimizer == name and row.label.startswith("all"))
    params = parameters({"w": (257,)}, "float32")
    drawn = [g["w"] for g, _ in zip(gradients("normal", params), range(8), strict=False)]
    drawn[3][5], drawn[6][7] = np.inf, np.nan
    tx = optax.apply_if_finite(row.tx, max_consecutive_errors=100)
    x, state = jnp.asarray(params["w"]), tx.init(jnp.asarray(params["w"]))
    y = torch.nn.Parameter(from_numpy(params["w"]))
    optimizer = row.torch([y])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6)
    update = jax.jit(tx.update)
    for g in drawn:
        u, state = update(jnp.asarray(g), state, x)
        x = optax.apply_updates(x, u)
        scale = scaler.get_scale() if scaler._scale is not None else 2.0**10
        y.grad = from_numpy(g) * scale  # a power of two: unscaled to the same bits
        scaler.scale(torch.ones(()))
        scaler.step(optimizer)
        scaler.update()
        assert not differing(np.asarray(x), to_numpy(y.detach())).any()
    assert int(state.total_notfinite) == 2
    assert int(state.inner_state.step) == 6


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_accumulated_gradients(name):
    """optax.MultiSteps averages (in a running mean of its own rounding); torch sums. Of two equal halves both make the same bits; of
    others, torch must be given the mean that MultiSteps computed: the frameworks accumulate differently, the rules do not.
    """
    row = next(row for row in ROWS if row.optimizer == name and row.label.startswith("all"))
    params = parameters({"w": (257,)}, "float32")
    tx = optax.MultiSteps(row.tx, 2)
    x, state = jnp.asarray(params["w"]), tx.init(jnp.asarray(params["w"]))
    y = torch.nn.Parameter(from_numpy(params["w"]))
    optimizer = row.torch([y])
    with jax.numpy_dtype_promotion("standard"), torch_flushing_like_jax():
        update = jax.jit(tx.update)
        for g, _ in zip(gradients("normal", params), range(6), strict=False):
            for _ in range(2):
                u, state = update(jnp.asarray(g["w"]), state, x)
                x = optax.apply_updates(x, u)
            y.grad = from_numpy(g["w"]) / 2 + from_numpy(g["w"]) / 2
            optimizer.step()
            assert not differing(np.asarray(x), to_numpy(y.detach())).any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("row", [row for row in ROWS if row.label == "accumulator"], ids=str)
def test_accumulators_survive_a_checkpoint(row, dtype):
    """torch.optim would cast the float32 state of halves to the parameter's dtype when loading; the same run is gone on with here."""
    values = parameters({"w": (257,)}, dtype)["w"]
    drawn = [g["w"] for g, _ in zip(gradients("normal", {"w": values}), range(8), strict=False)]

    def walk(p, optimizer, steps):
        for g in steps:
            p.grad = from_numpy(g)
            optimizer.step()
        return to_numpy(p.detach())

    p, q = (torch.nn.Parameter(from_numpy(values)) for _ in range(2))
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
    message = (
        rf"{name}: eps=1e-08 is 0 in float16 \(leaf params.*\), so that a zero gradient gives NaN: set eps >= 6e-08, or accumulator_dtype"
    )
    params = {"w": np.ones(4, np.float16)}
    tx = OPTIMIZERS[name].jax(0.1)
    with pytest.warns(UserWarning, match=message):
        tx.init(params)
    with pytest.warns(UserWarning, match=message):
        OPTIMIZERS[name].torch([torch.nn.Parameter(torch.ones(4, dtype=torch.float16))])
    zero = [{"w": np.zeros(4, np.float16)}]
    assert_identical(tx, lambda p: OPTIMIZERS[name].torch(p, lr=0.1), params, zero)
    u, _ = tx.update(zero[0], tx.init(params), params)
    assert np.isnan(u["w"]).all()
    wide = OPTIMIZERS[name].jax(0.1, accumulator_dtype="float32")
    u, _ = wide.update(zero[0], wide.init(params), params)
    assert not np.isnan(u["w"]).any()


@pytest.mark.parametrize("beta", [0.9, 0.95, 0.98, 0.99, 0.999])
def test_bias_corrections(beta):
    """Inside jit without x64: the float64 bits of torch_ref's and the oracle's binary powering; in float32 those of Python's floats."""
    from jaxopt_impl import numerics as nx

    from ..oracle import binary_power

    t = np.arange(1, 100_001, dtype=np.int32)

    @jax.jit
    def corrections(t):
        with jax.enable_x64(True):
            one = lambda t: (1 / (1 - nx.power(beta, nx.scalar(t))), nx.sqrt(1 - nx.power(beta, nx.scalar(t))))  # noqa: E731
            like = nx.Rounded(jnp.zeros((), jnp.float32))
            return jax.vmap(lambda t: tuple((v.x, v.rounded(like).x) for v in one(t)))(t)

    (rate64, rate32), (root64, root32) = corrections(t)
    python = [beta**n for n in t.tolist()]
    np.testing.assert_array_equal(np.asarray(rate32), np.array([1 / (1 - x) for x in python], np.float32))
    np.testing.assert_array_equal(np.asarray(root32), np.sqrt(1 - np.array(python)).astype(np.float32))
    from torch_ref import numerics as torch_nx

    some = [*range(1, 200), *range(200, 100_001, 997)]
    assert [torch_nx.power(beta, n) for n in some] == [binary_power(beta, n) for n in some]
    np.testing.assert_array_equal(np.asarray(rate64)[np.array(some) - 1], [1 / (1 - binary_power(beta, n)) for n in some])
    np.testing.assert_array_equal(np.asarray(root64)[np.array(some) - 1], np.sqrt([1 - binary_power(beta, n) for n in some]))


def test_one_counter_or_one_per_parameter():
    """Documented: a leaf that misses its first gradient has its first step later in torch, and never in optax's counting."""
    tx = jaxopt_impl.sgd(0.1, momentum=0.9, dampening=0.5)
    p = {"a": jnp.ones(1), "b": jnp.ones(1)}
    state = tx.init(p)
    a, b = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    optimizer = torch_ref.SGD([a, b], lr=0.1, momentum=0.9, dampening=0.5)
    for g in ({"a": jnp.ones(1), "b": None}, {"a": jnp.ones(1), "b": jnp.ones(1)}):
        u, state = tx.update(g, state, p)
        p = optax.apply_updates(p, jax.tree.map(lambda x: jnp.zeros(1) if x is None else x, u, is_leaf=lambda x: x is None))
        a.grad, b.grad = (None if g[name] is None else torch.ones(1) for name in ("a", "b"))
        optimizer.step()
    assert not differing(np.asarray(p["a"]), to_numpy(a.detach())).any()
    np.testing.assert_allclose([p["b"][0], b.item()], [1 - 0.05, 1 - 0.1], rtol=1e-6)


@pytest.mark.parametrize("row", [row for row in ROWS if "all" in row.label], ids=str)
def test_numpy_leaves_in_eager_mode(row):
    """NumPy's float64 is what the process has for it: float32 here, with the bits of the compiled update."""
    rng = np.random.default_rng(0)
    p, g = ({"w": rng.standard_normal(9), "x": 0.5} for _ in range(2))
    eager, compiled = (row.tx.init(p) for _ in range(2))
    for _ in range(3):
        u, eager = row.tx.update(g, eager, p)
        v, compiled = jax.jit(row.tx.update)(g, compiled, p)
        for x, y in zip(jax.tree.leaves((u, eager)), jax.tree.leaves((v, compiled)), strict=True):
            assert x.dtype == y.dtype
            assert not differing(np.asarray(x), np.asarray(y)).any()


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
