"""AdaGrad (Duchi, Hazan & Singer 2011, JMLR 12:2121).  In PyTorch: torch_ref/adagrad.py

Gₜ = Gₜ₋₁ + gₜ²
θₜ₊₁ = θₜ − ηₜ gₜ / √(Gₜ + ε),   ηₜ = η / (1 + (t − 1) δ)
"""

from typing import NamedTuple

import optax
from jax.typing import DTypeLike

from . import checks
from . import numerics as nx
from .transform import transform


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


def adagrad(
    learning_rate: optax.ScalarOrSchedule,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-5,
    *,
    eps_in_sqrt: bool = True,
    maximize: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdaGrad: each coordinate's step shrinks with the gradients that it has seen.

        Gₜ = Gₜ₋₁ + gₜ²,   uₜ = −ηₜ gₜ / √(Gₜ + ε),   ηₜ = η / (1 + (t − 1) δ)

    Args:
        learning_rate: η >= 0; a float, or a schedule `count -> float`.
        lr_decay: δ >= 0; ηₜ is computed in float64 and rounded once.
        weight_decay: λ >= 0; λθ is added to the gradient (the L2 form).
        initial_accumulator_value: G₀ >= 0.
        eps: ε >= 0, inside the square root (outside, √Gₜ + ε, with `eps_in_sqrt=False`). ε = 0 gives NaN where Gₜ = 0.
        eps_in_sqrt: where ε stands.
        maximize: ascend: the gradient is negated first.
        accumulator_dtype: float32 keeps the state of bfloat16 and float16 leaves, and their arithmetic, in float32; only the update is
            rounded to the leaf's dtype. Gradients may be float32 then; give `update` the parameters, so that it knows the leaf's.
            (In `optax.inject_hyperparams` write "float32": it would call jnp.float32 as a schedule.)
    Shapes: updates and `sum` follow each leaf; `step` is [].  Dtypes: float32, float64,
        bfloat16, float16; state in the leaf's dtype, or in `accumulator_dtype`.
    Raises: ValueError where a range above is broken; TypeError where a leaf is not floating point, or float64 on a TPU, naming it.
    Exactness: bit-equal to `torch_ref.AdaGrad` in all four dtypes. Run on CPU; for GPU and TPU compiled, read and interpreted, not run.
    Differs from: torch.optim.Adagrad (FMAs; `eps=1e-10, eps_in_sqrt=False` is its rule), optax.adagrad (accumulator starts at 0.1,
        ε = 1e-7; rsqrt; no update where Gₜ = 0).
    Source: Duchi, Hazan & Singer 2011, the diagonal form (its δ is ε here, outside the root); `lr_decay` is torch.optim's.
    Example:
        >>> import jax.numpy as jnp
        >>> tx = adagrad(0.5, eps=0.0)
        >>> tx.update(jnp.array([2.0]), tx.init(jnp.array([1.0])))[0]
        Array([-0.5], dtype=float32)
    """
    checks.at_least_zero("adagrad", lr=learning_rate, lr_decay=lr_decay, weight_decay=weight_decay)
    checks.at_least_zero("adagrad", initial_accumulator_value=initial_accumulator_value, eps=eps)
    hyper = Hyper(learning_rate, lr_decay, weight_decay, eps, eps_in_sqrt, maximize)
    initial_values = {"sum": initial_accumulator_value}
    return transform("adagrad", step, hyper, State, initial_values, prepare=prepare, accumulator_dtype=accumulator_dtype)
