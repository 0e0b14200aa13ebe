"""Which leaf of one trace is which of another, and how its axes lie there; and which fields of the state mean the same."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from ..interop.layouts import Layout, apply, inverse
from ..interop.leaves import Leaves
from ..interop.matching import Matching
from ..interop.parameters import Parameter
from ..registry import OPTIMIZERS
from .reading import Trace

COUNTERS = ("step", "count")


@dataclass
class Pairing:
    """Of the leaves of the first trace those of the second.

    Attributes:
        leaves: path -> path.
        layouts: path in the first -> what an array of the second goes through to lie as that of the first; without those that lie so.
        by: what decided.
        fields: field of the first's state -> field of the second's.
        unpaired: what is in one of them only, in words.
    """

    leaves: dict[str, str]
    layouts: dict[str, Layout] = field(default_factory=dict)
    by: str = "equal"
    fields: dict[str, str] = field(default_factory=dict)
    unpaired: list[str] = field(default_factory=list)


def pair(first: Trace, second: Trace, names: Mapping[str, Any] | None = None) -> Pairing:
    """The leaves that mean the same: by the names given, equal names, or `interop.Matching`.

    Args:
        names: leaf of the first -> leaf of the second, or [leaf, axes] where the axes lie otherwise.

    Raises: ValueError where names and shapes leave two answers, or none.
    """
    here, there = _shapes(first), _shapes(second)
    if names is None and here.keys() == there.keys():
        found = Pairing({path: path for path in here})
    else:
        found = _matched(first, second, here, there, names)
    one, other = ({leaf.field: None for leaf in trace.leaves if leaf.stage == "state"} for trace in (first, second))
    found.fields = _fields(one, other)
    found.unpaired = _unpaired(first, second, found)
    return found


def _shapes(trace: Trace) -> dict[str, tuple[int, ...]]:
    """Of the parameters, by path; of the gradients where parameters are not recorded."""
    for stage in ("params", "gradients", "clipped"):
        if found := {leaf.path: leaf.shape for leaf in trace.leaves if leaf.stage == stage}:
            return found
    return {}


def _matched(first: Trace, second: Trace, here: Mapping, there: Mapping, names: Mapping[str, Any] | None) -> Pairing:
    """By `Matching`, for which leaves are JAX's and parameters torch's."""
    given, axes = {}, {}
    for path, value in (names or {}).items():
        name, layout = value if isinstance(value, list) and len(value) == 2 else (value, None)
        if path not in here or name not in there:
            where, known = (first, here) if path not in here else (second, there)
            raise ValueError(f"names: {path if path not in here else name} is no leaf of {where}; one of {', '.join(known)} is needed.")
        given[path] = name
        axes |= {} if layout is None else {path: tuple(layout)}
    swapped = first.header["framework"] == "torch" and second.header["framework"] != "torch"
    if swapped:
        axes = {given[path]: inverse(layout) for path, layout in axes.items()}
        given = {name: path for path, name in given.items()}
    leaves, parameters = (there, here) if swapped else (here, there)
    modules = (first if swapped else second).header.get("modules", {})
    matching = Matching.of_parameters(
        Leaves({path: _of_shape(shape) for path, shape in leaves.items()}),
        [Parameter(i, name, shape, _of_shape(shape), tuple(modules.get(name, ()))) for i, (name, shape) in enumerate(parameters.items())],
        given if names is not None else None,
        axes or None,
    )
    found = Pairing({}, by="names" if names is not None else "")
    ways = set()
    for path, each in matching.pairs.items():
        name = str(matching.parameters[each.source.parts[0].name].name)
        own, other = (name, path) if swapped else (path, name)
        found.leaves[own] = other
        ways.add(each.way)
        if each.layout is not None and sum(size > 1 for size in leaves[path]) > 1:
            found.layouts[own] = inverse(each.layout) if swapped else each.layout
    found.by = ", ".join(sorted(ways))
    return found


def _of_shape(shape: Sequence[int]) -> np.ndarray:
    """An array that takes no memory."""
    return np.broadcast_to(np.False_, shape)


def lying_as(layout: Layout, array: np.ndarray) -> np.ndarray:
    """An array of the second trace as the first has it."""
    return apply(layout, array)


@cache
def _synonyms() -> frozenset[tuple[str, str]]:
    """Names of fields that mean the same: optax's, and torch's and ours."""
    found = {("count", "step")}
    for entry in OPTIMIZERS.values():
        for fields in entry.stock_optax.states.values():
            found |= {(name, carried.field) for name, carried in fields.items() if not carried.scaled}
    return frozenset(found | {(b, a) for a, b in found})


def _fields(here: Iterable[str], there: Iterable[str]) -> dict[str, str]:
    """By equal names, or else by the only name that means the same."""
    there = list(there)
    found = {name: name for name in here if name in there}
    for name in here:
        candidates = [other for other in there if (name, other) in _synonyms() and other not in found.values()]
        if name not in found and len(candidates) == 1:
            found[name] = candidates[0]
    return found


def _unpaired(first: Trace, second: Trace, found: Pairing) -> list[str]:
    """Stages and fields that only one has."""
    said = []
    for trace, other, fields in ((first, second, set(found.fields)), (second, first, set(found.fields.values()))):
        stages = {**dict.fromkeys(leaf.stage for leaf in trace.leaves), **dict.fromkeys(trace.numbers)}
        theirs = {leaf.stage for leaf in other.leaves} | set(other.numbers)
        lacking = [stage for stage in stages if stage not in theirs]
        if "state" not in lacking:
            lacking += list(dict.fromkeys(leaf.field for leaf in trace.leaves if leaf.stage == "state" and leaf.field not in fields))
        if lacking:
            said.append(f"{', '.join(lacking)} (only in {trace})")
    return said
