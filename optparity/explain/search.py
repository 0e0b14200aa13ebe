"""Which member of the family a trajectory is: by conventions tried one after another, the fewest changes first."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .conventions import of
from .family import RULES, Settings, Shapes, course

TOLERANCE = 1e-10  # of the path that an element has gone
LOOSE = 1e-6  # where float32 is part of a convention: its powers are rounded in more than one way
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23}


@dataclass(frozen=True)
class Data:
    """Gradients from one start, one vector for each step."""

    params: np.ndarray
    gradients: Sequence[np.ndarray]
    shapes: Shapes


class Observed:
    """A trajectory, and how far from it another may be.

    Args:
        start: the parameters before the first step.
        points: those after each step, [steps, n].
        tolerance: the share of an element's path that is allowed.
        dtype: whose rounding of the parameter is allowed, at each step.
    """

    def __init__(self, start: np.ndarray, points: np.ndarray, tolerance: float = TOLERANCE, dtype: str = "float64"):
        self.points, self.tolerance = points, tolerance
        with np.errstate(all="ignore"):
            finite = np.nan_to_num(np.concatenate([start[None], points]), nan=0.0, posinf=0.0, neginf=0.0)
            self._path = np.cumsum(np.abs(np.diff(finite, axis=0)), axis=0)
            self._rounding = 4 * np.arange(1, len(points) + 1)[:, None] * EPSILON[dtype] * np.abs(finite).max(axis=0)

    def far(self, points: Iterable[np.ndarray], tolerance: float | None = None, enough: float = np.inf) -> float:
        """The largest distance in units of what is allowed, up to the step where it is more than `enough`: 1 or less is the same."""
        farthest = 0.0
        for i, point in enumerate(points):
            seen, bound = self.points[i], (tolerance or self.tolerance) * self._path[i] + self._rounding[i]
            with np.errstate(all="ignore"):
                apart = np.abs(seen - point)
                apart[(seen == point) | (np.isnan(seen) & np.isnan(point))] = 0.0
                units = apart / np.maximum(bound, np.finfo(float).tiny)
            worst = units.max(initial=0.0)
            farthest = max(farthest, np.inf if np.isnan(worst) else float(worst))
            if farthest > enough:
                break
        return farthest


@dataclass(frozen=True)
class Fit:
    """Members that reproduce a trajectory equally well, all with the same number of changes; and how many were tried."""

    members: tuple[Settings, ...]
    changes: int
    tried: int


def identify(seen: Observed, starts: Sequence[Settings], data: Data, depth: int) -> Fit:
    """The members that reproduce a trajectory with the fewest changes from one of the starts."""
    tried: set[Settings] = set()
    layer = list(dict.fromkeys(starts))
    least = np.inf
    for changes in range(depth + 1):
        found = []
        for member in layer:
            tried.add(member)
            far = _far(seen, member, data, enough=1.0 if changes else np.inf)
            least = least if changes else min(least, far)
            if far <= 1:
                found.append(member)
        found = found or [member for member in layer if changes and _nearly(seen, member, data, least)]
        if found:
            return Fit(tuple(found), changes, len(tried))
        layer = [near for near in dict.fromkeys(near for member in layer for near in _neighbours(member)) if near not in tried]
    return Fit((), depth, len(tried))


def _far(seen: Observed, member: Settings, data: Data, tolerance: float | None = None, enough: float = np.inf) -> float:
    with np.errstate(all="ignore"):
        try:
            return seen.far(course(member, data.params, data.gradients, data.shapes), tolerance, enough)
        except (ZeroDivisionError, OverflowError):
            return np.inf


def _nearly(seen: Observed, member: Settings, data: Data, least: float) -> bool:
    """Whether a member that has float32 in it is as near as float32's roundings let it be, and much nearer than without."""
    in_float32 = "in float32" in (member.bias_correction, member.lr_dtype)
    return in_float32 and _far(seen, member, data, LOOSE, 1.0) <= 1 and _far(seen, member, data) < least / 10


def _neighbours(member: Settings) -> Iterator[Settings]:
    """Every member that differs in one setting."""
    for each in of(member):
        for value in each.choices:
            if value != getattr(member, each.name) and _allowed(member, each.name, value):
                yield replace(member, **{each.name: value})


def _allowed(member: Settings, name: str, value: Any) -> bool:
    """Choices that belong to other rules are left out."""
    known = {
        "nesterov": {
            "sgd": ("no", "g + μ b", "damped", "g + b"),
            "rmsprop": ("no", "g + μ b"),
            "adam": ("no", "g + μ b", "a moving factor"),
        },
        "eps_place": {"adagrad": ("outside", "inside"), "rmsprop": ("outside", "inside")},
        "state_dtype": dict.fromkeys(("sgd", "adagrad", "rmsprop"), ("float64", "float32", "bfloat16", "bfloat16, after use")),
        "bias_correction": {"rmsprop": ("both", "none")},
    }
    return value in known.get(name, {}).get(member.rule, (value,))


def starts_of(settings: dict[str, Any], rule: str | None) -> list[Settings]:
    """The members to begin with: of one rule, or of each."""
    return [Settings(rule=each, **settings) for each in ([rule] if rule else RULES)]
