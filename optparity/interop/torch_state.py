"""From a torch optimizer to a transform and its state, and back."""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_impl import numerics as nx
from jaxopt_impl.transform import counter

from .._arrays import is_tensor, number, to_numpy
from ..registry import OPTIMIZERS, TORCH_CLASSES
from . import groups as torch_groups
from . import inner_states, torch_classes
from .groups import Group, Leaf, Record
from .layouts import Layout, apply, inverse
from .leaves import Leaves, Names
from .weights import Layouts, placed

LIKE = ("torch_ref", "torch.optim")


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
    names: Names | None = None,
    parameters: Sequence[str] | None = None,
    layouts: Layouts | None = None,
    step: int | None = None,
    learning_rate: Any = None,
    missing: Collection[str] = (),
) -> Imported:
    """A transform of `jaxopt_impl` that goes on where a torch optimizer stands: its hyper-parameters, its moments, its step.

    Args:
        optimizer_or_state_dict: an optimizer of torch.optim or torch_ref (SGD, Adagrad, AdaGrad, RMSprop, Adam, AdamW, Momentum), or its
            `state_dict()`.
        params: the parameters in JAX, carried over by the caller.
        optimizer: the name of the class, where it is a `state_dict`.
        names: path of a leaf -> its parameter's name or index in torch, as a mapping or a function. Paths have dots ("hidden.kernel") or
            are JAX's own ("['hidden']['kernel']"). By default leaves and parameters of the same names belong together where torch's names
            are known and all are the same, and the leaves in their order and the parameters in theirs where none is the same or known:
            NOTE that JAX sorts the keys of a dict, and torch does not. Where only some are the same, names is needed.
        parameters: torch's names in the order of its indices, where the groups hold no `param_names`. `weights_from_torch` is always
            given names: without the same names here, an optimizer of `model.parameters()` is matched by order, its weights by name.
        layouts: path of a leaf -> what its torch weight went through to become it: axes as (1, 0), a `Reshape`, or several of these.
            Moments go the same way.
        step: how many steps were taken. SGD and Momentum do not hold it: by default 1 where there are buffers (so that the first step is
            over) and 0 where there are none, but with a learning rate that depends on it, it must be given.
        learning_rate: a number or schedule in the place of the groups' `lr`, or a list with one for each group. A scheduler of torch is
            code and does not carry over: without this, the learning rate stays what it is now.
        missing: paths of the leaves that start as new although others have state; in JAX they have the step of their group. Refused of SGD
            with dampening after the first step: torch does not dampen the first buffer, and the leaf would take the later rule.
    Returns: `tx` (an `optax.partition` where there are several groups), its `state`, and `groups`.
    Raises: ValueError or TypeError, naming it, for whatever does not carry over: an unknown class or key, a state that is incomplete,
        steps that are not equal in a group, a shape or dtype that is not the leaf's.
    Exactness: every bit of every moment is carried; from there on as the transform's own.
    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.ones(2, 3))
        >>> stock = torch.optim.Adam([weight], lr=0.5)
        >>> stock.step(lambda: weight.square().sum().backward())
        >>> tx, state, groups = from_torch(stock, {"kernel": jnp.ones((3, 2))}, layouts={"kernel": (1, 0)})
        >>> state.exp_avg["kernel"].shape, int(state.step)
        ((3, 2), 1)
    """
    state_dict, optimizer, accumulator = _source(optimizer_or_state_dict, optimizer)
    groups = torch_groups.read_groups(state_dict, optimizer)
    rates, leaves, known = _rates("from_torch", learning_rate, len(groups)), Leaves(params), _names(groups, parameters)
    indices = [index for group in groups for index in group.indices]
    order = leaves.in_torchs_order(known, len(indices), names)
    absent = {indices[order.index(path)] for path in leaves.given(dict.fromkeys(missing), "missing")}
    records = torch_groups.read(state_dict, groups, step=step, scheduled=any(map(callable, rates)), missing=absent)
    records = _with_leaves(records, order, leaves, leaves.given(layouts, "layouts"))
    parts = [_part(record, rate, accumulator, leaves) for record, rate in zip(records, rates, strict=True)]
    if not isinstance(optimizer_or_state_dict, Mapping):
        in_order = names is None and leaves.in_order(known)
        _same_parameters(optimizer_or_state_dict.param_groups, [part.group for part in parts], leaves, in_order=in_order)
    return _joined(parts, params, leaves)


class _Part(NamedTuple):
    """A group of torch's, the transform that it means, and that one's state over {path: leaf}."""

    group: Group
    tx: optax.GradientTransformationExtraArgs
    state: Any


def _with_leaves(records: Sequence[Record], order: Sequence[str], leaves: Leaves, layout_of: Mapping[str, Layout]) -> Iterator[Record]:
    """The records with their groups' leaves in JAX, `order` being the paths in torch's order."""
    rest = iter(order)
    for label, record in enumerate(records):
        own = tuple(_leaf(next(rest), leaves, layout_of) for _ in record.group.indices)
        yield record._replace(group=replace(record.group, leaves=own, label=label))


def _part(record: Record, rate: Any, accumulator: str | None, leaves: Leaves) -> _Part:
    """A group as it goes on in JAX, with this learning rate in the place of its own if there is one."""
    kept_in = accumulator or _accumulator(record.group.leaves, record.state)
    group = replace(record.group, accumulator_dtype=kept_in, scheduled=callable(rate))
    arguments = {"accumulator_dtype": kept_in}
    if rate is not None:
        arguments["learning_rate"] = rate
        if not callable(rate):
            group = replace(group, options={**group.options, "lr": _number("from_torch", rate)})
    tx = torch_classes.transform(group.optimizer, group.options, f"group {group.label}", **arguments)
    _dampened(group, record)
    return _Part(group, tx, _state(tx, record._replace(group=group), leaves))


def describe(
    params: Any,
    optimizers: tuple[str, Mapping[str, Any]] | Mapping[Hashable, tuple[str, Mapping[str, Any]]],
    *,
    labels: Any = None,
    names: Names | None = None,
    parameters: Sequence[str] | None = None,
    layouts: Layouts | None = None,
) -> tuple[Group, ...]:
    """The groups that a torch optimizer would have, for a run that began in JAX.

    Args:
        params: the parameters in JAX.
        optimizers: the name in `OPTIMIZERS` and the arguments, as ("adam", {"learning_rate": 1e-3}); with several groups a mapping from
            the labels of `optax.partition` to such pairs.
        labels: with several groups, the tree of labels.
        names, parameters, layouts: as in `from_torch`; an index in `names` is a place in the order of the torch model's parameters.
    Raises: ValueError or TypeError for an unknown optimizer, and for arguments that it does not take, or torch has no place for.
    """
    pairs = optimizers if isinstance(optimizers, Mapping) else {0: optimizers}
    leaves = Leaves(params)
    layout_of = leaves.given(layouts, "layouts")
    label_of = Leaves(labels).by_path if isinstance(optimizers, Mapping) else dict.fromkeys(leaves.paths, 0)
    order, groups, begin = leaves.in_torchs_order(parameters, len(leaves.paths), names), [], 0
    for label, pair in pairs.items():
        name, arguments = _described(pair)
        own = tuple(_leaf(path, leaves, layout_of) for path in order if label_of.get(path) == label)
        entry = OPTIMIZERS[name]
        options, optimizer = torch_classes.in_torch(entry, arguments), entry.torch_name
        kind, dtype = "float32" if entry.has_step else None, arguments.get("accumulator_dtype")
        kept_in = None if dtype is None else nx.dtype_name(dtype)
        torch_classes.transform(optimizer, options, f"group {label!r}", accumulator_dtype=kept_in)  # raises where a number is out of range
        groups.append(Group(optimizer, options, tuple(range(begin, begin + len(own))), kind, kept_in, own, label))
        begin += len(own)
    if begin != len(leaves.paths) or len(label_of) != begin:
        raise ValueError(f"describe: each leaf has one of the labels {', '.join(map(repr, pairs))}; got {list(label_of.values())}.")
    return tuple(groups)


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
        >>> import jaxopt_impl
        >>> params = {"kernel": jnp.ones((3, 2))}
        >>> state = jaxopt_impl.adagrad(0.5).init(params)
        >>> groups = describe(params, ("adagrad", {"learning_rate": 0.5}), layouts={"kernel": (1, 0)})
        >>> to_torch_state_dict(state, groups)["state"][0]["sum"].shape
        torch.Size([2, 3])
    """
    if like not in LIKE:
        raise ValueError(f"to_torch_state_dict: like is one of {', '.join(LIKE)}; got {like!r}.")
    records = []
    rates = _rates("to_torch_state_dict", learning_rate, len(groups))
    for group, rate, own in zip(groups, rates, inner_states.of_groups(state, groups, rates), strict=True):
        if group.scheduled and rate is None:
            raise ValueError(f"to_torch_state_dict: group {group.label!r} has a schedule in JAX; learning_rate is needed.")
        record = _record(own, _stock(group) if like == "torch.optim" else group)
        if rate is not None:
            lr = _number("to_torch_state_dict", rate(record.step) if callable(rate) else rate)
            record = record._replace(group=replace(record.group, options={**record.group.options, "lr": lr}))
        records.append(record)
    return torch_groups.write(records)


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


def _described(pair: Any) -> tuple[str, dict[str, Any]]:
    """A name in `OPTIMIZERS`, and arguments with a number as the learning rate."""
    if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[1], Mapping):
        raise ValueError(f"describe: an optimizer is a name and its arguments, as ('adam', {{'learning_rate': 1e-3}}); got {pair!r}.")
    name, arguments = pair
    if name not in OPTIMIZERS:
        raise ValueError(f"describe: unknown optimizer {name!r}; one of {', '.join(OPTIMIZERS)} is needed.")
    if "learning_rate" not in arguments:
        raise ValueError(f"describe: {name} has no learning_rate; a number is needed.")
    if callable(arguments["learning_rate"]):
        raise ValueError("describe: a torch group has a number as learning_rate; to_torch_state_dict takes the schedule.")
    return name, {**arguments, "learning_rate": _number("describe", arguments["learning_rate"])}


def _rates(who: str, given: Any, count: int) -> list:
    """A learning rate for each group: a number, a schedule, or None where it stays what it is."""
    rates = given if isinstance(given, list) else [given] * count
    if len(rates) != count:
        raise ValueError(f"{who}: one learning_rate for each of {count} groups is needed; got {len(rates)}.")
    for rate in rates:
        if rate is not None and not callable(rate):
            _number(who, rate)
    return rates


def _number(who: str, rate: Any) -> int | float:
    """A learning rate as torch's groups have it."""
    if type(rate) in (int, float):
        return rate
    array = to_numpy(rate) if is_tensor(rate) else np.asarray(rate)
    if array.shape or (not jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.kind not in "iu"):
        raise ValueError(f"{who}: learning_rate is a number, a schedule, or a list of these, one for each group; got {rate!r}.")
    return array.item()


def _names(groups: Sequence[Group], parameters: Sequence[str] | None) -> list[str] | None:
    """The parameters' names in torch, from the groups or the caller, where all are known."""
    held: list[str | None] = [name for group in groups for name in group.options.get("param_names") or [None] * len(group.indices)]
    if parameters is None:
        named = [name for name in held if name is not None]
        return named if named and len(named) == len(held) else None
    for name, given in zip(held, parameters, strict=False):  # the count is checked where they are used
        if name not in (None, given):
            raise ValueError(f"parameters: {given!r} was given, but the param_names of the groups have {name!r} in its place.")
    return list(parameters)


def _leaf(path: str, leaves: Leaves, layout_of: Mapping[str, Layout]) -> Leaf:
    leaf = leaves.by_path[path]
    return Leaf(path, jnp.result_type(leaf).name, layout_of.get(path), jnp.shape(leaf))


def _accumulator(leaves: Sequence[Leaf], states: Sequence[Mapping[str, np.ndarray]]) -> str | None:
    """float32, where a half leaf has state in it."""
    found = {array.dtype.name for leaf, own in zip(leaves, states, strict=True) if leaf.dtype in nx.HALVES for array in own.values()}
    return "float32" if "float32" in found else None


def _state(tx: Any, record: Record, leaves: Leaves) -> Any:
    """The state of a group's transform over {path: leaf}."""
    group = record.group
    own = {leaf.path: leaves.by_path[leaf.path] for leaf in group.leaves}
    jax.eval_shape(tx.init, own)  # raises where a leaf is not floating point
    new = {leaf.path: own[leaf.path] for leaf, state in zip(group.leaves, record.state, strict=True) if not state}
    fields = {field: tree for field, tree in tx.init(new)._asdict().items() if isinstance(tree, dict)}
    for position, (leaf, state) in enumerate(zip(group.leaves, record.state, strict=True)):
        for field, array in state.items():
            array = _fitting(group, position, field, array, jnp.shape(own[leaf.path]))
            fields[field][leaf.path] = placed(array, own[leaf.path])
    step = counter(own)
    return tx.init({})._replace(**fields, step=step + np.asarray(record.step, step.dtype))


def _fitting(group: Group, position: int, what: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array of torch's in the layout of its leaf, whose shape and dtype it must have."""
    leaf, who = group.leaves[position], f"{group.optimizer}: {what} of {group.name(position)}"
    try:
        array = apply(leaf.layout, array)
    except ValueError as error:
        raise ValueError(f"{who}: {error} (layout of leaf {leaf.path}).") from None
    if array.shape != shape:
        raise ValueError(f"{who} has shape {array.shape} in the layout of leaf {leaf.path}, which has {shape}.")
    dtype = leaf.dtype if what == "value" else nx.state_dtype(leaf.dtype, group.accumulator_dtype)
    if array.dtype.name != dtype:
        raise TypeError(f"{who} has dtype {array.dtype.name}; leaf {leaf.path} has {leaf.dtype}, so that {dtype} is needed.")
    return array


def _same_parameters(param_groups: Sequence[Mapping], groups: Sequence[Group], leaves: Leaves, *, in_order: bool) -> None:
    """Whether a live optimizer's parameters have the leaves' shapes and dtypes; and not each other's values, where only the order tells."""
    pairs = []
    for theirs, group in zip(param_groups, groups, strict=True):
        for position, (p, leaf) in enumerate(zip(theirs["params"], group.leaves, strict=True)):
            like = np.broadcast_to(np.zeros((), str(p.dtype).removeprefix("torch.")), tuple(p.shape))
            _fitting(group, position, "value", like, jnp.shape(leaves.by_path[leaf.path]))
            pairs.append((group.name(position), p, leaf))
    if not in_order or any(p.is_meta for _, p, _ in pairs):
        return
    arrays = [to_numpy(p) for _, p, _ in pairs]
    for own, (name, _, leaf) in enumerate(pairs):
        value = leaves.by_path[leaf.path]
        if not isinstance(value, np.ndarray) and not getattr(value, "is_fully_addressable", False):  # no values here
            continue
        value = np.asarray(value)
        if (value == 0).all() or (value == 1).all() or _same_bits(apply(leaf.layout, arrays[own]), value):
            continue  # a leaf that is as it starts tells nothing
        for other, array in enumerate(arrays):
            if array.shape == arrays[own].shape and array.dtype == value.dtype and _same_bits(apply(leaf.layout, array), value):
                raise ValueError(
                    f"from_torch: leaf {leaf.path} has the value of {pairs[other][0]}, but is {name} where only the order tells; "
                    "names or parameters= is needed."
                )


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Of arrays of one dtype and shape; a few elements first, as most arrays differ in these."""
    return np.array(a.flat[:16]).tobytes() == np.array(b.flat[:16]).tobytes() and a.tobytes() == b.tobytes()


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


def _record(state: Any, group: Group) -> Record:
    """A group's transform state as torch would have it, in memory of its own."""
    fields = torch_classes.fields(torch_classes.transform(group.optimizer, group.options, f"group {group.label}"))
    own: list[dict[str, np.ndarray]] = [{} for _ in group.leaves]
    for field in _fields_of(state):
        value = _get(state, field)
        if field == "step" or (value is None and field not in fields):
            continue
        there = Leaves(value).by_path
        if field not in fields or there.keys() != {leaf.path for leaf in group.leaves}:
            expected = ", ".join(leaf.path for leaf in group.leaves) if field in fields else "none of it"
            raise ValueError(f"{group.optimizer}: the state has {field} of {', '.join(there)}; the group keeps {expected}.")
        for position, leaf in enumerate(group.leaves):
            own[position][field] = _in_torch(group, position, field, np.asarray(there[leaf.path]))
    for field in ("step", *fields):
        if field not in _fields_of(state):
            raise ValueError(f"{group.optimizer}: the state has no {field}; it has {', '.join(_fields_of(state))}.")
    return Record(group, _step(group, _get(state, "step")), own)


def _step(group: Group, step: Any) -> int:
    array = np.asarray(step)
    if array.shape or array.dtype.kind not in "iuf" or not np.isfinite(array) or array != np.floor(array) or array < 0:
        raise ValueError(f"{group.optimizer}: the state has step {step}; a whole number >= 0 is needed.")
    return int(array)


def _in_torch(group: Group, position: int, field: str, array: np.ndarray) -> np.ndarray:
    leaf, who = group.leaves[position], f"{group.optimizer}: {field} of leaf {group.leaves[position].path}"
    dtype = nx.state_dtype(leaf.dtype, group.accumulator_dtype)
    if array.dtype.name != dtype:
        raise TypeError(f"{who} has dtype {array.dtype.name}; the leaf has {leaf.dtype}, so that {dtype} is needed.")
    if leaf.shape not in (None, array.shape):
        raise ValueError(f"{who} has shape {array.shape}; the leaf has {leaf.shape}.")
    try:
        return np.array(apply(inverse(leaf.layout), array), order="C")
    except ValueError as error:
        raise ValueError(f"{who}: {error} (its layout, on the way back).") from None


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


def _fields_of(state: Any) -> Sequence[str]:
    return list(state) if isinstance(state, Mapping) else getattr(state, "_fields", ())


def _get(state: Any, key: Any) -> Any:
    try:
        return state[key] if isinstance(state, Mapping) else getattr(state, key)
    except (KeyError, AttributeError):
        raise ValueError(f"to_torch_state_dict: the state of an optax.partition has {key!r} here; got {type(state).__name__}.") from None
