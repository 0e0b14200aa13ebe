"""The leaves of a JAX pytree by their paths, with dots as torch's names have them, and what is given by path."""

from collections.abc import Iterator, Mapping
from typing import Any

from jax.tree_util import GetAttrKey, keystr, tree_flatten_with_path


class Leaves:
    """The leaves of a tree.

    Attributes:
        paths: of each, dotted, in the order of `jax.tree.leaves`.
        by_path: the leaf that has it.

    Raises: ValueError where two leaves would have one path.
    """

    def __init__(self, tree: Any):
        self._spelled, self.by_path = {}, {}
        for keys, short, leaf in _leaves(tree):
            path = keystr(short, simple=True, separator=".")
            if path in self.by_path:
                raise ValueError(f"interop: two leaves have the path {path}.")
            self._spelled |= {keystr(keys): path, path: path}
            self.by_path[path] = leaf
        self.paths = list(self.by_path)

    def given(self, values: Any, what: str) -> dict[str, Any]:
        """What a mapping or function from paths, dotted or JAX's own, says of each leaf; without those of which it says nothing.

        Raises: ValueError for a path that no leaf has, TypeError for what is neither.
        """
        if callable(values):
            return {path: values(path) for path in self.paths}
        if not isinstance(values, Mapping | None):
            raise TypeError(f"{what}: a mapping or a function from paths is needed; got {type(values).__name__}.")
        for path in values or {}:
            if path not in self._spelled:
                raise ValueError(f"{what}: no leaf has the path {path}; one of {', '.join(self.paths)} is needed.")
        return {self._spelled[path]: value for path, value in (values or {}).items()}


def _leaves(tree: Any) -> Iterator[tuple[tuple, tuple, Any]]:
    """JAX's own path of each leaf, the same without the `.value` of nnx's variables, and the leaf."""
    for keys, node in tree_flatten_with_path(tree, is_leaf=_is_variable)[0]:
        for rest, leaf in tree_flatten_with_path(node)[0] if _is_variable(node) else [((), node)]:
            yield (*keys, *rest), (*keys, *(rest[1:] if rest[:1] == (GetAttrKey("value"),) else rest)), leaf


def _is_variable(node: Any) -> bool:
    return any(kind.__module__.startswith("flax.nnx") and kind.__name__ in ("Variable", "VariableState") for kind in type(node).__mro__)
