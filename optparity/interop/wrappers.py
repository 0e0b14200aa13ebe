"""The states inside of a state: what optax and Flax put around an optimizer's state is read through, or refused.

Read through are chain, named_chain, masked, partition (multi_transform), inject_hyperparams, MultiSteps, apply_if_finite, our accumulate
and loss_scale, a TrainState of Linen and an Optimizer of NNX; each as it is made, and as a checkpoint gives it back: dicts and lists, known
by the names of their fields. Left behind is what says nothing of the steps to come: MultiSteps' `skip_state`, accumulate's `skipped`,
apply_if_finite's `total_notfinite` and `last_finite`, ZeroNansState, and the wrappers' counts of steps once they are seen to agree; and a
loss scale, which torch keeps in a GradScaler (`scaler_to_torch`), and an average of the parameters, which it keeps in an AveragedModel
(`average_to_torch`). Whatever else stands there is refused, with its place: nothing is lost.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path, tree_map_with_path

from .variables import pure

COUNT, SCHEDULE, HYPERPARAMETERS, PARTITION = "a count of steps", "a schedule's count", "hyper-parameters", "a partition"
SCHEDULES = {"ScaleByScheduleState": "learning_rate", "WeightDecaySchedule": "weight_decay"}  # they hold their count only
NOTHING = ("EmptyState", "ZeroNansState")  # the latter says whether the last gradients had a NaN


class Part(NamedTuple):
    """A state in a tree of states, or numbers that are about one, and what is around it.

    Attributes:
        path: its place, as JAX's keys.
        labels: of the partitions around it, outermost first.
        masked: whether a mask or a partition is around it, so that it may be of some leaves only.
        clock: the place of the innermost wrapper around it that does not hand on every step.
        kind: of a state, as the caller's `kind_of` says it; else COUNT, SCHEDULE, HYPERPARAMETERS or PARTITION.
        fields: by name: of a state its trees, of a partition its states, else numbers.
    """

    path: tuple = ()
    labels: tuple = ()
    masked: bool = False
    clock: tuple | None = None
    kind: str = ""
    fields: Mapping[Any, Any] = {}

    @property
    def at(self) -> str:
        return dotted(self.path)

    def within(self, key: Any, **changes: Any) -> "Part":
        return self._replace(path=(*self.path, key), **changes)

    def concerns(self, state: "Part") -> bool:
        """Whether these numbers are about this state."""
        if self.kind == HYPERPARAMETERS:
            return state.path[: len(self.path)] == self.path
        return state.labels[: len(self.labels)] == self.labels and (self.kind == SCHEDULE or self.clock == state.clock)


def dotted(path: Sequence) -> str:
    """A place with dots, as messages have it."""
    return keystr(tuple(path), simple=True, separator=".") or "the root"


def parts(who: str, tree: Any, kind_of: Callable[[Any], str | None], needed: str) -> list[Part]:
    """All states in a tree of states, and the counts and hyper-parameters around them.

    Args:
        who: what error messages begin with.
        tree: a state; also a TrainState or an nnx.Optimizer, or the mapping that a checkpoint holds of one.
        kind_of: the kind of a state that is looked for, None of anything else.
        needed: what is looked for, for messages.

    Raises: ValueError, naming the place, for what is no such state and not read through, and where something would be lost.
    """
    walk, here = _Walk(who, kind_of, needed), Part()
    if hasattr(tree, "opt_state") and hasattr(tree, "step"):
        tree = {"opt_state": tree.opt_state, "step": tree.step}
    tree = pure(tree)
    fields = children(tree) if isinstance(tree, Mapping) else {}
    if {"opt_state", "step"} <= fields.keys():
        return list(walk.counted(fields, here, "step", "opt_state"))
    return list(walk.inside(tree, here))


def children(node: Any) -> dict[str, tuple[Any, Any]]:
    """What a node of a tree holds, by name: its key and itself; of an array nothing."""
    flat = tree_flatten_with_path(node, is_leaf=lambda x: x is not node)[0]
    return {keystr(path, simple=True): (path[0], child) for path, child in flat if path}


def fields_of(node: Any) -> dict[str, Any]:
    """The same without keys."""
    return {name: child for name, (_, child) in children(node).items()}


def replaced(tree: Any, new: Mapping[tuple, Callable[[Any], Any]]) -> Any:
    """A tree with other nodes at these paths: what each function makes of the one that is there."""
    swap = lambda path, node: new[path](node) if path in new else node  # noqa: E731
    return tree_map_with_path(swap, tree, is_leaf=lambda path, _: path in new, is_leaf_takes_path=True)


def is_typed(node: Any, names: Sequence[str] | Mapping) -> bool:
    """Whether a node is a NamedTuple of one of these names."""
    return type(node).__name__ in names and hasattr(node, "_fields")


def check_counts(who: str, state: Part, step: Any, found: Sequence[Part]) -> None:
    """Raise where a count, or a schedule's place, is another than the step of the state that it is about."""
    for part in found:
        if part.kind in (COUNT, SCHEDULE) and part.concerns(state):
            for name, count in part.fields.items():
                if np.shape(step) == () and count != step:
                    what = f"the schedule of {name}" if part.kind == SCHEDULE else "the count"
                    raise ValueError(f"{who}: {what} at {part.at} stands at {count}, the state at {state.at} at step {step}.")


class _Walk:
    """How a tree of states is gone through; a method for each kind of wrapper, from its fields and its place."""

    def __init__(self, who: str, kind_of: Callable[[Any], str | None], needed: str):
        self.who, self.kind_of, self.needed = who, kind_of, needed

    def inside(self, node: Any, here: Part) -> Iterator[Part]:
        kind, fields = self.kind_of(node), children(node)
        wrapper = None if kind else _wrapper(node, fields)
        if kind:
            yield here._replace(kind=kind, fields=fields_of(node))
        elif wrapper:
            yield from wrapper(self, fields, here)
        elif is_typed(node, NOTHING) or fields.keys() == {"found_nan"} or not jax.tree.leaves(node):
            return
        elif is_typed(node, SCHEDULES) or fields.keys() == {"count"}:
            yield self.number(SCHEDULE, fields, here, "count", SCHEDULES.get(type(node).__name__, "learning_rate"))
        elif fields and not hasattr(node, "_fields"):
            for key, child in fields.values():
                yield from self.inside(child, here.within(key))
        else:
            what = "an array" if hasattr(node, "dtype") else type(node).__name__
            raise ValueError(
                f"{self.who}: {what} at {here.at} is no part of {self.needed}, and nothing that is read through; "
                "give the state beside it, or inside of it, to do without it."
            )

    def number(self, kind: str, fields: Mapping, here: Part, field: str, name: str) -> Part:
        """A whole number of a wrapper's."""
        key, value = fields[field]
        here, array = here.within(key), np.asarray(value)
        if array.shape or array.dtype.kind not in "iu":
            raise ValueError(f"{self.who}: {here.at} is a whole number; got {array.dtype}{list(array.shape)}.")
        return here._replace(kind=kind, fields={name: int(array)})

    def within(self, fields: Mapping, here: Part, inner: str, **changes: Any) -> Iterator[Part]:
        """The state inside of a wrapper; where that holds nothing, a checkpoint may have left it out."""
        if inner in fields:
            key, child = fields[inner]
            yield from self.inside(child, here.within(key, **changes))

    def counted(self, fields: Mapping, here: Part, count: str, inner: str) -> Iterator[Part]:
        yield self.number(COUNT, fields, here, count, count)
        yield from self.within(fields, here, inner)

    def injected(self, fields: Mapping, here: Part) -> Iterator[Part]:
        """inject_hyperparams: the numbers, and the counts of the schedules that make some of them anew at each step."""
        key, given = fields["hyperparams"]
        numbers = {name: np.asarray(value) for name, value in fields_of(given).items()}
        key_of_states, schedules = fields.get("hyperparams_states", (key, {}))
        for name, (key, schedule) in children(schedules).items():
            if fields_of(schedule).keys() != {"count"}:
                raise ValueError(f"{self.who}: the schedule of {name} at {here.at} has a state of its own, which does not carry over.")
            there = here.within(key_of_states).within(key)
            yield self.number(SCHEDULE, children(schedule), there, "count", name)
            del numbers[name]
        yield here._replace(kind=HYPERPARAMETERS, fields=numbers)
        yield from self.counted(fields, here, "count", "inner_state")

    def gathered(self, fields: Mapping, here: Part) -> Iterator[Part]:
        """MultiSteps: nothing may be gathered."""
        self.nothing_gathered(fields, here, "MultiSteps", "mini_step", "acc_grads", "inner_opt_state")
        yield from self.counted(fields, here._replace(clock=here.path), "gradient_step", "inner_opt_state")

    def accumulated(self, fields: Mapping, here: Part) -> Iterator[Part]:
        """Our accumulate: the same."""
        self.nothing_gathered(fields, here, "accumulate", "microbatch", "gathered", "inner_state")
        yield from self.within(fields, here, "inner_state", clock=here.path)

    def nothing_gathered(self, fields: Mapping, here: Part, name: str, count: str, gathered: str, inner: str) -> None:
        steps = {"mini_step": "mini-steps", "microbatch": "microbatches"}[count]
        done = self.number(COUNT, fields, here, count, count).fields[count]
        if done or any(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(fields[gathered][1])):
            raise ValueError(
                f"{self.who}: {name} at {here.at} has gathered gradients in {done} {steps}, which would be lost; "
                f"take the {steps} up to its update, or give its {inner}, to do without them."
            )

    def scaled(self, fields: Mapping, here: Part) -> Iterator[Part]:
        """Our loss_scale: its scale is no part of an optimizer's state."""
        yield from self.within(fields, here, "inner_state", clock=here.path)

    def averaged(self, fields: Mapping, here: Part) -> Iterator[Part]:
        """Our averages of the parameters: nothing is inside."""
        del fields, here
        yield from ()

    def if_finite(self, fields: Mapping, here: Part) -> Iterator[Part]:
        """apply_if_finite: it may not be counting towards the update that it lets through."""
        count = self.number(COUNT, fields, here, "notfinite_count", "notfinite_count").fields["notfinite_count"]
        if count:
            raise ValueError(
                f"{self.who}: apply_if_finite at {here.at} has left out the last {count} updates, and counts on from there; "
                "give its inner_state, to do without that count."
            )
        yield from self.within(fields, here, "inner_state", clock=here.path)

    def masked(self, fields: Mapping, here: Part) -> Iterator[Part]:
        yield from self.within(fields, here, "inner_state", masked=True)

    def partition(self, fields: Mapping, here: Part) -> Iterator[Part]:
        key, states = fields["inner_states"]
        yield here._replace(kind=PARTITION, fields={label.key: state for label, state in children(states).values()})
        for label, state in children(states).values():
            there = here.within(key).within(label, masked=True, labels=(*here.labels, label.key))
            yield from self.inside(state, there)


class _Wrapper(NamedTuple):
    """The fields that a wrapper has, those that it may have, and how it is read."""

    needed: frozenset[str]
    further: frozenset[str]
    read: Callable[[_Walk, Mapping, Part], Iterator[Part]]


def _fields(*names: str) -> frozenset[str]:
    return frozenset(names)


_WRAPPERS = {
    "InjectStatefulHyperparamsState": _Wrapper(
        _fields("count", "hyperparams"), _fields("hyperparams_states", "inner_state"), _Walk.injected
    ),
    "InjectHyperparamsState": _Wrapper(_fields("count", "hyperparams"), _fields("inner_state"), _Walk.injected),
    "MultiStepsState": _Wrapper(
        _fields("mini_step", "gradient_step", "acc_grads"), _fields("inner_opt_state", "skip_state"), _Walk.gathered
    ),
    "AccumulateState": _Wrapper(_fields("microbatch", "skipped", "gathered"), _fields("inner_state"), _Walk.accumulated),
    "LossScaleState": _Wrapper(_fields("scale", "growth_tracker"), _fields("inner_state"), _Walk.scaled),
    "AverageState": _Wrapper(_fields("n_averaged"), _fields("average", "biased_average", "n_steps"), _Walk.averaged),
    "ApplyIfFiniteState": _Wrapper(_fields("notfinite_count", "last_finite", "total_notfinite"), _fields("inner_state"), _Walk.if_finite),
    "MaskedState": _Wrapper(_fields("inner_state"), _fields(), _Walk.masked),
    "PartitionState": _Wrapper(_fields("inner_states"), _fields(), _Walk.partition),
}


def _wrapper(node: Any, names: Mapping) -> Callable | None:
    """How a wrapper is read: known by its type, or, of a mapping, by its keys."""
    if hasattr(node, "_fields"):
        found = _WRAPPERS.get(type(node).__name__)
        return found.read if found else None
    of_mapping = isinstance(node, Mapping)
    return next((w.read for w in _WRAPPERS.values() if of_mapping and w.needed <= names.keys() <= w.needed | w.further), None)
