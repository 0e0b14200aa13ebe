"""A decay mask as torch's two groups, one of weight_decay 0; and torch's two groups as one transform with a mask."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax

from jaxopt_impl.masks import masked

from .._arrays import number
from ..registry import TORCH_CLASSES
from . import torch_classes
from .groups import Group
from .inner_states import OURS, decay_apart, inside
from .leaves import Leaves

DECAY, NO_DECAY = "decay", "no_decay"
Pair = tuple[str, Mapping[str, Any]]


def split(params: Any, optimizers: Pair | Mapping[Hashable, Pair], labels: Any = None) -> tuple[Any, Any]:
    """What `describe` is given, with two groups in the place of each optimizer that has a mask: those that decay first.

    Args:
        params: the parameters in JAX.
        optimizers: a name and its arguments, or a mapping from labels to such pairs.
        labels: with a mapping the tree of labels.
    Returns: optimizers and labels without a mask: of one pair the labels are "decay" and "no_decay", of label L "L, decay" and
        "L, no_decay". A group that would be empty is left out.
    Raises: ValueError or TypeError for a mask that does not fit the parameters.
    Example:
        >>> params, mask = {"b": jax.numpy.ones(3), "w": jax.numpy.ones((2, 3))}, {"b": False, "w": True}
        >>> optimizers, labels = split(params, ("adamw", {"learning_rate": 0.1, "weight_decay": 0.5, "mask": mask}))
        >>> [(label, arguments["weight_decay"]) for label, (_, arguments) in optimizers.items()], labels
        ([('decay', 0.5), ('no_decay', 0.0)], {'b': 'no_decay', 'w': 'decay'})
    """
    several = isinstance(optimizers, Mapping)
    pairs = optimizers if several else {None: optimizers}
    if not any(_mask(pair) is not None for pair in pairs.values()):
        return optimizers, labels
    label_of = dict(Leaves(labels).by_path) if several else dict.fromkeys(Leaves(params).paths)
    found: dict[Hashable, Pair] = {}
    for label, pair in pairs.items():
        mask = _mask(pair)
        if mask is None:
            found[label] = pair
            continue
        name, arguments = pair[0], {key: value for key, value in pair[1].items() if key != "mask"}
        decays = Leaves(masked("describe", mask, params)).by_path
        for group, chosen in ((DECAY, True), (NO_DECAY, False)):
            own = [path for path, each in label_of.items() if each == label and decays[path] is chosen]
            key = f"{label}, {group}" if several else group
            if key in pairs:
                raise ValueError(f"describe: the label {key!r} is that of the mask of label {label!r}; another is needed.")
            label_of |= dict.fromkeys(own, key)
            if own:
                found[key] = (name, arguments if chosen else {**arguments, "weight_decay": 0.0})
    return found, label_of


def _mask(pair: Any) -> Any:
    """The mask among an optimizer's arguments; None without one, and of what is no pair."""
    is_pair = isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Mapping)
    return pair[1].get("mask") if is_pair and pair[0] == "adamw" else None


def with_mask(imported: Any, params: Any, *, learning_rate: Any = None) -> Any:
    """`from_torch`'s partition of AdamW groups that differ in weight decay only, as one transform with a mask and its one state.

    Args:
        imported: what `from_torch` gave.
        params: the parameters in JAX.
        learning_rate: the schedule that `from_torch` was given, where it was given one.
    Returns: `imported` with `tx` and `state` of `jaxopt_impl.adamw(mask=...)`; its groups are as they were, and `to_torch_state_dict` takes
        them with the one state. The bits of the steps are the partition's.
    Raises: ValueError where the groups are not AdamW's, or differ in more, or stand at different steps.
    """
    groups: Sequence[Group] = imported.groups
    for group in groups:
        if TORCH_CLASSES[group.optimizer].name != "adamw":
            raise ValueError(f"with_mask: groups of AdamW are needed; group {group.label!r} is of {group.optimizer}.")
        if group.scheduled and learning_rate is None:
            raise ValueError(f"with_mask: group {group.label!r} has a schedule; learning_rate is needed.")
    decay_apart("with_mask", groups)
    treedef, paths = jax.tree.structure(params), Leaves(params).paths
    decays = {leaf.path: bool(number(group.options["weight_decay"])) for group in groups for leaf in group.leaves}
    most = max(groups, key=lambda group: number(group.options["weight_decay"]))
    arguments = {"mask": treedef.unflatten([decays[path] for path in paths]), "accumulator_dtype": most.accumulator_dtype}
    if learning_rate is not None:
        arguments["learning_rate"] = learning_rate
    tx = torch_classes.transform(most.optimizer, most.options, f"group {most.label!r}", **arguments)
    return imported._replace(tx=tx, state=_joined(imported.state, jax.eval_shape(tx.init, params), params))


def _joined(state: Any, like: Any, params: Any) -> Any:
    """The one state of the leaves of several; `like` is its shapes."""
    states = [part for part in inside("with_mask", state) if part.kind == OURS]
    steps = sorted({int(part.fields["step"]) for part in states})
    if len(steps) > 1:
        raise ValueError(f"with_mask: one transform has one step; the groups stand at {', '.join(map(str, steps))}.")
    treedef, paths = jax.tree.structure(params), Leaves(params).paths
    joined = {}
    for field, tree in states[0].fields.items():
        by_path = {path: leaf for part in states for path, leaf in Leaves(part.fields[field]).by_path.items()}
        joined[field] = tree if field == "step" or tree is None else treedef.unflatten([by_path[path] for path in paths])
    return like._replace(**joined)
