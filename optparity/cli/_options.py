"""The arguments that several commands have, and how they are read."""

import json
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

import typer

from ..accounting import checks
from ..registry import DTYPES, OPTIMIZERS
from ._console import refusing
from ._errors import BadInputError

Optimizer = StrEnum("Optimizer", list(OPTIMIZERS))
Dtype = StrEnum("Dtype", list(DTYPES))

OptimizerOption = Annotated[Optimizer, typer.Option(metavar="NAME", help=f"{', '.join(OPTIMIZERS)}.")]
ArgumentOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="An argument of the optimizer, as eps=1e-6. May be repeated."),
]


def chosen(given: Iterable[str] | None, known: Iterable[str]) -> list[str]:
    """Each name that is given, once; all that are known where none is."""
    return [str(name) for name in dict.fromkeys(given or known)]


def assignments(flag: str, given: Iterable[str] | None, known: Iterable[str] | None = None) -> dict[str, Any]:
    """{"KEY": value} of KEY=VALUE, values being JSON: numbers, true, false; what is not JSON is a string. Any key where none is known."""
    known, found = None if known is None else list(known), {}
    for assignment in given or []:
        key, equals, text = assignment.partition("=")
        if not (key and equals):
            raise BadInputError(f"{flag} {assignment}: KEY=VALUE is needed.")
        if known is not None and key not in known:
            raise BadInputError(f"unknown {flag} key {key!r}; one of {', '.join(known)} is needed.")
        try:
            found[key] = json.loads(text)
        except (ValueError, RecursionError):
            found[key] = text
    return found


def arguments_of(optimizer: str, given: Iterable[str] | None) -> dict[str, Any]:
    """What `--option` says of an optimizer's arguments, the learning rate apart."""
    known = [name for name in OPTIMIZERS[optimizer].defaults if name != "learning_rate"]
    found = assignments("--option", given, known)
    with refusing(ValueError):
        checks.options(optimizer, found)
    return found
