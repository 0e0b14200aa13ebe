"""Checkpoints that are whole or not there, whatever moment the run is killed at.

A checkpoint is a folder step-NNNNNNNN: run.json, torch.pt (a PyTorch file) and jax/ (an Orbax folder), as far as the run has these
sides. It is written under a name that begins with a dot and renamed when all of it is there; run.json holds a hash of every bit of each
side, which is compared when it is loaded.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..harness.bits import digest

KEEP = 2


class DamagedError(Exception):
    """A checkpoint that is not what was saved."""


def hashes(trainers: Sequence, prefix: str = "") -> dict[str, str]:
    """A hash of each side's parameters and state, or of those whose names begin with `prefix`."""
    return {
        trainer.name: digest([array for name, array in sorted(trainer.arrays().items()) if name.startswith(prefix)]) for trainer in trainers
    }


def save(folder: Path, step: int, trainers: Sequence, run: dict) -> Path:
    """Write the checkpoint of a step, and drop all but the latest `KEEP`.

    Args:
        run: what the run was asked for, as JSON.
    """
    path, temporary = folder / f"step-{step:08d}", folder / f".step-{step:08d}"
    if not path.exists():
        clear(folder)
        temporary.mkdir(parents=True)
        for trainer in trainers:
            trainer.save(temporary)
        (temporary / "run.json").write_text(json.dumps({"step": step, "hashes": hashes(trainers), **run}, indent=1))
        temporary.rename(path)
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        old.rename(folder / f".{old.name}")
    clear(folder)
    return path


def clear(folder: Path) -> None:
    """Remove what a killed run had not finished writing, or removing."""
    for unfinished in folder.glob(".step-*"):
        shutil.rmtree(unfinished)


def latest(folder: Path) -> Path | None:
    """The latest checkpoint in a folder, or None."""
    return max(folder.glob("step-*"), default=None)


def read(path: Path) -> dict:
    """A checkpoint's run.json.

    Raises: DamagedError.
    """
    try:
        return json.loads((path / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from None


def load(path: Path, trainers: Sequence) -> int:
    """Give the trainers the parameters and state of a checkpoint; its step.

    Raises: DamagedError where a file is missing, cannot be read, or holds other bits than were saved.
    """
    run = read(path)
    for trainer in trainers:
        try:
            trainer.load(path)
        except Exception as error:  # whatever the libraries make of a damaged file
            raise DamagedError(f"{path}: the {trainer.name} side cannot be read: {type(error).__name__}: {error}") from error
    for name, found in hashes(trainers).items():
        if found != run["hashes"].get(name):
            raise DamagedError(f"{path}: the {name} side's bits are not those that were saved")
    return run["step"]
