"""What an optax state holds: the parts of each optimizer that is in it, and the numbers that are about them."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optax

from ..registry import OPTIMIZERS, Carried
from .wrappers import COUNT, HYPERPARAMETERS, PARTITION, SCHEDULE, Part, children, parts

# Parts that have no counterpart here, by their fields.
REFUSED = {"ScaleByRmsWithCountState": {"count", "nu"}, "ScaleByRStdDevWithCountState": {"count", "mu", "nu"}}
NUMBERS = (COUNT, SCHEDULE, HYPERPARAMETERS)
Names = str | Mapping[Any, str]


class Own(NamedTuple):
    """A state of one optimizer in an optax state: the parts of a chain that are about the same leaves, and the numbers about it."""

    name: str
    label: Any  # as the caller has it, or the partition; None outside of one
    parts: list[Part]
    around: list[Part]
    partition: Part | None

    @property
    def masked(self) -> bool:
        return any(part.masked for part in self.parts)

    def carried(self) -> list[tuple[Carried, Any]]:
        """Each field of ours that is there, and its tree."""
        states = OPTIMIZERS[self.name].stock_optax.states
        return [(carried, part.fields[theirs]) for part in self.parts for theirs, carried in states[part.kind].items()]

    def numbers(self, kind: str) -> list[tuple[str, str, Any]]:
        """Place, name and value of what is around it."""
        return [(part.at, name, value) for part in self.around if part.kind == kind for name, value in part.fields.items()]

    def counts(self) -> list[tuple[str, int]]:
        """All that counts its steps."""
        own = [(f"{part.at}.count", int(part.fields["count"])) for part in self.parts if "count" in part.fields]
        return own + [(at, count) for kind in (COUNT, SCHEDULE) for at, _, count in self.numbers(kind)]


def found_in(who: str, name: Names, optax_state: Any, bias_correction_nu: bool) -> list[Part]:
    """What is in an optax state."""
    names = list(dict.fromkeys(name.values())) if isinstance(name, Mapping) else [name]
    for each in names:
        stock = OPTIMIZERS[each].stock_optax if each in OPTIMIZERS else None
        if stock is None or stock.refused:
            known = ", ".join(entry.name for entry in OPTIMIZERS.values() if not entry.stock_optax.refused)
            raise ValueError(f"optax has no state of {each!r}: {stock.refused if stock else f'one of {known} is needed'}.")
    kinds = dict.fromkeys(kind for each in names for kind in OPTIMIZERS[each].stock_optax.states)
    kind_of = functools.partial(_kind, tuple(kinds), bias_correction_nu)
    return parts(who, optax_state, kind_of, f"optax's state of {' or '.join(names)} ({', '.join(kinds)})")


def _kind(kinds: Sequence[str], bias_correction_nu: bool, node: Any) -> str | None:
    """Which of these states of optax a node is, by its type, or, of a mapping, by its keys."""
    found = type(node).__name__ if hasattr(node, "_fields") else None
    if isinstance(node, Mapping):
        fields = {**{kind: set(getattr(optax, kind)._fields) for kind in kinds}, **REFUSED}
        found = next((kind for kind, own in fields.items() if children(node).keys() == own), None)
    if found in REFUSED:
        raise ValueError(f"optax's {found} does not carry over: bias_correction=True has no counterpart in jaxopt_impl.rmsprop.")
    if found == "ScaleByAmsgradState" and found in kinds and bias_correction_nu:
        raise ValueError(
            f"optax's {found} does not carry over: its maximum is of the corrected vₜ/(1 − β₂ᵗ), ours of vₜ, and neither tells the other; "
            "bias_correction_nu=False, with which optax takes the same as we do, does."
        )
    return found if found in kinds else None


def owners(who: str, name: Names, found: Sequence[Part]) -> list[Own]:
    """The states of one optimizer each that are there: one, or one for each label of a partition that holds moments."""
    moments: dict[tuple, list[Part]] = {}
    for part in found:
        if part.kind not in (*NUMBERS, PARTITION):
            moments.setdefault(part.labels, []).append(part)
    if isinstance(name, Mapping):
        chosen = {_labels(who, label, found): (label, each) for label, each in name.items()}
    else:
        chosen = {labels: (labels[-1] if labels else None, name) for labels in moments or {(): []}}
    for labels, own in moments.items():
        if labels not in chosen or (len(moments) > 1 and len(labels) != 1):
            there = ", ".join(part.at for group in moments.values() for part in group)
            raise ValueError(f"{who}: {own[0].kind} at {own[0].at} is not of one of the labels named; there is state at {there}.")
    if not moments and not isinstance(name, Mapping) and any(part.kind == PARTITION for part in found):
        raise ValueError(f"{who}: no part of this partition holds state of {name}; a mapping from its labels to names is needed.")
    return [_own(who, each, label, moments.get(labels, []), labels, found) for labels, (label, each) in chosen.items()]


def _labels(who: str, label: Any, found: Sequence[Part]) -> tuple:
    """The label in a partition that the caller means; a checkpoint may have made a string of it."""
    there = [each for part in found if part.kind == PARTITION for each in part.fields]
    same = [each for each in there if each == label] or [each for each in there if str(each) == str(label)]
    if len(same) != 1:
        raise ValueError(f"{who}: the label {label!r} is not once among {', '.join(map(repr, there)) or 'no labels'}.")
    return (same[0],)


def _own(who: str, name: str, label: Any, own: list[Part], labels: tuple, found: Sequence[Part]) -> Own:
    """A state of one optimizer, each field of which is there once."""
    states, holder = OPTIMIZERS[name].stock_optax.states, {}
    for part in own:
        if part.kind not in states:
            raise ValueError(f"{who}: {part.kind} at {part.at} is no part of optax's state of {name} ({', '.join(states)}).")
        for carried in states[part.kind].values():
            if carried.field in holder:
                there = f"{holder[carried.field]} and {part.kind} at {part.at}"
                raise ValueError(f"{who}: {there} are both {carried.field}; give the one that goes on.")
            holder[carried.field] = f"{part.kind} at {part.at}"
    counting = [part for part in found if part.kind == COUNT and part.labels == labels[: len(part.labels)]]
    clock = max((part.clock for part in counting if part.clock is not None), key=len, default=None)
    one = own[0] if own else Part(labels=labels, clock=clock)  # a state without moments is nowhere
    around = [part for part in found if part.kind in NUMBERS and part.concerns(one)]
    whole = Own(name, label, own, around, _partition(who, one, found))
    if any(carried.scaled for carried, _ in whole.carried()) and any(each == "learning_rate" for _, each, _ in whole.numbers(SCHEDULE)):
        raise ValueError(f"{who}: {name}'s momentum under a schedule keeps the learning rates that it was built with.")
    return whole


def _partition(who: str, own: Part, found: Sequence[Part]) -> Part | None:
    """The partition in which a state stands."""
    if not own.labels:
        return None
    holders = [part for part in found if part.kind == PARTITION and own.labels[0] in part.fields]
    around = [part for part in holders if own.path[: len(part.path)] == part.path] if own.path else holders
    if len(around) != 1 or len(own.labels) > 1:
        there = ", ".join(part.at for part in found if part.kind == PARTITION)
        raise ValueError(f"{who}: one partition around {own.kind or 'a state'} is read through; there are partitions at {there}.")
    return around[0]
