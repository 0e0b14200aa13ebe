"""`optparity golden`."""

import json
import warnings
from collections.abc import Iterable, Sequence
from enum import StrEnum
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..parity import golden as hashing
from ._console import need, progress, say, writable, write
from ._errors import BadInputError

Action = StrEnum("Action", ["write", "check"])
Side = StrEnum("Side", list(hashing.SIDES))

What = Annotated[Action, typer.Argument(help="Write this machine's hashes, or check them against a file's.")]
File = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="JSON; it carries its own configuration. For check, optparity's own by default.")
]
Around = Annotated[bool, typer.Option("--around", help="Of write: what stands around the step, instead of the optimizers.")]
Which = Annotated[
    Side, typer.Option(help="What to run: jax as its backend treats subnormals, torch in both ways, or applied: jax's update_and_apply.")
]


def golden(action: What, file: File = None, side: Which = Side("jax"), around: Around = False) -> None:
    """Write or check the hashes of every trajectory of one package.

    For machines that have one framework only. Exit 1 where a hash is not that of the file.
    """
    if side == "torch":
        need("torch")
    if action == "check":
        _check([file] if file else [hashing.PACKAGED, *([] if side == "applied" else [hashing.PACKAGED_AROUND])], str(side))
    elif file is None:
        raise BadInputError("golden write: the file to write is needed.")
    else:
        _optimizers_only(str(side), around)
        writable(file)
        got = _hash(str(side), hashing.AROUND if around else hashing.CONFIGURATION)
        write(file, json.dumps(got, indent=1))
        say(f"Subnormals {_joined(hashing.hashes(got))}: {len(got['hashes'])} trajectories written to {file}")


def _check(files: Sequence[Path | Traversable], side: str) -> None:
    differ = [_differ(file, side) for file in files]
    raise typer.Exit(1 if any(differ) else 0)


def _optimizers_only(side: str, around: Any) -> None:
    if side == "applied" and around:
        raise BadInputError("golden: --side applied walks the optimizers; for what stands around the step jax or torch is needed.")


def _differ(file: Path | Traversable, side: str) -> bool:
    """Whether a hash here is not that of the file; says which."""
    expected = _read(file)
    _optimizers_only(side, expected["configuration"].get("around"))
    ways, stored = hashing.ways(side), hashing.hashes(expected)
    known = [way for way in ways if way in stored]
    if not known:
        raise BadInputError(
            f"{file} has hashes for subnormals {_joined(stored)} only, and here they are {_joined(ways)}: "
            "a file written with --side torch has both."
        )
    got = _hash(side, expected["configuration"])
    wrong = hashing.differences(expected, got)
    for line in wrong[:5]:
        say(line, "red")
    what = "trajectories around the step" if expected["configuration"].get("around") else "trajectories"
    say(f"Subnormals {_joined(known)}: {len(got['hashes'])} {what}, {len(wrong)} differences.")
    return bool(wrong)


def _joined(ways: Iterable[str]) -> str:
    return " and ".join(ways)


def _hash(side: str, wanted: dict[str, Any]) -> dict[str, Any]:
    configuration = hashing.possible(side, wanted)
    if configuration != wanted:
        say("TPUs have no float64: its trajectories are left out.")
    with progress() as bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is 0 in float16")  # its NaNs are hashed like other bits
        task = bar.add_task("", total=len(list(hashing.keys(configuration))) * len(hashing.ways(side)))
        return hashing.write(side, configuration, lambda: bar.update(task, advance=1))


def _read(file: Path | Traversable) -> dict[str, Any]:
    if isinstance(file, Path) and file.exists() and not file.is_file():  # a device or a pipe may have no end
        raise BadInputError(f"{file} cannot be read as a golden file: it is no regular file.")
    try:
        return hashing.read(file)
    except (OSError, ValueError) as error:
        raise BadInputError(f"{file} cannot be read as a golden file: {error}") from None
