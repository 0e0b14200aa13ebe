"""What the compiled pass costs beside its peers: `python -m benchmarks.one_pass`.

The implementations and the rounds are those of `python -m benchmarks`; here each form of ours is divided by each peer, within a round.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from one_pass import library
from optparity.registry import DTYPES, Row

from .__main__ import CORES
from .measure import WORKLOADS, Sides, Takes
from .report import spread
from .runs import about, fail, folder, write

ROWS = {
    "sgd: momentum": "torch fused",
    "adagrad: default": "torch fused",
    "rmsprop: default": "torch foreach",
    "adam: default": "torch fused",
    "adamw: default": "torch fused",
}
OURS = ("update_and_apply", "jaxopt_impl", "torch_ref", "by rule")


def main(
    workload: Annotated[str, typer.Option(help=f"{', '.join(WORKLOADS)}.")] = "32M",
    row: Annotated[list[str] | None, typer.Option(help=f"{'; '.join(ROWS)}; may be repeated.")] = None,
    dtype: Annotated[str, typer.Option(help=f"{', '.join(DTYPES)}.")] = "float32",
    rounds: Annotated[int, typer.Option(min=3)] = 15,
    threads: Annotated[int, typer.Option(min=1, max=CORES, help="Threads, and cores, of each side.")] = CORES,
    out: Annotated[Path, typer.Option(help="The file for the run, as JSON.")] = Path("out/one_pass.json"),
) -> None:
    """Time the pass against optax and torch."""
    for flag, given, known in (("--workload", [workload], WORKLOADS), ("--row", row or [], ROWS), ("--dtype", [dtype], DTYPES)):
        if wrong := [name for name in given if name not in known]:
            fail(f"{flag} {wrong[0]!r}: one of {'; '.join(known)} is needed.")
    if not library.is_available():
        fail(f"the compiled pass is {library.described()}")
    folder(out.parent)
    sides, cases = Sides(threads, False), []
    ours = OURS if len(WORKLOADS[workload]) == 1 else OURS[:-1]  # to compile the rule for thousands of leaves takes minutes
    title = f"{workload} {dtype}, {threads} threads, {rounds} rounds: ms, and ratios within a round; median (quartiles)"
    shown = Table("rule", "what", "ms", "/ torch's", "/ optax", "compiled in s", title=title, title_justify="left", box=None)
    for name in row or list(ROWS):
        peers = (ROWS[name], "optax")
        takes = Takes(sides, Row(*name.split(": ")), WORKLOADS[workload], dtype, only=(*ours, *peers))
        for _ in track(range(rounds), name, console=Console(stderr=True), transient=True):
            takes.round()
        sides.drop()
        cases.append({"row": name, "workload": workload, "facts": takes.facts, "seconds": takes.seconds})
        for what in (*ours, *peers):
            taken = takes.seconds[what]
            ratios = [spread([a / b for a, b in zip(taken, takes.seconds[peer], strict=True)]) if peer != what else "" for peer in peers]
            shown.add_row(name, what, spread(taken, 1e3), *ratios, f"{takes.facts[what].get('compile_s', 0):.2f}")
    sides.end()
    write(out, {**about(dtype, threads), "rounds": rounds, "cases": cases})
    Console(width=140).print(shown)


if __name__ == "__main__":
    typer.run(main)
