"""`optparity explain`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..doctor import machine
from ..drift import markdown_table
from ..explain import stock
from ._console import console, need, progress, say, table, writable, write
from ._errors import BadInputError

Name = StrEnum("Name", list(stock.STOCK))

Which = Annotated[Name | None, typer.Argument(metavar="[NAME]", show_choices=False, help=f"{', '.join(stock.STOCK)}.")]
Page = Annotated[Path | None, typer.Option("--page", metavar="FILE.md", help="Instead: all of them, as a page of Markdown.")]


def explain(name: Which = None, page: Page = None) -> None:
    """Say how torch.optim and optax differ in an optimizer of one name.

    Both rules, defaults and states, how far the two are from each other in float64, measured now, and what to set.
    """
    need("torch")
    if (name is None) == (page is None):
        raise BadInputError("explain: a name or --page FILE.md is needed, and not both.")
    writable(page)
    found = _measure([name] if name else list(stock.STOCK))
    if page:
        write(page, stock.page(found, machine(), markdown_table))
        say(f"{len(found)} optimizers written to {page}")
    else:
        for each, apart in found.items():
            _show(each, apart)


def _measure(names: list[str]) -> dict[str, stock.Apart]:
    found = {}
    with progress() as bar:
        task = bar.add_task("", total=len(names))
        for name in names:
            found[str(name)] = stock.measure(name)
            bar.update(task, advance=1, description=str(name))
    return found


def _show(name: str, apart: stock.Apart) -> None:
    """The verdict first."""
    one = stock.STOCK[name]
    say(f"{name}: {stock.LEFT[one.agrees]}.", "red" if one.agrees == "no" else "green")
    console.print(f"{one.why}\n")
    numbers = [f"step {step}" for step in stock.STEPS]
    distances = table("distance in float64, over the largest movement", *numbers, right=numbers)
    if apart.defaults is not None:
        distances.add_row("defaults of both, one learning rate", *map(stock.said, apart.defaults))
    distances.add_row("nearest settings", *map(stock.said, apart.nearest))
    console.print(distances)
    shown = table("", f"torch.optim.{one.torch_class}", one.in_optax)
    shown.add_row("rule", *(rule.replace("; ", "\n") for rule in one.rules))
    for what, *both in stock.facts(name, apart):
        shown.add_row(what, *map(", ".join, both))
    console.print("", shown, "\nNearest settings:")
    for call in one.calls(nearest=True):
        say(f"  {call}")
