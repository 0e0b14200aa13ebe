"""Learning rates that a caller gives: a number or a schedule, for all groups or for each."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._arrays import is_tensor, to_numpy
from .groups import Group


def for_each(who: str, given: Any, count: int) -> list:
    """A learning rate for each group: a number, a schedule, or None where it stays what it is."""
    rates = given if isinstance(given, list) else [given] * count
    if len(rates) != count:
        raise ValueError(f"{who}: one learning_rate for each of {count} groups is needed; got {len(rates)}.")
    for rate in rates:
        if rate is not None and not callable(rate):
            as_number(who, rate)
    return rates


def for_parts(who: str, given: Any, groups: Sequence[Group]) -> list:
    """A learning rate for each group, where the list has one for each group of torch's."""
    whole = list(dict.fromkeys(group.whole or group.indices for group in groups))
    rates = for_each(who, given, len(whole))
    return [rates[whole.index(group.whole or group.indices)] for group in groups]


def as_number(who: str, rate: Any) -> int | float:
    """A learning rate as torch's groups have it."""
    if type(rate) in (int, float):
        return rate
    array = to_numpy(rate) if is_tensor(rate) else np.asarray(rate)
    if array.shape or (not jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.kind not in "iu"):
        raise ValueError(f"{who}: learning_rate is a number, a schedule, or a list of these, one for each group; got {rate!r}.")
    return array.item()
