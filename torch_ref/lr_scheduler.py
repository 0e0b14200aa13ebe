"""torch.optim.lr_scheduler's classes with learning rates in closed form, rounded once: the bits of `jaxopt_impl.schedules`.

Arguments, attributes and `state_dict` are those of the classes in torch.optim, so that either loads the other's. Each takes `dtype` too:
float32, as a schedule's value has it in JAX, or "float64" for JAX with x64. In torch.optim a learning rate is the last one times a ratio.
Here it is computed from the base learning rate and the count, so that no error adds up; what others do to a group's learning rate in
between is overwritten. `SequentialLR`, which is torch.optim's, of a `LinearLR` and another of these is the schedule `warm_up`.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import SequentialLR

from . import checks
from . import numerics as nx
from .around import schedules
from .around.counted import Schedule

__all__ = [
    "ClosedForm",
    "ConstantLR",
    "CosineAnnealingLR",
    "ExponentialLR",
    "InverseSqrtLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PolynomialLR",
    "ScheduleLR",
    "SequentialLR",
    "StepLR",
]


class ClosedForm(lr_scheduler.LRScheduler):
    """A scheduler that computes each group's learning rate from its base learning rate and the count, and rounds it once."""

    dtype: str = "float32"

    def __init__(self, *args, dtype: str = "float32", **kwargs):
        self.dtype = np.dtype(dtype).name
        super().__init__(*args, **kwargs)

    def schedule(self, base_lr: float) -> Schedule:
        """The schedule of a group with this base learning rate."""
        raise NotImplementedError

    def get_lr(self) -> list[float | torch.Tensor]:
        """Every group's learning rate now."""
        return [self.schedule(nx.static_value(base_lr))(self.last_epoch, self.dtype) for base_lr in self.base_lrs]

    def _get_closed_form_lr(self) -> list[float | torch.Tensor]:
        return self.get_lr()

    def state_dict(self) -> dict:
        """The count and the numbers; the dtype is given again when constructing."""
        return {key: value for key, value in super().state_dict().items() if key != "dtype"}


class ScheduleLR(ClosedForm):
    """Set the learning rate of every group to `schedule(t)`, rounded once to `dtype`; t counts the calls of `step()` from 0.

    (A transform counts the updates in which a leaf has a gradient: where none has one, do not call `step()`.)

    Args:
        optimizer: whose groups are set.
        schedule: one of `torch_ref.schedules`, or any `count -> value`, as in optax. One of optax that is more than a product of one
            number may be contracted where it is compiled into the training step: give `jax.jit(schedule)` here, so that both are.
        dtype: float32, as a schedule's value has it in JAX; "float64" with x64.
        last_epoch: the count to go on from, as in torch.optim.
    Raises: ValueError where the schedule gives NaN.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = torch.optim.SGD([p])
        >>> scheduler = ScheduleLR(optimizer, lambda count: 0.5**count)
        >>> optimizer.step(); scheduler.step(); scheduler.get_last_lr()
        [0.5]
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Callable, dtype: str = "float32", last_epoch: int = -1):
        self._of_count = schedule
        super().__init__(optimizer, last_epoch, dtype=dtype)

    def get_lr(self) -> list[float | torch.Tensor]:
        given = self._of_count
        value = given.rule(float(self.last_epoch)) if isinstance(given, Schedule) else given(self.last_epoch)
        value = float(np.dtype(self.dtype).type(value))
        name = getattr(self.optimizer, "name", type(self.optimizer).__name__)
        checks.schedule(name, "lr", self.last_epoch, value)
        return [value] * len(self.optimizer.param_groups)

    def state_dict(self) -> dict:
        """The count; the schedule is code, and is given again when constructing."""
        return {key: value for key, value in super().state_dict().items() if key != "_of_count"}


class ConstantLR(ClosedForm, lr_scheduler.ConstantLR):
    """`factor` times the base learning rate for `total_iters` steps, then the base learning rate: `schedules.constant`."""

    def schedule(self, base_lr):
        return schedules.constant(base_lr, self.factor, self.total_iters)


class StepLR(ClosedForm, lr_scheduler.StepLR):
    """`gamma` times smaller every `step_size` steps: `schedules.step`."""

    def schedule(self, base_lr):
        return schedules.step(base_lr, self.step_size, self.gamma)


class MultiStepLR(ClosedForm, lr_scheduler.MultiStepLR):
    """`gamma` times smaller at each of the milestones: `schedules.multi_step`."""

    def schedule(self, base_lr):
        return schedules.multi_step(base_lr, list(self.milestones.elements()), self.gamma)


class ExponentialLR(ClosedForm, lr_scheduler.ExponentialLR):
    """`gamma` times smaller at each step: `schedules.exponential`."""

    def schedule(self, base_lr):
        return schedules.exponential(base_lr, self.gamma)


class LinearLR(ClosedForm, lr_scheduler.LinearLR):
    """From `start_factor` to `end_factor` times the base learning rate in `total_iters` steps: `schedules.linear`."""

    def schedule(self, base_lr):
        return schedules.linear(base_lr * self.start_factor, base_lr * self.end_factor, self.total_iters)


class PolynomialLR(ClosedForm, lr_scheduler.PolynomialLR):
    """To 0 in `total_iters` steps, as a power of what is left: `schedules.polynomial`."""

    def schedule(self, base_lr):
        return schedules.polynomial(base_lr, self.total_iters, self.power)


class CosineAnnealingLR(ClosedForm, lr_scheduler.CosineAnnealingLR):
    """To `eta_min` in `T_max` steps along a cosine, and up again: `schedules.cosine(..., after="rise")`."""

    def schedule(self, base_lr):
        return schedules.cosine(base_lr, self.T_max, self.eta_min, after="rise")


class OneCycleLR(ClosedForm, lr_scheduler.OneCycleLR):
    """Up to `max_lr` and down: `schedules.one_cycle`; against it the momentum or β₁: `schedules.one_cycle_momentum`, rounded as well.

    One step after the last (`total_steps` steps are done) the learning rate is still the last one; torch.optim's leaves the curve there.
    """

    def get_lr(self) -> list[float | torch.Tensor]:
        """Every group's learning rate now; its momentum is set."""
        if self.last_epoch > self.total_steps:
            raise ValueError(f"Tried to step {self.last_epoch} times. The specified number of total steps is {self.total_steps}")
        for group in self.optimizer.param_groups if self.cycle_momentum else ():
            momentum = self._value(group, "momentum")
            if self.use_beta1:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum
        return [self._value(group, "lr") for group in self.optimizer.param_groups]

    def _value(self, group: dict, what: str) -> float:
        along = self._schedule_phases
        values = [group[along[0][f"start_{what}"]], *(group[phase[f"end_{what}"]] for phase in along)]
        return schedules.phases(values, [phase["end_step"] for phase in along], self._anneal_func_type)(self.last_epoch, self.dtype)


class InverseSqrtLR(ClosedForm):
    """The base learning rate times 1/√((t + timescale) / timescale): `schedules.inverse_sqrt`.

    Args:
        optimizer: whose groups are set.
        timescale: > 0.
        last_epoch: the count to go on from, as in torch.optim.
        dtype: float32, or "float64".
    """

    def __init__(self, optimizer: torch.optim.Optimizer, timescale: float, last_epoch: int = -1, *, dtype: str = "float32"):
        self.timescale = timescale
        super().__init__(optimizer, last_epoch, dtype=dtype)

    def schedule(self, base_lr):
        return schedules.inverse_sqrt(base_lr, self.timescale)
