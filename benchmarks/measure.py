"""The rounds of the benchmark: in each every implementation, in an order that rotates, in two processes that take turns."""

import math
import statistics
import time
from collections.abc import Callable, Container
from functools import partial
from multiprocessing import get_context
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from optparity.accounting import state
from optparity.parity.bits import ulp_distance
from optparity.registry import Row

from .runs import fail
from .sides import COPY, serve

WORKLOADS: dict[str, list[tuple[int, ...]]] = {
    "32M": [(32_000_000,)],
    "1M": [(2**20,)],
    "400x4096": [(4096,)] * 400,
    "2000x256": [(256,)] * 2000,
    "1000x256": [(256,)] * 1000,
    "gpt2": [
        (50257, 768),
        (1024, 768),
        *[(768,), (768,), (768, 2304), (2304,), (768, 768), (768,), (768,), (768,), (768, 3072), (3072,), (3072, 768), (768,)] * 12,
        (768,),
        (768,),
    ],
}
LEAST = 0.01  # seconds that a take lasts, by repeating the step
TAKES = 3  # in each round, in turn with the others of the side; the least of them counts
SLOW = 0.5  # seconds of a step that is taken only once in a round
PAUSE = 0.02  # seconds between the two processes
OURS = "jaxopt_impl"


def measure(cases: list[tuple[Row, str]], dtype: str, rounds: int, threads: int, *, compiled: bool) -> list[dict[str, Any]]:
    """What each case (row, workload) took; a case of many leaves in a third of the rounds."""
    sides, done = Sides(threads, compiled), []
    columns = (BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=sum(_rounds(name, rounds) for _, name in cases))
        for row, name in cases:
            progress.update(bar, description=f"{row}, {name}: compiling")
            takes = Takes(sides, row, WORKLOADS[name], dtype)
            progress.update(bar, description=f"{row}, {name}")
            for _ in range(_rounds(name, rounds)):
                takes.round()
                progress.advance(bar)
            done.append(_case(row, name, dtype, takes.facts, takes.seconds, sides.ask_all("ends", row, dtype)))
            sides.drop()
    sides.end()
    return done


class Sides:
    """The two processes, one for each framework."""

    def __init__(self, threads: int, compiled: bool):
        spawn, self._connections = get_context("spawn"), {}
        for side in ("jax", "torch"):
            ours, theirs = spawn.Pipe()
            spawn.Process(target=serve, args=(theirs, side, threads, compiled), daemon=True).start()
            theirs.close()  # so that the end of the process is the end of the connection
            self._connections[side] = ours

    def __iter__(self):
        return iter(self._connections)

    def ask(self, side: str, *request: Any) -> Any:
        """The answer of one side."""
        try:
            self._connections[side].send(request)
            return self._connections[side].recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            fail(f"the process of {side} ended while it was asked to {request[0]}; above is what it said.")

    def ask_all(self, *request: Any) -> dict[str, Any]:
        """The answers of both in one, by implementation."""
        return {key: answer for side in self for key, answer in self.ask(side, *request).items()}

    def drop(self) -> None:
        """Let both go of their arrays."""
        for side in self:
            self.ask(side, "drop")

    def end(self) -> None:
        """Let both processes end."""
        for connection in self._connections.values():
            connection.send(None)


class Takes:
    """One case, compiled on both sides: each round takes every implementation, in an order that rotates.

    Attributes:
        facts: what each implementation says of itself.
        seconds: for each, the least time of a step in each round.
    """

    def __init__(self, sides: Sides, row: Row, shapes: list[tuple[int, ...]], dtype: str, only: Container[str] | None = None):
        self._sides, self._rounds = sides, 0
        found = {side: sides.ask(side, "prepare", row, shapes, dtype, only) for side in sides}
        self._keys = {side: list(facts) for side, facts in found.items()}
        self._side_of = {key: side for side, keys in self._keys.items() for key in keys}
        self.facts = {key: facts for side in found.values() for key, facts in side.items()}
        self.seconds: dict[str, list[float]] = {key: [] for key in self.facts}
        cold = {key: self._time(key, 1) for key in self.facts}
        self._once = {key: self._time(key, 1) if cold[key] < SLOW else cold[key] for key in self.facts}
        self._repeat = {key: lasting(partial(self._time, key)) if self._once[key] < LEAST else 1 for key in self.facts}

    def _time(self, key: str, steps: int) -> float:
        return self._sides.ask(self._side_of[key], "time", key, steps)

    def round(self) -> None:
        """Time every implementation, one side after the other."""
        i, self._rounds = self._rounds, self._rounds + 1
        for side in list(self._keys)[:: 1 if i % 2 else -1]:
            keys = self._keys[side]
            keys = keys[i % len(keys) :] + keys[: i % len(keys)]
            time.sleep(PAUSE)  # the other side's threads still spin for a while, and its arrays are in the cache
            self._time(min(keys, key=self._once.__getitem__), 1)
            for key, seconds in self._in_turn(keys, forwards=i // len(keys) % 2 == 1).items():
                self.seconds[key].append(seconds)

    def _in_turn(self, keys: list[str], *, forwards: bool) -> dict[str, float]:
        """The least of `TAKES` takes of each, in turn; of a slow one the only take."""
        takes: dict[str, list[float]] = {key: [] for key in keys}
        for take in range(TAKES):
            for key in keys[:: 1 if forwards else -1]:
                if take == 0 or self._once[key] < SLOW:
                    takes[key].append(self._time(key, self._repeat[key]))
        return {key: min(seconds) for key, seconds in takes.items()}


def lasting(take: Callable[[int], float]) -> int:
    """How many steps last `LEAST`, `take(steps)` being the seconds of each. Tried, not divided: one step alone is mostly its start."""
    steps = 1
    while steps * (seconds := min(take(steps) for _ in range(TAKES))) < LEAST:
        steps = max(2 * steps, math.ceil(LEAST / seconds))
    return steps


def _rounds(workload: str, rounds: int) -> int:
    return rounds if len(WORKLOADS[workload]) == 1 else max(5, rounds // 3)


def _case(row: Row, name: str, dtype: str, found: dict, seconds: dict, ends: dict) -> dict[str, Any]:
    shapes = WORKLOADS[name]
    elements, size = sum(math.prod(shape) for shape in shapes), np.dtype(dtype).itemsize
    leaf = jax.ShapeDtypeStruct((1024,), dtype)
    least = 3 * size + 2 * sum(state(row.tx, leaf).arrays.values()) // leaf.size
    copy = 2 * size * elements / statistics.median(seconds.pop(COPY))
    implementations = {}
    for key, values in seconds.items():
        ratios = [ours / theirs for ours, theirs in zip(seconds[OURS], values, strict=True)]
        speed = least * elements / statistics.median(values)
        implementations[key] = {
            **found[key],
            "seconds": values,
            "ours_over_this": ratios,
            "bytes_per_s": speed,
            "share_of_copy": speed / copy,
        }
        if key in ends:
            ulp = ulp_distance(ends["torch_ref"], ends[key])
            implementations[key] |= {"differing": float((ulp > 0).mean()), "ulp": int(ulp.max())}
    case = {"row": str(row), "workload": name, "elements": elements, "leaves": len(shapes), "least_bytes": least, "copy_bytes_per_s": copy}
    return {**case, "implementations": implementations}
