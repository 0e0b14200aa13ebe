"""A run that was saved in JAX as a checkpoint in torch's terms: the names, layouts and groups are those of a torch checkpoint like it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..interop import torch_classes
from ..interop.leaves import Leaves
from ..interop.matching import Matching
from ..interop.sources import scattered
from . import arrays, jax_tree, optax_types
from .arrays import Facts
from .checkpoint import Checkpoint, Given
from .jax_moments import Moments, moments
from .torch_file import Parts

UNTOLD = ".num_batches_tracked"  # of a BatchNorm: JAX does not count, and torch uses it with momentum=None only


def checkpoint(tree: Any, given: Given, others: Sequence[str] = ()) -> Checkpoint:
    """The checkpoint that a restored tree means; `others` is what was beside the tree.

    Raises: ValueError or TypeError for what is not found in it, or does not carry over.
    """
    parts, known = arrays.parts_like(given), arrays.facts_like(given)
    if parts.model is None or parts.by_index:
        raise ValueError(f"--like {given.like}: a model is needed, and an optimizer of its named_parameters(), so that names tell.")
    name = torch_classes.in_jax(known.groups[0].optimizer, known.groups[0].options, "group 0")[0].name
    run = jax_tree.find(tree, name, model_key=given.model_key, optimizer_key=given.optimizer_key)
    leaves = {path: leaf for path, leaf in Leaves(run.params).by_path.items() if jax_tree.is_floating(leaf)}
    shaped = leaves or {path: leaf for tree in optax_types.moments(run.state) for path, leaf in Leaves(tree).by_path.items()}
    found, matching = moments(name, run, shaped, given.step), _matching(shaped, parts, given)
    model = {**_kept(parts), **_in_torch(matching, leaves)} if leaves else None
    ordered = None if model is None else {name: model[name] for name in parts.model}
    left = [*run.others, *(path for path in Leaves(run.params).paths if path not in leaves), *others]
    notes = [f"Left behind: {', '.join(left)}."] if left else []
    return Checkpoint(_records(found, matching, known, given), known.names, ordered, known.versions, notes=notes)


def _matching(leaves: Mapping[str, np.ndarray], parts: Parts, given: Given) -> Matching:
    """Which leaf is which tensor of the model that --like holds."""
    weights = {name: array for name, array in (parts.model or {}).items() if not name.endswith(UNTOLD)}
    try:
        return Matching(leaves, weights)
    except ValueError as error:
        raise ValueError(f"--like {given.like}: {error}") from None


def _kept(parts: Parts) -> dict[str, np.ndarray]:
    """What JAX does not hold, as the checkpoint of --like has it."""
    return {name: array for name, array in (parts.model or {}).items() if name.endswith(UNTOLD)}


def _in_torch(matching: Matching, leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leaves as torch's tensors, by name, in memory of their own."""
    pairs = matching.pairs
    found = scattered((pairs[path].source, pairs[path].layout, leaf) for path, leaf in leaves.items())
    return {str(matching.parameters[place].name): np.array(array, order="C") for place, array in found.items()}


def _records(found: list[Moments], matching: Matching, known: Facts, given: Given) -> list[arrays.Record]:
    state: dict[str, dict[str, np.ndarray]] = {}
    step_of: dict[str, int | None] = {}
    for each in found:
        for field, own in each.fields.items():
            for name, array in _in_torch(matching, own).items():
                state.setdefault(name, {})[field] = array
                step_of[name] = each.step
    records = []
    for i, (group, names) in enumerate(zip(known.groups, known.names, strict=True)):
        steps = {step_of[name] for name in names if name in step_of} or {each.step for each in found}
        if len(steps) > 1:
            shown = ", ".join(sorted(map(str, steps)))
            raise ValueError(f"the parameters of group {i} of --like {given.like} are at steps {shown}; a group has one.")
        own = [state.pop(name, {}) for name in names]
        missing = {index for index, name in zip(group.indices, names, strict=True) if name in given.missing}
        records.append(arrays.record(group, i, own, next(iter(steps), None), missing, given.step))
    if state:
        raise ValueError(f"there is state of {jax_tree.some(list(state))}, in no group of --like {given.like}.")
    return records
