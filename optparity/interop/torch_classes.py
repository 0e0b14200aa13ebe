"""What the keys of a torch optimizer's parameter group mean in `jaxopt_impl`, by the registry."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import optax

from .._arrays import number
from ..registry import OPTIMIZERS, REQUIRED, TORCH_CLASSES, Optimizer

# Keys that do not change what a step computes, or that a scheduler leaves in a group: they are kept as data.
SCHEDULED = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr")
DATA = ("foreach", "fused", "capturable", "differentiable", "param_names", "name", *SCHEDULED)
# Keys that change the step of a class which is not here, but whose state may look like that of one which is.
ELSEWHERE = {
    **dict.fromkeys(("lambd", "t0"), "torch.optim's ASGD"),
    **dict.fromkeys(("beta2_decay", "d"), "torch.optim's Adafactor"),
    **dict.fromkeys(("ns_coefficients", "ns_steps", "adjust_lr_fn"), "torch.optim's Muon"),
    **dict.fromkeys(("etas", "step_sizes"), "torch.optim's Rprop"),
    **dict.fromkeys(("max_iter", "history_size", "line_search_fn", "tolerance_grad", "tolerance_change"), "torch.optim's LBFGS"),
    "rho": "torch.optim's Adadelta",
    "momentum_decay": "torch.optim's NAdam",
    "correct_bias": "transformers' AdamW",
    "bias_correction": "apex's and DeepSpeed's Adam",
    "caution": "timm's optimizers",
    **dict.fromkeys(("trust_coeff", "trust_coefficient", "trust_clip", "always_adapt"), "LARS and LAMB"),
    **dict.fromkeys(("max_grad_norm", "grad_averaging"), "LAMB"),
    **dict.fromkeys(("delta", "wd_ratio"), "AdamP and SGDP"),
    **dict.fromkeys(("rectify", "weight_decouple", "fixed_decay", "degenerated_to_sgd"), "AdaBelief and RAdam"),
    **dict.fromkeys(("final_lr", "gamma"), "AdaBound"),
}


def known(torch_class: str) -> Optimizer:
    """The optimizer whose state a class of torch.optim or torch_ref keeps.

    Raises: ValueError for a class that is not in the registry.
    """
    if torch_class not in TORCH_CLASSES:
        raise ValueError(f"unknown optimizer class {torch_class!r}; one of {', '.join(TORCH_CLASSES)} is needed.")
    return TORCH_CLASSES[torch_class]


def in_jax(torch_class: str, options: Mapping[str, Any], where: str) -> tuple[Optimizer, dict[str, Any]]:
    """The optimizer that a group means, and the arguments in JAX that mean the same.

    Raises: ValueError, naming the key, where one is missing, or contradicts the class: one of another class, by which a step would differ.
    """
    entry = known(torch_class)
    keys = entry.group_keys
    _check_keys(torch_class, entry, options, where)
    values = {key: number(options.get(key, absent)) for key, absent in keys.items()}
    for key, value in values.items():
        if value is REQUIRED:
            raise ValueError(f"{torch_class}: {where} has no {key!r}; each of {', '.join(keys)} is needed that has no default.")
    if "betas" in values:
        values["betas"] = _pair(torch_class, values["betas"], where)
    return _variant(torch_class, entry, values, where), entry.in_jax(values)


def scheduled(options: Mapping[str, Any]) -> list[str]:
    """The keys of a group that show a scheduler of torch, which is code and does not carry over."""
    return [key for key in SCHEDULED if key in options]


def unknown(torch_class: str, options: Mapping[str, Any]) -> list[str]:
    """The keys of a group that no optimizer knows, as `lr_scale`: torch's classes leave them alone, and so they are kept as data."""
    return [key for key in options if key not in known(torch_class).group_keys and key not in DATA]


def _check_keys(torch_class: str, entry: Optimizer, options: Mapping[str, Any], where: str) -> None:
    """Raise for a key by which another class computes its step, and for names that are none."""
    names = options.get("param_names") or []
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{torch_class}: {where} has param_names that are no list of names, which are strings and not empty.")
    for key in unknown(torch_class, options):
        if not isinstance(key, str):
            raise ValueError(f"{torch_class}: {where} has the key {key!r}; keys are strings.")
        others = [name for name, other in TORCH_CLASSES.items() if key in other.group_keys]
        if others or key in ELSEWHERE:
            whose = ", ".join(others) or ELSEWHERE[key]
            raise ValueError(
                f"{torch_class}: {where} has the key {key!r}, which is of the rule of {whose}; {torch_class} has "
                f"{', '.join(entry.group_keys)}."
            )


def _pair(torch_class: str, betas: Any, where: str) -> list:
    if not isinstance(betas, list | tuple) or len(betas) != 2:
        raise ValueError(f"{torch_class}: {where} has betas {betas!r}; two numbers are needed.")
    return [number(beta) for beta in betas]


def _variant(torch_class: str, entry: Optimizer, values: dict[str, Any], where: str) -> Optimizer:
    """The optimizer that a group means whose class is two by the value of a key, which is taken out of `values`."""
    if entry.variants is None:
        return entry
    key, names = entry.variants
    value = bool(values.pop(key))
    if value not in names:
        (other,) = (other.torch_name for other in OPTIMIZERS.values() if other.variants and value in other.variants[1])
        raise ValueError(f"{torch_class}: {where} has {key}={value}; that is the class {other}.")
    return OPTIMIZERS[names[value]]


def in_torch(entry: Optimizer, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A new group's hyper-parameters and data, from the arguments in JAX; the inverse of `in_jax`."""
    for key in arguments:
        if key not in entry.defaults:
            raise ValueError(f"{entry.name}: unknown argument {key!r}; one of {', '.join(entry.defaults)} is needed.")
    values = {**entry.in_torch({**entry.defaults, **arguments}), **entry.variant}
    return {**{key: values[key] for key in entry.group_keys}, **entry.group_data}


def transform(torch_class: str, options: Mapping[str, Any], where: str, **arguments: Any) -> optax.GradientTransformationExtraArgs:
    """The transform that a group means; `arguments` take the place of what the group says."""
    entry, values = in_jax(torch_class, options, where)
    return entry.jax(**{**values, **arguments})


def fields(tx: optax.GradientTransformation) -> tuple[str, ...]:
    """The fields that a transform's state keeps for each leaf, in this configuration."""
    state: Any = tx.init(np.zeros((), np.float32))
    return tuple(name for name, value in state._asdict().items() if name != "step" and value is not None)
