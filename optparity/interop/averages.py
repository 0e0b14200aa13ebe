"""The state of an AveragedModel of torch, and that of `jaxopt_impl.params_ema` and `params_swa`: the same averages and count."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_impl.around.averages import AverageState

from .matching import Layouts, Matching, Names
from .weights import weights_from_torch, weights_to_torch

_MODULE, _COUNT = "module.", "n_averaged"


def average_from_torch(
    averaged: Any, state: Any, *, matching: Matching | None = None, names: Names | None = None, layouts: Layouts | None = None
) -> Any:
    """The state of `params_ema` or `params_swa` that goes on where torch's AveragedModel stands.

    Args:
        averaged: an AveragedModel, torch's or `torch_ref`'s; or its `state_dict()`, of which buffers are known by a `matching` only.
        state: what `init` gave, of the average or of a chain with it. With start or every, its `n_steps` stays.
        matching: of parameters and model, made once for weights and optimizer as well; in the place of `names` and `layouts`.
        names, layouts: as in `Matching`.
    Raises: ValueError where the state holds no average, or several; where one is biased (form "optax") and the other is not; and as
        `weights_from_torch`.
    Example:
        >>> import jaxopt_impl, torch
        >>> averaged = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(3, 2, bias=False))
        >>> averaged.update_parameters(averaged.module)
        >>> state = jaxopt_impl.params_swa().init({"kernel": jnp.zeros((3, 2))})
        >>> int(average_from_torch(averaged, state).n_averaged)
        1
    """
    who = "average_from_torch"
    own = _one(who, state)
    field = "average" if own.biased_average is None else "biased_average"
    if isinstance(averaged, Mapping):
        weights: Any = {name.removeprefix(_MODULE): tensor for name, tensor in averaged.items() if name.startswith(_MODULE)}
        n = averaged.get(_COUNT)
    else:
        weights, n = averaged.module, averaged.n_averaged
        if getattr(averaged, "field", "average") != field:
            raise ValueError(f"{who}: the state holds a {field}, the AveragedModel another form; the same form is needed on both sides.")
    if n is None:
        raise ValueError(f"{who}: there is no {_COUNT}; the state_dict of an AveragedModel is needed.")
    average = weights_from_torch(weights, getattr(own, field), matching=matching, names=names, layouts=layouts)
    after = own._replace(**{field: average}, n_averaged=jnp.full_like(own.n_averaged, int(n)))
    return jax.tree.map(lambda node: after if _is_average(node) else node, state, is_leaf=_is_average)


def average_to_torch(state: Any, *, matching: Matching | None = None, names: Any = None, layouts: Layouts | None = None) -> dict:
    """The tensors for `AveragedModel.load_state_dict`; where the model has buffers, with strict=False: the inverse of `average_from_torch`.

    Args:
        state: with the average in it; of form "optax" for a `torch_ref.AveragedModel` of that form.
        matching, names, layouts: as in `weights_to_torch`.
    """
    import torch

    own = _one("average_to_torch", state)
    average = own.average if own.biased_average is None else own.biased_average
    tensors = weights_to_torch(average, matching=matching, names=names, layouts=layouts)
    return {_COUNT: torch.tensor(int(own.n_averaged)), **{f"{_MODULE}{name}": tensor for name, tensor in tensors.items()}}


def _one(who: str, state: Any) -> Any:
    found = [node for node in jax.tree.leaves(state, is_leaf=_is_average) if _is_average(node)]
    if len(found) != 1:
        raise ValueError(f"{who}: one state of params_ema or params_swa is needed; got {len(found)}.")
    return found[0]


def _is_average(node: Any) -> bool:
    return isinstance(node, AverageState)
