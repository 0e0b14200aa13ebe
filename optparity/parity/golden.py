"""Hashes of the trajectories, for machines and versions that cannot be compared side by side: one framework, another jax, a GPU.

A golden document carries its own configuration, and the hashes of the gradients that were fed, so that a hash that differs says
whether the rule or the stream does.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import numpy as np

from ..registry import DTYPES, ROWS, Row
from .bits import digest
from .contexts import CONTEXTS
from .jax_side import JaxSide
from .streams import STREAMS, gradients, parameters
from .subnormals import jax_flushes, torch_flushing_like_jax

CONFIGURATION = {"elements": 257, "steps": 100, "every": 50, "seed": 0, "dtypes": list(DTYPES), "streams": list(STREAMS)}
SIDES = ("jax", "torch")


def write(side: str, configuration: dict[str, Any] | None = None, advance: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Hash every row, stream and dtype as this side, here, walks it. `advance` is called after each."""
    configuration = configuration or CONFIGURATION
    hashes = {}
    for (row, dtype), group in itertools.groupby(keys(configuration), lambda entry: (entry[1], entry[3])):
        walked = _walk(side, row, dtype, configuration)
        for key, _, stream, _ in group:
            hashes[key] = walked[stream]
            advance()
    return {"configuration": configuration, "flushes": jax_flushes(), "streams": _fed(configuration), "hashes": hashes}


def validate(document: dict[str, Any]) -> None:
    """Raise ValueError where a document is not one that `write` could have made."""
    configuration = document["configuration"]
    if configuration.keys() != CONFIGURATION.keys():
        raise ValueError(f"configuration needs {', '.join(CONFIGURATION)}")
    for key, known in {"streams": STREAMS, "dtypes": DTYPES}.items():
        if not set(configuration[key]) <= set(known):
            raise ValueError(f"{key} are {', '.join(known)}, not {configuration[key]}")
    for key, least in {"elements": 1, "steps": 1, "every": 1, "seed": 0}.items():
        if type(configuration[key]) is not int or configuration[key] < least:
            raise ValueError(f"{key} is a whole number from {least} on, not {configuration[key]!r}")
    if not (isinstance(document["streams"], dict) and isinstance(document["hashes"], dict) and isinstance(document["flushes"], bool)):
        raise ValueError("flushes, streams and hashes are needed")


def without_subnormals(document: dict[str, Any]) -> dict[str, Any]:
    """Take the stream of subnormals out of a document, for a backend that does with them what the file's did not; its configuration."""
    for part in ("streams", "hashes"):
        document[part] = {key: value for key, value in document[part].items() if "subnormal" not in key}
    document["configuration"]["streams"].remove("subnormal")
    return document["configuration"]


def keys(configuration: dict[str, Any]) -> Iterator[tuple[str, Row, str, str]]:
    """What is hashed, with the name that it has in the document."""
    for row in ROWS:
        for dtype, stream in itertools.product(configuration["dtypes"], configuration["streams"]):
            if dtype in row.dtypes:
                yield f"{row} | {stream} | {dtype}", row, stream, dtype


def differences(expected: dict[str, Any], got: dict[str, Any]) -> list[str]:
    """Each entry of the one document that the other has not, or has otherwise."""
    return [
        f"{part} {key}: {got[part].get(key, 'missing')} is not {expected[part].get(key, 'expected')}"
        for part in ("streams", "hashes")
        for key in sorted(expected[part].keys() | got[part].keys())
        if expected[part].get(key) != got[part].get(key)
    ]


@cache
def _inputs(stream: str, dtype: str, elements: int, steps: int, seed: int):
    """Parameters, and gradients for each step."""
    params = parameters({"w": (elements,)}, dtype, seed)
    return params["w"], [g["w"] for g in itertools.islice(gradients(stream, params, seed), steps)]


def _size(configuration: dict[str, Any]) -> tuple[int, int, int]:
    return configuration["elements"], configuration["steps"], configuration["seed"]


def _fed(configuration: dict[str, Any]) -> dict[str, str]:
    fed = {}
    for dtype, stream in itertools.product(configuration["dtypes"], configuration["streams"]):
        start, drawn = _inputs(stream, dtype, *_size(configuration))
        fed[f"{stream} | {dtype}"] = digest([start, *drawn])
    return fed


def _walk(side: str, row: Row, dtype: str, configuration: dict[str, Any]) -> dict[str, list[str]]:
    """The hashes by stream. All streams are walked at once, as the rows of one array, where no element heeds another."""
    starts, drawn = zip(*(_inputs(stream, dtype, *_size(configuration)) for stream in configuration["streams"]), strict=True)
    found: dict[str, list[str]] = {stream: [] for stream in configuration["streams"]}
    with jax.enable_x64(dtype == "float64"):
        walk = {"jax": _walk_jax, "torch": _walk_torch}[side](row, np.stack(starts), map(np.stack, zip(*drawn, strict=True)))
        for t, arrays in enumerate(walk, 1):
            if t % configuration["every"] == 0:
                for i, hashes in enumerate(found.values()):
                    hashes.append(digest(array[i] for array in arrays))
    return found


def _walk_jax(row, start, gradients):
    side = JaxSide(row.tx, {"w": start}, CONTEXTS["train_step"])
    for gradient in gradients:
        ((params, state),) = side.steps([{"w": gradient}])[0]
        yield [params["w"], *(value["w"] for field, value in state._asdict().items() if field != "step" and value is not None)]


def _walk_torch(row, start, gradients):
    from .torch_side import TorchSide

    with torch_flushing_like_jax():
        side = TorchSide(row.torch, [start])
        for gradient in gradients:
            side.step([gradient])
            state = {field: values[0] for field, values in side.state().items() if field != "step"}
            yield [side.params()[0], *state.values()]
