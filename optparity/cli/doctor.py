"""`optparity doctor`."""

from importlib.util import find_spec
from typing import Annotated

import typer
from rich.text import Text

from .. import doctor as examination
from ._console import console, progress, say, table

COLORS = {True: "green", False: "red", None: ""}

Elements = Annotated[int, typer.Option(min=1024, help="Random elements per line.")]


def doctor(elements: Elements = 2**20) -> None:
    """Try on this machine each rewrite that could break the contract.

    Exit 1 if one is not stopped.
    """
    for what, found in examination.machine():
        say(f"{what:22s}{found}")
    tried, failed = table("operation", "dtype", "found", "verdict"), 0
    with progress() as bar:
        task = bar.add_task("", total=None)
        for line in examination.examine(elements):
            failed += line.ok is False
            tried.add_row(line.what, line.dtype, line.found, Text(line.verdict, COLORS[line.ok]))
            bar.update(task, description=line.what)
    console.print(tried)
    if not find_spec("torch"):
        console.print("torch is not installed: its operations were not tried.")
    if failed:
        console.print(f"{failed} lines break the contract here.", style="red")
    else:
        console.print("The contract is kept here.", style="green")
    raise typer.Exit(1 if failed else 0)
