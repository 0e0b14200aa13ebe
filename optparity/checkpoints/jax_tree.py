"""Which part of a tree that somebody saved in JAX is the model, and which the optimizer's state.

The state is known by the fields that optax's states have and ours; the model by the paths and shapes of the moments, which are those of
its parameters. So it does not matter how the parts are called: {"params", "opt_state"}, a TrainState, `nnx.state`, the items of a step.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..interop.leaves import Leaves
from . import optax_types

STATES = ("opt_state", "optimizer_state", "optimizer", "optim", "opt")  # what a state is called that has no moments to know it by
MODELS = ("params", "model", "module")  # likewise a model
STATISTICS = "batch_stats"  # beside a model of Linen: what torch keeps as buffers of the same modules
STEP = "step"  # beside the state in a TrainState and in nnx.Optimizer

Path = tuple[Any, ...]


class Run(NamedTuple):
    """What a tree holds.

    Attributes:
        params: the model, nested as it was saved; None where the tree is an optimizer's state alone.
        state: the optimizer's.
        step: the number that stands beside the state, or None.
        others: what else there is, which is left behind.
    """

    params: Any
    state: Any
    step: int | None
    others: tuple[str, ...]


def find(tree: Any, name: str, *, model_key: str | None = None, optimizer_key: str | None = None) -> Run:
    """The model and the state of the optimizer `name` in a restored tree.

    Args:
        model_key, optimizer_key: where they are, as dotted paths; needed where there are several candidates.

    Raises: ValueError where either is missing or could be more than one part, naming the candidates.
    """
    states = list(_states(tree, ()))
    state_path = _chosen("--optimizer-key", "the optimizer's state", tree, optimizer_key, states)
    state = _unboxed(_get(tree, state_path))
    shapes = {path: np.shape(leaf) for moments in optax_types.moments(state, name) for path, leaf in Leaves(moments).by_path.items()}
    model_path = _model(tree, model_key, [state_path, *states], shapes)
    beside, step_path = None if model_path is None else (*model_path[:-1], STATISTICS), (*state_path[:-1], STEP)
    others = map(_dotted, _others(tree, (), [path for path in (state_path, model_path, beside, step_path) if path is not None]))
    params = None if model_path is None else _merged(_unboxed(_get(tree, model_path)), _unboxed(_there(tree, beside) or {}))
    return Run(params, state, _step(tree, step_path), (*others, *_hyperparameters(state)))


def _model(tree: Any, key: str | None, states: list[Path], shapes: Mapping[str, tuple[int, ...]]) -> Path | None:
    """Where the parameters are that have these paths and shapes; `states` are elsewhere, and the first is theirs."""
    state = states[0]
    candidates = list(_fitting(tree, (), states, shapes) if shapes else _named(tree, (), MODELS, states))
    if key is not None:
        path = _chosen("--model-key", "the model", tree, key, ())
        if shapes and path not in candidates:
            missing = [each for each in shapes if shapes[each] != _shapes(_get(tree, path)).get(each)]
            raise ValueError(f"--model-key {key}: the optimizer has moments of {some(missing)}, which is not there with this shape.")
        return path
    if not candidates and not list(_others(tree, (), [state, (*state[:-1], STEP)])):
        return None
    if not candidates:
        raise ValueError(f"no part of it holds what the optimizer's moments in {_dotted(state) or 'it'} belong to: {some(list(shapes))}.")
    return _chosen("--model-key", "the model", tree, None, candidates)


def _chosen(option: str, what: str, tree: Any, key: str | None, candidates: Any) -> Path:
    """The path that was given, or the only candidate."""
    if key is not None:
        path = _resolved(tree, key)
        if path is None:
            raise ValueError(f"{option} {key}: there is no such part; it has {some(_keys(tree))}.")
        return path
    candidates = list(candidates)
    if not candidates:
        raise ValueError(f"{what} is not found in it; {option} is needed. It has {some(_keys(tree))}.")
    if len(candidates) > 1:
        raise ValueError(f"{what} could be {' or '.join(map(_dotted, candidates))}; {option} is needed.")
    return candidates[0]


def _states(node: Any, path: Path) -> Iterator[Path]:
    """The topmost nodes that are the state of an optimizer, by its fields or else by its name."""
    if _is_state(node, alone=True) and any(True for _ in optax_types.moments(node)):
        yield path
        return
    inner = [found for key, child in _children(node) for found in _states(child, (*path, key))]
    if not inner and path and path[-1] in STATES and not isinstance(node, np.ndarray):
        inner = [path]
    yield from inner


def _is_state(node: Any, *, alone: bool) -> bool:
    """Whether a node has the fields of a state, or is a chain of such. A part that stands alone has a count: else it may be a model's."""
    kind = optax_types.kind_of(node)
    if kind:
        return not alone or kind in optax_types.WRAPPERS or any(count in node for count in optax_types.COUNTS)
    if isinstance(node, Mapping) and alone and not optax_types.is_tuple(node):
        return False
    children = [child for _, child in _children(node)]
    full = [child for child in children if child is not None and not (isinstance(child, Mapping | list | tuple) and not child)]
    return bool(full) and all(_is_state(child, alone=False) for child in full)


def _fitting(node: Any, path: Path, states: list[Path], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Path]:
    """The nodes beside the states whose leaves have these paths and shapes, and maybe more."""
    if path in states:
        return
    around = any(state[: len(path)] == path for state in states)
    if not around and shapes.items() <= _shapes(node).items():
        yield path
        return
    for key, child in _children(node):
        yield from _fitting(child, (*path, key), states, shapes)


def _named(node: Any, path: Path, names: tuple[str, ...], states: list[Path]) -> Iterator[Path]:
    """The topmost nodes of these names beside the states."""
    if path in states:
        return
    if path and path[-1] in names and not any(state[: len(path)] == path for state in states):
        yield path
        return
    for key, child in _children(node):
        yield from _named(child, (*path, key), names, states)


def _others(node: Any, path: Path, taken: list[Path]) -> Iterator[Path]:
    """The topmost nodes that hold something, and nothing of what is taken."""
    if path in taken:
        return
    if not any(each[: len(path)] == path for each in taken):
        if Leaves(node).paths:
            yield path
        return
    for key, child in _children(node):
        yield from _others(child, (*path, key), taken)


def _children(node: Any) -> list[tuple[Any, Any]]:
    if isinstance(node, Mapping):
        return list(node.items())
    return list(enumerate(node)) if isinstance(node, list | tuple) else []


def _get(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _resolved(node: Any, key: str) -> Path | None:
    """The path that a dotted key means; the names in it may have dots themselves."""
    if key == "":
        return ()
    for name, child in _children(node):
        head, rest = str(name), key.removeprefix(str(name))
        if key.startswith(head) and rest[:1] in ("", "."):
            found = _resolved(child, rest[1:])
            if found is not None:
                return (name, *found)
    return None


def _hyperparameters(state: Any) -> Iterator[str]:
    """What inject_hyperparams keeps, which torch has in its groups."""
    for _, fields in optax_types.nodes(state):
        numbers = Leaves(fields.get("hyperparams")).by_path.items()
        if numbers:
            yield f"hyper-parameters ({', '.join(f'{name} {number}' for name, number in numbers)})"


def _there(tree: Any, path: Path | None) -> Any:
    """What is at a path, or None."""
    try:
        return None if path is None else _get(tree, path)
    except (LookupError, TypeError):
        return None


def _step(tree: Any, path: Path) -> int | None:
    step = np.asarray(_opened(_there(tree, path)))
    return int(step) if step.shape == () and step.dtype.kind in "iu" else None


def _merged(params: Any, statistics: Any) -> Any:
    """Two trees of dicts in one."""
    if not isinstance(params, Mapping) or not isinstance(statistics, Mapping):
        return params
    both = {**params, **{key: value for key, value in statistics.items() if key not in params}}
    return {key: _merged(value, statistics[key]) if key in params and key in statistics else value for key, value in both.items()}


def _unboxed(node: Any) -> Any:
    """Without the {"value": leaf} that Flax makes of a variable: `nnx.state`, and partitioned parameters of Linen."""
    if isinstance(node, Mapping):
        return {key: _unboxed(_opened(child)) for key, child in node.items()}
    return [_unboxed(_opened(child)) for child in node] if isinstance(node, list | tuple) else node


def _opened(node: Any) -> Any:
    boxed = isinstance(node, Mapping) and list(node) == ["value"] and isinstance(node["value"], np.ndarray)
    return node["value"] if boxed else node


def _shapes(node: Any) -> dict[str, tuple[int, ...]]:
    return {path: np.shape(leaf) for path, leaf in Leaves(_unboxed(node)).by_path.items()}


def _keys(tree: Any) -> list[str]:
    return [str(key) for key, _ in _children(tree)]


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


def is_floating(leaf: Any) -> bool:
    """Whether a leaf may be a parameter; the state of a generator, and counts, are whole numbers."""
    return isinstance(leaf, np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.floating)


def some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "nothing"
