"""What stands around a torch optimizer, as the comparison drives it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Driven:
    """`step()` for each gradient, and `state`: of each parameter what the optimizer has, and what is kept beside it.

    Args:
        optimizer: the one in the middle.
        step: what is done with each gradient.
        kept: by name what is kept beside the optimizer's state: a mapping from parameters to tensors, or a number of all parameters.
    """

    def __init__(self, optimizer: "torch.optim.Optimizer", step: Callable[[], Any], kept: Callable[[], Mapping[str, Any]] = dict):
        self.optimizer, self.step, self.kept = optimizer, step, kept

    @property
    def state(self) -> "dict[torch.Tensor, dict[str, Any]]":
        import torch

        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        states = {p: dict(self.optimizer.state.get(p, {})) for p in parameters}
        for name, value in self.kept().items():
            for p, state in states.items():
                state[name] = value.get(p) if isinstance(value, Mapping) else torch.as_tensor(value)
        return states
