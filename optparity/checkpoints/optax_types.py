"""Which states of optax and of jaxopt_impl the nodes of a restored tree were: Orbax gives each back as the dict of its fields.

A tuple comes back as a list, or, out of Flax NNX, as a dict with the keys "0", "1", ...; what has no leaves as None, or not at all.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import optax

from ..registry import OPTIMIZERS

# Types that hold the state of another transform, and the fields by which they are known: what is empty is not always written.
WRAPPERS: dict[type, tuple[str, ...]] = {
    optax.InjectStatefulHyperparamsState: ("count", "hyperparams"),
    optax.MultiStepsState: ("mini_step", "gradient_step", "acc_grads"),
    optax.ApplyIfFiniteState: ("notfinite_count", "last_finite", "total_notfinite"),
    optax.MaskedState: ("inner_state",),
    optax.transforms.PartitionState: ("inner_states",),
}
HOLDING_BACK = (optax.MultiStepsState, optax.ApplyIfFiniteState)  # what is in these takes fewer steps than there are calls
INNER = ("inner_state", "inner_opt_state", "inner_states")
COUNTS = ("count", "step", "gradient_step")


def kind_of(node: Any, name: str | None = None) -> Any:
    """The type whose fields a dict has: a wrapper, or a part of the state of an optimizer, first of `name`; None where there is none."""
    for kind, needed in _kinds(name) if isinstance(node, Mapping) else ():
        if set(needed) <= set(node) <= set(kind._fields):
            return kind
    return None


def is_tuple(node: Any) -> bool:
    """Whether a node was a tuple or a list."""
    if isinstance(node, Mapping):
        return bool(node) and all(isinstance(key, str) and key.isdigit() for key in node)
    return isinstance(node, list | tuple)


def is_ours(kind: Any) -> bool:
    return kind is not None and kind.__module__.startswith("jaxopt_impl.")


def nodes(state: Any, name: str | None = None) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """The wrappers and parts in a restored state: the type and the fields of each."""
    kind = kind_of(state, name)
    if kind is not None:
        yield kind, state
    if kind is None or kind in WRAPPERS:
        inside = [state[field] for field in INNER if field in state] if kind else _children(state)
        for child in inside:
            yield from nodes(child, name)


def moments(state: Any, name: str | None = None) -> Iterator[Any]:
    """The trees of moments in a restored state."""
    for kind, fields in nodes(state, name):
        if kind not in WRAPPERS:
            yield from (tree for field, tree in fields.items() if field not in COUNTS and tree is not None)


def counts(state: Any) -> list[int]:
    """All that counts steps in a restored state."""
    found = [np.asarray(fields[field]) for _, fields in nodes(state) for field in COUNTS if fields.get(field) is not None]
    return [int(count) for count in found if count.shape == () and count.dtype.kind in "iu"]


def own_state(name: str) -> Any:
    """The type of the state of `OPTIMIZERS[name].jax`."""
    return type(OPTIMIZERS[name].jax(1.0).init({}))


@cache
def _kinds(name: str | None) -> list[tuple[Any, tuple[str, ...]]]:
    """Types and the fields that they need, in the order in which they are tried."""
    names = sorted(OPTIMIZERS, key=lambda each: each != name)
    ours = [(own_state(each), ("step",)) for each in names]
    stock = [getattr(optax, kind) for each in names for kind in OPTIMIZERS[each].stock_optax.states]
    stock.append(optax.ScaleByScheduleState)
    return [*WRAPPERS.items(), *((kind, kind._fields) for kind in stock), *ours]


def _children(node: Any) -> list[Any]:
    if isinstance(node, Mapping):
        return list(node.values())
    return list(node) if isinstance(node, list | tuple) else []
