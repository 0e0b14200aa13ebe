"""What the commands share: what they print on, and what they ask of files and packages before they begin."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .._files import is_stream, replaceable, replacing, send
from ._errors import BadInputError

console = Console(width=None if sys.stdout.isatty() else 100, highlight=False, markup=False, emoji=False)


def say(line: str, style: str = "") -> None:
    """Print a line that is not to be wrapped: a terminal breaks it, and a file has it whole."""
    console.print(line, style=style, soft_wrap=True)


def table(*headers: str, right: Iterable[str] = ()) -> Table:
    """An empty table without lines; the columns of numbers are to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        made.add_column(header, overflow="fold", justify="right" if header in right else "left")
    return made


def progress() -> Progress:
    """A bar on standard error, where that is a terminal."""
    columns = (BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


@contextmanager
def refusing(*errors: type[Exception]) -> Iterator[None]:
    """Within it, these errors are about what was given, and are said in one line."""
    try:
        yield
    except errors as error:
        raise BadInputError(str(error)) from None


def need(*packages: str, extras: str = "cli,torch") -> None:
    """Refuse a command whose packages are not all installed."""
    for package in packages:
        if not find_spec(package):
            raise BadInputError(f"{package} is not installed; this command needs: pip install 'optparity[{extras}]'")


def writable(*files: Path | None) -> None:
    """Refuse, before any work is done, what cannot be written at its end. Folders are made."""
    for file in filter(None, files):
        try:
            if file.is_dir():
                raise BadInputError(f"{file} is a folder; a file name is needed.")
            if is_stream(file):
                continue
            replaceable(file)
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(f"{file} cannot be written: {error.strerror}.") from None
        if not os.access(file.parent, os.W_OK):
            raise BadInputError(f"{file} cannot be written: its folder is read-only.")


def drawable(plot: Path | None) -> Path | None:
    """Refuse a picture that cannot be drawn: the callback of `--plot`."""
    if plot:
        need("matplotlib")
        if plot.suffix not in (".png", ".svg", ".pdf"):
            raise BadInputError(f"--plot {plot}: a file name that ends in .png, .svg or .pdf is needed.")
        if is_stream(plot):
            raise BadInputError(f"--plot {plot} cannot be written: it is no regular file.")
    return plot


def write(file: Path, text: str) -> None:
    """The file, whole or not at all; a pipe or a terminal gets the text."""
    if is_stream(file):
        console.file.flush()
        send(text.encode(), file)
        return
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
