"""Where in a step an array belongs: its stage, its field if it is of the state, and its leaf, from whatever trees a run holds."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax

from ..interop.leaves import Leaves
from ..versus.course import Place
from .summaries import plain

NUMBERS = ("loss", "lr")  # stages that are numbers
ARRAYS = ("batch", "gradients", "clipped", "state", "params")


class Leaf(NamedTuple):
    """An array of a step. `path` has dots: "hidden.weight"; it is empty where the stage is one array."""

    stage: str
    field: str
    path: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def place(self) -> Place:
        return Place(self.stage, f"[{self.path!r}]" if self.path else "", self.field)


def flattened(tree: Any) -> tuple[Sequence[str], list[Any]]:
    """Dotted paths of a tree's leaves, and the leaves."""
    leaves, treedef = jax.tree.flatten(tree)
    return _paths(treedef), leaves


@lru_cache(256)
def _paths(treedef: Any) -> tuple[str, ...]:
    return tuple(Leaves(treedef.unflatten([0] * treedef.num_leaves)).paths)


@lru_cache(256)
def split(paths: tuple[str, ...], params: tuple[str, ...]) -> list[tuple[str, str]]:
    """Of each leaf of a state its field and the parameter that it belongs to, or nothing where it belongs to none.

    The field is the last name before the parameter's path ("0.mu.hidden.kernel" is `mu` of hidden.kernel), with the names before it
    where two fields would have one.
    """
    found = [_split(path, params) for path in paths]
    short = [(field.rpartition(".")[2], leaf) for field, leaf in found]
    fields: dict[str, set[str]] = {}
    for (field, _), (last, _) in zip(found, short, strict=True):
        fields.setdefault(last, set()).add(field)
    return [one if len(fields[one[0]]) == 1 else other for one, other in zip(short, found, strict=True)]


def _split(path: str, params: Sequence[str]) -> tuple[str, str]:
    ends = [leaf for leaf in params if leaf and path.endswith(f".{leaf}")]
    leaf = max(ends, key=len, default="")
    return path.removesuffix(f".{leaf}") if leaf else path, leaf


def numbers(stage: str, given: Any) -> dict[str, float]:
    """Numbers by path.

    Raises: TypeError for what is none.
    """
    found = {}
    for path, value in zip(*flattened(given), strict=True):
        if getattr(value, "ndim", 0) or isinstance(value, str | Mapping):
            raise TypeError(f"trace: {stage} is a number, or a tree of numbers; got {type(value).__name__}.")
        found[path] = float(plain(value).item() if hasattr(value, "dtype") else value)
    return found
