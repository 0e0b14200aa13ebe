"""A run that goes on in what Flax trains with: a TrainState of Linen, an Optimizer of NNX. Both are the caller's; none is imported."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .inner_states import OURS, inside
from .variables import is_variable, pure
from .wrapped_states import wrapped


def to_flax(state: Any, target: Any, *, step: int | None = None) -> Any:
    """A TrainState or nnx.Optimizer that goes on where a state of ours stands; `to_torch_state_dict` takes either, for the way out.

        train_state = to_flax(state, TrainState.create(apply_fn=model.apply, params=params, tx=tx))
        optimizer = to_flax(state, nnx.Optimizer(model, tx, wrt=nnx.Param))

    Args:
        state: as `from_torch` and `from_optax` give it.
        target: a TrainState (a new one is returned) or an nnx.Optimizer (filled in place, and returned), new, with the same transform;
            that may stand in wrappers, as in a chain with a clipping, which keep what they hold.
        step: for the target's own count, which by default becomes the state's step; needed where that counts something else (the
            mini-steps of MultiSteps), or the states of a partition have several steps.
    Raises: ValueError or TypeError, naming the place, where the target has no place for such a state; an nnx.Optimizer is as it was then.
    Example:
        >>> import jaxopt_impl
        >>> from flax.training.train_state import TrainState
        >>> params, tx = {"w": jnp.ones(2)}, jaxopt_impl.sgd(0.1, momentum=0.9)
        >>> state = tx.init(params)._replace(step=jnp.asarray(7))
        >>> to_flax(state, TrainState.create(apply_fn=None, params=params, tx=tx)).step
        7
    """
    if not hasattr(target, "opt_state") or not hasattr(target, "step"):
        raise ValueError(f"to_flax: a TrainState or an nnx.Optimizer is needed; got {type(target).__name__}.")
    opt_state = wrapped(state, target.opt_state)
    count = _step(opt_state, target) if step is None else step
    if not is_variable(target.step):
        return target.replace(opt_state=opt_state, step=_like(count, target.step))
    variables = jax.tree.leaves(target.opt_state, is_leaf=is_variable)
    for variable, array in zip(variables, jax.tree.leaves(opt_state), strict=True):
        variable.set_value(array)
    target.step.set_value(_like(count, pure(target.step)))
    return target


def _step(opt_state: Any, target: Any) -> int:
    """The step of all states of ours that the target's own count is about."""
    around = inside("to_flax", {"opt_state": opt_state, "step": jnp.zeros([], jnp.int32)})
    states = [part for part in around if part.kind == OURS]
    steps = {int(part.fields["step"]) for part in states}
    if len(steps) != 1 or not all(around[0].concerns(part) for part in states):
        raise ValueError(f"to_flax: the steps of {type(target).__name__} are not told by a state at {sorted(steps)}; step is needed.")
    return steps.pop()


def _like(count: int, own: Any) -> Any:
    """A count as the target keeps it: a Python number or an array."""
    return count if isinstance(own, int) else jnp.asarray(count, np.asarray(own).dtype)
