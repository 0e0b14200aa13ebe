"""Traces as they were written: whole, or refused with the place of the damage."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from . import lines
from .places import NUMBERS, Leaf
from .recorder import STEPS, VERSION, key, leaf
from .summaries import CHUNKS, Summary


class Shard(NamedTuple):
    """A file of tensors, and what its line says of it."""

    path: Path
    first: int
    last: int
    sha256: str
    line: int


@dataclass(frozen=True)
class Step:
    """What a line says of a step."""

    number: int
    numbers: Mapping[str, Mapping[str, float]]
    leaves: Mapping[Leaf, Summary]


class Run(Protocol):
    """What can be compared: a trace, or what an optimizer makes of one."""

    header: dict[str, Any]
    leaves: dict[Leaf, None]
    numbers: dict[str, None]

    def steps(self) -> Iterator[Step]:
        """Each step, in its order."""
        ...

    def tensor(self, step: int, leaf: Leaf) -> np.ndarray | None:
        """An array of that step, where its elements are there."""
        ...


@dataclass
class Trace:
    """The trace of one rank. Steps are read anew each time, as they come; no more than one is in memory.

    Attributes:
        header: framework, device, versions, what was recorded.
        first, last: step numbers.
        shards: the files of tensors that are whole.
        leaves: every leaf that a step has, in the order in which they come.
        numbers: every stage that is numbers.
        torn: whether a last line without its end was left out.
    """

    folder: Path
    header: dict[str, Any] = field(default_factory=dict)
    first: int = 0
    last: int = -1
    shards: list[Shard] = field(default_factory=list)
    leaves: dict[Leaf, None] = field(default_factory=dict)
    numbers: dict[str, None] = field(default_factory=dict)
    torn: bool = False

    def __post_init__(self):
        for line in self._lines():
            says = line.says
            if "trace" in says:
                if says["trace"] != VERSION:
                    raise ValueError(f"{self.steps_file} is of version {says['trace']} of the format; this optparity reads {VERSION}.")
                self.header = says
            elif "leaves" in says:
                self.leaves |= dict.fromkeys(leaf(each) for each in says["leaves"])
            elif "step" in says:
                self.numbers |= dict.fromkeys(stage for stage in NUMBERS if stage in says)
                self.first = says["step"] if self.last < 0 else self.first
                self.last = says["step"]
            elif "shard" in says:
                path = self.folder / str(says["shard"])
                if path.parent != self.folder or not path.exists():
                    raise ValueError(f"{self.steps_file}, line {line.number}: the shard {says['shard']} is not there.")
                self.shards.append(Shard(path, says["steps"][0], says["steps"][1], says["sha256"], line.number))
        if not self.header or self.last < 0:
            raise ValueError(f"{self.folder} is a trace without a step.")
        self.torn = lines.torn(self.steps_file)
        self._verified: set[Path] = set()
        self._open_path: Path | None = None

    def __str__(self) -> str:
        return str(self.folder.parent) if self.folder.name == "rank-0" else str(self.folder)

    @property
    def steps_file(self) -> Path:
        return self.folder / STEPS

    def _lines(self) -> Iterator[lines.Line]:
        return lines.read(self.steps_file)

    def steps(self) -> Iterator[Step]:
        """Each step, in its order."""
        tables: dict[int, list[Leaf]] = {}
        for line in self._lines():
            says = line.says
            if "leaves" in says:
                tables[says["table"]] = [leaf(each) for each in says["leaves"]]
            elif "step" in says:
                numbers = {stage: {path: float(x) for path, x in says[stage].items()} for stage in NUMBERS if stage in says}
                yield Step(says["step"], numbers, dict(zip(tables[says["table"]], _summaries(says), strict=True)))

    def tensor(self, step: int, leaf: Leaf) -> np.ndarray | None:
        """An array that was kept, or None.

        Raises: ValueError for a shard whose hash is another.
        """
        shard = next((shard for shard in self.shards if shard.first <= step <= shard.last), None)
        if shard is None:
            return None
        if shard.path != self._open_path:
            self._check_hash(shard)
            from safetensors import safe_open

            self._open = safe_open(shard.path, framework="numpy")
            self._open_path, self._kept = shard.path, set(self._open.keys())
        name = key(step, leaf)
        return self._open.get_tensor(name) if name in self._kept else None

    def _check_hash(self, shard: Shard) -> None:
        if shard.path in self._verified:
            return
        with shard.path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != shard.sha256:
            where = f"{self.steps_file}, line {shard.line}"
            raise ValueError(f"{shard.path}: damaged: its SHA-256 begins with {found[:8]}, {where} says {shard.sha256[:8]}.")
        self._verified.add(shard.path)


def traces(folder: Path) -> dict[int, Trace]:
    """The traces of a folder, by rank.

    Raises: ValueError for a folder without one, and for a damaged one, with file and line.
    """
    found = {}
    for path in sorted(folder.glob(f"rank-*/{STEPS}")):
        number = path.parent.name.removeprefix("rank-")
        if number.isdecimal():
            found[int(number)] = Trace(path.parent)
    if not found:
        raise ValueError(f"{folder} is no trace: it has no rank-0/{STEPS}.")
    return dict(sorted(found.items()))


def _summaries(says: Mapping[str, Any]) -> Iterator[Summary]:
    projections = np.frombuffer(base64.b64decode(says["projections"]), "<f8").reshape(-1, CHUNKS)
    for i, each in enumerate(zip(says["hash"], says["norm"], says["low"], says["high"], projections.tolist(), strict=True)):
        hash_, norm, low, high, projected = each
        yield Summary(hash_, float(norm), low, high, says["nonfinite"].get(str(i), 0), tuple(projected))
