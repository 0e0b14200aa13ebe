"""Decay masks and frozen parts by path, against torch's groups."""

from collections.abc import Callable, Mapping
from typing import Any

import optax

import jaxopt_impl

from .piece import Piece, named


def is_matrix(path: str) -> bool:
    """Whether a leaf is decayed, as GPTs have it: biases and scales are not."""
    return path in ("embedding", "kernel", "hidden")


def embedding_is_frozen(path: str) -> str | None:
    """The label of a leaf: decayed or not, and the embedding is not trained."""
    if path == "embedding":
        return None
    return "decay" if is_matrix(path) else "no_decay"


def _jax_masked(weight_decay: float = 0.1) -> optax.GradientTransformation:
    return jaxopt_impl.adamw(0.01, 0.9, 0.99, weight_decay=weight_decay, mask=jaxopt_impl.by_path(is_matrix))


def _torch_masked(weight_decay: float = 0.1) -> Callable[[list], Any]:
    import torch_ref

    options = {True: {"weight_decay": weight_decay}, False: {"weight_decay": 0.0}}
    return lambda params: torch_ref.AdamW(_groups(params, is_matrix, options), lr=0.01, betas=(0.9, 0.99))


def _groups(params: list, function: Callable, options: Mapping) -> list:
    import torch_ref

    return torch_ref.param_groups(named(params).items(), function, options)


def _jax_partitioned(weight_decay: float = 0.1, slower: float = 0.5) -> optax.GradientTransformation:
    decayed = jaxopt_impl.adamw(0.01, 0.9, 0.99, weight_decay=weight_decay)
    plain = jaxopt_impl.adamw(0.01 * slower, 0.9, 0.99, weight_decay=0.0)
    return jaxopt_impl.partition_by_path(embedding_is_frozen, {"decay": decayed, "no_decay": plain})


def _torch_partitioned(weight_decay: float = 0.1, slower: float = 0.5) -> Callable[[list], Any]:
    import torch_ref

    options = {"decay": {"weight_decay": weight_decay}, "no_decay": {"weight_decay": 0.0, "lr": 0.01 * slower}}
    return lambda params: torch_ref.AdamW(_groups(params, embedding_is_frozen, options), lr=0.01, betas=(0.9, 0.99))


def _stock_masked(weight_decay: float = 0.1) -> optax.GradientTransformation:
    return optax.adamw(0.01, 0.9, 0.99, weight_decay=weight_decay, mask=jaxopt_impl.by_path(is_matrix))


def _stock_torch_masked(weight_decay: float = 0.1) -> Callable[[list], Any]:
    import torch

    options = {True: {"weight_decay": weight_decay}, False: {"weight_decay": 0.0}}
    return lambda params: torch.optim.AdamW(_groups(params, is_matrix, options), lr=0.01, betas=(0.9, 0.99))


BY_PATH = Piece(
    name="by_path",
    rows={"default": {}, "large": {"weight_decay": 3.0}},
    jax=_jax_masked,
    torch=_torch_masked,
    state=("exp_avg", "exp_avg_sq"),
    stock_jax=_stock_masked,
    stock_torch=_stock_torch_masked,
    differs="optax: corrections in float32; torch: the parameter is shrunk first, FMAs",
)

PARTITION_BY_PATH = Piece(
    name="partition_by_path",
    rows={"default": {}, "other rates": {"weight_decay": 0.5, "slower": 0.25}},
    jax=_jax_partitioned,
    torch=_torch_partitioned,
    state=("exp_avg", "exp_avg_sq"),
    differs="optax.set_to_zero makes +0 of a frozen −0",
)

PIECES = (BY_PATH, PARTITION_BY_PATH)
