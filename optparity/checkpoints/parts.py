"""Where the model and the optimizer are in what a torch checkpoint holds."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .._arrays import is_tensor
from . import data
from .checkpoint import Given
from .data import Slot
from .flat import GROUPS, is_flat

MODEL_NAMES = ("model", "state_dict", "model_state_dict", "model_state", "module", "net", "network", "pytorch_model")
DEPTH = 4  # of what is looked at
SHOWN = 8  # candidates in a message

Path = tuple[Any, ...]


class Parts(NamedTuple):
    """What was found.

    Attributes:
        optimizer: the optimizer's `state_dict`; with flat keys as its place says.
        model: the model's, or None.
        frame: all that is in the file, with their places in their stead, and without what is not carried.
        notes: what was chosen, kept and left behind.
    """

    optimizer: Any
    model: Mapping[str, Any] | None
    frame: Any
    notes: tuple[str, ...]


def find(saved: Any, given: Given) -> Parts:
    """The parts, by themselves where there is one candidate for each, or by the paths that were given.

    Raises: ValueError, with the candidates, where there is none or more than one.
    """
    optimizers = [path for path, value in _walked(saved) if is_optimizer(value)]
    if given.optimizer_key is None:
        chosen = _only_optimizer(saved, optimizers)
    else:
        chosen = _at(saved, given.optimizer_key, "--optimizer-key", optimizers)
        if not is_optimizer(_get(saved, chosen)):
            raise ValueError(f"--optimizer-key {given.optimizer_key}: no optimizer's state_dict is there; {_among(optimizers)}.")
    model, others = _model(saved, given, alone=len(optimizers) < 2)
    optimizer = _get(saved, chosen)
    frame = _replaced(saved, chosen, Slot("optimizer", _flatness(optimizer)))
    if model is not None:
        frame = _replaced(frame, model, Slot("model"))
    left: list[str] = []
    frame = data.carried(frame, "", left)
    notes = tuple(_notes(frame, model, others, left))
    return Parts(optimizer, None if model is None else _get(saved, model), frame, notes)


def is_optimizer(value: Any) -> bool:
    """Whether it is an optimizer's `state_dict`, with torch's keys or flat ones."""
    return isinstance(value, Mapping) and (GROUPS in value or is_flat(value))


def _is_model(value: Any) -> bool:
    """Whether it has tensors under names."""
    return isinstance(value, Mapping) and any(is_tensor(item) and isinstance(name, str) for name, item in value.items())


def _has_weights(value: Mapping) -> bool:
    """Whether nothing but tensors is in it, and one of them at least is neither a number nor of integers."""
    tensors = [item for item in value.values() if item is not None]
    return all(map(is_tensor, tensors)) and any(len(item.shape) and "float" in str(item.dtype) for item in tensors)


def _walked(saved: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The collections in a file and their paths; nothing in an optimizer's `state_dict`."""
    if isinstance(saved, Mapping):
        items = list(saved.items())
    elif isinstance(saved, list | tuple):
        items = list(enumerate(saved))
    else:
        return
    yield path, saved
    if len(path) < DEPTH and not is_optimizer(saved):
        for key, value in items:
            yield from _walked(value, (*path, key))


def _only_optimizer(saved: Any, optimizers: list[Path]) -> Path:
    if not optimizers:
        keys = ", ".join(map(str, saved)) if isinstance(saved, Mapping) else type(saved).__name__
        raise ValueError(
            f"it holds no state_dict of an optimizer, which has the keys state and param_groups; got {keys[:200] or 'nothing'}."
        )
    if len(optimizers) > 1:
        raise ValueError(f"it holds {len(optimizers)} optimizers; --optimizer-key is needed, {_among(optimizers)}.")
    return optimizers[0]


def _model(saved: Any, given: Given, *, alone: bool) -> tuple[Path | None, list[Path]]:
    """Where the model is, if there is one, and what else looks like one.

    Args:
        alone: whether there is one optimizer. Of several, no name of a model tells which is whose.
    """
    found = [(path, value) for path, value in _walked(saved) if path and not is_optimizer(value) and _is_model(value)]
    named = [path for path, _ in found if path[-1] in MODEL_NAMES]
    named = [path for path in named if len(path) == min(map(len, named))]
    candidates = named or [path for path, value in found if _has_weights(value)]
    others = [path for path, value in found if _has_weights(value)]
    if not alone:
        candidates = list(dict.fromkeys([*candidates, *others]))
    if given.model_key is not None:
        chosen = _at(saved, given.model_key, "--model-key", others)
        if not _is_model(_get(saved, chosen)) or is_optimizer(_get(saved, chosen)):
            raise ValueError(f"--model-key {given.model_key}: no state_dict of a model is there, a dict of tensors; {_among(others)}.")
    elif len(candidates) > 1:
        raise ValueError(f"it holds {len(candidates)} models; --model-key is needed, {_among(candidates)}.")
    elif not candidates:
        return None, []
    else:
        chosen = candidates[0]
    return chosen, [path for path in others if path != chosen]


def _among(paths: list[Path]) -> str:
    if not paths:
        return "there is none in the file"
    return f"one of {', '.join(map(_spelled, paths[:SHOWN]))}{' and so on' if len(paths) > SHOWN else ''}"


def _spelled(path: Path) -> str:
    return ".".join(map(str, path)) or "the file itself"


def _at(saved: Any, spelled: str, option: str, candidates: list[Path]) -> Path:
    """The only path that is spelled so; a key may have dots of its own."""
    found = list(_paths(saved, spelled))
    if len(found) != 1:
        what = "nothing is there" if not found else "two paths are spelled so"
        raise ValueError(f"{option} {spelled}: {what}; {_among(candidates)}.")
    return found[0]


def _paths(value: Any, spelled: str) -> Iterator[Path]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        if str(key) == spelled:
            yield (key,)
        elif spelled.startswith(f"{key}."):
            yield from ((key, *rest) for rest in _paths(item, spelled[len(f"{key}.") :]))


def _get(saved: Any, path: Path) -> Any:
    for key in path:
        saved = saved[key]
    return saved


def _replaced(saved: Any, path: Path, value: Any) -> Any:
    """A copy with a value in the place of what is there; the rest of it is the same."""
    if not path:
        return value
    key, *rest = path
    if isinstance(saved, Mapping):
        return type(saved)((name, _replaced(item, tuple(rest), value) if name == key else item) for name, item in saved.items())  # type: ignore[call-arg]
    return type(saved)([_replaced(item, tuple(rest), value) if i == key else item for i, item in enumerate(saved)])


def _flatness(optimizer: Mapping) -> str:
    if GROUPS in optimizer:
        return ""
    return "all" if any(key.startswith(f"{GROUPS}.") for key in optimizer) else "state"


def _notes(frame: Any, model: Path | None, others: list[Path], left: list[str]) -> Iterator[str]:
    if model is not None and (others or model[-1] not in MODEL_NAMES):
        also = f"; {', '.join(map(_spelled, others[:SHOWN]))} is carried as it is" if others else ""
        yield f"The model is what is at {_spelled(model)}{also}."
    beside = [str(key) for key, item in frame.items() if not data.slots(item)] if isinstance(frame, Mapping) else []
    if beside:
        yield f"Carried beside: {', '.join(beside[:SHOWN])}{' and so on' if len(beside) > SHOWN else ''}."
    if left:
        yield f"Left behind: {', '.join(left[:SHOWN])}{f' and {len(left) - SHOWN} more' if len(left) > SHOWN else ''}."
