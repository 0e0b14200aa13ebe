"""The rounds of the benchmark: in each every implementation, in an order that rotates, in two processes that take turns."""

import math
import statistics
import time
from collections.abc import Callable
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
    spawn, done, sides = get_context("spawn"), [], {}
    for side in ("jax", "torch"):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=serve, args=(theirs, side, threads, compiled), daemon=True)
        process.start()
        theirs.close()  # so that the end of the process is the end of the connection
        sides[side] = ours

    def ask(side: str, *request):
        try:
            sides[side].send(request)
            return sides[side].recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            fail(f"the process of {side} ended while it was asked to {request[0]}; above is what it said.")

    columns = (BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=sum(_rounds(name, rounds) for _, name in cases))
        for row, name in cases:
            progress.update(bar, description=f"{row}, {name}: compiling")
            found = {key: (side, facts) for side in sides for key, facts in ask(side, "prepare", row, WORKLOADS[name], dtype).items()}
            progress.update(bar, description=f"{row}, {name}")
            once = {key: ask(side, "time", key, 1) for key, (side, _) in found.items()}
            once = {key: ask(side, "time", key, 1) if once[key] < SLOW else once[key] for key, (side, _) in found.items()}  # now warm
            repeat = {key: lasting(partial(ask, side, "time", key)) if once[key] < LEAST else 1 for key, (side, _) in found.items()}
            seconds: dict[str, list[float]] = {key: [] for key in found}
            for i in range(_rounds(name, rounds)):
                for side in list(sides)[:: 1 if i % 2 else -1]:
                    keys = [key for key in found if found[key][0] == side]
                    keys = keys[i % len(keys) :] + keys[: i % len(keys)]
                    takes: dict[str, list[float]] = {key: [] for key in keys}
                    time.sleep(PAUSE)  # the other side's threads still spin for a while, and its arrays are in the cache
                    ask(side, "time", min(keys, key=once.__getitem__), 1)
                    for take in range(TAKES):
                        for key in keys[:: 1 if i // len(keys) % 2 else -1]:
                            if take == 0 or once[key] < SLOW:
                                takes[key].append(ask(side, "time", key, repeat[key]))
                    for key in keys:
                        seconds[key].append(min(takes[key]))
                progress.advance(bar)
            ends = {key: end for side in sides for key, end in ask(side, "ends", row, dtype).items()}
            done.append(_case(row, name, dtype, {key: facts for key, (_, facts) in found.items()}, seconds, ends))
            for side in sides:
                ask(side, "drop")
    for connection in sides.values():
        connection.send(None)
    return done


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
