"""What a restored state was: Orbax gives back a NamedTuple as the dict of its fields, a tuple as a list, and what has no leaves as None.

The labels of a partition come back as strings, and Flax NNX makes a dict of a tuple, with "0", "1", ... as keys.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import optax

from ..registry import OPTIMIZERS

# Types of optax that hold the state of another transform, and the fields by which they are known: what is empty is not always written.
WRAPPERS: dict[type, tuple[str, ...]] = {
    optax.InjectStatefulHyperparamsState: ("count", "hyperparams"),
    optax.MultiStepsState: ("mini_step", "gradient_step", "acc_grads"),
    optax.ApplyIfFiniteState: ("notfinite_count", "last_finite", "total_notfinite"),
    optax.MaskedState: ("inner_state",),
    optax.transforms.PartitionState: ("inner_states",),
}
INNER = ("inner_state", "inner_opt_state", "inner_states")  # the fields that hold it
COUNTS = ("count", "step")


def typed(name: str, node: Any) -> Any:
    """The state of an optimizer `name` with the types that it was saved with; what is of no known type stays as it is."""
    if node is None:
        return optax.EmptyState()
    if isinstance(node, list | tuple):
        return tuple(typed(name, item) for item in node)
    if not isinstance(node, Mapping):
        return node
    kind = kind_of(node, name)
    if kind is None:
        items = {key: typed(name, value) for key, value in node.items()}
        return tuple(items[key] for key in sorted(items, key=int)) if is_tuple(node) else items
    absent = () if kind in WRAPPERS else None  # a field that had no leaves
    return kind(**{field: _field(name, field, node[field]) if field in node else absent for field in kind._fields})


def kind_of(node: Mapping, name: str | None = None) -> Any:
    """The type whose fields a dict has: a wrapper, or a part of the state of an optimizer, first of `name`; None where there is none."""
    for kind, needed in _kinds(name):
        if set(needed) <= set(node) <= set(kind._fields):
            return kind
    return None


def is_tuple(node: Any) -> bool:
    """Whether a node was a tuple: it is a list, or a dict with the keys "0", "1", ... that Flax NNX makes of one."""
    if isinstance(node, Mapping):
        return bool(node) and all(isinstance(key, str) and key.isdigit() for key in node)
    return isinstance(node, list | tuple)


def parts(state: Any) -> Iterator[Any]:
    """The parts of a typed state that hold moments or counts."""
    if type(state) in WRAPPERS:
        for field in INNER:
            yield from parts(getattr(state, field, None))
    elif hasattr(state, "_fields"):
        if state:
            yield state
    elif isinstance(state, tuple | Mapping):
        for item in state.values() if isinstance(state, Mapping) else state:
            yield from parts(item)


def moments(state: Any) -> Iterator[Any]:
    """The trees of moments in a typed state."""
    for part in parts(state):
        yield from (tree for field, tree in part._asdict().items() if field not in COUNTS and tree is not None)


@cache
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


def _field(name: str, field: str, value: Any) -> Any:
    if field == "inner_states":  # by label, which may look like the place in a tuple
        return {label: typed(name, state) for label, state in value.items()}
    return typed(name, value) if field in INNER else _moment(value)


def _moment(tree: Any) -> Any:
    """A tree of a field: where it has None, `optax.masked` had left out a leaf."""
    if isinstance(tree, Mapping):
        return {key: optax.MaskedNode() if value is None else _moment(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(optax.MaskedNode() if value is None else _moment(value) for value in tree)
    return tree
