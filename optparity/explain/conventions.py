"""The conventions in which optimizers are known to differ: what each value of a setting means, and how one says it to an optimizer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .family import Settings


class Choice(NamedTuple):
    """A value of a convention in words: what an optimizer does that has it ("has ε inside the root"), and what makes it so."""

    does: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Convention:
    """A setting that is one of a few.

    Attributes:
        name: of the setting.
        rules: those that read it; every rule where there are none.
        choices: value -> words.
        matters: whether a member with these other settings depends on it at all.
        arguments: argument of a factory or constructor -> value of the setting -> value of the argument.
    """

    name: str
    rules: tuple[str, ...] = ()
    choices: Mapping[Any, Choice]
    matters: Callable[[Settings], Any] = lambda s: True
    arguments: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)

    def does(self, value: Any) -> str:
        return self.choices[value].does

    def remedy(self, value: Any) -> str:
        return self.choices[value].remedy


@dataclass(frozen=True, kw_only=True)
class Number:
    """A hyper-parameter, with the values that it is often given.

    Attributes:
        name: of the setting.
        does_: words with the value in braces.
        remedy_: what makes it so; by default that `name` must be the value.
        rules, matters: as of a convention.
        common: values to try.
        arguments: what factories and constructors call it.
    """

    name: str
    does_: str
    remedy_: str = ""
    rules: tuple[str, ...] = ()
    common: tuple[Any, ...] = ()
    matters: Callable[[Settings], Any] = lambda s: True
    arguments: tuple[str, ...] = ()

    @property
    def choices(self) -> tuple[Any, ...]:
        return self.common

    def does(self, value: Any) -> str:
        return self.does_.format(value)

    def remedy(self, value: Any) -> str:
        return self.remedy_.format(value) or f"{self.name} must be {value}"


def _has_moments(s: Settings) -> Any:
    return s.rule != "sgd" or s.momentum


def _lr_moves(s: Settings) -> bool:
    return callable(s.lr) or s.schedule != "constant" or s.warmup_steps > 0


def _decays(s: Settings) -> Any:
    return s.weight_decay


def _decoupled(s: Settings) -> Any:
    return s.weight_decay and s.decay.startswith("decoupled")


def _averages(s: Settings) -> bool:
    return s.ema_decay is not None


def _clips(s: Settings) -> bool:
    return s.max_norm is not None


CONVENTIONS: tuple[Convention | Number, ...] = (
    Convention(
        name="eps_place",
        rules=("adagrad", "rmsprop", "adam"),
        choices={
            "outside": Choice("has eps outside the root", "eps must be added after the root"),
            "inside": Choice("has eps inside the root", "eps must be added under the root"),
            "before the correction": Choice(
                "adds eps to the root before the bias correction",
                "eps must be added after sqrt(v) is divided by sqrt(1 - b2**t), or not at all",
            ),
        },
        matters=lambda s: s.eps,
        arguments={"eps_in_sqrt": {"inside": True, "outside": False}},
    ),
    Convention(
        name="first_step",
        rules=("sgd",),
        choices={
            "undamped": Choice("begins the momentum buffer as the first gradient", "the first gradient must enter the buffer undamped"),
            "damped": Choice("damps the first gradient too", "the first gradient must be multiplied by 1 - dampening"),
        },
        matters=lambda s: s.momentum and s.dampening,
    ),
    Number(
        name="dampening",
        does_="has dampening {:g}",
        remedy_="dampening must be {:g}, the buffer being momentum * b + (1 - dampening) * g",
        rules=("sgd",),
        common=(0.0, 0.1, 0.9),
        matters=lambda s: s.momentum,
        arguments=("dampening",),
    ),
    Convention(
        name="nesterov",
        rules=("sgd", "rmsprop", "adam"),
        choices={
            "no": Choice("has no Nesterov momentum", "nesterov must be off"),
            "g + μ b": Choice("has Nesterov momentum, g + μ b", "the step must be g + momentum * b, b the new buffer"),
            "damped": Choice("has Nesterov momentum, (1 - τ) g + μ b", "the step must be (1 - dampening) * g + momentum * b"),
            "g + b": Choice("adds the gradient to the buffer without μ", "the step must be g + b"),
            "a moving factor": Choice("moves Nesterov's factor, b1 (1 - 0.96^(t ψ) / 2)", "b1 must move with momentum_decay, as in torch"),
        },
        matters=lambda s: s.rule == "adam" or s.momentum,
        arguments={"nesterov": {"no": False, "g + μ b": True}},
    ),
    Convention(
        name="velocity",
        rules=("sgd", "rmsprop"),
        choices={
            "without lr": Choice("multiplies by lr after the momentum buffer", "lr must multiply what the buffer gives"),
            "with lr": Choice("has lr inside the velocity", "lr must multiply what enters the buffer"),
        },
        matters=lambda s: s.momentum and _lr_moves(s),
    ),
    Convention(
        name="bias_correction",
        rules=("adam", "rmsprop"),
        choices={
            "both": Choice("corrects the bias", "both moments must be divided by 1 - beta**t, t = 1 at the first step"),
            "none": Choice("corrects no bias", "the bias correction must be left out"),
            "first only": Choice("corrects the bias of the first moment alone", "the second moment must not be corrected"),
            "second only": Choice("corrects the bias of the second moment alone", "the first moment must not be corrected"),
            "one ahead": Choice("counts one step ahead in the bias correction", "t must be 2 at the first step of the bias correction"),
            "in float32": Choice("computes the bias correction in float32", "1 - beta**t must be computed in float32"),
        },
        arguments={"bias_correction": {"both": True, "none": False}},
    ),
    Convention(
        name="amsgrad",
        rules=("adam",),
        choices={
            "no": Choice("takes no maximum", "amsgrad must be off"),
            "before the correction": Choice(
                "takes AMSGrad's maximum before the bias correction", "the maximum must be over v, and be corrected afterwards"
            ),
            "after the correction": Choice("takes AMSGrad's maximum after the bias correction", "the maximum must be over the corrected v"),
        },
        arguments={"amsgrad": {"no": False, "before the correction": True}},
    ),
    Convention(
        name="beta_dtype",
        rules=("adam",),
        choices={
            "float64": Choice("has its betas in float64", "the betas must be Python floats until they meet a tensor"),
            "float32": Choice("rounds its betas to float32", "the betas must be rounded to float32 before 1 - beta is taken"),
        },
    ),
    Convention(
        name="betas",
        rules=("adam", "lion"),
        choices={
            "as said": Choice("takes (b1, b2) in this order", "b1 belongs to the first moment, b2 to the second"),
            "exchanged": Choice("exchanges b1 and b2", "b1 and b2 must change places"),
        },
        matters=lambda s: s.b1 != s.b2,
    ),
    Convention(
        name="sum_sees",
        rules=("adagrad", "rmsprop"),
        choices={
            "this gradient": Choice("updates the accumulator before it is used", "the accumulator must be updated before the step"),
            "those before": Choice("uses the accumulator before it is updated", "the accumulator must be updated after the step"),
        },
    ),
    Number(
        name="initial",
        does_="begins its accumulator at {:g}",
        remedy_="the accumulator must begin at {:g}",
        rules=("adagrad", "rmsprop", "adam"),
        common=(0.0, 0.1, 1.0),
        arguments=("initial_accumulator_value", "initial_scale"),
    ),
    Convention(
        name="centered",
        rules=("rmsprop",),
        choices={
            False: Choice("divides by the root of the mean square", "centered must be off"),
            True: Choice("subtracts the squared mean under the root (centered)", "centered must be on"),
        },
        arguments={"centered": {False: False, True: True}},
    ),
    Convention(
        name="sign_of",
        rules=("lion",),
        choices={
            "the interpolation": Choice(
                "takes the sign of b1 m + (1 - b1) g", "the sign must be that of b1 * m + (1 - b1) * g, m being the old one"
            ),
            "the momentum": Choice("takes the sign of the new momentum", "the sign must be that of the new momentum"),
        },
        matters=lambda s: s.b1 != s.b2,
    ),
    Convention(
        name="lr_decay_start",
        rules=("adagrad",),
        choices={
            "the second step": Choice("decays lr from the second step on", "lr must be divided by 1 + (t - 1) * lr_decay"),
            "the first step": Choice("decays lr from the first step on", "lr must be divided by 1 + t * lr_decay"),
        },
        matters=lambda s: s.lr_decay,
    ),
    Convention(
        name="maximize",
        choices={
            False: Choice("minimizes", "the sign of the gradient must be kept"),
            True: Choice("maximizes", "the gradient must be negated"),
        },
        arguments={"maximize": {False: False, True: True}},
    ),
    Convention(
        name="decay",
        choices={
            "coupled": Choice(
                "adds the weight decay to the gradient (coupled)", "weight_decay * p must be added to the gradient, after any clip"
            ),
            "decoupled": Choice("decouples the weight decay", "the decay must be taken from the parameter, apart from the gradient"),
            "decoupled, after the step": Choice(
                "decouples the weight decay and applies it after the step", "the decay must be of the parameter after the step"
            ),
            "coupled, before the clip": Choice("lets the clip see the weight decay", "weight_decay * p must be added before the clip"),
        },
        matters=_decays,
        arguments={"decoupled_weight_decay": {"coupled": False, "decoupled": True}},
    ),
    Convention(
        name="decay_times",
        choices={
            "lr": Choice("multiplies the decoupled decay by lr", "the decay must be lr * weight_decay * p"),
            "nothing": Choice("does not multiply the decoupled decay by lr", "the decay must be weight_decay * p, without lr"),
            "the first lr": Choice(
                "multiplies the decoupled decay by the peak lr, not by the scheduled one", "the decay must be multiplied by the peak lr"
            ),
        },
        matters=_decoupled,
    ),
    Convention(
        name="decay_on",
        choices={
            "all": Choice("decays every parameter", "vectors must be decayed too"),
            "matrices": Choice("decays matrices alone", "vectors (biases, norms) must not be decayed"),
        },
        matters=_decays,
    ),
    Convention(
        name="clip",
        choices={
            "torch": Choice(
                "clips the whole gradient by its norm, 1e-6 added", "the clip's scale must be max_norm / (norm + 1e-6), at most 1"
            ),
            "optax": Choice("clips the whole gradient by its norm, nothing added", "the clip's scale must be max_norm / norm, at most 1"),
            "off": Choice("does not clip", "the clip must be left out"),
            "unclamped": Choice(
                "scales gradients up to max_norm that are shorter (the scale is not clamped to 1)", "the clip's scale must not be clamped"
            ),
            "by leaf, torch": Choice("clips each leaf by its own norm", "each leaf must be clipped by its own norm, 1e-6 added"),
            "by leaf, optax": Choice("clips each leaf by its own norm, with no 1e-6", "each leaf must be clipped by its own norm"),
            "by value": Choice("clips each element (by value)", "each element must be clipped to ±max_norm"),
        },
        matters=_clips,
    ),
    Convention(
        name="clip_order",
        choices={
            "after accumulation": Choice("clips what is accumulated", "the clip must come after the accumulation"),
            "each microbatch": Choice("clips each microbatch", "each microbatch's gradient must be clipped"),
        },
        matters=lambda s: _clips(s) and s.every > 1,
    ),
    Convention(
        name="accumulation",
        choices={
            "mean": Choice("takes the mean of the microbatches", "the mean of the microbatches' gradients must be taken"),
            "sum": Choice("takes the sum of the microbatches", "the microbatches' gradients must be summed, not averaged"),
            "last": Choice("takes the last microbatch alone", "the gradients of all but the last microbatch must be dropped"),
        },
        matters=lambda s: s.every > 1,
    ),
    Convention(
        name="gathered_dtype",
        choices={
            "float64": Choice("gathers microbatches in the parameters' dtype", "microbatches must be gathered in the parameters' dtype"),
            "float32": Choice("gathers microbatches in float32", "microbatches must be gathered in float32"),
        },
        matters=lambda s: s.every > 1,
    ),
    Convention(
        name="lr_dtype",
        choices={
            "float64": Choice("computes its schedule in float64", "the schedule must be computed in float64"),
            "in float32": Choice("computes its schedule in float32", "the schedule must be computed in float32"),
        },
        matters=_lr_moves,
    ),
    Convention(
        name="schedule_length",
        choices={
            "T": Choice("reaches the end of the schedule at step T", "the schedule's denominator must be T"),
            "T - 1": Choice("reaches the end of the schedule at step T - 1", "the schedule's denominator must be T - 1"),
        },
        matters=lambda s: s.schedule != "constant",
    ),
    Convention(
        name="schedule_start",
        choices={
            "at 0": Choice("reads the schedule at 0 in the first step", "the first step must read the schedule at 0"),
            "at 1": Choice("reads the schedule at 1 in the first step", "the schedule must be advanced before the step"),
            "held once": Choice("reads the schedule at 0 in the first two steps", "the schedule must be one step late"),
        },
        matters=_lr_moves,
    ),
    Convention(
        name="schedule",
        choices={
            "constant": Choice("keeps lr", "lr must not be scheduled"),
            "cosine": Choice("lowers lr on a cosine", "lr must go down on a cosine"),
            "linear": Choice("lowers lr in a line", "lr must go down in a line"),
        },
        matters=lambda s: s.total_steps,
    ),
    Convention(
        name="ema_start",
        choices={
            "parameters": Choice("starts the average at the parameters", "the average must start as a copy of the parameters"),
            "first step": Choice(
                "starts the average at the parameters after the first step", "the first average must be the parameters after a step"
            ),
            "zero": Choice("starts the average at zero", "the average must start at 0, uncorrected"),
            "zero, debiased": Choice(
                "starts the average at zero and corrects the bias", "the average must start at 0 and be divided by 1 - decay**t"
            ),
        },
        matters=_averages,
    ),
    Convention(
        name="ema_sees",
        choices={
            "after the step": Choice("averages the parameters after the step", "the average must be taken after the step"),
            "before the step": Choice("averages the parameters before the step", "the average must be taken before the step"),
        },
        matters=_averages,
    ),
    Convention(
        name="ema_warmup",
        choices={
            False: Choice("has the same decay of the average from the start", "the average's decay must not be warmed up"),
            True: Choice(
                "warms the decay of the average up, (1 + t) / (10 + t)", "the average's decay must be min(decay, (1 + t) / (10 + t))"
            ),
        },
        matters=_averages,
    ),
    Convention(
        name="state_dtype",
        choices={
            "float64": Choice("keeps its state in the parameters' dtype", "the state must be in the parameters' dtype"),
            "float32": Choice("keeps its state in float32", "the state must be in float32"),
            "bfloat16": Choice("keeps its state in bfloat16", "the state must be in bfloat16"),
            "bfloat16, after use": Choice(
                "rounds its state to bfloat16 after its use", "the state must be rounded to bfloat16 after the step"
            ),
            "bfloat16, first moment": Choice("keeps its first moment in bfloat16", "the first moment must be in bfloat16"),
            "bfloat16, first moment, after use": Choice(
                "rounds its first moment to bfloat16 after its use", "the first moment must be rounded to bfloat16 after the step"
            ),
        },
        matters=_has_moments,
    ),
    Convention(
        name="gradient_dtype",
        choices={
            "float64": Choice("takes gradients in the parameters' dtype", "the gradients must be in the parameters' dtype"),
            "float32": Choice("rounds gradients to float32", "the gradients must be in float32"),
            "bfloat16": Choice("rounds gradients to bfloat16", "the gradients must be in bfloat16"),
            "float16": Choice("rounds gradients to float16", "the gradients must be in float16"),
        },
    ),
    Number(
        name="eps",
        does_="has eps {:g}",
        rules=("adagrad", "rmsprop", "adam"),
        common=(0.0, 1e-16, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-3),
        arguments=("eps",),
    ),
    Number(name="eps_root", does_="has {:g} inside the root", rules=("adagrad", "rmsprop", "adam"), arguments=("eps_root",)),
    Number(name="weight_decay", does_="has weight decay {:g}", common=(0.0, 1e-4, 1e-2, 0.1), arguments=("weight_decay",)),
    Number(name="b1", does_="has b1 {:g}", rules=("adam", "lion"), common=(0.0, 0.8, 0.9, 0.95), arguments=("b1", "betas")),
    Number(name="b2", does_="has b2 {:g}", rules=("adam", "lion"), common=(0.95, 0.98, 0.99, 0.999), arguments=("b2", "betas")),
    Number(name="momentum", does_="has momentum {:g}", rules=("sgd", "rmsprop"), common=(0.0, 0.9), arguments=("momentum",)),
    Number(name="alpha", does_="keeps {:g} of the mean square", rules=("rmsprop",), common=(0.9, 0.95, 0.99), arguments=("alpha", "decay")),
    Number(name="lr_decay", does_="has lr_decay {:g}", rules=("adagrad",), common=(0.0,), arguments=("lr_decay",)),
    Number(name="momentum_decay", does_="has momentum_decay {:g}", rules=("adam",), arguments=("momentum_decay",)),
    Number(name="lr", does_="has lr {}", arguments=("lr", "learning_rate")),
    Number(name="every", does_="steps once in {} microbatches", common=(1,), arguments=("every", "every_k_schedule")),
    Number(name="max_norm", does_="clips to {:g}", arguments=("max_norm",)),
    Number(name="warmup_steps", does_="warms up over {} steps", common=(0,), arguments=("warmup_steps",)),
    Number(name="total_steps", does_="schedules {} steps", arguments=("total_steps", "decay_steps", "T_max")),
    Number(name="ema_decay", does_="averages with decay {:g}", arguments=("decay", "ema_decay")),
)
BY_NAME = {each.name: each for each in CONVENTIONS}


def of(s: Settings) -> list[Convention | Number]:
    """Those that a member depends on."""
    return [each for each in CONVENTIONS if (not each.rules or s.rule in each.rules) and each.matters(s)]
