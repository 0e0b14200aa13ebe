"""What of a tensor this process holds: of a DTensor its shard. A rule is elementwise, so that on a shard it is the rule."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def is_spread(x: Tensor) -> bool:
    """Whether it is a DTensor."""
    return hasattr(x, "to_local")


def local(x: Tensor) -> Tensor:
    """The shard of a DTensor that lies here, sharing its memory where gradients are off; any other tensor as it is."""
    return getattr(x, "to_local", lambda: x)()


def spread_as(like: Any, shard: Tensor) -> Tensor:
    """A tensor of the shards that each process has, spread as another one; the shard itself where that one is whole."""
    if not is_spread(like):
        return shard
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(shard, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride())


def check_placed(name: str, path: str, what: str, x: Tensor, p: Tensor) -> None:
    """Raise where a parameter's gradient or state is spread otherwise than the parameter, or is a sum still to be made."""
    if _placed(x) != _placed(p) or _is_partial(p):
        raise ValueError(
            f"{name}: leaf {path} is {_words(p)} but its {what} is {_words(x)}; the same placements, none partial, are needed."
        )


def owned(name: str, tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Any]]:
    """What lies here of each tensor, so that each element lies in one process, and the groups over which sums are to be made.

    Beside DTensors a whole tensor counts as the same in every process.
    """
    meshes = _meshes(tensors)
    if not meshes:
        return list(tensors), []
    if len(meshes) > 1 or any(map(_is_partial, tensors)):
        kinds = ", ".join(dict.fromkeys(map(_words, tensors)))
        raise ValueError(f"{name}: the tensors are {kinds}, on {len(meshes)} meshes; one mesh and nothing partial is needed.")
    (mesh,) = meshes
    at = mesh.get_coordinate()
    parts = [(local(x).reshape(-1), _is_first(x, at)) for x in tensors]
    return [part if first else part[:0] for part, first in parts], mesh.get_all_groups()


def everywhere(here: bool, tensors: Iterable[Tensor]) -> bool:
    """Whether something holds in every process over which a tensor is spread."""
    for mesh in _meshes(tensors):
        for group in mesh.get_all_groups():
            flag = torch.tensor(int(here), device=mesh.device_type)
            dist.all_reduce(flag, dist.ReduceOp.MIN, group)
            here = bool(flag)
    return here


def places(x: Any) -> Tensor:
    """For each element that lies here its number in the whole array, the last axis counted first, as a word of 32 bits."""
    if not is_spread(x):
        return torch.arange(x.numel(), device=x.device).to(torch.int32).view(x.shape)
    from torch.distributed.tensor import distribute_tensor

    numbers, stride = torch.zeros((), dtype=torch.int32, device=x.device), 1
    for axis in reversed(range(x.ndim)):
        index = torch.arange(x.shape[axis], device=x.device).to(torch.int32).view(-1, *[1] * (x.ndim - axis - 1)).expand(x.shape)
        numbers = numbers + local(distribute_tensor(index, x.device_mesh, x.placements, src_data_rank=None)) * stride
        stride *= x.shape[axis]
    return numbers.expand(local(x).shape)


def _meshes(tensors: Iterable[Any]) -> dict[Any, None]:
    """The meshes over which tensors are spread, each once."""
    return dict.fromkeys(x.device_mesh for x in tensors if is_spread(x))


def _placed(x: Any) -> tuple:
    """Over which devices a DTensor is spread, and how along each axis of them; () for any other tensor."""
    return (x.device_mesh, *x.placements) if is_spread(x) else ()


def _is_partial(x: Tensor) -> bool:
    return any(placement.is_partial() for placement in _placed(x)[1:])


def _is_first(x: Tensor, at: Sequence[int]) -> bool:
    """Whether this process is the first of those that have the same part of a tensor."""
    copies = [placement.is_replicate() for placement in _placed(x)[1:]] if is_spread(x) else [True] * len(at)
    return not any(copied and coordinate for copied, coordinate in zip(copies, at, strict=True))


def _words(x: Tensor) -> str:
    return f"spread as {', '.join(map(str, _placed(x)[1:]))}" if is_spread(x) else "whole"
