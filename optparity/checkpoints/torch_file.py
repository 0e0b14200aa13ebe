"""Checkpoints of PyTorch: {"model", "optimizer"}, both a `state_dict`, or the optimizer's alone."""

import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays import is_tensor, to_numpy, to_torch
from ..interop import groups as torch_groups
from ..interop.groups import Group
from ..registry import OPTIMIZERS, TORCH_CLASSES
from .checkpoint import Checkpoint, Given, check_names


@dataclass(frozen=True)
class Parts:
    """What a file holds, before its state is read: the optimizer's `state_dict`, its groups with their names, and the model.

    `names`, `model`, `versions` and `by_index` are those of a `Checkpoint`.
    """

    state_dict: Any
    groups: Sequence[Group]
    names: Sequence[Sequence[str]]
    model: Mapping[str, np.ndarray] | None
    versions: Any
    by_index: bool


def read(path: Path, given: Given) -> Checkpoint:
    """The checkpoint in a file.

    Raises: ValueError or TypeError for what cannot be read, or has no meaning here.
    """
    if given.like is not None:
        raise ValueError("--like is for a checkpoint without torch's groups; this one has its own.")
    parts = read_parts(path, given.optimizer)
    named = zip(parts.groups, parts.names, strict=True)
    index_of = {name: index for group, own in named for index, name in zip(group.indices, own, strict=True)}
    for name in given.missing:
        if name not in index_of:
            raise ValueError(f"--missing {name}: no parameter has this name; one of {', '.join(index_of)} is needed.")
    missing = [index_of[name] for name in given.missing]
    records = torch_groups.read(parts.state_dict, parts.groups, step=given.step, missing=missing)
    return Checkpoint(records, parts.names, parts.model, parts.versions, parts.by_index)


def read_parts(path: Path, optimizer: str | None) -> Parts:
    """What is in a file but the optimizer's state. Raises as `read`."""
    state_dict, model = _state_dicts(path)
    if optimizer is None:
        raise ValueError(f"the file does not tell the optimizer's class; --optimizer is needed, one of {', '.join(TORCH_CLASSES)}.")
    torch_class = OPTIMIZERS[optimizer].torch_name if optimizer in OPTIMIZERS else optimizer
    groups = torch_groups.read_groups(state_dict, torch_class)
    arrays = None if model is None else {name: _array(name, value) for name, value in model.items()}
    names, by_index = _names(groups, arrays)
    check_names([*(name for own in names for name in own), *(arrays or {})])
    return Parts(state_dict, groups, names, arrays, getattr(model, "_metadata", None), by_index)


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write a file."""
    import torch

    state_dict: Any = torch_groups.write(checkpoint.records)
    if checkpoint.model is None:
        torch.save(state_dict, path)
        return
    model: Any = {name: to_torch(array) for name, array in checkpoint.model.items()}
    if checkpoint.versions is not None:  # as a module's state_dict has them
        model = OrderedDict(model)
        model._metadata = OrderedDict(checkpoint.versions)
    torch.save({"model": model, "optimizer": state_dict}, path)


def _state_dicts(path: Path) -> tuple[Any, Any]:
    """The optimizer's `state_dict`, and the model's or None."""
    saved = _load(path)
    if isinstance(saved, Mapping) and "param_groups" in saved:
        return saved, None
    if not isinstance(saved, Mapping) or set(saved) != {"model", "optimizer"}:
        keys = ", ".join(map(str, saved)) if isinstance(saved, Mapping) else type(saved).__name__
        raise ValueError(f'a dict of "model" and "optimizer" is needed, or the state_dict of an optimizer; got {keys[:200] or "nothing"}.')
    if not isinstance(saved["model"], Mapping):
        raise ValueError(f'"model" is a state_dict; got {type(saved["model"]).__name__}.')
    for name, value in saved["model"].items():
        if not is_tensor(value):
            raise ValueError(f'"model" has {name!r}, which is no tensor; got {type(value).__name__}.')
    return saved["optimizer"], saved["model"]


def _load(path: Path) -> Any:
    """What is in the file, in its own memory where it can be; nothing in it is executed."""
    import torch

    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"  # the format before torch 1.6 is another
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickles than torch's, which are refused anyhow
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise ValueError(f"it holds pickled code or objects{what}, or is damaged; nothing but tensors and plain data is read.") from None
    except Exception as error:  # whatever else torch makes of a damaged file
        raise ValueError(f"it is no torch checkpoint, or a damaged one: {type(error).__name__}: {str(error)[:200]}") from None


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return to_numpy(value)
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{name} of the model: {error}.") from None


def _names(groups: Sequence[Group], model: Mapping[str, np.ndarray] | None) -> tuple[list[tuple[str, ...]], bool]:
    """The names of each group's parameters; and whether they are only their indices.

    A model tells the names of one group that has as many parameters as the model has tensors; buffers, and several groups, have
    another order than the model. Groups of several models may have a name twice, and then go by index.
    """
    if all("param_names" in group.options for group in groups):
        names = [tuple(group.options["param_names"]) for group in groups]
        if len({name for own in names for name in own}) == sum(map(len, names)):
            return names, False
        return [tuple(map(str, group.indices)) for group in groups], True
    if model is not None and len(groups) == 1 and len(model) == len(groups[0].indices):
        return [tuple(model)], False
    if model is not None and len(model) < sum(len(group.indices) for group in groups):
        raise ValueError(f"the model has {len(model)} tensors, the optimizer {sum(len(group.indices) for group in groups)} parameters.")
    return [tuple(map(str, group.indices)) for group in groups], True
