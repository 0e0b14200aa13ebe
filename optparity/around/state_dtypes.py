"""State in other dtypes: first moments in bfloat16, float32 masters of half parameters, stochastic rounding to bfloat16."""

from collections.abc import Callable
from typing import Any

import optax

import jaxopt_impl
from jaxopt_impl.numerics import HALVES

from ..registry import OPTIMIZERS, Refused
from .piece import Piece


def _in_jax(optimizer: str, **arguments: Any) -> optax.GradientTransformation:
    return OPTIMIZERS[optimizer].jax(**arguments)


def _in_torch(optimizer: str, **arguments: Any) -> Callable[[list], Any]:
    entry = OPTIMIZERS[optimizer]
    return lambda params: entry.torch(params, **entry.in_torch(arguments))


_ADAM = {"learning_rate": 0.1, "eps": 1e-4, "mu_dtype": "bfloat16"}  # an eps that float16 holds

MU_DTYPE = Piece(
    name="mu_dtype",
    rows={
        "default": {"optimizer": "adamw", **_ADAM},
        "adam, all": {"optimizer": "adam", **_ADAM, "b1": 0.8, "weight_decay": 0.1, "amsgrad": True, "maximize": True},
        "adamw, float32 accumulators": {"optimizer": "adamw", **_ADAM, "weight_decay": 0.1, "accumulator_dtype": "float32"},
        "lion": {"optimizer": "lion", "learning_rate": 0.1, "weight_decay": 0.1, "mu_dtype": "bfloat16"},
    },
    jax=_in_jax,
    torch=_in_torch,
    state=("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    refused=tuple(
        Refused(
            {"optimizer": optimizer, "learning_rate": 0.1, "mu_dtype": dtype},
            f"{optimizer}: mu_dtype {dtype} is not supported; bfloat16 or None is needed.",
        )
        for optimizer, dtype in (("adam", "float16"), ("adamw", "float32"), ("lion", "bf16"))
    ),
    differs="Stock optax rounds the product with the old moment to bfloat16 as well; torch.optim keeps moments in the parameter's dtype.",
)


class _Driven:
    """A wrapper of torch_ref, its state by parameter and under the names that the transform's has."""

    def __init__(self, wrapper: Any, own: Callable[[Any], dict[str, Any]]):
        self.wrapper, self._own = wrapper, own

    def step(self) -> None:
        self.wrapper.step()

    @property
    def state(self) -> dict[Any, dict[str, Any]]:
        states = self.wrapper.optimizer.state
        return {p: {**states.get(self.wrapper.copies.get(p, p), {}), **self._own(p)} for p in self.wrapper.parameters}


def _masters_in_jax(optimizer: str, **arguments: Any) -> optax.GradientTransformation:
    return jaxopt_impl.master_weights(OPTIMIZERS[optimizer].jax(**arguments))


def _masters_in_torch(optimizer: str, **arguments: Any) -> Callable[[list], Any]:
    def made(params: list) -> _Driven:
        import torch_ref

        wrapper = torch_ref.MasterWeights(params, _in_torch(optimizer, **arguments))
        return _Driven(wrapper, lambda p: {"master": wrapper.copies[p]} if p in wrapper.copies else {})

    return made


MASTER_WEIGHTS = Piece(
    name="master_weights",
    rows={
        "default": {"optimizer": "adamw", "learning_rate": 0.1, "weight_decay": 0.1},
        "sgd": {"optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.9, "nesterov": True},
    },
    jax=_masters_in_jax,
    torch=_masters_in_torch,
    state=("momentum_buffer", "exp_avg", "exp_avg_sq", "master"),
    dtypes=HALVES,
    differs="Neither optax nor torch.optim has it.",
)


def _rounding_in_jax(optimizer: str, seed: int, state: bool = True, **arguments: Any) -> optax.GradientTransformation:
    return jaxopt_impl.stochastic_rounding(OPTIMIZERS[optimizer].jax(**arguments), seed, state=state)


def _rounding_in_torch(optimizer: str, seed: int, state: bool = True, **arguments: Any) -> Callable[[list], Any]:
    def made(params: list) -> _Driven:
        import torch

        import torch_ref

        wrapper = torch_ref.StochasticRounding(params, _in_torch(optimizer, **arguments), seed, state=state)
        return _Driven(wrapper, lambda p: {"rounding_step": torch.tensor(wrapper.rounding_step)})

    return made


def _refused_seed(seed: Any, message: str, error: type[Exception] = ValueError) -> Refused:
    return Refused({"optimizer": "sgd", "learning_rate": 0.1, "seed": seed}, message, error)


STOCHASTIC_ROUNDING = Piece(
    name="stochastic_rounding",
    rows={
        "default": {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.1, "seed": 0},
        "float32 state": {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.1, "seed": 2**40 + 7, "state": False},
        "sgd": {"optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.9, "seed": 2**64 - 1},
        "four fields": {"optimizer": "rmsprop", "learning_rate": 0.01, "momentum": 0.9, "centered": True, "seed": 3},
    },
    jax=_rounding_in_jax,
    torch=_rounding_in_torch,
    state=("momentum_buffer", "exp_avg", "exp_avg_sq", "square_avg", "grad_avg", "rounding_step"),
    refused=(
        _refused_seed(-1, f"Invalid seed value: -1 (stochastic_rounding: seed >= 0 and seed <= {2**64 - 1})"),
        _refused_seed(2**64, f"Invalid seed value: {2**64} (stochastic_rounding: seed >= 0 and seed <= {2**64 - 1})"),
        _refused_seed(0.5, "Invalid seed: 0.5 (stochastic_rounding: seed is a whole number)", TypeError),
    ),
    dtypes=("bfloat16",),
    except_in={"vmap": "random bits belong to a place, and the lanes hold the same parameters in other places"},
    differs="Neither optax nor torch.optim has it.",
)

PIECES = (MU_DTYPE, MASTER_WEIGHTS, STOCHASTIC_ROUNDING)
