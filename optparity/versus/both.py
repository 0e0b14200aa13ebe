"""Two optimizers side by side: the same gradients to both, everything that both have compared at every step."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from ..parity.subnormals import torch_flushing_like_jax
from .course import Course, Place
from .factories import Named
from .modes import BITS, Mode
from .rounding import Verdict, verdicts
from .sides import FORMS, Optimizer, failing, is_jax, side
from .states import Fields, paired

HALVES = ("bfloat16", "float16")


@dataclass
class Result:
    """What two optimizers did of the same gradients.

    Attributes:
        course: how far they are from each other.
        compared: what was compared: "params", then fields of the state, "mu = exp_avg" where they have two names.
        not_compared: the fields of the state that were not, with the reason.
        in_float64: the same in float64, where it was asked for.
        rounding: then, for each leaf and each field of its state, whether the difference is rounding.
    """

    course: Course
    compared: tuple[str, ...] = ("params",)
    not_compared: dict[str, str] = field(default_factory=dict)
    in_float64: Course | None = None
    rounding: dict[Place, Verdict] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        return self.course.same

    def same_at(self, place: Place) -> bool:
        """Whether nothing differs there by the mode, nor is there anything to say of float64."""
        verdict = self.rounding.get(place)
        return all(distance.same for distance in self.course.distances[place].values()) and (verdict is None or verdict.kind == "same")

    def to_dict(self) -> dict[str, Any]:
        """Everything above, for JSON."""
        document = {**self.course.to_dict(), "compared": self.compared, "not_compared": self.not_compared}
        if self.in_float64 is None:
            return document
        told = [{**place._asdict(), **verdict.to_dict()} for place, verdict in self.rounding.items()]
        return {**document, "rounding": told, "in_float64": self.in_float64.to_dict()}


def against(
    first: Optimizer,
    second: Optimizer,
    params: Any,
    gradients: Iterable | Callable,
    *,
    steps: int | None = None,
    mode: Mode = BITS,
    float64: bool = False,
    state: bool = True,
    state_map: Mapping[str, str] | None = None,
    form: str = "jit",
    names: tuple[str, str] | None = None,
) -> Result:
    """Feed the same gradients to any two optimizers, of either framework, and compare parameters and state after each step.

    Args:
        first, second: each a `Named`, an optax transform, or a callable from a list of `torch.nn.Parameter` to a `torch.optim.Optimizer`.
        params: a pytree of NumPy arrays; torch parameters are its leaves in the order of `jax.tree.leaves`.
        gradients: an iterable of such pytrees; or a callable `(params, step) -> pytree` that is given the first one's parameters and the
            step's number (1, 2, ...). A gradient may be None, as a frozen layer's.
        steps: how many steps; needed where `gradients` does not end.
        mode: when two arrays count as the same.
        float64: whether both run in float64 too, to tell rounding from another formula.
        state: whether state is compared.
        state_map: fields of the first's state -> fields of the second's that mean the same, beside those of one name and the known ones.
        form: how an optax transform is called: "jit" (the update alone), "train_step" (with apply_updates in it), or "eager".
        names: what they are called in reports.

    With torch against optax, torch has one thread within the call, and flushes subnormals if this jax backend does.

    Raises: ValueError in one line where an optimizer cannot be made, fails in a step or gives other shapes, for gradients that do not fit
        `params`, for no step at all, or for what an argument must not be; TypeError for what is no optimizer.
    """
    params, names = _checked(params, float64), names or _names(first, second)
    if form not in FORMS:
        raise ValueError(f"against: form is one of {', '.join(FORMS)}; got {form!r}.")
    if callable(gradients) and steps is None:
        raise ValueError("against: a closed loop does not end by itself; steps=... is needed.")
    mixed = is_jax(first) != is_jax(second)
    with torch_flushing_like_jax() if mixed else nullcontext():
        given = (state_map or {}) if state else None
        pair = _Pair(first, second, names, params, mode, form, given)
        wide = _Pair(first, second, names, _in_float64(params), BITS, form, given) if float64 else None
        source = pair.closed_loop(gradients) if callable(gradients) else iter(gradients)
        for gradient in itertools.islice(source, steps):
            of_each = pair.flat(gradient)
            pair.step(of_each)
            if wide:
                wide.step(_in_float64(of_each))
    if not pair.course.steps:
        raise ValueError("against: no step was compared: gradients is empty, or steps is 0.")
    found = Result(pair.course, tuple(pair.compared), pair.not_compared)
    if wide:
        found.in_float64 = wide.course
        found.rounding = verdicts(pair.course, wide.course, pair.epsilons, wide.narrow)
    return found


class _Pair:
    """Both optimizers at the same step, and what was found so far."""

    def __init__(
        self,
        first: Optimizer,
        second: Optimizer,
        names: tuple[str, str],
        params: Any,
        mode: Mode,
        form: str,
        state_map: Mapping[str, str] | None,
    ):
        leaves, self._treedef = jax.tree.flatten(params)
        self._paths = [keystr(path) for path, _ in tree_flatten_with_path(params)[0]]
        self._kinds = [(x.shape, x.dtype) for x in leaves]
        self._x64 = any(dtype == np.float64 for _, dtype in self._kinds)
        self._state_map = state_map
        with jax.enable_x64(self._x64):
            self._first, self._second = (
                side(optimizer, name, params, self._paths, form) for optimizer, name in zip((first, second), names, strict=True)
            )
        self._had = dict.fromkeys(self._paths, 0)  # how many gradients each parameter has had
        self._step = 0
        self.course = Course(*names, mode)
        self.compared: dict[str, None] = {"params": None}
        self.not_compared: dict[str, str] = {}
        self.epsilons: dict[Place, float] = {}
        self.narrow = ""

    def closed_loop(self, gradients: Callable) -> Iterator:
        """The gradients at the parameters that the first has come to."""
        while True:
            yield gradients(self._treedef.unflatten(self._first.params()), self._step + 1)

    def flat(self, gradient: Any) -> list[np.ndarray | None]:
        """The next step's gradient of each leaf.

        Raises: ValueError where it does not fit.
        """
        try:
            of_each = self._treedef.flatten_up_to(gradient)
        except ValueError as error:
            raise ValueError(f"gradients of step {self._step + 1}: {error}") from None
        for path, g, (shape, dtype) in zip(self._paths, of_each, self._kinds, strict=True):
            if g is not None and (g.shape != shape or not (g.dtype == dtype or (g.dtype == np.float32 and dtype.name in HALVES))):
                got, needed = f"{g.dtype.name}{list(g.shape)}", f"{dtype.name}{list(shape)}"
                raise ValueError(f"gradients of step {self._step + 1}: leaf {path} is {got}; the parameter is {needed}.")
        return of_each

    def step(self, gradients: list[np.ndarray | None]) -> None:
        """One step of both, compared."""
        self._step += 1
        for path, g in zip(self._paths, gradients, strict=True):
            self._had[path] += g is not None
        with jax.enable_x64(self._x64):
            for optimizer in (self._first, self._second):
                with failing(f"{optimizer.name} fails at step {self._step}"):
                    optimizer.step(gradients)
            self._compare_params()
            self._compare_state()

    def _compare_params(self) -> None:
        ours, theirs = (optimizer.params() for optimizer in (self._first, self._second))
        for path, a, b in zip(self._paths, ours, theirs, strict=True):
            self._note(Place("params", path), a, b)

    def _compare_state(self) -> None:
        given = self._state_map
        if given is None and not self._x64:
            return
        ours, theirs = self._states()
        if given is None:
            return
        for a, b in given.items():
            for name, there, who in ((a, ours, self._first), (b, theirs, self._second)):
                if name not in there:
                    fields = ", ".join(there) or "none"
                    raise ValueError(f"state_map {a}={b}: {who.name} has no state field {name}; it has: {fields}.")
        pairs = paired(ours, theirs, given)
        for who, there, used in ((self._first, ours, pairs.keys()), (self._second, theirs, pairs.values())):
            for name in there.keys() - used:
                self.not_compared[f"{name} of {who.name}"] = "no field of the other is known to mean the same"
        for a, b in pairs.items():
            self._compare_field(a if a == b else f"{a} = {b}", ours[a], theirs[b])

    def _states(self) -> tuple[Fields, Fields]:
        found = []
        for optimizer in (self._first, self._second):
            with failing(f"{optimizer.name}: its state cannot be read at step {self._step}"):
                found.append(optimizer.state())
            if not self.narrow:
                self.narrow = _narrow(optimizer.name, found[-1]) if self._x64 else ""
        return found[0], found[1]

    def _compare_field(self, name: str, ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> None:
        """Leaf by leaf; what one of them shares among the leaves, as a counter, with that of each leaf."""
        for path in dict.fromkeys((*ours, *theirs)) if ours.keys() == theirs.keys() else self._paths:
            a, b = ours.get(path, ours.get("")), theirs.get(path, theirs.get(""))
            if a is None or b is None:
                continue  # torch begins the state of a parameter at its first gradient
            if _counts(a) or _counts(b):
                if path and self._had[path] < self._step:
                    continue  # a counter that is shared, and one of each leaf
                a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            if a.shape != b.shape or a.dtype != b.dtype:
                kinds = " and ".join(f"{x.dtype.name}{list(x.shape)}" for x in (a, b))
                self.not_compared[f"{name}{path}"] = f"one is {kinds} the other"
                continue
            self.compared[name] = None
            self._note(Place("state", path, name), a, b)

    def _note(self, place: Place, a: np.ndarray, b: np.ndarray) -> None:
        self.course.note(self._step, place, a, b)
        if jnp.issubdtype(a.dtype, jnp.floating):
            self.epsilons[place] = float(jnp.finfo(a.dtype).eps)


def _counts(x: np.ndarray) -> bool:
    """Whether it is a counter: a whole number by itself."""
    return x.ndim == 0 and x.dtype.kind in "iu"


def _narrow(name: str, state: Fields) -> str:
    """Which state is not in float64 where the parameters are; torch's counters, which are float32, are exact."""
    for field_name, of_each in state.items():
        for x in of_each.values():
            if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 8 and not np.array_equal(x, np.trunc(x)):
                return f"{name} keeps {field_name} in {x.dtype.name} beside float64 parameters"
    return ""


def _in_float64(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x).astype(np.float64), tree)


def _names(first: Optimizer, second: Optimizer) -> tuple[str, str]:
    """A `Named` says what it is; others are known by their framework, or by their place."""
    kinds = [("jax" if is_jax(x) else "torch") for x in (first, second)]
    plain = kinds if kinds[0] != kinds[1] else ["first", "second"]
    one, other = (str(x) if isinstance(x, Named) else name for x, name in zip((first, second), plain, strict=True))
    return (one, other) if one != other else (f"first {one}", f"second {other}")


def _checked(params: Any, float64: bool) -> Any:
    """The parameters as NumPy arrays.

    Raises: ValueError for none at all, for leaves that are not floating point, and for float64 leaves where these are asked about.
    """
    params = jax.tree.map(np.asarray, params)
    named = [(keystr(path), leaf) for path, leaf in tree_flatten_with_path(params)[0]]
    if not named:
        raise ValueError("params: there is no leaf.")
    for path, leaf in named:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"params: leaf {path} has dtype {leaf.dtype.name}; a floating-point dtype is needed.")
        if float64 and leaf.dtype == np.float64:
            raise ValueError(f"float64: leaf {path} is float64 already; only of float32 and of halves does float64 tell what is rounding.")
    return params
