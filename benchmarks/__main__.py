"""What an optimizer step costs: `python -m benchmarks`, or `make bench`.

Every implementation of a row is timed in one run, in rounds: each round takes every implementation once, in an order that rotates from
round to round, and a ratio is the median of the ratios within a round. Compilation is timed apart. GB/s are those of the least bytes that
a step must move (read the gradient, read and write the parameter and its state), whatever an implementation moves in truth.
"""

import json
import math
import os
import platform
import statistics
import subprocess
import time
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, NoReturn

import jax
import matplotlib
import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxopt_impl.accounting import state
from parity_tests.doctor import machine
from parity_tests.files import replacing
from parity_tests.harness.bits import ulp_distance
from parity_tests.harness.table import OPTIMIZERS, ROWS, Row

from .sides import COPY, serve

matplotlib.use("Agg")
import matplotlib.pyplot as plt

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
DEFAULT = [Row(name, "default") for name in OPTIMIZERS] + [Row("sgd", "all")]
LEAST = 0.01  # seconds that a timed sample takes, by repeating the step
PAUSE = 0.02  # seconds between the two processes
OURS = "jaxopt_impl"


def main(
    row: Annotated[list[str] | None, typer.Option(help="'OPTIMIZER: LABEL' as in the table; may be repeated.")] = None,
    workload: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(WORKLOADS)}; may be repeated. Default: 32M, 1M; many leaves for Adam.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    rounds: Annotated[int, typer.Option(min=3, help="Rounds at 32M and 1M; a third elsewhere.")] = 24,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch; XLA takes all cores.")] = os.cpu_count() or 1,
    quick: Annotated[bool, typer.Option("--quick", help="1M only, 9 rounds, without torch.compile.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for bench.json and bench.png.")] = Path("out"),
    compare: Annotated[Path | None, typer.Option(metavar="OLD.json", help="Print ratios to an older run; exit 1 past --threshold.")] = None,
    threshold: Annotated[float, typer.Option(min=1.0, help="How many times its old ratio to optax a ratio may be.")] = 1.1,
) -> None:
    """Measure, print the table, draw the picture, and compare."""
    known = {str(row): row for row in ROWS if dtype in row.dtypes}
    _one_of("--dtype", [dtype], ["float32", "float64"])
    chosen = [known[name] for name in _one_of("--row", row, known)] if row else DEFAULT
    names = _one_of("--workload", workload, WORKLOADS) if workload else None
    old = _read(compare) if compare else None
    if quick:
        names, rounds = ["1M"], 9
    cases = [(row, name) for row in chosen for name in (names or ["32M", "1M"])]
    if names is None:
        cases += [(Row("adam", "default"), name) for name in ("400x4096", "2000x256") if Row("adam", "default") in chosen]
    result = {**_about(dtype, threads), "cases": measure(cases, dtype, rounds, threads, compiled=not quick)}
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "bench.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1))
    draw(result, out / "bench.png")
    console = Console(width=150)
    for case in result["cases"]:
        console.print(table(case))
    if old is not None and worse(old, result, threshold, console):
        raise typer.Exit(1)


def measure(cases: list[tuple[Row, str]], dtype: str, rounds: int, threads: int, *, compiled: bool) -> list[dict[str, Any]]:
    """Every case, in two processes that take turns."""
    spawn, done, sides = get_context("spawn"), [], {}
    for side in ("jax", "torch"):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=serve, args=(theirs, side, threads, compiled), daemon=True)
        process.start()
        sides[side] = ours

    def ask(side: str, *request):
        sides[side].send(request)
        return sides[side].recv()

    columns = (BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(cases))
        for row, name in cases:
            progress.update(bar, description=f"{row}, {name}")
            shapes = WORKLOADS[name]
            found = {key: (side, facts) for side in sides for key, facts in ask(side, "prepare", row, shapes, dtype).items()}
            repeat = {}
            for key, (side, _) in found.items():  # also warms each up
                ask(side, "time", key, 1)
                repeat[key] = max(1, math.ceil(LEAST / ask(side, "time", key, 1)))
            seconds: dict[str, list[float]] = {key: [] for key in found}
            keys = list(found)
            for i in range(rounds if len(shapes) == 1 else max(5, rounds // 3)):
                shift = i % len(keys)
                order = keys[shift:] + keys[:shift]
                last = None
                for key in order[:: 1 if i % 2 else -1]:
                    side = found[key][0]
                    if side != last:  # the other side's threads still spin for a while, and its arrays are in the cache
                        time.sleep(PAUSE)
                        ask(side, "time", key, 1)
                    seconds[key].append(ask(side, "time", key, repeat[key]))
                    last = side
            ends = {key: end for side in sides for key, end in ask(side, "ends", row, dtype).items()}
            done.append(_case(row, name, dtype, {key: facts for key, (_, facts) in found.items()}, seconds, ends))
            for side in sides:
                ask(side, "drop")
            progress.advance(bar)
    for connection in sides.values():
        connection.send(None)
    return done


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


def table(case: dict[str, Any]) -> Table:
    """A line for each implementation."""
    title = f"{case['row']}, {case['workload']}: least {case['least_bytes']} B/element, copy {case['copy_bytes_per_s'] / 1e9:.1f} GB/s"
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for header in (
        "implementation",
        "ms a step",
        "spread",
        "ours / this",
        "quartiles",
        "GB/s",
        "of copy",
        "B moved",
        "temp B",
        "kernels",
        "compile s",
        "bits",
    ):
        shown.add_column(header, justify="left" if header == "implementation" else "right")
    for key, one in case["implementations"].items():
        low, middle, high = quartiles(one["seconds"])
        ratio = quartiles(one["ours_over_this"])
        bits = "" if "ulp" not in one else "same" if not one["ulp"] else f"{100 * one['differing']:.0f} %, {one['ulp']:.0e} ulp"
        facts = [f"{one[fact]:.4g}" if fact in one else "" for fact in ("traffic_bytes", "temporary_bytes", "kernels", "compile_s")]
        shown.add_row(
            key,
            f"{1e3 * middle:.3f}",
            f"{1e3 * low:.3f} to {1e3 * high:.3f}",
            f"{ratio[1]:.3f}",
            f"{ratio[0]:.2f} to {ratio[2]:.2f}",
            f"{one['bytes_per_s'] / 1e9:.1f}",
            f"{one['share_of_copy']:.0%}",
            *facts,
            bits,
        )
    return shown


def draw(result: dict[str, Any], path: Path) -> None:
    """A panel for each case, a bar for each implementation: GB/s of the least traffic, and the copy bandwidth as a line."""
    cases = result["cases"]
    columns = min(4, len(cases))
    rows = -(-len(cases) // columns)
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=(4.2 * columns, 0.6 + 2.6 * rows), layout="constrained")
    for spare in axes.flat[len(cases) :]:
        spare.set_visible(False)
    for axis, case in zip(axes.flat, cases, strict=False):
        names = list(case["implementations"])
        speeds = [case["implementations"][name]["bytes_per_s"] / 1e9 for name in names]
        colors = ["tab:green" if name == OURS else "tab:orange" if name.startswith("torch") else "tab:blue" for name in names]
        axis.barh(names, speeds, color=colors)
        axis.axvline(case["copy_bytes_per_s"] / 1e9, color="black", linewidth=1, label="copy")
        axis.invert_yaxis()
        axis.set_title(f"{case['row']}, {case['workload']}", loc="left", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=7)
        axis.set_xlabel("GB/s of the least traffic", fontsize=8)
    figure.suptitle(f"{result['device']}, {result['threads']} threads, {result['dtype']}; longer is faster")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)


def worse(old: dict[str, Any], new: dict[str, Any], threshold: float, console: Console) -> bool:
    """Print how our ratio to each peer has changed; whether one has grown past the threshold."""
    before = {(case["row"], case["workload"]): case["implementations"] for case in old["cases"]}
    found = False
    if not before.keys() & {(case["row"], case["workload"]) for case in new["cases"]}:
        _fail("the older run has no row and workload of this one; there is nothing to compare.")
    for case in new["cases"]:
        for key, one in case["implementations"].items():
            then = before.get((case["row"], case["workload"]), {}).get(key)
            if then is None or key == OURS:
                continue
            was, now = (quartiles(run["ours_over_this"])[1] for run in (then, one))
            past = now / was > threshold
            found |= past
            console.print(
                f"{case['row']}, {case['workload']}, ours / {key}: {was:.3f} -> {now:.3f}{'  WORSE' if past else ''}", highlight=False
            )
    return found


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _about(dtype: str, threads: int) -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")] or [platform.processor()]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    about = {"device": f"{os.cpu_count()} x {models[0]}", "threads": threads, "dtype": dtype, "commit": commit, "load": os.getloadavg()[0]}
    return {**about, "when": datetime.now(UTC).isoformat(timespec="seconds"), "versions": dict(machine())}


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
        return {"cases": document["cases"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        _fail(f"{path} cannot be read as a run of this benchmark: {' '.join(str(error).split())}")


def _one_of(flag: str, given: list[str], known) -> list[str]:
    for name in given:
        if name not in known:
            _fail(f"{flag} {name!r}: one of {'; '.join(known)} is needed.")
    return given


def _fail(message: str) -> NoReturn:
    typer.echo(f"benchmarks: {message}", err=True)
    raise typer.Exit(2)


if __name__ == "__main__":
    typer.run(main)
