"""A torch optimizer's `state_dict` read as data, with everything in it accounted for, and written again."""

import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .._arrays import copied, is_tensor, to_numpy, to_torch
from . import torch_classes
from .layouts import Layout
from .leaves import Leaves
from .sources import Source

MOST_STEPS = 2**31 - 1  # the counter in JAX is an int32
STEP_NUMBERS = ("int", "float")
STEP_DTYPES = ("int32", "int64", "float16", "bfloat16", "float32", "float64")
STEP_KINDS = (None, *STEP_NUMBERS, *STEP_DTYPES, *(f"{dtype}[1]" for dtype in STEP_DTYPES))


class Leaf(NamedTuple):
    """A parameter in JAX: its path with dots, its dtype, its shape, the places of its torch parameters in the group, and their layout."""

    path: str
    dtype: str
    layout: Layout
    shape: tuple[int, ...]
    source: Source


def leaf_of(path: str, leaves: Leaves, layout: Layout, origin: Source) -> Leaf:
    leaf = leaves.by_path[path]
    return Leaf(path, jnp.result_type(leaf).name, layout, tuple(jnp.shape(leaf)), origin)


def in_torchs_order(leaves: Iterable[Leaf]) -> tuple[Leaf, ...]:
    """By the first of their parameters, and where in it they begin."""
    return tuple(sorted(leaves, key=lambda leaf: (leaf.source.parts[0].name, leaf.source.parts[0].start)))


def shape_of_moments(state: Any) -> tuple[int, ...] | None:
    """The one shape of a parameter's moments in torch's dict of state; None where it has none, or more than one."""
    kept = state.items() if isinstance(state, Mapping) else ()
    shapes = {tuple(value.shape) for field, value in kept if field != "step" and is_tensor(value)}
    return shapes.pop() if len(shapes) == 1 else None


@dataclass(frozen=True)
class Group:
    """A parameter group of a torch optimizer, as data.

    Attributes:
        optimizer: the name of the class in torch.
        options: the group's dict without "params": hyper-parameters, and whatever else it holds.
        indices: "params", the parameters' keys in "state".
        step_kind: how torch holds each step, one of `STEP_KINDS`: a dtype, with [1] for shape (1,), or "int" or "float" for a Python
            number; None where it holds none.
        accumulator_dtype: "float32" where the state of halves is kept in it.
        leaves: the parameters in JAX, in torch's order.
        label: the group's label in `optax.partition`, where there are several.
        behind: for each parameter, how many steps fewer than the group it has taken; empty where all have taken the same.
        whole: the keys of all parameters of torch's group, of which this one has those at one step; empty where it has all.
        scheduled: whether the learning rate is a schedule in JAX, so that `lr` in `options` is not the one that goes on.
    """

    optimizer: str
    options: Mapping[str, Any]
    indices: tuple[int, ...]
    step_kind: str | None = None
    accumulator_dtype: str | None = None
    leaves: tuple[Leaf, ...] = ()
    label: Hashable = 0
    scheduled: bool = False
    behind: tuple[int, ...] = ()
    whole: tuple[int, ...] = ()

    def name(self, position: int) -> str:
        """A parameter as error messages have it."""
        names, index = self.options.get("param_names"), self.indices[position]
        return f"params[{names[(self.whole or self.indices).index(index)]!r}]" if names else f"params[{index}]"

    @property
    def uses_step(self) -> bool:
        """Whether the rule depends on the step."""
        entry = torch_classes.known(self.optimizer)
        return self.scheduled or (entry.has_step and entry.uses_step(self.options))


class Record(NamedTuple):
    """A group, the most steps that a parameter of it has taken, and for each parameter the state by field, or {} where it has none."""

    group: Group
    step: int
    state: Sequence[Mapping[str, np.ndarray]]


def read_groups(state_dict: Mapping, optimizer: str) -> list[Group]:
    """The groups of a `state_dict`, from a class of that name.

    Raises: ValueError or TypeError, naming it, for anything that has no meaning here.
    """
    torch_classes.known(optimizer)
    for key in ("state", "param_groups"):
        if not isinstance(state_dict, Mapping) or key not in state_dict:
            raise ValueError(f"{optimizer}: a state_dict has the keys state and param_groups; got no {key}.")
    for key in state_dict:
        if key not in ("state", "param_groups"):
            raise ValueError(f"{optimizer}: a state_dict has the keys state and param_groups; got {key!r} as well.")
    if not isinstance(state_dict["state"], Mapping) or not isinstance(state_dict["param_groups"], list):
        raise ValueError(f"{optimizer}: a state_dict has a dict of state and a list of param_groups.")
    groups = [_group(optimizer, group, i) for i, group in enumerate(state_dict["param_groups"])]
    indices = [index for group in groups for index in group.indices]
    if len(set(indices)) < len(indices):
        raise ValueError(f"{optimizer}: each parameter is in one group, once; got params {indices}.")
    for index in state_dict["state"]:
        if index not in indices:
            raise ValueError(f"{optimizer}: there is state of params[{index}], which is in no group.")
    return groups


def read(
    state_dict: Mapping,
    groups: Sequence[Group],
    *,
    step: int | None = None,
    scheduled: bool = False,
    missing: Collection[int] = (),
) -> list[Record]:
    """The state of a `state_dict`, by its groups.

    Args:
        groups: what `read_groups` made of it.
        step: how many steps were taken, where torch does not hold it.
        scheduled: whether the learning rate depends on the step, as it does where a scheduler has left its `initial_lr`.
        missing: keys of parameters that may have no state next to others that have.

    Raises: ValueError or TypeError, naming it, for anything that has no meaning here.
    """
    return [_record(group, i, state_dict["state"], step, scheduled, missing) for i, group in enumerate(groups)]


def _group(optimizer: str, group: Any, i: int) -> Group:
    where = f"group {i}"
    if not isinstance(group, Mapping) or not isinstance(group.get("params"), list):
        raise ValueError(f"{optimizer}: {where} is a dict with a list of params; got {type(group).__name__}.")
    options = {}
    for key, value in group.items():
        if key != "params":
            try:
                options[key] = copied(value)
            except TypeError as error:
                raise TypeError(f"{optimizer}: {where} has {key!r}: {error}.") from None
    torch_classes.in_jax(optimizer, options, where)
    names = options.get("param_names")
    if names is not None and not (isinstance(names, list | tuple) and all(isinstance(name, str | None) for name in names)):
        raise TypeError(f"{optimizer}: {where} has param_names {names!r}; a list of names is needed.")
    if not all(isinstance(index, int | str) for index in group["params"]):
        raise TypeError(f"{optimizer}: {where} has params {group['params']}; a list of keys of the state is needed.")
    if names is not None and len(names) != len(group["params"]):
        raise ValueError(f"{optimizer}: {where} has {len(group['params'])} params but {len(names)} param_names.")
    return Group(optimizer, options, tuple(group["params"]))


def check_options(optimizer: str, options: Mapping[str, Any], i: int) -> None:
    """Raise where a group's hyper-parameters have no meaning here, or are out of range."""
    torch_classes.transform(optimizer, options, f"group {i}")


def new_step_kind(group: Group) -> str | None:
    """How torch holds the step of a new parameter."""
    return "float32" if torch_classes.known(group.optimizer).has_step else None


def record(
    group: Group,
    i: int,
    state: Sequence[Mapping[str, np.ndarray]],
    counted: int | None,
    *,
    step: int | None = None,
    scheduled: bool = False,
    missing: Collection[int] = (),
) -> Record:
    """A group and its parameters' arrays by field, with everything in them accounted for.

    Args:
        i: the group's place, for messages.
        counted: the step that the state says; None where torch's holds none.
        step, scheduled, missing: as in `read`.

    Raises: ValueError, naming it, for state that is missing or has no place, and for a step that cannot be.
    """
    fields = torch_classes.fields(torch_classes.transform(group.optimizer, group.options, f"group {i}"))
    for position, own in enumerate(state):
        _check_fields(group, position, own, fields, ("step", *fields) if counted is not None else fields)
    started = any(state)
    if (fields or counted is not None) and (started or step):
        _check_missing(group, state, missing, "others of its group have some" if started else f"step {step} was given")
    if counted is not None:
        if step not in (None, counted):
            raise ValueError(f"{group.optimizer}: step {step} was given, but the state of group {i} says {counted}.")
        step = counted
    elif step is None and (scheduled or "initial_lr" in group.options):
        raise ValueError(f"{group.optimizer}: its state holds no step, and the learning rate depends on it; step is needed.")
    elif started and step == 0:
        raise ValueError(f"{group.optimizer}: step 0 was given, but {fields[0]} is there, so that a step was taken.")
    step = int(started) if step is None else step
    least = step - max(group.behind, default=0)
    if not 0 <= least <= step <= MOST_STEPS:
        raise ValueError(f"{group.optimizer}: 0 <= step <= {MOST_STEPS}; got {step if step > MOST_STEPS else least}.")
    return Record(group, step, state)


def _check_fields(group: Group, position: int, own: Mapping[str, Any], fields: Sequence[str], keeps: Sequence[str]) -> None:
    """All that is expected of a parameter's state, or nothing; `keeps` is what torch keeps."""
    for field in own:
        if field not in fields:
            kept = ", ".join(keeps) or "nothing"
            raise ValueError(f"{group.optimizer}: {group.name(position)} has state {field!r}; with these settings it keeps {kept}.")
    for field in fields:
        if own and field not in own:
            raise ValueError(f"{group.optimizer}: {group.name(position)} has no {field}; each of {', '.join(keeps)} is needed.")


def _check_missing(group: Group, state: Sequence[Mapping], missing: Collection[int], what: str) -> None:
    for position, index in enumerate(group.indices):
        if not state[position] and index not in missing:
            raise ValueError(f"{group.optimizer}: {group.name(position)} has no state, but {what}; list it in missing to start it as new.")


def _record(group: Group, i: int, states: Mapping, step: int | None, scheduled: bool, missing: Collection[int]) -> Record:
    """A group's record from torch's dict of state."""
    own = [_there(group, position, states.get(index, {})) for position, index in enumerate(group.indices)]
    counted, kind, behind = None, None, ()
    if torch_classes.known(group.optimizer).has_step:
        for position, fields in enumerate(own):
            if fields and "step" not in fields:
                raise ValueError(f"{group.optimizer}: {group.name(position)} has no step; it is needed beside {', '.join(fields)}.")
        counted, kind, behind = _steps(group, [fields.pop("step", None) for fields in own])
    state = [{field: _array(group, position, field, value) for field, value in fields.items()} for position, fields in enumerate(own)]
    group = replace(group, step_kind=kind, behind=behind)
    return record(group, i, state, counted, step=step, scheduled=scheduled, missing=missing)


def _there(group: Group, position: int, state: Any) -> dict[str, Any]:
    """A parameter's state; torch writes None for a buffer to come."""
    if not isinstance(state, Mapping):
        raise ValueError(f"{group.optimizer}: the state of {group.name(position)} is a dict; got {type(state).__name__}.")
    return {field: value for field, value in state.items() if value is not None}


def _steps(group: Group, given: Sequence[Any]) -> tuple[int, str, tuple[int, ...]]:
    """The most steps that a parameter of a group has taken, how torch holds them, and how far each parameter is behind."""
    steps: dict[int, int] = {}
    kinds: dict[str, int] = {}
    for position, value in enumerate(given):
        if value is not None:
            steps[position], kind = _counted(group, position, value)
            kinds.setdefault(kind, position)
    if len(kinds) > 1:
        (a, first), (b, second), *_ = kinds.items()
        raise ValueError(f"{group.optimizer}: {group.name(first)} counts in {a}, {group.name(second)} in {b}; a group counts in one.")
    most = max(steps.values(), default=0)
    behind = tuple(most - steps.get(position, most) for position in range(len(given)))
    return most, next(iter(kinds), "float32"), behind if any(behind) else ()


def _counted(group: Group, position: int, value: Any) -> tuple[int, str]:
    """A parameter's step, and how torch holds it: torch before 2.1 had tensors of shape (1,) where it was fused or capturable."""
    who = f"{group.optimizer}: {group.name(position)}"
    try:
        array = np.asarray(to_numpy(value) if is_tensor(value) else value)
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{who} has a step that is no number: {error}.") from None
    kind = array.dtype.name if is_tensor(value) else type(value).__name__
    if kind not in (STEP_DTYPES if is_tensor(value) else STEP_NUMBERS):
        raise ValueError(f"{who} has step {value} of dtype {kind}; a number is needed, or one of {', '.join(STEP_DTYPES)}.")
    if array.shape not in ((), (1,)) or not math.isfinite(array.item()) or array.item() != math.floor(array.item()):
        raise ValueError(f"{who} has step {value}; a whole number is needed.")
    return int(array.item()), f"{kind}[1]" if array.shape else kind


def _array(group: Group, position: int, field: str, value: Any) -> np.ndarray:
    if not is_tensor(value):
        raise TypeError(f"{group.optimizer}: {field} of {group.name(position)} is a tensor; got {type(value).__name__}.")
    try:
        return to_numpy(value)
    except TypeError as error:
        raise TypeError(f"{group.optimizer}: {field} of {group.name(position)}: {error}.") from None


def write(records: Sequence[Record]) -> dict[str, Any]:
    """The `state_dict` of torch, over the memory of the records' arrays; the inverse of `read`.

    Raises: ValueError where a step is not a number of torch's dtype.
    """
    state: dict[int, dict[str, Any]] = {}
    groups: dict[tuple, dict[str, Any]] = {}  # by their parameters; what has none is a group as well
    for i, (group, step, own) in enumerate(records):
        entry, indices = torch_classes.known(group.optimizer), group.whole or group.indices
        groups[indices or (f"empty {i}",)] = {**{key: copied(value) for key, value in group.options.items()}, "params": list(indices)}
        for position, (index, arrays) in enumerate(zip(group.indices, own, strict=True)):
            fresh = step == 0 and not entry.starts_with_state and not any(array.any() for array in arrays.values())
            if not arrays or fresh:  # torch gives a parameter its state at its first step
                continue
            behind = group.behind[position] if group.behind else 0
            counted = {"step": _step(group, position, step - behind)} if entry.has_step else {}
            state[index] = {**counted, **{field: to_torch(array) for field, array in arrays.items()}}
    order = [index for group in groups.values() for index in group["params"]]
    return {"state": {index: state[index] for index in order if index in state}, "param_groups": list(groups.values())}


def _step(group: Group, position: int, step: int) -> Any:
    kind, _, alone = (group.step_kind or "float32").partition("[")
    if kind in STEP_NUMBERS:
        return {"int": int, "float": float}[kind](step)
    if step > last_step(kind):
        raise ValueError(
            f"{group.optimizer}: step {step} of {group.name(position)}: torch counts in {kind}, which stops at {last_step(kind)}."
        )
    return to_torch(np.asarray([step] if alone else step, kind))


def last_step(kind: str) -> int:
    """The number at which a counter of this kind stops: a floating-point one where 1 is lost in it, float32 at 2^24."""
    dtype = kind.removesuffix("[1]")
    return 2 ** (jnp.finfo(dtype).nmant + 1) if "float" in dtype and dtype not in STEP_NUMBERS else MOST_STEPS


def stopped(group: Group, step: int) -> str | None:
    """What to say of a group whose counter in torch has stopped, so that more steps may have been taken."""
    kind = group.step_kind
    if kind is None or not step == last_step(kind) < MOST_STEPS:
        return None
    return f"{group.optimizer}: torch counts steps in {kind}, which stops at {step}: what it says from there on is {step}."
