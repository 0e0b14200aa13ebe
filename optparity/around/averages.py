"""Averages of parameters, each after momentum SGD."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jaxopt_impl

from ..registry import Refused
from .driven import Driven
from .piece import Piece

_NAN = float("nan")
_MOMENTUM: Any = 0.9


def _jax_ema(**arguments: Any) -> optax.GradientTransformation:
    return optax.chain(jaxopt_impl.sgd(0.1, momentum=_MOMENTUM), jaxopt_impl.params_ema(**arguments))


def _torch_ema(*, start: int = 0, every: int = 1, decay: float = 0.999, form: Any = "torch", **arguments: Any) -> Callable[[list], Driven]:
    import torch_ref

    average = functools.partial(torch_ref.AveragedModel, decay=decay, form=form, **arguments)
    return lambda params: _averaging(params, average, "average" if form == "torch" else "biased_average", start, every)


def _jax_swa(**arguments: Any) -> optax.GradientTransformation:
    return optax.chain(jaxopt_impl.sgd(0.1, momentum=_MOMENTUM), jaxopt_impl.params_swa(**arguments))


def _torch_swa(*, start: int = 0, every: int = 1, **arguments: Any) -> Callable[[list], Driven]:
    import torch_ref

    return lambda params: _averaging(params, functools.partial(torch_ref.AveragedModel, **arguments), "average", start, every)


def _averaging(params: list, average: Callable[..., Any], field: str, start: int, every: int) -> Driven:
    """An optimizer, and the average that is updated after its steps where one is due."""
    import torch

    import torch_ref

    optimizer, model = torch_ref.SGD(params, lr=0.1, momentum=_MOMENTUM), torch.nn.ParameterList(params)
    steps = itertools.count()
    averaged = average(model)

    def step() -> None:
        optimizer.step()
        i = next(steps)
        if i >= start and (i - start) % every == 0:
            averaged.update_parameters(model)

    def kept() -> dict[str, Any]:
        return {field: dict(zip(params, averaged.module.parameters(), strict=True)), "n_averaged": averaged.n_averaged}

    return Driven(optimizer, step, kept)


class Averaged(NamedTuple):
    """The state of stock averages, by the names of ours."""

    average: Any
    n_averaged: Any


def _stock_ema(decay: float = 0.999, **ours: Any) -> optax.GradientTransformation | None:
    """optax.ema of the parameters, debiased, beside optax.sgd."""
    if ours:
        return None  # optax has no such arguments
    sgd, ema = optax.sgd(0.1, momentum=_MOMENTUM), optax.ema(decay)

    def init(params):
        return sgd.init(params), ema.init(params), Averaged(jax.tree.map(jnp.copy, params), jnp.zeros([], jnp.int32))

    def update(updates: Any, state: Any, params: Any = None):
        updates, inner = sgd.update(updates, state[0], params)
        average, biased = ema.update(optax.apply_updates(params, updates), state[1])
        return updates, (inner, biased, Averaged(average, state[2].n_averaged + 1))

    return optax.GradientTransformation(init, update)


def _stock_torch_ema(decay: float = 0.999, **ours: Any) -> Callable[[list], Driven] | None:
    """torch's AveragedModel, beside torch's SGD."""
    return None if ours else _stock_averaging(lambda swa_utils: swa_utils.get_ema_multi_avg_fn(decay))


def _stock_torch_swa(**ours: Any) -> Callable[[list], Driven] | None:
    return None if ours else _stock_averaging(lambda swa_utils: None)


def _stock_averaging(function: Callable[[Any], Any]) -> Callable[[list], Driven]:
    def make(params: list) -> Driven:
        import torch
        from torch.optim import swa_utils

        optimizer, model = torch.optim.SGD(params, lr=0.1, momentum=_MOMENTUM), torch.nn.ParameterList(params)
        averaged = swa_utils.AveragedModel(model, multi_avg_fn=function(swa_utils))

        def step() -> None:
            optimizer.step()
            averaged.update_parameters(model)

        return Driven(optimizer, step, lambda: {"average": dict(zip(params, averaged.module.parameters(), strict=True))})

    return make


PARAMS_EMA = Piece(
    name="params_ema",
    rows={
        "default": {},
        "fast": {"decay": 0.7},
        "optax": {"decay": 0.9, "form": "optax"},
        "accumulator": {"decay": 0.9, "accumulator_dtype": "float32"},
        "optax, accumulator": {"decay": 0.97, "form": "optax", "accumulator_dtype": "float32"},
        "update_after_step": {"decay": 0.8, "update_after_step": 3},
        "warm-up": {"decay": 0.99, "use_warmup": True},
        "warm-up, all": {
            "decay": 0.95,
            "min_decay": 0.1,
            "update_after_step": 2,
            "use_warmup": True,
            "warmup_gamma": 20.0,
            "warmup_power": 0.75,
            "start": 1,
            "every": 2,
            "accumulator_dtype": "float32",
        },
        "start, every": {"decay": 0.8, "start": 2, "every": 3, "accumulator_dtype": "float32"},
    },
    jax=_jax_ema,
    torch=_torch_ema,
    state=("momentum_buffer", "average", "biased_average", "n_averaged"),
    stock_jax=_stock_ema,
    stock_torch=_stock_torch_ema,
    measured="average",
    refused=(
        Refused({"decay": -0.1}, "Invalid decay value: -0.1 (params_ema: decay >= 0 and decay <= 1)"),
        Refused({"decay": 1.5}, "Invalid decay value: 1.5 (params_ema: decay >= 0 and decay <= 1)"),
        Refused({"decay": _NAN}, "Invalid decay value: nan (params_ema: decay >= 0 and decay <= 1)"),
        Refused({"decay": "0.9"}, "Invalid decay: '0.9' (params_ema: decay is a number)", TypeError),
        Refused({"decay": 1.0, "form": "optax"}, "Invalid decay value: 1.0 (params_ema: decay >= 0 and decay < 1)"),
        Refused({"min_decay": 2.0}, "Invalid min_decay value: 2.0 (params_ema: min_decay >= 0 and min_decay <= 1)"),
        Refused({"form": "timm"}, "Invalid form: 'timm' (params_ema: form is one of 'torch', 'optax')"),
        Refused({"warmup_gamma": 0.0}, "Invalid warmup_gamma value: 0.0 (params_ema: warmup_gamma >= 1e-100)"),
        Refused({"warmup_power": -1.0}, "Invalid warmup_power value: -1.0 (params_ema: warmup_power >= 0)"),
        Refused({"update_after_step": -1}, "Invalid update_after_step value: -1 (params_ema: update_after_step >= 0)"),
        Refused(
            {"form": "optax", "use_warmup": True},
            "params_ema: use_warmup and update_after_step are of form 'torch'; form 'optax' divides by 1 - decay**n.",
        ),
        Refused({"accumulator_dtype": "float64"}, "params_ema: accumulator_dtype float64 is not supported; float32 or None is needed."),
    ),
    differs="torch starts at the parameters, and get_ema_multi_avg_fn is lerp, an FMA; optax.ema starts at 0 and is debiased, by FMAs",
)

PARAMS_SWA = Piece(
    name="params_swa",
    rows={
        "default": {},
        "start, every": {"start": 3, "every": 2},
        "accumulator": {"accumulator_dtype": "float32"},
    },
    jax=_jax_swa,
    torch=_torch_swa,
    state=("momentum_buffer", "average", "n_averaged"),
    stock_torch=_stock_torch_swa,
    measured="average",
    refused=(
        Refused({"accumulator_dtype": "float64"}, "params_swa: accumulator_dtype float64 is not supported; float32 or None is needed."),
    ),
    differs="torch: swa_utils averages by lerp, an FMA, unless avg_fn is given",
)

PIECES = (PARAMS_EMA, PARAMS_SWA)
