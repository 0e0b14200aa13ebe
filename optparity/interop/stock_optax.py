"""States of stock optax optimizers, read and written, where they mean the same as ours.

Written as well as read by an example: the state that the optax optimizer itself starts with says which parts it has.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_impl import numerics as nx

from .._arrays import check_alike
from ..registry import OPTIMIZERS, Carried
from . import inner_states
from .leaves import Leaves
from .variables import pure
from .wrappers import COUNT, HYPERPARAMETERS, PARTITION, SCHEDULE, Part, children, parts, replaced

# Parts that have no counterpart here, by their fields.
REFUSED = {"ScaleByRmsWithCountState": {"count", "nu"}, "ScaleByRStdDevWithCountState": {"count", "mu", "nu"}}
Names = str | Mapping[Any, str]


def from_optax(
    name: Names,
    optax_state: Any,
    params: Any,
    *,
    step: int | None = None,
    learning_rate: float | None = None,
    bias_correction_nu: bool = True,
) -> Any:
    """The state of `OPTIMIZERS[name].jax` that a stock optax state means: of optax.adam, adamw, amsgrad, sgd, adagrad, rmsprop, lion.

    What is around it is read through: chain, named_chain, masked, inject_hyperparams, MultiSteps, apply_if_finite, a TrainState, an
    nnx.Optimizer, as optax makes them or as a checkpoint has them, in dicts and lists. Refused, with the place, are gradients that
    MultiSteps has gathered, a count that is not the step, and any other state that would be lost. The numbers of inject_hyperparams are
    arguments of the transform that goes on, and for the caller to give it; `interop.wrapped` puts the state into a wrapper of ours.

    NOTE that a state does not tell its rule: adamax, adamaxw, yogi, radam, lamb and nadam keep a ScaleByAdamState as adam does, and are
    taken for it. That it is of the optimizer called `name` is for the caller to know.

    Args:
        name: sgd, adagrad, rmsprop, adam, adamw or lion; or a mapping from the labels of a partition to such names.
        optax_state: what the optax optimizer of that name has; a chain, as its functions return it.
        params: the parameters.
        step: how many steps were taken; needed where nothing in the optax state counts them (sgd, adagrad, rmsprop without a schedule).
        learning_rate: of optax.rmsprop with momentum, which scales its trace by it: a power of two, by which the trace can be divided
            without rounding. Any other is refused.
        bias_correction_nu: as optax.amsgrad was made with. True, its default, is refused: it takes the maximum of the corrected vₜ, and
            jaxopt_impl (as torch) of vₜ itself.
    Returns: one state, where it is of all leaves; else an optax.MaskedState of the leaves that a mask leaves, or the PartitionState of
        the same labels, in which what holds nothing (as set_to_zero) stays as it is.
    Raises: ValueError, with the reason, for what does not mean the same in jaxopt_impl; TypeError for another dtype than the leaf's.
    Exactness: every bit of every moment is carried; the rule that goes on is the one of jaxopt_impl.
    Example:
        >>> import optax
        >>> params = {"w": jnp.ones(2)}
        >>> from_optax("adam", optax.inject_hyperparams(optax.adam)(0.1).init(params), params).exp_avg["w"].tolist()
        [0.0, 0.0]
    """
    found = _found("from_optax", name, optax_state, bias_correction_nu)
    leaves, whole = Leaves(params), {}
    for own in _owners("from_optax", name, found):
        whole[own.label] = _read(own, leaves, step, learning_rate)
    return _like_params(whole, found, params)


class _Own(NamedTuple):
    """A state of one optimizer in an optax state: the parts of a chain that are about the same leaves, and the numbers about it."""

    name: str
    label: Any  # in a partition, or None
    parts: list[Part]
    around: list[Part]

    @property
    def masked(self) -> bool:
        return any(part.masked for part in self.parts)

    def carried(self) -> list[tuple[Carried, Any]]:
        """Each field of ours that is there, and its tree."""
        states = OPTIMIZERS[self.name].stock_optax.states
        return [(carried, part.fields[theirs]) for part in self.parts for theirs, carried in states[part.kind].items()]

    def numbers(self, kind: str) -> list[tuple[str, str, Any]]:
        """Place, name and value of what is around it."""
        return [(part.at, name, value) for part in self.around if part.kind == kind for name, value in part.fields.items()]

    def counts(self) -> list[tuple[str, int]]:
        """All that counts its steps."""
        own = [(f"{part.at}.count", int(part.fields["count"])) for part in self.parts if "count" in part.fields]
        return own + [(at, count) for kind in (COUNT, SCHEDULE) for at, _, count in self.numbers(kind)]


def _found(who: str, name: Names, optax_state: Any, bias_correction_nu: bool) -> list[Part]:
    """What is in an optax state."""
    names = list(dict.fromkeys(name.values())) if isinstance(name, Mapping) else [name]
    for each in names:
        stock = OPTIMIZERS[each].stock_optax if each in OPTIMIZERS else None
        if stock is None or stock.refused:
            known = ", ".join(entry.name for entry in OPTIMIZERS.values() if not entry.stock_optax.refused)
            raise ValueError(f"optax has no state of {each!r}: {stock.refused if stock else f'one of {known} is needed'}.")
    kinds = dict.fromkeys(kind for each in names for kind in OPTIMIZERS[each].stock_optax.states)
    kind_of = functools.partial(_kind, tuple(kinds), bias_correction_nu)
    return parts(who, optax_state, kind_of, f"optax's state of {' or '.join(names)} ({', '.join(kinds)})")


def _kind(kinds: Sequence[str], bias_correction_nu: bool, node: Any) -> str | None:
    """Which of these states of optax a node is, by its type, or, of a mapping, by its keys."""
    found = type(node).__name__ if hasattr(node, "_fields") else None
    if isinstance(node, Mapping):
        fields = {**{kind: set(getattr(optax, kind)._fields) for kind in kinds}, **REFUSED}
        found = next((kind for kind, own in fields.items() if children(node).keys() == own), None)
    if found in REFUSED:
        raise ValueError(f"optax's {found} does not carry over: bias_correction=True has no counterpart in jaxopt_impl.rmsprop.")
    if found == "ScaleByAmsgradState" and found in kinds and bias_correction_nu:
        raise ValueError(
            f"optax's {found} does not carry over: its maximum is of the corrected vₜ/(1 − β₂ᵗ), ours of vₜ, and neither tells the other; "
            "bias_correction_nu=False, with which optax takes the same as we do, does."
        )
    return found if found in kinds else None


def _owners(who: str, name: Names, found: Sequence[Part]) -> list[_Own]:
    """The states of one optimizer each that are there: one, or one for each label of a partition that holds moments."""
    numbers = (COUNT, SCHEDULE, HYPERPARAMETERS, PARTITION)
    moments: dict[tuple, list[Part]] = {}
    for part in found:
        if part.kind not in numbers:
            moments.setdefault(part.labels, []).append(part)
    if isinstance(name, Mapping):
        chosen = {_labels(who, label, found): (label, each) for label, each in name.items()}
    else:
        chosen = {labels: (labels[-1] if labels else None, name) for labels in moments or {(): []}}
    for labels, own in moments.items():
        if labels not in chosen or (len(moments) > 1 and len(labels) != 1):
            there = ", ".join(part.at for group in moments.values() for part in group)
            raise ValueError(f"{who}: {own[0].kind} at {own[0].at} is not of one of the labels named; there is state at {there}.")
    if not moments and not isinstance(name, Mapping) and any(part.kind == PARTITION for part in found):
        raise ValueError(f"{who}: no part of this partition holds state of {name}; a mapping from its labels to names is needed.")
    return [_own(who, each, label, moments.get(labels, []), labels, found) for labels, (label, each) in chosen.items()]


def _labels(who: str, label: Any, found: Sequence[Part]) -> tuple:
    """The label in a partition that the caller means; a checkpoint may have made a string of it."""
    there = [each for part in found if part.kind == PARTITION for each in part.fields]
    same = [each for each in there if each == label] or [each for each in there if str(each) == str(label)]
    if len(same) != 1:
        raise ValueError(f"{who}: the label {label!r} is not once among {', '.join(map(repr, there)) or 'no labels'}.")
    return (same[0],)


def _own(who: str, name: str, label: Any, own: list[Part], labels: tuple, found: Sequence[Part]) -> _Own:
    """A state of one optimizer, each field of which is there once."""
    states, holder = OPTIMIZERS[name].stock_optax.states, {}
    for part in own:
        if part.kind not in states:
            raise ValueError(f"{who}: {part.kind} at {part.at} is no part of optax's state of {name} ({', '.join(states)}).")
        for carried in states[part.kind].values():
            if carried.field in holder:
                there = f"{holder[carried.field]} and {part.kind} at {part.at}"
                raise ValueError(f"{who}: {there} are both {carried.field}; give the one that goes on.")
            holder[carried.field] = f"{part.kind} at {part.at}"
    counting = [part for part in found if part.kind == COUNT and part.labels == labels[: len(part.labels)]]
    clock = max((part.clock for part in counting if part.clock is not None), key=len, default=None)
    one = own[0] if own else Part(labels=labels, clock=clock)  # a state without moments is nowhere
    around = [part for part in found if part.kind in (COUNT, SCHEDULE, HYPERPARAMETERS) and part.concerns(one)]
    whole = _Own(name, label, own, around)
    if any(carried.scaled for carried, _ in whole.carried()) and any(each == "learning_rate" for _, each, _ in whole.numbers(SCHEDULE)):
        raise ValueError(f"{who}: {name}'s momentum under a schedule keeps the learning rates that it was built with.")
    return whole


def _read(own: _Own, leaves: Leaves, step: int | None, learning_rate: float | None) -> Any:
    """The state of ours over {path: leaf}."""
    name, count, found = own.name, _count(own, step), {}
    for carried, tree in own.carried():
        by_path = Leaves(tree).by_path
        if carried.scaled:
            by_path = {path: _divided(name, trace, _rate("from_optax", own, learning_rate)) for path, trace in by_path.items()}
        if carried.negative_zero and not count:
            by_path = {path: jnp.full_like(trace, -0.0) for path, trace in by_path.items()}
        found[carried.field] = by_path
    chosen = next(iter(found.values()), leaves.by_path) if own.masked else leaves.by_path
    like = _like(name, found, {path: leaf for path, leaf in leaves.by_path.items() if path in chosen}, learning_rate)
    for field, by_path in found.items():
        _same(name, field, by_path, getattr(like, field))
    for field in like._fields:
        if field != "step" and getattr(like, field) is not None and field not in found:
            there = " and ".join(part.kind for part in own.parts) or "no part of one"
            raise ValueError(f"from_optax: this state has no {field}, which {name} needs; got {there}.")
    return like._replace(**jax.tree.map(jnp.array, found), step=jnp.asarray(count, jnp.int32))


def _count(own: _Own, step: int | None) -> int:
    """How many steps were taken, by the optax state and by the caller."""
    counts = [*([] if step is None else [("step", step)]), *own.counts()]
    if not counts:
        raise ValueError(f"from_optax: this {own.name} state holds no count of steps; step is needed.")
    if len({count for _, count in counts}) > 1:
        raise ValueError(f"from_optax: one step is needed; got {', '.join(f'{count} ({at})' for at, count in counts)}.")
    return counts[0][1]


def _rate(who: str, own: _Own, learning_rate: float | None) -> float | None:
    """The caller's learning rate, which is the injected one where there is one."""
    for at, name, value in own.numbers(HYPERPARAMETERS):
        if name == "learning_rate" and learning_rate is not None and np.asarray(learning_rate, value.dtype) != value:
            raise ValueError(f"{who}: learning_rate {learning_rate} was given; inject_hyperparams at {at} has {value!s}.")
    return learning_rate


def _like(name: str, found: Mapping[str, Any], params: Any, learning_rate: float | None) -> Any:
    """The state, as shapes, of the configuration of ours that keeps these fields."""
    entry = OPTIMIZERS[name]
    arguments: dict[str, Any] = {"learning_rate": 1.0 if learning_rate is None else learning_rate}
    for field, needed in entry.optional_state.items():
        if field in found:
            arguments |= needed
    dtypes = {x.dtype.name for field in found.values() for x in jax.tree.leaves(field)}
    halves = any(jnp.result_type(leaf).name in nx.HALVES for leaf in jax.tree.leaves(params))
    accumulator = "float32" if halves and "float32" in dtypes else None
    return jax.eval_shape(entry.jax(**arguments, accumulator_dtype=accumulator).init, params)


def _like_params(whole: Mapping[Any, Any], found: Sequence[Part], params: Any) -> Any:
    """The states over {path: leaf} as trees like the parameters; one alone where it is of all of them, else in its mask or partition."""
    paths, held = Leaves(params).paths, _held(whole)
    states = {label: _tree(state, jax.tree.structure(params), paths) for label, state in whole.items()}
    label, state = next(iter(states.items()))
    if len(states) == 1 and (held == set(paths) or (not held and label is None)):
        return state
    if len(states) == 1 and label is None:
        return optax.MaskedState(state)
    (partition,) = (part for part in found if part.kind == PARTITION)
    inner = {label: optax.MaskedState(state) for label, state in states.items()}
    return optax.transforms.PartitionState({**_idle(partition, inner), **inner})


def _held(whole: Mapping[Any, Any]) -> set[str]:
    """The leaves that states over {path: leaf} are of, each in one of them."""
    held: set[str] = set()
    for state in whole.values():
        own = {path for field in state if isinstance(field, dict) for path in field}
        for path in sorted(own & held):
            raise ValueError(f"from_optax: leaf {path} has state under two labels of {', '.join(map(repr, whole))}.")
        held |= own
    return held


def _tree(state: Any, treedef: Any, paths: Sequence[str]) -> Any:
    """A state over {path: leaf} with trees like the parameters', a MaskedNode in the place of each leaf that it is not of."""
    fields = {field: value for field, value in state._asdict().items() if isinstance(value, dict)}
    trees = {field: treedef.unflatten([own.get(path, optax.MaskedNode()) for path in paths]) for field, own in fields.items()}
    return state._replace(**trees)


def _idle(partition: Part, inner: Mapping[Any, Any]) -> dict[Any, Any]:
    """What a partition has of the labels without a state of ours."""
    idle, taken = {}, set(map(str, inner))
    for label, node in partition.fields.items():
        if str(label) in taken:
            continue
        if jax.tree.leaves(node) and not hasattr(node, "_fields"):
            raise ValueError(f"from_optax: the label {label!r} at {partition.at} holds a count; name it in a mapping from labels to names.")
        idle[label] = node if hasattr(node, "_fields") else optax.MaskedState(optax.EmptyState())
    return idle


def to_optax(name: Names, state: Any, optax_state: Any, *, learning_rate: float | None = None, bias_correction_nu: bool = True) -> Any:
    """The inverse of `from_optax`: `optax_state`, as the optax optimizer's `init` gives it, with the moments and count of ours.

    Wrappers in it keep their numbers; what counts the steps of the state inside becomes its step.

    Args: as in `from_optax`, but `state` is ours, also wrapped, and `optax_state` says which parts the result has.
    Raises: ValueError, with the reason, for what does not mean the same in optax; TypeError for another dtype than there.
    Example:
        >>> import optax
        >>> params = {"w": jnp.ones(2)}
        >>> import jaxopt_impl, optax
        >>> state = jaxopt_impl.adam(0.1).init(params)._replace(step=jnp.asarray(7))
        >>> to_optax("adam", state, optax.adam(0.1).init(params))[0].count.item()
        7
    """
    found = _found("to_optax", name, optax_state, bias_correction_nu)
    owners, new = _owners("to_optax", name, found), {}
    for own, ours in zip(owners, _ours(state, owners), strict=True):
        written = {carried.field for carried, _ in own.carried()}
        for field, value in ours.fields.items():
            if field != "step" and value is not None and field not in written:
                there = " and ".join(part.kind for part in own.parts) or "no part of one"
                raise ValueError(f"to_optax: {field} has no place in this {own.name} state of optax: {there}.")
        rate = _rate("to_optax", own, learning_rate)
        for part in own.parts:
            new[part.path] = functools.partial(_filled, own.name, part.kind, ours.fields, rate)
        for part in own.around:
            if part.kind != HYPERPARAMETERS:
                new[part.path] = lambda node, count=ours.fields["step"]: jnp.asarray(count, jnp.result_type(node))
    return replaced(pure(optax_state), new)


def _ours(state: Any, owners: Sequence[_Own]) -> list[Part]:
    """The state of ours for each of these: the only one, or that of the same label."""
    found = inner_states.inside("to_optax", state)
    states = [part for part in found if part.kind == inner_states.OURS]
    ours = []
    for own in owners:
        same = states if len(states) == len(owners) == 1 else [s for s in states if [str(own.label)] == list(map(str, s.labels))]
        if len(same) != 1:
            there = ", ".join(part.at for part in states) or "none"
            raise ValueError(f"to_optax: one state of jaxopt_impl.{own.name} is needed for the label {own.label!r}; there are {there}.")
        inner_states.check_counts("to_optax", same[0], same[0].fields["step"], found)
        ours += same
    return ours


def _filled(name: str, kind: str, ours: Mapping[str, Any], learning_rate: float | None, part: Any) -> Any:
    """A part of an optax state with what ours holds."""
    new = {}
    there = {key: child for key, (_, child) in children(part).items()}
    for theirs, carried in OPTIMIZERS[name].stock_optax.states[kind].items():
        tree = ours.get(carried.field)
        if tree is None:
            raise ValueError(f"to_optax: optax's {kind} holds {theirs}, but the {name} state has no {carried.field}.")
        by_path, like = Leaves(tree).by_path, Leaves(there[theirs])
        if carried.scaled:
            by_path = {path: _divided(name, b, learning_rate, inverse=True) for path, b in by_path.items()}
        _same(name, carried.field, by_path, like.by_path)
        new[theirs] = jax.tree.structure(there[theirs]).unflatten([jnp.array(by_path[path]) for path in like.paths])
    if "count" in there:
        new["count"] = jnp.asarray(ours["step"], jnp.int32)
    return {**part, **new} if isinstance(part, Mapping) else part._replace(**new)


def _divided(name: str, trace: jax.Array, learning_rate: float | None, *, inverse: bool = False) -> np.ndarray:
    """bₜ from optax.rmsprop's trace −η bₜ, or the other way round: only where this is exact."""
    if learning_rate is None or not learning_rate > 0 or np.frexp(learning_rate)[0] != 0.5:
        raise ValueError(
            f"optax.{name}'s momentum is −η times ours, which divides without rounding only if η is a power of two; "
            f"got learning_rate {learning_rate}."
        )
    own = np.asarray(trace)
    factor = np.asarray(-learning_rate if inverse else -1 / learning_rate, own.dtype)
    scaled = own * factor
    if not ((scaled / factor == own) | (own != own)).all():
        raise ValueError(f"optax.{name}'s momentum is −η times ours; divided by this η, some element overflows or is subnormal.")
    return scaled


def _same(name: str, field: str, got: Mapping[str, Any], like: Mapping[str, Any]) -> None:
    """Whether {path: array} is of the leaves, shapes and dtypes of another."""
    if got.keys() != like.keys():
        raise ValueError(f"{name}: {field} has the leaves {', '.join(got) or 'none'}; {', '.join(like) or 'none'} are needed.")
    for path, leaf in like.items():
        check_alike(f"{name}: {field} of leaf {path}", got[path], leaf.shape, leaf.dtype, "the state that goes on")
