"""Plain data as JSON and arrays, and back: what a torch checkpoint holds beside the tensors of a model and the moments of its optimizer.

JSON has fewer kinds than Python: what it does not know is a dict of one item, the name of the kind: {"tuple": [1, 2]}. A tensor is
{"array": NAME}, under which it is in the file, and a number of NumPy's {"number": ["float64", 0.5]}.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays import is_tensor, to_numpy, to_torch

KEYS = (str, int, float, bool, type(None))  # of dicts
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
PARTS = ("model", "optimizer")


@dataclass(frozen=True)
class Slot:
    """Where the model or the optimizer was in a file.

    Attributes:
        part: "model" or "optimizer".
        flat: how an optimizer's `state_dict` is written: "" as torch has it, "all" with keys as state.NAME.exp_avg and
            param_groups.NAME.lr, "state" with the former alone.
    """

    part: str
    flat: str = ""


def encoded(value: Any, path: str, arrays: dict[str, np.ndarray], *, unique: bool = False) -> Any:
    """Data as JSON, with its tensors put into `arrays`.

    Args:
        path: under which a tensor goes; items of collections have theirs after a dot.
        unique: whether a path that is taken becomes another one.

    Raises: ValueError for a path that is taken, TypeError for what is no plain data.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Slot):
        return {"slot": [value.part, value.flat]}
    if isinstance(value, np.generic):
        return {"number": [value.dtype.name, value.item()]}
    if is_tensor(value):
        return _encoded_tensor(to_numpy(value), path, arrays, unique)

    def item(one: Any, name: Any) -> Any:
        return encoded(one, f"{path}.{name}" if path else str(name), arrays, unique=unique)

    if isinstance(value, dict):
        return {_kind(value): [[_plain(key), item(one, key)] for key, one in value.items()]}
    return {_kind(value): [item(one, i) for i, one in enumerate(value)]}


def _plain(key: Any) -> Any:
    if not isinstance(key, KEYS):
        raise TypeError(f"a key that is {key!r} is no plain data.")
    return key


def _encoded_tensor(array: np.ndarray, path: str, arrays: dict[str, np.ndarray], unique: bool) -> dict[str, Any]:
    if not array.size:  # Orbax holds no arrays without elements
        return {"empty": [array.dtype.name, list(array.shape)]}
    if unique:
        path = next(name for name in _variants(path or "_") if name not in arrays)
    elif path in arrays:
        raise ValueError(f"two hyper-parameters are options.{path}.")
    arrays[path] = array
    return {"array": path}


def _variants(path: str) -> Iterator[str]:
    """Names for a path; the second item of two with one path has a number after it."""
    yield path
    for i in range(2, 1_000_000):
        yield f"{path}~{i}"


KINDS: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "dict": dict, "OrderedDict": OrderedDict}


def _kind(value: Any) -> str:
    name = type(value).__name__
    if type(value) is not KINDS.get(name):
        raise TypeError(f"{name} is no plain data.")
    return name


def decoded(value: Any, arrays: dict[str, np.ndarray], *, places: bool = False) -> Any:
    """The inverse of `encoded`, which takes what it needs out of `arrays`.

    Args:
        places: whether there may be a `Slot` in it.

    Raises: ValueError, LookupError or TypeError for what `encoded` does not make.
    """
    if isinstance(value, list):
        raise ValueError("a list that is not under the name of its kind")
    if not isinstance(value, dict):
        return value
    ((kind, items),) = value.items()
    if kind == "array":
        return to_torch(arrays.pop(items), copy=True)
    if kind == "empty":
        return _decoded_empty(*items)
    if kind == "number":
        return _decoded_number(*items)
    if kind == "slot" and places:
        return _decoded_slot(*items)
    if kind in ("dict", "OrderedDict"):
        return KINDS[kind]((key, decoded(item, arrays, places=places)) for key, item in items)
    return KINDS[kind]([decoded(item, arrays, places=places) for item in items])


def _decoded_empty(dtype: str, shape: list[int]) -> Any:
    if dtype not in DTYPES or 0 not in shape:
        raise ValueError(f"an array without elements of {dtype} and shape {shape}")
    return to_torch(np.zeros(shape, dtype))


def _decoded_number(dtype: str, number: Any) -> Any:
    """One of NumPy's."""
    found = np.asarray(number, dtype) if dtype in DTYPES else np.asarray(None)
    same = found.shape == () and (found.item() == number or number != number)
    if not same:
        raise ValueError(f"a number of {dtype} that is {number!r}")
    return found[()]


def _decoded_slot(part: str, flat: str) -> Slot:
    if part not in PARTS or flat not in ("", "all", "state"):
        raise ValueError(f"a place of {part!r} that is {flat!r}")
    return Slot(part, flat)


def slots(value: Any) -> list[str]:
    """The parts whose places are in data."""
    if isinstance(value, Slot):
        return [value.part]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [part for item in items for part in slots(item)]


def filled(value: Any, parts: Mapping[str, Callable[[Slot], Any]]) -> Any:
    """Data with each place taken by its part."""
    if isinstance(value, Slot):
        return parts[value.part](value)
    if isinstance(value, dict):
        return type(value)((key, filled(item, parts)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value)([filled(item, parts) for item in value])
    return value


def carried(value: Any, path: str, left: list[str]) -> Any:
    """Data without what `encoded` does not know. Its place in a list is None; `left` is told each path, and what was there."""
    if isinstance(value, dict) and _known(value):
        pairs = [(key, item, f"{path}.{key}" if path else str(key)) for key, item in value.items()]
        return type(value)((key, carried(item, where, left)) for key, item, where in pairs if _holds(item, key, where, left))
    if isinstance(value, list | tuple):
        kept = [(item, f"{path}.{i}") for i, item in enumerate(value)]
        return type(value)([carried(item, where, left) if _holds(item, "", where, left) else None for item, where in kept])
    return value


def _known(value: Any) -> bool:
    return type(value) is KINDS.get(type(value).__name__)


def _holds(value: Any, key: Any, path: str, left: list[str]) -> bool:
    """Whether a value, under this key of a dict, is plain data; the items of a collection are another question."""
    what = type(value).__name__
    if is_tensor(value):
        found = _unheld(value)
        what = f"a tensor of {found}"
        known = found is None
    else:
        known = value is None or type(value) in (bool, int, float, str, Slot) or _known(value)
    if not known or not isinstance(key, KEYS):
        left.append(f"{path} ({what})")
        return False
    return True


def _unheld(tensor: Any) -> str | None:
    """What makes that a tensor is not carried, in a word."""
    layout, dtype = (str(getattr(tensor, name, "strided")).removeprefix("torch.") for name in ("layout", "dtype"))
    if layout != "strided":
        return layout
    if getattr(tensor, "is_meta", False):
        return "device meta, without memory"
    return None if dtype in DTYPES else dtype


def check_versions(versions: Any) -> None:
    """Raise for versions of a model's modules that are none: {"": {"version": 1}, ...}.

    Raises: ValueError.
    """
    plain = isinstance(versions, dict | None) and all(
        isinstance(module, str) and isinstance(own, dict) and all(isinstance(item, KEYS) for pair in own.items() for item in pair)
        for module, own in (versions or {}).items()
    )
    if not plain:
        raise ValueError("the versions of the model's modules are none")


def check_tensor(who: str, tensor: Any) -> None:
    """Raise for a tensor that is not carried.

    Raises: TypeError, naming its dtype or layout.
    """
    found = _unheld(tensor)
    if found is not None:
        raise TypeError(f"{who} is a tensor of {found}; dense tensors are carried, of {', '.join(DTYPES)}.")
