"""What the wrappers share that step half parameters in float32.  Mirror: jaxopt_impl/around/widening.py"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import checks as leaf_checks
from .. import numerics as nx
from ..shards import local
from . import checks


class Widened(ABC):
    """An optimizer that steps float32 copies of half parameters, its own parameters in their place; others it steps as they are.

    It has no groups of its own: a scheduler, or whatever sets a learning rate, is made over `optimizer`. Subclasses say which dtypes are
    copied, and what becomes of a parameter when its copy has been stepped.
    """

    name: ClassVar[str]  # the name that error messages begin with
    dtypes: ClassVar[tuple[str, ...]]

    def __init__(self, params: Iterable, make: Callable[[list], torch.optim.Optimizer]):
        self.parameters: list[Tensor] = []
        self.copies: dict[Tensor, torch.nn.Parameter] = {}
        self.optimizer = make([self._copied(item) for item in params])

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The inner optimizer's, with copies in the place of halves."""
        return self.optimizer.param_groups

    def add_param_group(self, param_group: dict) -> None:
        """As torch.optim's."""
        self.optimizer.add_param_group(self._copied(param_group))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch.optim's, of the parameters and their copies."""
        for p in (*self.parameters, *self.copies.values()):
            if set_to_none:
                p.grad = None
            elif p.grad is not None:
                p.grad = torch.zeros_like(p.grad)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every parameter that has a gradient; `closure`, if given, recomputes the loss first, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for i, p in enumerate(self.parameters):
            if p in self.copies:
                self.copies[p].grad = None if p.grad is None else self._wide(f"params[{i}]", p, p.grad)
        if any(p.grad is not None for p in self.parameters):
            self.step_copies()
        return loss

    @abstractmethod
    def step_copies(self) -> None:
        """Step what has a gradient; that of halves is in their copies, in float32."""

    def check(self, path: str, p: Tensor) -> None:
        """Raise where a parameter cannot be had."""
        leaf_checks.floating(self.name, path, nx.dtype_name(p.dtype))

    def _copied(self, item: Any) -> Any:
        """A parameter, a named one or a group, with copies in the place of halves."""
        if isinstance(item, dict):
            params = [item["params"]] if isinstance(item["params"], Tensor) else item["params"]
            return {**item, "params": [self._copied(p) for p in params]}
        if isinstance(item, tuple):
            return (item[0], self._copied(item[1]))
        self.check(f"params[{len(self.parameters)}]", item)
        self.parameters.append(item)
        if nx.dtype_name(item.dtype) not in self.dtypes:
            return item
        self.copies[item] = torch.nn.Parameter(item.detach().float(), requires_grad=item.requires_grad)
        return self.copies[item]

    def _wide(self, path: str, p: Tensor, g: Tensor) -> Tensor:
        leaf_checks.dense(self.name, path, str(g.layout).removeprefix("torch."))
        leaf_checks.floating(self.name, path, nx.dtype_name(g.dtype))
        checks.half_gradient(self.name, path, nx.dtype_name(g.dtype), nx.dtype_name(p.dtype))
        return g.float()


def add(p: Tensor, u: nx.Rounded) -> None:
    """What `optax.apply_updates` does with a half and an update in float32."""
    local(p).copy_(nx.finish(nx.wrap(p, "float32") + u, nx.dtype_name(p.dtype)))
