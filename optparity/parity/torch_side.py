"""A torch.optim.Optimizer, driven by gradients from outside."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from .._arrays import to_numpy, to_torch


class TorchSide:
    """An optimizer over parameters that start as copies of `leaves`.

    `make` is a callable from a list of `torch.nn.Parameter` to a `torch.optim.Optimizer`.
    """

    def __init__(self, make: Callable[[list], torch.optim.Optimizer], leaves: Sequence[np.ndarray]):
        self._parameters = [torch.nn.Parameter(to_torch(x, copy=True)) for x in leaves]
        self.optimizer = make(self._parameters)

    def step(self, gradients: Sequence[np.ndarray | None]) -> None:
        for p, g in zip(self._parameters, gradients, strict=True):
            p.grad = None
            if g is not None:
                gradient = to_torch(g, copy=True)  # the optimizer may write into it
                p.grad_dtype = gradient.dtype  # it may be float32 where the parameter is a half
                p.grad = gradient
        self.optimizer.step()

    def params(self) -> list[np.ndarray]:
        """The parameters now (views, which the next step changes)."""
        return [to_numpy(p) for p in self._parameters]

    def state(self) -> dict[str, list[np.ndarray | None]]:
        """Each state field's value for each parameter, or None where it has none."""
        states = [self.optimizer.state.get(p, {}) for p in self._parameters]
        fields = dict.fromkeys(field for state in states for field, value in state.items() if isinstance(value, torch.Tensor))
        return {field: [None if s.get(field) is None else to_numpy(s[field]) for s in states] for field in fields}
