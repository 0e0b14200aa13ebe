"""`optparity check`, the main job."""

import json
import os
from collections.abc import Sequence
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from .. import check as checking
from .. import doctor
from ..around import PIECES
from ..parity.reports import Report
from ..registry import DTYPES, OPTIMIZERS
from . import _check_anything as anything
from ._console import console, drawable, need, progress, say, table, writable, write
from ._errors import BadInputError
from ._options import Dtype, chosen

SHOWN = 5  # of the trials that differ
Name = StrEnum("Name", [*OPTIMIZERS, *PIECES])
Stream = StrEnum("Stream", checking.STREAM_NAMES)

Names = Annotated[
    list[Name] | None,
    typer.Argument(metavar="NAME", show_choices=False, help=f"{', '.join(OPTIMIZERS)}; with --around {', '.join(PIECES)}. All by default."),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps (default: 100; on the digits 1000, for halves 100).")]
Streams = Annotated[
    list[Stream] | None,
    typer.Option("--stream", metavar="NAME", help=f"{', '.join(checking.STREAM_NAMES)}. May be repeated; all by default."),
]
Dtypes = Annotated[
    list[Dtype] | None, typer.Option("--dtype", metavar="NAME", help=f"{', '.join(DTYPES)}. May be repeated; all by default.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of parameters, streams and batches.")]
Around = Annotated[bool, typer.Option("--around", help="What stands around the step, instead: clipping, schedules, averages, ...")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes.", show_default="one for each CPU")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every step of every trial as JSON.")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", callback=drawable, help="Draw the distances over the steps.")]


def check(
    names: Names = None,
    steps: Steps = None,
    stream: Streams = None,
    dtype: Dtypes = None,
    seed: Seed = 0,
    around: Around = False,
    jobs: Jobs = os.cpu_count() or 1,
    json_file: Json = None,
    plot: Plot = None,
    jax: anything.Jax = None,
    torch: anything.Torch = None,
    settings: anything.Set = None,
    second_settings: anything.SetSecond = None,
    params: anything.Params = None,
    gradients: anything.Gradients = None,
    state_map: anything.StateMap = None,
    ulp: anything.Ulp = 0,
    rtol: anything.Rtol = None,
    atol: anything.Atol = None,
    float64: anything.Float64 = False,
    html: anything.Html = None,
) -> None:
    """Compare both packages bit for bit, on the same gradients.

    Each optimizer walks each stream of gradients in jitted jaxopt_impl and in torch_ref. Parameters and state are compared at every step.
    With --around, so does each thing that stands between a gradient and an update. Exit 0 only if nothing differs.

    With --jax and --torch, or one of them twice, compare any two optimizers instead: of optax, of torch.optim, or your own.
    """
    asked = anything.Asked(
        jax=jax or [],
        torch=torch or [],
        settings=settings or [],
        second_settings=second_settings or [],
        params=params,
        gradients=gradients,
        state_map=state_map or [],
        ulp=ulp,
        rtol=rtol,
        atol=atol,
        float64=float64,
        html=html,
    )
    if asked.pair:
        for flag, given in (("NAME", names), ("--around", around), ("--plot", plot)):
            if given:
                raise BadInputError(f"{flag} is about our own pairs; with --jax and --torch it has no meaning.")
        raise typer.Exit(anything.check(asked, chosen(stream, ()), chosen(dtype, ()), steps, seed, json_file))
    asked.refuse_alone()
    streams = chosen(stream, checking.STREAM_NAMES)
    need("torch", *(["sklearn"] if checking.REAL in streams else []))
    there = PIECES if around else OPTIMIZERS
    for name in names or ():
        if name not in there:
            raise BadInputError(
                f"{name} stands around the step: say --around." if name in PIECES else f"--around {name}: {name} is an optimizer."
            )
    trials = checking.trials(chosen(names, there), streams, chosen(dtype, DTYPES), steps, seed, around=around)
    if not trials:
        raise BadInputError(f"nothing to do: no row of these {'pieces' if around else 'optimizers'} has these dtypes.")
    writable(json_file, plot)
    results = _run(trials, jobs)
    _show_rows(results)
    if json_file:
        document = {"optparity": version("optparity"), "machine": dict(doctor.machine()), "results": [r.to_dict() for r in results]}
        write(json_file, json.dumps(document))
    if plot:
        checking.draw(results, plot)
    _show_summary(results)
    raise typer.Exit(0 if all(result.ours.identical for result in results) else 1)


def _run(trials: list[checking.Trial], jobs: int) -> list[checking.Result]:
    results = []
    with progress() as bar:
        task = bar.add_task("", total=len(trials))
        for result in checking.run(trials, jobs):
            results.append(result)
            bar.update(task, advance=1, description=str(result.trial))
    return results


def _show_rows(results: Sequence[checking.Result]) -> None:
    """A line for each row and dtype: ours over all streams, the stock implementations at the end of the last."""
    shown = table("optimizer: row", "dtype", "same", "torch.optim", "optax", "accuracy", right=["same", "accuracy"])
    groups: dict[tuple[str, str], list[checking.Result]] = {}
    for result in results:
        groups.setdefault((str(result.trial.row), result.trial.dtype), []).append(result)
    for names, group in groups.items():
        same = sum(result.ours.identical for result in group)
        (last,) = [result for result in group if result.trial.with_stock]
        stock = [_distance(last.reports.get(name)) for name in checking.STOCK]
        accuracy = "" if last.accuracy is None else f"{100 * last.accuracy:.1f} %"
        shown.add_row(*names, Text(f"{same}/{len(group)}", _color(same == len(group))), *stock, accuracy)
    console.print(shown)
    console.print(
        "same: streams on which every bit of jaxopt_impl is torch_ref's. torch.optim, optax: nearest stock configuration on "
        f"'{results[-1].trial.stream}', share of parameters whose bits differ, largest distance in ulp. accuracy: held-out digits "
        "(float16 with eps = 1e-8, which is 0 there, is NaN on both sides).\n"
    )


def _distance(report: Report | None) -> str:
    """Short enough that a row fits into 80 columns: 2e9, not 2e+09."""
    if report is None:
        return "none"
    distance = f"{report.ulp[-1]:.1g}".replace("e+0", "e").replace("e+", "e")
    return "same" if report.identical else f"{100 * report.share:.0f} %, {distance}"


def _show_summary(results: Sequence[checking.Result]) -> None:
    """What a person reads first: a line for each optimizer, where they part, and the verdict at the very end."""
    numbers = ["rows", "dtypes", "streams", "trials", "elements compared", "differing"]
    shown = table("optimizer", *numbers, right=numbers)
    for summary in checking.summaries(results):
        counts = (summary.rows, summary.dtypes, summary.streams, summary.trials, summary.elements)
        differing = Text(f"{summary.differing:,}", _color(not summary.differing))
        shown.add_row(summary.optimizer, *(f"{count:,}" for count in counts), differing)
    console.print(shown)
    broken = [result for result in results if not result.ours.identical]
    for result in broken[:SHOWN]:
        say(f"{result.trial}: {result.ours.first_difference}", "red")
    if len(broken) > SHOWN:
        say(f"and {len(broken) - SHOWN} more; --json FILE has them all.", "red")
    verdict = f"{len(broken)} of {len(results)} trials differ" if broken else f"{len(results)} trials, no difference"
    compared = sum(result.ours.steps * result.ours.elements for result in results)
    say(f"{verdict}; {compared:,} elements compared between jitted jaxopt_impl and torch_ref.", _color(not broken))


def _color(good: bool) -> str:
    return "green" if good else "red"
