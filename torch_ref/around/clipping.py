"""Clipping of gradients: by their global norm (Pascanu, Mikolov & Bengio 2013), and by value.  Mirror: jaxopt_impl/around/clipping.py

form "torch":  gₜ ← gₜ min(c / (‖gₜ‖ + 10⁻⁶), 1)
form "optax":  gₜ ← gₜ where ‖gₜ‖ < c, else gₜ / ‖gₜ‖ · c
by value:      gₜ ← min(max(gₜ, −c), c)
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .. import checks
from .. import numerics as nx
from ..shards import local
from . import checks as around_checks
from .norm import total_norm


class State(NamedTuple):
    norm: nx.Rounded  # []  ‖gₜ‖, before it is clipped


class Hyper(NamedTuple):
    limit: nx.Number  # c


# The rules on one array g; `norm` is that of all arrays.
def torch_form(g, norm, h):
    return g * nx.like(nx.minimum(h.limit / (norm + 1e-6), 1.0), g)


def optax_form(g, norm, h):
    return nx.choose(nx.less(norm, h.limit), g, g / nx.like(norm, g) * h.limit)


def by_value(g, h):
    return nx.clamp(g, -h.limit, h.limit)


FORMS = {"torch": torch_form, "optax": optax_form}


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
    *,
    form: Literal["torch", "optax"] = "torch",
    group: Any = None,
) -> Tensor:
    """torch.nn.utils.clip_grad_norm_ with each operation rounded once; the formulas are those of `jaxopt_impl.clip_by_global_norm`.

    Args:
        parameters: one, or several, whose `grad` is scaled in place; those without one are left aside.
        max_norm: c >= 0.
        norm_type, error_if_nonfinite, foreach, group: as in `get_total_norm`. An error comes before anything is scaled.
        form: whose formula.
    Returns: the norm that the gradients had.
    Dtypes: float32, float64, bfloat16, float16, also mixed; the norm is float64 if a gradient is, else float32.
    Raises: ValueError where a range is broken; TypeError where a gradient is not floating point or not dense; RuntimeError as
        `get_total_norm`.
    Exactness: bit-equal to `jaxopt_impl.clip_by_global_norm` in all four dtypes. Run on CPU only.
    Differs from: torch.nn.utils.clip_grad_norm_ (its norm is not correctly rounded; c times the reciprocal of ‖gₜ‖ + 10⁻⁶; the norm of
        halves is a half, and so is what they are multiplied by).
    Example:
        >>> import torch
        >>> p = torch.nn.Parameter(torch.zeros(2))
        >>> p.grad = torch.tensor([3.0, 4.0])
        >>> clip_grad_norm_([p], 2.5, form="optax"), p.grad
        (tensor(5.), tensor([1.5000, 2.0000]))
    """
    del foreach
    name = "clip_by_global_norm"
    checks.at_least_zero(name, max_norm=max_norm)
    around_checks.one_of(name, tuple(FORMS), form=form)
    gradients = _gradients(parameters)
    norm = total_norm(name, gradients, norm_type, error_if_nonfinite, group)
    wrapped = nx.wrap(norm, nx.dtype_name(norm.dtype))
    _clip(lambda g, h: FORMS[form](g, wrapped, h), gradients, max_norm)
    return norm


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """torch.nn.utils.clip_grad_value_, the same bits: each number of the gradients into [−c, c], as `jaxopt_impl.clip_by_value`.

    Args:
        parameters: one, or several, whose `grad` is changed in place; those without one are left aside.
        clip_value: c >= 0, rounded to the gradient's dtype.
        foreach: has no effect.
    Dtypes: float32, float64, bfloat16, float16.
    Raises: ValueError where a range is broken; TypeError where a gradient is not floating point or not dense.
    Exactness: bit-equal to `jaxopt_impl.clip_by_value` in all four dtypes. Run on CPU only.
    Differs from: torch.nn.utils.clip_grad_value_ in nothing, for c > 0.
    Example:
        >>> import torch
        >>> p = torch.nn.Parameter(torch.zeros(2))
        >>> p.grad = torch.tensor([-3.0, 0.25])
        >>> clip_grad_value_([p], 0.5); p.grad
        tensor([-0.5000,  0.2500])
    """
    del foreach
    name = "clip_by_value"
    checks.at_least_zero(name, max_delta=clip_value)
    gradients = _gradients(parameters)
    for i, g in enumerate(gradients):
        checks.dense(name, f"params[{i}]", str(g.layout).removeprefix("torch."))
        checks.floating(name, f"params[{i}]", nx.dtype_name(g.dtype))
    _clip(by_value, gradients, clip_value)


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p.grad for p in parameters if p.grad is not None]


@torch.no_grad()
def _clip(rule: Callable, gradients: list[Tensor], limit: float) -> None:
    """The rule on each gradient, in place."""
    h = Hyper(nx.static_value(limit))
    for g in gradients:
        dtype = nx.dtype_name(g.dtype)
        local(g).copy_(nx.finish(rule(nx.wrap(g, dtype), h), dtype))
