"""Several microbatches for one step: their sum (as PyTorch) or running mean (optax.MultiSteps).  Mirror: torch_ref/around/accumulation.py

torch: Gₙ₊₁ = Gₙ + gₙ,                    G₀ = −0;   a step at n = N with G_N / N
optax: Gₙ₊₁ = Gₙ + (gₙ − Gₙ) / (n + 1),   G₀ = 0;    a step at n = N with G_N
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from .. import checks as leaf_checks
from .. import numerics as nx
from ..transform import counter
from . import checks
from .wrapping import are_finite, check_alike, each, floating, step_if, wrapped

STARTS = {"torch": -0.0, "optax": 0.0}  # from −0, so that the first gradient is the sum itself: −0 + −0 is −0


class Hyper(NamedTuple):
    every: nx.Number  # N
    form: str
    n: nx.Number = 0  # how many are gathered, set outside of the rule


def gather(g, gathered, h):
    if h.form == "optax":
        return gathered + (g - gathered) / (h.n + 1)
    return gathered + g


def mean(gathered, h):
    return gathered if h.form == "optax" else gathered / h.every


class AccumulateState(NamedTuple):
    """The state of `accumulate`."""

    microbatch: Any  # [] int32: n, how many are gathered for the next step
    skipped: Any  # [] int32: how many were not, since they were not finite
    gathered: Any  # shaped as the parameters: Gₙ
    inner_state: Any


def accumulate(
    tx: optax.GradientTransformation,
    every: int,
    form: str = "torch",
    *,
    skip_nonfinite: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """One step of `tx` for several microbatches, of the mean of their gradients; the updates are −0 in between.

        form="torch": the gradients are added in their order, the sum is divided by N once
        form="optax": Gₙ₊₁ = Gₙ + (gₙ − Gₙ) / (n + 1) from G₀ = 0

    A None in the place of a gradient adds nothing. The last microbatch says who steps: a leaf without a gradient in it does not, and what
    it has gathered waits for the step at which it has one.

    Args:
        tx: any optax transform, given the mean, the parameters, and further arguments.
        every: N >= 1, how many microbatches make a step.
        form: "torch" or "optax".
        skip_nonfinite: a microbatch in which any element is infinite or NaN is not counted, as with optax.skip_not_finite.
        accumulator_dtype: float32 gathers the gradients of bfloat16 and float16 leaves in float32. The mean is rounded to the dtype of the
            gradients, which may be float32 then.
    Shapes: `gathered` follows each leaf; `microbatch` and `skipped` are [].  Dtypes: float32, float64, bfloat16, float16; gathered in the
        leaf's dtype, or in `accumulator_dtype`.
    Raises: ValueError where every < 1, or the form is not known; TypeError where a leaf is not floating point, naming it.
    Exactness: bit-equal to `torch_ref.Accumulator` in all four dtypes. Run on CPU only.
    Differs from: dividing each loss by N, as torch's users often do (other bits, unless N is a power of two); optax.MultiSteps (gathers in
        float32; its updates in between are 0, and lose the sign of a −0; it starts again at 0 · G, which is NaN after an infinity).
    Source: PyTorch's notes on automatic mixed precision, "Gradient accumulation"; optax.MultiSteps, after Welford 1962.
    Example:
        >>> tx = accumulate(optax.sgd(1.0), every=2)
        >>> state = tx.init(jnp.array([0.0]))
        >>> _, state = tx.update(jnp.array([1.0]), state)
        >>> tx.update(jnp.array([2.0]), state)[0]
        Array([-1.5], dtype=float32)
    """
    name = "accumulate"
    checks.whole(name, every=every)
    checks.one_of(name, tuple(STARTS), form=form)
    accumulator = leaf_checks.accumulator(name, accumulator_dtype)
    tx = optax.with_extra_args_support(tx)

    def empty(leaf):
        return jnp.full_like(leaf, STARTS[form], dtype=nx.state_dtype(jnp.result_type(leaf).name, accumulator))

    def init(params):
        return AccumulateState(counter(params), counter(params), jax.tree.map(empty, floating(name, params)), tx.init(params))

    def update(updates, state, params=None, **extra_args):
        updates = floating(name, updates)
        check_alike(name, updates, state.gathered, "gathered gradient", accumulator)
        with jax.enable_x64(True):  # for float64 scalars; leaves keep their dtype
            h = Hyper(every, form, nx.scalar(state.microbatch))
            nx.round_ahead(h, {x.dtype.name for x in jax.tree.leaves(state.gathered)})
            gathered = each(lambda g, x: nx.unwrap(gather(wrapped(g, x.dtype.name), wrapped(x), h)), updates, state.gathered)
            counted = are_finite(updates) if skip_nonfinite else jnp.asarray(True)
        steps = counted & (state.microbatch + 1 == every)

        def means():
            with jax.enable_x64(True):
                return each(lambda g, x: nx.finish(mean(wrapped(x), h), g.dtype.name), updates, gathered)

        def goes_on(before, after):
            return before if after is None else jnp.where(steps, STARTS[form], jnp.where(counted, after, before))

        applied, inner_state = step_if(steps, tx, means, state.inner_state, params, extra_args)
        microbatch = jnp.where(steps, 0, jnp.where(counted, state.microbatch + 1, state.microbatch))
        skipped = jnp.where(counted, state.skipped, optax.safe_increment(state.skipped))
        return applied, AccumulateState(microbatch, skipped, jax.tree.map(goes_on, state.gathered, gathered), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
