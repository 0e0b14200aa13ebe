"""The two sides of an explanation: run in any float, and asked what they say of themselves."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import jax
import numpy as np
import optax

from ..parity.contexts import CONTEXTS
from ..parity.jax_side import JaxSide
from ..versus.factories import Framework, Named
from .family import Settings

Gradient = Callable[[Any, int], Any]  # parameters, the number of the step (1, 2, ...) -> the gradient there


@dataclass(frozen=True)
class Loop:
    """A loop of somebody's own around a step: clip, accumulation, schedule, average and all.

    Attributes:
        framework: "jax" or "torch".
        name: as the explanation calls it.
        run: parameters, where to get gradients, how many -> after each gradient, what is compared: the parameters, or their average.
            Trees of NumPy arrays.
        says: its hyper-parameters, as far as it has some of its own.
    """

    framework: Framework
    name: str
    run: Callable[[Any, Gradient, int], Iterator[Any]]
    says: Mapping[str, Any] = field(default_factory=dict)


Side = Named | Loop | optax.GradientTransformation | Callable[[list], Any]


@dataclass(frozen=True)
class Stated:
    """What a side says of itself.

    Attributes:
        name: as the explanation calls it.
        framework: "jax" or "torch".
        rule: of the family, where the name tells it.
        settings: hyper-parameters and conventions.
        arguments: what its factory or class can be told.
        chosen: the settings that somebody has told it, rather than left at their defaults.
    """

    name: str
    framework: Framework
    rule: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    chosen: frozenset[str] = frozenset()


def walk(side: Side, params: Any, gradients: Sequence[Any], dtype: str) -> list[list[np.ndarray]]:
    """The leaves of the parameters after each gradient, everything in that dtype; JAX as its users have it, step by step."""
    params, *fed = (jax.tree.map(lambda x: np.asarray(x).astype(dtype), tree) for tree in (params, *gradients))
    return train(side, params, lambda params, step: fed[step - 1], len(fed), dtype)


def train(side: Side, params: Any, gradient: Gradient, steps: int, dtype: str) -> list[list[np.ndarray]]:
    """The same, of gradients at the parameters that the side has come to."""
    with jax.enable_x64(dtype == "float64"), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return [[np.array(leaf) for leaf in leaves] for leaves in _steps(side, params, gradient, steps)]


def _steps(side: Side, params: Any, gradient: Gradient, steps: int) -> Iterator[list]:
    if isinstance(side, Loop):
        yield from map(jax.tree.leaves, side.run(params, gradient, steps))
    elif _framework(side) == "jax":
        tx: Any = made(side)
        there = JaxSide(tx, params, CONTEXTS["jit" if _branches(tx, params) else "eager"])
        for step in range(1, steps + 1):
            params = there.steps([gradient(params, step)])[0][0][0]
            yield jax.tree.leaves(params)
    else:
        from ..parity.torch_side import TorchSide

        leaves, tree = jax.tree.flatten(params)
        there = TorchSide(_maker(side), leaves)
        for step in range(1, steps + 1):
            there.step(jax.tree.leaves(gradient(tree.unflatten(there.params()), step)))
            yield there.params()


def made(side: Any) -> Any:
    """An optax transform that goes by name, made; another side as it is."""
    return side.make() if isinstance(side, Named) and side.framework == "jax" else side


def _branches(tx: optax.GradientTransformation, params: Any) -> bool:
    """Whether an update has a branch or a loop in it, which would be compiled anew at each eager call."""
    state = tx.init(params)
    program = jax.make_jaxpr(tx.update)(params, state, params)
    return any(equation.primitive.name in ("cond", "while", "scan") for equation in program.eqns)


def _maker(side: Any) -> Callable[[list], Any]:
    return side.make if isinstance(side, Named) else side


def _framework(side: Side) -> Framework:
    if isinstance(side, Named | Loop):
        return side.framework
    return "jax" if isinstance(side, optax.GradientTransformation) else "torch"


# How stock and our own optimizers go by name: the rule, and what is fixed by choosing it.
_OPTAX = {
    "sgd": {"rule": "sgd"},
    "adagrad": {"rule": "adagrad", "eps_place": "inside"},
    "rmsprop": {"rule": "rmsprop", "bias_correction": "none"},
    "adam": {"rule": "adam"},
    "adamw": {"rule": "adam", "decay": "decoupled"},
    "nadam": {"rule": "adam"},  # its argument `nesterov` says the rest
    "nadamw": {"rule": "adam", "decay": "decoupled"},
    "amsgrad": {"rule": "adam", "amsgrad": "after the correction"},
    "lion": {"rule": "lion", "decay": "decoupled"},
}
_TORCH = {
    "SGD": {"rule": "sgd"},
    "Adagrad": {"rule": "adagrad"},
    "RMSprop": {"rule": "rmsprop", "bias_correction": "none"},
    "Adam": {"rule": "adam"},
    "AdamW": {"rule": "adam", "decay": "decoupled"},
    "NAdam": {"rule": "adam", "nesterov": "a moving factor"},
    "AdaGrad": {"rule": "adagrad"},
    "Momentum": {"rule": "sgd", "velocity": "with lr"},
    "Lion": {"rule": "lion", "decay": "decoupled"},
}
_OURS = {
    **_OPTAX,
    "adagrad": {"rule": "adagrad"},
    "momentum": {"rule": "sgd", "velocity": "with lr"},
}
STOCK = ("torch.optim.", "optax.", "torch_ref.", "jaxopt_impl.")
# What the frameworks do where a side says no more; optax.MultiSteps gathers in float32, under x64 too.
HABITS: Mapping[str, Mapping[str, Any]] = {"jax": {"clip": "optax", "gathered_dtype": "float32"}, "torch": {"clip": "torch"}}
_ALIASES = {"learning_rate": "lr", "initial_accumulator_value": "initial", "initial_scale": "initial"}
_FLAGS: Mapping[str, Callable[[Any, str], dict[str, Any]]] = {  # an argument that is a convention of ours; its value, the rule
    "betas": lambda value, rule: {"b1": float(value[0]), "b2": float(value[1])},
    "eps_in_sqrt": lambda value, rule: {"eps_place": "inside" if value else "outside"},
    "nesterov": lambda value, rule: {"nesterov": "g + μ b"} if value else {},
    "amsgrad": lambda value, rule: {"amsgrad": "before the correction"} if value else {},
    "decoupled_weight_decay": lambda value, rule: {"decay": "decoupled"} if value else {},
    "bias_correction": lambda value, rule: {"bias_correction": "both" if value else "none"},
    "decay": lambda value, rule: {"alpha" if rule == "rmsprop" else "ema_decay": value} if isinstance(value, float) else {"decay": value},
    "momentum": lambda value, rule: {"momentum": value or 0.0},
}
_WHOLE = ("every", "total_steps", "warmup_steps")
_SETTINGS = {each.name for each in fields(Settings)}


def translated(arguments: Mapping[str, Any], rule: str | None = None) -> dict[str, Any]:
    """Hyper-parameters under any framework's names as settings of the family; what it does not know is left out."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in _FLAGS and not (isinstance(value, str) and name in _SETTINGS):
            found |= _FLAGS[name](value, str(rule))
        elif (setting := _ALIASES.get(name, name)) in _SETTINGS:
            found[setting] = (
                value if setting in _WHOLE or isinstance(value, bool | str) or value is None or callable(value) else float(value)
            )
    return found


def stated(side: Side, params: Any) -> Stated:
    """What a side says of itself: by its name and arguments, or by the groups of its torch optimizer."""
    framework = _framework(side)
    if isinstance(side, Loop):
        return Stated(side.name, framework, side.says.get("rule"), translated(side.says, side.says.get("rule")))
    if framework == "torch":
        return _of_torch(side, params)
    if isinstance(side, Named):
        parts = side.name.replace(":", ".").split(".")
        known: dict[str, Any] = dict((_OURS if parts[0] == "jaxopt_impl" else _OPTAX).get(parts[-1], {}))
        rule = known.pop("rule", None)
        arguments = tuple(inspect.signature(side.factory()).parameters)
        if rule == "adagrad" and parts[0] == "optax":
            known["initial"] = 0.1
        return Stated(_short(side.name), framework, rule, {**known, **translated(side.bound(), rule)}, arguments, _chosen(side, rule))
    return Stated("the transform", framework)


def _chosen(side: Any, rule: str | None) -> frozenset[str]:
    return frozenset(translated(side.arguments, rule) if isinstance(side, Named) else ())


def _short(name: str) -> str:
    """A stock optimizer whole, another by its module and its own name."""
    parts = name.replace(":", ".").split(".")
    return ".".join(parts if ".".join(parts).startswith(STOCK) else parts[-2:])


def _of_torch(side: Any, params: Any) -> Stated:
    import torch

    make = _maker(side)
    optimizer = make([torch.nn.Parameter(torch.as_tensor(np.asarray(x, np.float64).copy())) for x in jax.tree.leaves(params)])
    kind = type(optimizer)
    known: dict[str, Any] = dict(next((_TORCH[base.__name__] for base in kind.__mro__ if base.__name__ in _TORCH), {}))
    rule = known.pop("rule", None)
    groups = getattr(optimizer, "param_groups", [{}])
    package = next((each for each in ("torch.optim.", "torch_ref.") if kind.__module__.startswith(each)), "")
    name = _short(side.name) if isinstance(side, Named) else f"{package}{kind.__name__}"
    said = {key: value for key, value in groups[0].items() if key != "params"}
    arguments = tuple(inspect.signature(kind.__init__).parameters)
    return Stated(name, "torch", rule, {**known, **translated(said, rule)}, arguments, _chosen(side, rule))
