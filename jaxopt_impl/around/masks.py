"""Which parameters are decayed, or stepped, or by what, told by one function of their paths.  Mirror: torch_ref/around/masks.py"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import keystr, tree_map_with_path

from . import checks


def by_path(function: Callable[[str], bool | str | None]) -> Callable[[Any], Any]:
    """What a function says of each leaf's path, as a tree: a mask, or the labels of `optax.partition`.

    Args:
        function: of a path, dotted as torch's names are ("layers.0.kernel"): True or False, or a label, or None for "frozen".
    Returns: a function from parameters to a tree like them: what `adamw(mask=)`, `optax.masked` and `optax.partition` take.
    Raises: TypeError where the function returns anything else.
    Example:
        >>> mask = by_path(lambda path: not path.endswith("bias"))
        >>> mask({"dense": {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))}})
        {'dense': {'bias': False, 'kernel': True}}
    """
    return lambda params: _labelled("by_path", function, params)


def partition_by_path(
    function: Callable[[str], bool | str | None], transforms: Mapping[bool | str, optax.GradientTransformation]
) -> optax.GradientTransformationExtraArgs:
    """`optax.partition` with labels by path, and frozen parts: each leaf is stepped by the transform that its label names.

    Args:
        function: of a path, dotted as torch's names are ("layers.0.kernel"): a label, True and False included, or None or "frozen" for a
            leaf that stays as it is.
        transforms: the transform of each label but "frozen".
    Returns: a transform with the state of `optax.partition`, in which True is "True".
    Raises: `init` ValueError where a label has no transform, or a transform no leaf; TypeError where the function returns anything else.
    Exactness: bit-equal to a torch_ref optimizer over `torch_ref.param_groups` of the same function.
    Differs from: optax.partition with `optax.set_to_zero`, which makes +0 of a frozen −0.
    Example:
        >>> tx = partition_by_path(lambda path: None if path == "embedding" else "trained", {"trained": optax.sgd(1.0)})
        >>> params = {"embedding": jnp.ones(1), "kernel": jnp.ones(1)}
        >>> tx.update(params, tx.init(params))[0]
        {'embedding': Array([-0.], dtype=float32), 'kernel': Array([-1.], dtype=float32)}
    """
    checks.no_options_of_frozen("partition_by_path", transforms)

    def named(params):
        return jax.tree.map(str, _labelled("partition_by_path", function, params))

    inner = optax.partition({**{str(label): tx for label, tx in transforms.items()}, checks.FROZEN: frozen()}, named)

    def init(params):
        labels = _labelled("partition_by_path", function, params)
        by_label = jax.tree_util.tree_leaves_with_path(labels)
        checks.labels("partition_by_path", {dotted(path): label for path, label in by_label}, transforms)
        return inner.init(params)

    return optax.GradientTransformationExtraArgs(init, inner.update)


def frozen() -> optax.GradientTransformation:
    """Updates of −0, which `optax.apply_updates` adds without a change: x + −0 is x for every x, −0 too.

    (Where subnormals are flushed, the addition flushes one.)

    Differs from: optax.set_to_zero, whose +0 makes +0 of −0, unless one jit holds the addition and XLA drops it.
    Example:
        >>> frozen().update(jnp.ones(2), frozen().init(jnp.ones(2)))[0]
        Array([-0., -0.], dtype=float32)
    """

    def update(updates: Any, state: Any, params: Any = None):
        del params
        return jax.tree.map(lambda u: jnp.full_like(u, -0.0), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def dotted(path: tuple) -> str:
    """JAX's path as torch spells one."""
    return keystr(path, simple=True, separator=".")


def _labelled(name: str, function: Callable[[str], Any], params: Any) -> Any:
    """The label of each leaf; of a None too, which may be a gradient that is not there."""

    def labelled(path, node):
        label = checks.label(name, dotted(path), function(dotted(path)))
        return jax.tree.map(lambda _: label, node, is_leaf=_is_none)

    return tree_map_with_path(labelled, params, is_leaf=lambda node: _is_none(node) or _is_variable(node))


def _is_none(node: Any) -> bool:
    return node is None


def _is_variable(node: Any) -> bool:
    """Whether it is one of nnx, whose leaf has the path of the variable."""
    return any(kind.__module__.startswith("flax.nnx") and kind.__name__ in ("Variable", "VariableState") for kind in type(node).__mro__)
