"""Everything around the step at once, as a GPT is trained.  Mirror: jaxopt_impl/around/recipe.py

gradients → their mean over N microbatches → clipped by the global norm → AdamW, decay by path, on a warmed-up cosine → average of θ
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..adam import AdamW
from ..lr_scheduler import ScheduleLR
from . import checks, schedules
from .accumulation import Accumulator
from .averages import AveragedModel
from .clipping import clip_grad_norm_
from .masks import param_groups
from .norm import norm_dtype


def is_matrix(path):
    """Whether a parameter's path is that of a matrix: no bias, and of no normalization."""
    *layers, name = path.split(".")
    return name in ("weight", "kernel", "embedding") and not any("norm" in layer.lower() or layer.startswith("ln_") for layer in layers)


class Recipe:
    """Accumulate, clip, AdamW with a decay mask on a cosine with warm-up, and an average of the parameters: `jaxopt_impl.recipe`.

    Call `step()` after each microbatch's `backward()`, and `zero_grad()` after that. The parts are attributes: `optimizer`, `accumulator`,
    `scheduler`, `average` (an `AveragedModel`), and `norm`, that of the last gradients before they were clipped.

    Args: the model, whose parameters are trained; the others as `jaxopt_impl.recipe`; `dtype` as the schedulers.
    State: the parts' own: `state_dict` has "accumulator" (with the optimizer's in it), "scheduler", "average" and "norm".
    Dtypes: float32, float64, bfloat16, float16.
    Raises: ValueError and TypeError as the parts do, in their names.
    Exactness: bit-equal to `jaxopt_impl.recipe` in all four dtypes. Run on CPU only.
    Differs from: the same loop over PyTorch's parts, as its parts do; docs/around_differences.md measures it.
    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> recipe = Recipe(model, 0.5, 10, every=2)
        >>> for gradient in (3.0, 1.0):
        ...     (gradient * model.weight).sum().backward(); _ = recipe.step(); recipe.zero_grad()
        >>> model.weight.data
        tensor([[0.4500]])
    """

    def __init__(
        self,
        model: nn.Module,
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
        dtype: str = "float32",
    ):
        schedule = schedules.cosine(learning_rate, decay_steps, end_value)
        checks.whole("recipe", at_least=0, warmup_steps=warmup_steps)
        if warmup_steps:
            schedule = schedules.warm_up(schedule, warmup_steps)
        clip_grad_norm_([], max_norm)  # raises where max_norm is out of range
        self.model = model
        self.optimizer = AdamW(_groups(model, decayed, weight_decay), lr=learning_rate, betas=(b1, b2), eps=eps)
        self.scheduler = ScheduleLR(self.optimizer, schedule, dtype)
        self.average = AveragedModel(model, decay=ema_decay)
        self.accumulator = Accumulator(self.optimizer, every)
        self.norm = torch.zeros((), dtype=norm_dtype(model.parameters()))

        def clip(*_: Any) -> None:
            self.norm = clip_grad_norm_(model.parameters(), max_norm)

        self.optimizer.register_step_pre_hook(clip)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's."""
        return self.optimizer.param_groups

    @property
    def state(self) -> dict[Tensor, dict[str, Any]]:
        """For each parameter what the parts have of it."""
        averages = dict(zip(self.model.parameters(), self.average.module.parameters(), strict=True))
        gathered = self.accumulator.gathered
        return {
            p: {**self.optimizer.state.get(p, {}), "average": a.detach(), **({"gathered": gathered[p]} if p in gathered else {})}
            for p, a in averages.items()
        }

    @property
    def numbers(self) -> dict[str, Tensor]:
        """What the parts have of no parameter: the norm, and their counts as JAX has them, int32."""
        counts = {"microbatch": self.accumulator.microbatch, "skipped": self.accumulator.skipped, "n_averaged": self.average.n_averaged}
        return {"norm": self.norm, **{name: torch.tensor(int(count), dtype=torch.int32) for name, count in counts.items()}}

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def step(self) -> bool:
        """Take in the gradients of a microbatch; at the last one step. Whether it did."""
        stepped = self.accumulator.step()
        if stepped:
            self.scheduler.step()
            self.average.update_parameters(self.model)
        return stepped

    def state_dict(self) -> dict[str, Any]:
        parts = {"accumulator": self.accumulator, "scheduler": self.scheduler, "average": self.average}
        return {**{name: part.state_dict() for name, part in parts.items()}, "norm": self.norm}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, part in {"accumulator": self.accumulator, "scheduler": self.scheduler, "average": self.average}.items():
            part.load_state_dict(state_dict[name])
        self.norm = state_dict["norm"].clone()


def _groups(model: nn.Module, decayed: Callable[[str], bool], weight_decay: float) -> list[dict[str, Any]]:
    """What is decayed and what is not, as far as there is any."""
    options = {True: {"weight_decay": weight_decay}, False: {"weight_decay": 0.0}}
    there = {decayed(name) for name, _ in model.named_parameters()}
    return param_groups(model.named_parameters(), decayed, {label: own for label, own in options.items() if label in there})
