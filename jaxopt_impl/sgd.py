"""SGD with the momentum of torch.optim (Sutskever et al. 2013, ICML, with dampening).  In PyTorch: torch_ref/sgd.py

bₜ = μ bₜ₋₁ + (1 − τ) gₜ,   b₁ = g₁, which is μ b₀ + 1 g₁ for b₀ = −0
θₜ₊₁ = θₜ − η bₜ            Nesterov: θₜ₊₁ = θₜ − η (gₜ + μ bₜ)
"""

from typing import NamedTuple

import optax
from jax.typing import DTypeLike

from . import checks
from . import numerics as nx
from .transform import transform


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


def sgd(
    learning_rate: optax.ScalarOrSchedule,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SGD, with momentum as torch.optim.SGD means it: the first gradient enters the buffer undamped.

        bₜ = μ bₜ₋₁ + (1 − τ) gₜ,  b₁ = g₁;   uₜ = −η bₜ,  or −η (gₜ + μ bₜ) with `nesterov`

    Args:
        learning_rate: η >= 0; a float, or a schedule `count -> float`.
        momentum: μ >= 0; 0 keeps no buffer. (∞ would make NaN of b₀ = −0.)
        dampening: τ.
        weight_decay: λ >= 0; λθ is added to the gradient (the L2 form).
        nesterov: look ahead; needs momentum > 0 and dampening = 0.
        maximize: ascend: the gradient is negated first.
        accumulator_dtype: float32 keeps the state of bfloat16 and float16 leaves, and their arithmetic, in float32; only the update is
            rounded to the leaf's dtype. Gradients may be float32 then; give `update` the parameters, so that it knows the leaf's.
            (In `optax.inject_hyperparams` write "float32": it would call jnp.float32 as a schedule.)
    Shapes: updates and `momentum_buffer` (before the first step −0) follow each leaf; `step` is [].  Dtypes: float32, float64,
        bfloat16, float16; state in the leaf's dtype, or in `accumulator_dtype`.
    Raises: ValueError where a range above is broken; TypeError where a leaf is not floating point, or float64 on a TPU, naming it.
    Exactness: bit-equal to `torch_ref.SGD` in all four dtypes. Run on CPU; for GPU and TPU compiled, read and interpreted, not run.
    Differs from: torch.optim.SGD (contracts μ b + (1 − τ) g and θ − η d to FMAs on AVX2), optax.sgd (no dampening; its trace
        starts from 0, which makes 0 of a first gradient of −0; XLA contracts).
    Source: Sutskever, Martens, Dahl & Hinton 2013, section 2; the form of torch.optim.SGD.
    Example:
        >>> import jax.numpy as jnp
        >>> tx = sgd(0.5, momentum=0.9)
        >>> tx.update(jnp.array([2.0]), tx.init(jnp.array([1.0])))[0]
        Array([-1.], dtype=float32)
    """
    checks.at_least_zero("sgd", lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    checks.not_nan("sgd", dampening=dampening)
    checks.nesterov("sgd", nesterov, momentum, dampening)
    hyper = Hyper(learning_rate, momentum, dampening, weight_decay, nesterov, maximize)
    initial_values = {"momentum_buffer": None if nx.is_static_zero(momentum) else -0.0}
    return transform("sgd", step, hyper, State, initial_values, prepare=prepare, accumulator_dtype=accumulator_dtype)
