"""The page: a verdict first, then each comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .._files import replacing
from ..doctor import machine
from ..versus.course import Course, Place
from ..versus.rounding import Verdict
from .pictures import LEVELS, distance_over_steps, leaves_by_steps


@dataclass(frozen=True)
class Entry:
    """One comparison, and what is known about it; the explanation is shown by its `str`.

    Attributes:
        course: what was found.
        explanation: why they part.
        rounding: for each leaf, whether its difference is rounding or another formula, as a run in float64 tells.
        replay: the command that does it again.
        notes: what else is to be said, as what was not compared; a line for each.
    """

    course: Course
    explanation: Any = None
    rounding: Mapping[Place, Verdict] = field(default_factory=dict)
    replay: str = ""
    notes: Sequence[str] = ()


def write(path: Path | str, title: str, entries: Sequence[Entry], machines: Mapping[str, Sequence[tuple[str, str]]] | None = None) -> None:
    """One self-contained HTML file: no script, nothing from a network.

    Args:
        path: its name; a file that is there is replaced, whole or not at all.
        entries: the comparisons, in the order in which they are shown.
        machines: for each machine, lines of what it is and has, as `doctor.machine` gives; by default this one's.

    Raises: ValueError where there is no entry; OSError where the file cannot be written.
    """
    if not entries:
        raise ValueError("report: no comparison was given; at least one is needed.")
    text = page(title, entries, {"This machine": machine()} if machines is None else machines)
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(title: str, entries: Sequence[Entry], machines: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """The text of the file."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        title=title,
        entries=entries,
        machines=machines,
        version=version("optparity"),
        parted=sum(not entry.course.same for entry in entries),
        LEVELS=LEVELS,
        leaves_by_steps=leaves_by_steps,
        distance_over_steps=distance_over_steps,
    )
