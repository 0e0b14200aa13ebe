"""RMSProp (Tieleman & Hinton 2012; centered: Graves 2013, arXiv 1308.0850).  In JAX: jaxopt_impl/rmsprop.py

vₜ = α vₜ₋₁ + (1 − α) gₜ²
θₜ₊₁ = θₜ − η gₜ / (√vₜ + ε)        centered: √(vₜ − aₜ²), aₜ = α aₜ₋₁ + (1 − α) gₜ
with momentum                       bₜ = μ bₜ₋₁ + gₜ / (√vₜ + ε),   θₜ₊₁ = θₜ − η bₜ
"""

from typing import NamedTuple

from . import checks
from . import numerics as nx
from .optimizer import RoundedOnce


class State(NamedTuple):
    square_avg: nx.Rounded  # shaped as p: vₜ
    momentum_buffer: nx.Rounded | None  # shaped as p: bₜ
    grad_avg: nx.Rounded | None  # shaped as p: aₜ
    step: nx.Count = None  # t, a scalar that is counted outside of the rule


class Hyper(NamedTuple):
    lr: nx.Number  # η
    alpha: nx.Number  # α
    eps: nx.Number  # ε
    weight_decay: nx.Number  # λ
    momentum: nx.Number  # μ
    centered: bool
    maximize: bool


# The rule on one array: gradient g, parameter p, state s, hyper-parameters h. One that only the run will tell counts as true.
def step(g, p, s, h):
    if h.maximize:
        g = -g
    if h.weight_decay:
        g = nx.unless_zero(h.weight_decay, g + h.weight_decay * p, g)
    v = h.alpha * s.square_avg + (1 - h.alpha) * (g * g)
    variance, a = v, None
    if h.centered:
        a = h.alpha * s.grad_avg + (1 - h.alpha) * g
        variance = v - a * a
    avg = nx.sqrt(variance) + h.eps
    if not h.momentum:
        return -(h.lr * g / avg), State(v, None, a)
    b = h.momentum * s.momentum_buffer + g / avg
    u = nx.unless_zero(h.momentum, -h.lr * b, lambda: -(h.lr * g / avg))
    return u, State(v, nx.unless_zero(h.momentum, b, s.momentum_buffer), a)


class RMSprop(RoundedOnce):
    """torch.optim.RMSprop with each operation rounded once; the recurrence and its arguments are those of `jaxopt_impl.rmsprop`.

    Args: as torch.optim.RMSprop; `lr` a float or a one-element tensor. `foreach` has no effect, `capturable=True` and
        `differentiable=True` are refused.
    State: `step` [], `square_avg` [*p], and `momentum_buffer`, `grad_avg` [*p] where they are kept, in the parameter's dtype or the
        accumulator's.
    Dtypes: float32, float64, bfloat16, float16; `accumulator_dtype=torch.float32` keeps the state of halves, and their arithmetic, in
        float32. Gradients may be float32 then (`p.grad_dtype = torch.float32`).
    Raises: ValueError where a range is broken; TypeError where a parameter is not floating point or a gradient not dense.
    Exactness: bit-equal to `jaxopt_impl.rmsprop` in all four dtypes. Run on CPU only.
    Differs from: torch.optim.RMSprop, which contracts to FMAs and takes MKL's root; checkpoints are exchanged both ways.
    Example:
        >>> import torch
        >>> p = torch.nn.Parameter(torch.tensor([1.0]))
        >>> RMSprop([p], lr=0.25, alpha=0.75, eps=0).step(lambda: p.square().sum().backward())
        >>> p.data
        tensor([0.5000])
    """

    name, rule, Hyper, State = "rmsprop", step, Hyper, State

    def __init__(
        self,
        params,
        lr=1e-2,
        alpha=0.99,
        eps=1e-8,
        weight_decay=0,
        momentum=0,
        centered=False,
        capturable=False,
        foreach=None,
        maximize=False,
        differentiable=False,
        accumulator_dtype=None,
    ):
        super().__init__(
            params,
            accumulator_dtype,
            lr=lr,
            momentum=momentum,
            alpha=alpha,
            eps=eps,
            centered=centered,
            weight_decay=weight_decay,
            capturable=capturable,
            foreach=foreach,
            maximize=maximize,
            differentiable=differentiable,
        )

    def check(self, group):
        checks.at_least_zero("rmsprop", lr=group["lr"], alpha=group["alpha"], eps=group["eps"])
        checks.at_least_zero("rmsprop", weight_decay=group["weight_decay"], momentum=group["momentum"])

    def initial_values(self, group):
        return {
            "square_avg": 0.0,
            "momentum_buffer": 0.0 if group["momentum"] else None,
            "grad_avg": 0.0 if group["centered"] else None,
        }
