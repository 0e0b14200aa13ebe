"""Which leaf of a JAX pytree is which parameter in torch: paths with dots, as torch's names are, and what is given by path."""

from collections.abc import Callable, Mapping, Sequence
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
        for keys, leaf in tree_flatten_with_path(tree)[0]:
            path = keystr(keys[:-1] if keys and keys[-1] == GetAttrKey("value") else keys, simple=True, separator=".")  # nnx has .value
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
            names: path -> name or index in torch. By default those of the same names belong together where all are the same, and else
                the leaves in their order.

        Raises: ValueError where this does not give each leaf one parameter, and each parameter one leaf.
        """
        if torch_names is not None and len(torch_names) != count:
            raise ValueError(f"names: torch has {count} parameters; got {len(torch_names)} names of parameters.")
        if len(self.paths) != count:
            raise ValueError(f"names: {len(self.paths)} leaves but {count} parameters in torch; each leaf is one parameter.")
        if names is None:
            return list(torch_names) if torch_names is not None and set(torch_names) == set(self.paths) else self.paths
        given, found = self.given(names, "names"), {}
        for path in self.paths:
            if path not in given:
                raise ValueError(f"names: leaf {path} is not among them; each leaf is one parameter.")
            index = _index(path, given[path], torch_names, count)
            if index in found:
                raise ValueError(f"names: leaves {found[index]} and {path} are both {given[path]!r}.")
            found[index] = path
        return [found[index] for index in range(count)]


def _index(path: str, name: str | int, torch_names: Sequence[str] | None, count: int) -> int:
    if isinstance(name, str):
        if torch_names is None:
            raise ValueError(f"names: leaf {path} is {name!r}, but the groups hold no param_names; give parameters, or indices.")
        if name not in torch_names:
            raise ValueError(f"names: leaf {path} is {name!r}; one of {', '.join(torch_names)} is needed.")
        return list(torch_names).index(name)
    if not isinstance(name, int) or not 0 <= name < count:
        raise ValueError(f"names: leaf {path} is {name!r}; a name or an index below {count} is needed.")
    return name
