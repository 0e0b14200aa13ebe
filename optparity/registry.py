"""One entry for each optimizer: everything that anybody has to know about it.

Tests, commands, README, docs, interop, accounting and benchmarks read it here and know no optimizer by name. Argument names are those of
`jaxopt_impl`; `Optimizer.in_torch` gives them torch.optim's. An entry that lacks a part fails a test, which names the part.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

import jaxopt_impl
from jaxopt_impl.numerics import DTYPES, HALVES

REQUIRED = object()  # a key that a torch group must have


class Refused(NamedTuple):
    """Arguments that both packages refuse, and what they say."""

    arguments: dict[str, Any]
    message: str
    error: type[Exception] = ValueError


class Fences(NamedTuple):
    """How many signed zeros the lowered step of a row holds; in bfloat16 none, but with an accumulator."""

    float32: int
    float16: int


@dataclass(frozen=True, kw_only=True)
class StockTorch:
    """The nearest optimizer of torch.optim.

    Attributes:
        name: the class.
        arguments: what it has to be told to do the same, where our defaults are others.
        exchanges_state: whether either loads the other's `state_dict`; else it is only the nearest.
        drifts: why it ends elsewhere all the same, in a line.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    exchanges_state: bool = True
    drifts: str


class Carried(NamedTuple):
    """A field of our state as an optax state holds it."""

    field: str
    scaled: bool = False  # by −η
    negative_zero: bool = False  # ours starts at −0, optax at 0


@dataclass(frozen=True, kw_only=True)
class StockOptax:
    """The nearest optax transform.

    Attributes:
        make: the transform, from our arguments.
        states: part of its state -> its fields -> ours.
        refused: why its state does not carry over, where it does not.
        drifts: why it ends elsewhere all the same, in a line.
    """

    make: Callable[..., optax.GradientTransformation]
    states: Mapping[str, Mapping[str, Carried]] = field(default_factory=dict)
    refused: str | None = None
    drifts: str


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """One optimizer of both packages.

    Attributes:
        name: as users and messages call it.
        jax: the function that makes the transform.
        torch_name: the class in `torch_ref`.
        rows: label -> arguments. "default" is the default; the others flip each flag, and all of them.
        fences: label -> signed zeros in the lowered step.
        temporaries: label -> bytes of temporaries for each float32 element of a donated step, where there are any.
        refused: arguments out of range.
        learning_rates: the documented setting: for the digits, and for a task of `optparity train` where that is too large.
        group_keys: the hyper-parameters of a torch group, with what their absence means.
        group_data: the further keys of a new group.
        extra_keys: keys of a group that torch.optim's class does not know, with what it does instead.
        has_step: whether torch keeps a `step` for each parameter.
        uses_step: whether the rule depends on the step, from a torch group.
        starts_with_state: whether a parameter has its state in torch before its first step.
        variants: a group key whose value tells which optimizer the torch class is -> value -> name.
        optional_state: field -> arguments with which the state has it.
        undamped_first_step: hyper-parameters that, all set, make the first step of a parameter another than the later ones.
        drift_row: the row in which the stock implementations can be told to do nearly the same.
        stock_torch, stock_optax: the nearest stock implementations.
        benchmark_rows: the rows that `make bench` times.
    """

    name: str
    jax: Callable[..., optax.GradientTransformationExtraArgs]
    torch_name: str
    rows: Mapping[str, dict[str, Any]]
    fences: Mapping[str, Fences]
    temporaries: Mapping[str, int] = field(default_factory=dict)
    refused: tuple[Refused, ...]
    learning_rates: Mapping[str, float]
    group_keys: Mapping[str, Any]
    group_data: Mapping[str, Any]
    extra_keys: Mapping[str, Any] = field(default_factory=dict)
    has_step: bool = True
    uses_step: Callable[[Mapping[str, Any]], bool] = lambda options: True
    starts_with_state: bool = False
    variants: tuple[str, Mapping[Any, str]] | None = None
    optional_state: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    undamped_first_step: tuple[str, ...] = ()
    drift_row: str
    stock_torch: StockTorch | None
    stock_optax: StockOptax
    benchmark_rows: tuple[str, ...] = ("default",)

    @property
    def torch(self) -> Any:
        """The class in `torch_ref`; torch is imported here, not before."""
        return getattr(importlib.import_module("torch_ref"), self.torch_name)

    @property
    def kernel(self) -> str:
        """The module of both packages that holds its rule."""
        return self.jax.__module__.rpartition(".")[2]

    @property
    def torch_names(self) -> tuple[str, ...]:
        """The classes of torch that keep its state: torch.optim's, and ours."""
        stock = (self.stock_torch.name,) if self.stock_torch and self.stock_torch.exchanges_state else ()
        return tuple(dict.fromkeys((*stock, self.torch_name)))

    @property
    def variant(self) -> dict[str, Any]:
        """The group key that tells this optimizer from the other one of its class, with its value; empty where the class is one."""
        if self.variants is None:
            return {}
        key, names = self.variants
        return {key: {name: value for value, name in names.items()}[self.name]}

    @functools.cached_property
    def defaults(self) -> dict[str, Any]:
        """Its hyper-parameters in JAX, with their defaults; not `mask`, which says to which leaves one of them applies."""
        return {name: parameter.default for name, parameter in inspect.signature(self.jax).parameters.items() if name != "mask"}

    def learning_rate(self, task: str = "digits") -> float:
        """The documented setting for a task."""
        return self.learning_rates.get(task, self.learning_rates["digits"])

    def in_torch(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The same arguments under torch.optim's names: `lr`, and the betas as a pair."""
        renamed = {"lr" if name == "learning_rate" else name: value for name, value in arguments.items()}
        if renamed.keys() & {"b1", "b2"}:
            renamed["betas"] = tuple(renamed.pop(beta, self.defaults[beta]) for beta in ("b1", "b2"))
        return renamed

    def in_jax(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of `in_torch`."""
        renamed = dict(arguments)
        if "betas" in renamed:
            renamed["b1"], renamed["b2"] = renamed.pop("betas")
        if "lr" in renamed:
            renamed["learning_rate"] = renamed.pop("lr")
        return renamed


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


def _optax_lion(learning_rate, b1=0.9, b2=0.99, weight_decay=0.0, maximize=False):
    return _around(optax.lion(learning_rate, b1, b2, weight_decay=weight_decay), maximize=maximize)


def _required(*keys: str) -> dict[str, Any]:
    return dict.fromkeys(keys, REQUIRED)


_MAXIMIZE = {"maximize": False}
_SPEED = {"foreach": None, "differentiable": False}
_ADAM_KEYS = {**_required("lr", "betas", "eps", "weight_decay"), "amsgrad": False, **_MAXIMIZE}
_ADAM_DATA = {**_SPEED, "capturable": False, "fused": None}
_ADAM_MOMENTS = {"mu": Carried("exp_avg"), "nu": Carried("exp_avg_sq")}
_ADAM_STATES = {"ScaleByAdamState": _ADAM_MOMENTS, "ScaleByAmsgradState": {**_ADAM_MOMENTS, "nu_max": Carried("max_exp_avg_sq")}}
_NAN = float("nan")
_NESTEROV = "Nesterov momentum requires a momentum and zero dampening (sgd: momentum > 0, dampening = 0; got momentum {}, dampening {})"

SGD = Optimizer(
    name="sgd",
    jax=jaxopt_impl.sgd,
    torch_name="SGD",
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
    fences={
        "default": Fences(1, 1),
        "momentum": Fences(2, 2),
        "dampening": Fences(2, 2),
        "nesterov": Fences(3, 3),
        "weight_decay": Fences(2, 2),
        "maximize": Fences(1, 1),
        "nesterov, all": Fences(4, 4),
        "all": Fences(3, 3),
        "accumulator": Fences(3, 3),
    },
    temporaries={"nesterov, all": 4},
    refused=(
        Refused({"learning_rate": -0.1}, "Invalid learning rate: -0.1 (sgd: lr >= 0)"),
        Refused({"learning_rate": _NAN}, "Invalid learning rate: nan (sgd: lr >= 0)"),
        Refused({"momentum": -0.5}, "Invalid momentum value: -0.5 (sgd: momentum >= 0)"),
        Refused({"momentum": _NAN}, "Invalid momentum value: nan (sgd: momentum >= 0)"),
        Refused({"weight_decay": -1.0}, "Invalid weight_decay value: -1.0 (sgd: weight_decay >= 0)"),
        Refused({"weight_decay": _NAN}, "Invalid weight_decay value: nan (sgd: weight_decay >= 0)"),
        Refused({"dampening": _NAN}, "Invalid dampening value: nan (sgd: dampening is a number)"),
        Refused({"momentum": "0.9"}, "Invalid momentum: a number is needed, not '0.9' (sgd: momentum is a number)", TypeError),
        Refused({"momentum": None}, "Invalid momentum: a number is needed, not None (sgd: momentum is a number)", TypeError),
        Refused({"nesterov": True}, _NESTEROV.format(0.0, 0.0)),
        Refused({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, _NESTEROV.format(0.9, 0.1)),
    ),
    learning_rates={"digits": 0.3, "cruncher": 0.03},
    group_keys={**_required("lr", "momentum", "dampening", "weight_decay"), "nesterov": False, **_MAXIMIZE},
    group_data={**_SPEED, "fused": None},
    has_step=False,
    optional_state={"momentum_buffer": {"momentum": 0.5}},
    undamped_first_step=("momentum", "dampening"),
    drift_row="nesterov, all",
    stock_torch=StockTorch(name="SGD", drifts="the decay, μ b + g and θ − η d are `add(alpha=)`: FMAs"),
    stock_optax=StockOptax(
        make=_optax_sgd,
        states={"TraceState": {"trace": Carried("momentum_buffer", negative_zero=True)}},
        drifts="XLA contracts μ b + g and θ − η d to FMAs",
    ),
    benchmark_rows=("default", "all"),
)

MOMENTUM = Optimizer(
    name="momentum",
    jax=jaxopt_impl.momentum,
    torch_name="Momentum",
    rows={
        "default": {},
        "heavy": {"momentum": 0.99},
        "weight_decay": {"weight_decay": 1e-2},
        "all": {"momentum": 0.8, "weight_decay": 1e-3, "maximize": True},
        "accumulator": {"weight_decay": 1e-3, "accumulator_dtype": "float32"},
    },
    fences={
        "default": Fences(1, 1),
        "heavy": Fences(1, 1),
        "weight_decay": Fences(2, 2),
        "all": Fences(2, 2),
        "accumulator": Fences(2, 2),
    },
    refused=(
        Refused({"learning_rate": -1.0}, "Invalid learning rate: -1.0 (momentum: lr >= 0)"),
        Refused({"momentum": -0.5}, "Invalid momentum value: -0.5 (momentum: momentum >= 0)"),
        Refused({"weight_decay": _NAN}, "Invalid weight_decay value: nan (momentum: weight_decay >= 0)"),
    ),
    learning_rates={"digits": 0.1, "cruncher": 0.01},
    group_keys={**_required("lr", "momentum", "weight_decay"), **_MAXIMIZE},
    group_data={**_SPEED, "fused": None},
    has_step=False,
    drift_row="all",
    stock_torch=StockTorch(
        name="SGD", arguments={"momentum": 0.9}, exchanges_state=False, drifts="keeps b = −v/η, so that η multiplies later; FMAs"
    ),
    stock_optax=StockOptax(
        make=functools.partial(_optax_sgd, momentum=0.9),
        refused="optax.sgd's trace is −v/η, other bits than the velocity's",
        drifts="keeps b = −v/η, so that η multiplies later; XLA contracts",
    ),
)

ADAGRAD = Optimizer(
    name="adagrad",
    jax=jaxopt_impl.adagrad,
    torch_name="AdaGrad",
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
    fences={
        "default": Fences(2, 1),
        "outside": Fences(1, 1),
        "lr_decay": Fences(2, 1),
        "weight_decay": Fences(3, 2),
        "accumulated": Fences(2, 1),
        "maximize": Fences(2, 1),
        "all": Fences(3, 2),
        "all, outside": Fences(2, 2),
        "accumulator": Fences(3, 3),
    },
    refused=(
        Refused({"learning_rate": -1.0}, "Invalid learning rate: -1.0 (adagrad: lr >= 0)"),
        Refused({"lr_decay": -0.5}, "Invalid lr_decay value: -0.5 (adagrad: lr_decay >= 0)"),
        Refused({"weight_decay": -0.5}, "Invalid weight_decay value: -0.5 (adagrad: weight_decay >= 0)"),
        Refused({"eps": -1e-8}, "Invalid epsilon value: -1e-08 (adagrad: eps >= 0)"),
        Refused({"eps": _NAN}, "Invalid epsilon value: nan (adagrad: eps >= 0)"),
        Refused(
            {"initial_accumulator_value": -0.1},
            "Invalid initial_accumulator_value value: -0.1 (adagrad: initial_accumulator_value >= 0)",
        ),
    ),
    learning_rates={"digits": 0.1, "cruncher": 0.01},
    group_keys={
        **_required("lr", "lr_decay", "eps", "weight_decay", "initial_accumulator_value"),
        "eps_in_sqrt": False,
        **_MAXIMIZE,
    },
    group_data={**_SPEED, "fused": None},
    extra_keys={"eps_in_sqrt": False},
    uses_step=lambda options: bool(options["lr_decay"]),
    starts_with_state=True,
    drift_row="outside",
    stock_torch=StockTorch(name="Adagrad", arguments={"eps": 1e-5}, drifts="`addcmul` is an FMA, the root is MKL's"),
    stock_optax=StockOptax(
        make=_optax_adagrad,
        states={"ScaleByRssState": {"sum_of_squares": Carried("sum")}},
        drifts="ε is inside the root, and the division a product with `rsqrt`",
    ),
)

RMSPROP = Optimizer(
    name="rmsprop",
    jax=jaxopt_impl.rmsprop,
    torch_name="RMSprop",
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
    fences={
        "default": Fences(1, 1),
        "momentum": Fences(3, 3),
        "centered": Fences(3, 3),
        "weight_decay": Fences(2, 2),
        "maximize": Fences(1, 1),
        "alpha, eps": Fences(1, 1),
        "centered, momentum": Fences(5, 5),
        "all": Fences(6, 6),
        "accumulator": Fences(4, 4),
    },
    temporaries={"all": 4},
    refused=(
        Refused({"alpha": -0.1}, "Invalid alpha value: -0.1 (rmsprop: alpha >= 0)"),
        Refused({"eps": _NAN}, "Invalid epsilon value: nan (rmsprop: eps >= 0)"),
        Refused({"momentum": -1}, "Invalid momentum value: -1.0 (rmsprop: momentum >= 0)"),
        Refused({"weight_decay": -1}, "Invalid weight_decay value: -1.0 (rmsprop: weight_decay >= 0)"),
    ),
    learning_rates={"digits": 0.003, "cruncher": 0.001, "gpt": 0.001},
    group_keys={**_required("lr", "alpha", "eps", "weight_decay"), "momentum": 0, "centered": False, **_MAXIMIZE},
    group_data={**_SPEED, "capturable": False},
    uses_step=lambda options: False,
    optional_state={"momentum_buffer": {"momentum": 0.5}, "grad_avg": {"centered": True}},
    drift_row="momentum",
    stock_torch=StockTorch(name="RMSprop", drifts="`addcmul` is an FMA, the root is MKL's"),
    stock_optax=StockOptax(
        make=_optax_rmsprop,
        states={
            "ScaleByRmsState": {"nu": Carried("square_avg")},
            "ScaleByRStdDevState": {"mu": Carried("grad_avg"), "nu": Carried("square_avg")},
            "TraceState": {"trace": Carried("momentum_buffer", scaled=True)},
        },
        drifts="μ b is added to η g / √v, not to g / √v; XLA contracts",
    ),
)

ADAM = Optimizer(
    name="adam",
    jax=jaxopt_impl.adam,
    torch_name="Adam",
    rows={
        "default": {},
        "amsgrad": {"amsgrad": True},
        "weight_decay": {"weight_decay": 1e-2},
        "maximize": {"maximize": True},
        "betas, eps": {"b1": 0.8, "b2": 0.95, "eps": 1e-4},
        "all": {"b1": 0.8, "b2": 0.99, "eps": 1e-4, "weight_decay": 1e-3, "amsgrad": True, "maximize": True},
        "accumulator": {"weight_decay": 1e-3, "amsgrad": True, "accumulator_dtype": "float32"},
    },
    fences={
        "default": Fences(2, 2),
        "amsgrad": Fences(2, 2),
        "weight_decay": Fences(3, 3),
        "maximize": Fences(2, 2),
        "betas, eps": Fences(2, 2),
        "all": Fences(3, 3),
        "accumulator": Fences(3, 3),
    },
    refused=(
        Refused({"learning_rate": _NAN}, "Invalid learning rate: nan (adam: lr >= 0)"),
        Refused({"b1": 1.0}, "Invalid beta parameter at index 0: 1.0 (adam: 0 <= b1 < 1)"),
        Refused({"b2": _NAN}, "Invalid beta parameter at index 1: nan (adam: 0 <= b2 < 1)"),
        Refused({"eps": -1e-8}, "Invalid epsilon value: -1e-08 (adam: eps >= 0)"),
        Refused({"accumulator_dtype": "foo"}, "adam: accumulator_dtype foo is not supported; float32 or None is needed."),
    ),
    learning_rates={"digits": 0.003},
    group_keys={**_ADAM_KEYS, "decoupled_weight_decay": False},
    group_data=_ADAM_DATA,
    variants=("decoupled_weight_decay", {False: "adam", True: "adamw"}),
    optional_state={"max_exp_avg_sq": {"amsgrad": True}},
    drift_row="weight_decay",
    stock_torch=StockTorch(name="Adam", drifts="`lerp` and `addcmul` are FMAs, the root is MKL's"),
    stock_optax=StockOptax(
        make=_optax_adam,
        states=_ADAM_STATES,
        drifts="each moment is divided by its own correction, in float32; XLA contracts",
    ),
)

ADAMW = Optimizer(
    name="adamw",
    jax=jaxopt_impl.adamw,
    torch_name="AdamW",
    rows={
        "default": {},
        "no decay": {"weight_decay": 0.0},
        "amsgrad": {"amsgrad": True},
        "maximize": {"maximize": True},
        "betas, eps": {"b1": 0.8, "b2": 0.95, "eps": 1e-4},
        "all": {"b1": 0.8, "b2": 0.99, "eps": 1e-4, "weight_decay": 0.1, "amsgrad": True, "maximize": True},
        "accumulator": {"weight_decay": 0.1, "amsgrad": True, "accumulator_dtype": "float32"},
    },
    fences={
        "default": Fences(3, 3),
        "no decay": Fences(2, 2),
        "amsgrad": Fences(3, 3),
        "maximize": Fences(3, 3),
        "betas, eps": Fences(3, 3),
        "all": Fences(3, 3),
        "accumulator": Fences(3, 3),
    },
    refused=(
        Refused({"weight_decay": -1}, "Invalid weight_decay value: -1.0 (adamw: weight_decay >= 0)"),
        Refused({"b2": -0.1}, "Invalid beta parameter at index 1: -0.1 (adamw: 0 <= b2 < 1)"),
        Refused({"accumulator_dtype": "float64"}, "adamw: accumulator_dtype float64 is not supported; float32 or None is needed."),
    ),
    learning_rates={"digits": 0.003},
    group_keys={**_ADAM_KEYS, "decoupled_weight_decay": True},
    group_data=_ADAM_DATA,
    variants=("decoupled_weight_decay", {True: "adamw"}),
    optional_state={"max_exp_avg_sq": {"amsgrad": True}},
    drift_row="default",
    stock_torch=StockTorch(name="AdamW", drifts="θ is multiplied by 1 − ηλ before the step; `lerp` and `addcmul` are FMAs"),
    stock_optax=StockOptax(
        make=_optax_adamw,
        states=_ADAM_STATES,
        drifts="λθ is added before the product with η; corrections in float32; XLA contracts",
    ),
)

LION = Optimizer(
    name="lion",
    jax=jaxopt_impl.lion,
    torch_name="Lion",
    rows={
        "default": {},
        "weight_decay": {"weight_decay": 1e-2},
        "maximize": {"maximize": True},
        "betas": {"b1": 0.8, "b2": 0.95},
        "all": {"b1": 0.95, "b2": 0.98, "weight_decay": 0.1, "maximize": True},
        "accumulator": {"weight_decay": 0.1, "accumulator_dtype": "float32"},
    },
    fences={
        "default": Fences(3, 3),
        "weight_decay": Fences(4, 4),
        "maximize": Fences(3, 3),
        "betas": Fences(3, 3),
        "all": Fences(4, 4),
        "accumulator": Fences(4, 4),
    },
    temporaries={"default": 4, "weight_decay": 4, "maximize": 4, "betas": 4, "all": 4},
    refused=(
        Refused({"learning_rate": -1.0}, "Invalid learning rate: -1.0 (lion: lr >= 0)"),
        Refused({"weight_decay": _NAN}, "Invalid weight_decay value: nan (lion: weight_decay >= 0)"),
        Refused({"b1": 1.0}, "Invalid beta parameter at index 0: 1.0 (lion: 0 <= b1 < 1)"),
        Refused({"b2": -0.1}, "Invalid beta parameter at index 1: -0.1 (lion: 0 <= b2 < 1)"),
    ),
    learning_rates={"digits": 0.001, "cruncher": 0.0003},
    group_keys={**_required("lr", "betas", "weight_decay"), **_MAXIMIZE},
    group_data={**_SPEED, "fused": None},
    has_step=False,
    drift_row="weight_decay",
    stock_torch=None,
    stock_optax=StockOptax(
        make=_optax_lion,
        states={"ScaleByLionState": {"mu": Carried("exp_avg")}},
        drifts="XLA contracts β m + (1 − β) g, sign + λθ and θ − η d",
    ),
)

OPTIMIZERS = {entry.name: entry for entry in (SGD, MOMENTUM, ADAGRAD, RMSPROP, ADAM, ADAMW, LION)}
TORCH_CLASSES = {name: entry for entry in OPTIMIZERS.values() for name in entry.torch_names}


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
    def entry(self) -> Optimizer:
        return OPTIMIZERS[self.optimizer]

    @property
    def arguments(self) -> dict[str, Any]:
        return {"learning_rate": self.entry.learning_rate(), **self.entry.rows[self.label]}

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes that this row is about: an accumulator's dtype makes a difference to halves only."""
        return HALVES if "accumulator_dtype" in self.arguments else DTYPES

    @functools.cached_property
    def tx(self) -> optax.GradientTransformationExtraArgs:
        """Ours in JAX."""
        return self.entry.jax(**self.arguments)

    def torch(self, params):
        """Ours in PyTorch, over a list of parameters."""
        return self.entry.torch(params, **self.entry.in_torch(self.arguments))

    @functools.cached_property
    def stock_tx(self) -> optax.GradientTransformation:
        """The nearest optax transform."""
        return self.entry.stock_optax.make(**_without(self.arguments, "accumulator_dtype"))

    @property
    def stock_torch(self) -> Callable | None:
        """What makes the nearest torch.optim optimizer of a list of parameters, where there is one; it takes `foreach` and `fused`."""
        stock = self.entry.stock_torch
        if stock is None:
            return None
        ours = _without(self.entry.in_torch(self.arguments), *self.entry.extra_keys, "accumulator_dtype")

        def make(params, **implementation):
            optim = importlib.import_module("torch.optim")
            return getattr(optim, stock.name)(params, **{**stock.arguments, **ours}, **implementation)

        return make

    @property
    def exchanges_state(self) -> bool:
        """Whether torch.optim's class means the same by its state and groups, in this row."""
        stock, arguments = self.entry.stock_torch, {**self.entry.defaults, **self.arguments}
        same = all(arguments[key] == absent for key, absent in self.entry.extra_keys.items())
        return stock is not None and stock.exchanges_state and same and "accumulator_dtype" not in self.arguments


def _without(arguments, *names):
    return {name: value for name, value in arguments.items() if name not in names}


ROWS = [Row(name, label) for name, entry in OPTIMIZERS.items() for label in entry.rows]
