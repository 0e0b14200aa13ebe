"""Which leaf of a JAX pytree is which parameter in torch: paths with dots, as torch's names are, and what is given by path."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jax.tree_util import GetAttrKey, keystr, tree_flatten_with_path

Names = Mapping[str, str | int] | Callable[[str], str | int]


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

        Raises: ValueError for a path that no leaf has.
        """
        if callable(values):
            return {path: values(path) for path in self.paths}
        for path in values or {}:
            if path not in self._spelled:
                raise ValueError(f"{what}: no leaf has the path {path}; one of {', '.join(self.paths)} is needed.")
        return {self._spelled[path]: value for path, value in (values or {}).items()}

    def in_torchs_order(self, torch_names: Sequence[str] | None, count: int, names: Names | None) -> list[str]:
        """The path of the leaf that each of torch's `count` parameters is.

        Args:
            torch_names: the parameters' names, where they are known.
            names: path -> name or index in torch. By default those of the same names belong together where all are the same, and the
                leaves are in their order where none is, or none is known.

        Raises: ValueError where this does not give each leaf one parameter, and each parameter one leaf.
        """
        if torch_names is not None and len(torch_names) != count:
            raise ValueError(f"names: torch has {count} parameters; got {len(torch_names)} names of parameters.")
        if len(self.paths) != count:
            raise ValueError(f"names: {len(self.paths)} leaves but {count} parameters in torch; each leaf is one parameter.")
        if names is None:
            return self.paths if self.in_order(torch_names) else self._of_the_same_names(torch_names or ())
        given, found = self.given(names, "names"), {}
        for path in self.paths:
            if path not in given:
                raise ValueError(f"names: leaf {path} is not among them; each leaf is one parameter.")
            index = _index(path, given[path], torch_names, count)
            if index in found:
                raise ValueError(f"names: leaves {found[index]} and {path} are both {given[path]!r}.")
            found[index] = path
        return [found[index] for index in range(count)]

    def in_order(self, torch_names: Sequence[str] | None) -> bool:
        """Whether the leaves are the parameters in their order by default: torch's names are not known, or no path is one of them."""
        return torch_names is None or not set(torch_names) & set(self.paths)

    def _of_the_same_names(self, torch_names: Sequence[str]) -> list[str]:
        for name in torch_names:
            if torch_names.count(name) > 1:
                raise ValueError(f"names: two parameters in torch are {name!r}; names is needed, with indices.")
        if set(torch_names) != set(self.paths):
            here = ", ".join(path for path in self.paths if path not in torch_names)
            there = ", ".join(name for name in torch_names if name not in self.by_path)
            raise ValueError(
                f"names: some leaves and parameters have the same names, but only leaves {here}, only torch {there}; names is needed."
            )
        return list(torch_names)


def _leaves(tree: Any) -> Iterator[tuple[tuple, tuple, Any]]:
    """JAX's own path of each leaf, the same without the `.value` of nnx's variables, and the leaf."""
    for keys, node in tree_flatten_with_path(tree, is_leaf=_is_variable)[0]:
        for rest, leaf in tree_flatten_with_path(node)[0] if _is_variable(node) else [((), node)]:
            yield (*keys, *rest), (*keys, *(rest[1:] if rest[:1] == (GetAttrKey("value"),) else rest)), leaf


def _is_variable(node: Any) -> bool:
    return any(kind.__module__.startswith("flax.nnx") and kind.__name__ in ("Variable", "VariableState") for kind in type(node).__mro__)


def _index(path: str, name: str | int, torch_names: Sequence[str] | None, count: int) -> int:
    if isinstance(name, str):
        if torch_names is None:
            raise ValueError(f"names: leaf {path} is {name!r}, but the groups hold no param_names; give parameters, or indices.")
        if name not in torch_names:
            raise ValueError(f"names: leaf {path} is {name!r}; one of {', '.join(torch_names)} is needed.")
        if list(torch_names).count(name) > 1:
            raise ValueError(f"names: leaf {path} is {name!r}, but so are two parameters in torch; give indices.")
        return list(torch_names).index(name)
    if not isinstance(name, int) or not 0 <= name < count:
        raise ValueError(f"names: leaf {path} is {name!r}; a name or an index below {count} is needed.")
    return name
