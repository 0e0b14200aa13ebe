"""Why two optimizers part: both are found in the family, and the settings in which they differ are named."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import jax
import numpy as np

from .conventions import BY_NAME, of
from .family import RULES, Settings, Shapes, course
from .search import TOLERANCE, Data, Fit, Observed, identify
from .sides import HABITS, STOCK, Side, Stated, made, stated, translated, walk

STEPS = 30
DEPTH = 2


@dataclass(frozen=True)
class Difference:
    """A setting in which the two members differ; `text` says it in words, `effect` in units of what rounding may do."""

    setting: str
    first: Any
    second: Any
    text: str
    effect: float

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Explanation:
    """Why two sides part: everything in which their members of the family differ, what moves them most first.

    Attributes:
        differences: with these settings changed, the first member is the second.
        first, second: the members.
        others: explanations that fit as well.
    """

    differences: tuple[Difference, ...]
    first: Settings
    second: Settings
    others: tuple["Explanation", ...] = ()

    @property
    def settings(self) -> frozenset[str]:
        return frozenset(each.setting for each in self.differences)

    def __str__(self) -> str:
        text = "; ".join(each.text for each in self.differences) + "."
        return text + "".join(f" Or: {other}" for other in self.others)


@dataclass(frozen=True)
class Finding:
    """What was looked for, and what was found.

    Attributes:
        agree: whether both sides do the same in float64, up to rounding; then there is nothing to explain.
        explanation: None where they agree, or where no member was found.
        text: the explanation, or what was tried instead, in one sentence.
    """

    agree: bool
    explanation: Explanation | None
    text: str

    def __str__(self) -> str:
        return self.text


def explain(
    first: Side, second: Side, params: Any, gradients: Iterable[Any], *, hyperparameters: Mapping[str, Any] | None = None
) -> Explanation | None:
    """Why two optimizers part, or None: they do not in float64, or no known convention makes it (`examine` tells which).

    Args:
        first, second: a `versus.Named`, an optax transform, a callable from a list of parameters to a torch optimizer, or a `Loop`.
        params: a pytree of NumPy arrays.
        gradients: such pytrees; the first 30 are taken.
        hyperparameters: what the sides do not say of themselves, under any framework's names: `{"lr": 0.1, "max_norm": 1.0}`. An optax
            transform says nothing, so that `{"rule": "adam", ...}` or a `Named` helps; what one side alone says, the other is given too.

    Example:
        >>> import numpy as np
        >>> from optparity.versus.factories import Named
        >>> params = {"w": np.ones(3)}
        >>> optax = Named("jax", "optax:adagrad", {"learning_rate": 0.1, "eps": 0.0})
        >>> torch = Named("torch", "torch.optim:Adagrad", {"lr": 0.1, "eps": 0.0})
        >>> print(explain(optax, torch, params, [{"w": np.array([1.0, -2.0, 3.0])}] * 5))
        optax.adagrad begins its accumulator at 0.1, torch.optim.Adagrad at 0: say initial_accumulator_value=0.0 to optax.adagrad.
    """
    return examine(first, second, params, gradients, hyperparameters=hyperparameters).explanation


def examine(
    first: Side,
    second: Side,
    params: Any,
    gradients: Iterable[Any],
    *,
    hyperparameters: Mapping[str, Any] | None = None,
    steps: int = STEPS,
    depth: int = DEPTH,
) -> Finding:
    """`explain`, which also says why there is no explanation. Up to `depth` conventions are changed on each side."""
    fed = list(islice(gradients, steps))
    if lacking := _lacking(params, fed):
        return lacking
    sides = _told_apart(stated(first, params), stated(second, params))
    first, second = made(first), made(second)
    data = _data(params, fed)
    seen = [_points(walk(side, params, fed, "float64")) for side in (first, second)]
    runs = [Observed(data.params, points) for points in seen]
    if runs[0].far(seen[1]) > 1:
        tolerance = max(TOLERANCE, _noise(first, params, fed, data.params, seen[0]))
        runs = [Observed(data.params, points, tolerance) for points in seen]
    return _examined(sides, runs, data, hyperparameters or {}, depth)


def explain_course(
    gradients: Sequence[Any],
    first_params: Sequence[Any],
    second_params: Sequence[Any],
    hyperparameters: Mapping[str, Any],
    *,
    names: tuple[str, str] = ("the first", "the second"),
    depth: int = DEPTH,
) -> Finding:
    """`examine`, of recorded runs that were fed the same gradients.

    Args:
        gradients: a pytree of NumPy arrays for each step.
        first_params, second_params: one more: before the first step, and after each.
        hyperparameters: `{"rule": "adam", "lr": 1e-3, ...}`, under any framework's names; without a rule each is tried.
        names: what the runs are called.

    Raises: ValueError where the numbers of steps do not fit together.
    """
    for name, points in zip(names, (first_params, second_params), strict=True):
        if len(points) != len(gradients) + 1:
            raise ValueError(f"explain: {len(gradients)} gradients need {len(gradients) + 1} points, {name} has {len(points)}.")
    if lacking := _lacking(first_params[0], gradients):
        return lacking
    dtype = "float64" if all(x.dtype == np.float64 for x in jax.tree.leaves(first_params[0])) else "float32"
    data = _data(first_params[0], gradients)
    seen = [_points([jax.tree.leaves(point) for point in points]) for points in (first_params, second_params)]
    if not np.array_equal(seen[0][0], seen[1][0]):
        return Finding(False, None, f"{names[0]} and {names[1]} start from different parameters.")
    tolerance = TOLERANCE if dtype == "float64" else 1e-5
    runs = [Observed(data.params, points[1:], tolerance, dtype) for points in seen]
    sides = tuple(Stated(name, "torch") for name in names)
    return _examined((sides[0], sides[1]), runs, data, hyperparameters, depth)


def _told_apart(first: Stated, second: Stated) -> tuple[Stated, Stated]:
    if first.name != second.name:
        return first, second
    return replace(first, name=f"{first.name} (first)"), replace(second, name=f"{second.name} (second)")


def _vector(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(leaf).astype(np.float64)) for leaf in jax.tree.leaves(tree)])


def _lacking(params: Any, gradients: Sequence[Any]) -> Finding | None:
    """What is said where the family cannot follow: it steps every parameter at every step."""
    structure = jax.tree.structure(params)
    step = next((i for i, gradient in enumerate(gradients, 1) if jax.tree.structure(gradient) != structure), None)
    if not gradients:
        return Finding(False, None, "Nothing was tried: there is no gradient.")
    if step is not None:
        return Finding(False, None, f"Nothing was tried: in step {step} the gradients have not the leaves of the parameters.")
    return None


def _data(params: Any, gradients: Sequence[Any]) -> Data:
    return Data(_vector(params), [_vector(g) for g in gradients], Shapes.of(np.asarray(x) for x in jax.tree.leaves(params)))


def _points(walked: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    return np.stack([_vector(list(leaves)) for leaves in walked])


def _noise(side: Side, params: Any, fed: list, start: np.ndarray, seen: np.ndarray) -> float:
    """What rounding may do: thirty times what the last bit of each gradient does to the side, as a share of each element's path."""
    rng = np.random.default_rng(0)

    def nudged(g):
        return np.asarray(g, np.float64) * (1 + 2.0**-52 * rng.choice([-1.0, 1.0], np.shape(g)))

    with np.errstate(all="ignore"):
        other = _points(walk(side, params, [jax.tree.map(nudged, gradient) for gradient in fed], "float64"))
    return 30 * TOLERANCE * Observed(start, seen).far(other)


def _examined(sides: tuple[Stated, Stated], runs: list[Observed], data: Data, given: Mapping[str, Any], depth: int) -> Finding:
    if runs[0].far(runs[1].points) <= 1:
        return Finding(True, None, f"{sides[0].name} and {sides[1].name} are the same formula: what differs is rounding.")
    starts = _starts(sides, given)
    fits = [identify(run, start, data, depth) for run, start in zip(runs, starts, strict=True)]
    for side, fit in zip(sides, fits, strict=True):
        if not fit.members:
            return Finding(False, None, _tried(side, fit, depth))
    said = tuple({each.rule: each for each in start} for start in starts)
    found = [
        _explanation(a, b, sides, (said[0][a.rule], said[1][b.rule]), data, runs[0].tolerance)
        for a in fits[0].members
        for b in fits[1].members
    ]
    fewest = min(len(each.differences) for each in found)
    if not fewest:
        return Finding(
            False, None, f"{sides[0].name} and {sides[1].name} are further apart than rounding, but one member of the family fits both."
        )
    best, *others = {each.settings: each for each in reversed(found) if len(each.differences) == fewest}.values()
    best = replace(best, others=tuple(others))
    return Finding(False, best, str(best))


def _tried(side: Stated, fit: Fit, depth: int) -> str:
    names = f"{fit.tried} members of the family were tried, up to {depth} conventions changed"
    return f"No known convention makes {side.name} what it is: {names}."


def _starts(sides: tuple[Stated, Stated], given: Mapping[str, Any]) -> list[list[Settings]]:
    """For each side the members to begin with: what it says, then what is given, then what the other side says."""
    found = []
    given_settings = translated(given, given.get("rule"))
    for own, other in (sides, sides[::-1]):
        rule = own.rule or given.get("rule") or other.rule
        shared = {key: value for key, value in other.settings.items() if own.rule is None}
        said = {**HABITS[own.framework], **shared, **given_settings, **own.settings}
        said.pop("rule", None)
        found.append([Settings(rule=each, **said) for each in ([rule] if rule else RULES)])
    return found


def _explanation(
    a: Settings, b: Settings, sides: tuple[Stated, Stated], said: tuple[Settings, Settings], data: Data, tolerance: float
) -> Explanation:
    if a.rule != b.rule:
        text = f"{sides[0].name} is {a.rule}, {sides[1].name} is {b.rule}: no setting makes them one"
        return Explanation((Difference("rule", a.rule, b.rule, text, np.inf),), a, b)
    matter = {each.name for each in (*of(a), *of(b))}
    names = [name for name in BY_NAME if name in matter and getattr(a, name) != getattr(b, name)]
    with np.errstate(all="ignore"):
        base = Observed(data.params, _course(a, data), tolerance)
        effects = {name: base.far(_course(replace(a, **{name: getattr(b, name)}), data)) for name in names}
        names = _needed(a, b, sorted(names, key=lambda name: -effects[name]), data, tolerance)
    differences = [Difference(n, getattr(a, n), getattr(b, n), _text(n, a, b, sides, said), effects[n]) for n in names]
    return Explanation(tuple(differences), a, b)


def _course(s: Settings, data: Data) -> np.ndarray:
    return np.stack(list(course(s, data.params, data.gradients, data.shapes)))


def _needed(a: Settings, b: Settings, names: list[str], data: Data, tolerance: float) -> list[str]:
    """The names without those that can be left out: the first member with the rest changed is still the second."""
    goal = Observed(data.params, _course(b, data), tolerance)
    kept = list(names)
    for name in reversed(names):
        fewer = [each for each in kept if each != name]
        if goal.far(_course(replace(a, **{each: getattr(b, each) for each in fewer}), data)) <= 1:
            kept = fewer
    return kept


def _text(name: str, a: Settings, b: Settings, sides: tuple[Stated, Stated], said: tuple[Settings, Settings]) -> str:
    does = [BY_NAME[name].does(getattr(member, name)) for member in (a, b)]
    return f"{sides[0].name} {does[0]}, {sides[1].name} {_without_repetition(*does)}: {_remedy(name, (a, b), sides, said)}"


_LINKS = ("at", "before", "after", "from", "inside", "outside", "in", "by", "every")


def _without_repetition(first: str, second: str) -> str:
    """The second phrase without what both begin with, where it still reads: "has eps inside the root, ... outside the root"."""
    words, others = second.split(), first.split()
    same = next((i for i, (x, y) in enumerate(zip(words, others, strict=False)) if x != y), min(len(words), len(others)))
    links = [i for i, word in enumerate(words) if 1 < i <= same and word in _LINKS]
    if same == len(others) or same < 2:
        return second
    if words[same][0].isdigit() and words[same - 1] not in _LINKS:
        return " ".join(words[same:])
    return " ".join(words[links[-1] :]) if links else second


def _remedy(name: str, members: tuple[Settings, Settings], sides: tuple[Stated, Stated], said: tuple[Settings, Settings]) -> str:
    """What makes the two agree: where the code of one does what it does not say, to change that; else an argument of either."""
    a, b = members
    first, second = (sides[0], a, b, said[0]), (sides[1], b, a, said[1])
    for side, own, goal, start in (second, first):
        if getattr(own, name) != getattr(start, name) and not side.name.startswith(STOCK):
            return f"in {side.name}, {BY_NAME[name].remedy(getattr(goal, name))}"
    for side, _, goal, _ in sorted((first, second), key=lambda change: name in change[0].chosen):
        if assignment := _assignment(name, goal, side.arguments):
            return f"say {assignment} to {side.name}"
    for side, _, goal, _ in (second, first):
        if not side.name.startswith(STOCK):
            return f"in {side.name}, {BY_NAME[name].remedy(getattr(goal, name))}"
    return "no argument of either says so"


def _assignment(name: str, goal: Settings, arguments: Sequence[str]) -> str:
    known = BY_NAME[name].arguments
    value = getattr(goal, name)
    for argument in filter(arguments.__contains__, known):
        if argument == "betas":
            return f"betas={(goal.b1, goal.b2)}"
        if not isinstance(known, Mapping):
            return f"{argument}={value!r}"
        if value in known[argument]:
            return f"{argument}={known[argument][value]!r}"
    return ""
