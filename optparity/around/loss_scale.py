"""Loss scales, and steps left out: the rows. The gradients of a stream are taken as scaled already; its infinities plant the overflows."""

from typing import Any

import optax

import jaxopt_impl

from ..registry import Refused
from .driven import Driven
from .piece import Piece

SGD: dict[str, Any] = {"momentum": 0.9, "weight_decay": 1e-3}


def _ours(**arguments):
    import torch_ref

    return _scaling(torch_ref.GradScaler, torch_ref.SGD, **arguments)


def _stock(**arguments):
    import torch

    return _scaling(torch.amp.GradScaler, torch.optim.SGD, **arguments)


def _scaling(scaler_of, optimizer_of, **arguments):
    import torch

    def make(params):
        optimizer, scaler = optimizer_of(params, lr=0.1, **SGD), scaler_of("cpu", **arguments)
        scaler.scale(torch.zeros(()))  # makes the scale, as a loss does

        def step():
            scaler.step(optimizer)
            scaler.update()

        return Driven(optimizer, step, lambda: {"scale": scaler._scale, "growth_tracker": scaler._growth_tracker})

    return make


def _if_finite(**arguments):
    import torch_ref

    def make(params):
        optimizer = torch_ref.SGD(params, lr=0.1, **SGD)
        wrapper = torch_ref.ApplyIfFinite(optimizer, **arguments)
        return Driven(optimizer, wrapper.step, lambda: wrapper.counts._asdict())

    return make


def _sgd() -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(SGD["weight_decay"]), optax.sgd(0.1, SGD["momentum"]))


LOSS_SCALE = Piece(
    name="loss_scale",
    rows={
        "default": {},
        "grows": {"init_scale": 8.0, "growth_interval": 3},
        "each step": {"growth_interval": 1},
        "no powers of two": {"init_scale": 3.7, "growth_factor": 1.3, "backoff_factor": 0.7, "growth_interval": 2},
        "to the largest": {"init_scale": 2.0**120, "growth_interval": 1, "backoff_factor": 0.999},
        "below 1": {"init_scale": 0.3, "growth_factor": 1.0001, "backoff_factor": 0.1, "growth_interval": 5},
    },
    jax=lambda **arguments: jaxopt_impl.loss_scale(jaxopt_impl.sgd(0.1, **SGD), **arguments),
    torch=_ours,
    state=("momentum_buffer", "scale", "growth_tracker"),
    stock_torch=_stock,
    refused=(
        Refused({"init_scale": 0.0}, f"Invalid init_scale value: 0.0 (loss_scale: init_scale > 0 and init_scale < {2.0**128})"),
        Refused({"init_scale": float("inf")}, f"Invalid init_scale value: inf (loss_scale: init_scale > 0 and init_scale < {2.0**128})"),
        Refused({"growth_factor": 1.0}, "Invalid growth_factor value: 1.0 (loss_scale: growth_factor > 1)"),
        Refused({"growth_factor": float("nan")}, "Invalid growth_factor value: nan (loss_scale: growth_factor > 1)"),
        Refused({"backoff_factor": 1.0}, "Invalid backoff_factor value: 1.0 (loss_scale: backoff_factor > 0 and backoff_factor < 1)"),
        Refused({"backoff_factor": 0.0}, "Invalid backoff_factor value: 0.0 (loss_scale: backoff_factor > 0 and backoff_factor < 1)"),
        Refused(
            {"growth_interval": 0}, "Invalid growth_interval value: 0 (loss_scale: growth_interval >= 1 and growth_interval <= 2147483647)"
        ),
        Refused({"growth_interval": 2.5}, "Invalid growth_interval: 2.5 (loss_scale: growth_interval is a whole number)", TypeError),
    ),
    differs="torch.amp.GradScaler refuses float16 gradients; optax has no loss scale",
)

APPLY_IF_FINITE = Piece(
    name="apply_if_finite",
    rows={"default": {"max_consecutive_errors": 3}, "always": {"max_consecutive_errors": 0}},
    jax=lambda **arguments: jaxopt_impl.apply_if_finite(jaxopt_impl.sgd(0.1, **SGD), **arguments),
    torch=_if_finite,
    state=("momentum_buffer", "notfinite_count", "last_finite", "total_notfinite"),
    stock_jax=lambda **arguments: optax.apply_if_finite(_sgd(), **arguments),
    refused=(
        Refused(
            {"max_consecutive_errors": -1},
            "Invalid max_consecutive_errors value: -1 "
            "(apply_if_finite: max_consecutive_errors >= 0 and max_consecutive_errors <= 2147483647)",
        ),
        Refused(
            {"max_consecutive_errors": 0.5},
            "Invalid max_consecutive_errors: 0.5 (apply_if_finite: max_consecutive_errors is a whole number)",
            TypeError,
        ),
    ),
    differs="optax.apply_if_finite's updates are +0 where a step is left out",
)

PIECES = (LOSS_SCALE, APPLY_IF_FINITE)
