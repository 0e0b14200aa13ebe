"""Stochastic rounding of bfloat16 parameters and state (Gupta et al. 2015).  Mirror: torch_ref/around/stochastic_rounding.py

θₜ₊₁ = θₜ + uₜ, computed in float32 and rounded up or down to bfloat16, each with the probability that makes the mean right
The bits are Threefry-2x32 of the key, the step, the parameter's number, the field's and the element's.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import keystr, tree_flatten_with_path, tree_map_with_path

from .. import checks as leaf_checks
from .. import numerics as nx
from ..transform import counter
from . import checks, threefry
from .widening import gradients, is_none, is_wide, named_leaves, stepped, widened

DTYPES = ("bfloat16",)  # of the parameters that are rounded


class StochasticRoundingState(NamedTuple):
    inner_state: Any
    rounding_key: Any  # [2] uint32
    rounding_step: Any  # [] int32: how many steps have drawn bits


# The rule on one array: parameter p, the same after the step in float32, 16 random bits for each element.
def step(p, after, bits):
    return nx.update_to(p, nx.narrowed_by(after, bits))


def stochastic_rounding(tx: optax.GradientTransformation, seed: int, *, state: bool = True) -> optax.GradientTransformationExtraArgs:
    """An optimizer on bfloat16 parameters that steps in float32, and rounds up or down at random: right in the mean, without masters.

        θₜ₊₁ = θₜ + uₜ rounded up with probability (θₜ + uₜ − ⌊θₜ + uₜ⌋) / ulp, else down

    The sum of its float32 bits and 16 random ones is cut to the upper half. What bfloat16 holds stays as it is, zeros with their sign,
    infinity and NaN; beyond the largest number is infinity. The update is q − θₜ in float32, as in `master_weights`.

    Args:
        tx: the inner optimizer. It sees parameters, gradients and its state in float32; other parameters it steps as they are.
        seed: of the random bits, 0 <= seed < 2^64. The bits are a function of (seed, step, place of the parameter among the leaves, field
            of the state, number of the element), so they do not depend on devices, sharding, or the order of computation.
        state: keep what the inner optimizer keeps in float32 for each element of a bfloat16 parameter in bfloat16, rounded so as well.
            False leaves it in float32.
    Shapes: the inner state's.  Dtypes: bfloat16 parameters are rounded; float32 and float64 pass through; gradients are in the
        parameter's dtype or float32; updates of bfloat16 float32.
    Raises: ValueError or TypeError for a seed out of range, or where `update` is not given the parameters; TypeError where a leaf is
        float16 or not floating point, or the gradient of a bfloat16 neither one nor float32.
    Exactness: bit-equal to `torch_ref.StochasticRounding`, in any sharding. Under `vmap` and inside of `shard_map` each lane or shard draws
        the bits of the same places. Subnormal numbers are as the addition before leaves them: XLA on CPU flushes them to 0. The three
        limits of `master_weights` hold here as well. Run on CPU; GPU and TPU not run.
    Differs from: optax and torch.optim, which have none; a mean square close to 1 with β₂ = 0.999 stays where it is when bfloat16 rounds to
        nearest.
    Source: Gupta, Agrawal, Gopalakrishnan & Narayanan 2015 (arXiv 1502.02551); Zamirai et al. 2020 (arXiv 2010.06192).
    Example:
        >>> tx = stochastic_rounding(optax.sgd(2**-10), seed=0)  # an eighth of a unit in the last place at each step
        >>> params = jnp.full(1000, 1.5, jnp.bfloat16)
        >>> state = tx.init(params)
        >>> updates, state = tx.update(jnp.ones(1000, jnp.bfloat16), state, params)
        >>> with jax.numpy_dtype_promotion("standard"):  # as it is, where nobody has said "strict"
        ...     params = optax.apply_updates(params, updates)
        >>> int((params == 1.5).sum()), int((params == 1.5 - 2**-7).sum())
        (871, 129)
    """
    name, tx, rounds_state = "stochastic_rounding", optax.with_extra_args_support(tx), state
    checks.whole(name, at_least=0, at_most=2**64 - 1, seed=seed)

    def places(params):
        return _places(params, jax.eval_shape(tx.init, widened(params, DTYPES))) if rounds_state else {}

    def init(params):
        for path, leaf in named_leaves(params):
            leaf_checks.floating(name, path, jnp.result_type(leaf).name)
            checks.no_float16(name, path, jnp.result_type(leaf).name)
            checks.counted(name, path, np.size(leaf))
        inner_state = tx.init(widened(params, DTYPES))
        inner_state = _mapped(lambda x, place: nx.finish(nx.wrap(x, "float32"), "bfloat16"), inner_state, places(params))
        step = counter(params)
        key = step.astype(jnp.uint32) + np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)  # so that it lies where the counter does
        return StochasticRoundingState(inner_state, key, step)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any):
        wide = gradients(name, updates, params, DTYPES)
        if jax.tree.leaves(params) and not jax.tree.leaves(wide):
            return updates, state  # nobody steps
        kept = places(params)
        inner_state = _mapped(lambda x, place: nx.wrap(x, "float32").x, state.inner_state, kept)
        updates, inner_state = tx.update(wide, inner_state, widened(params, DTYPES), **extra_args)
        t = optax.safe_increment(state.rounding_step)
        leaves, treedef = jax.tree.flatten(params)
        bits = _Bits(state.rounding_key, t, leaves)
        inner_state = _mapped(lambda x, place: _narrowed(x, bits(*place)), inner_state, kept)
        numbers = treedef.unflatten(range(len(leaves)))
        updates = jax.tree.map(
            lambda u, p, number: u if u is None or not is_wide(p, DTYPES) else _update(u, p, bits(number, 0)),
            *(updates, params, numbers),
            is_leaf=is_none,
        )
        return updates, StochasticRoundingState(inner_state, state.rounding_key, t)

    return optax.GradientTransformationExtraArgs(init, update)


class _Bits:
    """The random bits of one step: 16 for each element of a field of a parameter."""

    def __init__(self, key: jax.Array, t: Any, leaves: list[jax.Array]):
        self.leaves, numbers = leaves, np.arange(len(leaves), dtype=np.uint32)
        self.keys = threefry.of_leaf((key[0], key[1]), t.astype(jnp.uint32), numbers)
        self.words = functools.cache(self.words)  # four fields share two words

    def __call__(self, leaf: int, field: int) -> jax.Array:
        return threefry.sixteen(self.words(leaf, field // 4), field)

    def words(self, leaf: int, block: int) -> tuple[jax.Array, jax.Array]:
        return _words(self.keys[0][leaf], self.keys[1][leaf], block, self.leaves[leaf])


@functools.partial(jax.jit, static_argnums=2)
def _words(key, other_key, block, leaf):
    return threefry.threefry2x32((key, other_key), (block, nx.places(leaf)))


def _update(u, p, bits):
    after = stepped(nx.wrap(nx.barrier(p)[0], "float32").x, u)
    return nx.finish(step(nx.wrap(nx.barrier(p)[0], "float32"), after, bits))


def _narrowed(x, bits):
    return nx.finish(nx.narrowed_by(nx.wrap(nx.barrier(x)[0], "float32"), bits), "bfloat16")


def _places(params: Any, inner_state: Any) -> dict[tuple, tuple[int, int]]:
    """What an inner state keeps in float32 for each element of a rounded parameter: path -> the numbers of the parameter and of the field.

    A field's path ends with the parameter's. The parameter itself is number 0, its fields are counted from 1 by the order of their names.
    """
    parameters = {path: (number, leaf) for number, (path, leaf) in enumerate(tree_flatten_with_path(params)[0])}
    fields: dict[int, list] = {}
    for path, leaf in tree_flatten_with_path(inner_state)[0]:
        begin = next((i for i in range(len(path) + 1) if path[i:] in parameters), None)
        if begin is not None:
            number, p = parameters[path[begin:]]
            if leaf.dtype == np.float32 and leaf.shape == np.shape(p) and is_wide(p, DTYPES):
                fields.setdefault(number, []).append((keystr(path[begin - 1 : begin], simple=True), keystr(path), path))
    return {path: (number, field) for number, own in fields.items() for field, (*_, path) in enumerate(sorted(own), 1)}


def _mapped(function: Callable, inner_state: Any, places: Mapping) -> Any:
    """What a function makes of the leaves that have a place."""
    return tree_map_with_path(lambda path, x: function(x, places[path]) if path in places else x, inner_state)
