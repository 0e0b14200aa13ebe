"""Variables of Flax NNX, which stand in its trees in the place of arrays. They are known by their class; Flax is not imported."""

from typing import Any

import jax


def pure(tree: Any) -> Any:
    """A tree with the values of NNX's variables in their places."""
    return jax.tree.map(lambda node: node.get_value() if is_variable(node) else node, tree, is_leaf=is_variable)


def refilled(tree: Any, values: Any) -> Any:
    """A tree with NNX's variables where it has them, of the values that `pure` would find."""
    return jax.tree.structure(tree).unflatten(jax.tree.leaves(values))


def is_variable(node: Any) -> bool:
    """Whether a node is a variable of NNX, or the state of one."""
    return any(kind.__module__.startswith("flax.nnx") and kind.__name__ in ("Variable", "VariableState") for kind in type(node).__mro__)
