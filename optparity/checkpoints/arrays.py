"""What Orbax and safetensors hold: arrays by dotted name, and as JSON what torch has beyond arrays.

    model.NAME                 a tensor of the model
    optimizer.step             how many steps were taken, or one number for each group
    optimizer.FIELD.NAME       a moment of a parameter
    options.GROUP.PATH         a hyper-parameter that is a tensor in torch, as `options.0.lr`
    rest.PATH                  a tensor that torch's file holds beside, as `rest.ema.NAME`

The facts are the groups (class, hyper-parameters, names), the order of the model's tensors and the versions of its modules, and what is
beside the two (epoch, scaler, ...), so that the way back to torch leads to the same bits and keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..interop import groups as torch_groups
from ..interop.groups import STEP_KINDS, Group, Record
from ..registry import TORCH_CLASSES
from . import data, torch_file
from .checkpoint import Checkpoint, Given

KEY = "optparity"  # of the facts in a file's metadata
VERSION = 2
VERSIONS = (1, 2)  # that are read; the first has nothing beside model and optimizer
PARTS = ("model", "optimizer", "options", "rest")


class Facts(NamedTuple):
    """What is known of a checkpoint beside its arrays: fields of a `Checkpoint`, and the keys of parameters without state, by group."""

    groups: Sequence[Group]
    names: Sequence[Sequence[str]]
    missing: Sequence[Sequence[int]]
    model: Sequence[str] | None
    versions: Mapping[str, Any] | None
    by_index: bool
    extras: Mapping[str, Any] = {}
    frame: Any = None


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
        data.encoded(dict(record.group.options), str(i), options)
    rest = _rest(checkpoint)[1]
    return found | {part: own for part, own in {"options": options, "rest": rest}.items() if own}


def facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What torch has beyond arrays, as JSON."""
    groups = []
    for i, ((group, step, state), names) in enumerate(zip(checkpoint.records, checkpoint.names, strict=True)):
        missing = [index for index, own in zip(group.indices, state, strict=True) if not own]
        groups.append(
            {
                "optimizer": group.optimizer,
                "options": {key: data.encoded(value, f"{i}.{key}", {}) for key, value in group.options.items()},
                "params": list(group.indices),
                "names": list(names),
                "step_kind": group.step_kind,
                "missing": missing if step or len(missing) < len(state) else [],
                "behind": list(group.behind),
            }
        )
    order = None if checkpoint.model is None else list(checkpoint.order or checkpoint.model)
    known = {"groups": groups, "model": order, "versions": checkpoint.versions, "by_index": checkpoint.by_index}
    return {"version": VERSION, **known, **_rest(checkpoint)[0]}


def _rest(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What torch's file holds beside, as JSON and as arrays."""
    arrays: dict[str, np.ndarray] = {}
    frame = data.encoded(checkpoint.frame, "", arrays, unique=True)
    extras = {name: data.encoded(value, f"model.{name}", arrays, unique=True) for name, value in checkpoint.extras.items()}
    return {"frame": frame, "extras": extras}, arrays


def checkpoint(arrays: Mapping[str, np.ndarray], document: Any, given: Given) -> Checkpoint:
    """A checkpoint from its arrays by dotted name, and its facts as JSON has them, or those of `given.like`.

    Raises: ValueError or TypeError for what is damaged, or has no meaning here.
    """
    model, optimizer, options, rest = _parts(arrays)
    if document is not None:
        if given.like is not None:
            raise ValueError("--like: this checkpoint has groups of its own.")
        given.check_no_keys()
    known = facts_like(like(given)) if document is None else _facts(document, options, rest)
    if options:
        raise ValueError(f"there are hyper-parameters that no group has: {', '.join(sorted(options)[:5])}.")
    if rest:
        raise ValueError(f"there are arrays under rest that its metadata does not know: {', '.join(sorted(rest)[:5])}.")
    if {*(known.model or [])} - {*known.extras} != model.keys():
        differing = sorted(({*(known.model or [])} - {*known.extras}) ^ model.keys())
        raise ValueError(f"the model's tensors are not those that were saved: {', '.join(differing)}.")
    _agrees(known, given)
    ordered = None if known.model is None else {name: model[name] for name in known.model if name in model}
    order = (known.model or ()) if known.extras else ()
    records = _records(optimizer, known, given)
    return Checkpoint(records, known.names, ordered, known.versions, known.by_index, order, known.extras, known.frame)


def _parts(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
    for name, array in arrays.items():
        part, _, rest = name.partition(".")
        if part not in PARTS or not rest:
            raise ValueError(f"arrays are named model.NAME, optimizer.step and optimizer.FIELD.NAME, or options.GROUP.PATH; got {name}.")
        found[part][rest] = array
    return list(found.values())


def _facts(document: Any, options: dict[str, np.ndarray], rest: dict[str, np.ndarray]) -> Facts:
    """The facts that JSON holds.

    Raises: ValueError where they are damaged.
    """
    try:
        groups = [_group(each, options) for each in document["groups"]]
        names, missing = ([tuple(each[key]) for each in document["groups"]] for key in ("names", "missing"))
        model, extras = document["model"], {name: data.decoded(item, rest) for name, item in document.get("extras", {}).items()}
        frame = data.decoded(document.get("frame"), rest, places=True)
        _check_facts(document, groups, names)
        if frame is not None and sorted(data.slots(frame)) != (["model", "optimizer"] if model is not None else ["optimizer"]):
            raise ValueError("what is beside the model and the optimizer has not a place for each")
        if not {*extras} <= {*(model or [])}:
            raise ValueError("entries of the model that are not in its order")
        return Facts(groups, names, missing, model, document["versions"], document["by_index"], extras, frame)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"its {KEY} metadata is damaged: {type(error).__name__}: {error}.") from None


def _check_facts(document: Mapping[str, Any], groups: Sequence[Group], names: Sequence[Sequence[Any]]) -> None:
    """Raise ValueError for facts of other types, or that contradict each other."""
    indices = [index for group in groups for index in group.indices]
    flat = [name for own in names for name in own]
    if document["version"] not in VERSIONS or [len(group.indices) for group in groups] != list(map(len, names)):
        raise ValueError("another version, or names that are not those of the parameters")
    if not groups or not isinstance(document["by_index"], bool):
        raise ValueError("no groups, or a wrong by_index")
    data.check_versions(document["versions"])
    if not all(type(index) in (int, str) for index in indices) or len({*indices}) < len(indices):
        raise ValueError("parameters have keys, which are numbers or names, each once")
    for own in (flat, document["model"] or []):
        if not isinstance(own, list) or not all(isinstance(name, str) and name for name in own) or len({*own}) < len(own):
            raise ValueError("parameters and tensors have names, each once")


def _group(document: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> Group:
    options = {key: data.decoded(value, arrays) for key, value in document["options"].items()}
    if not isinstance(document["params"], list) or not isinstance(document["names"], list) or not isinstance(document["missing"], list):
        raise ValueError("params, names and missing of a group are lists")
    behind = document.get("behind", [])
    whole = isinstance(behind, list) and len(behind) in (0, len(document["params"])) and all(type(steps) is int for steps in behind)
    if not whole or min(behind, default=0) < 0:
        raise ValueError("behind tells of each parameter how many steps fewer than its group it has taken")
    group = Group(document["optimizer"], options, tuple(document["params"]), document["step_kind"], behind=tuple(behind))
    if options.get("param_names") is not None and len(options["param_names"]) != len(group.indices):
        raise ValueError("param_names that are not those of the parameters")
    if group.step_kind not in STEP_KINDS or not isinstance(group.optimizer, str):
        raise ValueError(f"step_kind {group.step_kind!r} of {group.optimizer!r}")
    return group


def like(given: Given) -> torch_file.Read:
    """What is in the file of `--like`.

    Raises: ValueError where it is needed, or cannot be read.
    """
    if given.like is None:
        raise ValueError(
            "it does not hold torch's parameter groups; --like FILE.pt is needed, a torch checkpoint of the same model and optimizer "
            "(a new one will do), and --optimizer."
        )
    try:
        return torch_file.read_like(given.like, given)
    except (ValueError, TypeError, RuntimeError, AttributeError, LookupError, OverflowError) as error:
        raise ValueError(f"--like {given.like}: {' '.join(str(error).split())}") from None


def facts_like(found: torch_file.Read) -> Facts:
    """Those that a conversion of the file of `--like` would have."""
    order = None if found.model.tensors is None else list(found.model.order or found.model.tensors)
    groups = [replace(group, step_kind=torch_groups.new_step_kind(group)) for group in found.groups]
    missing = [()] * len(groups)
    return Facts(groups, found.names.of, missing, order, found.model.versions, found.names.by_index, found.model.extras)


def _agrees(known: Facts, given: Given) -> None:
    classes = [name for group in known.groups for name in (group.optimizer, group.optimizer.lower())]
    if given.optimizer not in (None, *classes):
        raise ValueError(f"--optimizer {given.optimizer}: the file says {known.groups[0].optimizer}.")


def _records(optimizer: dict[str, np.ndarray], known: Facts, given: Given) -> list[Record]:
    """The groups' state; what torch's file may not hold is refused here too."""
    steps = _steps(optimizer.pop("step", None), len(known.groups))
    by_name: dict[str, dict[str, np.ndarray]] = {}
    for key, array in optimizer.items():
        field, _, name = key.partition(".")
        by_name.setdefault(name, {})[field] = array
    strange = by_name.keys() - {name for own in known.names for name in own}
    if strange:
        hint = " --like's file does not name its parameters: --names FILE.json does, or --names model." if known.by_index else ""
        raise ValueError(f"there is state of {', '.join(sorted(strange)[:5])}, in no group.{hint}")
    records, missing = [], given.absent(known.groups, known.names)
    for i, (group, names, absent) in enumerate(zip(known.groups, known.names, known.missing, strict=True)):
        state = [by_name.get(name, {}) for name in names]
        records.append(record(group, i, state, steps[i], {*absent, *missing}, given.step))
    return records


def record(
    group: Group, i: int, state: Sequence[Mapping[str, np.ndarray]], counted: int | None, missing: set[int], given_step: int | None
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
