"""A checkpoint of a model and its optimizer in NumPy, whatever format it came from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays import check_alike
from ..interop.groups import Record


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
    """

    optimizer: str | None = None
    step: int | None = None
    missing: Sequence[str] = ()
    like: Path | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in NumPy.

    Attributes:
        records: the optimizer's groups and their state.
        names: of each group's parameters.
        model: the model's arrays, where they are there.
        versions: of the model's modules, as torch writes them.
        by_index: whether the names are only the places of the parameters in torch.

    Raises: ValueError or TypeError where a moment has not the shape and dtype of its parameter; that of a half may be float32.
    """

    records: Sequence[Record]
    names: Sequence[Sequence[str]]
    model: Mapping[str, np.ndarray] | None
    versions: Mapping[str, Any] | None = None
    by_index: bool = False

    def __post_init__(self) -> None:
        for record, names in zip(self.records, self.names, strict=True):
            for position, (own, name) in enumerate(zip(record.state, names, strict=True)):
                if own:
                    self._check(record, position, own, name)

    def _check(self, record: Record, position: int, own: Mapping[str, np.ndarray], name: str) -> None:
        parameters = {} if self.by_index else self.model or {}
        like = parameters.get(name, next(iter(own.values())))
        for field, array in own.items():
            wide = like.dtype.itemsize == 2 and array.dtype == np.float32
            who = f"{record.group.optimizer}: {field} of {record.group.name(position)}"
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


def rows(checkpoint: Checkpoint) -> Iterator[tuple[str, ...]]:
    """What is in a checkpoint: part, parameters, fields, step, bytes."""
    if checkpoint.model is not None:
        yield "model", f"{len(checkpoint.model):,}", "", "", f"{sum(array.nbytes for array in checkpoint.model.values()):,}"
    for i, (group, step, state) in enumerate(checkpoint.records):
        fields = list(dict.fromkeys(field for own in state for field in own))
        size = sum(array.nbytes for own in state for array in own.values())
        yield f"group {i}: {group.optimizer}", f"{len(state):,}", ", ".join(fields), str(step), f"{size:,}"


def notes(checkpoint: Checkpoint, *, to_torch: bool) -> Iterator[str]:
    """What somebody should know who goes on with the file."""
    if checkpoint.by_index:
        yield "Parameters are named by their index in torch: its groups have no param_names, and the model's order does not tell."
    for group, step, _ in checkpoint.records if to_torch else ():
        if group.step_kind is None and step > 1:
            yield f"torch's {group.optimizer} holds no step: give --step {step} on the way back."
            break
