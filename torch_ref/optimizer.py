"""The shell that makes a torch.optim.Optimizer of a kernel: groups, state, closures, checkpoints. Knows no rule by name.

A kernel is `step(g, p, s, h) -> (u, s)` on one parameter: gradient, parameter, `State` and `Hyper`; the shell adds u to the parameter.
A subclass names its kernel `rule`, and says by `start` what its state starts at.
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from . import checks
from . import numerics as nx


class RoundedOnce(torch.optim.Optimizer):
    """A `torch.optim.Optimizer` whose every operation rounds once.

    Subclasses set the class attributes below. The `state_dict` has the keys of the torch.optim counterpart, so that either loads the
    other's. `foreach` and `fused` are accepted and have no effect; groups carry them as data.
    """

    who: ClassVar[str]  # the name that error messages begin with
    rule: ClassVar[Callable]  # the kernel
    Hyper: ClassVar[Any]  # fields that a group has are read from it; `t` and `first` are set here
    State: ClassVar[Any]  # fields are the keys of a parameter's state
    counts: ClassVar[bool] = True  # whether the state keeps `step`; torch.optim.SGD's does not
    added: ClassVar[dict[str, Any]] = {}  # keys that torch.optim's group lacks, with what their absence means

    def __init__(self, params, **defaults):
        for argument in ("differentiable", "capturable"):
            if defaults.get(argument):
                raise ValueError(f"{self.who}: {argument}=True is not supported: each operation here is eager and rounds once.")
        super().__init__(params, defaults)

    def start(self, group: dict) -> dict[str, float | None]:
        """What each field of `State` but `step` starts at, or None where this group keeps no such field."""
        raise NotImplementedError

    def check(self, group: dict) -> None:
        """Raise where a group's hyper-parameter is out of range."""
        raise NotImplementedError

    def add_param_group(self, param_group: dict) -> None:
        super().add_param_group(param_group)
        try:
            group = self.param_groups[-1]
            self.check(group)
            for path, p in self._named(group):
                checks.floating(self.who, path, _name(p.dtype))
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for key, value in {**self.defaults, **self.added}.items():
                group.setdefault(key, value)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every parameter that has a gradient; `closure`, if given, recomputes the loss first, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for path, p in self._named(group):
                if p.grad is not None:
                    self._step_parameter(path, p, p.grad, group)
        return loss

    def _step_parameter(self, path: str, p: Tensor, g: Tensor, group: dict) -> None:
        checks.dense(self.who, path, str(g.layout).removeprefix("torch."))
        checks.floating(self.who, path, _name(g.dtype))
        state = self.state[p]
        first = all(value is None for value in state.values())
        if first:
            self._start(p, group)
        start = self.start(group)
        kept = {field: state.get(field) for field, value in start.items() if value is not None}
        for field, tensor in kept.items():
            checks.present(self.who, path, field, tensor is not None)
            checks.alike(self.who, path, field, tensor.shape, _name(tensor.dtype), g.shape, _name(g.dtype))

        if self.counts:
            state["step"] += 1
        at_t = {"t": float(state["step"]) if self.counts else None, "first": first}
        h = self.Hyper(**{field: _number(at_t[field] if field in at_t else group[field]) for field in self.Hyper._fields})
        s = self.State(**(dict.fromkeys(start) | {field: nx.Exact(tensor) for field, tensor in kept.items()}))
        u, s = type(self).rule(nx.Exact(g), nx.Exact(p), s, h)
        for field, tensor in kept.items():
            tensor.copy_(getattr(s, field).x)
        p.add_(u.x)

    def _start(self, p: Tensor, group: dict) -> None:
        """Give a parameter the state before its first step."""
        if self.counts:
            self.state[p]["step"] = torch.zeros((), dtype=_step_dtype())
        for field, value in self.start(group).items():
            if value is not None:
                self.state[p][field] = torch.full_like(p, value, memory_format=torch.preserve_format)

    def _named(self, group: dict) -> Iterator[tuple[str, Tensor]]:
        """A group's parameters with their names, or their indices in the `state_dict`."""
        index = 0
        for other in self.param_groups:
            if other is group:
                break
            index += len(other["params"])
        for i, p in enumerate(group["params"]):
            yield f"params[{group['param_names'][i]!r}]" if "param_names" in group else f"params[{index + i}]", p


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _number(value):
    return value.item() if isinstance(value, Tensor) else value


def _step_dtype() -> torch.dtype:
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32  # as torch.optim has it
