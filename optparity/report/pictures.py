"""What the pictures of a report show, as numbers: the template draws them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..versus.course import STAGES, Course, Distance, Place

CELLS = 120  # columns of a map, at most: a phone shows three pixels of each
ROWS = 40  # leaves of a map, at most
POINTS = 240  # of a line, at most
LEVELS = ("same bits", "accepted", "below 1e-6", "1e-6 to 1e-4", "1e-4 to 1e-2", "1e-2 or more", "hashes differ")
_BOUNDS = (1e-6, 1e-4, 1e-2)
_UNKNOWN = LEVELS.index("hashes differ")


class Run(NamedTuple):
    """Neighbouring cells of one level."""

    start: int
    width: int
    level: int
    title: str


class Strip(NamedTuple):
    """A row of the map."""

    place: Place
    runs: list[Run]


@dataclass(frozen=True)
class Map:
    """Leaves x steps. What was too much to draw is told by numbers.

    Attributes:
        columns: how many cells a row has; each stands for `steps_each` steps at most, and shows the farthest of them.
        levels: those that occur.
        left_out: how many leaves have no row.
        left_out_differ: how many of these differ.
    """

    strips: list[Strip]
    columns: int
    steps_each: int
    levels: list[int]
    left_out: int
    left_out_differ: int


class Line(NamedTuple):
    """One stage's distance over steps: "x,y x,y", in a box of 100 x 100, and the distance after the last step."""

    stage: str
    points: str
    last: float


@dataclass(frozen=True)
class Chart:
    """Lines, and what its axes say: y is a power of ten from `low` to `high`, or, of hashes, a share from 0 to 1."""

    what: str
    lines: list[Line]
    ticks: list[tuple[float, str]]  # y in the box, label


def level(distance: Distance) -> int:
    """The colour of a distance, as an index of `LEVELS`."""
    if distance.relative is None:
        return 0 if distance.same else _UNKNOWN
    if distance.same:
        return 1 if distance.ulp or distance.relative else 0
    return 2 + sum(_size(distance) >= bound for bound in _BOUNDS)


def _size(distance: Distance) -> float:
    """The relative distance; where it is no number, they are as far apart as can be."""
    return math.inf if math.isnan(distance.relative or 0.0) else distance.relative or 0.0


def _bins(steps: Sequence[int], most: int) -> list[Sequence[int]]:
    """The steps, as many to a bin as are needed to have no more than `most`."""
    each = max(1, math.ceil(len(steps) / most))
    return [steps[i : i + each] for i in range(0, len(steps), each)]


def leaves_by_steps(course: Course) -> Map:
    """The map. Where leaves are too many, those that part are shown, the earliest first."""
    places = sorted(course.distances, key=lambda place: (STAGES.index(place.stage), place.name))
    if len(places) > ROWS:
        chosen = set(sorted(places, key=lambda place: _first_step(course, place))[:ROWS])
        places = [place for place in places if place in chosen]
    left_out = [place for place in course.distances if place not in places]
    bins = _bins(course.steps, CELLS)
    strips = [Strip(place, list(_runs(course.distances[place], bins))) for place in places]
    return Map(
        strips,
        columns=len(bins),
        steps_each=max(map(len, bins), default=1),
        levels=sorted({run.level for strip in strips for run in strip.runs}),
        left_out=len(left_out),
        left_out_differ=sum(math.isfinite(_first_step(course, place)) for place in left_out),
    )


def _first_step(course: Course, place: Place) -> float:
    """At which the place is not the same; infinity where it always is."""
    return min((step for step, distance in course.distances[place].items() if not distance.same), default=math.inf)


def _runs(of_steps: dict[int, Distance], bins: Sequence[Sequence[int]]) -> Iterator[Run]:
    start, width, known, title = 0, 0, -1, ""
    for column, steps in enumerate(bins):
        there = [(step, of_steps[step]) for step in steps if step in of_steps]
        step, farthest = max(there, key=lambda pair: (level(pair[1]), pair[1].relative or 0.0), default=(0, None))
        here = -1 if farthest is None else level(farthest)
        if here != known:
            if known >= 0:
                yield Run(start, width, known, title)
            start, width, known, title = column, 0, here, "" if farthest is None else f"step {step}: {_said(farthest)}"
        width += 1
    if known >= 0:
        yield Run(start, width, known, title)


def _said(distance: Distance) -> str:
    if distance.relative is None:
        return "same hash" if distance.same else "another hash"
    if not (distance.ulp or distance.relative):
        return "same bits"
    if distance.ulp is None:
        return f"by up to {distance.relative:.1e} of the largest element"
    return f"{distance.differing:,} of {distance.elements:,} elements differ, by up to {distance.ulp:,} ulp"


def distance_over_steps(course: Course) -> Chart | None:
    """For each stage, the largest relative distance at each step; where only hashes are known, the share of leaves that differ."""
    stages = [stage for stage in STAGES if any(place.stage == stage for place in course.distances)]
    if not stages:
        return None
    measured = all(d.relative is not None for of_steps in course.distances.values() for d in of_steps.values())
    series = {stage: _series(course, stage, measured) for stage in stages}
    if not measured:
        lines = [Line(stage, _points(found, course.steps, lambda y: 100 * (1 - y)), found[max(found)]) for stage, found in series.items()]
        return Chart("share of leaves that differ", lines, [(0, "all"), (50, "half"), (100, "none")])
    sizes = [y for found in series.values() for y in found.values() if 0 < y < math.inf]
    if not sizes:
        return None
    low, high = math.floor(math.log10(min(sizes))), math.ceil(math.log10(max(sizes)) + 1e-9)
    low = min(low, high - 1)

    def height(y: float) -> float:
        """Zero has no logarithm: it lies on the lowest line, and an infinity on the highest."""
        return min(max(100 * (high - math.log10(y)) / (high - low), 0), 94) if 0 < y < math.inf else 100 if y == 0 else 0

    lines = [Line(stage, _points(found, course.steps, height), found[max(found)]) for stage, found in series.items()]
    middle = (low + high) // 2
    powers = dict.fromkeys([high, middle] if middle > low else [high])
    ticks = [*((height(10.0**p), f"1e{p}") for p in powers), (100.0, "0")]
    return Chart("largest difference, over the largest element; logarithmic", lines, ticks)


def _series(course: Course, stage: str, measured: bool) -> dict[int, float]:
    found = {}
    for step in course.steps:
        there = [distance for place, distance in course.at(step) if place.stage == stage]
        if there:
            found[step] = max(map(_size, there)) if measured else sum(not d.same for d in there) / len(there)
    return found


def _points(found: dict[int, float], steps: Sequence[int], height: Callable[[float], float]) -> str:
    """The line through the largest of each bin. One point alone is a line as well: its round ends show."""
    bins = _bins(list(found), POINTS)
    first, last = steps[0], steps[-1]
    points = []
    for each in bins:
        farthest = max(each, key=lambda step: found[step])
        x = 100 * (farthest - first) / (last - first) if last > first else 50
        points.append(f"{x:.2f},{height(found[farthest]):.2f}")
    return " ".join(points if len(points) > 1 else points * 2)
