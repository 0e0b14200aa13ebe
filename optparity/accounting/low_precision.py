"""Adam's moments in 8 or 4 bits, as torchao's optimizers keep them (torchao/optim: `Adam8bit`, `Adam4bit`, `AdamFp8`).

A moment of n elements is n codes (two in a byte for 4 bits), a float32 scale for each block, and for 8-bit and 4-bit a table of 256 or
16 float32 values. Tensors of fewer than 4,096 elements, or not of whole blocks, keep theirs in the parameter's dtype.
Dettmers et al. 2021 (arXiv 2110.02861); Li et al. 2023 (arXiv 2309.01507).
"""

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

from .memory import itemsize, total
from .state import State


class Codes(NamedTuple):
    """How a moment is kept: bits of an element, elements of a block, entries of the table of values."""

    bits: int
    block: int
    table: int


MOMENTS = {"8-bit": Codes(8, 256, 256), "4-bit": Codes(4, 128, 16), "fp8": Codes(8, 256, 0)}
LEAST = 4096  # elements of a tensor that is quantized


def quantized(shapes: Iterable[tuple[int, ...]], dtype: str, moments: str, how_many: int) -> State:
    """The bytes of so many moments of each parameter, and of a float32 step for each; `dtype` is that of the parameters."""
    codes = MOMENTS[moments]
    found: list[tuple[str, int]] = []
    steps = 0
    for shape in shapes:
        n, steps = prod(shape), steps + 1
        if n < LEAST or n % codes.block:
            found.append((dtype, how_many * n * itemsize(dtype)))
            continue
        found.append(("uint8", how_many * n * codes.bits // 8))
        found.append(("float32", how_many * 4 * (n // codes.block + codes.table)))
    return State(total(found), {"float32": 4 * steps})
