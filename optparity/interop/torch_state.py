"""From a transform and its state to a torch optimizer's `state_dict`."""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaxopt_impl import numerics as nx

from ..registry import OPTIMIZERS, TORCH_CLASSES
from . import groups as torch_groups
from . import inner_states, masks, torch_classes
from .groups import Group, Record, leaf_of
from .learning_rates import as_number, for_parts
from .leaves import Leaves
from .matching import Layouts, Matching, Names
from .parameters import Parameter
from .sources import scattered
from .weights import used

LIKE = ("torch_ref", "torch.optim")


def describe(
    params: Any,
    optimizers: tuple[str, Mapping[str, Any]] | Mapping[Hashable, tuple[str, Mapping[str, Any]]],
    *,
    labels: Any = None,
    matching: Matching | None = None,
    names: Names | None = None,
    parameters: Sequence[str] | None = None,
    layouts: Layouts | None = None,
) -> tuple[Group, ...]:
    """The groups that a torch optimizer would have, for a run that began in JAX.

    Args:
        params: the parameters in JAX.
        optimizers: the name in `OPTIMIZERS` and the arguments, as ("adam", {"learning_rate": 1e-3}); with several groups a mapping from
            the labels of `optax.partition` to such pairs. A `mask` of adamw makes two groups, the second without decay.
        labels: with several groups, the tree of labels.
        matching: of these and the torch model's parameters, in whose order the groups are; else it is made here.
        names, layouts: as in `Matching`; an index in `names` is a place in the order of the torch model's parameters.
        parameters: the names of the torch model's parameters, in its order. Without these, and without names, it is the order of the
            leaves, if no two have one shape.
    Raises: ValueError or TypeError for an unknown optimizer, for arguments that it does not take, or torch has no place for, and where the
        order of torch's parameters is not known.
    """
    optimizers, labels = masks.split(params, optimizers, labels)
    pairs_of = optimizers if isinstance(optimizers, Mapping) else {0: optimizers}
    leaves = Leaves(params)
    matching = used(matching, leaves, names=names, layouts=layouts, parameters=parameters) or _of_a_new_model(
        leaves, names, parameters, layouts
    )
    label_of = Leaves(labels).by_path if isinstance(optimizers, Mapping) else dict.fromkeys(leaves.paths, 0)
    groups, begin, described = [], 0, 0
    for label, pair in pairs_of.items():
        own = [pair for path, pair in matching.pairs.items() if label_of.get(path) == label]
        places = sorted({part.name for pair in own for part in pair.source.parts})
        group = _described_group(label, pair)
        held = [leaf_of(each.path, leaves, each.layout, each.source.renamed(places.index)) for each in own]
        groups.append(replace(group, indices=tuple(range(begin, begin + len(places))), leaves=torch_groups.in_torchs_order(held)))
        begin, described = begin + len(places), described + len(own)
    if described != len(leaves.paths) or len(label_of) != described or begin != len(matching.parameters):
        raise ValueError(f"describe: each leaf has one of the labels {', '.join(map(repr, pairs_of))}; got {list(label_of.values())}.")
    return tuple(groups)


def _of_a_new_model(leaves: Leaves, names: Names | None, parameters: Sequence[str] | None, layouts: Layouts | None) -> Matching:
    """A matching with parameters of which only the order is known: by names, by indices, or by shapes that are all different.

    Then a torch model of another order is seen: no moment has the shape of another parameter.
    """
    if names is None and parameters is None:
        shapes = [tuple(sorted(np.shape(leaf))) for leaf in leaves.by_path.values()]
        if len(set(shapes)) < len(shapes):
            raise ValueError(
                "describe: the order of torch's parameters is not known, and leaves have one shape; matching=Matching(params, model), "
                "parameters=, or names= with indices is needed."
            )
        names = {path: place for place, path in enumerate(leaves.paths)}
    count = len(leaves.paths) if parameters is None else len(parameters)
    theirs = [Parameter(place, None if parameters is None else parameters[place]) for place in range(count)]
    return Matching.of_parameters(leaves, theirs, names, layouts)


def _described_group(label: Hashable, pair: Any) -> Group:
    """A group without its parameters, of a name and arguments."""
    name, arguments = _described(pair)
    entry = OPTIMIZERS[name]
    options, optimizer = torch_classes.in_torch(entry, arguments), entry.torch_name
    kind, dtype = "float32" if entry.has_step else None, arguments.get("accumulator_dtype")
    kept_in = None if dtype is None else nx.dtype_name(dtype)
    torch_classes.transform(optimizer, options, f"group {label!r}", accumulator_dtype=kept_in)  # raises where a number is out of range
    return Group(optimizer, options, (), kind, kept_in, (), label)


def to_torch_state_dict(state: Any, groups: Sequence[Group], *, like: str = "torch_ref", learning_rate: Any = None) -> dict[str, Any]:
    """The `state_dict` with which a torch optimizer goes on where a transform stands: the inverse of `from_torch`.

    Args:
        state: of one transform of `jaxopt_impl`, or of an `optax.partition` of several, also inside of a chain, a mask, inject_hyperparams,
            MultiSteps, apply_if_finite, a TrainState or an nnx.Optimizer; mappings of the same fields, as checkpoints have, will do.
        groups: of the `Imported`, or from `describe`.
        like: "torch_ref", or "torch.optim" to refuse what the stock class does not do.
        learning_rate: the groups' `lr` from now on, where it is no longer what it was, or a list with one for each group; of a schedule,
            its value at the state's step. Needed where `from_torch` was given a schedule.
    Returns: {"state", "param_groups"}, on the CPU and sharing no memory with `state`.
    Raises: ValueError, naming it, for a state that is not one of these groups, and for what `like` does not know.
    Example:
        >>> import jaxopt_impl, jax.numpy as jnp
        >>> params = {"kernel": jnp.ones((3, 2))}
        >>> state = jaxopt_impl.adagrad(0.5).init(params)
        >>> groups = describe(params, ("adagrad", {"learning_rate": 0.5}), layouts={"kernel": (1, 0)})
        >>> to_torch_state_dict(state, groups)["state"][0]["sum"].shape
        torch.Size([2, 3])
    """
    if like not in LIKE:
        raise ValueError(f"to_torch_state_dict: like is one of {', '.join(LIKE)}; got {like!r}.")
    records = []
    rates = for_parts("to_torch_state_dict", learning_rate, groups)
    for group, rate, own in zip(groups, rates, inner_states.of_groups(state, groups, rates), strict=True):
        if group.scheduled and rate is None:
            raise ValueError(f"to_torch_state_dict: group {group.label!r} has a schedule in JAX; learning_rate is needed.")
        record = _record(own, _stock(group) if like == "torch.optim" else group)
        if rate is not None:
            lr = as_number("to_torch_state_dict", rate(record.step) if callable(rate) else rate)
            record = record._replace(group=replace(record.group, options={**record.group.options, "lr": lr}))
        if said := torch_groups.stopped(record.group, record.step):
            warnings.warn(said, stacklevel=2)
        records.append(record)
    return torch_groups.write(records)


def _described(pair: Any) -> tuple[str, dict[str, Any]]:
    """A name in `OPTIMIZERS`, and arguments with a number as the learning rate."""
    if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[1], Mapping):
        raise ValueError(f"describe: an optimizer is a name and its arguments, as ('adam', {{'learning_rate': 1e-3}}); got {pair!r}.")
    name, arguments = pair
    if name not in OPTIMIZERS:
        raise ValueError(f"describe: unknown optimizer {name!r}; one of {', '.join(OPTIMIZERS)} is needed.")
    if "learning_rate" not in arguments:
        raise ValueError(f"describe: {name} has no learning_rate; a number is needed.")
    if arguments.get("mu_dtype") is not None:
        raise ValueError(f"describe: {name} with mu_dtype does not carry over: its first moment has not the dtype of the rest.")
    if callable(arguments["learning_rate"]):
        raise ValueError("describe: a torch group has a number as learning_rate; to_torch_state_dict takes the schedule.")
    return name, {**arguments, "learning_rate": as_number("describe", arguments["learning_rate"])}


def _record(state: Mapping[str, Any], group: Group) -> Record:
    """A group's transform state as torch would have it, in memory of its own."""
    fields = torch_classes.fields(torch_classes.transform(group.optimizer, group.options, f"group {group.label}"))
    own: list[dict[str, np.ndarray]] = [{} for _ in group.indices]
    for field, value in state.items():
        if field == "step" or (value is None and field not in fields):
            continue
        there = Leaves(value).by_path
        if field not in fields or there.keys() != {leaf.path for leaf in group.leaves}:
            expected = ", ".join(leaf.path for leaf in group.leaves) if field in fields else "none of it"
            raise ValueError(f"{group.optimizer}: the state has {field} of {', '.join(there)}; the group keeps {expected}.")
        for position, array in _in_torch(group, field, there).items():
            own[position][field] = array
    for field in ("step", *fields):
        if field not in state:
            raise ValueError(f"{group.optimizer}: the state has no {field}; it has {', '.join(state)}.")
    return Record(group, _step(group, state["step"]), own)


def _step(group: Group, step: Any) -> int:
    array = np.asarray(step)
    if array.shape or array.dtype.kind not in "iuf" or not np.isfinite(array) or array != np.floor(array) or array < 0:
        raise ValueError(f"{group.optimizer}: the state has step {step}; a whole number >= 0 is needed.")
    return int(array)


def _in_torch(group: Group, field: str, there: Mapping[str, Any]) -> dict[int, np.ndarray]:
    """A field of all leaves by the positions of torch's parameters."""
    found = []
    for leaf in group.leaves:
        array, who = np.asarray(there[leaf.path]), f"{group.optimizer}: {field} of leaf {leaf.path}"
        dtype = nx.state_dtype(leaf.dtype, group.accumulator_dtype)
        if array.dtype.name != dtype:
            raise TypeError(f"{who} has dtype {array.dtype.name}; the leaf has {leaf.dtype}, so that {dtype} is needed.")
        if leaf.shape != array.shape:
            raise ValueError(f"{who} has shape {array.shape}; the leaf has {leaf.shape}.")
        found.append((leaf.source, leaf.layout, array))
    return {position: np.array(array, order="C") for position, array in scattered(found).items()}


def _stock(group: Group) -> Group:
    """The group as torch.optim's class knows it."""
    entry = TORCH_CLASSES[group.optimizer]
    stock = entry.stock_torch
    if stock is None:
        raise ValueError(f"{group.optimizer}: torch.optim has no such optimizer.")
    if not stock.exchanges_state:
        raise ValueError(f"{group.optimizer}: torch.optim has no such state; the nearest, {stock.name}, {stock.drifts}.")
    for key, absent in entry.extra_keys.items():
        if group.options.get(key, absent) != absent:
            raise ValueError(f"{group.optimizer}: {key}={group.options[key]} does not carry over to torch.optim, which has {absent}.")
    if group.accumulator_dtype and any(leaf.dtype in nx.HALVES for leaf in group.leaves):
        raise ValueError(
            f"{group.optimizer}: state of halves in {group.accumulator_dtype} does not carry over to torch.optim, which rounds it."
        )
    return replace(group, options={key: value for key, value in group.options.items() if key not in entry.extra_keys})
