"""Two runs side by side: how far they are from each other at each step, stage and leaf, and where they part."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from ..parity.bits import as_hex, differing, ulp_distance
from .modes import BITS, Mode

STAGES = ("batch", "loss", "gradients", "clipped", "lr", "state", "params")  # in the order in which a step passes them


class Place(NamedTuple):
    """What is compared: of a stage, a leaf. Of the state, `name` is the field."""

    stage: str
    leaf: str = ""  # a path as "['hidden']['kernel']"; nothing for a number as the loss
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name or self.stage}{self.leaf}"


class Distance(NamedTuple):
    """How far an array of one run is from that of the other. What hashes alone cannot tell is None."""

    same: bool  # by the mode
    elements: int
    differing: int | None  # elements that the mode does not accept
    ulp: int | None  # the largest distance
    absolute: float | None  # the largest
    relative: float | None  # that, over the largest element of the second


@dataclass(frozen=True)
class Parting:
    """The first element that differs."""

    step: int
    place: Place
    index: tuple[int, ...] | None = None  # None where only hashes were there
    first: str = ""  # bits in hex, or a hash
    second: str = ""
    values: tuple[float, float] | None = None
    ulp: int | None = None

    def __str__(self) -> str:
        where = "" if not self.index else f"[{', '.join(map(str, self.index))}]"
        far = "" if self.ulp is None else f" ({self.ulp} ulp)"
        return f"step {self.step}, {self.place}{where}: {self.first} != {self.second}{far}"


@dataclass
class Course:
    """What a comparison of two runs found; `note` is called for each step and place, steps in their order.

    Attributes:
        first, second: what the runs are called.
        mode: how it was judged.
        steps: their numbers.
        distances: for each place, for each of its steps, the distance.
        parting: where they part first: the earliest step, there the earliest stage; None if they do not.
    """

    first: str
    second: str
    mode: Mode = BITS
    steps: list[int] = field(default_factory=list)
    distances: dict[Place, dict[int, Distance]] = field(default_factory=dict)
    parting: Parting | None = None

    def note(self, step: int, place: Place, first: np.ndarray, second: np.ndarray) -> None:
        """Compare two arrays.

        Raises: ValueError where they have not the same shape and dtype.
        """
        if first.shape != second.shape or first.dtype != second.dtype:
            kinds = [f"{x.dtype.name}{list(x.shape)} in {name}" for x, name in ((first, self.first), (second, self.second))]
            raise ValueError(f"{place} is {', '.join(kinds)}.")
        rejected = self.mode.rejects(first, second)
        if not differing(first, second).any():
            self._keep(step, place, Distance(True, first.size, 0, 0, 0.0, 0.0))
            return
        ulp = ulp_distance(first, second)
        a, b = first.astype(np.float64), second.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            apart = np.where(np.isnan(a) ^ np.isnan(b), np.inf, np.abs(a - b))  # NaN on one side only is as far as can be
            absolute = float(np.nanmax(apart, initial=0.0))
            relative = absolute / float(np.nanmax(np.abs(b), initial=0.0) or 1.0)
        self._keep(step, place, Distance(not rejected.any(), first.size, int(rejected.sum()), int(ulp.max()), absolute, relative))
        if rejected.any():
            index = tuple(int(i) for i in np.argwhere(rejected)[0])
            values = (float(a[index]), float(b[index]))
            self._part(Parting(step, place, index, as_hex(first[index]), as_hex(second[index]), values, int(ulp[index])))

    def note_hashes(self, step: int, place: Place, elements: int, first: str, second: str) -> None:
        """Compare what only hashes are known of."""
        if first == second:
            self._keep(step, place, Distance(True, elements, 0, 0, 0.0, 0.0))
        else:
            self._keep(step, place, Distance(False, elements, None, None, None, None))
            self._part(Parting(step, place, None, first, second))

    def put(self, step: int, place: Place, distance: Distance, parting: Parting | None = None) -> None:
        """Note what somebody else has measured; `parting` where it is not the same by the mode."""
        self._keep(step, place, distance)
        if parting is not None:
            self._part(parting)

    def _keep(self, step: int, place: Place, distance: Distance) -> None:
        if not self.steps or self.steps[-1] != step:
            self.steps.append(step)
        self.distances.setdefault(place, {})[step] = distance

    def _part(self, found: Parting) -> None:
        def order(parting: Parting) -> tuple[int, int]:
            return parting.step, STAGES.index(parting.place.stage)

        if self.parting is None or order(found) < order(self.parting):
            self.parting = found

    @property
    def same(self) -> bool:
        return self.parting is None

    def to_dict(self) -> dict[str, Any]:
        """Everything above, for JSON; what is not finite is a string."""
        return {
            "first": self.first,
            "second": self.second,
            "mode": str(self.mode),
            "same": self.same,
            "steps": self.steps,
            "parting": None if self.parting is None else str(self.parting),
            "places": [
                {**place._asdict(), "steps": list(of_steps)}
                | {name: [_plain(getattr(distance, name)) for distance in of_steps.values()] for name in Distance._fields}
                for place, of_steps in self.distances.items()
            ],
        }

    def at(self, step: int) -> Iterator[tuple[Place, Distance]]:
        """What was compared at a step."""
        for place, of_steps in self.distances.items():
            if step in of_steps:
                yield place, of_steps[step]


def _plain(number: Any) -> Any:
    return str(number) if isinstance(number, float) and not isfinite(number) else number
