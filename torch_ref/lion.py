"""Lion (Chen et al. 2023, arXiv 2302.06675, algorithm 2).  In JAX: jaxopt_impl/lion.py

cₜ = β₁ mₜ₋₁ + (1 − β₁) gₜ
θₜ₊₁ = θₜ − η (sign(cₜ) + λ θₜ)
mₜ = β₂ mₜ₋₁ + (1 − β₂) gₜ
"""

from typing import NamedTuple

from . import checks
from . import numerics as nx
from .optimizer import RoundedOnce


class State(NamedTuple):
    exp_avg: nx.Rounded  # shaped as p: mₜ
    step: nx.Count = None  # t, a scalar that is counted outside of the rule


class Hyper(NamedTuple):
    lr: nx.Number  # η
    b1: nx.Number  # β₁
    b2: nx.Number  # β₂
    weight_decay: nx.Number  # λ
    maximize: bool


# The rule on one array: gradient g, parameter p, state s, hyper-parameters h. One that only the run will tell counts as true.
def step(g, p, s, h):
    if h.maximize:
        g = -g
    d = nx.sign(h.b1 * s.exp_avg + (1 - h.b1) * g)
    if h.weight_decay:
        d = nx.unless_zero(h.weight_decay, d + h.weight_decay * p, d)
    m = h.b2 * s.exp_avg + (1 - h.b2) * g
    return -h.lr * d, State(m)


class Lion(RoundedOnce):
    """Lion with each operation rounded once; the recurrence and its arguments are those of `jaxopt_impl.lion`.

    Args: `lr` and `betas`, (b1, b2), floats or one-element tensors; `weight_decay`, decoupled.
        `foreach=False` steps without compiled loops, `fused` has no effect,
        `differentiable=True` is refused.
    State: `exp_avg` [*p] in the parameter's dtype or the accumulator's; no `step`, which the rule does not read.
    Dtypes: float32, float64, bfloat16, float16; `accumulator_dtype=torch.float32` keeps the state of halves, and their arithmetic, in
        float32. Gradients may be float32 then (`p.grad_dtype = torch.float32`). `mu_dtype=torch.bfloat16` keeps `exp_avg` in it.
    Raises: ValueError where a range is broken; TypeError where a parameter is not floating point or a gradient not dense.
    Exactness: bit-equal to `jaxopt_impl.lion` in all four dtypes. Run on CPU only.
    Differs from: torch.optim, which has no Lion; the authors' program (shrinks the parameter first, θ (1 − ηλ); `torch.sign`, which
        makes +0 of −0 and of NaN). The state has the names of theirs.
    Example:
        >>> import torch
        >>> p = torch.nn.Parameter(torch.tensor([1.0]))
        >>> Lion([p], lr=0.25).step(lambda: p.square().sum().backward())
        >>> p.data
        tensor([0.7500])
    """

    name, rule, Hyper, State = "lion", step, Hyper, State
    has_step = False

    def __init__(
        self,
        params,
        lr=1e-4,
        betas=(0.9, 0.99),
        weight_decay=0.0,
        *,
        maximize=False,
        foreach=None,
        differentiable=False,
        fused=None,
        accumulator_dtype=None,
        mu_dtype=None,
    ):
        super().__init__(
            params,
            accumulator_dtype,
            {"exp_avg": checks.first_moment("lion", mu_dtype)},
            lr=lr,
            betas=betas,
            weight_decay=weight_decay,
            maximize=maximize,
            foreach=foreach,
            differentiable=differentiable,
            fused=fused,
        )

    def check(self, group):
        b1, b2 = group["betas"]
        checks.at_least_zero("lion", lr=group["lr"], weight_decay=group["weight_decay"])
        checks.beta("lion", 0, "b1", b1)
        checks.beta("lion", 1, "b2", b2)

    def initial_values(self, group):
        return {"exp_avg": 0.0}
