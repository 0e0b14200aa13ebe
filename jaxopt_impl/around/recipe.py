"""Everything around the step at once, as a GPT is trained.  Mirror: torch_ref/around/recipe.py

gradients → their mean over N microbatches → clipped by the global norm → AdamW, decay by path, on a warmed-up cosine → average of θ
"""

from collections.abc import Callable

import optax

from ..adam import adamw
from . import checks, schedules
from .accumulation import accumulate
from .averages import params_ema
from .clipping import clip_by_global_norm
from .masks import by_path


def is_matrix(path):
    """Whether a parameter's path is that of a matrix: no bias, and of no normalization."""
    *layers, name = path.split(".")
    return name in ("weight", "kernel", "embedding") and not any("norm" in layer.lower() or layer.startswith("ln_") for layer in layers)


def recipe(
    learning_rate: float,
    decay_steps: int,
    *,
    warmup_steps: int = 0,
    end_value: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.1,
    decayed: Callable[[str], bool] = is_matrix,
    max_norm: float = 1.0,
    every: int = 1,
    ema_decay: float = 0.999,
) -> optax.GradientTransformationExtraArgs:
    """Accumulate, clip, AdamW with a decay mask on a cosine with warm-up, and an average of the parameters.

        accumulate(chain(clip_by_global_norm, adamw, params_ema), every)

    Args:
        learning_rate: η >= 0, where the warm-up ends.
        decay_steps: how many steps the cosine goes down for, those of the warm-up not counted. A step is `every` microbatches.
        warmup_steps: how many steps η goes up for, from 0 on a line; the first step is done with 0 then.
        end_value: η at the end of the cosine, and from there on.
        b1, b2, eps, weight_decay: as `adamw`.
        decayed: of a parameter's path, dotted as torch's names are: whether it is decayed. By default matrices are.
        max_norm: as `clip_by_global_norm`.
        every: as `accumulate`.
        ema_decay: as `params_ema`'s decay; `averaged(state)` reads the average.
    Shapes, Dtypes: as those of the parts.
    Raises: ValueError and TypeError as the parts do, in their names.
    Exactness: bit-equal to `torch_ref.Recipe` in all four dtypes. Run on CPU; GPU and TPU not run.
    Differs from: the same chain of optax's parts, as its parts do; docs/around_differences.md measures it.
    Source: GPT-2 and GPT-3 (Brown et al. 2020, appendix B) for the clip, AdamW and the schedule.
    Example:
        >>> import jax.numpy as jnp
        >>> tx = recipe(0.5, 10, b1=0.5, b2=0.75, eps=0.0, weight_decay=0.5, every=2)
        >>> params = {"kernel": jnp.array([[1.0]])}
        >>> state = tx.init(params)
        >>> _, state = tx.update({"kernel": jnp.array([[3.0]])}, state, params)
        >>> updates, state = tx.update({"kernel": jnp.array([[1.0]])}, state, params)
        >>> updates
        {'kernel': Array([[-0.75]], dtype=float32)}
    """
    schedule = schedules.cosine(learning_rate, decay_steps, end_value)
    checks.whole("recipe", at_least=0, warmup_steps=warmup_steps)
    if warmup_steps:
        schedule = schedules.warm_up(schedule, warmup_steps)
    step = optax.chain(
        clip_by_global_norm(max_norm),
        adamw(schedule, b1, b2, eps, weight_decay, mask=by_path(decayed)),
        params_ema(ema_decay),
    )
    return accumulate(step, every)
