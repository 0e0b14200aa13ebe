"""What the tests feed: a matrix, a vector and a scalar, and gradients that a clip to 0.5 reaches now and then."""

import numpy as np

SHAPES = {"w": (3, 4), "b": (4,), "s": ()}


def parameters(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.standard_normal(shape)) for name, shape in SHAPES.items()}


def gradients(steps: int, seed: int = 1, scale: float = 0.15) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{name: np.asarray(scale * rng.standard_normal(shape)) for name, shape in SHAPES.items()} for _ in range(steps)]
