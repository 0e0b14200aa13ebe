"""AdaGrad (Duchi, Hazan & Singer 2011, JMLR 12:2121).  In JAX: jaxopt_impl/adagrad.py

Gₜ = Gₜ₋₁ + gₜ²
θₜ₊₁ = θₜ − ηₜ gₜ / √(Gₜ + ε),   ηₜ = η / (1 + (t − 1) δ)
"""

from typing import ClassVar, NamedTuple

from . import checks
from . import numerics as nx
from .optimizer import RoundedOnce


class State(NamedTuple):
    sum: nx.Rounded  # shaped as p: Gₜ, initial_accumulator_value at t = 0
    step: nx.Count = None  # t, a scalar that is counted outside of the rule


class Hyper(NamedTuple):
    lr: nx.Number  # η
    lr_decay: nx.Number  # δ
    weight_decay: nx.Number  # λ
    eps: nx.Number  # ε
    eps_in_sqrt: bool
    maximize: bool
    t: nx.Number = 1  # t is set outside of the rule
    lr_t: nx.Number = 0.0  # ηₜ, set by prepare


def prepare(h):
    return h._replace(lr_t=h.lr / (1 + (h.t - 1) * h.lr_decay) if h.lr_decay else h.lr)


# The rule on one array: gradient g, parameter p, state s, hyper-parameters h. One that only the run will tell counts as true.
def step(g, p, s, h):
    if h.maximize:
        g = -g
    if h.weight_decay:
        g = nx.unless_zero(h.weight_decay, g + h.weight_decay * p, g)
    sum = s.sum + g * g
    root = nx.sqrt(sum + h.eps) if h.eps_in_sqrt else nx.sqrt(sum) + h.eps
    u = -(h.lr_t * g / root)
    return u, State(sum)


class AdaGrad(RoundedOnce):
    """torch.optim.Adagrad with each operation rounded once; the recurrence and its arguments are those of `jaxopt_impl.adagrad`.

    Args: as torch.optim.Adagrad, and `eps_in_sqrt`: True puts ε inside the root, False outside as torch.optim.Adagrad does. `lr` is a float
        or a one-element tensor. `foreach=False` steps without compiled loops, `fused` has no effect, `differentiable=True` is refused.
    State: `step` [] and `sum` [*p] in the parameter's dtype or the accumulator's, both from construction on, as in torch.optim.
    Dtypes: float32, float64, bfloat16, float16; `accumulator_dtype=torch.float32` keeps the state of halves, and their arithmetic, in
        float32. Gradients may be float32 then (`p.grad_dtype = torch.float32`).
    Raises: ValueError where a range is broken; TypeError where a parameter is not floating point or a gradient not dense.
    Exactness: bit-equal to `jaxopt_impl.adagrad` in all four dtypes. Run on CPU only.
    Differs from: torch.optim.Adagrad (`eps=1e-10`, outside the root; FMAs). A group that comes from a checkpoint without the key
        `eps_in_sqrt` gets False, which is what the stock class means; checkpoints are exchanged both ways.
    Example:
        >>> import torch
        >>> p = torch.nn.Parameter(torch.tensor([1.0]))
        >>> AdaGrad([p], lr=0.5, eps=0).step(lambda: p.square().sum().backward())
        >>> p.data
        tensor([0.5000])
    """

    name, rule, prepare, Hyper, State = "adagrad", step, prepare, Hyper, State
    extra_keys: ClassVar = {"eps_in_sqrt": False}

    def __init__(
        self,
        params,
        lr=1e-2,
        lr_decay=0,
        weight_decay=0,
        initial_accumulator_value=0,
        eps=1e-5,
        foreach=None,
        *,
        eps_in_sqrt=True,
        maximize=False,
        differentiable=False,
        fused=None,
        accumulator_dtype=None,
    ):
        super().__init__(
            params,
            accumulator_dtype,
            lr=lr,
            lr_decay=lr_decay,
            eps=eps,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            foreach=foreach,
            eps_in_sqrt=eps_in_sqrt,
            maximize=maximize,
            differentiable=differentiable,
            fused=fused,
        )

    def add_param_group(self, param_group):
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for p in group["params"]:
            self._start(p, group)

    def share_memory(self):
        """Move the accumulators to shared memory, as torch.optim.Adagrad does."""
        for state in self.state.values():
            state["sum"].share_memory_()

    def check(self, group):
        checks.at_least_zero("adagrad", lr=group["lr"], lr_decay=group["lr_decay"], weight_decay=group["weight_decay"])
        checks.at_least_zero("adagrad", initial_accumulator_value=group["initial_accumulator_value"], eps=group["eps"])

    def initial_values(self, group):
        return {"sum": group["initial_accumulator_value"]}
