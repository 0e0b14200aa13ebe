"""Clipping, with momentum SGD behind it: it would show a wrong scale, which Adam hides."""

from collections.abc import Callable
from typing import Any, Literal

import optax

import jaxopt_impl

from ..registry import Refused
from .piece import Piece

_LR, _MOMENTUM = 0.1, 0.9


class _Clipped:
    """A torch optimizer whose gradients are clipped before each step; what the clip returns is the `norm` in its state."""

    def __init__(self, clip: Callable[[list], Any], optimizer: Any):
        self._clip, self._optimizer = clip, optimizer
        self.state = optimizer.state

    def step(self) -> None:
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        norm = self._clip(parameters)
        self._optimizer.step()
        if norm is not None:
            for p in parameters:
                self.state[p]["norm"] = norm


def _jax(clip: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(clip, jaxopt_impl.sgd(_LR, momentum=_MOMENTUM))


def _stock_jax(clip: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(clip, optax.sgd(_LR, momentum=_MOMENTUM))


def _torch(clip: Callable[[list], Any], *, stock: bool = False) -> Callable[[list], _Clipped]:
    import torch

    import torch_ref

    if not stock:
        clip([])  # arguments are checked here already
    sgd: Any = torch.optim.SGD if stock else torch_ref.SGD
    return lambda params: _Clipped(clip, sgd(params, lr=_LR, momentum=_MOMENTUM))


def _clip_by_global_norm(max_norm: float, form: Literal["torch", "optax"] = "torch"):
    return _jax(jaxopt_impl.clip_by_global_norm(max_norm, form))


def _clip_grad_norm_(max_norm: float, form: Literal["torch", "optax"] = "torch"):
    import torch_ref

    return _torch(lambda params: torch_ref.clip_grad_norm_(params, max_norm, form=form))


def _stock_clip_grad_norm_(max_norm: float, form: Literal["torch", "optax"] = "torch"):
    import torch

    return _torch(lambda params: torch.nn.utils.clip_grad_norm_(params, max_norm), stock=True)


def _clip_grad_value_(max_delta: float):
    import torch_ref

    return _torch(lambda params: torch_ref.clip_grad_value_(params, max_delta))


def _stock_clip_grad_value_(max_delta: float):
    import torch

    return _torch(lambda params: torch.nn.utils.clip_grad_value_(params, max_delta), stock=True)


CLIP_BY_GLOBAL_NORM = Piece(
    name="clip_by_global_norm",
    rows={
        "default": {"max_norm": 1.0},
        "small": {"max_norm": 1e-3},
        "large": {"max_norm": 1e4},
        "zero": {"max_norm": 0.0},
        "form='optax'": {"max_norm": 1.0, "form": "optax"},
        "form='optax', small": {"max_norm": 1e-3, "form": "optax"},
        "form='optax', large": {"max_norm": 1e4, "form": "optax"},
    },
    jax=_clip_by_global_norm,
    torch=_clip_grad_norm_,
    state=("momentum_buffer", "norm"),
    stock_jax=lambda max_norm, form="torch": _stock_jax(optax.clip_by_global_norm(max_norm)),
    stock_torch=_stock_clip_grad_norm_,
    refused=(
        Refused({"max_norm": -1.0}, "Invalid max_norm value: -1.0 (clip_by_global_norm: max_norm >= 0)"),
        Refused({"max_norm": float("nan")}, "Invalid max_norm value: nan (clip_by_global_norm: max_norm >= 0)"),
        Refused({"max_norm": "1"}, "Invalid max_norm: a number is needed, not '1' (clip_by_global_norm: max_norm is a number)", TypeError),
        Refused({"max_norm": 1.0, "form": "jax"}, "Invalid form: 'jax' (clip_by_global_norm: form is one of 'torch', 'optax')"),
    ),
    differs="torch and optax round the sum of squares in some order, and torch multiplies max_norm by a reciprocal",
)

CLIP_BY_VALUE = Piece(
    name="clip_by_value",
    rows={"default": {"max_delta": 0.5}, "small": {"max_delta": 1e-3}, "large": {"max_delta": 100.0}},
    jax=lambda max_delta: _jax(jaxopt_impl.clip_by_value(max_delta)),
    torch=_clip_grad_value_,
    state=("momentum_buffer",),
    stock_jax=lambda max_delta: _stock_jax(optax.clip(max_delta)),
    stock_torch=_stock_clip_grad_value_,
    refused=(
        Refused({"max_delta": -1.0}, "Invalid max_delta value: -1.0 (clip_by_value: max_delta >= 0)"),
        Refused({"max_delta": float("nan")}, "Invalid max_delta value: nan (clip_by_value: max_delta >= 0)"),
    ),
    differs="the clip itself is the same; the optimizer behind it is not",
)

PIECES = (CLIP_BY_GLOBAL_NORM, CLIP_BY_VALUE)
