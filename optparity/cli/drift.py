"""`optparity drift`."""

from pathlib import Path
from typing import Annotated

import typer

from .. import drift as measuring
from ..registry import DTYPES, OPTIMIZERS
from ._console import need, progress, say, writable, write

Page = Annotated[Path, typer.Argument(metavar="FILE.md", help="The page to write, Markdown.")]
Steps = Annotated[int, typer.Option(min=2, help="Steps of normal gradients.")]


def drift(file: Page, steps: Steps = 1000) -> None:
    """Measure how far torch.optim and optax are from the contract.

    torch.optim is measured as for-loop, foreach and fused. The page says how many bits differ, and why.
    """
    need("torch")
    writable(file)
    rows = []
    with progress() as bar:
        task = bar.add_task("", total=len(OPTIMIZERS) * len(DTYPES))
        for row in measuring.measure(steps):
            rows.append(row)
            bar.update(task, advance=1, description=f"{row.optimizer}, {row.dtype}")
    write(file, measuring.page(rows, steps))
    say(f"{len(rows)} lines written to {file}")
