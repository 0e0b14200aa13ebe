"""The table of schedules: each as the learning rate of an optimizer, and in torch the scheduler that steps after it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_impl

from ..registry import Refused
from .piece import Piece


@dataclass(frozen=True, kw_only=True)
class Form:
    """A schedule with its arguments, and the same as others have it.

    Attributes:
        arguments: of the function in `schedules`; of `warm_up`, the name and the arguments of what follows it as `then`.
        scheduler: the class of torch.optim.lr_scheduler, made of an optimizer and a module, ours or torch's. None: `ScheduleLR`.
        only_ours: whether torch.optim has no such class.
        in_optax: the schedule of optax.
        cycled: arguments of `one_cycle_momentum`, for what is cycled against the learning rate.
        optimizer: whose learning rate it is.
    """

    arguments: Mapping[str, Any]
    scheduler: Callable[[Any, Any], Any] | None = None
    only_ours: bool = False
    in_optax: Callable[[], optax.Schedule] | None = None
    cycled: Mapping[str, Any] | None = None
    optimizer: str = "sgd"


LEARNING_RATE = 0.1


def forms(n: int, cycle: int) -> dict[str, dict[str, Form]]:
    """Every schedule in every form, by name and label: one that ends after n steps or so, and cycles of so many."""
    return {**_stairs(n), **_powers(n), **_cosines(n), **_cycles(n, cycle)}


def _stairs(n: int) -> dict[str, dict[str, Form]]:
    """Constant, and in steps."""
    lr, warm, gamma = LEARNING_RATE, n // 5, 1 - 3 / n
    marks = [n // 7, n // 3, 2 * n]
    return {
        "constant": {
            "default": Form(arguments={"value": lr}, in_optax=lambda: optax.constant_schedule(lr)),
            "first steps": Form(
                arguments={"value": lr, "factor": 1 / 3, "steps": warm},
                scheduler=lambda optimizer, lrs: lrs.ConstantLR(optimizer, 1 / 3, warm),
            ),
        },
        "step": {
            "default": Form(
                arguments={"init_value": lr, "step_size": warm},
                scheduler=lambda optimizer, lrs: lrs.StepLR(optimizer, warm),
                in_optax=lambda: optax.exponential_decay(lr, warm, 0.1, staircase=True),
            ),
            "gamma": Form(
                arguments={"init_value": lr, "step_size": 3, "gamma": gamma},
                scheduler=lambda optimizer, lrs: lrs.StepLR(optimizer, 3, gamma),
                in_optax=lambda: optax.exponential_decay(lr, 3, gamma, staircase=True),
            ),
        },
        "multi_step": {
            "default": Form(
                arguments={"init_value": lr, "milestones": marks},
                scheduler=lambda optimizer, lrs: lrs.MultiStepLR(optimizer, marks),
                in_optax=lambda: optax.piecewise_constant_schedule(lr, dict.fromkeys(marks, 0.1)),
            ),
            "twice": Form(
                arguments={"init_value": lr, "milestones": [warm, *marks, warm], "gamma": 0.3},
                scheduler=lambda optimizer, lrs: lrs.MultiStepLR(optimizer, [warm, *marks, warm], 0.3),
            ),
        },
    }


def _powers(n: int) -> dict[str, dict[str, Form]]:
    """Exponential, linear, polynomial."""
    lr, warm, last, gamma = LEARNING_RATE, n // 5, LEARNING_RATE / 8, 1 - 3 / n
    return {
        "exponential": {
            "default": Form(
                arguments={"init_value": lr, "gamma": gamma},
                scheduler=lambda optimizer, lrs: lrs.ExponentialLR(optimizer, gamma),
                in_optax=lambda: optax.exponential_decay(lr, 1, gamma),
            ),
            "over several steps": Form(
                arguments={"init_value": lr, "gamma": 0.5, "transition_steps": warm + 1, "begin": 3},
                in_optax=lambda: optax.exponential_decay(lr, warm + 1, 0.5, 3),
            ),
            "staircase with an end": Form(
                arguments={"init_value": lr, "gamma": 0.5, "transition_steps": warm, "staircase": True, "end_value": last},
                in_optax=lambda: optax.exponential_decay(lr, warm, 0.5, staircase=True, end_value=last),
            ),
        },
        "linear": {
            "default": Form(
                arguments={"init_value": lr / 4, "end_value": lr, "steps": n},
                scheduler=lambda optimizer, lrs: lrs.LinearLR(optimizer, 0.25, 1.0, n),
                in_optax=lambda: optax.linear_schedule(lr / 4, lr, n),
            ),
            "down": Form(
                arguments={"init_value": lr, "end_value": 0.0, "steps": n, "begin": 3},
                in_optax=lambda: optax.linear_schedule(lr, 0.0, n, 3),
            ),
        },
        "polynomial": {
            "default": Form(
                arguments={"init_value": lr, "steps": n},
                scheduler=lambda optimizer, lrs: lrs.PolynomialLR(optimizer, n),
                in_optax=lambda: optax.polynomial_schedule(lr, 0.0, 1, n),
            ),
            "real power": Form(
                arguments={"init_value": lr, "steps": n, "power": 0.9},
                scheduler=lambda optimizer, lrs: lrs.PolynomialLR(optimizer, n, 0.9),
                in_optax=lambda: optax.polynomial_schedule(lr, 0.0, 0.9, n),
            ),
            "square with an end": Form(
                arguments={"init_value": lr, "steps": n, "power": 2, "end_value": last, "begin": 3},
                in_optax=lambda: optax.polynomial_schedule(lr, last, 2, n, 3),
            ),
        },
    }


def _cosines(n: int) -> dict[str, dict[str, Form]]:
    """Cosines, and warm-up before them."""
    lr, warm, last = LEARNING_RATE, n // 5, LEARNING_RATE / 8
    cosine = {"init_value": lr, "steps": n, "end_value": last}
    return {
        "cosine": {
            "default": Form(arguments=cosine, in_optax=lambda: optax.cosine_decay_schedule(lr, n, 1 / 8)),
            "to 0": Form(arguments={"init_value": lr, "steps": n}, in_optax=lambda: optax.cosine_decay_schedule(lr, n)),
            "rises": Form(
                arguments={**cosine, "after": "rise"},
                scheduler=lambda optimizer, lrs: lrs.CosineAnnealingLR(optimizer, n, last),
            ),
            "steps - 1": Form(
                arguments={**cosine, "denominator": "steps - 1"},
                in_optax=lambda: optax.cosine_decay_schedule(lr, n - 1, 1 / 8),
            ),
            "exponent": Form(
                arguments={**cosine, "exponent": 1.5},
                in_optax=lambda: optax.cosine_decay_schedule(lr, n, 1 / 8, 1.5),
            ),
        },
        "warm_up": {
            "default": Form(
                arguments={"then": ("cosine", cosine), "steps": warm},
                in_optax=lambda: optax.warmup_cosine_decay_schedule(0.0, lr, warm, n + warm, last),
            ),
            "from a quarter": Form(
                arguments={"then": ("cosine", {**cosine, "after": "rise"}), "steps": warm, "init_value": lr / 4},
                scheduler=lambda optimizer, lrs: lrs.SequentialLR(
                    optimizer, [lrs.LinearLR(optimizer, 0.25, total_iters=warm), lrs.CosineAnnealingLR(optimizer, n, last)], [warm]
                ),
            ),
            "then inverse_sqrt": Form(
                arguments={"then": ("inverse_sqrt", {"init_value": lr, "timescale": warm}), "steps": warm},
                in_optax=lambda: optax.join_schedules(
                    [optax.linear_schedule(0.0, lr, warm), lambda t: lr / jnp.sqrt((t + float(warm)) / warm)], [warm]
                ),
            ),
        },
    }


def _cycles(n: int, cycle: int) -> dict[str, dict[str, Form]]:
    """One cycle, and the inverse square root."""
    lr, warm = LEARNING_RATE, n // 5
    around = {"steps": cycle, "pct_start": 0.025}
    return {
        "one_cycle": {
            "default": Form(
                arguments={"peak_value": lr, **around},
                scheduler=lambda optimizer, lrs: lrs.OneCycleLR(optimizer, lr, cycle, pct_start=0.025, base_momentum=0.8),
                cycled={**around, "base_momentum": 0.8},
            ),
            "three phases, with Adam's b1": Form(
                arguments={"peak_value": lr, **around, "three_phase": True, "anneal": "linear"},
                scheduler=lambda optimizer, lrs: lrs.OneCycleLR(
                    optimizer, lr, cycle, pct_start=0.025, three_phase=True, anneal_strategy="linear"
                ),
                cycled={**around, "three_phase": True, "anneal": "linear"},
                optimizer="adamw",
            ),
            "optax": Form(
                arguments={"peak_value": lr, **around, "form": "optax"},
                in_optax=lambda: optax.cosine_onecycle_schedule(cycle, lr, 0.025),
            ),
            "optax, three phases": Form(
                arguments={"peak_value": lr, **around, "form": "optax", "three_phase": True, "anneal": "linear", "pct_final": 0.05},
                in_optax=lambda: optax.linear_onecycle_schedule(cycle, lr, 0.025, 0.05),
            ),
        },
        "inverse_sqrt": {
            "default": Form(
                arguments={"init_value": lr, "timescale": warm + 0.5},
                in_optax=lambda: lambda t: lr / jnp.sqrt((t + (warm + 0.5)) / (warm + 0.5)),
            ),
            "whole": Form(
                arguments={"init_value": lr, "timescale": warm},
                scheduler=lambda optimizer, lrs: lrs.InverseSqrtLR(optimizer, warm),
                only_ours=True,
            ),
        },
    }


FORMS = forms(n=20, cycle=240)  # of the table: over the first of 200 steps


def schedule(package: Any, name: str, arguments: Mapping[str, Any]) -> Any:
    """The schedule of one of the two packages."""
    if "then" not in arguments:
        return getattr(package.schedules, name)(**arguments)
    arguments = dict(arguments)
    return getattr(package.schedules, name)(schedule(package, *arguments.pop("then")), **arguments)


class Shown(NamedTuple):
    """The state of an optimizer, and what its schedules gave at the last step."""

    inner: Any
    lr: jax.Array
    cycled: jax.Array


def _form(name: str, arguments: Mapping[str, Any]) -> Form:
    """What the table has with these arguments."""
    return next((form for form in FORMS[name].values() if form.arguments == arguments), Form(arguments=arguments))


def _transform(name: str, **arguments: Any) -> optax.GradientTransformation:
    """An optimizer with this learning rate, which its state shows."""
    form, lr = _form(name, arguments), schedule(jaxopt_impl, name, arguments)
    cycled: Any = jaxopt_impl.schedules.one_cycle_momentum(**form.cycled) if form.cycled else jaxopt_impl.schedules.constant(0.9)
    tx = jaxopt_impl.adamw(lr, b1=cycled) if form.optimizer == "adamw" else jaxopt_impl.sgd(lr, momentum=cycled)

    def init(params):
        return Shown(tx.init(params), *(jnp.zeros([], jnp.result_type(float)) for _ in range(2)))

    def update(updates, state, params=None):
        done = state.inner.step
        updates, inner = tx.update(updates, state.inner, params)
        return updates, Shown(inner, lr(done), cycled(done))

    return optax.GradientTransformation(init, update)


class _Scheduled:
    """An optimizer and its scheduler as one; the state shows what the learning rate was at the last step."""

    def __init__(self, params: list, dtype: str, optimizer: Any, scheduler: Any):
        self.params, self.dtype, self.optimizer, self.scheduler = params, dtype, optimizer, scheduler
        self.shown: dict[str, Any] = {}

    @property
    def state(self) -> dict:
        return {p: {**self.optimizer.state.get(p, {}), **self.shown} for p in self.params}

    def step(self) -> None:
        import torch

        [group] = self.optimizer.param_groups
        values = {"lr": group["lr"], "cycled": group["betas"][0] if "betas" in group else group["momentum"]}
        self.shown = {field: torch.tensor(value, dtype=getattr(torch, self.dtype)) for field, value in values.items()}
        self.optimizer.step()
        over = self.scheduler.last_epoch >= getattr(self.scheduler, "total_steps", math.inf)  # where torch's own raises
        if not over and any(p.grad is not None for p in self.params):  # a transform counts no other steps
            self.scheduler.step()


def _scheduled(name: str, **arguments: Any) -> Callable[[list], _Scheduled]:
    """The torch side, with our scheduler."""
    form = _form(name, arguments)

    def make(params):
        import torch

        import torch_ref

        dtype = "float64" if params[0].dtype == torch.float64 else "float32"
        momentum: Any = 0.9 if dtype == "float64" else float(np.float32(0.9))  # as a schedule's value has it
        if form.optimizer == "adamw":
            optimizer = torch_ref.AdamW(params, lr=LEARNING_RATE, betas=(momentum, 0.999))
        else:
            optimizer = torch_ref.SGD(params, lr=LEARNING_RATE, momentum=momentum)
        if form.scheduler:
            return _Scheduled(params, dtype, optimizer, form.scheduler(optimizer, _classes(dtype)))
        return _Scheduled(params, dtype, optimizer, torch_ref.ScheduleLR(optimizer, schedule(torch_ref, name, arguments), dtype))

    return make


def _stock_transform(name: str, **arguments: Any) -> optax.GradientTransformation | None:
    form = _form(name, arguments)
    return optax.sgd(form.in_optax(), momentum=0.9) if form.in_optax and not form.cycled else None


def _stock_scheduled(name: str, **arguments: Any) -> Callable[[list], _Scheduled] | None:
    form = _form(name, arguments)

    def make(params):
        import torch

        if form.optimizer == "adamw":
            optimizer = torch.optim.AdamW(params, lr=LEARNING_RATE)
        else:
            optimizer = torch.optim.SGD(params, lr=LEARNING_RATE, momentum=0.9)
        assert form.scheduler
        return _Scheduled(params, "float32", optimizer, form.scheduler(optimizer, torch.optim.lr_scheduler))

    return make if form.scheduler and not form.only_ours else None


def _classes(dtype: str) -> SimpleNamespace:
    """Our classes of schedulers, for this dtype."""
    from torch_ref import lr_scheduler

    ours = {name: getattr(lr_scheduler, name) for name in lr_scheduler.__all__}
    return SimpleNamespace(
        **{name: partial(cls, dtype=dtype) if issubclass(cls, lr_scheduler.ClosedForm) else cls for name, cls in ours.items()}
    )


def of_optax(form: Form, counts: np.ndarray) -> np.ndarray | None:
    """optax's own values, one compiled schedule at each count."""
    if form.in_optax is None:
        return None
    theirs = form.in_optax()
    with jax.numpy_dtype_promotion("standard"):
        return np.asarray(jax.jit(jax.vmap(lambda t: jnp.asarray(theirs(t))))(counts))


def of_torch(form: Form, steps: int) -> np.ndarray | None:
    """torch.optim's own values, each made of the last one."""
    import torch

    if form.scheduler is None or form.only_ours:
        return None
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=LEARNING_RATE, momentum=0.9)
    scheduler, values = form.scheduler(optimizer, torch.optim.lr_scheduler), []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(values, np.float32)


def _refused(name: str, message: str, error: type[Exception] = ValueError, **arguments: Any) -> Refused:
    return Refused({"name": name, **arguments}, message, error)


_NAN = float("nan")
_REFUSED = (
    _refused("constant", "Invalid value value: nan (constant: value >= 0)", value=_NAN),
    _refused("constant", "Invalid value value: -0.1 (constant: value >= 0)", value=-0.1),
    _refused("constant", "Invalid steps value: -1 (constant: steps >= 0)", value=0.1, steps=-1),
    _refused("step", "Invalid step_size value: 0 (step: step_size >= 1)", init_value=0.1, step_size=0),
    _refused("step", "Invalid step_size: 1.5 (step: step_size is a whole number)", TypeError, init_value=0.1, step_size=1.5),
    _refused("step", "Invalid gamma value: nan (step: gamma >= 0)", init_value=0.1, step_size=1, gamma=_NAN),
    _refused("multi_step", "Invalid milestone value: -1 (multi_step: milestone >= 0)", init_value=0.1, milestones=[3, -1]),
    _refused("multi_step", "Invalid init_value value: inf (multi_step: init_value is finite)", init_value=float("inf"), milestones=[]),
    _refused("exponential", "Invalid gamma value: 0.0 (exponential: gamma > 0)", init_value=0.1, gamma=0.0),
    _refused(
        "exponential",
        "Invalid transition_steps value: 0 (exponential: transition_steps >= 1)",
        init_value=0.1,
        gamma=0.5,
        transition_steps=0,
    ),
    _refused("exponential", "Invalid end_value value: nan (exponential: end_value >= 0)", init_value=0.1, gamma=0.5, end_value=_NAN),
    _refused("exponential", "Invalid begin value: -1 (exponential: begin >= 0)", init_value=0.1, gamma=0.5, begin=-1),
    _refused("linear", "Invalid steps value: 0 (linear: steps >= 1)", init_value=0.1, end_value=0.0, steps=0),
    _refused("linear", "Invalid end_value value: -0.1 (linear: end_value >= 0)", init_value=0.1, end_value=-0.1, steps=5),
    _refused("polynomial", "Invalid power value: -1.0 (polynomial: power >= 0)", init_value=0.1, steps=5, power=-1.0),
    _refused("polynomial", "Invalid steps: True (polynomial: steps is a whole number)", TypeError, init_value=0.1, steps=True),
    _refused("cosine", "Invalid steps value: 0 (cosine: steps >= 1)", init_value=0.1, steps=0),
    _refused("cosine", "Invalid steps value: 1 (cosine: steps >= 2)", init_value=0.1, steps=1, denominator="steps - 1"),
    _refused(
        "cosine", "Invalid denominator: 'T' (cosine: denominator is one of 'steps', 'steps - 1')", init_value=0.1, steps=5, denominator="T"
    ),
    _refused("cosine", "Invalid after: 'stop' (cosine: after is one of 'hold', 'rise')", init_value=0.1, steps=5, after="stop"),
    _refused("cosine", "Invalid init_value: '0.1' (cosine: init_value is a number)", TypeError, init_value="0.1", steps=5),
    _refused("warm_up", "Invalid steps value: 0 (warm_up: steps >= 1)", then=("constant", {"value": 0.1}), steps=0),
    _refused("warm_up", "Invalid schedule: 0.1 (warm_up: schedule is one that this module makes)", TypeError, schedule=0.1, steps=5),
    _refused("one_cycle", "Invalid peak_value value: nan (one_cycle: peak_value >= 0)", peak_value=_NAN, steps=100),
    _refused("one_cycle", "Invalid div_factor value: 0 (one_cycle: div_factor > 0)", peak_value=0.1, steps=100, div_factor=0),
    _refused(
        "one_cycle", "Invalid pct_start value: 1.5 (one_cycle: pct_start >= 0 and pct_start <= 1)", peak_value=0.1, steps=100, pct_start=1.5
    ),
    _refused(
        "one_cycle",
        "Invalid steps value: 3 (one_cycle: each phase takes some of the steps; they would end at -0.25, 2)",
        **{"peak_value": 0.1, "steps": 3, "pct_start": 0.25},
    ),
    _refused("one_cycle", "Invalid form: 'jax' (one_cycle: form is one of 'torch', 'optax')", peak_value=0.1, steps=100, form="jax"),
    _refused("one_cycle", "Invalid anneal: 'sin' (phases: anneal is one of 'cos', 'linear')", peak_value=0.1, steps=100, anneal="sin"),
    _refused("inverse_sqrt", "Invalid timescale value: 0 (inverse_sqrt: timescale > 0)", init_value=0.1, timescale=0),
)

SCHEDULES = Piece(
    name="schedules",
    rows={f"{name}, {label}": {"name": name, **form.arguments} for name, of_name in FORMS.items() for label, form in of_name.items()},
    jax=_transform,
    torch=_scheduled,
    state=("lr", "cycled", "momentum_buffer", "exp_avg", "exp_avg_sq"),
    stock_jax=_stock_transform,
    stock_torch=_stock_scheduled,
    refused=_REFUSED,
    sampled=("warm_up, from a quarter", "one_cycle, three phases, with Adam's b1", "polynomial, real power"),
    differs="optax: learning rates in float32, by XLA's functions; a polynomial of a real power may end in NaN, as 1 − t · (1/T) is < 0; "
    "torch: in float64, not rounded to float32, and a cosine rises again",
)

PIECES = (SCHEDULES,)
