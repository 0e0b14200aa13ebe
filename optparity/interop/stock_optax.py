"""States of stock optax optimizers, read and written, where they mean the same as ours.

Written as well as read by an example: the state that the optax optimizer itself starts with says which parts it has.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_impl
from jaxopt_impl import numerics as nx

from .leaves import Leaves

# Part of an optax state -> its fields, with ours.
_ADAM = {"mu": "exp_avg", "nu": "exp_avg_sq"}
PARTS: dict[str, dict[str, dict[str, str]]] = {
    "sgd": {"TraceState": {"trace": "momentum_buffer"}},
    "adagrad": {"ScaleByRssState": {"sum_of_squares": "sum"}},
    "rmsprop": {
        "ScaleByRmsState": {"nu": "square_avg"},
        "ScaleByRStdDevState": {"mu": "grad_avg", "nu": "square_avg"},
        "TraceState": {"trace": "momentum_buffer"},
    },
    "adam": {"ScaleByAdamState": _ADAM, "ScaleByAmsgradState": {**_ADAM, "nu_max": "max_exp_avg_sq"}},
}
PARTS["adamw"] = PARTS["adam"]
COUNTS = ("ScaleByAdamState", "ScaleByAmsgradState", "ScaleByScheduleState")
EMPTY = ("EmptyState",)
REFUSED = {
    "momentum": "optax.sgd's trace is −v/η, other bits than the velocity's",
    "ScaleByRmsWithCountState": "bias_correction=True has no counterpart in jaxopt_impl.rmsprop",
    "ScaleByRStdDevWithCountState": "bias_correction=True has no counterpart in jaxopt_impl.rmsprop",
}


def from_optax(
    name: str,
    optax_state: Any,
    params: Any,
    *,
    step: int | None = None,
    learning_rate: float | None = None,
    bias_correction_nu: bool = True,
) -> Any:
    """The state of `jaxopt_impl.OPTIMIZERS[name]` that a stock optax state means: of optax.adam, adamw, amsgrad, sgd, adagrad, rmsprop.

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
    found: dict[str, Any] = {}
    counts = [] if step is None else [step]
    for part in _whole("from_optax", name, optax_state, bias_correction_nu):
        if type(part).__name__ in COUNTS:
            counts.append(int(part.count))
        for theirs, ours in PARTS[name].get(type(part).__name__, {}).items():
            found[ours] = getattr(part, theirs)
    if not counts:
        raise ValueError(f"from_optax: this {name} state holds no count of steps; step is needed.")
    if len(set(counts)) > 1:
        raise ValueError(f"from_optax: one step is needed; got {', '.join(map(str, counts))}.")
    if name == "rmsprop" and "momentum_buffer" in found:
        found["momentum_buffer"] = jax.tree.map(lambda trace: _divided(trace, learning_rate), found["momentum_buffer"])
    if name == "sgd" and "momentum_buffer" in found and not counts[0]:  # optax's starts at 0, ours at -0
        found["momentum_buffer"] = jax.tree.map(lambda trace: jnp.full_like(trace, -0.0), found["momentum_buffer"])
    arguments: dict[str, Any] = {"learning_rate": 1.0 if learning_rate is None else learning_rate}
    if "max_exp_avg_sq" in found:
        arguments["amsgrad"] = True
    if name == "rmsprop":
        arguments["centered"] = "grad_avg" in found
    if "momentum_buffer" in found:
        arguments["momentum"] = 0.5  # any but 0, to which the state is the same
    dtypes = {x.dtype.name for field in found.values() for x in jax.tree.leaves(field)}
    halves = any(jnp.result_type(leaf).name in nx.HALVES for leaf in jax.tree.leaves(params))
    accumulator = "float32" if halves and "float32" in dtypes else None
    like: Any = jax.eval_shape(jaxopt_impl.OPTIMIZERS[name](**arguments, accumulator_dtype=accumulator).init, params)
    for field, tree in found.items():
        _same(name, field, tree, getattr(like, field))
    for field in like._fields:
        if field != "step" and getattr(like, field) is not None and field not in found:
            raise ValueError(f"from_optax: this state has no {field}, which {name} needs; got {_kinds(optax_state)}.")
    return like._replace(**jax.tree.map(jnp.array, found), step=jnp.asarray(counts[0], jnp.int32))


def to_optax(name: str, state: Any, optax_state: Any, *, learning_rate: float | None = None, bias_correction_nu: bool = True) -> Any:
    """The inverse of `from_optax`: `optax_state`, as the optax optimizer's `init` gives it, with the moments and count of ours.

    Args: as in `from_optax`, but `state` is ours, and `optax_state` says which parts the result has.
    Raises: ValueError, with the reason, for what does not mean the same in optax; TypeError for another dtype than there.
    Example:
        >>> import optax
        >>> params = {"w": jnp.ones(2)}
        >>> state = jaxopt_impl.adam(0.1).init(params)._replace(step=jnp.asarray(7))
        >>> to_optax("adam", state, optax.adam(0.1).init(params))[0].count.item()
        7
    """
    parts = _whole("to_optax", name, optax_state, bias_correction_nu)
    if not hasattr(state, "_fields") or "step" not in state._fields:
        raise ValueError(f"to_optax: a state of jaxopt_impl.{name} is needed; got {type(state).__name__}.")
    written = {field for part in parts for field in PARTS[name].get(type(part).__name__, {}).values()}
    for field in state._fields:
        if field != "step" and getattr(state, field) is not None and field not in written:
            raise ValueError(f"to_optax: {field} has no place in this {name} state of optax: {_kinds(optax_state)}.")

    def filled(part):
        kind = type(part).__name__
        new = {}
        for theirs, ours in PARTS[name].get(kind, {}).items():
            tree = getattr(state, ours, None)
            if tree is None:
                raise ValueError(f"to_optax: optax's {kind} holds {theirs}, but the {name} state has no {ours}.")
            if (name, ours) == ("rmsprop", "momentum_buffer"):
                tree = jax.tree.map(lambda b: _divided(b, learning_rate, inverse=True), tree)
            _same(name, ours, tree, getattr(part, theirs))
            new[theirs] = jax.tree.map(jnp.array, tree)
        if kind in COUNTS:
            new["count"] = jnp.asarray(state.step, jnp.int32)
        return part._replace(**new)

    kinds = {*PARTS[name], *COUNTS, *EMPTY}
    return jax.tree.map(filled, optax_state, is_leaf=lambda part: type(part).__name__ in kinds)


def _whole(who: str, name: str, optax_state: Any, bias_correction_nu: bool) -> list[Any]:
    """The states in a chain, which hold each of our fields once."""
    parts = list(_parts(name, optax_state, bias_correction_nu))
    if not parts:
        raise ValueError(f"{who}: a state of optax is needed; got {optax_state!r}.")
    kinds, holder = {type(part).__name__ for part in parts}, {}
    for part in parts:
        for field in PARTS[name].get(type(part).__name__, {}).values():
            if field in holder:
                raise ValueError(f"{who}: optax's {holder[field]} and {type(part).__name__} in one chain are both {field}; one is needed.")
            holder[field] = type(part).__name__
    if name == "rmsprop" and {"TraceState", "ScaleByScheduleState"} <= kinds:
        raise ValueError(f"{who}: rmsprop's momentum under a schedule keeps the learning rates that it was built with.")
    return parts


def _parts(name: str, optax_state: Any, bias_correction_nu: bool) -> Iterator[Any]:
    """The states in a chain, each of which has a meaning here."""
    if name not in PARTS:
        why = REFUSED.get(name, f"one of {', '.join(PARTS)} is needed")
        raise ValueError(f"optax has no state of {name!r}: {why}.")
    kind = type(optax_state).__name__
    if kind in REFUSED:
        raise ValueError(f"optax's {kind} does not carry over: {REFUSED[kind]}.")
    if kind == "ScaleByAmsgradState" and kind in PARTS[name] and bias_correction_nu:
        raise ValueError(
            f"optax's {kind} does not carry over: its maximum is of the corrected vₜ/(1 − β₂ᵗ), ours of vₜ, and neither tells the other; "
            "bias_correction_nu=False, with which optax takes the same as we do, does."
        )
    if kind in PARTS[name] or kind in COUNTS or kind in EMPTY:
        yield optax_state
    elif isinstance(optax_state, tuple) and not hasattr(optax_state, "_fields"):
        for part in optax_state:
            yield from _parts(name, part, bias_correction_nu)
    else:
        raise ValueError(f"optax's {kind} is no part of a {name} state; {', '.join(PARTS[name])} are, in a chain.")


def _divided(trace: jax.Array, learning_rate: float | None, *, inverse: bool = False) -> np.ndarray:
    """bₜ from optax.rmsprop's trace −η bₜ, or the other way round: only where this is exact."""
    if learning_rate is None or not learning_rate > 0 or np.frexp(learning_rate)[0] != 0.5:
        raise ValueError(
            "optax.rmsprop's momentum is −η times ours, which divides without rounding only if η is a power of two; "
            f"got learning_rate {learning_rate}."
        )
    own = np.asarray(trace)
    factor = np.asarray(-learning_rate if inverse else -1 / learning_rate, own.dtype)
    scaled = own * factor
    if not ((scaled / factor == own) | (own != own)).all():
        raise ValueError("optax.rmsprop's momentum is −η times ours; divided by this η, some element overflows or is subnormal.")
    return scaled


def _same(name: str, field: str, tree: Any, like: Any) -> None:
    got, expected = Leaves(tree).by_path, Leaves(like).by_path
    if got.keys() != expected.keys():
        raise ValueError(f"{name}: {field} has the leaves {', '.join(got)}; {', '.join(expected)} are needed.")
    for path, leaf in expected.items():
        if jnp.shape(got[path]) != leaf.shape:
            raise ValueError(f"{name}: {field} of leaf {path} has shape {jnp.shape(got[path])}; {leaf.shape} is needed.")
        if got[path].dtype != leaf.dtype:
            raise TypeError(f"{name}: {field} of leaf {path} has dtype {got[path].dtype.name}; {leaf.dtype.name} is needed.")


def _kinds(optax_state: Any) -> str:
    return " and ".join(type(part).__name__ for part in (optax_state if type(optax_state) is tuple else [optax_state]))
