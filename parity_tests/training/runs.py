"""Training runs in this process, and the files that they leave."""

from pathlib import Path

from optparity.parity.bits import digest
from optparity.training.run import Run, Training

SMALLER = {"gpt": {"n_embd": 32, "block_size": 32}}  # to save time


def trained(folder: Path, steps: int, *, resume: bool = False, checkpoint_every: int = 10_000, **what) -> Training:
    with Training(Run(**what), folder, resume=resume) as training:
        for _ in training.go(steps, checkpoint_every=checkpoint_every):
            pass
    return training


def hashes(training: Training) -> dict[str, str]:
    """Of every bit of each side's parameters and state."""
    return {trainer.name: digest([array for _, array in sorted(trainer.arrays().items())]) for trainer in training.trainers}


def files(folder: Path) -> list[str]:
    """Without the lock, which stays."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")
