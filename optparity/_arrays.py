"""Tensors as NumPy arrays and back, every bit as it is. Reading needs no torch: a tensor is known by what it can do.

A NumPy array may stand in the place of a tensor. NumPy takes no bfloat16 from PyTorch, nor PyTorch from NumPy: it goes as integers.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np


def is_tensor(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic) or all(hasattr(value, name) for name in ("detach", "cpu", "numpy", "__dlpack__"))


def to_numpy(tensor: Any) -> np.ndarray:
    """A tensor's elements; on the CPU the same memory.

    Raises: TypeError for a tensor that is not dense, or that is spread over processes: to gather it is for all of them to do.
    """
    if isinstance(tensor, np.ndarray | np.generic):
        return np.asarray(tensor)
    if hasattr(tensor, "full_tensor"):
        raise TypeError("a whole tensor is needed; got a DTensor: call full_tensor() in every process, or ask for full_state_dict=True")
    if "strided" not in str(getattr(tensor, "layout", "strided")):
        raise TypeError(f"a dense tensor is needed; got one that is {str(tensor.layout).removeprefix('torch.')}")
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        import torch

        return tensor.view(torch.int16).numpy().view(jnp.bfloat16)
    return tensor.numpy()


def to_torch(array: np.ndarray, *, copy: bool = False) -> Any:
    """A tensor over the array's memory, which torch may write to; over a copy if one is asked for, or the array is read-only."""
    import torch

    if copy or not array.flags.writeable:
        array = np.array(array)
    if array.dtype == jnp.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def copied(value: Any) -> Any:
    """What a parameter group holds, as data that no optimizer changes any more.

    Raises: TypeError where it is neither a number, a string, a tensor, nor made of these.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if is_tensor(value):
        return value.copy() if isinstance(value, np.ndarray | np.generic) else value.detach().clone()
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    raise TypeError(f"a number, a string or a tensor is needed, or a collection of these; got {type(value).__name__}")


def number(value: Any) -> Any:
    """The number in a tensor of one element; anything else as it is."""
    return value.item() if is_tensor(value) else value


def check_alike(who: str, got: Any, shape: tuple[int, ...], dtype: Any, like: str) -> None:
    """Raise where `got` has not the shape and the dtype of `like`, which has these.

    Raises: ValueError for another shape, TypeError for another dtype.
    """
    if tuple(got.shape) != tuple(shape):
        raise ValueError(f"{who} has shape {tuple(got.shape)}; {like} has {tuple(shape)}.")
    if got.dtype != dtype:
        raise TypeError(f"{who} has dtype {jnp.dtype(got.dtype).name}; {like} has {jnp.dtype(dtype).name}.")
