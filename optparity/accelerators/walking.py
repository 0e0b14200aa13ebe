"""Trajectories of a train step that an interpreter runs, for `golden.walk`."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ..parity.golden import Tree, Walker
from ..registry import Row

Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]  # a compiled program: the leaves of its arguments to those of its results


def walker(run: Run) -> Walker:
    """What `golden.walk` takes, of the program of `programs.train_step`: parameters, state and gradient to parameters and state."""

    def walk(row: Row, start: Tree, gradients: Iterable[Tree]) -> Iterator[list[np.ndarray]]:
        params = start["w"]
        state = row.tx.init(jnp.asarray(params))
        treedef = jax.tree.structure(state)
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
        for gradient in gradients:
            params, *leaves = run([params, *leaves, gradient["w"]])
            fields = treedef.unflatten(leaves)._asdict()
            yield [params, *(value for field, value in fields.items() if field != "step" and value is not None)]

    return walk
