"""The global norm: a sum of squares in which no addition rounds, so that its order is free.  Mirror: jaxopt_impl/around/norm.py

    m = max |xᵢ| < 2ᴱ,   yᵢ = xᵢ 2⁻ᴱ,   S = Σ ⌊yᵢ² / q⌋,   ‖x‖ = √(S q + what is left) 2ᴱ

The other file says what q is, and why S is the same whole number in any order. Here its digits are put together, and the root is that of a
whole number (`math.isqrt`): after the sums the two sides share no arithmetic.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from .. import checks
from .. import numerics as nx
from ..shards import owned

_FORMATS = {torch.float32: (24, -149), torch.float64: (53, -1074)}  # bits of precision, exponent of the smallest number
_TINY = 2.0**-300  # below it no square reaches a quantum, and what is computed of them may underflow
_CHUNK = 1 << 15  # elements at a time on a CPU, so that what is computed of them stays in its cache


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
    *,
    group: Any = None,
) -> Tensor:
    """torch.nn.utils.get_total_norm, correctly rounded, with the same bits in any order and on any number of ranks.

    Args:
        tensors: one, or several. DTensors are of one mesh, over which the norm is that of all their elements; a whole tensor beside them
            is the same in every process.
        norm_type: 2; no other is supported.
        error_if_nonfinite: whether a norm that is NaN or infinite is an error.
        foreach: has no effect.
        group: a process group over which whole tensors are spread, to have the norm of all of theirs together. None is this process alone.
    Dtypes: float32, float64, bfloat16, float16, also mixed; the norm is float64 if a tensor is, else float32.
    Raises: TypeError where a tensor is not floating point or not dense, naming it; ValueError for another norm_type; RuntimeError, with
        torch's text, for a norm that is not finite.
    Exactness: bit-equal to `jaxopt_impl.global_norm`, whose page says how exact that is. Run on CPU only.
    Differs from: torch.nn.utils.get_total_norm (the norm of the tensors' norms, each rounded, in an order that depends on the threads; that
        of halves is a half). It waits for the device.
    Example:
        >>> import torch
        >>> get_total_norm([torch.tensor([3e30, 0.0]), torch.tensor(4e30)])
        tensor(5.0000e+30)
    """
    del foreach
    return total_norm("global_norm", tensors, norm_type, error_if_nonfinite, group)


@torch.no_grad()
def total_norm(name: str, tensors: Tensor | Iterable[Tensor], norm_type: float, error_if_nonfinite: bool, group: Any) -> Tensor:
    """The same for `name`, which is what error messages begin with."""
    if norm_type != 2:
        raise ValueError(f"Invalid norm_type value: {norm_type} ({name}: norm_type = 2)")
    tensors = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    for i, x in enumerate(tensors):
        checks.dense(name, f"params[{i}]", str(x.layout).removeprefix("torch."))
        checks.floating(name, f"params[{i}]", nx.dtype_name(x.dtype))
    device = tensors[0].device if tensors else torch.device("cpu")
    parts, groups = owned(name, tensors)
    if group is not None and groups:
        raise ValueError(f"{name}: group is for whole tensors; a DTensor tells itself over which processes it is spread.")
    groups = groups if group is None else [group]
    value, dtype = norm_of([x.reshape(-1) for x in parts if x.numel()], norm_dtype(tensors), _Groups(groups, device))
    norm = torch.tensor(value, dtype=torch.float64, device=device).to(dtype)
    if error_if_nonfinite and not norm.isfinite():
        raise RuntimeError(
            f"The total norm of order {float(norm_type)} for gradients from `parameters` is non-finite, so it cannot be clipped. To "
            "disable this error and scale the gradients by the non-finite norm anyway, set `error_if_nonfinite=False`"
        )
    return norm


def norm_dtype(tensors: Iterable[Tensor]) -> torch.dtype:
    """The dtype of the norm of these tensors."""
    return torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32


def norm_of(arrays: Sequence[Tensor], dtype: torch.dtype, group: "_Groups") -> tuple[float, torch.dtype]:
    """The norm, rounded, and its dtype."""
    largest, dtype = group.largest(magnitude(arrays), dtype)
    count = group.total([sum(x.numel() * (4 if x.dtype == torch.float64 else 1) for x in arrays)])[0]
    if largest == 0 or not math.isfinite(largest):
        return largest, dtype
    bits, digits = layout(count, nx.dtype_name(dtype))
    _, exponent = math.frexp(largest)
    total, (*sums, left) = 0, group.total(sums_of_squares(arrays, exponent, bits, digits))
    for digit in sums:
        total = (total << bits) + digit
    return root(2 * total + (left > 0), 2 * exponent - bits * digits - 1, dtype), dtype


def layout(count: int, dtype: str) -> tuple[int, int]:
    """The bits of a digit, and how many there are, so that the sum of so many terms fits: of its first digit, into 62 bits."""
    k = (count - 1).bit_length()
    return min(50, 62 - k), 2 + (k > 27) + (dtype == "float64")


def magnitude(arrays: Iterable[Tensor]) -> float:
    """The largest magnitude, NaN if there is one."""
    ends = [end.double() for x in arrays for end in x.aminmax()]
    return torch.stack(ends).abs().amax().item() if ends else 0.0


def sums_of_squares(arrays: Iterable[Tensor], exponent: int, bits: int, digits: int) -> list[int]:
    """The digits of S, and how often something is left."""
    powers = [-exponent] if abs(exponent) < 1000 else [-exponent // 2, -exponent - -exponent // 2]  # one power of two could overflow
    units = [1.5 * 2.0 ** (52 - bits * (i + 1)) for i in range(digits)]
    offsets = torch.tensor(units, dtype=torch.float64).view(torch.int64).tolist()
    sums = [0] * (digits + 1)
    for x in arrays:
        for chunk in x.split(_CHUNK if x.device.type == "cpu" else x.numel()):
            y = chunk.to(torch.float64, copy=True)
            for power in powers:
                y.mul_(2.0**power)
            if x.dtype == torch.float64:
                sums[-1] += int(((chunk != 0) & (y.abs() < _TINY)).any())
            for term in squares(y) if x.dtype == torch.float64 else [y.mul_(y)]:
                for i, unit in enumerate(units):
                    shifted = term + unit
                    found = int(shifted.view(torch.int64).sum()) - offsets[i] * term.numel()
                    sums[i] += (found + 2**63) % 2**64 - 2**63  # it is small; the sum of the bits was taken modulo 2⁶⁴
                    term.sub_(shifted.sub_(unit))
                sums[-2] += int((term.view(torch.int64) >> 63).sum())  # one less where too much was cut off
                sums[-1] += int(term.any())
    return sums


def squares(y: Tensor) -> list[Tensor]:
    """Four float64 >= 0 whose sum is y², each exact: of 26 bits and the 27 after them."""
    y = y.abs()
    upper, even = ((y.view(torch.int64) & mask).view(torch.float64) for mask in (-(1 << 27), -2))
    lower = y - upper
    return [upper * upper, 2 * upper * lower, (even - upper) * lower, (y - even) * lower]


def root(total: int, exponent: int, dtype: torch.dtype) -> float:
    """√(total 2^exponent), rounded once, to nearest-even."""
    precision, least = _FORMATS[dtype]
    total, exponent = total << 128 + exponent % 2, (exponent - 128 - exponent % 2) // 2
    number = math.isqrt(total)
    number |= number * number != total  # its last bit is far below those that are kept
    drop = max(number.bit_length() - precision, least - exponent)
    number = number + (1 << drop - 1) - 1 + (number >> drop & 1) >> drop
    try:
        return math.ldexp(number, exponent + drop)
    except OverflowError:
        return math.inf


class _Groups:
    """What the processes of all groups have together; without a group, what this one has."""

    def __init__(self, groups: Sequence[Any], device: torch.device):
        self._groups, self._device = groups, device

    def largest(self, magnitude: float, dtype: torch.dtype) -> tuple[float, torch.dtype]:
        """The largest magnitude, by its bits, among which NaN is the largest, and the widest dtype."""
        bits = torch.tensor(magnitude, dtype=torch.float64).view(torch.int64).item()
        bits, wide = self._reduced([bits, dtype == torch.float64], "MAX")
        return torch.tensor(bits).view(torch.float64).item(), torch.float64 if wide else torch.float32

    def total(self, numbers: list[int]) -> list[int]:
        """The sum of each of the numbers."""
        return self._reduced(numbers, "SUM")

    def _reduced(self, numbers: list, operation: str) -> list[int]:
        if not self._groups:
            return numbers
        together = torch.tensor(numbers, dtype=torch.int64, device=self._device)
        for group in self._groups:
            dist.all_reduce(together, getattr(dist.ReduceOp, operation), group)
        return together.tolist()
