"""A learning rate from an optax schedule, or from any `count -> value`: the same bits that a transform makes of it."""

from collections.abc import Callable

import numpy as np
import torch


class ScheduleLR(torch.optim.lr_scheduler.LRScheduler):
    """Set the learning rate of every group to `schedule(t)`, rounded once to `dtype`; t counts the calls of `step()` from 0.

    Args:
        optimizer: whose groups are set.
        schedule: `count -> value`, as in optax. A schedule that is more than a product of one number may be contracted where it is
            compiled into the training step: give `jax.jit(schedule)` here, so that both are.
        dtype: float32, as a schedule's value has it in JAX; "float64" with x64.
        last_epoch: the count to go on from, as in torch.optim.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = torch.optim.SGD([p])
        >>> scheduler = ScheduleLR(optimizer, lambda count: 0.5**count)
        >>> optimizer.step(); scheduler.step(); scheduler.get_last_lr()
        [0.5]
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Callable, dtype: str = "float32", last_epoch: int = -1):
        self.schedule, self.dtype = schedule, np.dtype(dtype)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Every group's learning rate now."""
        value = float(self.dtype.type(self.schedule(self.last_epoch)))
        return [value] * len(self.optimizer.param_groups)

    def state_dict(self) -> dict:
        """The count; the schedule is code, and is given again when constructing."""
        return {key: value for key, value in super().state_dict().items() if key not in ("schedule", "dtype")}
