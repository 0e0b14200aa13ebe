"""A run that was saved in JAX as a checkpoint in torch's terms: the names, layouts and groups are those of a torch checkpoint like it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..interop import torch_classes
from ..interop.layouts import Layout, inverse, of_a_kernel
from ..interop.leaves import Leaves
from ..interop.matching import Matching
from ..interop.sources import gathered_shape, scattered, source
from ..registry import TORCH_CLASSES
from . import arrays, jax_tree, optax_types
from .arrays import Facts
from .checkpoint import Checkpoint, Given
from .jax_moments import Moments, moments
from .torch_file import Read

UNTOLD = ".num_batches_tracked"  # of a BatchNorm: JAX does not count, and torch uses it with momentum=None only

SQUARE = "--square-kernels transposed says that they are Flax's of torch's Linear and Conv layers, --square-kernels same that they are not."
NAMELESS = "a model is needed, and the names of its parameters: of an optimizer of named_parameters(), or by --names."


def checkpoint(tree: Any, like: Read, given: Given, others: Sequence[str] = ()) -> Checkpoint:
    """The checkpoint that a restored tree means.

    Args:
        like: what is in the file of `given.like`.
        others: what was beside the tree.

    Raises: ValueError or TypeError for what is not found in it, or does not carry over.
    """
    known, tensors = arrays.facts_like(like), like.model.tensors
    if tensors is None or known.by_index:
        raise ValueError(f"--like {given.like}: {NAMELESS}")
    group = known.groups[0]
    name = torch_classes.in_jax(group.optimizer, group.options, "group 0")[0].name
    run = jax_tree.find(tree, name, model_key=given.model_key, optimizer_key=given.optimizer_key)
    leaves = {path: leaf for path, leaf in Leaves(run.params).by_path.items() if jax_tree.is_floating(leaf)}
    shaped = leaves or {path: leaf for own in optax_types.moments(run.state, name) for path, leaf in Leaves(own).by_path.items()}
    found, matching = moments(name, run, shaped, given.step), _matching(shaped, tensors, given)
    left = [*run.others, *(path for path in Leaves(run.params).paths if path not in leaves), *others]
    notes = (f"Left behind: {', '.join(left)}.",) if left else ()
    records = _records(found, matching, known, given)
    if not leaves:
        return Checkpoint(records, known.names, None, notes=notes, matching=matching)
    kept = {name: array for name, array in tensors.items() if name.endswith(UNTOLD)}
    model = {**kept, **_in_torch(matching, leaves)}
    notes += (f"As in --like, since JAX does not hold it: {', '.join(kept)}.",) if kept else ()
    order = (known.model or ()) if known.extras else ()
    ordered = {name: model[name] for name in tensors}
    return Checkpoint(records, known.names, ordered, known.versions, order=order, extras=known.extras, notes=notes, matching=matching)


def _matching(leaves: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray], given: Given) -> Matching:
    """Which leaf is which tensor of the model that --like holds."""
    square = {path: layout for path, leaf in leaves.items() if (layout := _of_square(path, leaf.shape))}
    layouts = {path: layout if given.square_kernels == "transposed" else None for path, layout in square.items()}
    try:
        weights = {name: array for name, array in tensors.items() if not name.endswith(UNTOLD)}
        return Matching(leaves, weights, layouts=layouts if given.square_kernels else None)
    except ValueError as error:
        hint = f" {SQUARE}" if square and given.square_kernels is None and str(error).startswith("layouts:") else ""
        raise ValueError(f"--like {given.like}: {error}{hint}") from None


def _of_square(path: str, shape: tuple[int, ...]) -> Layout:
    """The layout of a Dense or Conv of Flax, for a kernel whose shape leaves another one open; else None."""
    if path.rpartition(".")[2] != "kernel" or len(shape) < 2:
        return None
    as_is, usual, *others = of_a_kernel(len(shape), ())
    shapes = [gathered_shape(source(0), inverse(layout), lambda _: shape) for layout in (as_is, usual, *others)]
    return usual if shapes.count(shapes[1]) > 1 else None


def _in_torch(matching: Matching, leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leaves as torch's tensors, by name."""
    pairs = matching.pairs
    found = scattered((pairs[path].source, pairs[path].layout, leaf) for path, leaf in leaves.items())
    return {str(matching.parameters[place].name): np.asarray(array, order="C") for place, array in found.items()}


def _records(found: list[Moments], matching: Matching, known: Facts, given: Given) -> list[arrays.Record]:
    state: dict[str, dict[str, np.ndarray]] = {}
    step_of: dict[str, int | None] = {}
    for each in found:
        for field, own in each.fields.items():
            for name, array in _in_torch(matching, own).items():
                state.setdefault(name, {})[field] = array
                step_of[name] = each.step
    records, missing = [], given.absent(known.groups, known.names)
    for i, (group, names) in enumerate(zip(known.groups, known.names, strict=True)):
        own = [state.pop(name, {}) for name in names]
        step, behind = _steps([step_of.get(name) for name in names], found, TORCH_CLASSES[group.optimizer].has_step)
        records.append(arrays.record(replace(group, behind=behind), i, own, step, missing, given.step))
    if state:
        raise ValueError(f"there is state of {jax_tree.some(list(state))}, in no group of --like {given.like}.")
    return records


def _steps(steps: list[int | None], found: list[Moments], has_step: bool) -> tuple[int | None, tuple[int, ...]]:
    """The most steps that a parameter of a group has taken, and how far each is behind.

    Args:
        steps: of each parameter, None where it has no state.
        found: all that was found, for a group without state.
        has_step: whether torch keeps a step for each parameter.
    """
    known = {step for step in steps if step is not None} or {each.step for each in found if each.step is not None}
    if len(known) > 1 and not has_step:
        raise ValueError(f"the parameters of a group are at steps {', '.join(map(str, sorted(known)))}, and torch's holds none.")
    most = max(known, default=None)
    behind = tuple(0 if step is None or most is None else most - step for step in steps)
    return most, behind if any(behind) else ()
