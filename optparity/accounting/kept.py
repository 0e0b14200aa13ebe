"""One tensor that the forward pass keeps, one place of the backward pass, and one kind of block."""

from collections.abc import Iterator
from typing import NamedTuple

from .memory import itemsize


class Saved(NamedTuple):
    """A tensor that the forward pass keeps, on one device."""

    name: str
    elements: int
    dtype: str
    core: bool = False  # inside the attention core, which selective recomputation makes again
    only: str | None = None  # counted "executed" only, or "korthikanti" only; "held": by the caller, until the backward pass is done

    @property
    def bytes(self) -> int:
        return self.elements * itemsize(self.dtype)


class InFlight(NamedTuple):
    """What the backward pass holds at one place, beside what the forward pass kept up to there: gradients on their way, on one device."""

    name: str
    elements: int
    core: bool = False
    remade: int = 0  # elements more where the core is recomputed by itself: its inputs laid out anew, its output, that one's gradient
    float32: int = 0  # elements more, in float32 whatever the dtype


class Layer(NamedTuple):
    """A kind of block."""

    experts: bool = False
    window: int | None = None  # tokens that one attends to, itself among them; all before it where there is none


Kept = Iterator[Saved | InFlight]
