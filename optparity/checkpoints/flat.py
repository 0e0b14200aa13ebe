"""An optimizer's `state_dict` with flat keys, as torch.distributed.checkpoint writes it: state.NAME.exp_avg and param_groups.NAME.lr."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._arrays import is_tensor, to_numpy

STATE, GROUPS = "state", "param_groups"


def is_flat(value: Any) -> bool:
    """Whether it is one."""
    return (
        isinstance(value, Mapping)
        and any(isinstance(key, str) and key.startswith(f"{STATE}.") for key in value)
        and all(isinstance(key, str) and key.partition(".")[0] in (STATE, GROUPS) for key in value)
    )


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """As torch's optimizers have it, with names in the place of indices; parameters of the same hyper-parameters are one group.

    Raises: ValueError for a key without a name.
    """
    parts: dict[str, dict[str, dict[str, Any]]] = {STATE: {}, GROUPS: {}}
    for key, value in flat.items():
        part, _, rest = key.partition(".")
        name, _, field = rest.rpartition(".")
        if not name or not field:
            raise ValueError(f"keys are state.NAME.FIELD and param_groups.NAME.KEY; got {key!r}.")
        parts[part].setdefault(name, {})[field] = value
    groups: list[dict[str, Any]] = []
    for name, options in parts[GROUPS].items():
        alike = [group for group in groups if _same({**group, "params": None}, {**options, "params": None})]
        if alike:
            alike[0]["params"].append(name)
        else:
            groups.append({**options, "params": [name]})
    return {STATE: parts[STATE], GROUPS: groups}


def flattened(state_dict: Mapping[str, Any], flat: str) -> dict[str, Any]:
    """The inverse of `nested`; without the groups where `flat` is "state"."""
    found = {f"{STATE}.{name}.{field}": value for name, own in state_dict[STATE].items() for field, value in own.items()}
    for group in state_dict[GROUPS] if flat == "all" else ():
        options = {key: value for key, value in group.items() if key != "params"}
        found |= {f"{GROUPS}.{name}.{key}": value for name in group["params"] for key, value in options.items()}
    return found


def _same(a: Any, b: Any) -> bool:
    """Whether hyper-parameters are equal in every bit; tensors are compared by value."""
    if is_tensor(a) and is_tensor(b):
        a, b = to_numpy(a), to_numpy(b)
        return a.dtype == b.dtype and bool(np.array_equal(a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and bool(a == b)
