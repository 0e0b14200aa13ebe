"""A training run's PyTorch side.  Mirror: in_flax.py"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from .._arrays import to_numpy, to_torch
from ..models import in_torch, weights


def cross_entropy(logits, targets):
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())


def mean_squared_error(predictions, targets):
    return F.mse_loss(predictions, targets)


class Trainer:
    """A model, its loss, and an optimizer from `torch_ref`.

    Args:
        model, arguments: the name of a class in `models.in_torch`, and what it is made with.
        loss: the name of a function above.
        optimizer: from the model to what steps its parameters: a `torch.optim.Optimizer`, or a `torch_ref.Recipe`.
        start: the parameters to begin with, by name.
    """

    name = "torch"

    def __init__(self, model: str, arguments: dict, loss: str, optimizer: Callable, start: Mapping[str, np.ndarray]):
        self.model = getattr(in_torch, model)(**arguments)
        weights.into_torch(self.model, start)
        self._loss = {"cross_entropy": cross_entropy, "mean_squared_error": mean_squared_error}[loss]
        self.optimizer = optimizer(self.model)

    def gradients(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        """The loss of a batch, and its gradient by parameter."""
        loss = self._backward(inputs, targets)
        return loss, {name: np.array(to_numpy(p.grad)) for name, p in self.model.named_parameters()}

    def apply(self, gradients: Mapping[str, np.ndarray]) -> None:
        """Step with gradients from elsewhere."""
        for name, p in self.model.named_parameters():
            p.grad = to_torch(gradients[name], copy=True)
        self.optimizer.step()

    def step(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        """Step with the gradient of a batch; its loss before."""
        loss = self._backward(inputs, targets)
        self.optimizer.step()
        return loss

    def _backward(self, inputs, targets) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(self.model(torch.tensor(inputs)), torch.tensor(targets))
        loss.backward()
        return loss.item()

    @torch.no_grad()
    def evaluate(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss, and what the model predicts."""
        predictions = self.model(torch.tensor(inputs))
        return self._loss(predictions, torch.tensor(targets)).item(), to_numpy(predictions)

    def arrays(self) -> dict[str, np.ndarray]:
        """Parameters and optimizer state, by field and parameter (the memory that the next step changes)."""
        found = {f"params.{name}": array for name, array in weights.from_torch(self.model).items()}
        for name, p in self.model.named_parameters():
            for field, value in self.optimizer.state.get(p, {}).items():
                if isinstance(value, torch.Tensor):
                    found[f"{field}.{name}"] = to_numpy(value)
        return {**found, **{field: to_numpy(value) for field, value in getattr(self.optimizer, "numbers", {}).items()}}

    def save(self, folder: Path) -> None:
        """Write torch.pt: {"model", "optimizer"}, both a `state_dict`."""
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, folder / "torch.pt")

    def load(self, folder: Path) -> None:
        saved = torch.load(folder / "torch.pt", weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
