"""Planted mistakes: for each the right implementation, the mistaken one, and what the explanation must say."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..versus.factories import Named
from .sides import Loop, Side

SENTENCES = Path(__file__).with_name("planted.json")


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A mistake.

    Attributes:
        name: what somebody did.
        setting: the setting of the family that it changes.
        right, wrong: the two sides.
        hyperparameters: what neither side says of itself.
    """

    name: str
    setting: str
    right: Side
    wrong: Side
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The explanation, word for word."""
        return _sentences()[self.name]


@cache
def _sentences() -> dict[str, str]:
    return json.loads(SENTENCES.read_text(encoding="utf-8"))


@cache
def planted() -> tuple[Planted, ...]:
    """All of them, by the code that they are in."""
    return (*_optimizers(), *_chains(), *_loops())


def _optimizers() -> list[Planted]:
    def of(name: str, setting: str, right: str, wrong: str, **arguments: Any) -> Planted:
        sides = (Named("torch", f"torch_ref:{right}", arguments), Named("torch", f"{__package__}.planted_torch:{wrong}", arguments))
        return Planted(name=name, setting=setting, right=sides[0], wrong=sides[1])

    adam = {"lr": 0.01}
    decayed = {"lr": 0.01, "weight_decay": 0.1}
    return [
        of("Adam: eps inside the root", "eps_place", "Adam", "EpsInside", **adam),
        of("Adam: eps before the bias correction", "eps_place", "Adam", "EpsBeforeCorrection", **adam),
        of("Adam: no bias correction", "bias_correction", "Adam", "NoBiasCorrection", **adam),
        of("Adam: second moment not corrected", "bias_correction", "Adam", "FirstMomentCorrected", **adam),
        of("Adam: bias correction off by one", "bias_correction", "Adam", "CountsOneAhead", **adam),
        of("Adam: bias correction in float32", "bias_correction", "Adam", "CorrectionInFloat32", **adam),
        of("Adam: betas rounded to float32", "beta_dtype", "Adam", "BetasInFloat32", **adam),
        of("Adam: betas exchanged", "betas", "Adam", "BetasExchanged", **adam),
        of("Adam: first moment in bfloat16", "state_dtype", "Adam", "bfloat16_moment", **adam),
        of("AMSGrad: maximum after the correction", "amsgrad", "Adam", "MaximumAfterCorrection", amsgrad=True, **adam),
        of("AdamW: decay after the step", "decay", "AdamW", "DecayAfterStep", **decayed),
        of("AdamW: decay in the gradient", "decay", "AdamW", "DecayInGradient", **decayed),
        of("AdamW: decay without lr", "decay_times", "AdamW", "DecayWithoutLr", **decayed),
        of("AdamW: decay of matrices alone", "decay_on", "AdamW", "matrices_decayed", **decayed),
        of("SGD: first step damped", "first_step", "SGD", "FirstStepDamped", lr=0.1, momentum=0.9, dampening=0.1),
        of("SGD: mean in place of the sum", "dampening", "SGD", "Averaged", lr=0.1, momentum=0.9),
        of("SGD: Nesterov without the factor", "nesterov", "SGD", "NesterovWithoutFactor", lr=0.1, momentum=0.9, nesterov=True),
        of("SGD: Nesterov forgotten", "nesterov", "SGD", "NesterovForgotten", lr=0.1, momentum=0.9, nesterov=True),
        of("AdaGrad: sum starts at 0.1", "initial", "AdaGrad", "SumStartsAtTenth", lr=0.1),
        of("AdaGrad: eps outside the root", "eps_place", "AdaGrad", "EpsOutside", lr=0.1),
        of("AdaGrad: sum updated after the step", "sum_sees", "AdaGrad", "SumUpdatedLast", lr=0.1, initial_accumulator_value=0.1),
        of("AdaGrad: lr decays from the first step", "lr_decay_start", "AdaGrad", "LrDecaysAtOnce", lr=0.1, lr_decay=1e-3),
        of("RMSprop: eps inside the root", "eps_place", "RMSprop", "RmsEpsInside", lr=0.01),
        of("RMSprop: not centered", "centered", "RMSprop", "NotCentered", lr=0.01, eps=1e-3, centered=True),
        of("RMSprop: mean square starts at 1", "initial", "RMSprop", "MeanStartsAtOne", lr=0.01),
        of("Lion: sign of the new momentum", "sign_of", "Lion", "SignOfMomentum", lr=0.01, betas=(0.9, 0.99)),
    ]


def _chains() -> list[Planted]:
    def of(name: str, setting: str, right: str, wrong: str, said: dict[str, Any], **arguments: Any) -> Planted:
        sides = [Named("jax", f"{__package__}.planted_optax:{each}", {"learning_rate": 0.1, **arguments}) for each in (right, wrong)]
        return Planted(name=name, setting=setting, right=sides[0], wrong=sides[1], hyperparameters=said)

    adamw = {"rule": "adam", "decay": "decoupled"}
    sgd = {"rule": "sgd", "momentum": 0.9}
    return [
        of("optax: decay before Adam's scale", "decay", "adamw", "decay_first", adamw, weight_decay=0.1),
        of("optax: decay behind the learning rate", "decay_times", "adamw", "decay_last", adamw, weight_decay=0.03),
        of("optax: microbatches summed", "accumulation", "microbatches", "microbatches_summed", sgd, every=2),
        of("optax: warm-up starts at one step", "schedule_start", "warmed_up", "warmed_up_at_once", sgd, warmup_steps=10),
        Planted(
            name="optax: AdaGrad's sum starts at 0.1",
            setting="initial",
            right=Named("jax", "optax:adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.0}),
            wrong=Named("jax", "optax:adagrad", {"learning_rate": 0.1}),
        ),
    ]


def _loops() -> list[Planted]:
    from . import planted_torch

    def side(name: str) -> Loop:
        training: Any = getattr(planted_torch, name)
        return Loop("torch", name, lambda params, gradient, steps: training().run(params, gradient, steps), training.says)

    def of(name: str, setting: str, wrong: str, right: str = "Training") -> Planted:
        return Planted(name=name, setting=setting, right=side(right), wrong=side(wrong))

    return [
        of("clip: nothing added to the norm", "clip", "ClipAddsNothing"),
        of("clip: scale not clamped to 1", "clip", "ClipNotClamped"),
        of("clip: each leaf by its own norm", "clip", "ClipsEachLeaf"),
        of("clip: by value", "clip", "ClipsByValue"),
        of("clip: forgotten", "clip", "ClipForgotten"),
        of("clip: each microbatch", "clip_order", "ClipsEachMicrobatch"),
        of("clip: after the weight decay", "decay", "DecayBeforeClip"),
        of("microbatches: summed", "accumulation", "MicrobatchesSummed"),
        of("microbatches: the last alone", "accumulation", "LastMicrobatchAlone"),
        of("gradient: wrong sign", "maximize", "WrongSign"),
        of("gradient: in bfloat16", "gradient_dtype", "GradientsInBfloat16"),
        of("cosine: to T - 1", "schedule_length", "CosineToTMinusOne"),
        of("schedule: one step ahead", "schedule_start", "ScheduleOneStepAhead"),
        of("schedule: lr inside the velocity", "velocity", "LrInVelocity"),
        of("average: starts at zero", "ema_start", "AverageStartsAtZero", "Averaging"),
        of("average: starts at zero, debiased", "ema_start", "AverageDebiased", "Averaging"),
        of("average: taken before the step", "ema_sees", "AverageBeforeStep", "Averaging"),
        of("average: decay warmed up", "ema_warmup", "AverageWarmedUp", "Averaging"),
    ]
