"""Schedules: the same bits from everybody who calls them, the right ones, and how far stock is."""

import inspect
import math
import warnings
from fractions import Fraction
from functools import cache
from itertools import islice, product
from pathlib import Path

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest
import torch
from mpmath import mpf

import jaxopt_impl
import torch_ref
from jaxopt_impl import binary64
from jaxopt_impl import numerics as nx
from jaxopt_impl.around import functions
from jaxopt_impl.around.counted import Schedule
from optparity import drift_around
from optparity.around import AroundRow
from optparity.around import schedules as table
from optparity.around.piece import SIZES
from optparity.parity.bits import differing, ulp_distance
from optparity.parity.compare import assert_identical
from optparity.parity.streams import gradients, parameters

from ..sampling import EXHAUSTIVE

STEPS = 10_000
LONG = table.forms(STEPS, STEPS)
SHORT = table.forms(20, 240)
FORMS = [(name, label) for name, of_name in LONG.items() for label in of_name]
SCHEDULERS = [(name, label) for name, label in FORMS if LONG[name][label].scheduler]
STOCK_SCHEDULERS = [(name, label) for name, label in SCHEDULERS if not LONG[name][label].only_ours]
each_form = pytest.mark.parametrize(("name", "label"), FORMS)


@pytest.fixture(autouse=True)
def many_digits():
    with mpmath.workprec(160):
        yield


def ours(name, label, forms=LONG, package=jaxopt_impl):
    return table.schedule(package, name, forms[name][label].arguments)


@cache
def at_every_step(name, label):
    """The values over 10,000 steps, compiled, float32."""
    return np.asarray(ours(name, label)(np.arange(STEPS, dtype=np.int32)))


@pytest.mark.parametrize("module", ["functions", "schedules"])
def test_both_packages_have_the_same_text(module):
    """But for the name of the mirror."""
    here, there = (Path(inspect.getfile(package)).parent / "around" / f"{module}.py" for package in (jaxopt_impl, torch_ref))
    assert here.read_text().replace("torch_ref/around", "jaxopt_impl/around", 1) == there.read_text()


# The oracle: the formulas as papers and documentation have them, in exact or 160-bit arithmetic. It shares no code with the rules.


TENTH = mpf(0.1)  # the float64, exactly


def cos_part(x):
    return (1 + mpmath.cos(mpmath.pi * x)) / 2


def oracle(name, a, t):
    a = {key: mpf(value) if isinstance(value, float) else value for key, value in a.items()}
    return mpf(ORACLES[name](t, **a))


def along(t, values, ends, anneal):
    ends = [Fraction(e) for e in ends]
    t = min(Fraction(t), ends[-1])
    i = next(i for i, end in enumerate(ends) if t <= end)
    start = ends[i - 1] if i else Fraction(0)
    x = (t - start) / (ends[i] - start)
    x = mpf(x.numerator) / x.denominator
    part = cos_part(x) if anneal == "cos" else 1 - x
    return values[i + 1] + (values[i] - values[i + 1]) * part


def one_cycle(t, peak_value, steps, pct_start, form="torch", three_phase=False, anneal="cos", pct_final=0.85):
    pct = float(pct_start)
    if form == "torch":
        ends = [pct * steps - 1, *([2 * pct * steps - 2] if three_phase else []), steps - 1]
    else:
        ends = [int(pct * steps), *([int(float(pct_final) * steps)] if three_phase else []), steps]
    first = peak_value / 25
    return along(t, [first, peak_value, *([first] if three_phase else []), first / 10_000], ends, anneal)


def cosine(t, init_value, steps, end_value=0, exponent=1, denominator="steps", after="hold"):
    last = steps - (denominator == "steps - 1")
    t = min(t, last) if after == "hold" else t
    return end_value + (init_value - end_value) * cos_part(mpf(t) / last) ** exponent


def exponential(t, init_value, gamma, transition_steps=1, begin=0, staircase=False, end_value=None):
    x = Fraction(max(t - begin, 0), transition_steps)
    x = mpf(math.floor(x)) if staircase else mpf(x.numerator) / x.denominator
    value = init_value * gamma**x
    return value if end_value is None else max(value, end_value)


def warm_up(t, then, steps, init_value=0):
    after, arguments = then
    if t >= steps:
        return oracle(after, arguments, t - steps)
    peak = oracle(after, arguments, 0)
    return init_value + (peak - init_value) * t / steps


def fraction_done(t, begin, steps):
    return mpf(min(max(t - begin, 0), steps)) / steps


ORACLES = {
    "constant": lambda t, value, factor=1, steps=0: value * (factor if t < steps else 1),
    "step": lambda t, init_value, step_size, gamma=TENTH: init_value * gamma ** (t // step_size),
    "multi_step": lambda t, init_value, milestones, gamma=TENTH: init_value * gamma ** sum(m <= t for m in milestones),
    "exponential": exponential,
    "linear": lambda t, init_value, end_value, steps, begin=0: init_value + (end_value - init_value) * fraction_done(t, begin, steps),
    "polynomial": lambda t, init_value, steps, power=1, end_value=0, begin=0: (
        end_value + (init_value - end_value) * (1 - fraction_done(t, begin, steps)) ** power
    ),
    "cosine": cosine,
    "warm_up": warm_up,
    "one_cycle": one_cycle,
    "inverse_sqrt": lambda t, init_value, timescale: init_value / mpmath.sqrt((t + timescale) / mpf(timescale)),
}


def as_float32(exact) -> np.float32:
    """Rounded once, to nearest-even (a float64 that is not a tie between two float32 is what it is rounded through)."""
    return np.float32(float(exact))


@pytest.mark.parametrize("apart", [47, pytest.param(1, marks=EXHAUSTIVE)])
@each_form
def test_the_value_is_the_correctly_rounded_one(name, label, apart):
    """The float32 nearest to the formula. What is rounded has an error near 2⁻⁵⁰, so that 1 in 10⁷ might be the next."""
    arguments, got = LONG[name][label].arguments, at_every_step(name, label)
    counts = [*range(40), *range(0, STEPS, apart), *range(STEPS - 40, STEPS)]
    wrong = [t for t in counts if as_float32(oracle(name, arguments, t)) != got[t]]
    assert not wrong, f"at {wrong[:5]}"


@each_form
def test_a_short_schedule_is_right_at_every_count_and_after_its_end(name, label):
    schedule, arguments = ours(name, label, SHORT, torch_ref), SHORT[name][label].arguments
    counts = range(240 if name == "one_cycle" else 90)
    assert [t for t in counts if as_float32(oracle(name, arguments, t)) != schedule(t)] == []


@each_form
def test_the_float64_value_is_within_a_few_units_of_the_formula(name, label):
    """Relative to the value itself, at the end of a cosine too."""
    schedule, arguments = ours(name, label, package=torch_ref), LONG[name][label].arguments
    counts = [*range(0, STEPS, 997), 0, 1, 2, 3, *range(STEPS - 5, STEPS)]
    if name != "one_cycle" or "form" in arguments:  # one more than torch's last is over
        counts.append(STEPS)
    for t in counts:
        exact, got = oracle(name, arguments, t), schedule(t, "float64")
        bound = 2.0**-40 if name == "exponential" or name == "step" else 2.0**-48  # of a power with a large exponent
        assert abs(got - exact) <= bound * abs(exact), (t, got, exact)


@each_form
def test_the_same_bits_in_torch(name, label):
    """At every count of 10,000."""
    theirs = ours(name, label, package=torch_ref)
    assert not differing(at_every_step(name, label), np.array([theirs(t) for t in range(STEPS)], np.float32)).any()


SOME = [("warm_up", "default"), ("exponential", "over several steps")]
some_forms = pytest.mark.parametrize(
    ("name", "label"), [*SOME, *(pytest.param(*form, marks=EXHAUSTIVE) for form in FORMS if form not in SOME)]
)


@some_forms
def test_the_same_bits_from_everybody(name, label):
    """Python's, NumPy's and JAX's counts; called, in a jit, in a scan."""
    schedule, expected = ours(name, label), at_every_step(name, label)
    scanned = jax.lax.scan(lambda t, _: (t + 1, schedule(t)), jnp.int32(0), None, length=STEPS)[1]
    assert not differing(np.asarray(scanned), expected).any()
    for t in (0, 1, 1999, 2000, 2001, 9999):
        for count in (t, np.int32(t), np.int64(t), jnp.int32(t), jnp.int16(t)):
            value = schedule(count)
            assert value.shape == ()
            assert value.dtype == np.float32
            assert not differing(np.asarray(value), expected[t])


@some_forms
def test_float64_with_x64(name, label):
    counts = np.arange(0, STEPS, 7)
    with jax.enable_x64(True):
        values = np.asarray(ours(name, label)(counts))
    theirs = ours(name, label, package=torch_ref)
    assert not differing(values, np.array([theirs(int(t), "float64") for t in counts])).any()


@pytest.mark.parametrize(
    ("name", "label"),
    [pytest.param(*form, marks=() if form == ("inverse_sqrt", "whole") else EXHAUSTIVE) for form in FORMS],  # the others compile for long
)
def test_the_bits_of_a_tpu(name, label):
    """What is computed there, by integers."""
    schedule, theirs = ours(name, label, SHORT), ours(name, label, SHORT, torch_ref)
    counts = np.arange(60, dtype=np.int32)

    def by_integers(t):
        with jax.enable_x64(True):
            value = schedule.rule(nx.scalar(t))
            if not isinstance(value, nx.Scalar):
                return jnp.float32(value)
            arguments = value.of_arguments(iter(range(9)))
            return arguments.by_integers(*value.arrays())

    got = np.asarray(jax.jit(jax.vmap(by_integers))(counts))
    assert not differing(got, np.array([theirs(int(t)) for t in counts], np.float32)).any()


# Stock.

AS_FORMULA = 1  # ulp of float32


@pytest.mark.parametrize(("name", "label"), [form for form in FORMS if LONG[form[0]][form[1]].in_optax])
def test_optax_in_float64_is_within_one_ulp(name, label):
    """optax's own formula with x64, at every count of 10,000."""
    with jax.enable_x64(True):
        theirs = table.of_optax(LONG[name][label], np.arange(STEPS))
        assert theirs is not None
    distance = ulp_distance(at_every_step(name, label), theirs.astype(np.float32))
    assert distance.max() <= AS_FORMULA, f"{distance.max()} ulp at count {distance.argmax()}"


@pytest.mark.parametrize(("name", "label"), STOCK_SCHEDULERS)
def test_the_closed_form_of_torch_is_within_one_ulp(name, label):
    """Where torch.optim has one (`_get_closed_form_lr`), at every count of 10,000; OneCycleLR's `get_lr` is one."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=table.LEARNING_RATE, momentum=0.9)
    make = LONG[name][label].scheduler
    assert make is not None
    scheduler = make(optimizer, torch.optim.lr_scheduler)
    with warnings.catch_warnings():  # that get_lr is not the last one
        warnings.simplefilter("ignore")
        theirs = np.array([closed_form(scheduler, t) for t in range(STEPS)])
    distance = ulp_distance(at_every_step(name, label), theirs.astype(np.float32))
    assert distance.max() <= AS_FORMULA, f"{distance.max()} ulp at count {distance.argmax()}"


def closed_form(scheduler, t):
    if isinstance(scheduler, torch.optim.lr_scheduler.SequentialLR):
        first, second = scheduler._schedulers
        [milestone] = scheduler._milestones
        return closed_form(first, t) if t < milestone else closed_form(second, t - milestone)
    scheduler.last_epoch = t
    return getattr(scheduler, "_get_closed_form_lr", scheduler.get_lr)()[0]


@EXHAUSTIVE
def test_what_stock_computes_is_measured():
    """Fewer steps than the page has; the figures are what a reader should see, so only their kind is held."""
    found = list(drift_around.learning_rates(steps=200))
    assert {d.stock for d in found} == {"optax", "torch.optim"}
    assert any(d.largest > 1 for d in found if d.stock == "optax"), "optax in float32 is no closer than ours"
    assert all(d.largest == 0 for d in found if d.schedule == "constant" and d.form == "default")


# Functions.


def relative(got, exact):
    return abs(float((mpf(got) - exact) / exact)) if exact else abs(got)


def test_functions_are_right():
    rng = np.random.default_rng(0)
    for x in [*np.exp2(rng.uniform(-1000, 1000, 300)), *(1 + rng.uniform(-0.5, 1, 300) * np.exp2(-rng.integers(0, 50, 300)))]:
        assert relative(functions.log(float(x)), mpmath.log(mpf(x))) < 4 * 2.0**-53
    for x in [*rng.uniform(-708, 709, 300), *rng.uniform(-1, 1, 300)]:
        assert relative(functions.exp(float(x)), mpmath.exp(mpf(x))) < 2 * 2.0**-53
    for n, t in product((1, 2, 3, 7, 1000, 10**6), (0, 1, 2, 3, 4, 500, 999, 5 * 10**5, 10**6 - 1)):
        t = min(t, n)
        left, done = functions.half_cosine(t / n, (n - t) / n)
        assert relative(left, cos_part(mpf(t) / n) if t < n else 0) < 8 * 2.0**-53
        assert relative(done, cos_part(mpf(n - t) / n) if t else 0) < 8 * 2.0**-53
        assert 2 * t == n or (done, left) == functions.half_cosine((n - t) / n, t / n)
    for x, y in zip(rng.uniform(0, 1, 300), rng.uniform(0, 5, 300), strict=True):
        assert relative(functions.power_of(float(x), float(y)), mpf(x) ** mpf(y)) < 64 * 2.0**-53


def test_functions_at_their_ends():
    assert functions.log(1.0) == 0.0
    assert functions.exp(0.0) == 1.0
    assert (functions.exp(-1e300), functions.exp(1e300)) == (0.0, math.inf)
    assert (functions.power_of(0.0, 0.5), functions.power_of(0.0, 0), functions.power_of(0.3, 3)) == (0.0, 1.0, 0.3 * (0.3 * 0.3))


def test_coefficients_are_those_of_the_series():
    sine = [(-1) ** k * (mpmath.pi / 2) ** (2 * k + 1) / mpmath.factorial(2 * k + 1) for k in range(len(functions._SINE))]
    assert [float(c) for c in sine] == list(functions._SINE)
    assert [float(1 / mpmath.factorial(k)) for k in range(14)] == list(functions._EXP)
    high, low = functions._LN2
    assert float(mpmath.log(2) - mpf(high)) == low
    assert high * 2**33 == int(high * 2**33)
    assert (float(1 / mpmath.log(2)), float(mpmath.sqrt(2))) == (functions._LOG2_E, functions._SQRT2)


FUNCTIONS = {
    "log": functions.log,
    "exp": functions.exp,
    "power_of": lambda x: functions.power_of(x, 0.7),
    "half_cosine": lambda x: functions.half_cosine(x, 1 - x)[0],
}
NUMBERS = np.array([0.25, 0.7, 1.0, 1.4142135, 1.4142137, 3e-5, 0.5, 0.999], np.float32)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_same_bits_compiled(name):
    with jax.enable_x64(True):
        value = jax.jit(jax.vmap(lambda x: FUNCTIONS[name](nx.scalar(x)).in_float64()))(jnp.asarray(NUMBERS))
    assert not differing(np.asarray(value), np.array([FUNCTIONS[name](float(x)) for x in NUMBERS])).any()


@pytest.mark.parametrize("name", [pytest.param(name, marks=EXHAUSTIVE) for name in FUNCTIONS])
def test_functions_have_the_same_bits_by_integers(name):
    with jax.enable_x64(True):
        value = jax.jit(jax.vmap(lambda x: FUNCTIONS[name](nx.scalar(x)).computed(binary64.Binary64.of).bits))(jnp.asarray(NUMBERS))
    expected = np.array([FUNCTIONS[name](float(x)) for x in NUMBERS])
    assert not differing(np.asarray(value).view(np.float64), expected).any()


def test_a_number_in_several_places_is_computed_once():
    """A polynomial would be 2ⁿ operations otherwise."""
    calls = []

    def product(a, b):
        calls.append(None)
        return a * b

    with jax.enable_x64(True):
        x = nx.scalar(jnp.float32(1.0))
        for _ in range(15):
            x = nx.Scalar(product, x, x)
        assert float(x.in_float64()) == 1.0
        assert len(calls) == 15
        assert len(x.arrays()) == 1
        assert float(x.of_arguments(iter(range(1))).by_integers(*x.arrays())) == 1.0
        assert len(calls) == 30


# Schedulers.


def optimizer_of(lr=table.LEARNING_RATE, groups=1):
    params = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": lr / (i + 1)} for i in range(groups)]
    return torch_ref.SGD(params, lr=lr, momentum=0.9)


def drive(optimizer, scheduler, steps):
    seen = []
    for _ in range(steps):
        seen.append([(group["lr"], group["momentum"]) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
        assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
    return seen


@pytest.mark.parametrize(("name", "label"), SCHEDULERS)
def test_a_scheduler_goes_on_from_a_checkpoint(name, label):
    """Optimizer and scheduler restored mid-way, in new objects: the same learning rates (and momenta) to the end."""
    make = SHORT[name][label].scheduler
    assert make is not None
    optimizer = optimizer_of()
    scheduler = make(optimizer, torch_ref.lr_scheduler)
    drive(optimizer, scheduler, 9)
    saved = optimizer.state_dict(), scheduler.state_dict()
    expected = drive(optimizer, scheduler, 30)
    again = optimizer_of()
    resumed = make(again, torch_ref.lr_scheduler)
    again.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    assert drive(again, resumed, 30) == expected


@pytest.mark.parametrize(("name", "label"), STOCK_SCHEDULERS)
def test_a_scheduler_of_torch_loads_ours_and_ours_its(name, label):
    """The same keys, but for the dtype; what was loaded goes on from there."""
    make = SHORT[name][label].scheduler
    assert make is not None
    mine, theirs = optimizer_of(), optimizer_of()
    scheduler, stock = make(mine, torch_ref.lr_scheduler), make(theirs, torch.optim.lr_scheduler)
    assert scheduler.state_dict().keys() == stock.state_dict().keys()
    drive(theirs, stock, 5)
    expected = drive(mine, scheduler, 15)[5:]
    mine.load_state_dict(theirs.state_dict())
    scheduler.load_state_dict(stock.state_dict())
    assert drive(mine, scheduler, 10)[1:] == expected[1:]
    stock.load_state_dict(scheduler.state_dict())
    assert stock.last_epoch == 15


def test_every_group_has_its_own_base_learning_rate():
    optimizer = optimizer_of(groups=3)
    scheduler = torch_ref.lr_scheduler.CosineAnnealingLR(optimizer, 20, 0.01)
    for t, seen in enumerate(drive(optimizer, scheduler, 30)):
        expected = [torch_ref.schedules.cosine(0.1 / i, 20, 0.01, after="rise")(t) for i in (1, 2, 3)]
        assert [lr for lr, _ in seen] == expected


def test_last_epoch_resumes_without_a_state_dict():
    optimizer = optimizer_of()
    scheduler = torch_ref.lr_scheduler.StepLR(optimizer, 3)
    values = drive(optimizer, scheduler, 20)
    again = torch_ref.lr_scheduler.StepLR(optimizer, 3, last_epoch=6)
    assert again.last_epoch == 7
    assert drive(optimizer, again, 5) == values[7:12]
    with pytest.raises(KeyError, match="param 'initial_lr' is not specified"):
        torch_ref.lr_scheduler.StepLR(optimizer_of(), 3, last_epoch=6)


def test_a_tensor_learning_rate_is_set_in_place():
    lr = torch.tensor(0.5)
    optimizer = torch_ref.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)
    scheduler = torch_ref.lr_scheduler.StepLR(optimizer, 1, 0.5)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert float(lr) == 0.25


def test_a_cycle_is_over_after_its_steps():
    optimizer = optimizer_of()
    scheduler = torch_ref.lr_scheduler.OneCycleLR(optimizer, 0.1, 30)
    seen = drive(optimizer, scheduler, 30)
    assert optimizer.param_groups[0]["lr"] == seen[-1][0][0]  # the last one stays
    optimizer.step()
    with pytest.raises(ValueError, match="Tried to step 31 times"):
        scheduler.step()


def test_a_cycle_rounds_the_momentum():
    optimizer = torch_ref.AdamW([torch.nn.Parameter(torch.ones(1))])
    scheduler = torch_ref.lr_scheduler.OneCycleLR(optimizer, 0.1, 30)
    schedule = jaxopt_impl.schedules.one_cycle_momentum(30)
    for t in range(30):
        assert optimizer.param_groups[0]["betas"] == (float(schedule(t)), 0.999)
        optimizer.step()
        scheduler.step()


def test_a_step_without_a_gradient():
    """Of one leaf, and of all: then neither side counts."""
    row = AroundRow("schedules", "warm_up, from a quarter")
    params = parameters(SIZES, "float32")
    given = list(islice(gradients("normal", params), 8))
    given[2] = dict.fromkeys(given[2])
    given[4] = {**given[4], "bias": None}
    for context in ("jit", "train_step"):
        assert_identical(row.tx, row.torch, params, given, context=context)


# A schedule that is no number.


def nan_at_2(t):
    return 0.1 if t < 2 else math.nan


NAN = r"^sgd: the schedule of lr is NaN at count 2; a number is needed\.$"


def test_nan_is_refused_by_a_scheduler():
    optimizer = optimizer_of()
    scheduler = torch_ref.ScheduleLR(optimizer, nan_at_2)
    optimizer.step()
    scheduler.step()
    with pytest.raises(ValueError, match=NAN):
        scheduler.step()


def test_nan_is_refused_by_a_transform_outside_of_a_jit():
    """Compiled, it cannot be: NaN then reaches the parameters, for all to see."""
    tx = jaxopt_impl.sgd(nan_at_2)
    params = jnp.ones(2)
    state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(params, state)
    with pytest.raises(ValueError, match=NAN):
        tx.update(params, state)
    compiled = jaxopt_impl.sgd(lambda t: jnp.where(t < 2, 0.1, jnp.nan))
    assert np.isnan(jax.jit(compiled.update)(params, state)[0]).all()


def test_a_schedule_of_ones_own_is_made_of_operators():
    """`Schedule` of a rule: what nx and functions offer."""

    def rule(t):
        return 0.1 * functions.exp(-t / 7)

    mine, theirs = Schedule(rule), torch_ref.schedules.Schedule(rule)
    counts = np.arange(20, dtype=np.int32)
    assert not differing(np.asarray(mine(counts)), np.array([theirs(int(t)) for t in counts], np.float32)).any()


def test_no_schedule_is_compiled_anew_at_another_count():
    schedule = jaxopt_impl.schedules.cosine(0.1, 10)
    update = jax.jit(jaxopt_impl.sgd(schedule).update)
    params = jnp.ones(2)
    state = jaxopt_impl.sgd(schedule).init(params)
    for t in range(3):
        schedule(t)
        _, state = update(params, state)
    assert schedule._compiled._cache_size() == 1 or schedule._compiled._cache_size() == 2  # a Python int, and the step's int32
    assert update._cache_size() == 1


def test_optax_takes_one_of_ours():
    """In optax.join_schedules, inject_hyperparams and its own transforms."""
    schedule = jaxopt_impl.schedules.cosine(0.1, 10)
    joined = optax.join_schedules([optax.constant_schedule(0.5), schedule], [3])
    assert joined(4) == schedule(1)
    tx = optax.inject_hyperparams(jaxopt_impl.sgd)(learning_rate=schedule)
    state = tx.init(jnp.ones(2))
    _, state = tx.update(jnp.ones(2), state, jnp.ones(2))
    assert state.hyperparams["learning_rate"] == schedule(0)
