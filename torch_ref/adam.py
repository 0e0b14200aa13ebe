"""Adam (Kingma & Ba 2015, arXiv 1412.6980), AMSGrad (Reddi et al. 2018), AdamW (Loshchilov & Hutter 2019).  In JAX: jaxopt_impl/adam.py

mₜ = β₁ mₜ₋₁ + (1 − β₁) gₜ
vₜ = β₂ vₜ₋₁ + (1 − β₂) gₜ²
θₜ₊₁ = θₜ − ηₜ mₜ / (√vₜ / cₜ + ε),   ηₜ = η / (1 − β₁ᵗ),   cₜ = √(1 − β₂ᵗ)
AMSGrad: max(v₁ … vₜ) in the place of vₜ        AdamW: − η λ θₜ as well
"""

from typing import NamedTuple

from torch import Tensor

from . import checks
from . import numerics as nx
from .optimizer import RoundedOnce


class State(NamedTuple):
    exp_avg: nx.Rounded  # shaped as p: mₜ
    exp_avg_sq: nx.Rounded  # shaped as p: vₜ
    max_exp_avg_sq: nx.Rounded | None  # shaped as p: max(v₁ … vₜ)
    step: nx.Count = None  # t, a scalar that is counted outside of the rule


class Hyper(NamedTuple):
    lr: nx.Number  # η
    b1: nx.Number  # β₁
    b2: nx.Number  # β₂
    eps: nx.Number  # ε
    weight_decay: nx.Number  # λ
    amsgrad: bool
    maximize: bool
    decoupled_weight_decay: bool
    t: nx.Number = 1  # t is set outside of the rule
    step_size: nx.Number = 0.0  # ηₜ, set by prepare
    bc2_sqrt: nx.Number = 0.0  # cₜ, set by prepare
    decay: nx.Number = 0.0  # ηλ, set by prepare


def prepare(h):
    step_size = h.lr / (1 - nx.power(h.b1, h.t))
    bc2_sqrt = nx.sqrt(1 - nx.power(h.b2, h.t))
    return h._replace(step_size=step_size, bc2_sqrt=bc2_sqrt, decay=h.lr * h.weight_decay)


# The rule on one array: gradient g, parameter p, state s, hyper-parameters h. One that only the run will tell counts as true.
def step(g, p, s, h):
    if h.maximize:
        g = -g
    if h.weight_decay and not h.decoupled_weight_decay:
        g = nx.unless_zero(h.weight_decay, g + h.weight_decay * p, g)
    m = h.b1 * s.exp_avg + (1 - h.b1) * g
    v = h.b2 * s.exp_avg_sq + (1 - h.b2) * (g * g)
    v_max = nx.maximum(s.max_exp_avg_sq, v) if h.amsgrad else None
    q = h.step_size * m / (nx.sqrt(v_max if h.amsgrad else v) / h.bc2_sqrt + h.eps)
    if h.weight_decay and h.decoupled_weight_decay:
        q = nx.unless_zero(h.weight_decay, q + h.decay * p, q)
    return -q, State(m, v, v_max)


class Adam(RoundedOnce):
    """torch.optim.Adam with each operation rounded once; the recurrence and its arguments are those of `jaxopt_impl.adam`.

    Args: as torch.optim.Adam, `betas` being (b1, b2); `lr` and betas floats or one-element tensors.
        `foreach=False` steps without compiled loops, `fused` has no effect,
        `capturable=True` and `differentiable=True` are refused.
    State: `step` [], `exp_avg`, `exp_avg_sq` [*p], and `max_exp_avg_sq` [*p] with `amsgrad`, in the parameter's dtype or the accumulator's.
    Dtypes: float32, float64, bfloat16, float16; `accumulator_dtype=torch.float32` keeps the state of halves, and their arithmetic, in
        float32. Gradients may be float32 then (`p.grad_dtype = torch.float32`). `mu_dtype=torch.bfloat16` keeps `exp_avg` in it.
    Raises: ValueError where a range is broken; TypeError where a parameter is not floating point or a gradient not dense.
    Exactness: bit-equal to `jaxopt_impl.adam` in all four dtypes. Run on CPU only.
    Differs from: torch.optim.Adam (lerp and addcmul: FMAs; MKL's root; `pow`); checkpoints are exchanged both ways.
    Example:
        >>> import torch
        >>> p = torch.nn.Parameter(torch.tensor([1.0]))
        >>> Adam([p], lr=0.5, betas=(0.5, 0.75), eps=0).step(lambda: p.square().sum().backward())
        >>> p.data
        tensor([0.5000])
    """

    name, rule, prepare, Hyper, State = "adam", step, prepare, Hyper, State

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        amsgrad=False,
        *,
        foreach=None,
        maximize=False,
        capturable=False,
        differentiable=False,
        fused=None,
        decoupled_weight_decay=False,
        accumulator_dtype=None,
        mu_dtype=None,
    ):
        super().__init__(
            params,
            accumulator_dtype,
            {"exp_avg": checks.first_moment(self.name, mu_dtype)},
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=decoupled_weight_decay,
        )

    def check(self, group):
        b1, b2 = betas = group["betas"]
        self._one_element(**{"betas[0]": b1, "betas[1]": b2})
        if len({isinstance(beta, Tensor) for beta in betas}) > 1 or any(isinstance(beta, int) for beta in betas):
            raise ValueError(f"betas must be either both floats or both Tensors ({self.name}: got {betas})")
        for name, value in {"lr": group["lr"], "betas[0]": b1, "betas[1]": b2}.items():
            if isinstance(value, Tensor) and group["foreach"] and not group["capturable"]:
                raise ValueError(f"{name} as a Tensor is not supported for capturable=False and foreach=True ({self.name})")
        checks.at_least_zero(self.name, lr=group["lr"], eps=group["eps"], weight_decay=group["weight_decay"])
        checks.beta(self.name, 0, "b1", b1)
        checks.beta(self.name, 1, "b2", b2)

    def initial_values(self, group):
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0, "max_exp_avg_sq": 0.0 if group["amsgrad"] else None}


class AdamW(Adam):
    """torch.optim.AdamW with each operation rounded once; the recurrence and its arguments are those of `jaxopt_impl.adamw`.

    Args: as torch.optim.AdamW; for the rest see `Adam`, which this is with `decoupled_weight_decay=True`.
    State: as `Adam`.
    Dtypes: float32, float64, bfloat16, float16; `accumulator_dtype=torch.float32` keeps the state of halves, and their arithmetic, in
        float32. Gradients may be float32 then (`p.grad_dtype = torch.float32`). `mu_dtype=torch.bfloat16` keeps `exp_avg` in it.
    Raises: ValueError where a range is broken; TypeError where a parameter is not floating point or a gradient not dense.
    Exactness: bit-equal to `jaxopt_impl.adamw` in all four dtypes. Run on CPU only.
    Differs from: torch.optim.AdamW, which shrinks the parameter first and then steps; checkpoints are exchanged both ways.
    Example:
        >>> import torch
        >>> p = torch.nn.Parameter(torch.tensor([1.0]))
        >>> AdamW([p], lr=0.5, betas=(0.5, 0.75), eps=0, weight_decay=0.5).step(lambda: p.square().sum().backward())
        >>> p.data
        tensor([0.2500])
    """

    name = "adamw"

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=1e-2,
        amsgrad=False,
        *,
        maximize=False,
        foreach=None,
        capturable=False,
        differentiable=False,
        fused=None,
        accumulator_dtype=None,
        mu_dtype=None,
    ):
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
            accumulator_dtype=accumulator_dtype,
            mu_dtype=mu_dtype,
        )
