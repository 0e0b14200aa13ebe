"""A checkpoint of a model and its optimizer in NumPy, whatever format it came from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays import check_alike
from ..interop import Matching, torch_classes
from ..interop import groups as torch_groups
from ..interop.groups import Group, Record
from ..interop.parameters import few


class RefusedError(Exception):
    """A checkpoint that cannot be read, or does not carry over; in one line."""


@dataclass(frozen=True)
class Given:
    """What the command line says of an optimizer where its file does not.

    Attributes:
        optimizer: the class in torch, or its twin in JAX.
        step: how many steps were taken, where torch does not hold it.
        missing: parameters that may have no state next to others that have.
        like: a torch checkpoint of the same model and optimizer, whose groups and order of parameters hold.
        model_key, optimizer_key: where in a torch checkpoint they are, as `state_dict` or `optimizer_states.1`.
        names: a JSON file with the names of the optimizer's parameters in its order; or "model", where that is the order of the model's
            `state_dict`.
        square_kernels: of a checkpoint of JAX, "transposed" or "same": how torch has the kernels whose shape does not tell.
    """

    optimizer: str | None = None
    step: int | None = None
    missing: Sequence[str] = ()
    like: Path | None = None
    model_key: str | None = None
    optimizer_key: str | None = None
    names: Path | None = None
    square_kernels: str | None = None

    def check_no_keys(self) -> None:
        """Raise where something was given that only a torch checkpoint takes."""
        for option, value in {"--model-key": self.model_key, "--optimizer-key": self.optimizer_key, "--names": self.names}.items():
            if value is not None:
                raise ValueError(f"{option} is for a torch checkpoint, and for --like; this one has names of its own.")

    def absent(self, groups: Sequence[Group], names: Sequence[Sequence[str]]) -> set[Any]:
        """The keys of the parameters that `missing` tells of: by name, or as messages have them.

        Raises: ValueError where there is no such parameter.
        """
        index_of: dict[str, Any] = {}
        for group, own in zip(groups, names, strict=True):
            for position, (index, name) in enumerate(zip(group.indices, own, strict=True)):
                index_of |= {name: index, group.name(position): index}
        for called in self.missing:
            if called not in index_of:
                known = few([name for own in names for name in own])
                raise ValueError(f"--missing {called}: no parameter has this name; one of {known} is needed.")
        return {index_of[called] for called in self.missing}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in NumPy.

    Attributes:
        records: the optimizer's groups and their state.
        names: of each group's parameters.
        model: the model's arrays, where they are there.
        versions: of the model's modules, as torch writes them.
        by_index: whether the names are only the places of the parameters in torch.
        order: the names of all that is in the model's `state_dict`, where `extras` are in it too.
        extras: what is in it that is no tensor, by name.
        frame: what a torch file holds beside, with a `data.Slot` in the place of the model and of the optimizer; None where it is the two
            alone.
        notes: what somebody should know of what was read.
        by: what told the names: the file's metadata, or as in `names.Names`.
        matching: of a run that was saved in JAX, with the torch checkpoint like it.

    Raises: ValueError or TypeError where a moment has not the shape and dtype of its parameter; that of a half may be float32.
    """

    records: Sequence[Record]
    names: Sequence[Sequence[str]]
    model: Mapping[str, np.ndarray] | None
    versions: Mapping[str, Any] | None = None
    by_index: bool = False
    order: Sequence[str] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)
    frame: Any = None
    notes: Sequence[str] = ()
    by: str = "metadata"
    matching: Matching | None = None

    def __post_init__(self) -> None:
        for record, names in zip(self.records, self.names, strict=True):
            for position, (own, name) in enumerate(zip(record.state, names, strict=True)):
                if own:
                    self._check(record, position, own, name)

    def _check(self, record: Record, position: int, own: Mapping[str, np.ndarray], name: str) -> None:
        parameters = {} if self.by_index else self.model or {}
        like = parameters.get(name, next(iter(own.values())))
        for key, array in own.items():
            wide = like.dtype.itemsize == 2 and array.dtype == np.float32
            who = f"{record.group.optimizer}: {key} of {record.group.name(position)}"
            check_alike(who, array, like.shape, array.dtype if wide else like.dtype, f"the parameter {name}")

    @property
    def size(self) -> int:
        """In bytes."""
        moments = (array.nbytes for record in self.records for own in record.state for array in own.values())
        return sum(moments) + sum(array.nbytes for array in (self.model or {}).values())


def check_names(names: Sequence[Any]) -> None:
    """Raise where a name of a parameter or tensor is not one."""
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"parameters and tensors have names, which are strings and not empty; got {name!r}.")


def pairs(checkpoint: Checkpoint) -> Iterator[tuple[str, ...]]:
    """Which array is which parameter in torch: name, shape, name or index in torch, layout, and what decided."""
    if checkpoint.matching is not None:
        yield from checkpoint.matching.rows()
        return
    for (group, _, state), names in zip(checkpoint.records, checkpoint.names, strict=True):
        for name, index, own in zip(names, group.indices, state, strict=True):
            tensor = None if checkpoint.by_index else (checkpoint.model or {}).get(name)
            shape = next((str(array.shape) for array in (tensor, *own.values()) if array is not None), "")
            yield name, shape, index if isinstance(index, str) else f"params[{index}]", "as it is", checkpoint.by


def rows(checkpoint: Checkpoint) -> Iterator[tuple[str, ...]]:
    """What is in a checkpoint: part, parameters, fields, step, bytes."""
    if checkpoint.model is not None:
        yield "model", f"{len(checkpoint.model):,}", "", "", f"{sum(array.nbytes for array in checkpoint.model.values()):,}"
    for i, (group, step, state) in enumerate(checkpoint.records):
        fields = list(dict.fromkeys(key for own in state for key in own))
        size = sum(array.nbytes for own in state for array in own.values())
        yield f"group {i}: {group.optimizer}", f"{len(state):,}", ", ".join(fields), str(step), f"{size:,}"


def notes(checkpoint: Checkpoint, *, to_torch: bool) -> Iterator[str]:
    """What somebody should know who goes on with the file."""
    yield from checkpoint.notes
    if checkpoint.by_index:
        hint = "" if to_torch else " --names FILE.json names them."
        yield f"Parameters are named by their index in torch: neither its groups nor the shapes in the model tell their names.{hint}"
    kept = [key for group, *_ in checkpoint.records for key in torch_classes.unknown(group.optimizer, group.options)]
    if kept:
        yield f"Kept as data, as torch does: {', '.join(dict.fromkeys(kept))} of the groups."
    left = list(dict.fromkeys(key for group, *_ in checkpoint.records for key in torch_classes.scheduled(group.options)))
    if left:
        yield f"A scheduler left {', '.join(left)} in the groups, kept as data. It does not carry over to JAX: give a schedule there."
    yield from dict.fromkeys(said for group, step, _ in checkpoint.records if (said := torch_groups.stopped(group, step)))
    for group, step, _ in checkpoint.records if to_torch else ():
        if group.step_kind is None and step > 1:
            yield f"torch's {group.optimizer} holds no step: give --step {step} on the way back."
            break
