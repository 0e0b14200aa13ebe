"""Averages of the parameters, exponential (EMA) and equal (SWA, Izmailov et al. 2018).  Mirror: torch_ref/around/averages.py

aₙ₊₁ = βₙ aₙ + (1 − βₙ) θ,   a₁ = θ (form "torch"), or a₀ = 0 and aₙ / (1 − βⁿ) is read (form "optax")
βₙ = β, or with warm-up max(min(1 − 1/(1 + n/γ)^κ, β), β_min)
equal: aₙ₊₁ = aₙ + (θ − aₙ) / (n + 1),   a₁ = θ
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jax.typing import DTypeLike

from .. import checks as leaf_checks
from .. import numerics as nx
from ..transform import counter
from . import checks
from .functions import power_of
from .wrapping import floating

FORMS = ("torch", "optax")


class AverageState(NamedTuple):
    average: nx.Rounded | None = None  # shaped as p: aₙ
    biased_average: nx.Rounded | None = None  # shaped as p: aₙ where a₀ = 0
    n_averaged: nx.Count = None  # how many were averaged, a scalar that is counted outside of the rule
    n_steps: nx.Count = None  # how many steps there were, where not each is averaged


class Hyper(NamedTuple):
    decay: nx.Number | None  # β; None makes the equal average
    form: str = "torch"
    use_warmup: bool = False
    min_decay: nx.Number = 0.0  # β_min
    warmup_gamma: nx.Number = 1.0  # γ
    warmup_power: nx.Number = 1.0  # κ
    n: nx.Number = 0.0  # n, set outside of the rule
    rest: nx.Number = 0.0  # 1 − βₙ, set by prepare


def prepare(h):
    if h.decay is None:
        return h
    decay = h.decay
    if h.use_warmup:
        decay = nx.minimum(1 - 1 / power_of(1 + h.n / h.warmup_gamma, h.warmup_power), decay)
        decay = nx.maximum(decay, h.min_decay)
    return h._replace(decay=decay, rest=1 - decay)


# The rule on one array: parameter p, state s, hyper-parameters h.
def step(p, s, h):
    if h.decay is None:
        return AverageState(nx.unless_zero(h.n, s.average + (p - s.average) / (h.n + 1), p))
    if h.form == "optax":
        return AverageState(biased_average=h.decay * s.biased_average + h.rest * p)
    return AverageState(nx.unless_zero(h.n, h.decay * s.average + h.rest * p, p))


def debiased(a, h):
    return a / (1 - nx.power(h.decay, h.n))


def params_ema(
    decay: float = 0.999,
    *,
    form: Literal["torch", "optax"] = "torch",
    min_decay: float = 0.0,
    update_after_step: int = 0,
    use_warmup: bool = False,
    warmup_gamma: float = 1.0,
    warmup_power: float = 2 / 3,
    start: int = 0,
    every: int = 1,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The exponential moving average of the parameters, in the state of a transform that stands last in a chain.

        aₙ₊₁ = βₙ aₙ + (1 − βₙ) θ,   θ the parameters after the step, as `optax.apply_updates` makes them

    The updates pass unchanged. `averaged` reads the average.

    Args:
        decay: 0 <= β <= 1; of form "optax" β < 1. In bfloat16 the average of β = 0.9999 does not move: βa rounds back to a, and
            (1 − β)θ is too small to be added. Use `accumulator_dtype`.
        form: "torch" begins with a copy of the first θ. "optax" begins with 0, keeps that, and `averaged` divides by 1 − βⁿ.
        min_decay: 0 <= β_min <= 1, below which warm-up does not go.
        update_after_step: the average stays a copy for so many more steps, as timm has it; n counts from there.
        use_warmup: βₙ = max(min(1 − 1/(1 + n/γ)^κ, β), β_min), in float64, rounded once. Of form "torch".
        warmup_gamma: γ >= 1e-100.
        warmup_power: κ >= 0.
        start: the first step that is averaged, counted from 0. Before it the average is the parameters at `init`, or 0.
        every: from there, each so many-th step is averaged.
        accumulator_dtype: float32 keeps the average of bfloat16 and float16 leaves in float32.
    Shapes: `average` (form "torch") or `biased_average` (form "optax") follows each leaf; `n_averaged` is [], and so is `n_steps`, which is
        there where not every step is averaged.  Dtypes: float32, float64, bfloat16, float16; the average in the leaf's dtype, or in
        `accumulator_dtype`.
    Raises: ValueError where a range above is broken, or `update` gets no parameters; TypeError where a leaf is not floating point.
    Exactness: bit-equal to `torch_ref.AveragedModel` in all four dtypes. Run on CPU; GPU and TPU not run.
    Differs from: optax.ema, which averages updates; optax.incremental_update (step_size = 1 − β; begins where the caller does). With
        torch.optim.swa_utils.AveragedModel and `get_ema_avg_fn` it agrees; `get_ema_multi_avg_fn` and timm's ModelEmaV3 use lerp: an FMA.
    Source: Polyak & Juditsky 1992 (averaging); torch.optim.swa_utils; optax.ema (debiasing: Kingma & Ba 2015); timm.utils.ModelEmaV3.
    Example:
        >>> tx = optax.chain(optax.sgd(1.0), params_ema(0.75))
        >>> params = jnp.array([8.0])
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     updates, state = tx.update(jnp.array([4.0]), state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> params, averaged(state)
        (Array([0.], dtype=float32), Array([3.], dtype=float32))
    """
    name = "params_ema"
    check_ema(name, decay, form, min_decay, update_after_step, use_warmup, warmup_gamma, warmup_power)
    hyper = Hyper(decay, form, use_warmup, min_decay, warmup_gamma, warmup_power)
    return _transform(name, hyper, update_after_step, start, every, accumulator_dtype)


def params_swa(*, start: int = 0, every: int = 1, accumulator_dtype: DTypeLike | None = None) -> optax.GradientTransformationExtraArgs:
    """The equal average of the parameters, in the state of a transform that stands last in a chain: stochastic weight averaging.

        aₙ₊₁ = aₙ + (θ − aₙ) / (n + 1),   θ the parameters after the step, as `optax.apply_updates` makes them

    The updates pass unchanged. `averaged` reads the average.

    Args:
        start: the first step that is averaged, counted from 0. Before it the average is the parameters at `init`.
        every: from there, each so many-th step is averaged.
        accumulator_dtype: float32 keeps the average of bfloat16 and float16 leaves in float32.
    Shapes: as `params_ema`.  Dtypes: as `params_ema`.
    Raises: ValueError where start < 0 or every < 1, or `update` gets no parameters; TypeError where a leaf is not floating point.
    Exactness: bit-equal to `torch_ref.AveragedModel` without a decay, in all four dtypes. Run on CPU; GPU and TPU not run.
    Differs from: torch.optim.swa_utils.AveragedModel by default, which uses lerp: an FMA. With `get_swa_avg_fn` it agrees.
    Source: Izmailov, Podoprikhin, Garipov, Vetrov & Wilson 2018, algorithm 1.
    Example:
        >>> tx = optax.chain(optax.sgd(1.0), params_swa())
        >>> params = jnp.array([8.0])
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     updates, state = tx.update(jnp.array([4.0]), state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> averaged(state)
        Array([2.], dtype=float32)
    """
    return _transform("params_swa", Hyper(None), 0, start, every, accumulator_dtype)


def averaged(state: Any, decay: float | None = None) -> Any:
    """The average of the parameters that a state holds.

    Args:
        state: of `params_ema` or `params_swa`, or of a chain, a wrapper, a training state with one of them in it.
        decay: β of form "optax", whose average is divided by 1 − βⁿ here (so it is NaN before the first step).
    Returns: a tree like the parameters, in the average's dtype.
    Raises: ValueError where the state holds none, or several, or is of form "optax" and no decay is given.
    """
    found = [node for node in jax.tree.leaves(state, is_leaf=_is_state) if _is_state(node)]
    if len(found) != 1:
        raise ValueError(f"averaged: the state of one average of parameters is needed; got {len(found)}.")
    (own,) = found
    if own.biased_average is None:
        return own.average
    if decay is None:
        raise ValueError("averaged: form='optax' keeps a biased average; its decay is needed.")
    checks.number("averaged", at_least=0, below=1, decay=decay)
    with jax.enable_x64(True):
        h = Hyper(decay, n=nx.scalar(own.n_averaged))
        return jax.tree.map(lambda a: nx.finish(debiased(nx.wrap(nx.barrier(a)[0], a.dtype.name), h)), own.biased_average)


def check_ema(name, decay, form, min_decay, update_after_step, use_warmup, warmup_gamma, warmup_power):
    checks.one_of(name, FORMS, form=form)
    if form == "optax":
        checks.number(name, at_least=0, below=1, decay=decay)
    checks.number(name, at_least=0, at_most=1, decay=decay, min_decay=min_decay)
    checks.whole(name, at_least=0, update_after_step=update_after_step)
    checks.number(name, at_least=1e-100, warmup_gamma=warmup_gamma)
    checks.number(name, at_least=0, warmup_power=warmup_power)
    if form == "optax" and (use_warmup or update_after_step):
        raise ValueError(f"{name}: use_warmup and update_after_step are of form 'torch'; form 'optax' divides by 1 - decay**n.")


def _transform(name, hyper, update_after_step, start, every, accumulator_dtype) -> optax.GradientTransformationExtraArgs:
    checks.whole(name, at_least=0, start=start)
    checks.whole(name, every=every)
    shell = _Shell(name, hyper, update_after_step, start, every, leaf_checks.accumulator(name, accumulator_dtype))
    return optax.GradientTransformationExtraArgs(shell.init, shell.update)


@dataclass(frozen=True, eq=False)
class _Shell:
    """`init` and `update` of one average; the arguments are those of `params_ema`."""

    name: str
    hyper: Hyper
    update_after_step: int
    start: int
    every: int
    accumulator: str | None

    @property
    def field(self) -> str:
        return "biased_average" if self.hyper.form == "optax" else "average"

    @property
    def counts_steps(self) -> bool:
        return self.start > 0 or self.every > 1

    def init(self, params):
        """The state before the first step."""

        def begin(leaf):
            dtype = nx.state_dtype(leaf.dtype.name, self.accumulator)
            return jnp.zeros_like(leaf, dtype) if self.field == "biased_average" else jnp.array(leaf, dtype, copy=True)

        tree = jax.tree.map(begin, floating(self.name, params))
        return self.state(tree, n_averaged=counter(params), n_steps=counter(params) if self.counts_steps else None)

    def update(self, updates, state, params=None, **extra_args):
        """The updates as they are, and the state with the parameters after them."""
        del extra_args
        if params is None:
            raise ValueError(f"{self.name}: the parameters are averaged; call update(updates, state, params).")
        updates = floating(self.name, updates)
        leaves, treedef = jax.tree.flatten(floating(self.name, params))
        updates_, averages = (
            self.like(treedef, tree, what) for tree, what in ((updates, "update"), (getattr(state, self.field), self.field))
        )
        n, steps = state.n_averaged, state.n_steps
        due = (steps >= self.start) & ((steps - self.start) % self.every == 0) if self.counts_steps else None
        with jax.enable_x64(True):  # for float64 scalars; leaves keep their dtype
            h = prepare(self.hyper._replace(n=nx.scalar(jnp.maximum(n - self.update_after_step, 0))))
            nx.round_ahead(h, {a.dtype.name for a in averages})
            step_leaf = partial(self.step_leaf, h, due)
            if isinstance(n, Tracer):  # traced once for all leaves of a shape; outside of a jit it would be compiled at each step
                step_leaf = jax.jit(step_leaf)
            averages = [step_leaf(*own) for own in zip(leaves, updates_, averages, strict=True)]
        after: Any = optax.safe_increment(n)
        average = treedef.unflatten(averages)
        updates = jax.tree.map(_apart, updates)
        if due is None:
            return updates, self.state(average, n_averaged=after)
        return updates, self.state(average, n_averaged=jnp.where(due, after, n), n_steps=optax.safe_increment(steps))

    def state(self, average, **counters) -> Any:
        """The rule's `AverageState`, None where this configuration keeps no such field."""
        return AverageState(**{self.field: average}, **counters)

    def like(self, treedef, tree, what) -> list:
        """The leaves of a tree in the places of the parameters; None where the parameter has none."""
        try:
            return treedef.flatten_up_to(tree)
        except ValueError:
            got = jax.tree.structure(tree)
            raise ValueError(f"{self.name}: the {what} has another tree than the parameters: {got}, parameters {treedef}.") from None

    def step_leaf(self, h, due, p, u, a):
        """One leaf through the kernel: arrays in, the next average out."""
        p, u, a = nx.barrier(p, u, a)
        own, kept = p.dtype.name, a.dtype.name
        p = p if u is None else nx.unwrap(nx.wrap(p, own) + nx.wrap(u, own))
        s = step(nx.wrap(p, kept), self.state(nx.wrap(a, kept)), h)
        after = nx.unwrap(getattr(s, self.field))
        return after if due is None else jnp.where(due, after, a)


def _apart(u):
    """The update as a value that `apply_updates` adds as it was added here, whatever made it: as a product it would become an FMA."""
    return nx.finish(nx.wrap(u, u.dtype.name)) if isinstance(u, Tracer) else u


def _is_state(node: Any) -> bool:
    return isinstance(node, AverageState)
