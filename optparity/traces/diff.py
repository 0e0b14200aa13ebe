"""Two traces, step by step: where they part, how far, how it grows, and whether it is rounding."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..versus.course import STAGES, Course, Distance, Parting, Place
from ..versus.modes import BITS, Mode
from .pairing import COUNTERS, Pairing, lying_as, pair
from .places import Leaf
from .reading import Run, Step
from .summaries import Summary

SMALL = 256  # times the spacing of numbers at 1: what rounding makes of a loss or gradient at once
JUMP = 10  # times as far as ever before, within a step: more than rounding grows
AGREE = 1e-12  # of a norm summed in another order


@dataclass(frozen=True)
class Tolerance(Mode):
    """Within so much of the largest element of a leaf, or, where only hashes and projections are there, of its norm."""

    tolerance: float = 0.0

    def __post_init__(self):
        if not 0 <= self.tolerance < math.inf:
            raise ValueError(f"--tolerance: a finite number >= 0 is needed; got {self.tolerance}.")

    @property
    def tolerant(self) -> bool:
        return True

    def rejects(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Where they are farther apart; NaN is like NaN, and an infinity like itself."""
        a, b = (np.asarray(x).astype(np.float64) for x in (first, second))
        finite = np.abs(b[np.isfinite(b)])
        return ~np.isclose(a, b, rtol=0.0, atol=self.tolerance * finite.max(initial=0.0), equal_nan=True)

    def __str__(self) -> str:
        return f"tolerance={self.tolerance:g}"


@dataclass
class Compared:
    """The course of two traces, and what it rests on.

    Attributes:
        course: what was found.
        pairing: which leaves were compared.
        by_tensors, by_hashes, by_norms: how many comparisons were of elements; of hashes and projections; and of norms and extremes
            alone, where axes lie otherwise, so that bits were not compared.
        steps_only_in: steps that one of them has alone, in words.
    """

    course: Course
    pairing: Pairing
    by_tensors: int = 0
    by_hashes: int = 0
    by_norms: int = 0
    steps_only_in: list[str] = field(default_factory=list)
    dtypes: dict[Place, str] = field(default_factory=dict)

    def rounding(self) -> str:
        """Whether it is rounding, as far as that can be known, in a sentence."""
        return _verdict(self)


def diff(first: Run, second: Run, *, mode: Mode = BITS, names: Mapping[str, Any] | None = None) -> Compared:
    """Compare two traces at the steps that both have.

    Raises: ValueError where leaves cannot be paired, have other shapes or dtypes, or no step is in both; for a damaged trace.
    """
    found = Compared(Course(str(first), str(second), mode), pair(first, second, names))
    for one, other in _in_step(first, second, found):
        _Step(found, first, second, one, other).compare()
    if not found.course.steps:
        raise ValueError(f"{first} and {second} have nothing in common to compare.")
    return found


def _in_step(first: Run, second: Run, found: Compared) -> Iterator[tuple[Step, Step]]:
    """The steps that both have."""
    alone: dict[str, list[int]] = {str(first): [], str(second): []}
    here, there = first.steps(), second.steps()
    one, other = next(here, None), next(there, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.number < other.number):
            alone[str(first)].append(one.number if one else 0)
            one = next(here, None)
        elif one is None or other.number < one.number:
            alone[str(second)].append(other.number)
            other = next(there, None)
        else:
            yield one, other
            one, other = next(here, None), next(there, None)
    found.steps_only_in = [f"{len(steps)} steps ({steps[0]} to {steps[-1]}) only in {name}" for name, steps in alone.items() if steps]


class _Step:
    """One step of both."""

    def __init__(self, found: Compared, first: Run, second: Run, one: Step, other: Step):
        self._found, self._course, self._pairing = found, found.course, found.pairing
        self._first, self._second, self._one, self._other = first, second, one, other
        self._number = one.number
        self._there = {(leaf.stage, leaf.field, leaf.path): leaf for leaf in other.leaves}

    def compare(self) -> None:
        for stage in STAGES:
            self._numbers(stage)
            if stage == "batch":
                self._batch()
                continue
            for leaf, summary in self._one.leaves.items():
                if leaf.stage == stage:
                    self._leaf(leaf, summary)

    def _numbers(self, stage: str) -> None:
        """In the narrower of their types: a float32 number and a Python float are compared in float32."""
        here, there = self._one.numbers.get(stage, {}), self._other.numbers.get(stage, {})
        for path in here.keys() & there.keys():
            values = [here[path], there[path]]
            narrow = any(float(np.float32(x)) == x for x in values if abs(x) < 3e38)
            dtype = np.float32 if narrow else np.float64
            place = Place(stage, f"[{path!r}]" if path else "")
            self._found.dtypes[place] = np.dtype(dtype).name
            self._course.note(self._number, place, np.array(values[0], dtype), np.array(values[1], dtype))

    def _batch(self) -> None:
        """By name; one array on both sides needs none. Shapes may differ, as of images as rows."""
        here = {leaf.path: leaf for leaf in self._one.leaves if leaf.stage == "batch"}
        there = {leaf.path: leaf for leaf in self._other.leaves if leaf.stage == "batch"}
        together = zip(here.values(), there.values(), strict=True) if len(here) == len(there) == 1 else ()
        for leaf, other in together or [(here[path], there[path]) for path in here if path in there]:
            self._summaries(leaf, self._one.leaves[leaf], self._other.leaves[other])

    def _leaf(self, leaf: Leaf, summary: Summary) -> None:
        path = self._pairing.leaves.get(leaf.path, "" if not leaf.path else None)
        field_ = self._pairing.fields.get(leaf.field) if leaf.stage == "state" else ""
        if path is None or field_ is None:
            return
        if leaf.stage == "state" and leaf.field in COUNTERS:
            self._counter(leaf, summary, field_)
            return
        other = self._there.get((leaf.stage, field_, path))
        if other is None:
            return
        layout = self._pairing.layouts.get(leaf.path)
        self._check(leaf, other, layout)
        a = self._first.tensor(self._number, leaf)
        b = self._second.tensor(self._number, other) if a is not None else None
        if a is not None and b is not None:
            self._found.by_tensors += 1
            self._found.dtypes[leaf.place] = leaf.dtype
            self._course.note(self._number, leaf.place, a, lying_as(layout, b))
        elif layout is None:
            self._summaries(leaf, summary, self._other.leaves[other])
        else:
            self._norms(leaf, summary, self._other.leaves[other])

    def _check(self, leaf: Leaf, other: Leaf, layout: Any) -> None:
        shape = other.shape if layout is None else lying_as(layout, np.broadcast_to(np.False_, other.shape)).shape
        if (leaf.shape, leaf.dtype) != (shape, other.dtype):
            kinds = [f"{x.dtype}{list(x.shape)} in {trace}" for x, trace in ((leaf, self._first), (other, self._second))]
            raise ValueError(f"diff: {leaf.place} is {', '.join(kinds)}.")

    def _counter(self, leaf: Leaf, summary: Summary, field_: str) -> None:
        """As numbers: JAX has one for all, torch one for each parameter, which are compared where they are the same."""
        theirs = {s.value for other, s in self._other.leaves.items() if other.stage == "state" and other.field == field_}
        ours = {s.value for other, s in self._one.leaves.items() if other.stage == "state" and other.field == leaf.field}
        if len(ours) == len(theirs) == 1 and None not in ours | theirs:
            values = [np.array(*of, dtype=np.float64) for of in (ours, theirs)]
            place = Place("state", "", leaf.field)
            self._found.dtypes[place] = "float64"
            if self._number not in self._course.distances.get(place, {}):
                self._course.note(self._number, place, *values)

    def _summaries(self, leaf: Leaf, one: Summary, other: Summary) -> None:
        apart = one.apart(other)
        norm = other.norm or 1.0
        mode = self._course.mode
        same = one.hash == other.hash or (isinstance(mode, Tolerance) and apart <= mode.tolerance * norm)
        self._found.by_hashes += 1
        self._put(leaf, one, other, same, apart, apart / norm)

    def _norms(self, leaf: Leaf, one: Summary, other: Summary) -> None:
        apart = max(abs(a - b) for a, b in zip(_sizes(one), _sizes(other), strict=True))
        norm, mode = other.norm or 1.0, self._course.mode
        limit = max(mode.tolerance if isinstance(mode, Tolerance) else 0.0, AGREE) * norm
        self._found.by_norms += 1
        same = apart <= limit and one.nonfinite == other.nonfinite
        self._put(leaf, one, other, same, 0.0 if apart <= AGREE * norm else apart, apart / norm if apart > AGREE * norm else 0.0)

    def _put(self, leaf: Leaf, one: Summary, other: Summary, same: bool, absolute: float, relative: float) -> None:
        self._found.dtypes[leaf.place] = leaf.dtype
        parting = None if same else Parting(self._number, leaf.place, None, one.hash, other.hash)
        known = 0 if one.hash == other.hash else None
        distance = Distance(same, math.prod(leaf.shape), known, known, absolute, relative)
        self._course.put(self._number, leaf.place, distance, parting)


def _sizes(summary: Summary) -> tuple[float, float, float]:
    return summary.norm, summary.low or 0.0, summary.high or 0.0


def growth(course: Course) -> Iterator[tuple[int, dict[str, float]]]:
    """Of each step, the largest relative distance of each stage."""
    for step in course.steps:
        found: dict[str, float] = {}
        for place, distance in course.at(step):
            found[place.stage] = max(found.get(place.stage, 0.0), distance.relative or 0.0)
        yield step, found


def _verdict(found: Compared) -> str:
    """The criterion stands in docs/record_and_diff.md."""
    course = found.course
    farthest, began = 0.0, None
    for step in course.steps:
        at = sorted(course.at(step), key=lambda each: STAGES.index(each[0].stage))
        for place, distance in at:
            relative = distance.relative or 0.0
            if not relative:
                continue
            eps = float(jnp.finfo(found.dtypes[place]).eps) if "float" in found.dtypes[place] else 0.0
            if began is None and relative > SMALL * eps:
                return f"More than rounding: it begins at step {step}, {place}, {relative:.1e} of its size apart."
            began = began or (step, place, relative)
            if relative > max(SMALL * eps, JUMP * farthest):
                return (
                    f"It begins no larger than rounding (step {began[0]}, {began[1]}, {began[2]:.1e}), but at step {step} {place} is "
                    f"{relative:.1e} apart, from at most {farthest:.1e} before: more than rounding grows in a step."
                )
        farthest = max([farthest, *(d.relative or 0.0 for _, d in at)])
    if began is None:
        return "Nothing differs."
    return (
        f"Like rounding: it begins no larger (step {began[0]}, {began[1]}, {began[2]:.1e}) and grows gradually, to {farthest:.1e}. "
        "Another formula with so small an effect would look the same."
    )
