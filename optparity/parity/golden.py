"""Hashes of the trajectories, for machines and versions that cannot be compared side by side: one framework, another jax, a GPU.

A golden document carries its own configuration, and the hashes of the gradients that were fed, so that a hash that differs says
whether the rule or the stream does. Subnormals are flushed to zero by some backends and kept by others: "hashes" are of the backends
that do as "flushes" says. Where these flush, "kept" has the hashes of the others, for the trajectories that are not the same there.

One document is packaged for the optimizers, and one for what stands around the step, whose configuration says "around".
"""

import itertools
import json
import math
from collections.abc import Callable, Container, Iterable, Iterator
from functools import cache, partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path

from one_pass.library import is_available

from ..around import AROUND_ROWS, AroundRow
from ..around.piece import SIZES
from ..registry import DTYPES, ROWS, Row
from . import backend
from .bits import digest
from .contexts import CONTEXTS
from .jax_side import JaxSide, fields
from .streams import STREAMS, gradients, parameters
from .subnormals import jax_flushes, torch_flushing

CONFIGURATION = {"elements": 257, "steps": 100, "every": 50, "seed": 0, "dtypes": list(DTYPES), "streams": list(STREAMS)}
AROUND = {
    **{"elements": sum(math.prod(shape) for shape in SIZES.values()), "steps": 12, "every": 6, "seed": 0},
    **{"dtypes": ["float32", "bfloat16"], "streams": ["normal", "subnormal", "inf"], "around": True},
}
PACKAGED = files("optparity.parity") / "golden.json"
PACKAGED_AROUND = files("optparity.parity") / "golden_around.json"
SIDES = ("jax", "torch", "applied")  # the last is `update_and_apply`, of the optimizers

Hashes = dict[str, list[str]]
Tree = dict[str, np.ndarray]
# From a row, the parameters and a gradient for each step: after each step, the parameters and the arrays of the state.
Walker = Callable[[Any, Tree, Iterable[Tree]], Iterator[list[np.ndarray]]]


def ways(side: str) -> tuple[str, ...]:
    """What becomes of subnormals on this side, here: with jax what its backend does, with torch whatever it is told.

    Applied within the compiled pass they are kept.
    """
    if side == "torch":
        return "flushed", "kept"
    return ("flushed" if jax_flushes() and not (side == "applied" and is_available() and jax.default_backend() == "cpu") else "kept",)


def possible(side: str, configuration: dict[str, Any]) -> dict[str, Any]:
    """What of a configuration this side can walk here: without float64 where jax runs on a TPU, which has none."""
    there = DTYPES if side == "torch" else backend.dtypes()
    return configuration | {"dtypes": [dtype for dtype in configuration["dtypes"] if dtype in there]}


def write(side: str, configuration: dict[str, Any] | None = None, advance: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Hash every row, stream and dtype as this side, here, walks it, in each of its ways. `advance` is called after each."""
    configuration = configuration or CONFIGURATION
    walked = {way: _walk_all(_walker(side, way), configuration, advance) for way in ways(side)}
    flushed, kept = walked.get("flushed"), walked.get("kept")
    document = {"configuration": configuration, "flushes": bool(flushed), "streams": _fed(configuration), "hashes": flushed or kept}
    if flushed and kept:
        document["kept"] = {key: found for key, found in kept.items() if found != flushed[key]}
    return document


def read(source: Path | Traversable = PACKAGED) -> dict[str, Any]:
    """The document of a file, the packaged one by default.

    Raises: OSError where the file cannot be read; ValueError where it is not such a document.
    """
    try:
        document = json.loads(source.read_text(encoding="utf-8"))
        _validate(document)
    except (KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return document


def hashes(document: dict[str, Any]) -> dict[str, Hashes]:
    """All hashes of the backends that flush subnormals, of those that keep them, or of both: under "flushed" and "kept"."""
    own = {"flushed" if document["flushes"] else "kept": document["hashes"]}
    return own | ({"kept": document["hashes"] | document["kept"]} if "kept" in document else {})


def keys(configuration: dict[str, Any]) -> Iterator[tuple[str, Row | AroundRow, str, str]]:
    """What is hashed, with the name that it has in the document."""
    for row in AROUND_ROWS if configuration.get("around") else ROWS:
        for dtype, stream in itertools.product(configuration["dtypes"], configuration["streams"]):
            if dtype in row.dtypes:
                yield f"{row} | {stream} | {dtype}", row, stream, dtype


def walk(walker: Walker, row: Row | AroundRow, dtype: str, configuration: dict[str, Any]) -> Hashes:
    """The hashes by stream of whatever walks.

    An optimizer walks all streams at once, as the rows of one array, where no element heeds another; its state is in the order of the
    rule's `State`, without `step` and what is None. What stands around the step walks one after the other.
    """
    streams = configuration["streams"]
    with jax.enable_x64(dtype == "float64"):
        if isinstance(row, AroundRow):
            drawn = (_inputs(stream, dtype, configuration) for stream in streams)
            return {stream: _hashes(walker(row, *own), configuration)[0] for stream, own in zip(streams, drawn, strict=True)}
        starts, drawn = zip(*(_inputs(stream, dtype, configuration) for stream in streams), strict=True)
        stacked = (_stacked(gradients) for gradients in zip(*drawn, strict=True))
        return dict(zip(streams, _hashes(walker(row, _stacked(starts), stacked), configuration, len(streams)), strict=True))


def _stacked(trees: Iterable[Tree]) -> Tree:
    return jax.tree.map(lambda *rows: np.stack(rows), *trees)


def _hashes(walked: Iterator[list[np.ndarray]], configuration: dict[str, Any], lanes: int | None = None) -> list[list[str]]:
    """The hashes of each lane, or of all arrays as they are."""
    found = [[] for _ in range(lanes or 1)]
    for t, arrays in enumerate(walked, 1):
        if t % configuration["every"] == 0:
            for i, own in enumerate(found):
                own.append(digest(arrays if lanes is None else (array[i] for array in arrays)))
    return found


def differences(expected: dict[str, Any], got: dict[str, Any]) -> list[str]:
    """Each entry of the one document that the other has not, or has otherwise.

    Of the ways with subnormals, those that both know are compared; of the dtypes, those in the configuration of what was got.
    """
    ours, theirs = (_parts(document, got["configuration"]["dtypes"]) for document in (expected, got))
    return [
        f"{part} {key}: {theirs[part].get(key, 'missing')} is not {ours[part].get(key, 'expected')}"
        for part in ours
        if part in theirs
        for key in sorted(ours[part].keys() | theirs[part].keys())
        if ours[part].get(key) != theirs[part].get(key)
    ]


def _parts(document: dict[str, Any], dtypes: Container[str]) -> dict[str, dict[str, Any]]:
    parts = {"streams": document["streams"], **hashes(document)}
    return {part: {key: found for key, found in entries.items() if key.split(" | ")[-1] in dtypes} for part, entries in parts.items()}


def _inputs(stream: str, dtype: str, configuration: dict[str, Any]) -> tuple[Tree, list[Tree]]:
    """Parameters, and gradients for each step."""
    around = configuration.get("around", False)
    return _drawn(stream, dtype, 0 if around else configuration["elements"], configuration["steps"], configuration["seed"])


@cache
def _drawn(stream: str, dtype: str, elements: int, steps: int, seed: int) -> tuple[Tree, list[Tree]]:
    """One leaf of so many elements, or the leaves of what stands around the step."""
    params = parameters({"w": (elements,)} if elements else SIZES, dtype, seed)
    return params, list(itertools.islice(gradients(stream, params, seed), steps))


def _fed(configuration: dict[str, Any]) -> dict[str, str]:
    fed = {}
    for dtype, stream in itertools.product(configuration["dtypes"], configuration["streams"]):
        start, drawn = _inputs(stream, dtype, configuration)
        fed[f"{stream} | {dtype}"] = digest(leaf for tree in (start, *drawn) for leaf in jax.tree.leaves(tree))
    return fed


def _validate(document: dict[str, Any]) -> None:
    """Raise where a document is not one that `write` could have made."""
    configuration = document["configuration"]
    if configuration.keys() - {"around"} != CONFIGURATION.keys():
        raise ValueError(f"configuration needs {', '.join(CONFIGURATION)}")
    for key, known in {"streams": STREAMS, "dtypes": DTYPES}.items():
        if not set(configuration[key]) <= set(known):
            raise ValueError(f"{key} are {', '.join(known)}, not {configuration[key]}")
    for key, least in {"elements": 1, "steps": 1, "every": 1, "seed": 0}.items():
        if type(configuration[key]) is not int or configuration[key] < least:
            raise ValueError(f"{key} is a whole number from {least} on, not {configuration[key]!r}")
    if not (isinstance(document["streams"], dict) and isinstance(document["hashes"], dict) and isinstance(document["flushes"], bool)):
        raise ValueError("flushes, streams and hashes are needed")
    kept, others = document.get("kept", {}), document["hashes"] if document["flushes"] else {}
    if not (isinstance(kept, dict) and kept.keys() <= others.keys()):
        raise ValueError("kept has hashes for keys of hashes only, and none where these are of a backend that keeps subnormals itself")


def _walk_all(walker: Walker, configuration: dict[str, Any], advance: Callable[[], None]) -> Hashes:
    found = {}
    for (row, dtype), group in itertools.groupby(keys(configuration), lambda entry: (entry[1], entry[3])):
        walked = walk(walker, row, dtype, configuration)
        for key, _, stream, _ in group:
            found[key] = walked[stream]
            advance()
    return found


def _walker(side: str, way: str) -> Walker:
    return (
        partial(_walk_torch, way == "flushed") if side == "torch" else partial(_walk_jax, "applied" if side == "applied" else "train_step")
    )


def _walk_jax(context, row, start, gradients):
    side = JaxSide(row.tx, start, CONTEXTS[context])
    paths = [keystr(path) for path, _ in tree_leaves_with_path(start)]
    for gradient in gradients:
        ((params, state),) = side.steps([gradient])[0]
        if isinstance(row, AroundRow):
            yield _arrays(row, jax.tree.leaves(params), fields(state, row.entry.state, paths))
        else:
            yield [params["w"], *(value["w"] for field, value in state._asdict().items() if field != "step" and value is not None)]


def _walk_torch(flushes, row, start, gradients):
    from .torch_side import TorchSide

    with torch_flushing(flushes):
        side = TorchSide(row.torch, jax.tree.leaves(start))
        for gradient in gradients:
            side.step(jax.tree.leaves(gradient))
            if isinstance(row, AroundRow):
                yield _arrays(row, side.params(), side.state())
            else:
                state = {field: values[0] for field, values in side.state().items() if field != "step"}
                yield [side.params()[0], *state.values()]


def _arrays(row: AroundRow, params: list, state: dict[str, list]) -> list[np.ndarray]:
    """Parameters, then the fields that both packages keep, as far as they are not 0: torch has none before its first step.

    What is one number is hashed as float64, since a counter is not of one dtype in both.
    """
    found = [value for field in row.entry.state for value in state.get(field, ()) if value is not None and value.any()]
    return [*params, *(value if value.ndim else np.asarray(value, np.float64) for value in found)]
