"""Checkpoints of PyTorch: what `torch.save` wrote, with an optimizer's `state_dict` in it, and a model's, wherever these are."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays import is_tensor, to_numpy, to_torch
from ..interop import groups as torch_groups
from ..interop.groups import Group
from ..registry import OPTIMIZERS, TORCH_CLASSES
from . import data, flat, parts, torch_archive
from .checkpoint import Checkpoint, Given, check_names
from .data import Slot
from .names import Names, named

UNCHECKED = "The file has no checksums, so that a flipped bit in it is not seen."


@dataclass(frozen=True)
class Model:
    """A model's `state_dict`; its fields are those of a `Checkpoint`."""

    tensors: Mapping[str, np.ndarray] | None
    versions: Mapping[str, Any] | None = None
    order: Sequence[str] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Read:
    """What is in a file, before the optimizer's state is read: its `state_dict`, its groups and their parameters' names, and the rest."""

    state_dict: Mapping
    groups: Sequence[Group]
    names: Names
    model: Model
    frame: Any
    notes: Sequence[str]


def read(path: Path, given: Given) -> Checkpoint:
    """The checkpoint in a file.

    Raises: ValueError or TypeError for what cannot be read, or has no meaning here.
    """
    saved, checked = torch_archive.load(path)
    return checkpoint(saved, given, notes=() if checked else (UNCHECKED,))


def checkpoint(saved: Any, given: Given, *, ordered: bool = True, notes: Sequence[str] = ()) -> Checkpoint:
    """The checkpoint in what was loaded.

    Args:
        ordered: whether the model's `state_dict` has the order of the model's modules.
        notes: what is known already.

    Raises: as `read`.
    """
    found = read_parts(saved, given, ordered=ordered)
    missing = given.absent(found.groups, found.names.of)
    records = torch_groups.read(found.state_dict, found.groups, step=given.step, missing=missing)
    model, names = found.model, found.names
    return Checkpoint(
        *(records, names.of, model.tensors, model.versions, names.by_index, model.order, model.extras, found.frame),
        notes=(*notes, *found.notes, *names.notes),
        by=names.by,
    )


def read_like(path: Path, given: Given) -> Read:
    """What is in the file of `--like`, whose groups and names hold for another. Raises as `read`."""
    return read_parts(torch_archive.load(path)[0], replace(given, like=None))


def read_parts(saved: Any, given: Given, *, ordered: bool = True) -> Read:
    """What was loaded, but the optimizer's state. Raises as `read`."""
    found = parts.find(saved, given)
    if given.optimizer is None:
        raise ValueError(f"the file does not tell the optimizer's class; --optimizer is needed, one of {', '.join(TORCH_CLASSES)}.")
    torch_class = OPTIMIZERS[given.optimizer].torch_name if given.optimizer in OPTIMIZERS else given.optimizer
    state_dict = _with_groups(found.optimizer, given)
    groups = torch_groups.read_groups(state_dict, torch_class)
    if not groups:
        raise ValueError("its optimizer has no groups.")
    left: list[str] = []
    model = _model(found.model, left)
    names = named(groups, state_dict["state"], model.tensors, given.names, ordered=ordered)
    check_names([*(name for own in names.of for name in own), *(found.model or {})])
    notes = (*found.notes, f"Left behind of the model: {', '.join(left)}.") if left else found.notes
    return Read(state_dict, groups, names, model, found.frame, notes)


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write a file."""
    import torch

    state_dict = torch_groups.write(checkpoint.records)
    frame = checkpoint.frame
    if frame is None:
        frame = {part: Slot(part) for part in data.PARTS} if checkpoint.model is not None else Slot("optimizer")
    found = {
        "model": lambda slot: _state_dict(checkpoint),
        "optimizer": lambda slot: flat.flattened(state_dict, slot.flat) if slot.flat else state_dict,
    }
    torch.save(data.filled(frame, found), path)


def _with_groups(optimizer: Mapping, given: Given) -> Mapping:
    """An optimizer's `state_dict` as torch has it; with the groups of `--like`, where it has none itself."""
    state_dict = flat.nested(optimizer) if flat.is_flat(optimizer) else optimizer
    if state_dict["param_groups"] or not flat.is_flat(optimizer):
        if given.like is not None:
            raise ValueError("--like is for a checkpoint without torch's groups; this one has its own.")
        return state_dict
    if given.like is None:
        raise ValueError(
            "its optimizer has keys as state.NAME.exp_avg and no hyper-parameters; --like FILE.pt is needed, a torch checkpoint of the "
            "same model and optimizer (a new one will do)."
        )
    known = read_like(given.like, given)
    named = zip(known.groups, known.names.of, strict=True)
    return {"state": state_dict["state"], "param_groups": [{**group.options, "params": list(names)} for group, names in named]}


def _model(saved: Mapping[str, Any] | None, left: list[str]) -> Model:
    """A model's `state_dict` as it was loaded; `left` is told what in it is not carried."""
    if saved is None:
        return Model(None)
    tensors = {name: _array(name, value) for name, value in saved.items() if is_tensor(value)}
    extras = data.carried({name: value for name, value in saved.items() if name not in tensors}, "", left)
    order = [name for name in saved if name in tensors or name in extras] if extras else []
    return Model(tensors, _versions(saved), order, extras)


def _versions(saved: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Of the modules, which a module's `state_dict` has; {} where an OrderedDict has none, and None where it is no OrderedDict."""
    versions = getattr(saved, "_metadata", {} if isinstance(saved, OrderedDict) else None)
    data.check_versions(versions)
    return versions


def _state_dict(checkpoint: Checkpoint) -> Any:
    """The model's, as a module has it."""
    tensors, extras = checkpoint.model or {}, checkpoint.extras
    model: Any = {name: extras[name] if name in extras else to_torch(tensors[name]) for name in checkpoint.order or tensors}
    if checkpoint.versions is not None:
        model = OrderedDict(model)
    if checkpoint.versions:
        model._metadata = OrderedDict(checkpoint.versions)
    return model


def _array(name: str, value: Any) -> np.ndarray:
    data.check_tensor(f"{name} of the model", value)
    return to_numpy(value)
