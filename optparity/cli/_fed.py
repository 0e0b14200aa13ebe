"""What is fed to two optimizers: parameters of a file or of shapes, gradients of a stream or of a recorded run."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ..around.piece import SIZES
from ..interop.leaves import Leaves
from ..parity.streams import STREAMS, gradients
from ..versus import shapes
from ..versus.shapes import Leaf
from ._console import need, refusing, say
from ._errors import BadInputError

if TYPE_CHECKING:
    from ..traces.reading import Trace

STEPS = 100


def streamed(file: Path | None, stream: str | None, dtype: str | None, steps: int | None, seed: int) -> tuple[Any, "Stream"]:
    """Parameters, and the gradients of a stream."""
    if stream not in (None, *STREAMS):
        raise BadInputError(f"--stream {stream}: it has parameters of its own; one of {', '.join(STREAMS)} is needed.")
    params = _params(file, dtype, seed)
    return params, Stream(stream or "normal", params, steps or STEPS, seed)


def recorded(file: Path | None, folder: Path, steps: int | None) -> tuple[Any, "Recorded"]:
    """Parameters, the recorded first ones by default, and the gradients of a trace."""
    trace = _trace(folder)
    params = _start(trace) if file is None else _params(file, None, 0)
    return params, Recorded(trace, params, steps or trace.last)


@dataclass(frozen=True)
class Stream:
    """The gradients of so many steps of a stream, as often as they are asked for."""

    name: str
    params: Any
    steps: int
    seed: int

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(gradients(self.name, self.params, self.seed), self.steps)

    def __str__(self) -> str:
        return f"stream {self.name}, seed {self.seed}"


@dataclass(frozen=True)
class Recorded:
    """Those that a run's optimizer got, after its clip where it had one; of the steps of which their elements were kept."""

    trace: "Trace"
    params: Any
    steps: int

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self._all(), self.steps)

    def _all(self) -> Iterator[Any]:
        paths, treedef = Leaves(self.params).paths, jax.tree.structure(self.params)
        for step in self.trace.steps():
            stages = [stage for stage in ("clipped", "gradients") if any(leaf.stage == stage for leaf in step.leaves)]
            if step.number == 0 or not stages:
                continue
            leaves = {leaf.path: leaf for leaf in step.leaves if leaf.stage == stages[0]}
            if unknown := leaves.keys() - set(paths):
                raise ValueError(f"{self}: step {step.number} has a gradient of {min(unknown)}; the parameters are {', '.join(paths)}.")
            found = {path: self.trace.tensor(step.number, leaf) for path, leaf in leaves.items()}
            if all(x is not None for x in found.values()):
                yield treedef.unflatten([found.get(path) for path in paths])

    def __str__(self) -> str:
        return f"trace {self.trace}"


def _params(file: Path | None, dtype: str | None, seed: int) -> Any:
    """The parameters of a file, in the dtype that is asked for, or several small leaves."""
    if file is None:
        return shapes.drawn({name: Leaf(shape) for name, shape in SIZES.items()}, dtype, seed)
    if file.suffix == ".json":
        with refusing(ValueError):
            return shapes.drawn(shapes.read(file), dtype, seed)
    if file.suffix != ".safetensors":
        raise BadInputError(f"--params {file}: a file name that ends in .json or .safetensors is needed.")
    need("safetensors", extras="convert")
    from ..checkpoints.safetensors_file import tensors

    with refusing(ValueError):
        found, _ = tensors(file)
    floating = {
        name: x if dtype is None else x.astype(jnp.dtype(dtype)) for name, x in found.items() if jnp.issubdtype(x.dtype, jnp.floating)
    }
    if left_out := found.keys() - floating.keys():
        say(f"not floating point, left out: {', '.join(sorted(left_out))}")
    if not floating:
        raise BadInputError(f"--params {file}: it has no floating-point tensor.")
    return floating


def _trace(folder: Path) -> "Trace":
    need("safetensors", extras="convert")
    from ..traces.reading import traces

    with refusing(ValueError):
        found = traces(folder)
    if len(found) > 1:
        raise BadInputError(f"--gradients {folder}: it has {len(found)} ranks; a trace of one is needed.")
    return next(iter(found.values()))


def _start(trace: "Trace") -> dict[str, Any]:
    """The first parameters of a trace, flat, by their names."""
    with refusing(ValueError):
        found = {leaf.path: trace.tensor(0, leaf) for leaf in trace.leaves if leaf.stage == "params"}
    if not found or any(x is None for x in found.values()):
        raise BadInputError(f"--gradients {trace}: the elements of its first parameters were not recorded; say --params.")
    return found
