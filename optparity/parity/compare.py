"""The comparison: the same gradients to both sides, every bit of parameters and state at every step."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.tree_util import keystr, tree_flatten_with_path

from .contexts import CONTEXTS, Context
from .jax_side import JaxSide, fields
from .reports import Pair, Report
from .subnormals import torch_flushing, torch_flushing_like_jax


def compare(
    tx: optax.GradientTransformation,
    torch_optimizer: Callable[[list], Any],
    params,
    gradients: Iterable | Callable,
    *,
    steps: int | None = None,
    context: str = "jit",
    state_map: Mapping[str, str] | None = None,
) -> Report:
    """Feed the same gradients to an optax transform and to a torch optimizer, and compare every bit of what they do.

    Args:
        tx: any optax transform.
        torch_optimizer: a callable from a list of `torch.nn.Parameter` to a `torch.optim.Optimizer`.
        params: a pytree of NumPy arrays; the torch parameters are its leaves in the order of `jax.tree.leaves`.
        gradients: an iterable of such pytrees; or, for a closed loop, a callable `(params, step) -> pytree` that is given the torch side's
            parameters and the step's number (1, 2, ...). A gradient may be None, as a frozen layer's: neither side steps its parameter.
        steps: how many steps; needed where `gradients` does not end.
        context: how the transform is run, a key of `CONTEXTS`.
        state_map: state fields of the transform -> state keys of the torch optimizer that mean the same. By default, the names that both
            have; where there is none (or with an empty map), the report's `compared` says that parameters alone were compared.

    A step counter is compared for parameters that have had every gradient. State that torch has not begun must be as `init` made it.

    Within the call torch has one thread, and flushes subnormals if this jax backend does (in the context "applied" the compiled pass
    keeps them, and so does torch); afterwards its settings are as before.

    Raises: ValueError for an unknown context, a closed loop in a context that takes several steps at once, a comparison of no steps or
        without end, a field of `state_map` that is not there, or sides that do not have the same shapes and dtypes.
    """
    return compare_all({"jax": tx}, {"torch": torch_optimizer}, params, gradients, steps=steps, context=context, state_map=state_map)["jax"]


def assert_identical(*args, **kwargs) -> Report:
    """`compare`, and an AssertionError that names the first difference if there is one; the report otherwise."""
    report = compare(*args, **kwargs)
    if not report.identical:
        raise AssertionError(str(report))
    return report


def compare_all(
    transforms: Mapping[str, optax.GradientTransformation],
    torch_optimizers: Mapping[str, Callable],
    params,
    gradients: Iterable | Callable,
    *,
    steps: int | None = None,
    context: str = "jit",
    state_map: Mapping[str, str] | None = None,
    after_step: Callable[[int, list[np.ndarray]], None] = lambda step, params: None,
) -> dict[str, Report]:
    """`compare`, for several implementations at once: the first torch optimizer is the reference, and everything is fed its gradients.

    Transforms are compared by parameters and state, further torch optimizers by parameters.

    Returns: a report for each but the reference, by name. `after_step(step, params)` sees the reference's parameters after each step.
    """
    way = _way(context, steps, closed_loop=callable(gradients))
    with torch_flushing(False) if way.passes(transforms.values()) else torch_flushing_like_jax():
        comparison = _Comparison(transforms, torch_optimizers, params, way, state_map)
        source = comparison.closed_loop(gradients) if callable(gradients) else iter(gradients)
        for drawn in _blocks(itertools.islice(source, steps), way):
            for step, expected in comparison.advance(drawn):
                after_step(step, expected)
    if not comparison.step:
        raise ValueError("compare: no step was compared: gradients is empty, or steps is 0.")
    return comparison.reports


def _way(context: str, steps: int | None, *, closed_loop: bool) -> Context:
    if context not in CONTEXTS:
        raise ValueError(f"compare: unknown context {context!r}; one of {', '.join(CONTEXTS)} is needed.")
    way = CONTEXTS[context]
    if closed_loop and way.block > 1:
        raise ValueError(f"compare: context {context!r} takes {way.block} steps at once; a closed loop needs one at a time.")
    if closed_loop and steps is None and way.most_steps is None:
        raise ValueError("compare: a closed loop does not end by itself; steps=... is needed.")
    return way


def _blocks(source: Iterator, way: Context) -> Iterator[list]:
    """The gradients in as many at a time as the context takes, drawn when they are needed."""
    source = itertools.islice(source, way.most_steps)
    while block := list(itertools.islice(source, way.block)):
        yield block


class _Comparison:
    """Every side at the same step: `advance` moves them on by a block of gradients and writes into the reports what it finds."""

    def __init__(self, transforms, torch_optimizers, params, way: Context, state_map: Mapping[str, str] | None):
        from .torch_side import TorchSide

        params = way.like(jax.tree.map(np.asarray, params))
        leaves, self._treedef = jax.tree.flatten(params)
        self._paths = [keystr(path) for path, _ in tree_flatten_with_path(params)[0]]
        (reference, make), *others = torch_optimizers.items()
        self._reference = TorchSide(make, leaves)
        self._torch_sides = {name: TorchSide(make, leaves) for name, make in others}
        self._jax_sides = {name: JaxSide(tx, params, way) for name, tx in transforms.items()}
        self._starts = {name: functools.partial(tx.init, params) for name, tx in transforms.items()}
        self._had = np.zeros(len(leaves), int)  # how many gradients each parameter has had
        self._way, self._state_map = way, state_map
        self._rng = np.random.default_rng(0)
        self.step = 0
        self.reports = {name: Report(name, reference) for name in (*self._jax_sides, *self._torch_sides)}

    def closed_loop(self, gradients: Callable) -> Iterator:
        """The gradients at the parameters that the reference has come to."""
        while True:
            yield gradients(self._treedef.unflatten(self._reference.params()), self.step + 1)

    def advance(self, drawn: list) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Each step's number, and the reference's parameters after it."""
        fed, meant = zip(*(self._way.feed(gradient, self._rng) for gradient in drawn), strict=True)
        walked = {name: side.steps(list(fed)) for name, side in self._jax_sides.items()}
        for i, gradient in enumerate(meant):
            self.step += 1
            of_each = self._treedef.flatten_up_to(gradient)
            self._had += [g is not None for g in of_each]
            self._reference.step(of_each)
            expected, state = self._reference.params(), self._reference.state()
            for name, seen in walked.items():
                for lane, (own_params, own_state) in enumerate(seen[i]):
                    pairs = [*self._params(jax.tree.leaves(own_params), expected), *self._state(name, own_state, state)]
                    self.reports[name].note(self.step, pairs, again=lane > 0)
            for name, side in self._torch_sides.items():
                side.step(of_each)
                self.reports[name].note(self.step, self._params(side.params(), expected))
            yield self.step, expected

    def _params(self, got: list, expected: list) -> list[Pair]:
        return [Pair("params", path, a, b) for path, a, b in zip(self._paths, got, expected, strict=True)]

    def _state(self, side: str, got: Any, expected: Mapping[str, list]) -> Iterator[Pair]:
        """The state fields that both have, in the order of torch's."""
        names = dict(zip(expected, expected, strict=True)) if self._state_map is None else self._state_map
        there = fields(got, names, self._paths)
        starts = {} if self._had.all() else fields(self._starts[side](), names, self._paths)
        for name, field in (self._state_map or {}).items():
            if name not in there or field not in expected:
                raise ValueError(f"compare: state_map {name!r} -> {field!r}: no such field in one of the states.")
        ours = {field: name for name, field in names.items() if name in there}
        for field in filter(ours.get, expected):
            for i, (a, b) in enumerate(zip(there[ours[field]], expected[field], strict=True)):
                if b is None and not self._had[i]:
                    b = starts[ours[field]][i]
                if (pair := self._pair(field, i, a, b)) is not None:
                    yield pair

    def _pair(self, field: str, i: int, a: Any, b: Any) -> Pair | None:
        path = self._paths[i]
        if a is not None and a.dtype.kind == "i":
            if b is None or self._had[i] < self.step:
                return None  # the counter is the transform's, and torch has one for each parameter
            a = a.astype(b.dtype)
        if (a is None) != (b is None):
            raise ValueError(f"compare: state {field}{path} exists on one side only, at step {self.step}.")
        return None if a is None else Pair(field, path, np.asarray(a), np.asarray(b))
