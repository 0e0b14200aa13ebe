"""A state of `jaxopt_impl` put into the state of a wrapped transform."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._arrays import check_alike
from .inner_states import OURS, inside, leaves_of
from .leaves import Leaves
from .variables import pure, refilled
from .wrappers import COUNT, SCHEDULE, Part, check_counts, fields_of, replaced


def wrapped(state: Any, like: Any) -> Any:
    """The state of a wrapped transform that goes on where one of ours stands: `like` with `state` in the place of the one inside of it.

    The counts of steps in `like` become the state's; hyper-parameters and what else is there stays.

    Args:
        state: of one transform of `jaxopt_impl`, or of an `optax.partition` of several; also in wrappers of its own.
        like: the state of the transform that goes on, as its `init` gives it.
    Raises: ValueError, naming the place, where the two do not hold the same states; TypeError for another dtype.
    Example:
        >>> import jaxopt_impl, optax
        >>> params = {"w": jnp.ones(2)}
        >>> tx = optax.chain(optax.clip_by_global_norm(1.0), jaxopt_impl.adam(0.1))
        >>> state = jaxopt_impl.adam(0.1).init(params)._replace(step=jnp.asarray(7))
        >>> wrapped(state, tx.init(params))[1].step.item()
        7
    """
    source, target = (inside("wrapped", tree) for tree in (state, like))
    states, places = ([part for part in found if part.kind == OURS] for found in (source, target))
    new: dict[tuple, Any] = {}
    for place, own in zip(places, _paired(places, states), strict=True):
        check_counts("wrapped", own, own.fields["step"], source)
        new[place.path] = functools.partial(_filled, own)
        for part in target:
            if part.kind in (COUNT, SCHEDULE) and part.concerns(place):
                new[part.path] = functools.partial(_counted, own)
    return refilled(like, replaced(pure(like), new))


def _paired(places: Sequence[Part], states: Sequence[Part]) -> list[Part]:
    """The state for each place."""
    paired = []
    for place in places:
        of_label = [state for state in states if list(map(str, state.labels)) == list(map(str, place.labels))]
        same = [state for state in of_label or states if leaves_of(state) == leaves_of(place)]
        if len(same) != 1:
            there = ", ".join(f"{state.at} ({', '.join(sorted(leaves_of(state))) or 'no leaves'})" for state in states)
            here = ", ".join(sorted(leaves_of(place))) or "no leaves"
            raise ValueError(f"wrapped: the place at {place.at} ({here}) needs one state; there are {there or 'none'}.")
        paired += same
    taken = {own.path for own in paired}
    for state in states:
        if state.path not in taken:
            raise ValueError(f"wrapped: the state at {state.at} has no place among {', '.join(place.at for place in places) or 'none'}.")
    return paired


def _filled(own: Part, node: Any) -> Any:
    """A state of ours with another's values."""
    new, fields = {}, fields_of(node)
    for field in dict.fromkeys((*fields, *own.fields)):
        tree = fields.get(field)
        by_path, like = Leaves(own.fields.get(field)).by_path, Leaves(tree)
        if by_path.keys() != like.by_path.keys():
            raise ValueError(f"wrapped: {field} is of {', '.join(by_path) or 'no leaves'}; {', '.join(like.paths) or 'none'} in the place.")
        for path, leaf in like.by_path.items():
            check_alike(f"wrapped: {field} of leaf {path}", by_path[path], jnp.shape(leaf), leaf.dtype, "the state that goes on")
        new[field] = jax.tree.structure(tree).unflatten([jnp.array(by_path[path]) for path in like.paths])
    return {**node, **new} if isinstance(node, Mapping) else node._replace(**new)


def _counted(own: Part, node: Any) -> Any:
    return jnp.asarray(own.fields["step"], jnp.result_type(node))
