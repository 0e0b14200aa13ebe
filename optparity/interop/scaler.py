"""The state of a torch.amp.GradScaler, and that of `jaxopt_impl.loss_scale`: the same scale and the same count."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_impl.around.loss_scale import LossScaleState
from jaxopt_impl.numerics import rounded_to

COUNT = "_growth_tracker"


def scaler_from_torch(
    state_dict: Mapping[str, Any],
    state: Any,
    *,
    growth_factor: float = 2.0,
    backoff_factor: float = 0.5,
    growth_interval: int = 2000,
) -> Any:
    """A state that goes on where a GradScaler stands: `state` with its scale and count.

    Args:
        state_dict: of torch.amp.GradScaler, or of torch_ref's.
        state: with one state of `loss_scale` somewhere in it, as `init` made it or later.
        growth_factor, backoff_factor, growth_interval: what `loss_scale` was made with.
    Raises: ValueError where the scaler was made with other numbers or lacks one, or was disabled, and where `state` holds no such state.
    Example:
        >>> import jaxopt_impl, optax, torch
        >>> scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        >>> scaler_from_torch(scaler.state_dict(), jaxopt_impl.loss_scale(optax.sgd(0.1)).init(jnp.ones(2))).scale.item()
        8.0
    """
    who = "scaler_from_torch"
    own = _one(who, state)
    if not state_dict:
        raise ValueError(f"{who}: the state_dict is empty, as that of a disabled GradScaler is.")
    needed = {"growth_factor": growth_factor, "backoff_factor": backoff_factor, "growth_interval": growth_interval}
    for key in ("scale", COUNT, *needed):
        if not isinstance(state_dict.get(key), numbers.Real) or isinstance(state_dict[key], bool):
            raise ValueError(f"{who}: {key} is a number; got {state_dict[key]!r}." if key in state_dict else f"{who}: {key} is missing.")
    for key, value in needed.items():
        if state_dict[key] != value:
            raise ValueError(f"{who}: {key} is {state_dict[key]} in the state_dict, {value} here; make loss_scale with the same.")
    scale, count = rounded_to(float(state_dict["scale"]), "float32"), state_dict[COUNT]
    if not 0 <= scale < math.inf:
        raise ValueError(f"{who}: scale is a finite number >= 0; got {state_dict['scale']}.")
    if count != int(count) or not 0 <= count < 2**31:
        raise ValueError(f"{who}: {COUNT} is a whole number from 0 on; got {count}.")
    after = own._replace(scale=jnp.full_like(own.scale, scale), growth_tracker=jnp.full_like(own.growth_tracker, int(count)))
    return jax.tree.map(lambda part: after if _is_loss_scale(part) else part, state, is_leaf=_is_loss_scale)


def scaler_to_torch(
    state: Any, *, growth_factor: float = 2.0, backoff_factor: float = 0.5, growth_interval: int = 2000
) -> dict[str, float | int]:
    """The `state_dict` that a GradScaler loads, of a state with one of `loss_scale` somewhere in it.

    Args:
        state: as an `update` returned it.
        growth_factor, backoff_factor, growth_interval: what `loss_scale` was made with.
    Raises: ValueError where `state` holds no such state, or several.
    """
    own = _one("scaler_to_torch", state)
    numbers_of_it = {"growth_factor": growth_factor, "backoff_factor": backoff_factor, "growth_interval": growth_interval}
    return {"scale": own.scale.item(), **numbers_of_it, COUNT: own.growth_tracker.item()}


def _one(who: str, state: Any) -> LossScaleState:
    found = [part for part in jax.tree.leaves(state, is_leaf=_is_loss_scale) if _is_loss_scale(part)]
    if len(found) != 1:
        raise ValueError(f"{who}: one state of loss_scale is needed; got {len(found)}.")
    return found[0]


def _is_loss_scale(part: Any) -> bool:
    return isinstance(part, LossScaleState)
