"""What the wrappers of a transform share: they hand on some steps, and leave the others out."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.core import Tracer
from jax.tree_util import keystr, tree_flatten_with_path

from .. import checks
from .. import numerics as nx


def gradients(name: str, updates: Any) -> tuple[list[tuple[str, jax.Array | None]], Callable[[list], Any]]:
    """Each leaf with its path, None where there is no gradient; and what makes a tree of as many.

    Raises: TypeError where one is not floating point, naming it.
    """
    flat, treedef = tree_flatten_with_path(updates, is_leaf=lambda x: x is None)
    found = [(f"params{keystr(path)}", None if g is None else jnp.asarray(g, jnp.result_type(g))) for path, g in flat]
    for path, g in found:
        if g is not None:
            checks.floating(name, path, g.dtype.name)
    return found, treedef.unflatten


def alike(name: str, updates: Any, tree: Any, what: str, accumulator: str | None = None) -> list[jax.Array | None]:
    """The leaves of a tree that a state has for the gradients, in their order.

    Raises: ValueError or TypeError where it has other leaves, shapes or dtypes, naming the leaf.
    """
    leaves, _ = gradients(name, updates)
    there = dict(gradients(name, tree)[0])
    for path, g in leaves:
        kept = there.get(path)
        if g is not None:
            checks.present(name, path, what, kept is not None)
        if g is not None and kept is not None:
            checks.alike(name, path, what, kept.shape, kept.dtype.name, g.shape, nx.state_dtype(g.dtype.name, accumulator))
    return [there.get(path) for path, _ in leaves]


def are_finite(leaves: Iterable[jax.Array | None]) -> jax.Array:
    """Whether no element of any gradient is infinite or NaN, as its dtype has it: of a half, XLA may have kept more."""
    finite = [nx.is_finite(nx.wrap(*nx.barrier(g), g.dtype.name)) for g in leaves if g is not None]
    return jnp.stack([jnp.asarray(True), *finite]).all()


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
