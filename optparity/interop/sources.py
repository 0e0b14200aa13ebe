"""Where a JAX leaf comes from in torch: one parameter, a part of one, or a stack of several; and the way back."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .layouts import Layout, apply, inverse


class Part(NamedTuple):
    """Elements `start` to `stop` of a torch parameter along an axis, as the queries of a fused `in_proj_weight`.

    It is called by its name, or by its index in torch's order.
    """

    name: Any
    start: int = 0
    stop: int | None = None
    axis: int = 0

    @property
    def whole(self) -> bool:
        return self.start == 0 and self.stop is None

    def __str__(self) -> str:
        end = "" if self.stop is None else self.stop
        return str(self.name) if self.whole else f"{self.name}[{':, ' * self.axis}{self.start}:{end}]"

    def cut(self, array: np.ndarray) -> np.ndarray:
        """These elements.

        Raises: ValueError where the array does not have them.
        """
        if self.whole:
            return array
        size = array.shape[self.axis] if self.axis < array.ndim else 0
        if not 0 <= self.start < (size if self.stop is None else self.stop) <= size:
            raise ValueError(f"{self} is no part of shape {array.shape}")
        return array[(*[slice(None)] * self.axis, slice(self.start, self.stop))]


class Stacked(NamedTuple):
    """Several torch parameters of one shape along a new axis of the leaf, as layers are for `scan`. Each goes through the leaf's layout."""

    names: Sequence[str | int | Part]
    axis: int = 0


class Source(NamedTuple):
    """The parts that a leaf is made of, and the axis along which they are stacked; None where it is one."""

    parts: tuple[Part, ...]
    axis: int | None = None

    def __str__(self) -> str:
        shown = [str(part) for part in self.parts]
        if self.axis is None:
            return shown[0]
        inner = shown if len(shown) < 4 else [shown[0], shown[1], "...", shown[-1]]
        return f"{len(shown)} stacked: {', '.join(inner)}"

    def renamed(self, name_of: Callable[[Any], Any]) -> "Source":
        """With other names of the parameters."""
        return self._replace(parts=tuple(part._replace(name=name_of(part.name)) for part in self.parts))


def source(given: str | int | Part | Stacked) -> Source:
    """What a user says of a leaf, in one form.

    Raises: ValueError for a stack of nothing, and for an axis that is counted from the end.
    """
    stacked = isinstance(given, Stacked)
    parts = tuple(part if isinstance(part, Part) else Part(part) for part in (given.names if stacked else [given]))
    found = Source(parts, given.axis if stacked else None)
    for axis in (found.axis or 0, *(part.axis for part in parts)):
        if not parts or axis < 0:
            raise ValueError(f"names: {given} is no part or stack; a name or more, and an axis >= 0 is needed.")
    return found


def gathered(origin: Source, layout: Layout, array_of: Callable[[Any], np.ndarray]) -> np.ndarray:
    """The leaf, of torch's arrays; the same memory where it can be.

    Raises: ValueError where an array has no such part, its layout does not fit, or the parts are not of one shape.
    """
    parts = [apply(layout, part.cut(array_of(part.name))) for part in origin.parts]
    if origin.axis is None:
        return parts[0]
    if len({part.shape for part in parts}) > 1:
        raise ValueError(f"a stack is of one shape; got {', '.join(map(str, dict.fromkeys(part.shape for part in parts)))}")
    return np.stack(parts, origin.axis)


def scattered(leaves: Iterable[tuple[Source, Layout, np.ndarray]]) -> dict[Any, np.ndarray]:
    """Torch's arrays by the names in the sources, of all leaves: the inverse of `gathered`.

    Raises: ValueError where a layout does not fit, or a parameter is not whole.
    """
    found: dict[Any, list[tuple[Part, np.ndarray]]] = {}
    for origin, layout, leaf in leaves:
        pieces = [leaf] if origin.axis is None else np.moveaxis(leaf, origin.axis, 0)
        if len(pieces) != len(origin.parts):
            raise ValueError(f"a stack of {len(origin.parts)} has that size along axis {origin.axis}; got shape {leaf.shape}")
        for part, piece in zip(origin.parts, pieces, strict=True):
            found.setdefault(part.name, []).append((part, apply(inverse(layout), piece)))
    return {name: _whole(pieces) for name, pieces in found.items()}


def _whole(pieces: list[tuple[Part, np.ndarray]]) -> np.ndarray:
    if pieces[0][0].whole:
        return pieces[0][1]
    check_whole([part for part, _ in pieces], None)
    return np.concatenate([array for _, array in sorted(pieces, key=lambda pair: pair[0].start)], pieces[0][0].axis)


def check_whole(parts: Sequence[Part], shape: tuple[int, ...] | None) -> None:
    """Raise where these parts of a parameter are not each element of it, once. Without its shape the end is not known."""
    ordered = sorted(parts, key=lambda part: part.start)
    ends = [0, *(part.stop for part in ordered)]
    end = None if shape is None else (*shape, *[0] * ordered[0].axis)[ordered[0].axis]  # of axes that it has not, nothing is the whole
    contiguous = all(part.start == ends[i] for i, part in enumerate(ordered)) and len({part.axis for part in parts}) == 1
    if not contiguous or (None not in (end, ends[-1]) and ends[-1] != end):
        raise ValueError(f"{', '.join(map(str, ordered))} are not the whole of {ordered[0].name}{'' if shape is None else f' {shape}'}")


def gathered_shape(origin: Source, layout: Layout, shape_of: Callable[[Any], tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of `gathered`, of the shapes of torch's arrays. Raises as it does."""
    one = gathered(Source(origin.parts[:1]), layout, lambda name: _of_shape(shape_of(name))).shape
    for part in origin.parts[1:]:
        other = gathered(Source((part,)), layout, lambda name: _of_shape(shape_of(name))).shape
        if other != one:
            raise ValueError(f"a stack is of one shape; got {one} and {other}")
    if origin.axis is None:
        return one
    return (*one[: origin.axis], len(origin.parts), *one[origin.axis :])


def _of_shape(shape: tuple[int, ...]) -> np.ndarray:
    """An array that takes no memory."""
    return np.broadcast_to(np.zeros((), np.bool_), shape)
