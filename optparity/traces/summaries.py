"""What is written down of an array at every step: a hash of its bits, and a few numbers, which cost little.

Arrays are copied side by side into one flat array, so that a handful of NumPy calls do for all leaves of a model.

A projection is a sum of the elements with random weights, the same in every process. That of a difference has, on average over the
weights, the norm of the difference. So two runs' projections tell about how far apart their arrays were, without the arrays.
"""

import hashlib
import math
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._arrays import to_numpy
from ..parity.bits import is_nan

PERIOD = 1 << 16  # weights; a leaf with more elements has them again, with random signs
CHUNKS = 4  # of a leaf; a projection of each makes the guess of a distance steadier
FLAT = 1 << 20  # elements that lie side by side
NUMBER = np.dtype(float)
HEX = 16  # digits of a hash


class Summary(NamedTuple):
    """Of one array. Norm and extremes are those of its finite elements; extremes are None where it has none."""

    hash: str
    norm: float
    low: float | None
    high: float | None
    nonfinite: int
    projections: tuple[float, ...]

    @property
    def value(self) -> float | None:
        """The element, of an array of equal elements, as a counter."""
        return self.low if self.low == self.high and not self.nonfinite else None

    def apart(self, other: "Summary") -> float:
        """About the norm of the difference of two arrays: 0 for the same bits, infinite where the non-finite ones are not as many."""
        if self.hash == other.hash:
            return 0.0
        if self.nonfinite != other.nonfinite:
            return math.inf
        return math.hypot(*(a - b for a, b in zip(self.projections, other.projections, strict=True)))


class Copies(NamedTuple):
    """Arrays of one dtype side by side; `places` are their places among those that were given."""

    places: tuple[int, ...]
    sizes: tuple[int, ...]
    flat: np.ndarray

    def arrays(self) -> Iterator[tuple[int, np.ndarray]]:
        """The place and the elements of each."""
        end = 0
        for place, size in zip(self.places, self.sizes, strict=True):
            yield place, self.flat[end : (end := end + size)]


def plain(value: Any) -> Any:
    """A tensor of torch, or else a NumPy array, of what a run has at a leaf.

    Raises: TypeError for what holds no real numbers.
    """
    if isinstance(value, np.ndarray):
        array = value
    elif is_of_torch(value):
        value = value.to_local() if hasattr(value, "to_local") else value  # of a DTensor this rank's part
        if value.layout is sys.modules["torch"].strided and not value.is_complex():
            return value
        raise TypeError(f"trace: a dense tensor of real numbers is needed; got {value.dtype}, {value.layout}.")
    elif not isinstance(getattr(value, "dtype", NUMBER), np.dtype):
        array = np.asarray(jax.random.key_data(value))
    else:
        array = np.asarray(value)
    if array.dtype.kind in "biuf" or jnp.issubdtype(array.dtype, np.floating):
        return array
    raise TypeError(f"trace: real numbers are needed; got {array.dtype}.")


def is_of_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def copied(arrays: Sequence[Any]) -> list[Copies]:
    """Copies of what `plain` gave, which their owners may change from now on."""
    groups: dict[tuple, list[list[int]]] = {}
    sizes = [x.size if isinstance(x, np.ndarray) else x.numel() for x in arrays]
    room: dict[tuple, int] = {}
    for place, (x, size) in enumerate(zip(arrays, sizes, strict=True)):
        key = (x.dtype,) if isinstance(x, np.ndarray) else (x.dtype, x.device)
        if size > PERIOD or room.get(key, -1) < size:
            groups.setdefault(key, []).append([])
            room[key] = 0 if size > PERIOD else FLAT  # a large one is alone
        groups[key][-1].append(place)
        room[key] -= size
    together = [places for of_kind in groups.values() for places in of_kind]
    return [Copies(tuple(places), tuple(sizes[i] for i in places), _side_by_side([arrays[i] for i in places])) for places in together]


def _side_by_side(arrays: list[Any]) -> np.ndarray:
    if not isinstance(arrays[0], np.ndarray):
        import torch

        with torch.no_grad():
            return to_numpy(torch.cat([x.reshape(-1) for x in arrays]))
    return np.concatenate([x.reshape(-1) for x in arrays])


def summaries(copies: Sequence[Copies], count: int) -> list[Summary]:
    """Of each of `count` arrays, in their order."""
    found: list[Any] = [None] * count
    for each in copies:
        some = [_of_any(each.flat)] if each.sizes[0] > PERIOD else _of_small_ones(each)
        for place, summary in zip(each.places, some, strict=True):
            found[place] = summary
    return found


def canonical(array: np.ndarray) -> np.ndarray:
    """Whole numbers as int64, so that it does not matter in which type a framework keeps them; every NaN alike."""
    if array.dtype.kind in "biu":
        return array.astype(np.int64)
    nan = is_nan(array)
    return np.where(nan, np.array(np.nan, array.dtype), array) if nan.any() else array


def _numbers(array: np.ndarray) -> np.ndarray:
    """In a type that NumPy computes in, each element exactly; integers past 2^53 are rounded, of which only hashes tell."""
    if array.dtype.kind in "biu":
        return array.astype(np.float64)
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array


@lru_cache
def _weights() -> tuple[np.ndarray, np.ndarray]:
    """Of mean 0 and variance 1, from a generator whose raw numbers NumPy keeps as they are; and signs."""
    raw = np.random.PCG64(0).random_raw(2 * PERIOD)
    uniform = ((raw[:PERIOD] >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1) * math.sqrt(3)
    return uniform, np.where(raw[PERIOD:] >> np.uint64(63), 1.0, -1.0)


class _Plan(NamedTuple):
    starts: np.ndarray  # of leaves with elements
    pieces: np.ndarray  # where the chunks of these start
    slots: np.ndarray  # and which projection each is
    weights: np.ndarray
    held: list[int]  # which leaves have elements


@lru_cache(64)
def _plan(sizes: tuple[int, ...]) -> _Plan:
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(int)
    held = [i for i, size in enumerate(sizes) if size]
    chunks = [(offsets[i] + sizes[i] * j // min(CHUNKS, sizes[i]), i * CHUNKS + j) for i in held for j in range(min(CHUNKS, sizes[i]))]
    pieces, slots = (np.array(column, int) for column in zip(*chunks, strict=True)) if chunks else (np.array([], int),) * 2
    uniform, _ = _weights()
    return _Plan(offsets[held], pieces, slots, np.concatenate([uniform[:size] for size in sizes]), held)


def _of_small_ones(copies: Copies) -> Iterator[Summary]:
    plan, flat = _plan(copies.sizes), copies.flat
    count = len(copies.sizes)
    norms, lows, highs = np.zeros(count), np.full(count, np.nan), np.full(count, np.nan)
    projections = np.zeros(count * CHUNKS)
    numbers = _numbers(flat)
    if plan.held:
        with np.errstate(all="ignore"):
            lows[plan.held], highs[plan.held] = np.minimum.reduceat(numbers, plan.starts), np.maximum.reduceat(numbers, plan.starts)
            norms[plan.held] = np.sqrt(np.add.reduceat(np.square(numbers, dtype=np.float64), plan.starts))
            projections[plan.slots] = np.add.reduceat(np.multiply(numbers, plan.weights, dtype=np.float64), plan.pieces)
    finite = (np.isfinite(lows) & np.isfinite(highs)).tolist()
    bits = canonical(flat) if flat.dtype.kind in "biu" else flat  # of finite elements: they need no other form
    content, width, end = bits.view(np.uint8).data, bits.itemsize, 0
    rows = zip(copies.sizes, norms.tolist(), lows.tolist(), highs.tolist(), projections.reshape(-1, CHUNKS).tolist(), finite, strict=True)
    for size, norm, low, high, projected, all_finite in rows:
        begin, end = end, end + size
        if all_finite:
            hash_ = hashlib.sha256(content[begin * width : end * width]).hexdigest()[:HEX]
            yield Summary(hash_, norm, low, high, 0, tuple(projected))
        else:
            yield _of_any(flat[begin:end])


def _of_any(array: np.ndarray) -> Summary:
    """Of an array of any size with any elements, a block at a time. The projections are the same as above, but for their rounding."""
    sha, nonfinite, square, low, high = hashlib.sha256(), 0, 0.0, math.inf, -math.inf
    projections = [0.0] * CHUNKS
    for chunk, start, stop in _blocks(array.size):
        part = array[start:stop]
        sha.update(np.ascontiguousarray(canonical(part)).view(np.uint8).data)
        numbers = _numbers(part).astype(np.float64)
        finite = np.isfinite(numbers)
        nonfinite += int((~finite).sum())
        numbers = np.where(finite, numbers, 0.0)
        low, high = min(low, numbers.min(where=finite, initial=math.inf)), max(high, numbers.max(where=finite, initial=-math.inf))
        with np.errstate(over="ignore"):
            square += float(np.square(numbers).sum())
            uniform, signs = _weights()
            projections[chunk] += float((numbers * uniform[start % PERIOD :][: stop - start]).sum() * signs[start // PERIOD % PERIOD])
    low, high = (None if math.isinf(x) else float(x) for x in (low, high))
    return Summary(sha.hexdigest()[:HEX], math.sqrt(square), low, high, nonfinite, tuple(projections))


def _blocks(size: int) -> Iterator[tuple[int, int, int]]:
    """Chunk, start and stop: no block goes past its chunk, or past the weights."""
    chunks = min(CHUNKS, size)
    for chunk in range(chunks):
        start, end = size * chunk // chunks, size * (chunk + 1) // chunks
        while start < end:
            stop = min(end, (start // PERIOD + 1) * PERIOD)
            yield chunk, start, stop
            start = stop
