"""Loss scale (Micikevicius et al. 2018, as torch.amp.GradScaler), and steps left out.  Mirror: torch_ref/around/loss_scale.py

uₜ = gₜ (1/σₜ),   σₜ₊₁ = βσₜ where an element of gₜ is infinite or NaN, else γσₜ after N steps in a row (unless it overflows), else σₜ
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from .. import numerics as nx
from ..transform import counter
from . import checks
from .wrapping import are_finite, each, floating, step_if, wrapped


class LossScaleState(NamedTuple):
    """The state of `loss_scale`."""

    scale: Any  # [] float32: σ, what the next gradients are multiplied by
    growth_tracker: Any  # [] int32: how many steps in a row were finite since the scale changed
    inner_state: Any = None


class Hyper(NamedTuple):
    growth_factor: nx.Number  # γ
    backoff_factor: nx.Number  # β
    growth_interval: int  # N


def inverse(s):
    return nx.in_float32(nx.reciprocal(nx.scalar(s.scale)))


def unscale(g, inverse_scale):
    return g * inverse_scale


def adjust(finite, s, h):
    shrunk, grown = nx.in_float32(nx.scalar(s.scale) * h.backoff_factor), nx.in_float32(nx.scalar(s.scale) * h.growth_factor)
    successes = s.growth_tracker + 1
    grows = successes == h.growth_interval
    scale = nx.choose(finite, nx.choose(grows & nx.is_finite(grown), grown, s.scale), shrunk)
    growth_tracker = nx.choose(finite, nx.choose(grows, 0, successes), 0)
    return s._replace(scale=scale, growth_tracker=growth_tracker)


def check_hyper(name, init_scale, growth_factor, backoff_factor, growth_interval):
    checks.number(name, above=0, below=2.0**128, init_scale=init_scale)
    checks.number(name, above=1, growth_factor=growth_factor)
    checks.number(name, above=0, below=1, backoff_factor=backoff_factor)
    checks.whole(name, at_most=2**31 - 1, growth_interval=growth_interval)  # the count is an int32


def count(finite, s):
    notfinite_count = nx.choose(finite, 0, s.notfinite_count + 1)
    total_notfinite = nx.choose(finite, s.total_notfinite, s.total_notfinite + 1)
    return s._replace(notfinite_count=notfinite_count, last_finite=finite, total_notfinite=total_notfinite)


def accepted(s, max_consecutive_errors):
    return s.last_finite | (s.notfinite_count > max_consecutive_errors)


def loss_scale(
    tx: optax.GradientTransformation,
    init_scale: float = 2.0**16,
    growth_factor: float = 2.0,
    backoff_factor: float = 0.5,
    growth_interval: int = 2000,
) -> optax.GradientTransformationExtraArgs:
    """`tx` for gradients of a loss that was multiplied by `state.scale`: unscaled, and left out where one is not finite.

        uₜ = gₜ (1/σₜ);   σₜ₊₁ = βσₜ where an element of gₜ is infinite or NaN, else γσₜ after N finite steps in a row, else σₜ

    1/σ is computed in float64 and rounded to float32, as γσ and βσ are. A γσ that is infinite is not taken. Where a gradient is not
    finite, the updates are −0 and the state of `tx` stays as it is. `scaled` multiplies the loss.

    Args:
        tx: any optax transform, given the unscaled gradients, the parameters, and further arguments.
        init_scale: σ₁ > 0, rounded to float32.
        growth_factor: γ > 1.
        backoff_factor: 0 < β < 1.
        growth_interval: N >= 1.
    Shapes: updates follow each leaf; `scale` and `growth_tracker` are [].  Dtypes: float32, float64, bfloat16, float16.
    Raises: ValueError where a range above is broken; TypeError where a gradient is not floating point, naming it.
    Exactness: bit-equal to `torch_ref.GradScaler` in all four dtypes, scale and count as well. Run on CPU only.
    Differs from: torch.amp.GradScaler (refuses float16 gradients; its scales, counts and left-out steps are the same). optax has none.
    Source: Micikevicius et al. 2018, section 3.2; torch.amp.GradScaler.
    Example:
        >>> tx = loss_scale(optax.sgd(1.0), init_scale=8.0)
        >>> state = tx.init(jnp.array([0.0]))
        >>> gradient = jax.grad(lambda x: scaled(3 * x.sum(), state))(jnp.array([0.0]))
        >>> tx.update(gradient, state)[0]
        Array([-3.], dtype=float32)
    """
    name = "loss_scale"
    check_hyper(name, init_scale, growth_factor, backoff_factor, growth_interval)
    h = Hyper(growth_factor, backoff_factor, growth_interval)
    tx = optax.with_extra_args_support(tx)

    def init(params):
        floating(name, params)
        scale = jnp.full_like(counter(params), nx.rounded_to(init_scale, "float32"), dtype=jnp.float32)
        return LossScaleState(scale, counter(params), tx.init(params))

    def update(updates, state, params=None, **extra_args):
        updates = floating(name, updates)
        with jax.enable_x64(True):  # for float64 scalars; leaves keep their dtype
            finite = are_finite(updates)
            after = adjust(finite, state, h)

        def unscaled():
            with jax.enable_x64(True):
                inverse_scale = nx.scalar(inverse(state))
                nx.round_ahead([inverse_scale], {g.dtype.name for g in jax.tree.leaves(updates)})
                return each(lambda g: nx.finish(unscale(wrapped(g), inverse_scale)), updates)

        applied, inner_state = step_if(finite, tx, unscaled, state.inner_state, params, extra_args)
        return applied, after._replace(inner_state=inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def scaled(loss: jax.Array, state: Any) -> jax.Array:
    """A loss times the scale of a `loss_scale` state, wherever in `state` that is; a half becomes float32 first.

    Raises: ValueError where there is no such state, or more than one.
    """
    found = [part for part in jax.tree.leaves(state, is_leaf=_is_loss_scale) if _is_loss_scale(part)]
    if len(found) != 1:
        raise ValueError(f"scaled: one state of loss_scale is needed; got {len(found)}.")
    dtype = jnp.result_type(loss)
    wide = jnp.float32 if dtype.name in nx.HALVES else dtype
    return jnp.asarray(loss, wide) * found[0].scale.astype(wide)


def apply_if_finite(tx: optax.GradientTransformation, max_consecutive_errors: int) -> optax.GradientTransformationExtraArgs:
    """`tx`, but that a gradient with an infinite element or a NaN is left out, unless too many in a row are like that.

    Where it is left out, the updates are −0 and the state of `tx` stays as it is.

    Args:
        tx: any optax transform, given the gradients, the parameters, and further arguments.
        max_consecutive_errors: N >= 0; after so many in a row, gradients are let through until one is finite.
    Shapes: updates follow each leaf; the counts are [].  Dtypes: float32, float64, bfloat16, float16.
    Raises: ValueError where N < 0; TypeError where a gradient is not floating point, naming it.
    Exactness: bit-equal to `torch_ref.ApplyIfFinite` in all four dtypes. Run on CPU only.
    Differs from: optax.apply_if_finite, whose updates are 0 where a step is left out, and lose the sign of a −0; the state is the same.
    Source: optax.apply_if_finite.
    Example:
        >>> tx = apply_if_finite(optax.sgd(1.0), max_consecutive_errors=3)
        >>> tx.update(jnp.array([jnp.inf]), tx.init(jnp.array([0.0])))[0]
        Array([-0.], dtype=float32)
    """
    name = "apply_if_finite"
    checks.whole(name, at_least=0, at_most=2**31 - 1, max_consecutive_errors=max_consecutive_errors)
    tx = optax.with_extra_args_support(tx)

    def init(params):
        floating(name, params)
        last_finite = jnp.full_like(counter(params), True, dtype=bool)
        return optax.ApplyIfFiniteState(counter(params), last_finite, counter(params), tx.init(params))

    def update(updates, state, params=None, **extra_args):
        updates = floating(name, updates)
        after = count(are_finite(updates), state)
        steps = accepted(after, max_consecutive_errors)
        applied, inner_state = step_if(steps, tx, lambda: updates, state.inner_state, params, extra_args)
        return applied, after._replace(inner_state=inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _is_loss_scale(part: Any) -> bool:
    return isinstance(part, LossScaleState)
