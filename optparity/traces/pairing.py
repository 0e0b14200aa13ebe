"""Which leaf of one trace is which of another, and how its axes lie there; and which fields of the state mean the same."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..interop.layouts import Layout, apply, inverse
from ..interop.leaves import Leaves
from ..interop.matching import Matching
from ..interop.parameters import Parameter
from ..versus.states import paired
from .reading import Run

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


def pair(first: Run, second: Run, names: Mapping[str, Any] | None = None) -> Pairing:
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
    found.fields = paired(one, other, {})
    found.unpaired = _unpaired(first, second, found)
    return found


def _shapes(trace: Run) -> dict[str, tuple[int, ...]]:
    """Of the parameters, by path; of the gradients where parameters are not recorded."""
    for stage in ("params", "gradients", "clipped"):
        if found := {leaf.path: leaf.shape for leaf in trace.leaves if leaf.stage == stage}:
            return found
    return {}


def _matched(first: Run, second: Run, here: Mapping, there: Mapping, names: Mapping[str, Any] | None) -> Pairing:
    """By `Matching`, for which leaves are JAX's and parameters torch's."""
    given, axes = {}, {}
    for spelled, value in (names or {}).items():
        path = _dotted(spelled)
        name, layout = value if isinstance(value, list) and len(value) == 2 else (value, None)
        if not isinstance(name, str) or not (
            layout is None or (isinstance(layout, list) and all(isinstance(axis, int) for axis in layout))
        ):
            raise ValueError(f"names: {path} is {value!r}; the name of a leaf, or [name, axes], is needed.")
        name = _dotted(name)
        if path not in here or name not in there:
            where, known = (first, here) if path not in here else (second, there)
            raise ValueError(f"names: {path if path not in here else name} is no leaf of {where}; one of {', '.join(known)} is needed.")
        given[path] = name
        axes |= {} if layout is None else {path: tuple(layout)}
    if names is None:
        if len(here) != len(there):
            only = [", ".join(sorted(one.keys() - other.keys())) or "none" for one, other in ((here, there), (there, here))]
            raise ValueError(f"names: {first} has {len(here)} leaves, {second} {len(there)}; only there: {only[0]}; {only[1]}. Say names.")
    else:
        here, there = {path: here[path] for path in given}, {name: there[name] for name in given.values()}
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


def _dotted(path: str) -> str:
    """JAX's own "['hidden']['kernel']" as hidden.kernel."""
    return ".".join(re.findall(r"\['?([^\]']+)'?\]", path)) if path.startswith("[") else path


def _of_shape(shape: Sequence[int]) -> np.ndarray:
    """An array that takes no memory."""
    return np.broadcast_to(np.False_, shape)


def lying_as(layout: Layout, array: np.ndarray) -> np.ndarray:
    """An array of the second trace as the first has it."""
    return apply(layout, array)


def _unpaired(first: Run, second: Run, found: Pairing) -> list[str]:
    """Stages and fields that only one has."""
    said = []
    if left := [path for path in _shapes(first) if path not in found.leaves]:
        said.append(f"leaves {', '.join(left)} of {first}: they are not among the names")
    for trace, other, fields in ((first, second, set(found.fields)), (second, first, set(found.fields.values()))):
        stages = {**dict.fromkeys(leaf.stage for leaf in trace.leaves), **dict.fromkeys(trace.numbers)}
        theirs = {leaf.stage for leaf in other.leaves} | set(other.numbers)
        lacking = [stage for stage in stages if stage not in theirs]
        if "state" not in lacking:
            lacking += list(dict.fromkeys(leaf.field for leaf in trace.leaves if leaf.stage == "state" and leaf.field not in fields))
        if lacking:
            said.append(f"{', '.join(lacking)} (only in {trace})")
    return said
