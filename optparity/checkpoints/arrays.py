"""What Orbax and safetensors hold: arrays by dotted name, and as JSON what torch has beyond arrays.

    model.NAME                 a tensor of the model
    optimizer.step             how many steps were taken, or one number for each group
    optimizer.FIELD.NAME       a moment of a parameter
    options.GROUP.PATH         a hyper-parameter that is a tensor in torch, as `options.0.lr`

The facts are the groups (class, hyper-parameters, names), the order of the model's tensors and the versions of its modules, so that the way
back to torch leads to the same bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .._arrays import is_tensor, to_numpy, to_torch
from ..interop import groups as torch_groups
from ..interop.groups import STEP_KINDS, Group, Record
from ..registry import TORCH_CLASSES
from . import torch_file
from .checkpoint import Checkpoint, Given

KEY = "optparity"  # of the facts in a file's metadata
VERSION = 1
PARTS = ("model", "optimizer", "options")


class Facts(NamedTuple):
    """What is known of a checkpoint beside its arrays; `missing` are the indices of parameters without state, for each group."""

    groups: Sequence[Group]
    names: Sequence[Sequence[str]]
    missing: Sequence[Sequence[int]]
    model: Sequence[str] | None
    versions: Mapping[str, Any] | None
    by_index: bool


def tree(checkpoint: Checkpoint) -> dict[str, Any]:
    """The arrays, nested by the parts of their names: field, then a parameter's whole name."""
    steps = [record.step for record in checkpoint.records]
    optimizer: dict[str, Any] = {"step": np.asarray(steps[0] if len(set(steps)) == 1 else steps, np.int32)}
    for record, names in zip(checkpoint.records, checkpoint.names, strict=True):
        for name, own in zip(names, record.state, strict=True):
            for field, array in own.items():
                optimizer.setdefault(field, {})[name] = array
    found: dict[str, Any] = {} if checkpoint.model is None else {"model": dict(checkpoint.model)}
    found["optimizer"] = optimizer
    options: dict[str, np.ndarray] = {}
    for i, record in enumerate(checkpoint.records):
        _encoded(dict(record.group.options), str(i), options)
    return {**found, "options": options} if options else found


def facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What torch has beyond arrays, as JSON."""
    groups = []
    for i, ((group, step, state), names) in enumerate(zip(checkpoint.records, checkpoint.names, strict=True)):
        missing = [index for index, own in zip(group.indices, state, strict=True) if not own]
        groups.append(
            {
                "optimizer": group.optimizer,
                "options": {key: _encoded(value, f"{i}.{key}", {}) for key, value in group.options.items()},
                "params": list(group.indices),
                "names": list(names),
                "step_kind": group.step_kind,
                "missing": missing if step or len(missing) < len(state) else [],
            }
        )
    order = None if checkpoint.model is None else list(checkpoint.model)
    return {"version": VERSION, "groups": groups, "model": order, "versions": checkpoint.versions, "by_index": checkpoint.by_index}


def checkpoint(arrays: Mapping[str, np.ndarray], document: Any, given: Given) -> Checkpoint:
    """A checkpoint from its arrays by dotted name, and its facts as JSON has them, or those of `given.like`.

    Raises: ValueError or TypeError for what is damaged, or has no meaning here.
    """
    model, optimizer, options = _parts(arrays)
    if document is not None and given.like is not None:
        raise ValueError("--like: this checkpoint has groups of its own.")
    known = _facts_like(given) if document is None else _facts(document, options)
    if options:
        raise ValueError(f"there are hyper-parameters that no group has: {', '.join(sorted(options)[:5])}.")
    if sorted(known.model or []) != sorted(model):
        differing = sorted({*(known.model or [])} ^ model.keys())
        raise ValueError(f"the model's tensors are not those that were saved: {', '.join(differing)}.")
    _agrees(known, given)
    ordered = None if known.model is None else {name: model[name] for name in known.model}
    return Checkpoint(_records(optimizer, known, given), known.names, ordered, known.versions, known.by_index)


def _parts(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
    for name, array in arrays.items():
        part, _, rest = name.partition(".")
        if part not in PARTS or not rest:
            raise ValueError(f"arrays are named model.NAME, optimizer.step and optimizer.FIELD.NAME, or options.GROUP.PATH; got {name}.")
        found[part][rest] = array
    return list(found.values())


def _encoded(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """An option of a group as JSON: what JSON does not know is under the name of its kind, and a tensor is put into `arrays`."""
    if is_tensor(value):
        if path in arrays:
            raise ValueError(f"two hyper-parameters are options.{path}.")
        arrays[path] = to_numpy(value)
        return {"array": path}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_encoded(item, f"{path}.{i}", arrays) for i, item in enumerate(value)]}
    if isinstance(value, dict):
        return {"dict": [[_encoded(key, f"{path}.{key}", arrays), _encoded(item, f"{path}.{key}", arrays)] for key, item in value.items()]}
    return value


def _decoded(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The inverse of `_encoded`, which takes what it needs out of `arrays`."""
    if not isinstance(value, dict):
        return value
    ((kind, items),) = value.items()
    if kind == "array":
        return to_torch(arrays.pop(items), copy=True)
    if kind == "dict":
        return {_decoded(key, arrays): _decoded(item, arrays) for key, item in items}
    return {"list": list, "tuple": tuple}[kind](_decoded(item, arrays) for item in items)


def _facts(document: Any, options: dict[str, np.ndarray]) -> Facts:
    """The facts that JSON holds.

    Raises: ValueError where they are damaged.
    """
    try:
        groups = [_group(each, options) for each in document["groups"]]
        names, missing = ([tuple(each[key]) for each in document["groups"]] for key in ("names", "missing"))
        if not groups or not isinstance(document["versions"], dict | None):
            raise ValueError("no groups, or versions that are none")
        whole = all(len(group.indices) == len(own) for group, own in zip(groups, names, strict=True))
        if document["version"] != VERSION or not whole:
            raise ValueError("another version, or names that are not those of the parameters")
        return Facts(groups, names, missing, document["model"], document["versions"], document["by_index"])
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"its {KEY} metadata is damaged: {type(error).__name__}: {error}.") from None


def _group(document: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> Group:
    options = {key: _decoded(value, arrays) for key, value in document["options"].items()}
    group = Group(document["optimizer"], options, tuple(document["params"]), document["step_kind"])
    if group.step_kind not in STEP_KINDS or not isinstance(group.optimizer, str):
        raise ValueError(f"step_kind {group.step_kind!r} of {group.optimizer!r}")
    return group


def _facts_like(given: Given) -> Facts:
    """Those that a conversion of `given.like` would have."""
    if given.like is None:
        raise ValueError(
            "it does not hold torch's parameter groups; --like FILE.pt is needed, a torch checkpoint of the same model and optimizer "
            "(a new one will do), and --optimizer."
        )
    try:
        parts = torch_file.read_parts(given.like, given.optimizer)
    except (ValueError, TypeError, RuntimeError, AttributeError, LookupError, OverflowError) as error:
        raise ValueError(f"--like {given.like}: {' '.join(str(error).split())}") from None
    order = None if parts.model is None else list(parts.model)
    groups = [replace(group, step_kind=torch_groups.new_step_kind(group)) for group in parts.groups]
    return Facts(groups, parts.names, [()] * len(parts.groups), order, parts.versions, parts.by_index)


def _agrees(known: Facts, given: Given) -> None:
    classes = [name for group in known.groups for name in (group.optimizer, group.optimizer.lower())]
    if given.optimizer not in (None, *classes):
        raise ValueError(f"--optimizer {given.optimizer}: the file says {known.groups[0].optimizer}.")
    for name in given.missing:
        if all(name not in own for own in known.names):
            raise ValueError(f"--missing {name}: no parameter has this name.")


def _records(optimizer: dict[str, np.ndarray], known: Facts, given: Given) -> list[Record]:
    """The groups' state; what torch's file may not hold is refused here too."""
    steps = _steps(optimizer.pop("step", None), len(known.groups))
    by_name: dict[str, dict[str, np.ndarray]] = {}
    for key, array in optimizer.items():
        field, _, name = key.partition(".")
        by_name.setdefault(name, {})[field] = array
    records = []
    for i, (group, names, absent) in enumerate(zip(known.groups, known.names, known.missing, strict=True)):
        state = [by_name.pop(name, {}) for name in names]
        missing = {*absent, *(index for index, name in zip(group.indices, names, strict=True) if name in given.missing)}
        records.append(_record(group, i, state, steps[i], missing, given.step))
    if by_name:
        raise ValueError(f"there is state of {', '.join(sorted(by_name)[:5])}, in no group.")
    return records


def _record(
    group: Group, i: int, state: Sequence[Mapping[str, np.ndarray]], counted: int, missing: set[int], given_step: int | None
) -> Record:
    torch_groups.check_options(group.optimizer, group.options, i)
    has_step = TORCH_CLASSES[group.optimizer].has_step
    held = (counted if any(state) else 0) if has_step else None
    step = counted if given_step is None else given_step
    return torch_groups.record(group, i, state, held, step=step, missing=missing)


def _steps(steps: np.ndarray | None, count: int) -> list[int]:
    """One for each group."""
    if steps is None or steps.dtype.kind != "i" or steps.shape not in ((), (count,)):
        raise ValueError(f"optimizer.step is a count, or one for each group; got {'none' if steps is None else steps}.")
    return np.broadcast_to(steps, count).tolist()
