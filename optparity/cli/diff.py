"""`optparity diff`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..traces.diff import Compared, Tolerance, growth
from ..traces.diff import diff as compare
from ..traces.reading import Trace, traces
from ..versus.course import STAGES, Course
from ..versus.modes import BITS, Mode
from ._console import console, need, refusing, say, table, writable
from ._errors import BadInputError

First = Annotated[Path, typer.Argument(metavar="A", help="The folder of a trace.")]
Second = Annotated[Path, typer.Argument(metavar="B", help="The folder of another.")]
ToleranceOption = Annotated[
    float | None, typer.Option("--tolerance", metavar="R", help="Same is what differs by at most R of a leaf's size. Default: bits.")
]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page that shows where and how they part.")]
Names = Annotated[Path | None, typer.Option(metavar="FILE.json", help='{"leaf in A": "leaf in B"}, or [leaf, axes].')]


def diff(a: First, b: Second, tolerance: ToleranceOption = None, names: Names = None, html: Html = None) -> None:
    """Find where two recorded runs part, how far, and how it grows.

    It names the first step, stage and leaf. Exit 0 if they do not part, 1 if they do.
    """
    need("safetensors", *(["jinja2"] if html else []), extras="cli,convert")
    writable(html)
    with refusing(ValueError):
        mode = judged(tolerance)
        given = None if names is None else _names(names)
        here, there = traces(a), traces(b)
        if here.keys() != there.keys():
            raise ValueError(f"{a} has ranks {', '.join(map(str, here))}, {b} has {', '.join(map(str, there))}; the same are needed.")
        found = [compare(here[rank], there[rank], mode=mode, names=given) for rank in here]
    for compared, one, other in zip(found, here.values(), there.values(), strict=True):
        show(compared, one, other)
    if html:
        from ..report import Entry, write

        write(html, f"{a} and {b}", [Entry(compared.course) for compared in found])
    raise typer.Exit(0 if all(compared.course.same for compared in found) else 1)


def judged(tolerance: float | None) -> Mode:
    """By bits, or by a tolerance."""
    return BITS if tolerance is None else Tolerance(tolerance=tolerance)


def show(compared: Compared, first: Trace, second: Trace) -> None:
    """What was compared, a table of how it grows, and at the end the verdict."""
    course = compared.course
    for name, trace in (("A", first), ("B", second)):
        say(f"{name}: {about(trace)}")
    say(f"{summary(compared)}.")
    for line in (*compared.steps_only_in, *compared.pairing.unpaired):
        say(f"Not compared: {line}.")
    if not course.same:
        console.print(_growth(course))
    say(_verdict(compared), "green" if course.same else "red")


def about(trace: Trace) -> str:
    """A trace in a line."""
    header = trace.header
    versions = header.get("versions", {})
    framework = header["framework"]
    torn = ", a last line without its end left out" if trace.torn else ""
    what = f"{framework} {versions.get(framework, '')}".strip()
    return f"{trace}: {what}, {header.get('device', '')}, steps {trace.first} to {trace.last}{torn}"


def summary(compared: Compared) -> str:
    """What was compared, in a line."""
    places = {}
    for place in compared.course.distances:
        places.setdefault(place.stage, {})[place.name] = None
    stages = [stage + (f" ({', '.join(filter(None, places[stage]))})" if stage == "state" else "") for stage in STAGES if stage in places]
    counts = {"elements": compared.by_tensors, "hashes": compared.by_hashes, "norms and extremes, not bits,": compared.by_norms}
    by = ", ".join(f"{count} by {name}" for name, count in counts.items() if count)
    names = "" if compared.pairing.by == "equal" else f"; leaves by {compared.pairing.by} names"
    return f"Compared at {len(compared.course.steps)} steps: {', '.join(stages)}; {by}{names}; same by {compared.course.mode}"


def _growth(course: Course) -> Any:
    """At the steps 1, 2, 5, 10, ..., the last, and around the parting."""
    grown = dict(growth(course))
    stages = [stage for stage in STAGES if any(stage in of for of in grown.values())]
    made = table("step", *stages, right=["step", *stages])
    parting = course.parting.step if course.parting else 0
    wanted = {digit * 10**power for digit in (1, 2, 5) for power in range(12)} | {0, course.steps[-1], parting - 1, parting}
    for step in sorted(wanted & grown.keys()):
        of = grown[step]
        made.add_row(str(step), *(f"{of[stage]:.1e}" if of.get(stage) else "0" if stage in of else "" for stage in stages))
    return made


def _verdict(compared: Compared) -> str:
    parting = compared.course.parting
    if parting is None:
        return f"They do not part. {compared.rounding()}"
    values = "" if parting.values is None else " ({:.7g} and {:.7g})".format(*parting.values)
    path = parting.place.leaf[2:-2]
    other = compared.pairing.leaves.get(path, path)
    named = "" if other == path else f"; in B it is {other}"
    return f"They part at {parting}{values}{named}. {compared.rounding()}"


def _names(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"--names {file} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise BadInputError(f'--names {file}: an object {{"leaf in A": "leaf in B"}} is needed.')
    return found
