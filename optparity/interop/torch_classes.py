"""What the keys of a torch optimizer's parameter group mean in `jaxopt_impl`: one row for each class of torch.optim and torch_ref."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optax

import jaxopt_impl

from .tensors import number

REQUIRED = object()  # a key that a group must have
_FLAG, _SPEED = {"maximize": False}, {"foreach": None, "differentiable": False}

# Keys that do not change what a step computes, or that a scheduler leaves in a group: they are kept as data.
DATA = ("foreach", "fused", "capturable", "differentiable", "param_names", "name")
DATA += ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr")


@dataclass(frozen=True)
class TorchClass:
    """One class of optimizer.

    Attributes:
        names: of its twin in `OPTIMIZERS`, decoupled_weight_decay off and on where that is a key.
        keys: the hyper-parameters of a group, with what their absence means.
        counts: whether a parameter's state holds `step`.
        stock: whether torch.optim has it; what only `torch_ref` has is in `added`.
        added: keys that the class of torch.optim does not know.
        from_construction: whether a parameter has its state before its first step.
        data: the further keys of a new group.
    """

    names: tuple[str, ...]
    keys: Mapping[str, Any]
    counts: bool = True
    stock: bool = True
    added: tuple[str, ...] = ()
    from_construction: bool = False
    data: Mapping[str, Any] = field(default_factory=lambda: {**_SPEED, "fused": None})


def _required(*keys: str) -> dict[str, Any]:
    return dict.fromkeys(keys, REQUIRED)


_ADAGRAD = TorchClass(
    ("adagrad",),
    {**_required("lr", "lr_decay", "eps", "weight_decay", "initial_accumulator_value"), "eps_in_sqrt": False, **_FLAG},
    added=("eps_in_sqrt",),
    from_construction=True,
)
_ADAM_KEYS = {**_required("lr", "betas", "eps", "weight_decay"), "amsgrad": False, **_FLAG}
_ADAM_DATA = {**_SPEED, "capturable": False, "fused": None}

CLASSES = {
    "SGD": TorchClass(("sgd",), {**_required("lr", "momentum", "dampening", "weight_decay"), "nesterov": False, **_FLAG}, counts=False),
    "Momentum": TorchClass(("momentum",), {**_required("lr", "momentum", "weight_decay"), **_FLAG}, counts=False, stock=False),
    "Adagrad": _ADAGRAD,
    "AdaGrad": _ADAGRAD,
    "RMSprop": TorchClass(
        ("rmsprop",),
        {**_required("lr", "alpha", "eps", "weight_decay"), "momentum": 0, "centered": False, **_FLAG},
        data={**_SPEED, "capturable": False},
    ),
    "Adam": TorchClass(("adam", "adamw"), {**_ADAM_KEYS, "decoupled_weight_decay": False}, data=_ADAM_DATA),
    "AdamW": TorchClass(("adam", "adamw"), {**_ADAM_KEYS, "decoupled_weight_decay": True}, data=_ADAM_DATA),
}
TWINS = {"sgd": "SGD", "momentum": "Momentum", "adagrad": "AdaGrad", "rmsprop": "RMSprop", "adam": "Adam", "adamw": "AdamW"}


def known(optimizer: str) -> TorchClass:
    """The row of a class.

    Raises: ValueError for a class that is not in the table.
    """
    if optimizer not in CLASSES:
        raise ValueError(f"unknown optimizer class {optimizer!r}; one of {', '.join(CLASSES)} is needed.")
    return CLASSES[optimizer]


def in_jax(optimizer: str, options: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """A group's twin in `OPTIMIZERS`, and the arguments that mean the same.

    Raises: ValueError, naming the key, where one is missing or unknown, or contradicts the class.
    """
    row = known(optimizer)
    for key in options:
        if key not in row.keys and key not in DATA:
            raise ValueError(f"{optimizer}: {where} has the unknown key {key!r}; {', '.join(row.keys)} are known, and {', '.join(DATA)}.")
    values = {key: number(options.get(key, absent)) for key, absent in row.keys.items()}
    for key, value in values.items():
        if value is REQUIRED:
            raise ValueError(f"{optimizer}: {where} has no {key!r}; each of {', '.join(row.keys)} is needed that has no default.")
    decoupled = values.pop("decoupled_weight_decay", False)
    if optimizer == "AdamW" and not decoupled:
        raise ValueError(f"{optimizer}: {where} has decoupled_weight_decay=False; that is the class Adam.")
    if "betas" in values:
        betas = values.pop("betas")
        if not isinstance(betas, list | tuple) or len(betas) != 2:
            raise ValueError(f"{optimizer}: {where} has betas {betas!r}; two numbers are needed.")
        values["b1"], values["b2"] = map(number, betas)
    values["learning_rate"] = values.pop("lr")
    return row.names[-1 if decoupled else 0], values


def in_torch(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A new group's hyper-parameters and data, from arguments of `OPTIMIZERS[name]`; the inverse of `in_jax`."""
    defaults = {key: p.default for key, p in inspect.signature(jaxopt_impl.OPTIMIZERS[name]).parameters.items()}
    for key in arguments:
        if key not in defaults:
            raise ValueError(f"{name}: unknown argument {key!r}; one of {', '.join(defaults)} is needed.")
    values = {key: value for key, value in {**defaults, **arguments}.items() if key != "accumulator_dtype"}
    values["lr"] = values.pop("learning_rate")
    if "b1" in values:
        values["betas"] = (values.pop("b1"), values.pop("b2"))
    row = CLASSES[TWINS[name]]
    if "decoupled_weight_decay" in row.keys:
        values["decoupled_weight_decay"] = name == row.names[-1]
    return {**{key: values[key] for key in row.keys}, **row.data}


def transform(optimizer: str, options: Mapping[str, Any], where: str, **arguments: Any) -> optax.GradientTransformationExtraArgs:
    """The twin of a group; `arguments` take the place of what the group says."""
    name, values = in_jax(optimizer, options, where)
    return jaxopt_impl.OPTIMIZERS[name](**{**values, **arguments})


def fields(tx: optax.GradientTransformation) -> tuple[str, ...]:
    """The fields that a transform's state keeps for each leaf, in this configuration."""
    state: Any = tx.init(np.zeros((), np.float32))
    return tuple(name for name, value in state._asdict().items() if name != "step" and value is not None)
