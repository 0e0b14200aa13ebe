"""`optparity golden`."""

import json
import warnings
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from ..parity import golden as hashing
from ._console import console, need, progress, say, writable, write
from ._errors import BadInputError

PACKAGED = files("optparity.parity") / "golden.json"
Action = StrEnum("Action", ["write", "check"])
Side = StrEnum("Side", list(hashing.SIDES))

What = Annotated[Action, typer.Argument(help="Write this machine's hashes, or check them against a file's.")]
File = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="JSON; it carries its own configuration. For check, optparity's own by default.")
]
Which = Annotated[Side, typer.Option(help="Which package to run.")]


def golden(action: What, file: File = None, side: Which = Side("jax")) -> None:
    """Write or check the hashes of every trajectory of one package.

    For machines that have one framework only. Exit 1 where a hash is not that of the file.
    """
    if side == "torch":
        need("torch")
    if action == "check":
        _check(file, str(side))
    elif file is None:
        raise BadInputError("golden write: the file to write is needed.")
    else:
        writable(file)
        got = _hash(str(side), hashing.CONFIGURATION)
        write(file, json.dumps(got, indent=1))
        say(f"{len(got['hashes'])} trajectories written to {file}")


def _check(file: Path | None, side: str) -> None:
    expected = _read(file)
    configuration = expected["configuration"]
    if expected["flushes"] != hashing.jax_flushes():
        configuration = hashing.without_subnormals(expected)
        console.print("This backend treats subnormals otherwise than the file's: the stream of subnormals is left out.")
    got = _hash(side, configuration)
    wrong = hashing.differences(expected, got)
    for line in wrong[:5]:
        say(line, "red")
    console.print(f"{len(got['hashes'])} trajectories, {len(wrong)} differences.")
    raise typer.Exit(1 if wrong else 0)


def _hash(side: str, configuration: dict[str, Any]) -> dict[str, Any]:
    with progress() as bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is 0 in float16")  # its NaNs are hashed like other bits
        task = bar.add_task("", total=len(list(hashing.keys(configuration))))
        return hashing.write(side, configuration, lambda: bar.update(task, advance=1))


def _read(file: Path | None) -> dict[str, Any]:
    source = file or PACKAGED
    try:
        document = json.loads(source.read_text(encoding="utf-8"))
        hashing.validate(document)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise BadInputError(f"{source} cannot be read as a golden file: {error}") from None
    return document
