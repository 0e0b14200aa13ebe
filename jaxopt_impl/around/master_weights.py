"""Float32 master weights of half parameters (Micikevicius et al. 2018, section 3.1).  Mirror: torch_ref/around/master_weights.py

wₜ₊₁ = wₜ + uₜ in float32, uₜ what the inner optimizer makes of the gradient in float32;   θₜ₊₁ = wₜ₊₁ rounded to the parameter's dtype
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from .. import checks as leaf_checks
from .. import numerics as nx
from .widening import gradients, is_none, is_wide, named_leaves, stepped, widened


class MasterWeightsState(NamedTuple):
    inner_state: Any
    master: Any  # [*p] float32 for each half parameter, None for the others


# The rule on one array: parameter p, its master after the step, the parameter's dtype.
def step(p, master, dtype):
    return nx.update_to(p, nx.narrowed(master, dtype))


def master_weights(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """An optimizer on float32 masters of bfloat16 and float16 parameters, which are their masters rounded.

        wₜ₊₁ = wₜ + uₜ,   θₜ₊₁ = round(wₜ₊₁)

    The update is q − θₜ in float32, q the rounded master, so that `optax.apply_updates`, which adds in float32 and rounds, makes it q.

    Args:
        tx: the inner optimizer. It sees the masters, and gradients in float32; float32 and float64 parameters it steps as they are.
    Shapes: `master` follows each half parameter, None for the others.  Dtypes: bfloat16, float16; others pass through. Masters, and what
        the inner optimizer keeps of them, are float32. Gradients are in the parameter's dtype or float32; updates of halves float32.
    Raises: ValueError where `update` is not given the parameters; TypeError where a leaf is not floating point, or the gradient of a half
        neither one nor float32.
    Exactness: bit-equal to `torch_ref.MasterWeights`. The parameter is the rounded master, but where no update that is added can
        make it: it shrinks more than 2^16-fold in one step (float16: 2^13), and q − θ is not exact; it comes back from infinity, and
        is NaN; its zero is +0 where the master's is −0. The master is right in each case. Run on CPU; GPU and TPU not run.
    Differs from: `accumulator_dtype="float32"`, which keeps the state in float32 but rounds the parameter at each step, and so loses
        what is less than half a unit in its last place.
    Source: Micikevicius et al. 2018 (arXiv 1710.03740), section 3.1.
    Example:
        >>> tx = master_weights(optax.sgd(2**-10))
        >>> params = jnp.ones(1, jnp.bfloat16)
        >>> state = tx.init(params)
        >>> for _ in range(3):  # each is a quarter of a unit in the last place
        ...     updates, state = tx.update(jnp.ones(1, jnp.bfloat16), state, params)
        ...     with jax.numpy_dtype_promotion("standard"):  # as it is, where nobody has said "strict"
        ...         params = optax.apply_updates(params, updates)
        >>> params, state.master
        (Array([0.996094], dtype=bfloat16), Array([0.9970703], dtype=float32))
    """
    name, tx = "master_weights", optax.with_extra_args_support(tx)

    def init(params):
        for path, leaf in named_leaves(params):
            leaf_checks.floating(name, path, jnp.result_type(leaf).name)
        wide = widened(params, nx.HALVES)
        return MasterWeightsState(tx.init(wide), jax.tree.map(lambda w, p: w if is_wide(p, nx.HALVES) else None, wide, params))

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any):
        wide = gradients(name, updates, params, nx.HALVES)
        masters = jax.tree.map(lambda p, master: p if master is None else master, params, state.master, is_leaf=is_none)
        updates, inner_state = tx.update(wide, state.inner_state, masters, **extra_args)
        after = jax.tree.map(_after, updates, params, state.master, is_leaf=is_none)
        updates, masters = (jax.tree.map(lambda _, pair, i=i: pair[i], params, after, is_leaf=is_none) for i in range(2))
        return updates, MasterWeightsState(inner_state, masters)

    return optax.GradientTransformationExtraArgs(init, update)


def _after(u, p, master):
    """The update of a parameter and its next master, from the update of that."""
    if u is None or master is None:
        return u, master
    after, dtype = stepped(master, u), jnp.result_type(p).name
    return nx.finish(step(nx.wrap(nx.barrier(p)[0], "float32"), after, dtype)), after.x
