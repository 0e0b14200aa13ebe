"""`optparity drift`."""

from pathlib import Path
from typing import Annotated

import typer

from .. import drift as measuring
from .. import drift_around as measuring_around
from ..registry import DTYPES, OPTIMIZERS
from ._console import need, progress, say, writable, write

Page = Annotated[Path, typer.Argument(metavar="FILE.md", help="The page to write, Markdown.")]
Steps = Annotated[int, typer.Option(min=2, help="Steps of normal gradients.")]

Around = Annotated[bool, typer.Option("--around", help="What stands around the step, instead: torch and optax against each other.")]


def drift(file: Page, steps: Steps = 1000, around: Around = False) -> None:
    """Measure how far torch.optim and optax are from the contract.

    torch.optim is measured as for-loop, foreach and fused. The page says how many bits differ, and why.
    """
    need("torch")
    writable(file)
    measured, total = (measuring_around, len(measuring_around.rows())) if around else (measuring, len(OPTIMIZERS) * len(DTYPES))
    rows = []
    with progress() as bar:
        task = bar.add_task("", total=total)
        for row in measured.measure(steps):
            rows.append(row)
            bar.update(task, advance=1, description=str(row))
    write(file, measured.page(rows, steps))
    say(f"{len(rows)} lines written to {file}")
