"""Numbers for the arguments of any program, and what the CPU makes of them."""

import jax
import numpy as np

from .programs import Program

STEP = 3  # of a counter


def drawn(program: Program, seed: int = 0) -> list[np.ndarray]:
    """The leaves of a program's arguments: normal gradients and parameters, a state that is not negative, factors between 0 and 1."""
    rng = np.random.default_rng(seed)
    with jax.enable_x64(program.dtype == "float64"):
        arguments = program.build(program.of, program.dtype).arguments
    return [_leaf(rng, jax.tree_util.keystr(path), x) for path, x in jax.tree_util.tree_flatten_with_path(arguments)[0]]


def _leaf(rng: np.random.Generator, path: str, x) -> np.ndarray:
    if x.dtype == bool:
        return np.ones(x.shape, bool)
    if np.issubdtype(x.dtype, np.integer):
        return np.full(x.shape, STEP, x.dtype)
    if not x.shape:
        return np.asarray(rng.uniform(0.1, 0.9), x.dtype)
    numbers = rng.standard_normal(x.shape)
    return (np.abs(numbers) if "." in path else numbers).astype(x.dtype)  # a field of a state has a point before its name


def on_cpu(program: Program, leaves: list[np.ndarray]) -> list[np.ndarray]:
    """The leaves of its results. Not for the process that compiles for an accelerator."""
    with jax.enable_x64(program.dtype == "float64"):
        built = program.build(program.of, program.dtype)
        arguments = jax.tree.unflatten(jax.tree.structure(built.arguments), leaves)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.jit(built.function)(*arguments))]
