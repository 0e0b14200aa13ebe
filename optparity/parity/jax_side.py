"""An optax transform in one of the contexts, driven by gradients from outside."""

from collections.abc import Container

import jax
import numpy as np
import optax
from jax.tree_util import DictKey, GetAttrKey, keystr, tree_flatten_with_path

from .contexts import Context


class JaxSide:
    """A transform over parameters that start as copies of `params`."""

    def __init__(self, tx: optax.GradientTransformation, params, context: Context):
        self._context, self._advance = context, context.advance(tx)
        self._params = context.place(params)
        self._state = context.init(tx, self._params)

    def steps(self, gradients: list) -> list[list[tuple]]:
        """A step for each gradient; for each, (parameters, state) in NumPy, once per lane."""
        seen = self._advance(self._params, self._state, gradients)
        copies = [[jax.tree.map(np.array, lane) for lane in self._context.lanes(pair)] for pair in seen]
        self._params, self._state = seen[-1]
        return copies


def fields(state, names: Container, paths: list[str]) -> dict[str, list[np.ndarray | None]]:
    """The leaves of each named field of a state, wherever in it the field stands, in the order of the parameters' `paths`.

    A field with a leaf [] that belongs to no parameter (a counter) has that leaf for every parameter.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for path, leaf in tree_flatten_with_path(state)[0]:
        for i, key in enumerate(path):
            name = key.name if isinstance(key, GetAttrKey) else key.key if isinstance(key, DictKey) else None
            if name in names:
                where = found.setdefault(str(name), {})
                where[keystr(path[i + 1 :])] = leaf
                break
    return {
        name: [leaves.get(path, leaves.get("")) for path in paths]
        for name, leaves in found.items()
        if all(path in paths or path == "" for path in leaves)
    }
