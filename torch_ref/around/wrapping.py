"""What the wrappers of an optimizer share: they are driven as one, and hand on some steps.  In JAX: jaxopt_impl/around/wrapping.py"""

from typing import Any

from torch import Tensor

from .. import checks
from .. import numerics as nx
from ..shards import everywhere, local


class Wrapper:
    """Stands in the place of a `torch.optim.Optimizer`, or of another wrapper of one."""

    name: str  # the name that error messages begin with

    def __init__(self, optimizer: Any):
        self.optimizer = optimizer

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's."""
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:
        """The optimizer's."""
        return self.optimizer.state

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def read(self, state_dict: dict[str, Any], *keys: str) -> list[Any]:
        """What a `state_dict` has by these keys; raises where it lacks one."""
        for key in keys:
            if key not in state_dict:
                raise ValueError(f"{self.name}: the state_dict has no {key}; got {', '.join(state_dict) or 'an empty one'}.")
        return [state_dict[key] for key in keys]


def parameters(optimizer: Any) -> list[Tensor]:
    """The parameters of all groups, in the order of the `state_dict`."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def gradients(name: str, optimizer: Any) -> list[tuple[str, Tensor, Tensor]]:
    """Each parameter that has a gradient, with its path and the gradient.

    Raises: TypeError where one is not floating point or not dense, naming it.
    """
    found = [(f"params[{i}]", p, p.grad) for i, p in enumerate(parameters(optimizer)) if p.grad is not None]
    for path, _, g in found:
        checks.dense(name, path, str(g.layout).removeprefix("torch."))
        checks.floating(name, path, nx.dtype_name(g.dtype))
    return found


def are_finite(leaves: list[Tensor]) -> bool:
    """Whether no element of any gradient is infinite or NaN."""
    return everywhere(all(nx.is_finite(local(g)) for g in leaves), leaves)
