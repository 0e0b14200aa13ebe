"""`optparity doctor`."""

import logging
import os
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.text import Text

from .. import doctor as examination
from ..accelerators.targets import TARGETS
from ..parity.canaries import ELEMENTS
from ..parity.reports import Line
from ._console import console, progress, refusing, say, table
from ._errors import BadInputError

COLORS = {True: "green", False: "red", None: ""}
MOST = 2**26  # elements: some 100 bytes each
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")

Target = StrEnum("Target", list(TARGETS))

TargetOption = Annotated[Target | None, typer.Option(help="Compile for this device, and run nothing on it.")]
Elements = Annotated[int | None, typer.Option(min=1024, max=MOST, help=f"Random elements per line; {ELEMENTS} if not given.")]


def doctor(target: TargetOption = None, elements: Elements = None) -> None:
    """Try on this machine each rewrite that could break the contract.

    With --target, compile for a device that need not be here: the programs are read, and interpreted on a CPU.

    Exit 1 if one is not stopped.
    """
    if target and elements:
        raise BadInputError(f"--elements {elements}: it is for what runs on this machine, not for --target {target}.")
    with refusing(MemoryError):
        failed = _try_compiled(target) if target else _try_here(elements or ELEMENTS)
    raise typer.Exit(1 if failed else 0)


def _try_here(elements: int) -> int:
    """How many lines break the contract on this machine."""
    for what, found in examination.machine():
        say(f"{what:22s}{found}")
    lines = []
    with progress() as bar:
        task = bar.add_task("", total=None)
        for line in examination.examine(elements):
            lines.append(line)
            bar.update(task, description=line.what)
    failed = _show(lines)
    if not find_spec("torch"):
        console.print("torch is not installed: its operations were not tried.")
    if failed:
        console.print(f"{failed} lines break the contract here.", style="red")
    else:
        console.print("The contract is kept here.", style="green")
    return failed


def _try_compiled(target: str) -> int:
    """How many lines break the contract in the programs that are compiled for a device."""
    missing = TARGETS[target].missing()
    if missing:
        raise BadInputError(f"--target {target}: {missing}")
    import jax

    from ..accelerators import compiling, examine

    jax.config.update("jax_platforms", "cpu")  # a device that is here is not opened
    logging.getLogger("jax_plugins").setLevel(logging.ERROR)  # it warns that what runs on a GPU is not installed
    for what, found in examine.described(target):
        say(f"{what:22s}{found}")
    programs, flags, lines = examine.chosen(target), os.environ.get("XLA_FLAGS", ""), []
    with TemporaryDirectory() as folder, progress() as bar:
        task = bar.add_task(f"compiling for {target}", total=2 * len(programs))
        for compiled in compiling.compile_programs(target, programs, Path(folder), advance=lambda: bar.advance(task), flags=flags):
            lines.append(examine.examine(target, compiled))
            bar.update(task, advance=1, description=lines[-1].what)
    failed = _show(lines)
    if failed:
        console.print(f"{failed} lines break the contract in the programs compiled for {target}; they were not run.", style="red")
        _advise()
    else:
        console.print(f"The contract is kept in the programs compiled for {target}; they were not run.", style="green")
    return failed


def _show(lines: list[Line]) -> int:
    """Print a table; how many of its lines break the contract."""
    tried = table("operation", "dtype", "found", "verdict")
    for line in lines:
        tried.add_row(line.what, line.dtype, line.found, Text(line.verdict, COLORS[line.ok]))
    console.print(tried)
    return sum(line.ok is False for line in lines)


def _advise() -> None:
    """Say what to do where programs break the contract."""
    flags = [f"{flag}={os.environ[flag]!r}" for flag in FLAGS if os.environ.get(flag)]
    if flags:
        say(f"Try it without {' and '.join(flags)}.")
    else:
        say('Use a version of jax that the page "Limits" of the documentation names, and report these lines.')
