"""RMSProp (Tieleman & Hinton 2012; centered: Graves 2013, arXiv 1308.0850).  In PyTorch: torch_ref/rmsprop.py

vₜ = α vₜ₋₁ + (1 − α) gₜ²
θₜ₊₁ = θₜ − η gₜ / (√vₜ + ε)        centered: √(vₜ − aₜ²), aₜ = α aₜ₋₁ + (1 − α) gₜ
with momentum                       bₜ = μ bₜ₋₁ + gₜ / (√vₜ + ε),   θₜ₊₁ = θₜ − η bₜ
"""

from typing import NamedTuple

import optax
from jax.typing import DTypeLike

from . import checks
from . import numerics as nx
from .transform import transform


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


def rmsprop(
    learning_rate: optax.ScalarOrSchedule,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    *,
    maximize: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """RMSProp: each step is divided by a running root mean square of its gradients.

        vₜ = α vₜ₋₁ + (1 − α) gₜ²,   uₜ = −η gₜ / (√vₜ + ε)

    Args:
        learning_rate: η >= 0; a float, or a schedule `count -> float`.
        alpha: α >= 0, the decay of the averages.
        eps: ε >= 0, outside the square root.
        weight_decay: λ >= 0; λθ is added to the gradient (the L2 form).
        momentum: μ >= 0; other than 0 it keeps bₜ = μ bₜ₋₁ + gₜ / (√vₜ + ε), and uₜ = −η bₜ.
        centered: divide by √(vₜ − aₜ²) + ε, with aₜ the running mean of the gradients: by their standard deviation. Where the gradients
            are nearly constant the difference cancels, and may round to less than 0: NaN, as in torch.optim.
        maximize: ascend: the gradient is negated first.
        accumulator_dtype: float32 keeps the state of bfloat16 and float16 leaves, and their arithmetic, in float32; only the update is
            rounded to the leaf's dtype. Gradients may be float32 then; give `update` the parameters, so that it knows the leaf's.
            (In `optax.inject_hyperparams` write "float32": it would call jnp.float32 as a schedule.)
    Shapes: updates, `square_avg`, `momentum_buffer` and `grad_avg` follow each leaf; `step` is [].  Dtypes: float32, float64,
        bfloat16, float16; state in the leaf's dtype, or in `accumulator_dtype`.
    Raises: ValueError where a range above is broken; TypeError where a leaf is not floating point, or float64 on a TPU, naming it.
    Exactness: bit-equal to `torch_ref.RMSprop` in all four dtypes. Run on CPU; for GPU and TPU compiled, read and interpreted, not run.
    Differs from: torch.optim.RMSprop (FMAs; MKL's root), optax.rmsprop (ε inside the root by default, decay 0.9, rsqrt; its momentum
        is scaled by η, so that it differs under a schedule).
    Source: Tieleman & Hinton 2012, lecture 6.5; Graves 2013, equations 38 to 45; the form of torch.optim.RMSprop.
    Example:
        >>> import jax.numpy as jnp
        >>> tx = rmsprop(0.5, alpha=0.75, eps=0.0)
        >>> tx.update(jnp.array([2.0]), tx.init(jnp.array([1.0])))[0]
        Array([-1.], dtype=float32)
    """
    checks.at_least_zero("rmsprop", lr=learning_rate, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
    hyper = Hyper(learning_rate, alpha, eps, weight_decay, momentum, centered, maximize)
    initial_values = {
        "square_avg": 0.0,
        "momentum_buffer": None if nx.is_static_zero(momentum) else 0.0,
        "grad_avg": 0.0 if centered else None,
    }
    return transform("rmsprop", step, hyper, State, initial_values, accumulator_dtype=accumulator_dtype)
