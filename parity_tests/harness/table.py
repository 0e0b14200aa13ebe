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


@dataclass(frozen=True)
class Optimizer:
    """One optimizer of both packages.

    Attributes:
        learning_rate: the documented setting for the digits.
        rows: label -> arguments, the first being the default configuration.
        stock_torch: the name in torch.optim, and what this optimizer's arguments are called or worth there.
        stock_optax: the nearest optax transform with the same arguments.
        nearest: what the stock implementations cannot be told to do, in words.
    """

    learning_rate: float
    rows: dict[str, dict[str, Any]]
    stock_torch: str
    stock_optax: Callable[..., optax.GradientTransformation]
    torch_arguments: dict[str, Any] = field(default_factory=dict)
    nearest: str = ""


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
        },
        stock_torch="SGD",
        stock_optax=_optax_sgd,
        nearest="optax.sgd has no dampening: its learning rate is scaled instead",
    ),
    "momentum": Optimizer(
        learning_rate=0.1,
        rows={
            "default": {},
            "heavy": {"momentum": 0.99},
            "weight_decay": {"weight_decay": 1e-2},
            "all": {"momentum": 0.8, "weight_decay": 1e-3, "maximize": True},
        },
        stock_torch="SGD",
        torch_arguments={"momentum": 0.9},
        stock_optax=functools.partial(_optax_sgd, momentum=0.9),
        nearest="the stock forms keep the velocity without the learning rate in it",
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
        },
        stock_torch="Adagrad",
        torch_arguments={"eps": 1e-5},
        stock_optax=_optax_adagrad,
        nearest="torch.optim.Adagrad has eps outside the root only, optax.adagrad inside only",
    ),
}


@dataclass(frozen=True, eq=False)
class Row:
    """One optimizer with one set of hyper-parameters, on both sides and in stock."""

    optimizer: str
    label: str

    def __str__(self) -> str:
        return f"{self.optimizer}: {self.label}"

    @property
    def arguments(self) -> dict[str, Any]:
        entry = OPTIMIZERS[self.optimizer]
        return {"learning_rate": entry.learning_rate, **entry.rows[self.label]}

    @functools.cached_property
    def tx(self) -> optax.GradientTransformation:
        """Ours in JAX."""
        return jaxopt_impl.OPTIMIZERS[self.optimizer](**self.arguments)

    def torch(self, params):
        """Ours in PyTorch, over a list of parameters."""
        import torch_ref

        return torch_ref.OPTIMIZERS[self.optimizer](params, **_in_torch(self.arguments))

    @functools.cached_property
    def stock_tx(self) -> optax.GradientTransformation:
        """The nearest optax transform."""
        return OPTIMIZERS[self.optimizer].stock_optax(**self.arguments)

    def stock_torch(self, params, **implementation):
        """The nearest torch.optim optimizer; `implementation` is `foreach=True` or `fused=True`."""
        import torch

        entry = OPTIMIZERS[self.optimizer]
        arguments = {**entry.torch_arguments, **_in_torch(self.arguments)}
        arguments.pop("eps_in_sqrt", None)
        return getattr(torch.optim, entry.stock_torch)(params, **arguments, **implementation)


def _in_torch(arguments):
    return {TORCH_NAMES.get(name, name): value for name, value in arguments.items()}


ROWS = [Row(name, label) for name, entry in OPTIMIZERS.items() for label in entry.rows]
