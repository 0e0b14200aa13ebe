"""The gradients of a trace, fed to an optimizer: is it the optimizer, or what comes before it?"""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..parity.contexts import CONTEXTS
from ..parity.jax_side import JaxSide
from ..parity.subnormals import torch_flushing_like_jax
from ..versus.factories import Named
from ..versus.modes import BITS, Mode
from .diff import Compared, diff
from .places import Leaf, flattened, split
from .reading import Step, Trace
from .summaries import copied, plain, summaries

RATES = {"jax": "learning_rate", "torch": "lr"}


@dataclass
class Replayed:
    """What an optimizer made of a run's gradients.

    Attributes:
        compared: the recorded run against the optimizer.
        rates: where the learning rates come from, in words.
        ended: why it ends before the trace does, or nothing.
    """

    optimizer: str
    compared: Compared
    rates: str
    ended: str = ""

    def __str__(self) -> str:
        course = self.compared.course
        steps = f"at {len(course.steps)} steps"
        if course.same:
            return f"Not the optimizer: given the recorded gradients, {self.optimizer} does what the run did {steps}. Look before it."
        if self.compared.rounding().startswith("Like rounding"):
            return (
                f"Given the recorded gradients, {self.optimizer} does what the run did up to what rounding can make, {steps}; the first "
                f"difference is {course.parting}."
            )
        return f"It is the optimizer: given the recorded gradients, {self.optimizer} parts from the run, {course.parting}."


class _Again:
    """An optimizer over a trace's gradients, as a trace: one step at a time, nothing kept."""

    def __init__(self, trace: Trace, optimizer: Named, *, before_clip: bool):
        self._trace, self._before_clip = trace, before_clip
        self.header = {"framework": optimizer.framework}
        self.numbers: dict[str, None] = {}
        self.ended = ""
        self._params = {leaf.path: leaf for leaf in trace.leaves if leaf.stage == "params"}
        start = self._start()
        self._rate, self.rates, optimizer = _rates(trace, optimizer)
        side = _InJax if optimizer.framework == "jax" else _InTorch
        self._side = side(optimizer, start)
        self._name = str(optimizer)
        self._arrays: dict[Leaf, np.ndarray] = {}
        self._walk = self._steps()
        first = next(self._walk, None)
        if first is None:
            raise ValueError(f"replay: {trace}: {self.ended}")
        self._walk = itertools.chain([first], self._walk)
        self.leaves = dict.fromkeys(self._arrays)

    def __str__(self) -> str:
        return self._name

    def steps(self) -> Iterator[Step]:
        return self._walk

    def tensor(self, step: int, leaf: Leaf) -> np.ndarray | None:
        """Of the step that was made last."""
        return self._arrays.get(leaf)

    def _start(self) -> dict[str, np.ndarray]:
        found = {path: self._trace.tensor(0, leaf) for path, leaf in self._params.items()}
        lacking = [path for path, array in found.items() if array is None]
        if not found or lacking:
            raise ValueError(
                f"replay: {self._trace} has not the elements of its first parameters; record with tensors='gradients', and with "
                "recorder.start(params) in a loop of your own."
            )
        return {path: array for path, array in found.items() if array is not None}

    def _steps(self) -> Iterator[Step]:
        expected = 1
        for step in self._trace.steps():
            if step.number == 0:
                continue
            gradients = self._gradients(step)
            if gradients is None or step.number != expected:
                self.ended = f"from step {expected} on the elements of the gradients are not there."
                return
            expected += 1
            self._side.step(gradients, self._rate.get(step.number))
            self._arrays = self._side.arrays(tuple(self._params))
            arrays = [plain(array) for array in self._arrays.values()]
            yield Step(step.number, {}, dict(zip(self._arrays, summaries(copied(arrays), len(arrays)), strict=True)))

    def _gradients(self, step: Step) -> dict[str, np.ndarray] | None:
        """What the optimizer got: of parameters without a gradient nothing; None where the elements are not there."""
        found = {}
        for stage in ("gradients",) if self._before_clip else ("gradients", "clipped"):
            for leaf in step.leaves:
                if leaf.stage == stage:
                    found[leaf.path] = self._trace.tensor(step.number, leaf)
        return found if found and all(array is not None for array in found.values()) else None


class _InJax:
    def __init__(self, optimizer: Named, start: Mapping[str, np.ndarray]):
        self._params, self._state = dict(start), None
        self._side = JaxSide(optimizer.make(), dict(start), CONTEXTS["jit"])

    def step(self, gradients: Mapping[str, np.ndarray], rate: float | None) -> None:
        ((self._params, self._state),) = self._side.steps([{path: gradients.get(path) for path in self._params}])[0]

    def arrays(self, params: tuple[str, ...]) -> dict[Leaf, np.ndarray]:
        paths, leaves = flattened(self._state)
        state = [("state", *each) for each in split(tuple(paths), params)]
        return _arrays([*zip(state, leaves, strict=True), *((("params", "", path), x) for path, x in self._params.items())])


class _InTorch:
    def __init__(self, optimizer: Named, start: Mapping[str, np.ndarray]):
        from ..parity.torch_side import TorchSide

        self._paths = list(start)
        self._side = TorchSide(optimizer.make, list(start.values()))

    def step(self, gradients: Mapping[str, np.ndarray], rate: float | None) -> None:
        if rate is not None:
            for group in self._side.optimizer.param_groups:
                group["lr"] = rate
        self._side.step([gradients.get(path) for path in self._paths])

    def arrays(self, params: tuple[str, ...]) -> dict[Leaf, np.ndarray]:
        state = [
            (("state", field, path), value)
            for field, values in self._side.state().items()
            for path, value in zip(self._paths, values, strict=True)
            if value is not None
        ]
        return _arrays([*state, *((("params", "", path), x) for path, x in zip(self._paths, self._side.params(), strict=True))])


def _arrays(found: list[tuple[tuple[str, str, str], Any]]) -> dict[Leaf, np.ndarray]:
    return {Leaf(*where, np.asarray(x).dtype.name, np.shape(x)): np.asarray(x) for where, x in found}


def _rates(trace: Trace, optimizer: Named) -> tuple[dict[int, float], str, Named]:
    """The learning rate of each step, whence, and the optimizer that has them; none where they are given, or not recorded."""
    name = RATES[optimizer.framework]
    if name in optimizer.arguments:
        return {}, f"{name}={optimizer.arguments[name]} as given", optimizer
    if "lr" not in trace.numbers:
        return {}, "the factory's own learning rate: none is recorded", optimizer
    rates: dict[int, float] = {}
    for step in trace.steps():
        if of_step := step.numbers.get("lr"):
            if len(of_step) > 1:
                raise ValueError(f"replay: {trace} has {len(of_step)} learning rates, of parameter groups; give {name}.")
            (rates[step.number],) = of_step.values()
    if optimizer.framework == "torch":
        return rates, "the recorded learning rates", optimizer
    values = [rates.get(step, float("nan")) for step in range(1, trace.last + 1)]
    if len(set(values)) == 1:
        chosen: Any = values[0]
    else:
        table = np.array(values, np.float32)
        chosen = lambda count: jnp.asarray(table)[count]  # noqa: E731
    given = replace(optimizer, arguments={**optimizer.arguments, name: chosen})
    given.make()  # refuses here where the factory has no such argument
    return {}, "the recorded learning rates", given


def replay(trace: Trace, optimizer: Named, *, mode: Mode = BITS, before_clip: bool = False) -> Replayed:
    """Feed a trace's gradients to an optimizer, and compare state and parameters after each step with those that were recorded.

    The optimizer starts at the recorded first parameters, and gets them as a flat dict, or list, by name. It gets what the recorded one
    got, after the clip; with `before_clip`, what backward left. Without a learning rate among its arguments it gets the recorded ones.

    Raises: ValueError where the trace does not hold what is needed, or the factory refuses.
    """
    flushing = optimizer.framework == "torch" and trace.header["framework"] == "jax"
    with torch_flushing_like_jax() if flushing else nullcontext():
        again = _Again(trace, optimizer, before_clip=before_clip)
        compared = diff(trace, again, mode=mode)
    return Replayed(str(optimizer), compared, again.rates, again.ended)
