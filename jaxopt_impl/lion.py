"""Lion (Chen et al. 2023, arXiv 2302.06675, algorithm 2).  In PyTorch: torch_ref/lion.py

cₜ = β₁ mₜ₋₁ + (1 − β₁) gₜ
θₜ₊₁ = θₜ − η (sign(cₜ) + λ θₜ)
mₜ = β₂ mₜ₋₁ + (1 − β₂) gₜ
"""

from typing import NamedTuple

import optax
from jax.typing import DTypeLike

from . import checks
from . import numerics as nx
from .transform import transform


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


def lion(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float = 0.0,
    *,
    maximize: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Lion: every coordinate moves by η, in the direction that an average of the gradients has; weight decay is decoupled.

        cₜ = β₁ mₜ₋₁ + (1 − β₁) gₜ,   uₜ = −η (sign(cₜ) + λ θₜ),   mₜ = β₂ mₜ₋₁ + (1 − β₂) gₜ

    The sign of a zero is that zero, the sign of NaN is NaN.

    Args:
        learning_rate: η >= 0; a float, or a schedule `count -> float`. The paper takes a third to a tenth of AdamW's.
        b1: 0 <= β₁ < 1, the weight of the average in the direction of a step.
        b2: 0 <= β₂ < 1, the decay of the average.
        weight_decay: λ >= 0; λθ is added to the sign, before η. The paper takes three to ten times AdamW's.
        maximize: ascend: the gradient is negated first.
        accumulator_dtype: float32 keeps the state of bfloat16 and float16 leaves, and their arithmetic, in float32; only the update is
            rounded to the leaf's dtype. Gradients may be float32 then; give `update` the parameters, so that it knows the leaf's.
            (In `optax.inject_hyperparams` write "float32": it would call jnp.float32 as a schedule.)
        mu_dtype: bfloat16 keeps `exp_avg` in it, as in optax, whatever the leaf's dtype and `accumulator_dtype` are. mₜ is computed in the
            same dtype as without, used as it is, and rounded once when it is stored.
    Shapes: updates and `exp_avg` follow each leaf; `step` is [].  Dtypes: float32, float64, bfloat16, float16; state in the leaf's
        dtype, or in `accumulator_dtype`, or in `mu_dtype`.
    Raises: ValueError where a range above is broken; TypeError where a leaf is not floating point, or float64 on a TPU, naming it.
    Exactness: bit-equal to `torch_ref.Lion` in all four dtypes. Run on CPU; for GPU and TPU compiled, read and interpreted, not run.
    Differs from: optax.lion (weight_decay 1e-3; XLA contracts; with `mu_dtype` it rounds β mₜ₋₁ as well), torch.optim, which has no Lion.
    Source: Chen, Liang, Huang et al. 2023, algorithm 2; defaults of the authors' program.
    Example:
        >>> import jax.numpy as jnp
        >>> tx = lion(0.5)
        >>> tx.update(jnp.array([2.0, -0.1]), tx.init(jnp.array([1.0, 1.0])))[0]
        Array([-0.5,  0.5], dtype=float32)
    """
    checks.at_least_zero("lion", lr=learning_rate, weight_decay=weight_decay)
    checks.beta("lion", 0, "b1", b1)
    checks.beta("lion", 1, "b2", b2)
    hyper = Hyper(learning_rate, b1, b2, weight_decay, maximize)
    dtypes = {"accumulator_dtype": accumulator_dtype, "own_dtypes": {"exp_avg": checks.first_moment("lion", mu_dtype)}}
    return transform("lion", step, hyper, State, {"exp_avg": 0.0}, **dtypes)
