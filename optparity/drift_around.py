"""How far stock torch and stock optax are from each other around the optimizer, measured; `optparity drift --around` writes it down."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path

import jaxopt_impl

from .around import AROUND_ROWS, PIECES, AroundRow, schedules
from .around.piece import SIZES
from .doctor import machine
from .drift import markdown_table
from .parity.bits import ulp_distance
from .parity.contexts import CONTEXTS
from .parity.jax_side import JaxSide, fields
from .parity.streams import gradients, parameters
from .parity.subnormals import torch_flushing_like_jax


def rows() -> list[AroundRow]:
    """Those that optax or torch has."""
    return [row for row in AROUND_ROWS if row.stock_tx or row.stock_torch]


@dataclass(frozen=True)
class Apart:
    """One row: the distances after the first and the last step, as shares of the largest movement of a parameter."""

    row: AroundRow
    stock: tuple[float, float] | None  # stock torch from stock optax
    torch: float | None  # stock torch from torch_ref, after the last step
    optax: float | None  # stock optax from jaxopt_impl, after the last step
    ours: int  # elements of parameters whose bits differ between jaxopt_impl and torch_ref, over all steps

    def __str__(self) -> str:
        return str(self.row)


def measure(steps: int) -> Iterator[Apart]:
    """Each row that stock torch or stock optax has, on normal gradients in float32, all fed the same."""
    with torch_flushing_like_jax():
        for row in rows():
            yield _measure(row, steps)


def _measure(row: AroundRow, steps: int) -> Apart:
    dtype, measured = row.dtypes[0], row.entry.measured
    start = parameters(SIZES, dtype)
    fed = list(islice(gradients("normal", start), steps))
    ours, theirs = _in_jax(row.tx, start, fed, measured), _in_torch(row.torch, start, fed, measured)
    optax = _in_jax(row.stock_tx, start, fed, measured) if row.stock_tx else None
    torch = _in_torch(row.stock_torch, start, fed, measured) if row.stock_torch else None
    return Apart(
        row,
        stock=(_distance(torch[0], optax[0], start), _distance(torch[-1], optax[-1], start)) if torch and optax else None,
        torch=_distance(torch[-1], theirs[-1], start) if torch else None,
        optax=_distance(optax[-1], ours[-1], start) if optax else None,
        ours=sum(int((a.view(f"u{a.itemsize}") != b.view(f"u{b.itemsize}")).sum()) for a, b in zip(ours, theirs, strict=True)),
    )


def _in_jax(tx, start, fed: Sequence, measured: str) -> list[np.ndarray]:
    """What is measured, after each step, end to end."""
    side, found = JaxSide(tx, start, CONTEXTS["train_step"]), []
    paths = [keystr(path) for path, _ in tree_leaves_with_path(start)]
    for gradient in fed:
        ((params, state),) = side.steps([gradient])[0]
        found.append(_flat(jax.tree.leaves(params if measured == "params" else fields(state, {measured}, paths)[measured])))
    return found


def _in_torch(make, start, fed: Sequence, measured: str) -> list[np.ndarray]:
    from .parity.torch_side import TorchSide

    side, found = TorchSide(make, jax.tree.leaves(start)), []
    for gradient in fed:
        side.step(jax.tree.leaves(gradient))
        found.append(_flat(side.params() if measured == "params" else [x for x in side.state()[measured] if x is not None]))
    return found


def _flat(leaves: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def _distance(a: np.ndarray, b: np.ndarray, start) -> float:
    """The largest difference as a share of the largest movement."""
    a, b, began = (x.astype(np.float64) for x in (a, b, _flat(jax.tree.leaves(start))))
    moved = np.abs(b - began).max()
    return float(np.abs(a - b).max() / moved) if moved else float(np.abs(a - b).max() > 0)


class Distance(NamedTuple):
    """How far the learning rates of stock are from ours, over so many steps."""

    schedule: str
    form: str
    stock: str  # "optax", compiled, in float32; "torch.optim", step by step
    steps: int
    differing: int
    largest: int  # ulp of float32


def learning_rates(steps: int = 10_000) -> Iterator[Distance]:
    """Each schedule that optax or torch.optim has, against ours, in float32."""
    counts = np.arange(steps, dtype=np.int32)
    for name, of_name in schedules.forms(steps, steps).items():
        for label, form in of_name.items():
            ours = np.asarray(schedules.schedule(jaxopt_impl, name, form.arguments)(counts))
            for stock, values in (("optax", schedules.of_optax(form, counts)), ("torch.optim", schedules.of_torch(form, steps))):
                if values is not None:
                    ulp = ulp_distance(ours, values)
                    yield Distance(name, label, stock, steps, int((ulp > 0).sum()), int(ulp.max()))


COUNTS = 10_000
PAGE = """\
# What differs around the optimizer

Between a gradient and an update stand a norm, a clip, an accumulation, a loss scale, a schedule, an average. PyTorch
and optax mean different things by one name there, or round otherwise. `jaxopt_impl` and `torch_ref` have both meanings,
named by `form="torch"` and `form="optax"`, with the same bits in both packages.

All took {steps:,} steps with the same normal gradients. *torch and optax* is how far stock PyTorch and stock optax
are from each other, after the first and after the last step: the largest difference of a parameter (or of its average),
as a share of the largest movement of one. Empty is what one of them does not have. The next two columns are the
distance of each from our form of it at the end. The last one counts the elements whose bits differ between
`jaxopt_impl` and `torch_ref`, over all steps.

Written by `optparity drift --around docs/around_differences.md`, on:

{machine}

{distances}

## Why they differ

{reasons}

## Learning rates

Each schedule at {counts:,} counts, in float32, against ours. Ours is a closed form in float64, rounded once. optax
computes in float32, and near the end of a cosine most of its digits cancel. torch multiplies the last learning rate by
a ratio, in float64, and the errors add up.

{rates}
"""


def page(found: Sequence[Apart], steps: int) -> str:
    """The Markdown page."""
    headers = ["piece", "torch and optax, step 1", "at the end", "torch from ours", "optax from ours", "bits between ours"]
    differing = [piece for piece in PIECES.values() if piece.differs]  # also those that stock has not
    return PAGE.format(
        steps=steps,
        machine="\n".join(f"- {what}: {found}" for what, found in machine()),
        distances=markdown_table(headers, map(_line, found)),
        reasons=markdown_table(["piece", "why"], ([f"`{piece.name}`", piece.differs] for piece in differing)),
        counts=COUNTS,
        rates=markdown_table(
            ["schedule", "stock", "counts that differ", "largest distance"],
            (
                [f"`{each.schedule}` ({each.form})", each.stock, f"{each.differing:,}", f"{each.largest:.1g} ulp".replace("e+0", "e")]
                for each in learning_rates(COUNTS)
            ),
        ),
    )


def _line(apart: Apart) -> list[str]:
    first, last = apart.stock or (None, None)
    return [f"`{apart.row.piece}` ({apart.row.label})", *map(_share, (first, last, apart.torch, apart.optax)), f"{apart.ours:,}"]


def _share(distance: float | None) -> str:
    if distance is None:
        return ""
    if distance != distance:
        return "NaN"
    return "0" if not distance else f"{100 * distance:.2g} %" if distance > 1e-4 else f"{distance:.0e}"
