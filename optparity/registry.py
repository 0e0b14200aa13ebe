"""The one table of what is held to parity: for each optimizer its rows of hyper-parameters, and the nearest stock configuration.

Argument names are those of `jaxopt_impl`; where torch.optim has another name, `TORCH_NAMES` says so. Everything that covers "every
optimizer" iterates `ROWS`; a row or an optimizer that is missing here fails a test.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import optax

import jaxopt_impl

TORCH_NAMES = {"learning_rate": "lr"}
DTYPES = ("float32", "float64", "bfloat16", "float16")
HALVES = DTYPES[2:]


@dataclass(frozen=True)
class Optimizer:
    """One optimizer of both packages.

    Attributes:
        learning_rate: the documented setting for the digits.
        rows: label -> arguments, the first being the default configuration.
        stock_torch: the name in torch.optim, and what this optimizer's arguments are called or worth there.
        stock_optax: the nearest optax transform with the same arguments.
        drift_row: the row in which the stock implementations are told to do the same, as nearly as they can be.
        torch_drifts, optax_drifts: why they end elsewhere all the same, in a line.
    """

    learning_rate: float
    rows: dict[str, dict[str, Any]]
    stock_torch: str
    stock_optax: Callable[..., optax.GradientTransformation]
    drift_row: str
    torch_drifts: str
    optax_drifts: str
    torch_arguments: dict[str, Any] = field(default_factory=dict)


def _around(tx, *, weight_decay=0.0, maximize=False):
    """The gradient's sign and the coupled weight decay, as optax has them chained."""
    first = [optax.scale(-1.0)] if maximize else []
    return optax.chain(*first, *([optax.add_decayed_weights(weight_decay)] if weight_decay else []), tx)


def _optax_sgd(learning_rate, momentum=0.0, dampening=0.0, nesterov=False, **around):
    # A buffer that takes (1 - τ) g is the undamped one times (1 - τ), but for the first gradient.
    return _around(optax.sgd(learning_rate * (1 - dampening), momentum or None, nesterov), **around)


def _optax_adagrad(
    learning_rate, lr_decay=0.0, initial_accumulator_value=0.0, eps=1e-5, eps_in_sqrt=True, weight_decay=0.0, maximize=False
):
    del eps_in_sqrt
    rate = (lambda count: learning_rate / (1 + lr_decay * jnp.asarray(count, jnp.float32))) if lr_decay else learning_rate
    return _around(optax.adagrad(rate, initial_accumulator_value, eps), weight_decay=weight_decay, maximize=maximize)


def _optax_rmsprop(learning_rate, alpha=0.99, eps=1e-8, momentum=0.0, centered=False, **around):
    return _around(optax.rmsprop(learning_rate, alpha, eps, eps_in_sqrt=False, centered=centered, momentum=momentum or None), **around)


def _optax_adam(learning_rate, b1=0.9, b2=0.999, eps=1e-8, amsgrad=False, **around):
    return _around((optax.amsgrad if amsgrad else optax.adam)(learning_rate, b1, b2, eps), **around)


def _optax_adamw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-2, amsgrad=False, maximize=False):
    rule = optax.scale_by_amsgrad if amsgrad else optax.scale_by_adam
    tx = optax.chain(rule(b1, b2, eps), optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(learning_rate))
    return _around(tx, maximize=maximize)


OPTIMIZERS = {
    "sgd": Optimizer(
        learning_rate=0.3,
        rows={
            "default": {},
            "momentum": {"momentum": 0.9},
            "dampening": {"momentum": 0.9, "dampening": 0.1},
            "nesterov": {"momentum": 0.9, "nesterov": True},
            "weight_decay": {"weight_decay": 1e-2},
            "maximize": {"maximize": True},
            "nesterov, all": {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3, "maximize": True},
            "all": {"momentum": 0.9, "dampening": 0.1, "weight_decay": 1e-3, "maximize": True},
            "accumulator": {"momentum": 0.9, "dampening": 0.1, "weight_decay": 1e-3, "accumulator_dtype": "float32"},
        },
        stock_torch="SGD",
        stock_optax=_optax_sgd,
        drift_row="nesterov, all",
        torch_drifts="the decay, μ b + g and θ − η d are `add(alpha=)`: FMAs",
        optax_drifts="XLA contracts μ b + g and θ − η d to FMAs",
    ),
    "momentum": Optimizer(
        learning_rate=0.1,
        rows={
            "default": {},
            "heavy": {"momentum": 0.99},
            "weight_decay": {"weight_decay": 1e-2},
            "all": {"momentum": 0.8, "weight_decay": 1e-3, "maximize": True},
            "accumulator": {"weight_decay": 1e-3, "accumulator_dtype": "float32"},
        },
        stock_torch="SGD",
        torch_arguments={"momentum": 0.9},
        stock_optax=functools.partial(_optax_sgd, momentum=0.9),
        drift_row="all",
        torch_drifts="keeps b = −v/η, so that η multiplies later; FMAs",
        optax_drifts="keeps b = −v/η, so that η multiplies later; XLA contracts",
    ),
    "adagrad": Optimizer(
        learning_rate=0.1,
        rows={
            "default": {},
            "outside": {"eps_in_sqrt": False, "eps": 1e-10},
            "lr_decay": {"lr_decay": 1e-3},
            "weight_decay": {"weight_decay": 1e-2},
            "accumulated": {"initial_accumulator_value": 0.1, "eps": 1e-7},
            "maximize": {"maximize": True},
            "all": {"lr_decay": 1e-3, "weight_decay": 1e-3, "initial_accumulator_value": 0.1, "eps": 1e-6, "maximize": True},
            "all, outside": {
                "lr_decay": 1e-3,
                "weight_decay": 1e-3,
                "initial_accumulator_value": 0.1,
                "eps": 1e-6,
                "eps_in_sqrt": False,
                "maximize": True,
            },
            "accumulator": {"lr_decay": 1e-3, "weight_decay": 1e-3, "accumulator_dtype": "float32"},
        },
        stock_torch="Adagrad",
        torch_arguments={"eps": 1e-5},
        stock_optax=_optax_adagrad,
        drift_row="outside",
        torch_drifts="`addcmul` is an FMA, the root is MKL's",
        optax_drifts="ε is inside the root, and the division a product with `rsqrt`",
    ),
    "rmsprop": Optimizer(
        learning_rate=0.003,
        rows={
            "default": {},
            "momentum": {"momentum": 0.9},
            "centered": {"centered": True, "eps": 1e-3},
            "weight_decay": {"weight_decay": 1e-2},
            "maximize": {"maximize": True},
            "alpha, eps": {"alpha": 0.9, "eps": 1e-4},
            "centered, momentum": {"centered": True, "momentum": 0.8, "eps": 1e-3},
            "all": {"alpha": 0.95, "eps": 1e-3, "weight_decay": 1e-3, "momentum": 0.8, "centered": True, "maximize": True},
            "accumulator": {"weight_decay": 1e-3, "momentum": 0.8, "accumulator_dtype": "float32"},
        },
        stock_torch="RMSprop",
        stock_optax=_optax_rmsprop,
        drift_row="momentum",
        torch_drifts="`addcmul` is an FMA, the root is MKL's",
        optax_drifts="μ b is added to η g / √v, not to g / √v; XLA contracts",
    ),
    "adam": Optimizer(
        learning_rate=0.003,
        rows={
            "default": {},
            "amsgrad": {"amsgrad": True},
            "weight_decay": {"weight_decay": 1e-2},
            "maximize": {"maximize": True},
            "betas, eps": {"b1": 0.8, "b2": 0.95, "eps": 1e-4},
            "all": {"b1": 0.8, "b2": 0.99, "eps": 1e-4, "weight_decay": 1e-3, "amsgrad": True, "maximize": True},
            "accumulator": {"weight_decay": 1e-3, "amsgrad": True, "accumulator_dtype": "float32"},
        },
        stock_torch="Adam",
        stock_optax=_optax_adam,
        drift_row="weight_decay",
        torch_drifts="`lerp` and `addcmul` are FMAs, the root is MKL's",
        optax_drifts="each moment is divided by its own correction, in float32; XLA contracts",
    ),
    "adamw": Optimizer(
        learning_rate=0.003,
        rows={
            "default": {},
            "no decay": {"weight_decay": 0.0},
            "amsgrad": {"amsgrad": True},
            "maximize": {"maximize": True},
            "betas, eps": {"b1": 0.8, "b2": 0.95, "eps": 1e-4},
            "all": {"b1": 0.8, "b2": 0.99, "eps": 1e-4, "weight_decay": 0.1, "amsgrad": True, "maximize": True},
            "accumulator": {"weight_decay": 0.1, "amsgrad": True, "accumulator_dtype": "float32"},
        },
        stock_torch="AdamW",
        stock_optax=_optax_adamw,
        drift_row="default",
        torch_drifts="θ is multiplied by 1 − ηλ before the step; `lerp` and `addcmul` are FMAs",
        optax_drifts="λθ is added before the product with η; corrections in float32; XLA contracts",
    ),
}


@dataclass(frozen=True)
class Row:
    """One optimizer with one set of hyper-parameters, on both sides and in stock."""

    optimizer: str
    label: str

    def __str__(self) -> str:
        return f"{self.optimizer}: {self.label}"

    def __reduce__(self):
        return Row, (self.optimizer, self.label)  # without the transforms, which do not travel between processes

    @property
    def arguments(self) -> dict[str, Any]:
        entry = OPTIMIZERS[self.optimizer]
        return {"learning_rate": entry.learning_rate, **entry.rows[self.label]}

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes that this row is about: an accumulator's dtype makes a difference to halves only."""
        return HALVES if "accumulator_dtype" in self.arguments else DTYPES

    @functools.cached_property
    def tx(self) -> optax.GradientTransformation:
        """Ours in JAX."""
        return jaxopt_impl.OPTIMIZERS[self.optimizer](**self.arguments)

    def torch(self, params):
        """Ours in PyTorch, over a list of parameters."""
        import torch_ref

        return torch_ref.OPTIMIZERS[self.optimizer](params, **in_torch(self.arguments))

    @functools.cached_property
    def stock_tx(self) -> optax.GradientTransformation:
        """The nearest optax transform."""
        return OPTIMIZERS[self.optimizer].stock_optax(**_without(self.arguments, "accumulator_dtype"))

    def stock_torch(self, params, **implementation):
        """The nearest torch.optim optimizer; `implementation` is `foreach=True` or `fused=True`."""
        import torch

        entry = OPTIMIZERS[self.optimizer]
        arguments = {**entry.torch_arguments, **_without(in_torch(self.arguments), "eps_in_sqrt", "accumulator_dtype")}
        return getattr(torch.optim, entry.stock_torch)(params, **arguments, **implementation)


def in_torch(arguments):
    """torch.optim's names, and its pair of betas."""
    renamed = {TORCH_NAMES.get(name, name): value for name, value in arguments.items()}
    if {"b1", "b2"} & renamed.keys():
        renamed["betas"] = (renamed.pop("b1", 0.9), renamed.pop("b2", 0.999))
    return renamed


def _without(arguments, *names):
    return {name: value for name, value in arguments.items() if name not in names}


ROWS = [Row(name, label) for name, entry in OPTIMIZERS.items() for label in entry.rows]
