"""A training run carried between PyTorch and JAX: hyper-parameters, moments and step of an optimizer, every bit of them, both ways.

    imported = from_torch(torch_optimizer, params)  # imported.tx, imported.state: go on in JAX
    state_dict = to_torch_state_dict(state, imported.groups)  # go on in PyTorch

What does not carry over is refused by name; nothing is dropped, and nothing is filled in unless asked for by name. torch is needed
only where tensors are made, in `to_torch_state_dict` and `weights_to_torch`.
"""

from .averages import average_from_torch, average_to_torch
from .flax_states import to_flax
from .groups import Group, Leaf
from .imported import Imported, from_torch
from .layouts import Layout, Reshape
from .masks import with_mask
from .matching import Matching
from .scaler import scaler_from_torch, scaler_to_torch
from .sources import Part, Stacked
from .stock_optax import from_optax, to_optax
from .torch_state import describe, to_torch_state_dict
from .weights import weights_from_torch, weights_to_torch
from .wrapped_states import wrapped

__all__ = [
    "Group",
    "Imported",
    "Layout",
    "Leaf",
    "Matching",
    "Part",
    "Reshape",
    "Stacked",
    "average_from_torch",
    "average_to_torch",
    "describe",
    "from_optax",
    "from_torch",
    "scaler_from_torch",
    "scaler_to_torch",
    "to_flax",
    "to_optax",
    "to_torch_state_dict",
    "weights_from_torch",
    "weights_to_torch",
    "with_mask",
    "wrapped",
]
