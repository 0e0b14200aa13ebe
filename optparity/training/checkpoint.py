"""Checkpoints that are whole or not there, whatever moment the run is killed at.

A checkpoint is a folder step-NNNNNNNN: torch.pt (a PyTorch file) and jax/ (an Orbax folder), as far as the run has these sides, and
checkpoint.json with the step and a hash of each file, which are compared before anything is loaded. It is written under a name that
begins with a dot, and renamed when all of it is there.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._files import replacing

KEEP = 2


class DamagedError(Exception):
    """A checkpoint that is not what was saved."""


def save(folder: Path, step: int, trainers: Sequence) -> None:
    """Write the checkpoint of a step, and drop all but the latest `KEEP`.

    Raises: OSError where a file cannot be written.
    """
    path = folder / f"step-{step:08d}"
    if not path.exists():
        clear(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path, folder=True) as temporary:
            temporary.mkdir()
            for trainer in trainers:
                _save(trainer, temporary, path)
            (temporary / "checkpoint.json").write_text(json.dumps({"step": step, "files": _hashes(temporary)}, indent=1))
    for old in _complete(folder)[:-KEEP]:
        old.rename(folder / f".{old.name}")
    clear(folder)


def _save(trainer: Any, temporary: Path, path: Path) -> None:
    try:
        trainer.save(temporary)
    except OSError:
        raise
    except Exception as error:  # what the libraries make of a full disk
        raise OSError(f"{path} cannot be written: {' '.join(str(error).split())}") from error


def clear(folder: Path) -> None:
    """Remove what a killed run had not finished writing, or removing."""
    for unfinished in folder.glob(".step-*"):
        if re.fullmatch(r"\.step-\d{8}(\.replacing)?", unfinished.name):
            shutil.rmtree(unfinished)


def latest(folder: Path) -> Path | None:
    """The latest checkpoint in a folder, or None."""
    return max(_complete(folder), default=None)


def check(path: Path) -> int:
    """The step of a checkpoint whose every file is as it was saved.

    Raises: DamagedError.
    """
    try:
        document = json.loads((path / "checkpoint.json").read_text())
        step, expected = document["step"], document["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path / 'checkpoint.json'} cannot be read: {type(error).__name__}: {error}") from None
    if type(step) is not int or path.name != f"step-{step:08d}" or not isinstance(expected, dict):
        raise DamagedError(f"{path / 'checkpoint.json'} is not that of {path.name}.")
    found = _hashes(path)
    for name in sorted(found.keys() | set(expected)):
        if found.get(name) != expected.get(name):
            raise DamagedError(f"{path / name} is not as it was saved.")
    return step


def load(path: Path, trainers: Sequence) -> int:
    """Give the trainers the parameters and state of a checkpoint; its step.

    Raises: DamagedError where a file is not as it was saved, before anything is loaded.
    """
    step = check(path)
    for trainer in trainers:
        trainer.load(path)
    return step


def _complete(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name))


def _hashes(path: Path) -> dict[str, str]:
    """The SHA-256 of each file in a folder but checkpoint.json."""
    found = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_file() and name != "checkpoint.json":
            with file.open("rb") as opened:
                found[name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return found
