"""A step that returns the parameters: `optax.apply_updates` within it, so that on a CPU no update is written to memory."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from . import one_pass
from .transform import Shell


def update_and_apply(tx: optax.GradientTransformation) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """A transform's step and `optax.apply_updates` in one.

        step = update_and_apply(tx);   params, state = step(gradients, state, params)

    Args:
        tx: any optax transform.
    Returns: the function. Where the transform is one of this package's optimizers, runs on a CPU and the compiled library is there
        (docs/one_pass.md), it reads and writes every array once. In a jit of `train_step(params, state, ...) -> (params, state)` that
        donates both it needs no further memory (jit pairs what is donated with the results by their order; in another one it copies).
        Everywhere else it is `tx.update` and `optax.apply_updates`.
    Shapes, Dtypes: the parameters' and the state's stay. A parameter whose gradient is None stays as it is.
    Raises: as `tx.update` does.
    Exactness: the bits of `optax.apply_updates(params, updates)`; but the compiled step keeps subnormal numbers, as IEEE 754 has them
        and PyTorch by default does, where XLA on CPUs flushes them to zero. Run on CPU; elsewhere it is the rule.
    Differs from: optax, where an update is an array of its own. PyTorch's `step` is this function.
    Example:
        >>> import jax.numpy as jnp
        >>> import jaxopt_impl
        >>> tx = jaxopt_impl.sgd(0.5)
        >>> params = jnp.array([1.0])
        >>> update_and_apply(tx)(jnp.array([2.0]), tx.init(params), params)[0]
        Array([0.], dtype=float32)
    """
    if (shell := _shell(tx)) is not None:
        return shell.update_and_apply

    def step(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        updates, state = tx.update(gradients, state, params)
        return apply_updates(params, updates), state

    return step


def apply_updates(params: Any, updates: Any) -> Any:
    """`optax.apply_updates`, but that a parameter whose update is None, as that of a gradient None is, stays as it is."""
    with jax.numpy_dtype_promotion("standard"):  # the update of a half may be float32
        return jax.tree.map(lambda u, p: p if u is None else optax.apply_updates(p, u), updates, params, is_leaf=lambda u: u is None)


def is_one_pass(tx: optax.GradientTransformation) -> bool:
    """Whether `update_and_apply` of it is one pass on a CPU of this process: it keeps subnormals then."""
    shell = _shell(tx)
    return shell is not None and jax.default_backend() == "cpu" and one_pass.applies(shell)


def _shell(tx: optax.GradientTransformation) -> Shell | None:
    """What `transform` made the transform of, if it did."""
    shell = getattr(tx.update, "__self__", None)
    return shell if isinstance(shell, Shell) else None
