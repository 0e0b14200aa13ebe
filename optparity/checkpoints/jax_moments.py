"""The moments and the step in a state that was saved in JAX: by field of ours and dotted path, whatever it was wrapped in."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from ..interop import from_optax
from ..interop.leaves import Leaves
from ..registry import OPTIMIZERS
from . import optax_types
from .jax_tree import Run

Scope = tuple[str, ...]  # the labels of the partitions around a part


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
    parts = _Parts(name, run.state)
    beside = None if parts.held_back else run.step
    return [
        _moments(name, own, leaves, _step(parts.counts_around(scope), beside, step))
        for scope, own in parts.by_scope.items()
        if any(True for _ in optax_types.moments(tuple(own))) or len(parts.by_scope) == 1
    ]


class _Parts:
    """The parts of a state without their wrappers.

    Attributes:
        by_scope: those that belong together, by the labels of the partitions that they are in.
        held_back: whether the optimizer may have taken fewer steps than there were calls.
    """

    def __init__(self, name: str, state: Any):
        self._name, self._counts = name, list[tuple[Scope, str, int]]()
        self.by_scope: dict[Scope, list[Any]] = {(): []}
        self.held_back = False
        self._add(state, (), "the state")

    def counts_around(self, scope: Scope) -> dict[str, int]:
        """What counted the steps of the parts in a scope, and the steps."""
        return {where: count for around, where, count in self._counts if around == scope[: len(around)]}

    def _add(self, node: Any, scope: Scope, where: str) -> None:
        if isinstance(node, np.ndarray | str):
            raise ValueError(f"{where} is an array, or other data, and no state of {self._name}.")
        if not node:
            return
        if isinstance(node, Mapping) or type(node) is tuple:
            for key, child in node.items() if isinstance(node, Mapping) else enumerate(node):
                self._add(child, scope, f"{where}.{key}")
        elif type(node) in optax_types.WRAPPERS:
            self._open(node, scope, where)
        else:
            self.by_scope.setdefault(scope, []).append(node)
            self._count(node, scope, where)

    def _open(self, node: Any, scope: Scope, where: str) -> None:
        """Take a wrapper off."""
        self._count(node, scope, where)
        self.held_back |= isinstance(node, optax.MultiStepsState | optax.ApplyIfFiniteState)
        if isinstance(node, optax.MultiStepsState) and np.asarray(node.mini_step).any():
            raise ValueError(
                f"{where}.mini_step is {node.mini_step}: gradients are being accumulated, which torch's state does not hold; "
                "a checkpoint after a whole step is needed."
            )
        if isinstance(node, optax.transforms.PartitionState):
            for label, inner in node.inner_states.items():
                self._add(inner, (*scope, str(label)), f"{where}.inner_states.{label}")
            return
        field = "inner_opt_state" if isinstance(node, optax.MultiStepsState) else "inner_state"
        self._add(getattr(node, field), scope, f"{where}.{field}")

    def _count(self, node: Any, scope: Scope, where: str) -> None:
        for field in (*optax_types.COUNTS, "gradient_step"):
            value = getattr(node, field, None) if field in node._fields else None
            if value is not None and np.size(value):
                self._counts.append((scope, f"{where}.{field}", _whole(f"{where}.{field}", value)))


def _whole(where: str, value: Any) -> int:
    array = np.asarray(value)
    if array.shape or array.dtype.kind not in "iu" or array < 0:
        raise ValueError(f"{where} is a count of steps, a whole number >= 0; got {value}.")
    return int(array)


def _step(counts: Mapping[str, int], beside: int | None, given: int | None) -> int | None:
    """How many steps were taken, by all that counts them; where what is given agrees with the state, what is beside does not matter."""
    said = dict(counts)
    if given is not None:
        said["--step"] = given
    elif beside is not None:
        said["step beside it"] = beside
    if len(set(said.values())) > 1:
        shown = ", ".join(f"{where} {count}" for where, count in said.items())
        hint = "" if given is not None else "; --step says which" if len(set(counts.values())) == 1 else ""
        raise ValueError(f"the optimizer has taken one number of steps; got {shown}{hint}.")
    return next(iter(said.values()), None)


def _moments(name: str, parts: list[Any], leaves: Mapping[str, np.ndarray], step: int | None) -> Moments:
    """Those of a chain, whose parts are optax's or one of ours."""
    _check_whose(name, parts)
    ours = [part for part in parts if isinstance(part, optax_types.own_state(name))]
    if len(ours) > 1:
        raise ValueError(f"there are {len(ours)} states of {name} in one chain; one is needed.")
    state = ours[0] if ours else _ported(name, parts, leaves, step)
    fields = {field: Leaves(tree).by_path for field, tree in state._asdict().items() if field != "step" and tree is not None}
    return Moments({field: {path: np.asarray(leaf) for path, leaf in own.items()} for field, own in fields.items()}, step)


def _check_whose(name: str, parts: list[Any]) -> None:
    """Raise where a part is of another optimizer."""
    stock = OPTIMIZERS[name].stock_optax
    for part in parts:
        kind = type(part)
        if not isinstance(part, optax_types.own_state(name)) and kind.__name__ not in (*stock.states, "ScaleByScheduleState"):
            said = kind.__name__ if kind.__module__.startswith("optax") else f"jaxopt_impl.{kind.__module__.rpartition('.')[2]}'s"
            raise ValueError(f"the state has the fields {', '.join(part._fields)} ({said}), which are not those of {name}.")


def _ported(name: str, parts: list[Any], leaves: Mapping[str, np.ndarray], step: int | None) -> Any:
    """A chain of optax as our state. With x64, so that float64 stays as it is."""
    if not any(True for _ in optax_types.moments(tuple(parts))):
        return optax_types.own_state(name)(**dict.fromkeys(optax_types.own_state(name)._fields))
    if step is None:
        raise ValueError(f"this state of {name} holds no count of steps; --step is needed.")
    paths = {path for tree in optax_types.moments(tuple(parts)) for path in Leaves(tree).paths}
    with jax.enable_x64(True):
        return from_optax(name, tuple(parts), {path: leaves[path] for path in leaves if path in paths}, step=step)
