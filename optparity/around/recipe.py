"""The recipe as a whole: accumulate, clip, AdamW with a mask on a warmed-up cosine, average."""

from collections.abc import Callable
from typing import Any

import optax

import jaxopt_impl

from ..registry import Refused
from .piece import Piece, named

ARGUMENTS = {"learning_rate": 0.01, "decay_steps": 40, "warmup_steps": 5, "ema_decay": 0.9}


class Shown:
    """A `torch_ref.Recipe` whose numbers stand in the state of each parameter."""

    def __init__(self, recipe: Any):
        self.recipe, self.step = recipe, recipe.step

    @property
    def state(self) -> dict[Any, dict[str, Any]]:
        return {p: own | self.recipe.numbers for p, own in self.recipe.state.items()}


def _torch(**arguments: Any) -> Callable[[list], Any]:
    import torch

    import torch_ref

    def made(params: list) -> Any:
        dtype = "float64" if params[0].dtype == torch.float64 else "float32"
        return Shown(torch_ref.Recipe(torch.nn.ParameterDict(named(params)), **arguments, dtype=dtype))

    return made


def _stock_jax(
    *, learning_rate, decay_steps, warmup_steps=0, end_value=0.0, every=1, ema_decay, max_norm=1.0, **adamw: Any
) -> optax.GradientTransformation:
    """The same chain of optax's parts; its average is left out, which moves no parameter."""
    del ema_decay
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, warmup_steps + decay_steps, end_value)
    mask = jaxopt_impl.by_path(jaxopt_impl.is_matrix)
    step = optax.adamw(schedule, mask=mask, **{"b2": 0.95, "weight_decay": 0.1, **adamw})
    return optax.MultiSteps(optax.chain(optax.clip_by_global_norm(max_norm), step), every).gradient_transformation()


def _stock_torch(**arguments: Any) -> Callable[[list], Any]:
    """The same loop over torch's parts: each loss divided by the number of microbatches."""
    from ._stock_loop import StockLoop

    return lambda params: StockLoop(params, **arguments)


RECIPE = Piece(
    name="recipe",
    rows={
        "default": ARGUMENTS,
        "microbatches": {**ARGUMENTS, "every": 3},
        "clipped hard, eps for float16": {**ARGUMENTS, "max_norm": 0.01, "eps": 1e-4, "weight_decay": 0.5, "b1": 0.8, "end_value": 0.001},
    },
    jax=jaxopt_impl.recipe,
    torch=_torch,
    state=("gathered", "microbatch", "skipped", "norm", "exp_avg", "exp_avg_sq", "average", "n_averaged"),
    stock_jax=_stock_jax,
    stock_torch=_stock_torch,
    refused=(
        Refused({**ARGUMENTS, "every": 0}, "Invalid every value: 0 (accumulate: every >= 1)"),
        Refused({**ARGUMENTS, "warmup_steps": -1}, "Invalid warmup_steps value: -1 (recipe: warmup_steps >= 0)"),
        Refused({**ARGUMENTS, "max_norm": -1.0}, "Invalid max_norm value: -1.0 (clip_by_global_norm: max_norm >= 0)"),
        Refused({**ARGUMENTS, "ema_decay": 1.5}, "Invalid decay value: 1.5 (params_ema: decay >= 0 and decay <= 1)"),
    ),
    differs="the sum of its parts: torch adds 1e-6 to the norm, optax means with a running mean, the decay comes before or after the step",
)

PIECES = (RECIPE,)
