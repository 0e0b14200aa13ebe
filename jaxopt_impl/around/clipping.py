"""Clipping of gradients: by their global norm (Pascanu, Mikolov & Bengio 2013), and by value.  Mirror: torch_ref/around/clipping.py

form "torch":  gₜ ← gₜ min(c / (‖gₜ‖ + 10⁻⁶), 1)
form "optax":  gₜ ← gₜ where ‖gₜ‖ < c, else gₜ / ‖gₜ‖ · c
by value:      gₜ ← min(max(gₜ, −c), c)
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import keystr, tree_leaves_with_path, tree_map_with_path

from .. import checks
from .. import numerics as nx
from ..transform import counter
from . import checks as around_checks
from .norm import checked, norm_dtype, norm_of


class State(NamedTuple):
    norm: nx.Rounded  # []  ‖gₜ‖, before it is clipped


class Hyper(NamedTuple):
    limit: nx.Number  # c


# The rules on one array g; `norm` is that of all arrays.
def torch_form(g, norm, h):
    return g * nx.like(nx.minimum(h.limit / (norm + 1e-6), 1.0), g)


def optax_form(g, norm, h):
    return nx.choose(nx.less(norm, h.limit), g, g / nx.like(norm, g) * h.limit)


def by_value(g, h):
    return nx.clamp(g, -h.limit, h.limit)


FORMS = {"torch": torch_form, "optax": optax_form}


def clip_by_global_norm(
    max_norm: float, form: Literal["torch", "optax"] = "torch", *, axis_name: Any = None
) -> optax.GradientTransformationExtraArgs:
    """Scale all gradients together, so that their norm is at most `max_norm`.

        form "torch":  gₜ ← gₜ min(c / (‖gₜ‖ + 10⁻⁶), 1)
        form "optax":  gₜ ← gₜ where ‖gₜ‖ < c, else gₜ / ‖gₜ‖ · c

    Each operation is rounded once. What is computed of the norm alone is in its dtype, and rounded to that of a leaf where it meets one.

    Args:
        max_norm: c >= 0.
        form: whose formula.
        axis_name: as in `global_norm`.
    Shapes: updates follow each leaf; the state is `norm` [], that of the last gradients before they were clipped.  Dtypes: float32,
        float64, bfloat16, float16, also mixed; `norm` is float64 if a leaf is, else float32.
    Raises: ValueError where a range above is broken; TypeError where a leaf is not floating point, naming it.
    Exactness: bit-equal to `torch_ref.clip_grad_norm_` in all four dtypes; the norm is `global_norm`'s. Run on CPU; for GPU and TPU
        compiled, not run.
    Differs from: torch.nn.utils.clip_grad_norm_ and optax.clip_by_global_norm (neither norm is correctly rounded; torch multiplies c by the
        reciprocal of ‖gₜ‖ + 10⁻⁶; both take halves by numbers that are halves). As in both, a NaN makes NaN of every gradient.
    Source: Pascanu, Mikolov & Bengio 2013, algorithm 1.
    Example:
        >>> import jax.numpy as jnp
        >>> tx = clip_by_global_norm(2.5, form="optax")
        >>> updates, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
        >>> updates, state.norm
        (Array([1.5, 2. ], dtype=float32), Array(5., dtype=float32))
    """
    name = "clip_by_global_norm"
    checks.at_least_zero(name, max_norm=max_norm)
    around_checks.one_of(name, tuple(FORMS), form=form)
    rule = FORMS[form]

    def init(params: Any) -> Any:
        _floating(name, params)
        norm: Any = counter(params).astype(norm_dtype(jax.tree.leaves(params)))
        return State(norm)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        del params, extra_args
        norm: Any = norm_of(name, updates, axis_name)

        def clip(g, h):
            return rule(g, nx.wrap(norm, norm.dtype.name), h)

        return _clipped(clip, updates, max_norm), State(norm.astype(state.norm.dtype))

    return optax.GradientTransformationExtraArgs(init, update)


def clip_by_value(max_delta: float) -> optax.GradientTransformationExtraArgs:
    """Bring each number of the gradients into [−c, c]. Zeros and NaN stay as they are.

        gₜ ← min(max(gₜ, −c), c)

    Args:
        max_delta: c >= 0, rounded to the leaf's dtype.
    Shapes: updates follow each leaf; there is no state.  Dtypes: float32, float64, bfloat16, float16.
    Raises: ValueError where a range above is broken; TypeError where a leaf is not floating point, naming it.
    Exactness: bit-equal to `torch_ref.clip_grad_value_` in all four dtypes. Run on CPU; for GPU and TPU compiled, not run.
    Differs from: torch.nn.utils.clip_grad_value_ and optax.clip in nothing, for c > 0.
    Example:
        >>> import jax.numpy as jnp
        >>> tx = clip_by_value(0.5)
        >>> tx.update(jnp.array([-3.0, 0.25]), tx.init(jnp.zeros(2)))[0]
        Array([-0.5 ,  0.25], dtype=float32)
    """
    name = "clip_by_value"
    checks.at_least_zero(name, max_delta=max_delta)

    def init(params):
        _floating(name, params)
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any):
        del params, extra_args
        updates = tree_map_with_path(lambda path, g: checked(name, f"params{keystr(path)}", jnp.asarray(g, jnp.result_type(g))), updates)
        return _clipped(by_value, updates, max_delta), state

    return optax.GradientTransformationExtraArgs(init, update)


def _clipped(rule: Callable, updates, limit):
    """The rule on each leaf."""

    def clip(g):
        g = jnp.asarray(g, jnp.result_type(g))
        return nx.finish(rule(nx.wrap(nx.barrier(g)[0], g.dtype.name), h), g.dtype.name)

    with jax.enable_x64(True):  # for float64 scalars; leaves keep their dtype
        h = Hyper(nx.scalar(limit))
        return jax.tree.map(clip, updates)


def _floating(name: str, tree) -> None:
    for path, leaf in tree_leaves_with_path(tree):
        checks.floating(name, f"params{keystr(path)}", jnp.result_type(leaf).name)
