"""What the tests feed: a matrix, a vector and a scalar, and gradients that a clip to 0.5 reaches now and then."""

import numpy as np

SHAPES = {"w": (3, 4), "b": (4,), "s": ()}


def parameters(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.standard_normal(shape)) for name, shape in SHAPES.items()}


def gradients(steps: int, seed: int = 1, scale: float = 0.15) -> list[dict[str, np.ndarray]]:
    """Of every four the last two are large: then a clip of a leaf or of an element reaches them too, and else none does."""
    rng = np.random.default_rng(seed)
    scales = [scale * (8 if i % 4 > 1 else 1) for i in range(steps)]
    return [{name: np.asarray(each * rng.standard_normal(shape)) for name, shape in SHAPES.items()} for each in scales]
