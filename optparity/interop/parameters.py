"""What is known of a parameter in torch: from a model, a mapping of weights, or an optimizer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays import is_tensor, to_numpy


@dataclass(frozen=True)
class Parameter:
    """A parameter in torch.

    Attributes:
        place: in the order of the model, the mapping or the optimizer.
        name: where it is known.
        shape: where it is known.
        tensor: the parameter itself, where it is there.
        module: the classes in torch of the module that holds it, the nearest first; empty where that is not known.
    """

    place: int
    name: str | None = None
    shape: tuple[int, ...] | None = None
    tensor: Any = None
    module: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"params[{self.place}]" if self.name is None else repr(self.name)

    @property
    def whereabouts(self) -> list[tuple]:
        """What only the same tensor has, or one that lies in the same place; nothing where that is not known."""
        where = _memory(self.tensor)
        return [] if self.tensor is None else [(id(self.tensor),), *([] if where is None else [where])]

    @property
    def value(self) -> np.ndarray | None:
        """Its elements, where they are there."""
        return None if self.tensor is None or getattr(self.tensor, "is_meta", False) else to_numpy(self.tensor)


def of_weights(weights: Any) -> list[Parameter]:
    """The parameters of a torch module (its buffers are none), or of a mapping from names to tensors.

    Raises: TypeError for anything else.
    """
    if hasattr(weights, "named_parameters"):
        return list(_of_module(weights))
    if not isinstance(weights, Mapping):
        raise TypeError(f"matching: weights is a torch module or a mapping from names to tensors; got {type(weights).__name__}.")
    for name, tensor in weights.items():
        if not isinstance(name, str) or not (is_tensor(tensor) or hasattr(tensor, "shape")):
            raise TypeError(f"matching: weights is a mapping from names to tensors; got {name!r}: {type(tensor).__name__}.")
    return [Parameter(i, name, tuple(tensor.shape), tensor) for i, (name, tensor) in enumerate(weights.items())]


def _of_module(module: Any) -> Iterator[Parameter]:
    for i, (name, tensor) in enumerate(module.named_parameters()):
        holder = module.get_submodule(name.rpartition(".")[0])
        yield Parameter(i, name, tuple(tensor.shape), tensor, tuple(_classes(holder)))


def _classes(module: Any) -> Iterator[str]:
    """The classes of torch that a module is of, and transformers' Conv1D; another class may only have the name of one."""
    for kind in type(module).__mro__:
        if kind.__module__.partition(".")[0] == "torch" or kind.__name__ == "Conv1D":
            yield kind.__name__


def _memory(tensor: Any) -> tuple | None:
    """Where a tensor of torch lies, and what it is; None for what has no memory."""
    if not hasattr(tensor, "data_ptr") or getattr(tensor, "is_meta", False) or not tensor.numel():
        return None
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), str(tensor.dtype)


def few(names: Sequence[Any]) -> str:
    """Some names or parameters, for a message."""
    shown = [str(name) for name in names]
    return ", ".join(shown if len(shown) <= 12 else [*shown[:10], "...", shown[-1]])
