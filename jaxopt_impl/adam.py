"""Adam (Kingma & Ba 2015, arXiv 1412.6980), AMSGrad (Reddi et al. 2018), AdamW (Loshchilov & Hutter 2019).  In PyTorch: torch_ref/adam.py

mₜ = β₁ mₜ₋₁ + (1 − β₁) gₜ
vₜ = β₂ vₜ₋₁ + (1 − β₂) gₜ²
θₜ₊₁ = θₜ − ηₜ mₜ / (√vₜ / cₜ + ε),   ηₜ = η / (1 − β₁ᵗ),   cₜ = √(1 − β₂ᵗ)
AMSGrad: max(v₁ … vₜ) in the place of vₜ        AdamW: − η λ θₜ as well
"""

from typing import Any, NamedTuple

import optax
from jax.typing import DTypeLike

from . import checks
from . import numerics as nx
from .masks import decayed_where
from .transform import transform


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


def adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam: RMSProp with a running mean in the place of the gradient, and both averages corrected for their start at 0.

        mₜ = β₁ mₜ₋₁ + (1 − β₁) gₜ,   vₜ = β₂ vₜ₋₁ + (1 − β₂) gₜ²,   uₜ = −η/(1 − β₁ᵗ) mₜ / (√vₜ/√(1 − β₂ᵗ) + ε)

    The corrections are computed in float64, βᵗ by binary powering, and rounded once.

    Args:
        learning_rate: η >= 0; a float, or a schedule `count -> float`.
        b1: 0 <= β₁ < 1, the decay of the mean.
        b2: 0 <= β₂ < 1, the decay of the mean square.
        eps: ε >= 0, outside the square root.
        weight_decay: λ >= 0; λθ is added to the gradient (the L2 form; `adamw` has the other).
        amsgrad: divide by the root of the largest vₜ so far.
        maximize: ascend: the gradient is negated first.
        accumulator_dtype: float32 keeps the state of bfloat16 and float16 leaves, and their arithmetic, in float32; only the update is
            rounded to the leaf's dtype. Gradients may be float32 then; give `update` the parameters, so that it knows the leaf's.
            (In `optax.inject_hyperparams` write "float32": it would call jnp.float32 as a schedule.)
        mu_dtype: bfloat16 keeps `exp_avg` in it, as in optax, whatever the leaf's dtype and `accumulator_dtype` are. mₜ is computed in the
            same dtype as without, used as it is, and rounded once when it is stored.
    Shapes: updates, `exp_avg`, `exp_avg_sq` and `max_exp_avg_sq` follow each leaf; `step` is [].  Dtypes: float32, float64,
        bfloat16, float16; state in the leaf's dtype, or in `accumulator_dtype`; `exp_avg` in `mu_dtype`.
    Raises: ValueError where a range above is broken; TypeError where a leaf is not floating point, or float64 on a TPU, naming it.
    Exactness: bit-equal to `torch_ref.Adam` in all four dtypes. Run on CPU; for GPU and TPU compiled, read and interpreted, not run.
    Differs from: torch.optim.Adam (lerp and addcmul: FMAs; MKL's root; `pow`), optax.adam (corrections in float32, each moment divided by
        its own; AMSGrad takes the maximum of the corrected moments; with `mu_dtype` it rounds β₁ mₜ₋₁ as well).
    Source: Kingma & Ba 2015, algorithm 1, in the form at the end of its section 2; Reddi, Kale & Kumar 2018, algorithm 2.
    Example:
        >>> import jax.numpy as jnp
        >>> tx = adam(0.5, b1=0.5, b2=0.75, eps=0.0)
        >>> tx.update(jnp.array([2.0]), tx.init(jnp.array([1.0])))[0]
        Array([-0.5], dtype=float32)
    """
    arguments = (learning_rate, b1, b2, eps, weight_decay, amsgrad, maximize, accumulator_dtype, mu_dtype)
    return _adam("adam", *arguments, decoupled_weight_decay=False)


def adamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
    *,
    mask: Any = None,
    maximize: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW: Adam whose weight decay does not pass through the averages.

        mₜ, vₜ as in `adam`;   uₜ = −(η/(1 − β₁ᵗ) mₜ / (√vₜ/√(1 − β₂ᵗ) + ε) + ηλ θₜ)

    Args:
        learning_rate: η >= 0; a float, or a schedule `count -> float`.
        b1: 0 <= β₁ < 1, the decay of the mean.
        b2: 0 <= β₂ < 1, the decay of the mean square.
        eps: ε >= 0, outside the square root.
        weight_decay: λ >= 0; ηλθ is subtracted from the parameter, ηλ computed in float64.
        amsgrad: divide by the root of the largest vₜ so far.
        mask: which leaves are decayed: a tree of booleans like the parameters', or a prefix of it, or a function from parameters to one.
            By default all are. The state is the same with and without. (In `optax.inject_hyperparams` say static_args="mask" where it
            is a function: it would be called as a schedule.)
        maximize: ascend: the gradient is negated first.
        accumulator_dtype: float32 keeps the state of bfloat16 and float16 leaves, and their arithmetic, in float32; only the update is
            rounded to the leaf's dtype. Gradients may be float32 then; give `update` the parameters, so that it knows the leaf's.
            (In `optax.inject_hyperparams` write "float32": it would call jnp.float32 as a schedule.)
        mu_dtype: bfloat16 keeps `exp_avg` in it, as in optax, whatever the leaf's dtype and `accumulator_dtype` are. mₜ is computed in the
            same dtype as without, used as it is, and rounded once when it is stored.
    Shapes: updates, `exp_avg`, `exp_avg_sq` and `max_exp_avg_sq` follow each leaf; `step` is [].  Dtypes: float32, float64,
        bfloat16, float16; state in the leaf's dtype, or in `accumulator_dtype`; `exp_avg` in `mu_dtype`.
    Raises: ValueError where a range above is broken, or the mask is another tree than the parameters; TypeError where a leaf is not
        floating point, or float64 on a TPU, or one of the mask is no boolean, naming it.
    Exactness: bit-equal to `torch_ref.AdamW` in all four dtypes; with a mask, to two groups there, one of weight_decay 0. Run on CPU; for
        GPU and TPU compiled, read and interpreted, not run.
    Differs from: torch.optim.AdamW (shrinks the parameter first, θ (1 − ηλ), then steps; FMAs; MKL's root), optax.adamw (decay 1e-4;
        corrections in float32; with `mu_dtype` it rounds β₁ mₜ₋₁ as well).
    Source: Loshchilov & Hutter 2019, algorithm 2, with the schedule multiplier inside η.
    Example:
        >>> import jax.numpy as jnp
        >>> tx = adamw(0.5, b1=0.5, b2=0.75, eps=0.0, weight_decay=0.5)
        >>> tx.update(jnp.array([2.0]), tx.init(jnp.array([1.0])), jnp.array([1.0]))[0]
        Array([-0.75], dtype=float32)
    """
    arguments = (amsgrad, maximize, accumulator_dtype, mu_dtype)
    decayed = _adam("adamw", learning_rate, b1, b2, eps, weight_decay, *arguments, decoupled_weight_decay=True)
    if mask is None:
        return decayed
    plain = _adam("adamw", learning_rate, b1, b2, eps, 0.0, *arguments, decoupled_weight_decay=True)
    return decayed_where("adamw", mask, decayed, plain)


def _adam(
    name, learning_rate, b1, b2, eps, weight_decay, amsgrad, maximize, accumulator_dtype, mu_dtype, *, decoupled_weight_decay
) -> optax.GradientTransformationExtraArgs:
    checks.at_least_zero(name, lr=learning_rate, eps=eps, weight_decay=weight_decay)
    checks.beta(name, 0, "b1", b1)
    checks.beta(name, 1, "b2", b2)
    hyper = Hyper(learning_rate, b1, b2, eps, weight_decay, amsgrad, maximize, decoupled_weight_decay)
    initial_values = {"exp_avg": 0.0, "exp_avg_sq": 0.0, "max_exp_avg_sq": 0.0 if amsgrad else None}
    dtypes = {"accumulator_dtype": accumulator_dtype, "own_dtypes": {"exp_avg": checks.first_moment(name, mu_dtype)}}
    return transform(name, step, hyper, State, initial_values, prepare=prepare, **dtypes)
