"""What an optimizer step costs: `python -m benchmarks`, or `make bench`.

Every implementation of a row is timed in one run, in rounds: each round takes every implementation in turn three times (one slower than
0.5 s once), in an order that rotates from round to round, and its least time counts. A ratio is the median of the ratios within a round.
Compilation is timed apart. GB/s are those of the least bytes that a step must move (read the gradient, read and write the parameter and
its state), whatever an implementation moves in truth.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from optparity.registry import DTYPES, OPTIMIZERS, ROWS, Row

from .measure import WORKLOADS, measure
from .report import compared, draw, table
from .runs import about, fail, folder, read, write

DEFAULT = [Row(name, label) for name, entry in OPTIMIZERS.items() for label in entry.benchmark_rows]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
ADAM = Row("adam", "default")  # the one that is measured over many leaves as well; more of them take minutes to compile


def main(
    row: Annotated[list[str] | None, typer.Option(help="'OPTIMIZER: LABEL' as in the table; may be repeated.")] = None,
    workload: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(WORKLOADS)}; may be repeated. Default: 32M, 1M; 400x4096 for Adam.")
    ] = None,
    dtype: Annotated[str, typer.Option(help=f"{', '.join(DTYPES)}.")] = "float32",
    rounds: Annotated[int, typer.Option(min=3, help="Rounds at 32M and 1M; a third elsewhere.")] = 15,
    threads: Annotated[int, typer.Option(min=1, max=CORES, help="Threads, and cores, of each side.")] = CORES,
    quick: Annotated[
        bool, typer.Option("--quick", help="1M, unless --workload says otherwise; at most 9 rounds; no torch.compile.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for bench.json and bench.png.")] = Path("out"),
    compare: Annotated[Path | None, typer.Option(metavar="OLD.json", help="Compare with an older run; exit 1 past --threshold.")] = None,
    threshold: Annotated[float, typer.Option(min=1.0, help="How many times what it was a ratio of ours to a peer may be.")] = 1.1,
) -> None:
    """Measure, print the table, draw the picture, and compare."""
    _one_of("--dtype", [dtype], DTYPES)
    known = {str(row): row for row in ROWS if dtype in row.dtypes}
    chosen = [known[name] for name in _one_of("--row", row, known)] if row else DEFAULT
    names = _one_of("--workload", workload, WORKLOADS) if workload else None
    old = older(compare) if compare else None
    if quick:
        names, rounds = names or ["1M"], min(rounds, 9)
    cases = [(row, name) for row in chosen for name in (names or ["32M", "1M"])]
    if names is None and ADAM in chosen:
        cases.append((ADAM, "400x4096"))
    if old is not None and not {(case["row"], case["workload"]) for case in old["cases"]} & {(str(row), name) for row, name in cases}:
        fail(f"{compare} has no row and workload of this run; there is nothing to compare.")
    folder(out)
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the processes that measure need a GPU's memory
    result = {**about(dtype, threads), "cases": measure(cases, dtype, rounds, threads, compiled=not quick)}
    write(out / "bench.json", result)
    draw(result, out / "bench.png")
    console = Console(width=150)
    for case in result["cases"]:
        console.print(table(case))
    if old is not None:
        for what in ("device", "threads", "dtype"):
            if old[what] != result[what]:
                console.print(f"the older run has another {what}: {old[what]}, not {result[what]}", highlight=False)
        shown, worse = compared(old, result, threshold)
        console.print(shown)
        if worse:
            raise typer.Exit(1)


def older(path: Path) -> dict[str, Any]:
    """A run to compare with, which one can."""
    old = read(path, ("device", "threads", "dtype", "cases"))
    try:
        compared(old, old, 1.0)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fail(f"{path} cannot be read as a run of this benchmark: {error!r}")
    return old


def _one_of(flag: str, given: list[str], known) -> list[str]:
    for name in given:
        if name not in known:
            fail(f"{flag} {name!r}: one of {'; '.join(known)} is needed.")
    return given


if __name__ == "__main__":
    typer.run(main)
