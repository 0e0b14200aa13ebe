"""Momentum in the velocity form (Polyak 1964, as written by Sutskever et al. 2013).  In PyTorch: torch_ref/momentum.py

vₜ = μ vₜ₋₁ − η gₜ
θₜ₊₁ = θₜ + vₜ
"""

from typing import NamedTuple

import optax
from jax.typing import DTypeLike

from . import checks
from . import numerics as nx
from .transform import transform


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


def momentum(
    learning_rate: optax.ScalarOrSchedule,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    *,
    maximize: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Momentum: a velocity that decays by μ and is pushed by each gradient; the learning rate is inside the velocity.

        vₜ = μ vₜ₋₁ − η gₜ,   uₜ = vₜ

    Args:
        learning_rate: η >= 0; a float, or a schedule `count -> float`.
        momentum: μ >= 0.
        weight_decay: λ >= 0; λθ is added to the gradient (the L2 form).
        maximize: ascend: the gradient is negated first.
        accumulator_dtype: float32 keeps the state of bfloat16 and float16 leaves, and their arithmetic, in float32; only the update is
            rounded to the leaf's dtype. Gradients may be float32 then; give `update` the parameters, so that it knows the leaf's.
            (In `optax.inject_hyperparams` write "float32": it would call jnp.float32 as a schedule.)
    Shapes: updates and `momentum_buffer` follow each leaf; `step` is [].  Dtypes: float32, float64,
        bfloat16, float16; state in the leaf's dtype, or in `accumulator_dtype`.
    Raises: ValueError where a range above is broken; TypeError where a leaf is not floating point, or float64 on a TPU, naming it.
    Exactness: bit-equal to `torch_ref.Momentum` in all four dtypes. Run on CPU; for GPU and TPU compiled, read and interpreted, not run.
    Differs from: torch.optim.SGD(momentum=μ) and optax.sgd(momentum=μ), which keep b = −v/η: the same path for a constant η,
        another one under a schedule, where a velocity keeps the learning rates that it was built with.
    Source: Sutskever, Martens, Dahl & Hinton 2013, equations 1 and 2.
    Example:
        >>> import jax.numpy as jnp
        >>> tx = momentum(0.5)
        >>> tx.update(jnp.array([2.0]), tx.init(jnp.array([1.0])))[0]
        Array([-1.], dtype=float32)
    """
    checks.at_least_zero("momentum", lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    hyper = Hyper(learning_rate, momentum, weight_decay, maximize)
    initial_values = {"momentum_buffer": 0.0}
    return transform("momentum", step, hyper, State, initial_values, accumulator_dtype=accumulator_dtype)
