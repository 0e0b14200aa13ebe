"""Schedules: a hyper-parameter as a function of the count of steps t = 0, 1, 2 ...  Mirror: torch_ref/around/schedules.py

Each is a closed form in float64, rounded once to float32; it is computed anew at each step, so that no error adds up. Where a value goes
from a to b it is a·(what is left) + b·(what is done): both ends are exact, and nothing cancels. A schedule made here is a schedule of optax
in JAX; in PyTorch `ScheduleLR` drives an optimizer by it, and `torch_ref.lr_scheduler` has the classes of torch.optim.

Exactness: the same bits in both packages, called with a number or an array, in a jit, in the step. Run on CPU; on a GPU or TPU not run.
    Of 10,000 counts each value is the float32 next to the formula's. Stock is near: optax's formulas with x64 and torch's closed forms are
    within 1 ulp; optax's in float32 are not, where a value comes near 0. `optparity.around.schedules.distances` measures it.
Raises: ValueError or TypeError where an argument is out of its range, not finite, or no number. A schedule of one's own that gives NaN is
    refused where it is called outside of a jit, as `ScheduleLR` calls it; compiled, its NaN reaches the parameters.
"""

from .. import numerics as nx
from . import checks
from .counted import Schedule
from .functions import exp, half_cosine, log, power_of

ANNEAL = {"cos": half_cosine, "linear": lambda done, left: (left, done)}


def constant(value, factor=1.0, steps=0):
    """One value; or factor · value for the first steps, then the value.

    Args:
        value: >= 0.
        factor: >= 0.
        steps: how many counts the factor is for.
    Source: torch.optim.lr_scheduler.ConstantLR, optax.constant_schedule.
    """
    value, factor = checks.finite("constant", at_least=0, value=value, factor=factor)
    checks.whole("constant", at_least=0, steps=steps)
    return Schedule(lambda t: nx.where(nx.less(t, steps), value * factor, value) if steps else value)


def step(init_value, step_size, gamma=0.1):
    """init_value · gammaⁿ, n = ⌊t / step_size⌋, by binary powering.

    Args:
        init_value: >= 0.
        step_size: how many counts each value is for, >= 1.
        gamma: >= 0.
    Source: torch.optim.lr_scheduler.StepLR; optax.exponential_decay(..., staircase=True).
    """
    init_value, gamma = checks.finite("step", at_least=0, init_value=init_value, gamma=gamma)
    checks.whole("step", step_size=step_size)
    return Schedule(lambda t: init_value * nx.power(gamma, nx.floor(t / step_size)))


def multi_step(init_value, milestones, gamma=0.1):
    """init_value · gammaⁿ, n = how many of the milestones are <= t.

    Args:
        init_value: >= 0.
        milestones: counts, in any order; one that is there twice counts twice.
        gamma: >= 0.
    Source: torch.optim.lr_scheduler.MultiStepLR, optax.piecewise_constant_schedule.
    """
    init_value, gamma = checks.finite("multi_step", at_least=0, init_value=init_value, gamma=gamma)
    for milestone in milestones:
        checks.whole("multi_step", at_least=0, milestone=milestone)
    ends = sorted(milestones)

    def rule(t):
        value = init_value * nx.power(gamma, len(ends))
        for n in reversed(range(len(ends))):
            value = nx.where(nx.less(t, ends[n]), init_value * nx.power(gamma, n), value)
        return value

    return Schedule(rule)


def exponential(init_value, gamma, transition_steps=1, begin=0, staircase=False, end_value=None):
    """init_value · gammaˣ, x = (t − begin) / transition_steps, or ⌊x⌋ as a staircase.

    The whole part of x is binary powering; the rest is e^(rest · log gamma).

    Args:
        init_value: >= 0.
        gamma: > 0.
        transition_steps: over how many counts gamma is reached, >= 1.
        begin: before this count it is init_value.
        staircase: whether the value stays in between.
        end_value: where it stops, from above for gamma < 1, from below otherwise.
    Source: torch.optim.lr_scheduler.ExponentialLR, optax.exponential_decay.
    """
    [init_value] = checks.finite("exponential", at_least=0, init_value=init_value)
    [gamma] = checks.finite("exponential", above=0, gamma=gamma)
    checks.whole("exponential", transition_steps=transition_steps)
    checks.whole("exponential", at_least=0, begin=begin)
    if end_value is not None:
        [end_value] = checks.finite("exponential", at_least=0, end_value=end_value)
    stop = nx.maximum if gamma < 1 else nx.minimum

    def rule(t):
        done = nx.maximum(t - begin, 0.0)
        n = nx.floor(done / transition_steps)
        value = init_value * nx.power(gamma, n)
        if transition_steps > 1 and not staircase:
            value = value * exp((done - n * transition_steps) / transition_steps * log(gamma))
        return value if end_value is None else stop(value, end_value)

    return Schedule(rule)


def linear(init_value, end_value, steps, begin=0):
    """From init_value at the count `begin` to end_value `steps` later, on a line; then end_value.

    Args:
        init_value: >= 0.
        end_value: >= 0.
        steps: >= 1.
        begin: before this count it is init_value.
    Source: torch.optim.lr_scheduler.LinearLR, optax.linear_schedule.
    """
    init_value, end_value = checks.finite("linear", at_least=0, init_value=init_value, end_value=end_value)
    checks.whole("linear", steps=steps)
    checks.whole("linear", at_least=0, begin=begin)

    def rule(t):
        done, left = _way(t - begin, steps)
        return init_value * left + end_value * done

    return Schedule(rule)


def polynomial(init_value, steps, power=1.0, end_value=0.0, begin=0):
    """end_value + (init_value − end_value) · (1 − (t − begin)/steps)ᵖ; then end_value.

    Args:
        init_value: >= 0.
        steps: >= 1.
        power: p >= 0; a whole one is binary powering, another e^(p log x).
        end_value: >= 0.
        begin: before this count it is init_value.
    Source: torch.optim.lr_scheduler.PolynomialLR, optax.polynomial_schedule.
    """
    init_value, power, end_value = checks.finite("polynomial", at_least=0, init_value=init_value, power=power, end_value=end_value)
    checks.whole("polynomial", steps=steps)
    checks.whole("polynomial", at_least=0, begin=begin)

    def rule(t):
        _, left = _way(t - begin, steps)
        part = power_of(left, power)
        return init_value * part + end_value * (1 - part)

    return Schedule(rule)


def cosine(init_value, steps, end_value=0.0, exponent=1.0, denominator="steps", after="hold"):
    """From init_value to end_value along half a cosine: end_value + (init_value − end_value) · ((1 + cos(π t/T)) / 2)ᵖ.

    Args:
        init_value: >= 0.
        steps: >= 1.
        end_value: >= 0.
        exponent: p >= 0.
        denominator: "steps": T = steps, so that the end is reached after so many steps, as in torch.optim, optax and Hugging Face.
            "steps - 1": T = steps − 1, so that the last of so many steps is done with end_value, as in torch's OneCycleLR and MMEngine.
        after: "hold": end_value from T on, as in optax. "rise": up again to init_value at 2T and so on, as in CosineAnnealingLR.
    Source: Loshchilov & Hutter 2017, equation 5; torch.optim.lr_scheduler.CosineAnnealingLR (its closed form; step by step it is a product
        of ratios), optax.cosine_decay_schedule (alpha = end_value / init_value).
    Example:
        >>> schedule = cosine(0.5, 100)
        >>> [float(schedule(count)) for count in (0, 50, 100)]
        [0.5, 0.25, 0.0]
    """
    init_value, end_value, exponent = checks.finite("cosine", at_least=0, init_value=init_value, end_value=end_value, exponent=exponent)
    checks.one_of("cosine", ("steps", "steps - 1"), denominator=denominator)
    checks.one_of("cosine", ("hold", "rise"), after=after)
    checks.whole("cosine", at_least=1 if denominator == "steps" else 2, steps=steps)
    last = steps if denominator == "steps" else steps - 1

    def rule(t):
        if after == "rise":
            t = t - nx.floor(t / (2 * last)) * (2 * last)
            t = nx.minimum(t, 2 * last - t)
        left, done = half_cosine(*_way(t, last))
        if exponent != 1:
            left = power_of(left, exponent)
            done = 1 - left
        return init_value * left + end_value * done

    return Schedule(rule)


def warm_up(schedule, steps, init_value=0.0):
    """From init_value to the schedule's first value on a line; then the schedule, counted from there.

    Args:
        schedule: any of those here.
        steps: >= 1; at this count the schedule begins.
        init_value: >= 0.
    Source: torch.optim.lr_scheduler.SequentialLR of a LinearLR and another; optax.join_schedules, optax.warmup_cosine_decay_schedule
        (whose decay_steps count the warm-up too).
    Example:
        >>> schedule = warm_up(cosine(0.5, 100), 10)
        >>> [float(schedule(count)) for count in (0, 5, 10, 60)]
        [0.0, 0.25, 0.5, 0.25]
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"Invalid schedule: {schedule!r} (warm_up: schedule is one that this module makes)")
    [init_value] = checks.finite("warm_up", at_least=0, init_value=init_value)
    checks.whole("warm_up", steps=steps)
    first_value = schedule.rule(0.0)

    def rule(t):
        done, left = _way(t, steps)
        warm = init_value * left + first_value * done
        return nx.where(nx.less(t, steps), warm, schedule.rule(nx.maximum(t - steps, 0.0)))

    return Schedule(rule)


def phases(values, ends, anneal="cos"):
    """From each value to the next, the i-th way ending at the count ends[i]; then the last value.

    Args:
        values: >= 0, one more than ends.
        ends: counts, each larger than the one before, the first than 0. They need not be whole.
        anneal: "cos", along half a cosine, or "linear".
    Source: optax.piecewise_interpolate_schedule (which takes ratios of the values).
    """
    values = [checks.finite("phases", at_least=0, value=value)[0] for value in values]
    checks.one_of("phases", tuple(ANNEAL), anneal=anneal)
    if len(values) != len(ends) + 1:
        raise ValueError(f"Invalid ends: {len(ends)} of them for {len(values)} values (phases: one less than the values)")
    ends = [checks.finite("phases", above=start, end=end)[0] for start, end in zip((0, *ends), ends, strict=False)]

    def rule(t):
        t = nx.minimum(t, ends[-1])
        start, end, first, last = 0.0, ends[0], values[0], values[1]
        for i in range(1, len(ends)):
            over = nx.less(ends[i - 1], t)
            start, end = nx.where(over, ends[i - 1], start), nx.where(over, ends[i], end)
            first, last = nx.where(over, values[i], first), nx.where(over, values[i + 1], last)
        left, done = ANNEAL[anneal]((t - start) / (end - start), (end - t) / (end - start))
        return first * left + last * done

    return Schedule(rule)


def one_cycle(
    peak_value, steps, pct_start=0.3, div_factor=25.0, final_div_factor=1e4, anneal="cos", three_phase=False, form="torch", pct_final=0.85
):
    """One cycle of a learning rate: up from peak/div to the peak, and down to peak/(div · final_div), or to peak/div and then on to it.

    Args:
        peak_value: >= 0.
        steps: of the whole cycle.
        pct_start: the part of the steps in which it rises.
        div_factor: > 0.
        final_div_factor: > 0.
        anneal: "cos" or "linear".
        three_phase: whether it first comes down to where it began.
        form: "torch": the phases end at pct_start · steps − 1, at 2 · pct_start · steps − 2 if there are three, and at steps − 1.
            "optax": at ⌊pct_start · steps⌋, ⌊pct_final · steps⌋ and steps.
        pct_final: where the second of three phases ends, in optax's form.
    Source: Smith & Topin 2018; torch.optim.lr_scheduler.OneCycleLR (whose value one step after the end is not the last one),
        optax.cosine_onecycle_schedule (two phases), optax.linear_onecycle_schedule (three).
    """
    [peak_value] = checks.finite("one_cycle", at_least=0, peak_value=peak_value)
    div_factor, final_div_factor = checks.finite("one_cycle", above=0, div_factor=div_factor, final_div_factor=final_div_factor)
    first = peak_value / div_factor
    values = (first, peak_value, first, first / final_div_factor) if three_phase else (first, peak_value, first / final_div_factor)
    return phases(values, _cycle("one_cycle", steps, pct_start, three_phase, form, pct_final), anneal)


def one_cycle_momentum(
    steps, base_momentum=0.85, max_momentum=0.95, pct_start=0.3, anneal="cos", three_phase=False, form="torch", pct_final=0.85
):
    """What is cycled against `one_cycle`: a momentum, or Adam's β₁, down from max to base and up again.

    Args:
        steps: of the whole cycle.
        base_momentum: at the learning rate's peak, 0 to 1.
        max_momentum: at both ends, 0 to 1.
        pct_start, anneal, three_phase, form, pct_final: as in `one_cycle`.
    Source: torch.optim.lr_scheduler.OneCycleLR with cycle_momentum=True.
    """
    checks.number("one_cycle_momentum", at_least=0, at_most=1, base_momentum=base_momentum, max_momentum=max_momentum)
    values = (max_momentum, base_momentum, *(max_momentum,) * (2 if three_phase else 1))
    return phases(values, _cycle("one_cycle_momentum", steps, pct_start, three_phase, form, pct_final), anneal)


def inverse_sqrt(init_value, timescale):
    """init_value / √((t + timescale) / timescale).

    After a warm-up of w steps it is that of Hugging Face and big_vision; with timescale = w also fairseq's and the Transformer's, which
    fall as 1/√t from their peak. T5's, which stays for its first k counts, is `warm_up(inverse_sqrt(a, k), k, a)`.

    Args:
        init_value: >= 0.
        timescale: > 0.
    Source: Vaswani et al. 2017, section 5.3; get_inverse_sqrt_schedule of Hugging Face transformers.
    """
    [init_value] = checks.finite("inverse_sqrt", at_least=0, init_value=init_value)
    [timescale] = checks.finite("inverse_sqrt", above=0, timescale=timescale)
    return Schedule(lambda t: init_value / nx.sqrt((t + timescale) / timescale))


def _way(t, steps):
    """Which parts of the steps are done, and are left, at count t."""
    done = nx.minimum(nx.maximum(t, 0.0), float(steps))
    return done / steps, (steps - done) / steps


def _cycle(name, steps, pct_start, three_phase, form, pct_final):
    """Where the phases of a cycle end."""
    checks.whole(name, steps=steps)
    checks.number(name, at_least=0, at_most=1, pct_start=pct_start, pct_final=pct_final)
    checks.one_of(name, ("torch", "optax"), form=form)
    if form == "torch":
        ends = (pct_start * steps - 1, 2 * pct_start * steps - 2, steps - 1) if three_phase else (pct_start * steps - 1, steps - 1)
    else:
        ends = (int(pct_start * steps), int(pct_final * steps), steps) if three_phase else (int(pct_start * steps), steps)
    if not all(start < end for start, end in zip((0, *ends), ends, strict=False)):
        raise ValueError(
            f"Invalid steps value: {steps} ({name}: each phase takes some of the steps; they would end at {', '.join(map(str, ends))})"
        )
    return ends
