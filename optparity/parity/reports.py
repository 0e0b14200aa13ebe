"""What a comparison found."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np

from .bits import as_hex, differing, ulp_distance


class Pair(NamedTuple):
    """Two arrays that must be the same: of "params" or of a state field, at a leaf."""

    field: str
    path: str
    got: np.ndarray
    expected: np.ndarray


@dataclass(frozen=True)
class Line:
    """One thing that `optparity doctor` tried. `ok` is None where nothing of ours depends on the answer."""

    what: str
    dtype: str
    found: str
    verdict: str
    ok: bool | None


@dataclass(frozen=True)
class Difference:
    """The first place where two implementations part."""

    step: int  # 1 is the first step
    leaf: str  # path of the leaf, "params['w']" or "sum['w']"
    index: tuple[int, ...]
    got: str  # bits in hex
    expected: str
    ulp: int

    def __str__(self) -> str:
        return f"step {self.step}, {self.leaf}[{', '.join(map(str, self.index))}]: {self.got} != {self.expected} ({self.ulp} ulp)"


@dataclass
class Report:
    """A trial of one implementation against a reference.

    Attributes:
        got, expected: the names of the implementation and of the reference.
        compared: "params", then the state fields that both have; parameters alone where no field's meaning is shared.
        steps: how many steps were compared.
        elements: how many elements were compared at each step.
        differing: for each step, how many elements' bits differ.
        ulp: for each step, the largest distance in ulp.
        first_difference: where they part, or None.
    """

    got: str
    expected: str
    compared: tuple[str, ...] = ("params",)
    elements: int = 0
    differing: list[int] = field(default_factory=list)
    ulp: list[int] = field(default_factory=list)
    first_difference: Difference | None = None

    def note(self, step: int, pairs: Sequence[Pair], *, again: bool = False) -> None:
        """Compare one step's arrays; with `again` as another lane of the step that is written already.

        Raises: ValueError where two arrays have not the same shape and dtype.
        """
        differ, farthest = 0, 0
        for pair in pairs:
            different = self._different(pair)
            if different.any():
                ulp = ulp_distance(pair.got, pair.expected)
                differ, farthest = differ + int(different.sum()), max(farthest, int(ulp.max()))
                self.first_difference = self.first_difference or _first(step, pair, different, ulp)
        self.compared = tuple(dict.fromkeys(pair.field for pair in pairs)) or self.compared
        elements = sum(pair.got.size for pair in pairs)
        if again:
            self.elements += elements
            self.differing[-1] += differ
            self.ulp[-1] = max(self.ulp[-1], farthest)
        else:
            self.elements = elements
            self.differing.append(differ)
            self.ulp.append(farthest)

    def _different(self, pair: Pair) -> np.ndarray:
        a, b = pair.got, pair.expected
        if a.shape != b.shape or a.dtype != b.dtype:
            raise ValueError(
                f"compare: {pair.field}{pair.path} is {a.dtype.name}{list(a.shape)} in {self.got}, "
                f"{b.dtype.name}{list(b.shape)} in {self.expected}."
            )
        return differing(a, b)

    @property
    def steps(self) -> int:
        return len(self.differing)

    @property
    def identical(self) -> bool:
        return self.first_difference is None

    @property
    def max_ulp(self) -> int:
        return max(self.ulp, default=0)

    @property
    def share(self) -> float:
        """The share of elements that differ after the last step."""
        return self.differing[-1] / self.elements if self.elements and self.differing else 0.0

    def to_json(self) -> str:
        """Everything above as one JSON object."""
        return json.dumps({**asdict(self), "steps": self.steps, "identical": self.identical, "max_ulp": self.max_ulp})

    def __str__(self) -> str:
        what = f"{self.got} and {self.expected}, {self.steps} steps of {self.elements} elements ({', '.join(self.compared)})"
        if self.identical:
            return f"{what}: identical"
        return f"{what}: {sum(self.differing)} elements differ, by up to {self.max_ulp} ulp; first at {self.first_difference}"


def _first(step: int, pair: Pair, different: np.ndarray, ulp: np.ndarray) -> Difference:
    index = tuple(int(i) for i in np.argwhere(different)[0])
    got, expected = as_hex(pair.got[index]), as_hex(pair.expected[index])
    return Difference(step, f"{pair.field}{pair.path}", index, got, expected, int(ulp[index]))
