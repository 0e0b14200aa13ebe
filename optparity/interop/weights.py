"""Parameters by name from torch, and back: what the moments belong to goes the same way as they do."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._arrays import check_alike, to_numpy, to_torch
from .layouts import Layout, apply, inverse
from .leaves import Leaves, Names

Layouts = Mapping[str, Layout] | Callable[[str], Layout]


def weights_from_torch(weights: Mapping[str, Any], params: Any, *, names: Names | None = None, layouts: Layouts | None = None) -> Any:
    """A tree like `params` with the values of torch's parameters.

    Args:
        weights: by name, in torch's order: `dict(model.named_parameters())`.
        params: a tree of the shapes and dtypes that the result has.
        names, layouts: as in `from_torch`, which needs `parameters=list(weights)` to match by the same names, unless its groups hold them.
    Raises: ValueError or TypeError where a leaf has no parameter, or one of another shape or dtype, and the other way round.
    Example:
        >>> import torch
        >>> linear = torch.nn.Linear(3, 2, bias=False)
        >>> params = {"kernel": jnp.zeros((3, 2))}
        >>> weights_from_torch(dict(linear.named_parameters()), params, layouts={"kernel": (1, 0)})["kernel"].shape
        (3, 2)
    """
    leaves, known = Leaves(params), list(weights)
    layout_of, arrays = leaves.given(layouts, "layouts"), {}
    for path, name in zip(leaves.in_torchs_order(known, len(known), names), known, strict=True):
        leaf = leaves.by_path[path]
        try:
            array = apply(layout_of.get(path), to_numpy(weights[name]))
        except (TypeError, ValueError) as error:
            raise type(error)(f"weights: {name} as leaf {path}: {error}.") from None
        check_alike(f"weights: {name}", array, jnp.shape(leaf), jnp.result_type(leaf), f"leaf {path}")
        arrays[path] = placed(array, leaf)
    return jax.tree.structure(params).unflatten([arrays[path] for path in leaves.paths])


def weights_to_torch(params: Any, *, names: Callable[[str], str] | Mapping[str, str] | None = None, layouts: Layouts | None = None) -> dict:
    """The tensors for torch's `model.load_state_dict`, by name, in memory of their own: the inverse of `weights_from_torch`.

    Args:
        names: path of a leaf -> name in torch; the path by default.
        layouts: as in `from_torch`.
    Raises: ValueError where a leaf has no name, or another leaf's, or a layout does not fit.
    """
    leaves = Leaves(params)
    name_of, layout_of, tensors = leaves.given(names or (lambda path: path), "names"), leaves.given(layouts, "layouts"), {}
    for path, leaf in leaves.by_path.items():
        if path not in name_of:
            raise ValueError(f"names: leaf {path} is not among them; each leaf is one parameter.")
        if name_of[path] in tensors:
            first = next(other for other in leaves.paths if name_of[other] == name_of[path])
            raise ValueError(f"names: leaves {first} and {path} are both {name_of[path]!r}.")
        try:
            tensors[name_of[path]] = to_torch(np.array(apply(inverse(layout_of.get(path)), np.asarray(leaf)), order="C"))
        except ValueError as error:
            raise ValueError(f"weights: leaf {path}: {error} (its layout, on the way back).") from None
    return tensors


def placed(array: np.ndarray, leaf: Any) -> jax.Array:
    """A copy where the leaf is."""
    copy = jnp.array(array)
    return jax.device_put(copy, leaf.sharding) if isinstance(leaf, jax.Array) and leaf.committed else copy
