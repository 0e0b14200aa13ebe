"""The recorder: two calls in a training loop, a folder with what the run did.

    folder/rank-0/steps.jsonl           a header, a line for each step, tables of leaves, and the hashes of shards (`lines`)
    folder/rank-0/tensors-1.safetensors as asked for: arrays of the steps from 1 on, whole or not there

Each rank writes a folder of its own. Hashes are taken and lines are written in a thread, a step or two behind the run.
"""

import atexit
import base64
import hashlib
import math
import os
import platform
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from .._files import replacing
from ..interop.matching import Matching
from ..interop.sources import scattered
from . import lines
from .places import ARRAYS, NUMBERS, Leaf, flattened, numbers, split
from .summaries import Copies, Summary, copied, is_of_torch, plain, summaries

VERSION = 1
STEPS = "steps.jsonl"
SHARD_STEPS = 100  # a shard has no more steps, so that a killed run loses no more of its tensors
BEHIND = 2  # steps that wait to be written
Tensors = Literal["gradients", "all"]
KEPT = {None: (), "gradients": ("gradients", "clipped"), "all": ("gradients", "clipped", "state", "params")}


class _Noted(NamedTuple):
    """A stage of the step that is going on, copied."""

    stage: str
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    copies: list[Copies]

    def leaves(self, params: tuple[str, ...]) -> list[Leaf]:
        """The arrays' leaves, of which those of a state belong to these parameters."""
        fields = split(self.paths, params) if self.stage == "state" else [("", path) for path in self.paths]
        dtypes = {place: each.flat.dtype.name for each in self.copies for place in each.places}
        return [Leaf(self.stage, *fields[i], dtypes[i], tuple(shape)) for i, shape in enumerate(self.shapes)]

    @property
    def kind(self) -> tuple:
        """What determines the leaves."""
        return self.stage, self.paths, self.shapes, *((each.places, each.flat.dtype) for each in self.copies)


class Recorder:
    """Writes down what a run does, step by step: of each array a hash of its bits, its norm, its extremes; as asked, its elements.

    Args:
        folder: is made; may hold the traces of other ranks.
        tensors: whose elements are kept too: "gradients" (before and after a clip, and the parameters before the first step: what
            `optparity replay` needs), or "all" (parameters and state as well). Of the batch only hashes are.
        every: at how many steps tensors are kept; hashes are at each. With more than 1 there is nothing to replay.
        matching: of the JAX leaves to torch parameters; what is recorded gets torch's names and layouts, so that hashes compare.
        rank: of this process; each needs another.
        resume: go on with the folder's trace, after its last step, or after step N; later ones are dropped.
        shard_mib: how large a file of tensors gets.

    Raises: ValueError for a folder that holds a trace of this rank already, or has none to go on with, or a damaged one.
    Example:
        >>> import tempfile
        >>> with Recorder(tempfile.mkdtemp()) as recorder:
        ...     recorder.step(loss=0.5, gradients={"w": np.ones(2)}, params={"w": np.zeros(2)})
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        tensors: Tensors | None = None,
        every: int = 1,
        matching: Matching | None = None,
        rank: int = 0,
        resume: bool | int = False,
        shard_mib: float = 32,
    ):
        if tensors not in KEPT:
            raise ValueError(f"trace: tensors is None, 'gradients' or 'all'; got {tensors!r}.")
        for name, value, least in (("every", every, 1), ("rank", rank, 0)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"trace: {name} is an integer >= {least}; got {value!r}.")
        self.folder = Path(folder) / f"rank-{rank}"
        self._rank, self._tensors, self._every, self._matching = rank, tensors, every, matching
        self._shard_bytes = shard_mib * 2**20
        self.last = 0  # the step that was recorded last
        self.late = False  # whether a step's parameters come with the next step, as `recorded` has them
        self.extra: dict[str, Any] = {}  # further facts for the header
        self._begun, self._check = False, ""
        self._kinds: dict[tuple, tuple[Leaf, ...]] = {}
        self._begun_writing = False
        self._tables: dict[tuple[Leaf, ...], int] = {}
        self._params: tuple[str, ...] = ()
        self._noted: dict[str, _Noted] = {}
        self._numbers: dict[str, dict[str, float]] = {}
        self._facts: dict[str, Any] = {}
        self._shard: dict[str, np.ndarray] = {}
        self._shard_first, self._shard_last = 0, 0
        self._file = self._opened(resume)
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(BEHIND)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="optparity-trace", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # What a run calls

    def start(self, params: Any) -> None:
        """Before the first step: the parameters that the run starts with, step 0 of the trace. A run that goes on has them already.

        Raises: as `note`.
        """
        if not self._begun:
            begun = self._noted, self._numbers
            self._noted, self._numbers = {}, {}
            self.note(params=params)
            self._end(0)
            self._noted, self._numbers = begun

    def note(self, **stages: Any) -> None:
        """A part of the step that is going on, copied now; `step` ends it.

        Args:
            loss, lr: a number, or a tree of numbers.
            batch, gradients, clipped, state, params: a tree of arrays or tensors; a Mapping from names to them is one. A leaf None is left
                out. `clipped` is what the optimizer gets, where that is not `gradients`; `params` and `state` are after the step.

        Raises: ValueError for another name, TypeError for leaves that are no real numbers, and what went wrong while writing.
        """
        self._raise()
        for stage, tree in stages.items():
            if stage not in (*ARRAYS, *NUMBERS):
                raise ValueError(f"trace: a step has {', '.join((*NUMBERS, *ARRAYS))}; got {stage}.")
            if tree is None:
                continue
            if stage in NUMBERS:
                self._numbers[stage] = numbers(stage, tree)
                continue
            self._noted[stage] = self._copied(stage, tree)

    def _copied(self, stage: str, tree: Any) -> _Noted:
        paths, leaves = flattened(tree)
        if not self._facts and leaves and stage != "batch":
            self._facts = _facts(leaves[0])
        arrays = [plain(leaf) for leaf in leaves]
        if self._matching is not None and stage != "batch":
            paths, arrays = _as_in_torch(self._matching, paths, arrays)
        return _Noted(stage, tuple(paths), tuple(x.shape for x in arrays), copied(arrays))

    def step(self, **stages: Any) -> None:
        """A step, with what `note` takes; returns before it is on the disk.

        Raises: as `note`; ValueError where nothing is given or noted.
        """
        self.note(**stages)
        if not self._noted and not self._numbers:
            raise ValueError("trace: a step with nothing in it; loss, gradients, params or another stage is needed.")
        self._end(self.last + 1)

    def arrive(self, params: Any) -> None:
        """The parameters that a step begins with: they end the step before, or are those of the start."""
        if self._noted:
            self.step(params=params)
        else:
            self.start(params=params)

    def finish(self, params: Any) -> None:
        """`close`, with the parameters after the last step, which `recorded` has not seen."""
        if self.late:
            jax.effects_barrier()
        self.step(params=params)
        self.close()

    def close(self) -> None:
        """Write what is left, and end. Parts of a step that has not ended are left out.

        Raises: what went wrong while writing.
        """
        if self._file.closed:
            return
        if self.late:
            jax.effects_barrier()  # callbacks that are under way
            if self._noted and self._error is None:
                self._end(self.last + 1)
        atexit.unregister(self.close)
        self._queue.put(None)
        self._thread.join()
        self._file.close()
        if self._error is not None:
            raise self._error

    # The step, handed over

    def _end(self, step: int) -> None:
        noted, self._noted = self._noted, {}
        given, self._numbers = self._numbers, {}
        self._params = next((noted[stage].paths for stage in ("params", "gradients") if stage in noted), self._params)
        params = self._params
        self.last, self._begun = step, True
        self._queue.put(lambda: self._write_step(step, [noted[stage] for stage in ARRAYS if stage in noted], given, params))

    def _work(self) -> None:
        """In the thread: everything that is handed over, and at the end the last shard."""
        while (task := self._queue.get()) is not None:
            self._try(task)
            self._queue.task_done()
        self._try(self._write_shard)

    def _try(self, task: Callable[[], None]) -> None:
        if self._error is None:
            try:
                task()
            except BaseException as error:
                self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
        if self._file.closed:
            raise ValueError(f"trace: {self.folder} is closed.")

    # In the thread

    def _write_step(self, step: int, noted: Sequence[_Noted], given: dict[str, dict[str, float]], params: tuple[str, ...]) -> None:
        if not self._begun_writing:
            self._begun_writing = True
            self._append(self._header())
        kind = (params, *(each.kind for each in noted))
        if kind not in self._kinds:
            leaves = tuple(leaf for each in noted for leaf in each.leaves(params))
            if leaves not in self._tables:
                self._tables[leaves] = len(self._tables)
                self._append({"table": self._tables[leaves], "leaves": [list(leaf) for leaf in leaves]})
            self._kinds[kind] = leaves
        leaves = self._kinds[kind]
        found = [summary for each in noted for summary in summaries(each.copies, len(each.paths))]
        self._append({"step": step, "table": self._tables[leaves], **_as_json(given, found)})
        keep = ("params",) if step == 0 and self._tensors else KEPT[self._tensors] if step % self._every == 0 else ()
        kept, start = {}, 0
        for each in noted:
            if each.stage in keep:
                here = ((start + i, array.reshape(each.shapes[i])) for copies in each.copies for i, array in copies.arrays())
                kept |= {key(step, leaves[at]): array for at, array in here}
            start += len(each.paths)
        if kept:
            self._shard_first = self._shard_first if self._shard else step
            self._shard |= kept
            self._shard_last = step
        full = sum(array.nbytes for array in self._shard.values()) >= self._shard_bytes
        if full or (self._shard and step - self._shard_first + 1 >= SHARD_STEPS):
            self._write_shard()

    def _write_shard(self) -> None:
        """Tensors in a file that is whole or not there, then the line that says that it is there."""
        if not self._shard:
            return
        from safetensors.numpy import save

        content = save(self._shard)
        name = f"tensors-{self._shard_first}.safetensors"
        with replacing(self.folder / name) as temporary:
            temporary.write_bytes(content)
        says = {"shard": name, "steps": [self._shard_first, self._shard_last], "sha256": hashlib.sha256(content).hexdigest()}
        self._append({**says, "bytes": len(content)})
        self._shard = {}

    def _append(self, says: dict[str, Any]) -> None:
        line, self._check = lines.encoded(says, self._check)
        self._file.write(line)
        self._file.flush()

    def _header(self) -> dict[str, Any]:
        return {"trace": VERSION, **self._facts, **self.extra, "rank": self._rank, "tensors": self._tensors, "every": self._every}

    # The file

    def _opened(self, resume: bool | int):
        path = self.folder / STEPS
        if resume is False:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                return path.open("xb")
            except FileExistsError:
                raise ValueError(f"trace: {self.folder} holds a trace already; resume=True goes on with it.") from None
        if not path.exists():
            raise ValueError(f"trace: {self.folder} holds no trace to resume.")
        upto = math.inf if resume is True else resume
        end = 0
        for line in lines.read(path):
            says = line.says
            if "trace" in says and (says["trace"], says["tensors"], says["every"]) != (VERSION, self._tensors, self._every):
                raise ValueError(f"trace: {self.folder} was begun with tensors={says['tensors']!r}, every={says['every']}; give the same.")
            if "step" in says:
                if says["step"] > upto:
                    break
                self.last = says["step"]
            if "table" in says and "leaves" in says:
                self._tables[tuple(leaf(each) for each in says["leaves"])] = says["table"]
            end, self._check, self._begun, self._begun_writing = line.end, line.check, True, True
        if resume is not True and self.last != resume:
            raise ValueError(f"trace: {self.folder} ends at step {self.last}; it cannot be resumed after step {resume}.")
        file = path.open("r+b")
        file.truncate(end)
        file.seek(end)
        return file


def leaf(says: Sequence[Any]) -> Leaf:
    """Of what a table says."""
    stage, field, path, dtype, shape = says
    return Leaf(stage, field, path, dtype, tuple(shape))


def key(step: int, leaf: Leaf) -> str:
    """What a tensor is called in its shard."""
    return f"{step}/{leaf.stage}/{leaf.field}/{leaf.path}"


def _as_json(given: dict[str, dict[str, float]], found: Sequence[Summary]) -> dict[str, Any]:
    """Projections are binary: as decimals, they would take more time than all the rest."""
    says: dict[str, Any] = {stage: {path: number(x) for path, x in of.items()} for stage, of in given.items()}
    says |= {name: [getattr(each, name) for each in found] for name in ("hash", "low", "high")}
    says["norm"] = [number(each.norm) for each in found]
    says["nonfinite"] = {str(i): each.nonfinite for i, each in enumerate(found) if each.nonfinite}
    says["projections"] = base64.b64encode(np.array([each.projections for each in found], "<f8").tobytes()).decode()
    return says


def number(x: float) -> float | str:
    """As JSON has it, which knows neither NaN nor infinity."""
    return x if math.isfinite(x) else repr(x)


def _as_in_torch(matching: Matching, paths: Sequence[str], arrays: Sequence[Any]) -> tuple[Sequence[str], list[Any]]:
    """Names and arrays of torch, of a tree that is like the parameters, or holds such trees as fields."""
    names = [str(parameter.name) for parameter in matching.parameters]
    fields: dict[str, list] = {}
    there: dict[str, Any] = {}
    for path, array in zip(paths, arrays, strict=True):
        leaf = path if path in matching.pairs else split((path,), tuple(matching.pairs))[0][1]
        if leaf and array.ndim == len(matching.pairs[leaf].shape):
            pair = matching.pairs[leaf]
            fields.setdefault(path.removesuffix(leaf), []).append((pair.source, pair.layout, array))
        else:
            there[path] = array
    for before, leaves in fields.items():
        there |= {f"{before}{names[place]}": array for place, array in scattered(leaves).items()}
    return list(there), list(there.values())


def _facts(leaf: Any) -> dict[str, Any]:
    """What computes, for a reader of the trace."""
    torch, jax = is_of_torch(leaf), type(leaf).__module__.startswith("jax")
    framework = "torch" if torch else "jax" if jax else "numpy"
    if torch:
        device = (
            str(leaf.device)
            if leaf.device.type == "cpu"
            else sys.modules["torch"].cuda.get_device_name(leaf.device)
            if leaf.is_cuda
            else str(leaf.device)
        )
    else:
        device = next(iter(leaf.devices())).device_kind if jax else "cpu"
    found = {}
    for package in ("optparity", "jax", "optax", "flax", "torch", "numpy"):
        if package in sys.modules:
            try:
                found[package] = version(package)
            except PackageNotFoundError:  # a copy that is not installed
                continue
    return {"framework": framework, "device": device, "machine": platform.machine(), "python": platform.python_version(), "versions": found}
