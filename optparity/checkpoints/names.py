"""The names of an optimizer's parameters, in files whose groups may have none: told by the file, proved by shapes, or given.

A model's `state_dict` has buffers too, names that are sorted where it came from safetensors, and parameters that were never trained. So its
order proves nothing. A parameter is a tensor of the model if that is the only one of the shape of its moments, and no other parameter
has this shape.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..interop import naming
from ..interop.groups import Group, shape_of_moments

WRAPPERS = ("module", *naming.WRAPPERS)  # what DDP, compile and FSDP put into names
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # of torch's own modules
IN_ORDER = Path("model")  # --names model
SHOWN = 5

Shape = tuple[int, ...] | None


class Names(NamedTuple):
    """What was found.

    Attributes:
        of: of each group's parameters.
        by: what told them: "param_names", "shape", "--names" or, where nothing did, "index": they are only the indices in torch.
        notes: what somebody should know of them.
    """

    of: list[tuple[str, ...]]
    by: str
    notes: tuple[str, ...] = ()

    @property
    def by_index(self) -> bool:
        return self.by == "index"


class Tensors:
    """The tensors of a model that an optimizer may train.

    Attributes:
        shapes: of each of floating point, by name; those that share their memory under the first of their names.
        tied: the other names -> the first.
    """

    def __init__(self, model: Mapping[str, np.ndarray]):
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.tied: dict[str, str] = {}
        first: dict[tuple, str] = {}
        for name, array in model.items():
            if not jnp.issubdtype(array.dtype, jnp.floating):
                continue
            place = (array.ctypes.data, array.shape, array.strides, array.dtype.name) if array.size else (name,)
            if place in first:
                self.tied[name] = first[place]
            else:
                first[place] = name
                self.shapes[name] = array.shape

    def notes(self) -> tuple[str, ...]:
        tied = [f"{name} is {first}" for name, first in self.tied.items()]
        return (f"Tied tensors of the model have their moments under the first name: {', '.join(tied[:SHOWN])}.",) if tied else ()


def named(
    groups: Sequence[Group], state: Mapping[Any, Any], model: Mapping[str, np.ndarray] | None, given: Path | None, *, ordered: bool = True
) -> Names:
    """The names of the parameters of an optimizer.

    Args:
        groups, state: the optimizer's.
        model: the model's tensors, where they are there.
        given: what `--names` says.
        ordered: whether the model's `state_dict` is in the order of its modules.

    Raises: ValueError where the given names are not those of these parameters.
    """
    indices = [index for group in groups for index in group.indices]
    told = _told(groups)
    if given is not None:
        if told is not None:
            raise ValueError("--names: the file tells the names of the optimizer's parameters itself.")
        return _given(groups, state, model, given, ordered)
    if told is not None:
        return _of_the_model(groups, told, model)
    if model is not None and len(model) < len(indices):
        raise ValueError(f"the model has {len(model)} tensors, the optimizer {len(indices)} parameters.")
    proved = None if model is None else _proved([shape_of_moments(state.get(index)) for index in indices], Tensors(model))
    return proved_or_indices(groups, proved, model)


def proved_or_indices(groups: Sequence[Group], proved: list[str] | None, model: Mapping[str, np.ndarray] | None) -> Names:
    """The names that shapes have proved, or else the indices."""
    if proved is None:
        return Names([tuple(map(str, group.indices)) for group in groups], "index")
    return Names(_split(groups, proved), "shape", Tensors(model or {}).notes())


def _told(groups: Sequence[Group]) -> list[str] | None:
    """The names that the file has: `param_names`, or names in the place of indices. Of several models they may be there twice."""
    names: list[Any] = []
    for group in groups:
        names += group.options.get("param_names") or (group.indices if all(isinstance(i, str) for i in group.indices) else [None])
    return names if None not in names and len(set(names)) == len(names) else None


def _of_the_model(groups: Sequence[Group], told: list[str], model: Mapping[str, np.ndarray] | None) -> Names:
    """The told names as the model spells them; as they are where it has not all of them."""
    found = None if model is None else spelled_as(told, list(model))
    if found is not None:
        return Names(_split(groups, found), "param_names")
    absent = [] if model is None else [name for name in told if name not in model]
    note = f"The model has no tensor for {len(absent)} parameters of the optimizer: {', '.join(absent[:SHOWN])}."
    return Names(_split(groups, told), "param_names", (note,) if absent else ())


def spelled_as(names: Sequence[str], others: Sequence[str]) -> list[str] | None:
    """Each name as it is among others: the same, or without what wrappers put into it, or after a prefix that all have.

    None where not all are there, or where two prefixes would do.
    """
    prefixes = [_prefixed(prefix) for prefix in _prefixes(names[:1], others)]
    prefixes += [_stripped(prefix) for prefix in _prefixes(others, names[:1])]
    for translations in ([_same], [_unwrapped(others)], prefixes):
        found = [_all_among([translate(name) for name in names], set(others)) for translate in translations]
        known = [own for own in found if own is not None]
        if known:
            return known[0] if len(known) == 1 else None
    return None


def _all_among(names: Sequence[str | None], others: Collection[str]) -> list[str] | None:
    """The names, if each is among others, once."""
    known = [name for name in names if name is not None and name in others]
    return known if len(known) == len(names) == len(set(known)) else None


def _same(name: str) -> str:
    return name


def _unwrapped(others: Sequence[str]) -> Callable[[str], str | None]:
    def bare(name: str) -> str:
        return ".".join(part for part in name.split(".") if part not in WRAPPERS)

    count = Counter(map(bare, others))
    spelled = {bare(name): name for name in others if count[bare(name)] == 1}
    return lambda name: spelled.get(bare(name))


def _prefixes(short: Sequence[str], long: Sequence[str]) -> list[str]:
    """What stands before the short names in the long ones."""
    return list(dict.fromkeys(name[: -len(end)] for end in short for name in long if name.endswith(f".{end}")))


def _prefixed(prefix: str) -> Callable[[str], str]:
    return lambda name: prefix + name


def _stripped(prefix: str) -> Callable[[str], str | None]:
    return lambda name: name.removeprefix(prefix) if name.startswith(prefix) else None


def _proved(shapes: Sequence[Shape], tensors: Tensors) -> list[str] | None:
    """The name of each parameter, where shapes prove those of all."""
    by_shape: dict[Shape, list[str]] = {}
    for name, shape in tensors.shapes.items():
        by_shape.setdefault(shape, []).append(name)
    found = [by_shape.get(shape, []) if shape is not None else [] for shape in set(shapes)]
    if len(found) < len(shapes) or any(len(names) != 1 or _is_buffer(names[0]) for names in found):
        return None
    return [by_shape[shape][0] for shape in shapes]


def _is_buffer(name: str) -> bool:
    return name.rpartition(".")[2] in BUFFERS


def _split(groups: Sequence[Group], names: Iterable[str]) -> list[tuple[str, ...]]:
    rest = iter(names)
    return [tuple(next(rest) for _ in group.indices) for group in groups]


def _given(groups: Sequence[Group], state: Mapping[Any, Any], model: Mapping[str, np.ndarray] | None, given: Path, ordered: bool) -> Names:
    shapes = [shape_of_moments(state.get(index)) for group in groups for index in group.indices]
    if given != IN_ORDER:
        names, tensors = _listed(groups, given), Tensors(model or {})
        if model is not None:
            found = spelled_as(names, list(model))
            absent = [name for name in names if name not in model]
            if found is None:
                raise ValueError(f"--names {given}: the model has no tensor {absent[0]!r}.")
            names = [tensors.tied.get(name, name) for name in found]
        for name, shape in zip(names, shapes, strict=True):
            if shape is not None and model is not None and model[name].shape != shape:
                raise ValueError(f"--names {given}: {name} has shape {model[name].shape}, but its moments have {shape}.")
        return Names(_split(groups, names), "--names", tensors.notes())
    if model is None:
        raise ValueError("--names model: the file holds no model; --names FILE.json is needed.")
    tensors = Tensors(model)
    if not ordered or _sorted_as_text(list(model)):
        raise ValueError(
            "--names model: the names in it are sorted, so that the order of its modules is lost; --names FILE.json is needed."
        )
    return Names(_split(groups, _in_order(shapes, tensors)), "--names", tensors.notes())


def _listed(groups: Sequence[Group], path: Path) -> list[str]:
    """The names in a file: a list in the order of the optimizer's parameters, or a list of lists, one for each group."""
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"--names {path}: it cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--names {path}: it is no JSON: {error}.") from None
    sizes = [len(group.indices) for group in groups]
    names = document if isinstance(document, list) else []
    if names and all(isinstance(own, list) for own in names):
        if [len(own) for own in names] != sizes:
            raise ValueError(f"--names {path}: the groups have {sizes} parameters; got lists of {[len(own) for own in names]}.")
        names = [name for own in names for name in own]
    if not all(isinstance(name, str) and name for name in names) or len(names) != sum(sizes):
        raise ValueError(f"--names {path}: a list of {sum(sizes)} names is needed, or a list of such lists, one for each group.")
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"--names {path}: {name!r} is there {count} times; each parameter has a name of its own.")
    return names


def _sorted_as_text(names: list[str]) -> bool:
    """Whether names are sorted as text: 10 comes before 2, or a bias before its weight, as in no model of torch's modules."""
    natural = sorted(names, key=lambda name: [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in name.split(".")])
    place = {name: i for i, name in enumerate(names)}
    before = any(place.get(f"{name.removesuffix('bias')}weight", -1) > i for name, i in place.items() if name.endswith(".bias"))
    return names == sorted(names) and (names != natural or before)


def _in_order(shapes: Sequence[Shape], tensors: Tensors) -> list[str]:
    """The tensors of the model that are the parameters, if they are in its order: buffers are what is left over.

    Raises: ValueError where none or more than one choice of tensors has the shapes.
    """
    names = [name for name in tensors.shapes if not _is_buffer(name)]
    sizes = [tensors.shapes[name] for name in names]
    first, last = _leftmost(shapes, sizes), _leftmost(shapes[::-1], sizes[::-1])
    if first is None or last is None:
        raise ValueError(
            f"--names model: its {len(names)} tensors have not in their order the shapes of the optimizer's {len(shapes)} parameters; "
            "--names FILE.json is needed."
        )
    for i, j in zip(first, [len(names) - 1 - j for j in last[::-1]], strict=True):
        if i != j:
            raise ValueError(
                f"--names model: the shapes do not tell whether {names[i]} or {names[j]} is a buffer; --names FILE.json is needed."
            )
    return [names[i] for i in first]


def _leftmost(shapes: Sequence[Shape], sizes: Sequence[tuple[int, ...]]) -> list[int] | None:
    """The first places of the shapes in the sizes, in their order; a shape that is not known is any."""
    found, place = [], 0
    for shape in shapes:
        while place < len(sizes) and shape is not None and sizes[place] != shape:
            place += 1
        if place == len(sizes):
            return None
        found.append(place)
        place += 1
    return found
