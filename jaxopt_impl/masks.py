"""Weight decay on some leaves only, as optax's `mask` says it: one state, and the rule with or without decay on each leaf."""

from typing import Any

import jax
import numpy as np
import optax
from jax.core import Tracer
from jax.tree_util import keystr, tree_leaves_with_path


def decayed_where(
    name: str, mask: Any, decayed: optax.GradientTransformationExtraArgs, plain: optax.GradientTransformationExtraArgs
) -> optax.GradientTransformationExtraArgs:
    """The transform that is `decayed` on the leaves where the mask is True, and `plain` on the others; both keep the same state.

    Args:
        name: what error messages begin with.
        mask: a tree of booleans, or a prefix of the parameters' tree, or a function that makes one of the parameters; as in optax, the
            function is called with the updates at each step.
        decayed, plain: the transforms, equal but for the weight decay.
    """

    def init(params):
        masked(name, mask, params)
        return decayed.init(params)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any):
        del extra_args
        where = masked(name, mask, updates)
        outputs: list[Any] = []
        after: Any = state
        step = state.step
        for transform, chosen in ((decayed, True), (plain, False)):
            own = jax.tree.map(lambda here, g, chosen=chosen: g if here == chosen else None, where, updates, is_leaf=_is_none)
            output, after = transform.update(own, after._replace(step=state.step), params)  # without a gradient a leaf keeps its state
            outputs.append(output)
            if jax.tree.leaves(own) or not jax.tree.leaves(updates, is_leaf=_is_none):  # where nobody has one, no step is counted
                step = after.step
        return jax.tree.map(lambda here, u, v: u if here else v, where, *outputs, is_leaf=_is_none), after._replace(step=step)

    return optax.GradientTransformationExtraArgs(init, update)


def masked(name: str, mask: Any, params: Any) -> Any:
    """The mask as a tree of Python's booleans like `params`, a None in which is a leaf.

    Raises: ValueError where it is no prefix of the parameters' tree; TypeError where a leaf of it is no boolean, naming it.
    """
    tree = mask(params) if _is_function(mask) else mask
    for path, leaf in tree_leaves_with_path(tree):
        if isinstance(leaf, Tracer) or np.shape(leaf) or np.asarray(leaf).dtype != bool:
            raise TypeError(f"{name}: mask{keystr(path)} is {leaf!r}; True or False is needed, known when the step is traced.")
    try:
        return jax.tree.map(lambda here, part: jax.tree.map(lambda _: bool(here), part, is_leaf=_is_none), tree, params)
    except ValueError:
        there, needed = jax.tree.structure(tree), jax.tree.structure(params)
        raise ValueError(f"{name}: mask is no prefix of the parameters' tree; got {there}, parameters {needed}.") from None


def _is_function(mask: Any) -> bool:
    """As optax asks it: a tree of callables is one too, as a module of Equinox is."""
    callables = jax.tree.leaves(jax.tree.map(callable, mask))
    return bool(callables) and all(callables)


def _is_none(x: Any) -> bool:
    return x is None
