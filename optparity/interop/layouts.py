"""What a torch weight went through to become a JAX leaf: an order of axes, a reshape, or several of these; and the way back.

A Flax kernel (in, out) is a torch weight (out, in) with its axes in the order (1, 0). Moments go the same way as their weight.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np


class Reshape(NamedTuple):
    """The shape in torch, and the shape in JAX."""

    before: tuple[int, ...]
    after: tuple[int, ...]


Layout = None | tuple[int, ...] | Reshape | Sequence[tuple[int, ...] | Reshape]


# How Flax's `kernel` lies when a torch module's `weight` is as it is. Of a transposed convolution Flax flips the kernel: no layout does.
KERNELS = {
    "Linear": (1, 0),
    "MultiheadAttention": (1, 0),  # its in_proj_weight
    "Conv1d": (2, 1, 0),
    "Conv2d": (2, 3, 1, 0),
    "Conv3d": (2, 3, 4, 1, 0),
    "RNNBase": (1, 0),  # LSTM, GRU and RNN: their weight_ih_l0 and weight_hh_l0, in parts
    "RNNCellBase": (1, 0),
    "Embedding": None,
    "Conv1D": None,  # GPT-2's linear layer in transformers, whose weight is (in, out)
}

# Names of weights in JAX that lie as they do in torch.
AS_IN_TORCH = ("weight", "scale", "embedding", "bias")


def of_a_kernel(axes: int, module: Sequence[str]) -> Iterator[Layout]:
    """The layouts in which Flax's `kernel` may have been a torch `weight` with so many axes, in a module of these classes.

    Where the module is not known, these are all that exist.
    """
    known = [name for name in module if name in KERNELS]
    if known:
        yield KERNELS[known[0]]
        return
    yield None
    convolution = (*range(2, axes), 1, 0)
    if axes > 1:
        yield convolution
    if axes > 2:
        yield (*range(2, axes), 0, 1)  # a transposed convolution's, but for the flip


def is_flipped(layout: Layout, shape: Sequence[int]) -> bool:
    """Whether a kernel of this shape, found in this layout, is a transposed convolution's, whose elements Flax has in another order."""
    return layout == (*range(2, len(shape)), 0, 1) and len(shape) > 2 and any(size > 1 for size in shape[:-2])


def apply(layout: Layout, array: np.ndarray) -> np.ndarray:
    """A torch weight as the JAX leaf; the same memory where it can be.

    Raises: ValueError where the layout is not one of an array of this shape.
    """
    for part in _parts(layout):
        if isinstance(part, Reshape):
            if array.shape != tuple(part.before) or math.prod(part.before) != math.prod(part.after):
                raise ValueError(f"a reshape from {tuple(part.before)} to {tuple(part.after)} does not fit shape {array.shape}")
            array = array.reshape(part.after)
        else:
            if sorted(part) != list(range(array.ndim)):
                raise ValueError(f"axes {tuple(part)} do not fit shape {array.shape}")
            array = array.transpose(part)
    return array


def shape_after(layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape in JAX of a torch weight; None where the layout is not one of that."""
    try:
        return _shape_after(tuple(part if isinstance(part, Reshape) else tuple(part) for part in _parts(layout)), shape)
    except ValueError:
        return None


@lru_cache(4096)
def _shape_after(parts: tuple, shape: tuple[int, ...]) -> tuple[int, ...]:
    return apply(parts, np.broadcast_to(np.False_, shape)).shape


def inverse(layout: Layout) -> list[tuple[int, ...] | Reshape]:
    """The layout that leads back."""
    parts = reversed(_parts(layout))
    return [
        Reshape(part.after, part.before) if isinstance(part, Reshape) else tuple(sorted(range(len(part)), key=part.__getitem__))
        for part in parts
    ]


def _parts(layout: Layout) -> list:
    if layout is None or (isinstance(layout, list | tuple) and not layout):
        return []
    if isinstance(layout, Reshape) or _is_axes(layout):
        return [layout]
    if not isinstance(layout, list | tuple) or not all(isinstance(part, Reshape) or _is_axes(part) for part in layout):
        raise ValueError(f"a layout is axes as (1, 0), a Reshape, or several of these; got {layout!r}")
    return list(layout)


def _is_axes(part: Any) -> bool:
    return isinstance(part, list | tuple) and all(isinstance(axis, int) for axis in part)
