"""States of stock optax optimizers, read and written, where they mean the same as ours.

Written as well as read by an example: the state that the optax optimizer itself starts with says which parts it has.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_impl import numerics as nx

from .._arrays import check_alike
from ..registry import OPTIMIZERS
from . import inner_states
from .leaves import Leaves
from .optax_parts import Names, Own, found_in, owners
from .variables import pure, refilled
from .wrappers import HYPERPARAMETERS, Part, check_counts, children, replaced


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
    there = owners("from_optax", name, found_in("from_optax", name, optax_state, bias_correction_nu))
    leaves, whole = Leaves(params), {}
    for own in there:
        whole[own.label] = _read(own, leaves, step, learning_rate)
    return _like_params(whole, there[0].partition, params)


def _read(own: Own, leaves: Leaves, step: int | None, learning_rate: float | None) -> Any:
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


def _count(own: Own, step: int | None) -> int:
    """How many steps were taken, by the optax state and by the caller."""
    counts = [*([] if step is None else [("step", step)]), *own.counts()]
    if not counts:
        raise ValueError(f"from_optax: this {own.name} state holds no count of steps; step is needed.")
    if len({count for _, count in counts}) > 1:
        raise ValueError(f"from_optax: one step is needed; got {', '.join(f'{count} ({at})' for at, count in counts)}.")
    return counts[0][1]


def _rate(who: str, own: Own, learning_rate: float | None) -> float | None:
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


def _like_params(whole: Mapping[Any, Any], partition: Part | None, params: Any) -> Any:
    """The states over {path: leaf} as trees like the parameters; one alone where it is of all of them, else in its mask or partition."""
    paths, held = Leaves(params).paths, _held(whole)
    states = {label: _tree(state, jax.tree.structure(params), paths) for label, state in whole.items()}
    state = next(iter(states.values()))
    if len(states) == 1 and (held == set(paths) or (not held and partition is None)):
        return state
    if partition is None:
        return optax.MaskedState(state)
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
    there = owners("to_optax", name, found_in("to_optax", name, optax_state, bias_correction_nu))
    new: dict[tuple, Any] = {}
    for own, ours in zip(there, _ours(state, there), strict=True):
        written = {carried.field for carried, _ in own.carried()}
        for field, value in ours.fields.items():
            if field != "step" and value is not None and field not in written:
                kinds = " and ".join(part.kind for part in own.parts) or "no part of one"
                raise ValueError(f"to_optax: {field} has no place in this {own.name} state of optax: {kinds}.")
        rate = _rate("to_optax", own, learning_rate)
        for part in own.parts:
            new[part.path] = functools.partial(_filled, own.name, part.kind, ours.fields, rate)
        for part in own.around:
            if part.kind != HYPERPARAMETERS:
                new[part.path] = lambda node, count=ours.fields["step"]: jnp.asarray(count, jnp.result_type(node))
    return refilled(optax_state, replaced(pure(optax_state), new))


def _ours(state: Any, places: Sequence[Own]) -> list[Part]:
    """The state of ours for each of these: the only one, or that of the same label."""
    found = inner_states.inside("to_optax", state)
    states = [part for part in found if part.kind == inner_states.OURS]
    ours = []
    for own in places:
        same = states if len(states) == len(places) == 1 else [s for s in states if [str(own.label)] == list(map(str, s.labels))]
        if len(same) != 1:
            there = ", ".join(part.at for part in states) or "none"
            raise ValueError(f"to_optax: one state of jaxopt_impl.{own.name} is needed for the label {own.label!r}; there are {there}.")
        check_counts("to_optax", same[0], same[0].fields["step"], found)
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
