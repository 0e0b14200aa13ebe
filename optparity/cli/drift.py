"""`optparity drift`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from .. import detection as measuring_detection
from .. import drift as measuring
from .. import drift_around as measuring_around
from ..registry import DTYPES, OPTIMIZERS
from ._console import need, progress, say, writable, write
from ._errors import BadInputError

STEPS = 1000
Row = TypeVar("Row")

Page = Annotated[Path, typer.Argument(metavar="FILE.md", help="The page to write, Markdown.")]
Steps = Annotated[int | None, typer.Option(min=2, help="Steps of normal gradients.", show_default="1000")]

Around = Annotated[bool, typer.Option("--around", help="What stands around the step, instead: torch and optax against each other.")]
Detection = Annotated[bool, typer.Option("--detection", help="Which check sees which planted mistake, instead.")]


def drift(file: Page, steps: Steps = None, around: Around = False, detection: Detection = False) -> None:
    """Measure how far torch.optim and optax are from the contract.

    torch.optim is measured as for-loop, foreach and fused. The page says how many bits differ, and why.
    """
    need("torch", *(["sklearn"] if detection else []))
    if detection and (around or steps):
        raise BadInputError(f"--detection {'--around' if around else '--steps'}: the page of --detection has steps of its own.")
    writable(file)
    steps = steps or STEPS
    if detection:
        rows = _shown(measuring_detection.measure(), measuring_detection.total())
        text = measuring_detection.page(rows)
    elif around:
        rows = _shown(measuring_around.measure(steps), len(measuring_around.rows()))
        text = measuring_around.page(rows, steps)
    else:
        rows = _shown(measuring.measure(steps), len(OPTIMIZERS) * len(DTYPES))
        text = measuring.page(rows, steps)
    write(file, text)
    say(f"{len(rows)} lines written to {file}")


def _shown(measured: Iterable[Row], total: int) -> list[Row]:
    """The rows, with a bar as they are measured."""
    rows = []
    with progress() as bar:
        task = bar.add_task("", total=total)
        for row in measured:
            rows.append(row)
            bar.update(task, advance=1, description=str(row))
    return rows
