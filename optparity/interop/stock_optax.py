"""States of stock optax optimizers, read and written, where they mean the same as ours.

Written as well as read by an example: the state that the optax optimizer itself starts with says which parts it has.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_impl import numerics as nx

from .._arrays import check_alike
from ..registry import OPTIMIZERS, Carried
from .leaves import Leaves

COUNTED = "ScaleByScheduleState"  # a part of any chain with a schedule
EMPTY = "EmptyState"
# Parts that have no counterpart here, and why.
REFUSED = dict.fromkeys(
    ("ScaleByRmsWithCountState", "ScaleByRStdDevWithCountState"), "bias_correction=True has no counterpart in jaxopt_impl.rmsprop"
)


def from_optax(
    name: str,
    optax_state: Any,
    params: Any,
    *,
    step: int | None = None,
    learning_rate: float | None = None,
    bias_correction_nu: bool = True,
) -> Any:
    """The state of `OPTIMIZERS[name].jax` that a stock optax state means: of optax.adam, adamw, amsgrad, sgd, adagrad, rmsprop.

    NOTE that a state does not tell its rule: adamax, adamaxw, yogi, radam, lamb and nadam keep a ScaleByAdamState as adam does, and are
    taken for it. That it is of the optimizer called `name` is for the caller to know.

    Args:
        name: sgd, adagrad, rmsprop, adam or adamw.
        optax_state: what the optax optimizer of that name has; a chain, as its functions return it.
        params: the parameters.
        step: how many steps were taken; needed where the optax state holds no count (sgd, adagrad, rmsprop without a schedule).
        learning_rate: of optax.rmsprop with momentum, which scales its trace by it: a power of two, by which the trace can be divided
            without rounding. Any other is refused.
        bias_correction_nu: as optax.amsgrad was made with. True, its default, is refused: it takes the maximum of the corrected vₜ, and
            jaxopt_impl (as torch) of vₜ itself.
    Raises: ValueError, with the reason, for what does not mean the same in jaxopt_impl; TypeError for another dtype than the leaf's.
    Exactness: every bit of every moment is carried; the rule that goes on is the one of jaxopt_impl.
    Example:
        >>> import optax
        >>> params = {"w": jnp.ones(2)}
        >>> from_optax("adam", optax.adam(0.1).init(params), params).exp_avg["w"].tolist()
        [0.0, 0.0]
    """
    parts = _whole("from_optax", name, optax_state, bias_correction_nu)
    count = _count(name, parts, step)
    found = {}
    for carried, tree in _carried(name, parts):
        if carried.scaled:
            tree = jax.tree.map(lambda trace: _divided(name, trace, learning_rate), tree)
        if carried.negative_zero and not count:
            tree = jax.tree.map(lambda trace: jnp.full_like(trace, -0.0), tree)
        found[carried.field] = tree
    like = _like(name, found, params, learning_rate)
    for field, tree in found.items():
        _same(name, field, tree, getattr(like, field))
    for field in like._fields:
        if field != "step" and getattr(like, field) is not None and field not in found:
            raise ValueError(f"from_optax: this state has no {field}, which {name} needs; got {_kinds(optax_state)}.")
    return like._replace(**jax.tree.map(jnp.array, found), step=jnp.asarray(count, jnp.int32))


def _carried(name: str, parts: Iterable[Any]) -> Iterator[tuple[Carried, Any]]:
    """Each field of ours that these parts hold, and its tree."""
    states = OPTIMIZERS[name].stock_optax.states
    for part in parts:
        for theirs, carried in states.get(type(part).__name__, {}).items():
            yield carried, getattr(part, theirs)


def _count(name: str, parts: Iterable[Any], step: int | None) -> int:
    """How many steps were taken, by the parts and by the caller."""
    counts = [*([] if step is None else [step]), *(int(part.count) for part in parts if "count" in part._fields)]
    if not counts:
        raise ValueError(f"from_optax: this {name} state holds no count of steps; step is needed.")
    if len(set(counts)) > 1:
        raise ValueError(f"from_optax: one step is needed; got {', '.join(map(str, counts))}.")
    return counts[0]


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


def to_optax(name: str, state: Any, optax_state: Any, *, learning_rate: float | None = None, bias_correction_nu: bool = True) -> Any:
    """The inverse of `from_optax`: `optax_state`, as the optax optimizer's `init` gives it, with the moments and count of ours.

    Args: as in `from_optax`, but `state` is ours, and `optax_state` says which parts the result has.
    Raises: ValueError, with the reason, for what does not mean the same in optax; TypeError for another dtype than there.
    Example:
        >>> import optax
        >>> params = {"w": jnp.ones(2)}
        >>> import jaxopt_impl, optax
        >>> state = jaxopt_impl.adam(0.1).init(params)._replace(step=jnp.asarray(7))
        >>> to_optax("adam", state, optax.adam(0.1).init(params))[0].count.item()
        7
    """
    parts = _whole("to_optax", name, optax_state, bias_correction_nu)
    if not hasattr(state, "_fields") or "step" not in state._fields:
        raise ValueError(f"to_optax: a state of jaxopt_impl.{name} is needed; got {type(state).__name__}.")
    written = {carried.field for carried, _ in _carried(name, parts)}
    for field in state._fields:
        if field != "step" and getattr(state, field) is not None and field not in written:
            raise ValueError(f"to_optax: {field} has no place in this {name} state of optax: {_kinds(optax_state)}.")
    kinds = {*OPTIMIZERS[name].stock_optax.states, COUNTED, EMPTY}
    fill = functools.partial(_filled, name, state, learning_rate)
    return jax.tree.map(fill, optax_state, is_leaf=lambda part: type(part).__name__ in kinds)


def _filled(name: str, state: Any, learning_rate: float | None, part: Any) -> Any:
    """A part of an optax state with what ours holds."""
    kind, new = type(part).__name__, {}
    for theirs, carried in OPTIMIZERS[name].stock_optax.states.get(kind, {}).items():
        tree = getattr(state, carried.field, None)
        if tree is None:
            raise ValueError(f"to_optax: optax's {kind} holds {theirs}, but the {name} state has no {carried.field}.")
        if carried.scaled:
            tree = jax.tree.map(lambda b: _divided(name, b, learning_rate, inverse=True), tree)
        _same(name, carried.field, tree, getattr(part, theirs))
        new[theirs] = jax.tree.map(jnp.array, tree)
    if "count" in part._fields:
        new["count"] = jnp.asarray(state.step, jnp.int32)
    return part._replace(**new)


def _whole(who: str, name: str, optax_state: Any, bias_correction_nu: bool) -> list[Any]:
    """The states in a chain, which hold each of our fields once."""
    parts = list(_parts(name, optax_state, bias_correction_nu))
    if not parts:
        raise ValueError(f"{who}: a state of optax is needed; got {optax_state!r}.")
    states, holder = OPTIMIZERS[name].stock_optax.states, {}
    for part in parts:
        kind = type(part).__name__
        for carried in states.get(kind, {}).values():
            if carried.field in holder:
                raise ValueError(f"{who}: optax's {holder[carried.field]} and {kind} in one chain are both {carried.field}; one is needed.")
            holder[carried.field] = kind
    if any(type(part).__name__ == COUNTED for part in parts) and any(carried.scaled for carried, _ in _carried(name, parts)):
        raise ValueError(f"{who}: {name}'s momentum under a schedule keeps the learning rates that it was built with.")
    return parts


def _parts(name: str, optax_state: Any, bias_correction_nu: bool) -> Iterator[Any]:
    """The states in a chain, each of which has a meaning here."""
    stock = OPTIMIZERS[name].stock_optax if name in OPTIMIZERS else None
    if stock is None or stock.refused:
        known = ", ".join(entry.name for entry in OPTIMIZERS.values() if not entry.stock_optax.refused)
        raise ValueError(f"optax has no state of {name!r}: {stock.refused if stock else f'one of {known} is needed'}.")
    kind = type(optax_state).__name__
    if kind in REFUSED:
        raise ValueError(f"optax's {kind} does not carry over: {REFUSED[kind]}.")
    if kind == "ScaleByAmsgradState" and kind in stock.states and bias_correction_nu:
        raise ValueError(
            f"optax's {kind} does not carry over: its maximum is of the corrected vₜ/(1 − β₂ᵗ), ours of vₜ, and neither tells the other; "
            "bias_correction_nu=False, with which optax takes the same as we do, does."
        )
    if kind in (*stock.states, COUNTED, EMPTY):
        yield optax_state
    elif isinstance(optax_state, tuple) and not hasattr(optax_state, "_fields"):
        for part in optax_state:
            yield from _parts(name, part, bias_correction_nu)
    else:
        raise ValueError(f"optax's {kind} is no part of a {name} state; {', '.join(stock.states)} are, in a chain.")


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


def _same(name: str, field: str, tree: Any, like: Any) -> None:
    got, expected = Leaves(tree).by_path, Leaves(like).by_path
    if got.keys() != expected.keys():
        raise ValueError(f"{name}: {field} has the leaves {', '.join(got)}; {', '.join(expected)} are needed.")
    for path, leaf in expected.items():
        check_alike(f"{name}: {field} of leaf {path}", got[path], leaf.shape, leaf.dtype, "the state that goes on")


def _kinds(optax_state: Any) -> str:
    return " and ".join(type(part).__name__ for part in (optax_state if type(optax_state) is tuple else [optax_state]))
