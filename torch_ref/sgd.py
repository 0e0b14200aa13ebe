"""SGD with the momentum of torch.optim (Sutskever et al. 2013, ICML, with dampening).  In JAX: jaxopt_impl/sgd.py

bₜ = μ bₜ₋₁ + (1 − τ) gₜ,   b₁ = g₁, which is μ b₀ + 1 g₁ for b₀ = −0
θₜ₊₁ = θₜ − η bₜ            Nesterov: θₜ₊₁ = θₜ − η (gₜ + μ bₜ)
"""

from typing import NamedTuple

from . import checks
from . import numerics as nx
from .optimizer import RoundedOnce


class State(NamedTuple):
    momentum_buffer: nx.Rounded | None  # shaped as p: bₜ, -0 at t = 0
    step: nx.Count = None  # t, a scalar that is counted outside of the rule


class Hyper(NamedTuple):
    lr: nx.Number  # η
    momentum: nx.Number  # μ
    dampening: nx.Number  # τ
    weight_decay: nx.Number  # λ
    nesterov: bool
    maximize: bool
    first: bool = True  # whether t = 1, set outside of the rule
    gradient_scale: nx.Number = 1.0  # 1 − τ, but 1 at t = 1; set by prepare


def prepare(h):
    return h._replace(gradient_scale=nx.where(h.first, 1.0, 1 - h.dampening)) if h.dampening else h


# The rule on one array: gradient g, parameter p, state s, hyper-parameters h. One that only the run will tell counts as true.
def step(g, p, s, h):
    if h.maximize:
        g = -g
    if h.weight_decay:
        g = nx.unless_zero(h.weight_decay, g + h.weight_decay * p, g)
    if not h.momentum:
        return -h.lr * g, s
    b = h.momentum * s.momentum_buffer + h.gradient_scale * g
    d = g + h.momentum * b if h.nesterov else b
    return -h.lr * nx.unless_zero(h.momentum, d, g), State(nx.unless_zero(h.momentum, b, s.momentum_buffer))


class SGD(RoundedOnce):
    """torch.optim.SGD with each operation rounded once; the recurrence and its arguments are those of `jaxopt_impl.sgd`.

    Args: as torch.optim.SGD; `lr` a float or a one-element tensor.
        `foreach=False` steps without compiled loops, `fused` has no effect, `differentiable=True` is refused.
    State: `momentum_buffer` [*p] in the parameter's dtype or the accumulator's, where momentum is not 0; absent or None means before the
        first step.
    Dtypes: float32, float64, bfloat16, float16; `accumulator_dtype=torch.float32` keeps the state of halves, and their arithmetic, in
        float32. Gradients may be float32 then (`p.grad_dtype = torch.float32`).
    Raises: ValueError where a range is broken; TypeError where a parameter is not floating point or a gradient not dense.
    Exactness: bit-equal to `jaxopt_impl.sgd` in all four dtypes. Run on CPU only.
    Differs from: torch.optim.SGD, which contracts to FMAs on AVX2; checkpoints are exchanged both ways.
    Example:
        >>> import torch
        >>> p = torch.nn.Parameter(torch.tensor([1.0]))
        >>> SGD([p], lr=0.25).step(lambda: p.square().sum().backward())
        >>> p.data
        tensor([0.5000])
    """

    name, rule, prepare, Hyper, State = "sgd", step, prepare, Hyper, State
    has_step = False

    def __init__(
        self,
        params,
        lr=1e-3,
        momentum=0,
        dampening=0,
        weight_decay=0,
        nesterov=False,
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
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
            foreach=foreach,
            differentiable=differentiable,
            fused=fused,
        )

    def check(self, group):
        momentum, dampening = group["momentum"], group["dampening"]
        checks.at_least_zero("sgd", lr=group["lr"], momentum=momentum, weight_decay=group["weight_decay"])
        checks.not_nan("sgd", dampening=dampening)
        checks.nesterov("sgd", group["nesterov"], momentum, dampening)

    def initial_values(self, group):
        return {"momentum_buffer": -0.0 if group["momentum"] else None}
