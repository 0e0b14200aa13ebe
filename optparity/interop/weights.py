"""Parameters by name from torch, and back: what the moments belong to goes the same way as they do."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._arrays import check_alike, is_tensor, to_numpy, to_torch
from .leaves import Leaves
from .matching import Layouts, Matching, Names
from .parameters import of_weights
from .sources import gathered, scattered, source


def weights_from_torch(
    weights: Any, params: Any, *, matching: Matching | None = None, names: Names | None = None, layouts: Layouts | None = None
) -> Any:
    """A tree like `params` with the values of torch's parameters.

    Args:
        weights: the torch model, or its parameters by name: `dict(model.named_parameters())`.
        params: a tree of the shapes and dtypes that the result has.
        matching: of these two, made once for the optimizer as well; in the place of `names` and `layouts`.
        names, layouts: as in `Matching`.
    Raises: ValueError or TypeError where a leaf has no parameter, or one of another shape or dtype, and the other way round.
    Example:
        >>> import torch
        >>> linear = torch.nn.Linear(3, 2, bias=False)
        >>> weights_from_torch(linear, {"kernel": jnp.zeros((3, 2))})["kernel"].shape
        (3, 2)
    """
    known = of_weights(weights)
    tensors = {parameter.name: parameter.tensor for parameter in known}
    for parameter in known:
        if not is_tensor(parameter.tensor):
            raise TypeError(f"weights: {parameter.name} is a tensor; got {type(parameter.tensor).__name__}.")
    matching = used(matching, Leaves(params), names=names, layouts=layouts) or Matching(params, weights, names=names, layouts=layouts)
    arrays = {}
    for path, pair in matching.pairs.items():
        origin, leaf = pair.source.renamed(lambda place: matching.parameters[place].name), matching.leaves.by_path[path]
        for part in origin.parts:
            if part.name not in tensors:
                raise ValueError(f"weights: there is no {part.name}, which leaf {path} is made of.")
        try:
            array = gathered(origin, pair.layout, lambda name: to_numpy(tensors[name]))
        except (TypeError, ValueError) as error:
            raise type(error)(f"weights: {origin} as leaf {path}: {error}.") from None
        except RuntimeError as error:  # torch's, of a tensor that is on no device, or a view of other numbers
            raise ValueError(f"weights: {origin} as leaf {path}: {' '.join(str(error).split())}") from None
        check_alike(f"weights: {origin}", array, pair.shape, jnp.result_type(leaf), f"leaf {path}")
        arrays[path] = placed(array, leaf)
    return jax.tree.structure(params).unflatten([arrays[path] for path in matching.leaves.paths])


def weights_to_torch(
    params: Any,
    *,
    matching: Matching | None = None,
    names: Callable[[str], Any] | Mapping[str, Any] | None = None,
    layouts: Layouts | None = None,
) -> dict:
    """The tensors for torch's `model.load_state_dict`, by name, in memory of their own: the inverse of `weights_from_torch`.

    Args:
        matching: of the way there, in the place of `names` and `layouts`.
        names: path of a leaf -> name in torch, a `Part` or `Stacked`; the path by default.
        layouts: as in `from_torch`; without, each leaf is as it is.
    Raises: ValueError where a leaf has no name, or another leaf's, or a layout does not fit.
    """
    leaves = Leaves(params)
    matching = used(matching, leaves, names=names, layouts=layouts)
    if matching is not None:
        titles = [parameter.name for parameter in matching.parameters]
        origins = {path: pair.source.renamed(titles.__getitem__) for path, pair in matching.pairs.items()}
        layout_of = {path: pair.layout for path, pair in matching.pairs.items()}
    else:
        given = leaves.given(names or (lambda path: path), "names")
        origins, layout_of = {path: source(name) for path, name in given.items()}, leaves.given(layouts, "layouts")
    _check_named(leaves, origins)
    try:
        arrays = scattered((origins[path], layout_of.get(path), np.asarray(leaf)) for path, leaf in leaves.by_path.items())
    except ValueError as error:
        raise ValueError(f"weights: {error}, on the way back.") from None
    return {name: to_torch(np.array(array, order="C")) for name, array in arrays.items()}


def _check_named(leaves: Leaves, origins: Mapping[str, Any]) -> None:
    """Raise where a leaf has no name, or two have one."""
    holder: dict[Any, str] = {}
    for path in leaves.paths:
        if path not in origins:
            raise ValueError(f"names: leaf {path} is not among them; each leaf is one parameter.")
        for part in origins[path].parts:
            if part.name in holder and part.whole:
                raise ValueError(f"names: leaves {holder[part.name]} and {path} are both {part.name!r}.")
            holder[part.name] = path


def used(matching: Matching | None, leaves: Leaves, **instead: Any) -> Matching | None:
    """A matching that was given, of these leaves.

    Raises: ValueError where it is of other leaves, or is given beside what it takes the place of.
    """
    if matching is None:
        return None
    if not isinstance(matching, Matching):
        raise TypeError(f"matching: a Matching is needed; got {type(matching).__name__}.")
    for name, value in instead.items():
        if value is not None:
            raise ValueError(f"matching: it was made with its own {name}; give {name} there.")
    here, there = ({path: jnp.shape(leaf) for path, leaf in each.by_path.items()} for each in (leaves, matching.leaves))
    if here != there:
        path = next(path for path in (*here, *there) if here.get(path) != there.get(path))
        raise ValueError(f"matching: it is of other leaves: {path} has shape {there.get(path)} there and {here.get(path)} here.")
    return matching


def placed(array: np.ndarray, leaf: Any) -> jax.Array:
    """A copy where the leaf is."""
    copy = np.array(array)  # NumPy's, as JAX compiles a copy of its own for each shape
    return jax.device_put(copy, leaf.sharding if isinstance(leaf, jax.Array) and leaf.committed else None)
