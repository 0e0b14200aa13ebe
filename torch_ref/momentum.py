"""Momentum in the velocity form (Polyak 1964, as written by Sutskever et al. 2013).  In JAX: jaxopt_impl/momentum.py

vₜ = μ vₜ₋₁ − η gₜ
θₜ₊₁ = θₜ + vₜ
"""

from typing import NamedTuple

from . import checks
from . import numerics as nx
from .optimizer import RoundedOnce


class State(NamedTuple):
    momentum_buffer: nx.Rounded  # shaped as p: vₜ, 0 at t = 0
    step: nx.Count = None  # t, a scalar that is counted outside of the rule


class Hyper(NamedTuple):
    lr: nx.Number  # η
    momentum: nx.Number  # μ
    weight_decay: nx.Number  # λ
    maximize: bool


# The rule on one array: gradient g, parameter p, state s, hyper-parameters h. One that only the run will tell counts as true.
def step(g, p, s, h):
    if h.maximize:
        g = -g
    if h.weight_decay:
        g = nx.unless_zero(h.weight_decay, g + h.weight_decay * p, g)
    v = h.momentum * s.momentum_buffer - h.lr * g
    return v, State(v)


class Momentum(RoundedOnce):
    """Momentum in the velocity form; the recurrence and its arguments are those of `jaxopt_impl.momentum`.

    Args: `params` and `lr` as in torch.optim, `momentum` μ, `weight_decay` (the L2 form), `maximize`.
        `foreach=False` steps without compiled loops, `fused` has no effect,
        `differentiable=True` is refused.
    State: `momentum_buffer` [*p], the velocity, in the parameter's dtype or the accumulator's.
    Dtypes: float32, float64, bfloat16, float16; `accumulator_dtype=torch.float32` keeps the state of halves, and their arithmetic, in
        float32. Gradients may be float32 then (`p.grad_dtype = torch.float32`).
    Raises: ValueError where a range is broken; TypeError where a parameter is not floating point or a gradient not dense.
    Exactness: bit-equal to `jaxopt_impl.momentum` in all four dtypes. Run on CPU only.
    Differs from: torch.optim.SGD(momentum=μ), whose buffer is −v/η; torch.optim has no velocity form, so no checkpoint to exchange.
    Example:
        >>> import torch
        >>> p = torch.nn.Parameter(torch.tensor([1.0]))
        >>> Momentum([p], lr=0.25).step(lambda: p.square().sum().backward())
        >>> p.data
        tensor([0.5000])
    """

    name, rule, Hyper, State = "momentum", step, Hyper, State
    has_step = False

    def __init__(
        self,
        params,
        lr=1e-3,
        momentum=0.9,
        weight_decay=0,
        *,
        maximize=False,
        foreach=None,
        differentiable=False,
        fused=None,
        accumulator_dtype=None,
    ):
        super().__init__(
            params,
            accumulator_dtype,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            maximize=maximize,
            foreach=foreach,
            differentiable=differentiable,
            fused=fused,
        )

    def check(self, group):
        checks.at_least_zero("momentum", lr=group["lr"], momentum=group["momentum"], weight_decay=group["weight_decay"])

    def initial_values(self, group):
        return {"momentum_buffer": 0.0}
