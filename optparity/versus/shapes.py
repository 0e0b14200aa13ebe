"""Parameters from a JSON file of shapes: {"layer": {"kernel": [24, 17], "bias": {"shape": [17], "dtype": "bfloat16"}}}."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ..parity.streams import parameters
from ..registry import DTYPES


class Leaf(NamedTuple):
    """What a file says of one parameter; the dtype is None where it says none."""

    shape: tuple[int, ...]
    dtype: str | None = None


def read(path: Path) -> dict[str, Any]:
    """The tree of leaves in a file.

    Raises: ValueError in one line for what is not JSON, is no tree of shapes, or has no leaf; OSError where it cannot be read.
    """
    try:
        tree = _tree(json.loads(path.read_text(encoding="utf-8")), "")
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}.") from None
    if not isinstance(tree, dict) or not jax.tree.leaves(tree, is_leaf=_is_leaf):
        raise ValueError('it has no parameter; {"NAME": [SHAPE]} is needed.')
    return tree


def _tree(value: Any, path: str) -> Any:
    match value:
        case [*shape] if all(type(n) is int and n >= 0 for n in shape):
            return Leaf(tuple(shape))
        case {"shape": [*shape], "dtype": dtype} if len(value) == 2:
            if dtype not in DTYPES:
                raise ValueError(f"{path} has dtype {dtype!r}; one of {', '.join(DTYPES)} is needed.")
            return Leaf(_tree(shape, path).shape, dtype)
        case dict():
            return {name: _tree(inner, f"{path}.{name}".lstrip(".")) for name, inner in value.items()}
    raise ValueError(f"{path or 'it'} is {json.dumps(value)}; a shape as [24, 17] is needed, or names of such.")


def drawn(tree: dict[str, Any], dtype: str | None, seed: int = 0) -> dict[str, Any]:
    """Normal parameters of these shapes; `dtype` is that of all of them, None leaves it to the file, or else makes it float32."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=_is_leaf)
    values = parameters({str(i): leaf.shape for i, leaf in enumerate(leaves)}, "float32", seed).values()
    return treedef.unflatten(
        [np.asarray(x).astype(jax.numpy.dtype(dtype or leaf.dtype or "float32")) for x, leaf in zip(values, leaves, strict=True)]
    )


def _is_leaf(value: Any) -> bool:
    return isinstance(value, Leaf)
