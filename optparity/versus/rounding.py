"""Is a difference rounding, or another formula? The same two runs in float64 tell.

Rounding shrinks with the precision: from float32 to float64 by about 2^29. What two formulas differ by stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite, log2
from typing import Any, Literal

import numpy as np

from .course import Course, Distance, Place

EPSILON = float(np.finfo(np.float64).eps)
# How much less than the nominal factor counts as "about": rounding errors are random, and cancellation makes single ones large.
SLACK = 2.0**9
# Of a leaf's largest element, for each step: what rounding in float64 may come to where it happened to be nothing in the lower precision.
GROWTH = 16 * EPSILON

Kind = Literal["same", "rounding", "another formula", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """What the difference of a leaf is.

    Attributes:
        kind: "same" where there is none, in either precision.
        step: from which step on: of rounding, where the bits part; of another formula, where the distance stays in float64.
        shrinks: by how many powers of two the largest distance becomes smaller in float64; infinite where none is left, 0 where none was.
        why: of "unknown": why it cannot be told.
    """

    kind: Kind
    step: int | None = None
    shrinks: float | None = None
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Everything above, for JSON; an infinite number is a string."""
        shrinks = self.shrinks if self.shrinks is None or isfinite(self.shrinks) else str(self.shrinks)
        return {"kind": self.kind, "step": self.step, "shrinks": shrinks, "why": self.why}

    def __str__(self) -> str:
        if self.kind == "same":
            return "same"
        if self.kind == "unknown":
            return f"unknown: {self.why}"
        if self.kind == "rounding":
            return f"rounding, from step {self.step}"
        return f"another formula, from step {self.step}"


def verdicts(course: Course, in_float64: Course, epsilons: Mapping[Place, float], narrow: str = "") -> dict[Place, Verdict]:
    """The verdict for each leaf, and for each field of the state of it.

    Args:
        course, in_float64: the two runs, at the same steps.
        epsilons: of each place, the machine epsilon of its dtype in `course`.
        narrow: why a distance may stay in float64 and be rounding all the same, where that is so.
    """
    return {
        place: _verdict(of_steps, in_float64.distances.get(place, {}), EPSILON / epsilons[place], narrow)
        for place, of_steps in course.distances.items()
        if place in epsilons
    }


def _verdict(lower: Mapping[int, Distance], higher: Mapping[int, Distance], factor: float, narrow: str) -> Verdict:
    seen, scale, farthest, parts = 0.0, 0.0, 0.0, None
    for step, distance in lower.items():
        if step not in higher:
            return Verdict("unknown", why="it is not there in float64")
        absolute, there = distance.absolute or 0.0, higher[step]
        if parts is None and (distance.ulp or there.ulp):
            parts = step
        if isfinite(absolute):
            seen = max(seen, absolute)
        if there.absolute and there.relative:
            scale = max(scale, there.absolute / there.relative) if isfinite(there.absolute) else scale
            farthest = max(farthest, there.absolute)
        if farthest > max(SLACK * factor * seen, GROWTH * step * scale):
            return Verdict("unknown", step, why=narrow) if narrow else Verdict("another formula", step, _shrinks(seen, farthest))
    return Verdict("same") if parts is None and not farthest else Verdict("rounding", parts, _shrinks(seen, farthest))


def _shrinks(lower: float, higher: float) -> float:
    if not higher:
        return inf
    return log2(lower / higher) if lower and isfinite(higher) else 0.0
