"""The table of what stands around an optimizer's step: one file for each kind, one `Piece` for each thing."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optax

from . import accumulation, averages, clipping, loss_scale, masks, recipe, schedules, state_dtypes
from .piece import Piece

KINDS = (clipping, accumulation, loss_scale, schedules, masks, averages, state_dtypes, recipe)
PIECES: dict[str, Piece] = {piece.name: piece for kind in KINDS for piece in kind.PIECES}


@dataclass(frozen=True)
class AroundRow:
    """One piece with one set of arguments, on both sides and in stock: what `registry.Row` is to an optimizer."""

    piece: str
    label: str

    def __str__(self) -> str:
        return f"{self.piece}: {self.label}"

    def __reduce__(self):
        return AroundRow, (self.piece, self.label)  # without the transforms, which do not travel between processes

    @property
    def entry(self) -> Piece:
        return PIECES[self.piece]

    @property
    def optimizer(self) -> str:
        return self.piece

    @property
    def arguments(self) -> dict[str, Any]:
        return self.entry.rows[self.label]

    @property
    def dtypes(self) -> tuple[str, ...]:
        return self.entry.dtypes

    @functools.cached_property
    def tx(self) -> optax.GradientTransformation:
        """Ours in JAX."""
        return self.entry.jax(**self.arguments)

    def torch(self, params: list) -> Any:
        """Ours in PyTorch, over a list of parameters."""
        return self.entry.torch(**self.arguments)(params)

    @functools.cached_property
    def stock_tx(self) -> optax.GradientTransformation | None:
        """The same of optax's parts."""
        return self.entry.stock_jax(**self.arguments) if self.entry.stock_jax else None

    @property
    def stock_torch(self) -> Callable[[list], Any] | None:
        """The same of torch's."""
        return self.entry.stock_torch(**self.arguments) if self.entry.stock_torch else None


AROUND_ROWS = [AroundRow(name, label) for name, piece in PIECES.items() for label in piece.rows]
