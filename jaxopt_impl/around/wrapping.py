"""What the wrappers of a transform share: they hand on some steps, and leave the others out.  In PyTorch: torch_ref/around/wrapping.py"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.core import Tracer
from jax.tree_util import keystr, tree_flatten_with_path

from .. import checks
from .. import numerics as nx


def leaves(tree: Any) -> list[tuple[str, Any]]:
    """Each leaf with its path; a None, as in the place of a gradient, is one."""
    return [(f"params{keystr(path)}", leaf) for path, leaf in tree_flatten_with_path(tree, is_leaf=_is_none)[0]]


def each(function: Callable, updates: Any, *trees: Any) -> Any:
    """What the function makes of each gradient and the trees' leaves in its place; None where there is no gradient."""
    return jax.tree.map(lambda g, *others: None if g is None else function(g, *others), updates, *trees, is_leaf=_is_none)


def floating(name: str, tree: Any) -> Any:
    """The same tree, of arrays.

    Raises: TypeError where one is not floating point, naming it.
    """
    for path, leaf in leaves(tree):
        if leaf is not None:
            checks.floating(name, path, jnp.result_type(leaf).name)
    return each(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), tree)


def check_alike(name: str, updates: Any, tree: Any, what: str, accumulator: str | None = None) -> None:
    """Raise ValueError or TypeError where a tree of a state has not the leaves, shapes and dtypes of the gradients, naming the leaf."""
    there = dict(leaves(tree))
    for path, g in leaves(updates):
        if g is not None:
            kept: Any = there.get(path)
            checks.present(name, path, what, kept is not None)
            dtype = nx.state_dtype(g.dtype.name, accumulator)
            checks.alike(name, path, what, jnp.shape(kept), jnp.result_type(kept).name, g.shape, dtype)


def wrapped(array: jax.Array, dtype: str | None = None) -> nx.Rounded:
    """An array as rules take it, in its own dtype or another, whatever the caller computed it from."""
    return nx.wrap(nx.barrier(array)[0], dtype or array.dtype.name)


def are_finite(updates: Any) -> jax.Array:
    """Whether no element of any gradient is infinite or NaN, as its dtype has it: of a half, XLA may have kept more."""
    return jnp.stack([jnp.asarray(True), *jax.tree.leaves(each(lambda g: nx.is_finite(wrapped(g)), updates))]).all()


def step_if(
    condition: jax.Array, tx: optax.GradientTransformationExtraArgs, updates: Callable[[], Any], state: Any, params: Any, extra_args: dict
) -> tuple[Any, Any]:
    """The transform's updates and next state where the condition holds; elsewhere updates of −0, and the state as it is.

    (x + −0 is x, for every x; +0 would make +0 of −0.) `updates` makes what the transform is given.
    """

    def stepped():
        return tx.update(updates(), state, params, **extra_args)

    def left_out():
        like = jax.eval_shape(stepped)[0]
        return jax.tree.map(lambda u: jnp.full(u.shape, -0.0, u.dtype), like), state

    if isinstance(condition, Tracer):
        return lax.cond(condition, stepped, left_out)
    return stepped() if condition else left_out()  # outside of a jit `cond` would be compiled at each step


def _is_none(x: Any) -> bool:
    return x is None
