"""Parameters by name, in NumPy: out of a model of either framework, and into one."""

from collections.abc import Mapping

import numpy as np

from .._arrays import check_alike, to_numpy, to_torch


def names(tree) -> dict[str, np.ndarray]:
    """The arrays of a nested mapping by dotted name, as PyTorch has them: {"layers": {0: {"weight": w}}} -> {"layers.0.weight": w}."""
    if not isinstance(tree, Mapping):
        return {"": np.asarray(tree)}
    return {f"{key}.{rest}".rstrip("."): array for key, value in tree.items() for rest, array in names(value).items()}


def nested(weights: Mapping[str, np.ndarray]) -> dict:
    """The inverse of `names`; what looks like a number is an index."""
    tree: dict = {}
    for name, array in weights.items():
        *path, last = (int(key) if key.isdecimal() else key for key in name.split("."))
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[last] = array
    return tree


def from_torch(module) -> dict[str, np.ndarray]:
    """The parameters of a `torch.nn.Module` (the same memory where they are on the CPU)."""
    return {name: to_numpy(p) for name, p in module.named_parameters()}


def from_flax(module) -> dict[str, np.ndarray]:
    """The parameters of an `nnx.Module`."""
    from flax import nnx

    return names(nnx.to_pure_dict(nnx.state(module, nnx.Param)))


def into_torch(module, weights: Mapping[str, np.ndarray]) -> None:
    """Copy the named arrays into a `torch.nn.Module`'s parameters.

    Raises: ValueError where names, shapes or dtypes are not the module's, before anything is changed.
    """
    import torch

    _fits(from_torch(module), weights)
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(to_torch(np.asarray(weights[name])))


def into_flax(module, weights: Mapping[str, np.ndarray]) -> None:
    """Copy the named arrays into an `nnx.Module`'s parameters.

    Raises: ValueError where names, shapes or dtypes are not the module's, before anything is changed.
    """
    import jax
    from flax import nnx

    _fits(from_flax(module), weights)
    state = nnx.state(module, nnx.Param)
    nnx.replace_by_pure_dict(state, jax.tree.map(jax.numpy.array, nested(weights)))
    nnx.update(module, state)


def _fits(there: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]) -> None:
    for name in there.keys() ^ weights.keys():
        where = "the model" if name in there else "the weights"
        raise ValueError(f"weights: {name} is only in {where}; both must have the same names.")
    for name, array in there.items():
        check_alike(f"weights: {name}", np.asarray(weights[name]), array.shape, array.dtype, "the model's")
