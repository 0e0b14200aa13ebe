"""A file of JSON lines that is only ever appended to. Each line ends with a check of itself and of all lines before it.

So a changed byte, and a line that is gone, doubled or moved, are found where they are. A last line without its end is what a killed
process leaves; it says nothing yet, and is left out.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

KEY = ', "check": "'
DIGITS = 16


class Line(NamedTuple):
    """What a line says, its number from 1 on, where it ends in the file, and its check."""

    says: dict[str, Any]
    number: int
    end: int
    check: str


def encoded(says: dict[str, Any], before: str) -> tuple[bytes, str]:
    """A line after one with the check `before`, and its own check."""
    text = json.dumps(says, allow_nan=False)[:-1].encode()
    check = _check(text, before)
    return text + f'{KEY}{check}"}}\n'.encode(), check


def read(path: Path) -> Iterator[Line]:
    """The whole lines of a file, in their order.

    Raises: ValueError at a line that is damaged, which names file and line.
    """
    before, end = "", 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                return
            tail = len(KEY) + DIGITS + len('"}\n')
            text, check = raw[:-tail], raw[-tail:-3].decode("latin-1").removeprefix(KEY)
            if check != _check(text, before) or raw[-3:] != b'"}\n':
                raise ValueError(f"{path}, line {number}: damaged: its check is not that of what it says after the lines before it.")
            before, end = check, end + len(raw)
            yield Line(json.loads(text + b"}"), number, end, check)


def torn(path: Path) -> bool:
    """Whether the last line has no end."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 1, 0))
        return size > 0 and file.read() != b"\n"


def _check(text: bytes, before: str) -> str:
    return hashlib.sha256(before.encode() + text).hexdigest()[:DIGITS]
