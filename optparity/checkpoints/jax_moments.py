"""The moments and the step in a state that was saved in JAX: by field of ours and dotted path, whatever it was wrapped in."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from ..interop import from_optax
from ..interop.inner_states import OURS, inside
from ..interop.leaves import Leaves
from ..interop.wrappers import check_counts
from ..registry import OPTIMIZERS
from . import optax_types
from .jax_tree import Run

WHO = "the optimizer's state"


class Moments(NamedTuple):
    """Of parameters that were stepped together: field -> path -> array, and how many steps were taken; None if nothing tells."""

    fields: Mapping[str, Mapping[str, np.ndarray]]
    step: int | None


def moments(name: str, run: Run, leaves: Mapping[str, np.ndarray], step: int | None) -> list[Moments]:
    """The moments of an optimizer `name`, for each part of a partition.

    Args:
        leaves: of the model, by dotted path; all that have moments are among them.
        step: how many steps were taken, where the state does not hold it.

    Raises: ValueError or TypeError for a state of another optimizer, an accumulation that has begun, and counts that differ.
    """
    kinds = {kind for kind, _ in optax_types.nodes(run.state, name)}
    for kind in kinds:
        _check_whose(name, kind)
    own, step = any(map(optax_types.is_ours, kinds)), _step(run, kinds, step)
    if not own and not any(True for _ in optax_types.moments(run.state, name)):
        _check_empty(name, run.state)
        return [Moments({}, step)]
    state = run.state if own else _ported(name, run.state, leaves, step)
    found = inside(WHO, state)
    return [_moments(part, found, step) for part in found if part.kind == OURS]


def _step(run: Run, kinds: set[Any], given: int | None) -> int | None:
    """The step that nothing in the state holds, or that was given. What is beside the state has to agree with it."""
    counts = optax_types.counts(run.state)
    if given is not None or run.step is None or any(kind in optax_types.HOLDING_BACK for kind in kinds):
        return given
    if counts and run.step not in counts:
        raise ValueError(f"the optimizer has counted {counts[0]} steps, and step {run.step} is beside its state; --step says which it is.")
    return None if counts else run.step


def _check_whose(name: str, kind: Any) -> None:
    """Raise where a part is of another optimizer."""
    known = (*optax_types.WRAPPERS, optax.ScaleByScheduleState, optax_types.own_state(name))
    if kind not in known and kind.__name__ not in OPTIMIZERS[name].stock_optax.states:
        raise ValueError(f"{WHO} has the fields {', '.join(kind._fields)}, which are not those of {name}.")


def _check_empty(name: str, state: Any) -> None:
    """Raise where a state in which nothing was found holds something."""
    there = Leaves(state).paths
    if there and not optax_types.counts(state):
        raise ValueError(f"{WHO} has {', '.join(there[:5])}, which are not those of {name}.")


def _ported(name: str, state: Any, leaves: Mapping[str, np.ndarray], step: int | None) -> Any:
    """A state of optax as ours. With x64, so that float64 stays as it is."""
    paths = {path for tree in optax_types.moments(state, name) for path in Leaves(tree).paths}
    if step is None and not optax_types.counts(state):
        raise ValueError(f"this state of {name} holds no count of steps; --step is needed.")
    with jax.enable_x64(True):
        return from_optax(name, state, {path: leaf for path, leaf in leaves.items() if path in paths}, step=step)


def _moments(part: Any, found: Any, given: int | None) -> Moments:
    """Those of one of our states."""
    step = int(part.fields["step"])
    check_counts(WHO, part, step, found)
    if given not in (None, step):
        raise ValueError(f"{WHO} at {part.at} is at step {step}; got --step {given}.")
    trees = {field: Leaves(tree).by_path for field, tree in part.fields.items() if field != "step" and tree is not None}
    return Moments({field: {path: np.asarray(leaf) for path, leaf in own.items()} for field, own in trees.items()}, step)
