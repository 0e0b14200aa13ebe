"""From a torch optimizer to a transform and its state."""

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxopt_impl import numerics as nx
from jaxopt_impl.transform import counter

from .._arrays import number
from ..registry import TORCH_CLASSES
from . import groups as torch_groups
from . import torch_classes
from .groups import Group, Leaf, Record, leaf_of
from .learning_rates import as_number, for_each
from .leaves import Leaves
from .matching import CARRY_FIRST, Layouts, Matching, Names, Pair, same_bits, telling
from .parameters import Parameter
from .places import places
from .sources import gathered
from .weights import placed, used

SCHEDULED_MOMENTUM = ("base_momentum", "max_momentum")  # OneCycleLR's and CyclicLR's, of Adam's first beta too


class Imported(NamedTuple):
    """What goes on in JAX, and what torch's groups hold, for the way back."""

    tx: optax.GradientTransformationExtraArgs
    state: Any
    groups: tuple[Group, ...]


def from_torch(
    optimizer_or_state_dict: Any,
    params: Any,
    *,
    optimizer: str | None = None,
    matching: Matching | None = None,
    names: Names | None = None,
    parameters: Sequence[str] | None = None,
    layouts: Layouts | None = None,
    step: int | None = None,
    learning_rate: Any = None,
    momentum: float | None = None,
    missing: Collection[str] = (),
) -> Imported:
    """A transform of `jaxopt_impl` that goes on where a torch optimizer stands: its hyper-parameters, its moments, its step.

    Which leaf is which parameter is proven or refused. Names that mean the same decide (see `Matching`); without names, shapes and the
    values of a live optimizer's parameters, if only one assignment fits. A live optimizer's parameters have to have the values of their
    leaves: carry the weights first. Leaves of zeros or ones alone are not compared, as they tell nothing.

    Args:
        optimizer_or_state_dict: an optimizer of torch.optim or torch_ref (SGD, Adagrad, AdaGrad, RMSprop, Adam, AdamW, Momentum), or its
            `state_dict()`.
        params: the parameters in JAX, carried over by the caller.
        optimizer: the name of the class, where it is a `state_dict`.
        matching: the one that the weights went by; it knows the parameters of a live optimizer by their memory. Else it is made here, of
            `names` and `layouts`, as `Matching` has them.
        parameters: torch's names in the order of its indices, where the groups hold no `param_names`, and the optimizer is not live.
        step: how many steps were taken. SGD and Momentum do not hold it: by default 1 where there are buffers (so that the first step is
            over) and 0 where there are none, but with a learning rate that depends on it, it must be given.
        learning_rate: a number or schedule in the place of the groups' `lr`, or a list with one for each group. A scheduler of torch is
            code and does not carry over: without this, the learning rate stays what it is now.
        momentum: the momentum, or Adam's first beta, from now on. Needed where a group shows that a scheduler moves it, as OneCycleLR does.
        missing: what starts as new although others have state, by the path of a leaf or torch's name of the parameter; in JAX it has the
            step of its group. Refused of SGD with dampening after the first step: torch does not dampen the first buffer, and the leaf
            would take the later rule.
    Returns: `tx`, its `state`, and `groups`. `tx` is an `optax.partition` where there are several groups, and where the parameters of a
        group have taken different numbers of steps: then each number has a part of its own. RMSprop, and Adagrad without `lr_decay`, do
        not use the step and stay whole.
    Raises: ValueError or TypeError, naming it, for whatever does not carry over: an unknown class or key, a state that is incomplete, a
        shape or dtype that is not the leaf's, and two parameters that a leaf could be.
    Exactness: every bit of every moment is carried; from there on as the transform's own.
    Example:
        >>> import jax.numpy as jnp, torch
        >>> weight = torch.nn.Parameter(torch.ones(2, 3))
        >>> stock = torch.optim.Adam([weight], lr=0.5)
        >>> tx, state, groups = from_torch(stock, {"kernel": jnp.ones((3, 2))})
        >>> state.exp_avg["kernel"].shape, int(state.step)
        ((3, 2), 0)
    """
    state_dict, optimizer, accumulator = _source(optimizer_or_state_dict, optimizer)
    groups = [replace(group, options=_settled(group, momentum)) for group in torch_groups.read_groups(state_dict, optimizer)]
    rates, leaves = for_each("from_torch", learning_rate, len(groups)), Leaves(params)
    theirs = _parameters(optimizer_or_state_dict, state_dict, groups, parameters)
    pairs = _matched(theirs, leaves, used(matching, leaves, names=names, layouts=layouts), names, layouts)
    indices = [index for group in groups for index in group.indices]
    absent = {indices[place] for named in missing for place in _places_of(named, pairs, theirs, leaves)}
    records = torch_groups.read(state_dict, groups, step=step, scheduled=any(map(callable, rates)), missing=absent)
    parts = [_part(own, rate, accumulator, leaves) for own, rate in _with_leaves(zip(records, rates, strict=True), pairs, indices, leaves)]
    if not isinstance(optimizer_or_state_dict, Mapping):
        _check_values([part.group for part in parts], dict(zip(indices, theirs, strict=True)), leaves)
    _say_schedulers(groups, rates)
    for record in records:
        if said := torch_groups.stopped(record.group, record.step):
            warnings.warn(said, stacklevel=2)
    return _joined(parts, params, leaves)


def _places_of(named: str, pairs: Mapping[str, Pair], theirs: Sequence[Parameter], leaves: Leaves) -> set[int]:
    """The parameters of a leaf, by its path, by the name that a parameter has in torch, or as messages have it.

    Raises: ValueError where there is none, or it is the path of one and the name of another.
    """
    called = {each.place: (each.name, f"params[{each.place if each.name is None else repr(each.name)}]") for each in theirs}
    by_name = {place for place, names in called.items() if named in names}
    if by_name and named not in leaves.by_path:
        return by_name
    by_path = {part.name for path in leaves.given({named: None}, "missing") for part in pairs[path].source.parts}
    if by_name and not by_name <= by_path:
        raise ValueError(f"missing: {named} is the path of one leaf and the name of another's parameter; give the other's path or name.")
    return by_path


def _say_schedulers(groups: Sequence[Group], rates: Sequence[Any]) -> None:
    """Warn where a scheduler has left its marks in a group, and nobody says what the learning rate is from now on."""
    for i, (group, rate) in enumerate(zip(groups, rates, strict=True)):
        left = torch_classes.scheduled(group.options)
        if left and rate is None:
            warnings.warn(
                f"{group.optimizer}: group {i} has {', '.join(left)}, which a scheduler left. It does not carry over: the learning rate "
                f"stays {number(group.options['lr']):g} unless learning_rate= is given.",
                stacklevel=3,
            )


def _settled(group: Group, momentum: float | None) -> Mapping[str, Any]:
    """The options with the momentum that holds from now on; refused where a scheduler moves it, and it is not given."""
    options, entry = group.options, torch_classes.known(group.optimizer)
    key = "betas" if "betas" in entry.group_keys else "momentum"
    if momentum is None:
        for moved in SCHEDULED_MOMENTUM:
            if moved in options and key in entry.group_keys:
                raise ValueError(
                    f"{group.optimizer}: a scheduler moves {key} ({moved} is {number(options[moved])}); no schedule of it carries over: "
                    "momentum= is needed, the value from now on."
                )
        return options
    if key not in entry.group_keys:
        raise ValueError(f"{group.optimizer}: it has no momentum; got momentum={momentum}.")
    return {**options, key: (momentum, *options[key][1:]) if key == "betas" else momentum}


def _parameters(given: Any, state_dict: Mapping, groups: Sequence[Group], names: Sequence[str] | None) -> list[Parameter]:
    """The optimizer's parameters in the order of its indices, as far as they are known."""
    indices = [index for group in groups for index in group.indices]
    tensors: list[Any] = [None] * len(indices)
    if not isinstance(given, Mapping):
        tensors = [p for group in given.param_groups for p in group["params"]]
    found = []
    for place, (index, name, tensor) in enumerate(zip(indices, _names(groups, names), tensors, strict=True)):
        shape = tuple(tensor.shape) if tensor is not None else torch_groups.shape_of_moments(state_dict["state"].get(index))
        found.append(Parameter(place, name, shape, tensor))
    return found


def _matched(
    theirs: Sequence[Parameter], leaves: Leaves, matching: Matching | None, names: Names | None, layouts: Layouts | None
) -> dict[str, Pair]:
    """For each leaf, where it comes from by places in the optimizer's order."""
    if matching is None:
        values = {}
        if any(parameter.tensor is not None for parameter in theirs):
            values = {path: value for path, leaf in leaves.by_path.items() if (value := telling(leaf)) is not None}
        return Matching.of_parameters(leaves, theirs, names, layouts, values).pairs
    place_of = {place: own for own, place in enumerate(places(theirs, matching.parameters))}
    return {path: pair._replace(source=pair.source.renamed(place_of.__getitem__)) for path, pair in matching.pairs.items()}


class _Part(NamedTuple):
    """A group of torch's, the transform that it means, and that one's state over {path: leaf}."""

    group: Group
    tx: optax.GradientTransformationExtraArgs
    state: Any


def _with_leaves(
    records: Iterable[tuple[Record, Any]], pairs: Mapping[str, Pair], indices: Sequence[int], leaves: Leaves
) -> Iterator[tuple[Record, Any]]:
    """The records, one for each step where the rule uses it, with their leaves in JAX, and the learning rate of their group."""
    split = [(part, rate) for record, rate in records for part in _by_step(record, scheduled=callable(rate))]
    holder = {index: label for label, (record, _) in enumerate(split) for index in record.group.indices}
    owned: dict[int, list[str]] = {label: [] for label in range(len(split))}
    for path, pair in pairs.items():
        labels = {holder[indices[part.name]] for part in pair.source.parts}
        if len(labels) > 1:
            groups = " and ".join(sorted({split[label][0].group.name(0) for label in labels}))
            raise ValueError(f"from_torch: leaf {path} is made of parameters of several groups or steps, those of {groups}.")
        owned[labels.pop()].append(path)
    for label, (record, rate) in enumerate(split):
        position = {index: i for i, index in enumerate(record.group.indices)}
        own = []
        for path in owned[label]:
            origin = pairs[path].source.renamed(lambda place, position=position: position[indices[place]])
            own.append(leaf_of(path, leaves, pairs[path].layout, origin))
        yield record._replace(group=replace(record.group, leaves=torch_groups.in_torchs_order(own), label=label)), rate


def _by_step(record: Record, *, scheduled: bool) -> list[Record]:
    """A group's parameters by the steps that they have taken, where the rule depends on it."""
    group, most, states = record
    if not group.behind or not (scheduled or group.uses_step):
        return [record]
    if scheduled:
        late = next(position for position, behind in enumerate(group.behind) if behind)
        raise ValueError(
            f"{group.optimizer}: {group.name(late)} is at step {most - group.behind[late]}, others of its group at {most}: a schedule "
            "counts one step for all; learning_rate is a number here."
        )
    parts = []
    for behind in sorted(set(group.behind)):
        kept = [position for position, own in enumerate(group.behind) if own == behind]
        part = replace(group, indices=tuple(group.indices[position] for position in kept), behind=(), whole=group.indices)
        parts.append(Record(part, most - behind, [states[position] for position in kept]))
    return parts


def _part(record: Record, rate: Any, accumulator: str | None, leaves: Leaves) -> _Part:
    """A group as it goes on in JAX, with this learning rate in the place of its own if there is one."""
    kept_in = accumulator or _accumulator(record)
    group = replace(record.group, accumulator_dtype=kept_in, scheduled=callable(rate))
    arguments = {"accumulator_dtype": kept_in}
    if rate is not None:
        arguments["learning_rate"] = rate
        if not callable(rate):
            group = replace(group, options={**group.options, "lr": as_number("from_torch", rate)})
    tx = torch_classes.transform(group.optimizer, group.options, f"group {group.label}", **arguments)
    _dampened(group, record)
    return _Part(group, tx, _state(tx, record._replace(group=group), leaves))


def _source(given: Any, optimizer: str | None) -> tuple[Mapping, str, str | None]:
    """A `state_dict`, the name of its class, and the dtype of its accumulators where that is known."""
    known = ", ".join(TORCH_CLASSES)
    if isinstance(given, Mapping):
        if optimizer is None:
            raise ValueError(f"from_torch: a state_dict does not tell its class; optimizer is one of {known}.")
        return given, optimizer, None
    name, package = type(given).__name__, type(given).__module__.split(".")[0]
    if not hasattr(given, "state_dict") or package not in ("torch", "torch_ref") or name not in TORCH_CLASSES:
        raise ValueError(f"from_torch: an optimizer of torch.optim or torch_ref is needed, one of {known}; got {package}'s {name}.")
    if optimizer not in (None, name):
        raise ValueError(f"from_torch: optimizer {optimizer!r} was given; got a {name}.")
    if any(getattr(given, "own_dtypes", {}).values()):
        raise ValueError(f"from_torch: {name} with mu_dtype does not carry over: its first moment has not the dtype of the rest.")
    return given.state_dict(), name, getattr(given, "accumulator_dtype", None)


def _dampened(group: Group, record: Record) -> None:
    """Refuse leaves that start as new where a first step is another: SGD's first buffer is the gradient, later ones are dampened."""
    keys = TORCH_CLASSES[group.optimizer].undamped_first_step
    damped = bool(keys) and all(number(group.options.get(key, 0)) for key in keys)
    for position, state in enumerate(record.state):
        if damped and record.step and not state:
            raise ValueError(
                f"{group.optimizer}: {group.name(position)} has no state, and with dampening a first step differs from step "
                f"{record.step} of its group; it cannot be in missing."
            )


def _names(groups: Sequence[Group], parameters: Sequence[str] | None) -> list[str | None]:
    """The parameters' names in torch, from the groups or the caller; None where one is not known."""
    held: list[str | None] = [name for group in groups for name in group.options.get("param_names") or [None] * len(group.indices)]
    if parameters is None:
        return held
    if isinstance(parameters, str) or not all(isinstance(name, str) for name in parameters):
        raise TypeError(f"parameters: names in torch's order are needed; got {parameters!r}.")
    if len(parameters) != len(held):
        raise ValueError(f"parameters: torch has {len(held)} parameters; got {len(parameters)} names of parameters.")
    for name, given in zip(held, parameters, strict=True):
        if name not in (None, given):
            raise ValueError(f"parameters: {given!r} was given, but the param_names of the groups have {name!r} in its place.")
    return list(parameters)


def _accumulator(record: Record) -> str | None:
    """float32, where a half leaf has state in it."""
    halves = {part.name for leaf in record.group.leaves if leaf.dtype in nx.HALVES for part in leaf.source.parts}
    found = {array.dtype.name for position in halves for array in record.state[position].values()}
    return "float32" if "float32" in found else None


def _state(tx: Any, record: Record, leaves: Leaves) -> Any:
    """The state of a group's transform over {path: leaf}."""
    group = record.group
    own = {leaf.path: leaves.by_path[leaf.path] for leaf in group.leaves}
    jax.eval_shape(tx.init, own)  # raises where a leaf is not floating point
    fresh = {leaf.path: own[leaf.path] for leaf in group.leaves if _is_new(leaf, record)}
    fields = {field: tree for field, tree in tx.init(fresh)._asdict().items() if isinstance(tree, dict)}
    for leaf in group.leaves:
        for field in () if leaf.path in fresh else record.state[leaf.source.parts[0].name]:
            array = _fitting(group, leaf, field, lambda position, field=field: record.state[position][field])
            fields[field][leaf.path] = placed(array, own[leaf.path])
    step = counter(own)
    return tx.init({})._replace(**fields, step=step + np.asarray(record.step, step.dtype))


def _is_new(leaf: Leaf, record: Record) -> bool:
    """Whether a leaf has no state.

    Raises: ValueError where only some of the parameters that it is made of have.
    """
    positions = [part.name for part in leaf.source.parts]
    without = [position for position in positions if not record.state[position]]
    if without and len(without) < len(positions):
        raise ValueError(f"{record.group.optimizer}: {record.group.name(without[0])} has no state, but others of leaf {leaf.path} have.")
    return bool(without)


def _fitting(group: Group, leaf: Leaf, what: str, array_of: Callable[[int], np.ndarray]) -> np.ndarray:
    """Arrays of torch's in the layout of their leaf, whose shape and dtype they must have."""
    named = " and ".join(group.name(position) for position in list(dict.fromkeys(part.name for part in leaf.source.parts))[:2])
    who = f"{group.optimizer}: {what} of {named}"
    try:
        array = gathered(leaf.source, leaf.layout, array_of)
    except ValueError as error:
        raise ValueError(f"{who}: {error} (layout of leaf {leaf.path}).") from None
    if array.shape != leaf.shape:
        raise ValueError(f"{who} has shape {array.shape} in the layout of leaf {leaf.path}, which has {leaf.shape}.")
    dtype = leaf.dtype if what == "value" else nx.state_dtype(leaf.dtype, group.accumulator_dtype)
    if array.dtype.name != dtype:
        raise TypeError(f"{who} has dtype {array.dtype.name}; leaf {leaf.path} has {leaf.dtype}, so that {dtype} is needed.")
    return array


def _check_values(groups: Sequence[Group], parameters: Mapping[int, Parameter], leaves: Leaves) -> None:
    """Whether the leaves have the shape, the dtype and the value of a live optimizer's parameters.

    Leaves of zeros or ones alone are not compared, nor are those whose values are not here.
    """
    for group in groups:
        for leaf in group.leaves:
            own = [parameters[group.indices[part.name]] for part in leaf.source.parts]
            if any(parameter.value is None for parameter in own):
                continue
            theirs = _fitting(group, leaf, "value", lambda position, group=group: _there(parameters[group.indices[position]]))
            value = telling(leaves.by_path[leaf.path])
            if value is not None and not same_bits(theirs, value):
                raise ValueError(f"from_torch: leaf {leaf.path} has another value than {own[0]}, which it is; {CARRY_FIRST}")


def _there(parameter: Parameter) -> np.ndarray:
    value = parameter.value
    assert value is not None
    return value


def _joined(parts: Sequence[_Part], params: Any, leaves: Leaves) -> Imported:
    """One transform and its state: the only one, or a partition of several."""
    treedef, groups = jax.tree.structure(params), tuple(part.group for part in parts)

    def like_params(field):
        return treedef.unflatten([field.get(path, optax.MaskedNode()) for path in leaves.paths]) if isinstance(field, dict) else field

    states = [type(part.state)(*map(like_params, part.state)) for part in parts]
    if len(parts) == 1:
        return Imported(parts[0].tx, states[0], groups)
    label_of = {leaf.path: group.label for group in groups for leaf in group.leaves}
    labels = treedef.unflatten([label_of[path] for path in leaves.paths])
    tx = optax.partition({part.group.label: part.tx for part in parts}, labels)
    return Imported(tx, optax.transforms.PartitionState({i: optax.MaskedState(state) for i, state in enumerate(states)}), groups)
