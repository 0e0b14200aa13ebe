"""States of `jaxopt_impl` inside of what is around them, and which of them each of torch's groups has."""

import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import number
from ..registry import OPTIMIZERS
from . import torch_classes
from .groups import Group
from .leaves import Leaves
from .wrappers import HYPERPARAMETERS, SCHEDULE, Part, check_counts, children, parts

OURS = "a state of jaxopt_impl"
WHO = "to_torch_state_dict"


def of_groups(state: Any, groups: Sequence[Group], rates: Sequence[Any]) -> list[Mapping[str, Any]]:
    """The state of each group, by field, wherever in `state` it is.

    Args:
        state: of one transform of `jaxopt_impl` or of an `optax.partition` of several, in whatever `wrappers` reads through.
        groups: of torch, with their leaves.
        rates: of each group the learning rate that goes on, or None for the group's own.

    Raises: ValueError, naming the place, where a group has no state or two, a state has no group, what is around them counts other steps,
        or inject_hyperparams has other numbers than the group.
    """
    found = inside(WHO, state)
    states = [part for part in found if part.kind == OURS]
    if not states:
        raise ValueError(f"{WHO}: a state of jaxopt_impl is needed; got {type(state).__name__} without one.")
    _apart(states)
    owners = _owners(states, groups)
    for group, own, rate in zip(groups, owners, rates, strict=True):
        check_counts(WHO, own, own.fields["step"], found)
        sharing = [other for other, there in zip(groups, owners, strict=True) if there.path == own.path]
        _same_numbers(group, sharing, rate, [part for part in found if part.concerns(own)])
    return [own.fields for own in owners]


def inside(who: str, state: Any) -> list[Part]:
    """The states of `jaxopt_impl` in a state, and what is around them."""
    return parts(who, state, _kind, "a state of jaxopt_impl (from_optax reads one of stock optax)")


def _kind(node: Any) -> str | None:
    """OURS of the state of an optimizer of `jaxopt_impl`, or a mapping of its fields; None of anything else."""
    if hasattr(node, "_fields"):
        return OURS if type(node).__module__ in _kernels() else None
    names = set(children(node)) if isinstance(node, Mapping) else set()
    return OURS if "step" in names and names <= _known_fields() else None


@functools.cache
def _kernels() -> frozenset[str]:
    return frozenset(entry.jax.__module__ for entry in OPTIMIZERS.values())


@functools.cache
def _known_fields() -> frozenset[str]:
    return frozenset(field for kernel in _kernels() for field in importlib.import_module(kernel).State._fields)


def leaves_of(state: Part) -> set[str]:
    """The paths of the leaves that a state is of."""
    return {path for field, tree in state.fields.items() if field != "step" for path in Leaves(tree).paths}


def _apart(states: Sequence[Part]) -> None:
    """Raise where two states are of one leaf."""
    holder: dict[str, Part] = {}
    for state in states:
        for path in sorted(leaves_of(state)):
            if path in holder:
                raise ValueError(f"{WHO}: leaf {path} has state at {holder[path].at} and at {state.at}; give the one that goes on.")
            holder[path] = state


def _owners(states: Sequence[Part], groups: Sequence[Group]) -> list[Part]:
    """The state of each group: that of its leaves, or of its label, or the only one; one of several groups is taken apart."""
    owners = [_owner(states, group) for group in groups]
    shared = {state.path: [group for group, own in zip(groups, owners, strict=True) if own.path == state.path] for state in states}
    for state in states:
        if not shared[state.path]:
            raise ValueError(f"{WHO}: the state at {state.at} is of no group; there are groups {', '.join(repr(g.label) for g in groups)}.")
        if len(shared[state.path]) > 1:
            _check_shared(state, shared[state.path])
    return [own if len(shared[own.path]) == 1 else _part_of(own, group) for group, own in zip(groups, owners, strict=True)]


def _owner(states: Sequence[Part], group: Group) -> Part:
    own = {leaf.path for leaf in group.leaves}
    candidates = [state for state in states if own and own <= leaves_of(state)]
    if len(candidates) != 1:
        candidates = _of_label(states, group.label)
    if len(candidates) != 1 and len(states) == 1:
        candidates = states
    if len(candidates) != 1:
        there = ", ".join(f"{state.at} ({', '.join(sorted(leaves_of(state))) or 'no leaves'})" for state in candidates or states)
        raise ValueError(f"{WHO}: group {group.label!r} ({', '.join(sorted(own))}) needs one state; there are {there}.")
    return candidates[0]


def _of_label(states: Sequence[Part], label: Any) -> list[Part]:
    """The states in a partition's part of this label; a checkpoint may have made a string of it."""
    exact = [state for state in states if label in state.labels]
    return exact or [state for state in states if str(label) in map(str, state.labels)]


def _check_shared(state: Part, groups: Sequence[Group]) -> None:
    """Raise where groups cannot have one state: they may differ in weight decay, as the leaves of one transform with a mask do."""
    decay_apart(WHO, groups)
    there, grouped = leaves_of(state), {leaf.path for group in groups for leaf in group.leaves}
    for path in sorted(there ^ grouped) if there else ():
        raise ValueError(f"{WHO}: leaf {path} is in {'no group' if path in there else f'a group, but not in the state at {state.at}'}.")


def decay_apart(who: str, groups: Sequence[Group]) -> None:
    """Raise where groups differ in more than weight decay, or two of them decay differently."""
    first = groups[0]
    for group in groups:
        for key in first.options.keys() | group.options.keys() if group.optimizer == first.optimizer else ("class",):
            if key not in ("weight_decay", "param_names", "name") and _differ(key, first, group):
                raise ValueError(
                    f"{who}: groups {first.label!r} and {group.label!r} differ in {key}, so that each needs a state of its own."
                )
    decays = sorted({number(group.options.get("weight_decay", 0)) for group in groups} - {0})
    if len(decays) > 1:
        raise ValueError(f"{who}: groups of one state have one weight_decay, or 0; got {', '.join(map(str, decays))}.")


def _differ(key: str, a: Group, b: Group) -> bool:
    return key == "class" or a.options.get(key) != b.options.get(key) or a.accumulator_dtype != b.accumulator_dtype


def _part_of(state: Part, group: Group) -> Part:
    """The part of a state that is of a group's leaves."""
    return state._replace(fields=_only(state.fields, {leaf.path for leaf in group.leaves}))


def _only(fields: Mapping[str, Any], paths: set[str]) -> dict[str, Any]:
    """A state's fields with these leaves alone."""
    own = {}
    for field, tree in fields.items():
        of_leaves = field != "step" and tree is not None
        own[field] = {path: leaf for path, leaf in Leaves(tree).by_path.items() if path in paths} if of_leaves else tree
    return own


def _same_numbers(group: Group, sharing: Sequence[Group], rate: Any, found: Sequence[Part]) -> None:
    """Raise where inject_hyperparams or a schedule says something else than the group; of groups that share a state one has the decay."""
    entry, values = torch_classes.in_jax(group.optimizer, group.options, f"group {group.label!r}")
    values["weight_decay"] = max(number(other.options.get("weight_decay", 0)) for other in sharing)
    for part in found:
        for name, value in part.fields.items() if part.kind in (SCHEDULE, HYPERPARAMETERS) else ():
            given = name == "learning_rate" and rate is not None
            if part.kind == SCHEDULE and name != "learning_rate":
                raise ValueError(f"{WHO}: {name} follows a schedule at {part.at}; a group of torch has a number.")
            if part.kind == SCHEDULE and not given:
                raise ValueError(f"{WHO}: the learning rate follows a schedule at {part.at}; learning_rate is needed.")
            if part.kind == HYPERPARAMETERS and name not in values:
                raise ValueError(
                    f"{WHO}: {name} at {part.at} is no argument of {entry.name}; give the inner_state there, to do without it."
                )
            if part.kind == HYPERPARAMETERS and not given and np.asarray(values[name], value.dtype) != value:
                remedy = "give learning_rate" if name == "learning_rate" else "the group has to have it too"
                raise ValueError(f"{WHO}: {name} is {value!s} at {part.at}, {values[name]} in group {group.label!r}; {remedy}.")
