"""What the wrappers share that step half parameters in float32.  Mirror: torch_ref/around/widening.py"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_flatten_with_path, tree_map_with_path

from .. import checks as leaf_checks
from .. import numerics as nx
from . import checks


def named_leaves(params: Any) -> list[tuple[str, jax.Array]]:
    """The parameters by name, as messages have it."""
    return [(f"params{keystr(path)}", leaf) for path, leaf in tree_flatten_with_path(params)[0]]


def is_wide(leaf: Any, dtypes: tuple[str, ...]) -> bool:
    """Whether a parameter has one of these dtypes, and so is stepped in float32."""
    return leaf is not None and jnp.result_type(leaf).name in dtypes


def widened(tree: Any, dtypes: tuple[str, ...]) -> Any:
    """The leaves of these dtypes in float32, in memory of their own; the others as they are."""
    return jax.tree.map(lambda leaf: nx.wrap(jnp.asarray(leaf), "float32").x if is_wide(leaf, dtypes) else leaf, tree)


def gradients(name: str, updates: Any, params: Any, dtypes: tuple[str, ...]) -> Any:
    """The gradients, those of parameters of these dtypes in float32.

    Raises: ValueError where there are no parameters, or of another tree; TypeError where the gradient of a half is neither one nor float32.
    """
    if params is None:
        raise ValueError(f"{name}: the parameters are needed; call update(updates, state, params).")
    theirs, own = (jax.tree.structure(tree, is_leaf=is_none) for tree in (updates, params))
    if theirs != own:
        raise ValueError(f"{name}: the parameters have another tree than the gradients: {own}, gradients {theirs}.")

    def gradient(path, g, p):
        if g is None or not is_wide(p, dtypes):
            return g
        path, g = f"params{keystr(path)}", jnp.asarray(g)
        leaf_checks.floating(name, path, g.dtype.name)
        checks.half_gradient(name, path, g.dtype.name, jnp.result_type(p).name)
        return nx.wrap(nx.barrier(g)[0], "float32").x

    return tree_map_with_path(gradient, updates, params, is_leaf=is_none)


def stepped(wide: jax.Array, u: jax.Array) -> nx.Rounded:
    """A parameter in float32 after an inner transform's update: the sum of `optax.apply_updates`, rounded once whatever made the update."""
    wide, u = nx.barrier(wide, u)
    return nx.wrap(wide, "float32") + nx.wrap(u, "float32")


def is_none(x: Any) -> bool:
    return x is None
