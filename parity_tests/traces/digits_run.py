"""What both scripts train: a classifier of digits with one hidden layer, the same start, batches and learning rates."""

import numpy as np

from optparity.datasets import digits

HIDDEN, BATCH, MAX_NORM, STEPS, BEGINS = 16, 64, 0.5, 12, 4  # a mistake begins at this step


def start() -> dict[str, dict[str, np.ndarray]]:
    """Weights as JAX has them, (in, out)."""
    rng = np.random.default_rng(0)
    sizes = {"hidden": (64, HIDDEN), "output": (HIDDEN, 10)}
    return {
        name: {
            "kernel": (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32),
            "bias": (0.1 * rng.standard_normal(shape[1])).astype(np.float32),
        }
        for name, shape in sizes.items()
    }


def batch(step: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    images, labels = digits().batch(step, BATCH, seed)
    return images.astype(np.float32), labels.astype(np.int32)


def rates() -> np.ndarray:
    """Of each step from 1 on."""
    return (0.02 / (1 + np.arange(STEPS) / 10)).astype(np.float32)
