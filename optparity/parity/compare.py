"""The comparison: the same gradients to both sides, every bit of parameters and state at every step."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.tree_util import keystr, tree_flatten_with_path

from .bits import as_hex, differing, ulp_distance
from .contexts import CONTEXTS
from .jax_side import JaxSide, fields
from .reports import Difference, Report
from .subnormals import torch_flushing_like_jax


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
            parameters and the step's number (1, 2, ...).
        steps: how many steps; needed where `gradients` does not end.
        context: how the transform is run, a key of `CONTEXTS`.
        state_map: state fields of the transform -> state keys of the torch optimizer that mean the same. By default, the names that both
            have; where there is none (or with an empty map), the report's `compared` says that parameters alone were compared.

    Within the call torch has one thread, and flushes subnormals if this jax backend does; afterwards its settings are as before.

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
    from .torch_side import TorchSide

    if context not in CONTEXTS:
        raise ValueError(f"compare: unknown context {context!r}; one of {', '.join(CONTEXTS)} is needed.")
    way = CONTEXTS[context]
    if callable(gradients) and way.block > 1:
        raise ValueError(f"compare: context {context!r} takes {way.block} steps at once; a closed loop needs one at a time.")
    limits = [n for n in (steps, way.most_steps) if n is not None]
    if callable(gradients) and not limits:
        raise ValueError("compare: a closed loop does not end by itself; steps=... is needed.")

    with torch_flushing_like_jax():
        params = way.like(jax.tree.map(np.asarray, params))
        paths = [keystr(path) for path, _ in tree_flatten_with_path(params)[0]]
        treedef, leaves = jax.tree.structure(params), jax.tree.leaves(params)
        (reference_name, make), *others = torch_optimizers.items()
        reference = TorchSide(make, leaves)
        torch_sides = {name: TorchSide(make, leaves) for name, make in others}
        jax_sides = {name: JaxSide(tx, params, way) for name, tx in transforms.items()}
        reports = {name: Report(name, reference_name) for name in [*jax_sides, *torch_sides]}

        rng, done, source = np.random.default_rng(0), 0, iter(()) if callable(gradients) else iter(gradients)
        while block := min([way.block, *(limit - done for limit in limits)]):
            if callable(gradients):
                drawn = [gradients(treedef.unflatten(reference.params()), done + 1)]
            else:
                drawn = [g for _, g in zip(range(block), source, strict=False)]
            if not drawn:
                break
            fed, meant = zip(*(way.feed(g, rng) for g in drawn), strict=True)
            walked = {name: side.steps(list(fed)) for name, side in jax_sides.items()}
            for i, gradient in enumerate(meant):
                done += 1
                flat = jax.tree.leaves(gradient)
                reference.step(flat)
                expected, state = reference.params(), reference.state()
                for name, seen in walked.items():
                    for lane, (lane_params, lane_state) in enumerate(seen[i]):
                        names = dict(zip(state, state, strict=True)) if state_map is None else state_map
                        there = fields(lane_state, names, paths)
                        for ours, theirs in (state_map or {}).items():
                            if ours not in there or theirs not in state:
                                raise ValueError(f"compare: state_map {ours!r} -> {theirs!r}: no such field in one of the states.")
                        renamed = {names[field]: values for field, values in there.items()}
                        _note(reports[name], done, paths, jax.tree.leaves(lane_params), expected, renamed, state, again=lane > 0)
                for name, side in torch_sides.items():
                    side.step(flat)
                    _note(reports[name], done, paths, side.params(), expected, {}, state)
                after_step(done, expected)
    if not done:
        raise ValueError("compare: no step was compared: gradients is empty, or steps is 0.")
    return reports


def _note(report, step, paths, got, expected, got_state, expected_state, *, again=False):
    """Compare one step and write it into the report; `again`, as another lane of the step that is written already."""
    pairs = [(f"params{path}", a, b) for path, a, b in zip(paths, got, expected, strict=True)]
    shared = [field for field in expected_state if field in got_state]
    for field in shared:
        for path, a, b in zip(paths, got_state[field], expected_state[field], strict=True):
            if b is None and a is not None and a.dtype.kind == "i":
                continue  # a counter belongs to no parameter; torch has none for one that it never stepped
            if (a is None) != (b is None):
                raise ValueError(f"compare: state {field}{path} exists on one side only, at step {step}.")
            if a is not None:
                a, b = np.asarray(a), np.asarray(b)
                pairs.append((f"{field}{path}", a.astype(b.dtype) if a.dtype.kind == "i" else a, b))
    report.compared = ("params", *shared)
    report.elements = sum(a.size for _, a, _ in pairs) + (report.elements if again else 0)
    differ, farthest = 0, 0
    for leaf, a, b in pairs:
        if a.shape != b.shape or a.dtype != b.dtype:
            raise ValueError(
                f"compare: {leaf} is {a.dtype.name}{list(a.shape)} in {report.got}, {b.dtype.name}{list(b.shape)} in {report.expected}."
            )
        different = differing(a, b)
        if not different.any():
            continue
        ulp = ulp_distance(a, b)
        differ, farthest = differ + int(different.sum()), max(farthest, int(ulp.max()))
        if report.first_difference is None:
            index = tuple(int(i) for i in np.argwhere(different)[0])
            report.first_difference = Difference(step, leaf, index, as_hex(a[index]), as_hex(b[index]), int(ulp[index]))
    if again:
        report.differing[-1] += differ
        report.ulp[-1] = max(report.ulp[-1], farthest)
    else:
        report.differing.append(differ)
        report.ulp.append(farthest)
