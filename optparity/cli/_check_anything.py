"""`optparity check --jax NAME --torch NAME`: any two optimizers against each other."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import jax
import typer

from .. import doctor
from ..versus import Mode, Named, Result, against
from ..versus.course import Place
from ..versus.factories import Framework, said
from ._console import console, need, progress, refusing, say, table, writable, write
from ._errors import BadInputError
from ._fed import Recorded, Stream, recorded, streamed
from ._options import assignments

SHOWN = 20  # of the arrays that differ

Jax = Annotated[
    list[str] | None,
    typer.Option("--jax", metavar="PKG.MODULE:FACTORY", help="Compare this optax transform, with what --torch or a second --jax names."),
]
Torch = Annotated[
    list[str] | None,
    typer.Option("--torch", metavar="PKG.MODULE:FACTORY", help="Compare this torch optimizer, with what --jax or a second --torch names."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An argument of the first (of two frameworks, JAX's), JSON: lr=0.1. Repeat it."),
]
SetSecond = Annotated[
    list[str] | None,
    typer.Option("--set-second", "--set-torch", metavar="KEY=VALUE", help="An argument of the second (of two frameworks, torch's)."),
]
Params = Annotated[
    Path | None,
    typer.Option("--params", metavar="FILE", help="The parameters: .safetensors, or .json with shapes. Default: four leaves."),
]
Gradients = Annotated[Path | None, typer.Option("--gradients", metavar="TRACE", help="The gradients of a recorded run, not a stream.")]
StateMap = Annotated[
    list[str] | None,
    typer.Option("--state-map", metavar="FIRST=SECOND", help="State that means the same, as mu=exp_avg (which is known)."),
]
Ulp = Annotated[int, typer.Option("--ulp", min=0, metavar="N", help="Accept this distance. Default: 0, the bits are the same.")]
Rtol = Annotated[float | None, typer.Option("--rtol", metavar="X", help="Accept |a - b| <= atol + rtol |b|.")]
Atol = Annotated[float | None, typer.Option("--atol", metavar="X", help="See --rtol.")]
Float64 = Annotated[bool, typer.Option("--float64", help="Run both in float64 too: what shrinks is rounding, what stays another formula.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page that shows where and how they part.")]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says of two optimizers that are not ours, or need not be."""

    jax: list[str]
    torch: list[str]
    settings: list[str]
    second_settings: list[str]
    params: Path | None
    gradients: Path | None
    state_map: list[str]
    ulp: int
    rtol: float | None
    atol: float | None
    float64: bool
    html: Path | None

    @property
    def pair(self) -> bool:
        """Whether two optimizers are named."""
        return bool(self.jax or self.torch)

    def refuse_alone(self) -> None:
        """Refuse options that are about named optimizers where none is named."""
        flags = {
            "--set": self.settings,
            "--set-second": self.second_settings,
            "--params": self.params,
            "--gradients": self.gradients,
            "--state-map": self.state_map,
            "--ulp": self.ulp,
            "--rtol": self.rtol is not None,
            "--atol": self.atol is not None,
            "--float64": self.float64,
            "--html": self.html,
        }
        for flag, given in flags.items():
            if given:
                raise BadInputError(f"{flag}: name two optimizers with --jax and --torch.")


def check(asked: Asked, streams: list[str], dtypes: list[str], steps: int | None, seed: int, json_file: Path | None) -> int:
    """Compare the two, and say what was found: the exit status."""
    first, second = _named(asked)
    with refusing(ValueError):
        mode = Mode(asked.ulp, asked.rtol, asked.atol)
    need(*(["torch"] if asked.torch else []), *(["jinja2"] if asked.html else []))
    writable(json_file, asked.html)
    params, fed = _fed(asked, _one("--stream", streams), _one("--dtype", dtypes), steps, seed)
    with refusing(ValueError), progress() as bar:
        found = against(
            first,
            second,
            params,
            bar.track(fed, fed.steps, description=f"{first} against {second}"),
            mode=mode,
            float64=asked.float64,
            state_map=_state_map(asked.state_map),
        )
    explanation = None if found.same else _explanation(first, second, params, fed)
    _show(found, explanation, params, fed)
    if json_file:
        about = {"optparity": version("optparity"), "machine": dict(doctor.machine()), "gradients": str(fed)}
        write(json_file, json.dumps({**about, **found.to_dict(), "explanation": explanation and str(explanation)}))
    if asked.html:
        from ..report import Entry
        from ..report import write as write_page

        write_page(asked.html, f"{first} against {second}", [Entry(found.course, explanation, found.rounding)])
    return 0 if found.same else 1


def _named(asked: Asked) -> tuple[Named, Named]:
    """The two, JAX's first where they are of two frameworks, with their arguments."""
    given: list[tuple[Framework, str]] = [*(("jax", name) for name in asked.jax), *(("torch", name) for name in asked.torch)]
    if len(given) != 2:
        raise BadInputError(f"two optimizers are needed, with --jax, --torch, or one of them twice; got {len(given)}.")
    settings = (assignments("--set", asked.settings), assignments("--set-second", asked.second_settings))
    first, second = (Named(framework, name, arguments) for (framework, name), arguments in zip(given, settings, strict=True))
    return first, second


def _one(flag: str, given: list[str]) -> str | None:
    """The one value of an option that other checks take several of."""
    if len(given) > 1:
        raise BadInputError(f"{flag}: with --jax and --torch one is taken; got {', '.join(given)}.")
    return given[0] if given else None


def _fed(asked: Asked, stream: str | None, dtype: str | None, steps: int | None, seed: int) -> tuple[Any, Stream | Recorded]:
    """Parameters and gradients."""
    if asked.gradients is None:
        return streamed(asked.params, stream, dtype, steps, seed)
    for flag, given in (("--stream", stream), ("--dtype", dtype)):
        if given:
            raise BadInputError(f"{flag}: the gradients of a trace are what they are.")
    return recorded(asked.params, asked.gradients, steps)


def _state_map(given: list[str]) -> dict[str, str]:
    pairs = {}
    for assignment in given:
        first, _, second = assignment.partition("=")
        if not (first and second):
            raise BadInputError(f"--state-map {assignment}: FIRST=SECOND is needed.")
        pairs[first] = second
    return pairs


def _explanation(first: Named, second: Named, params: Any, gradients: Iterable) -> Any:
    """What convention makes them part, where one is known."""
    from ..explain import explain

    try:
        return explain(first, second, params, gradients)
    except Exception as error:  # it runs them in float64, which not every optimizer can
        return f"it cannot be asked: {said(error)}"


def _show(found: Result, explanation: Any, params: Any, fed: Stream | Recorded) -> None:
    """What was compared and how, where they part, the verdict at the very end."""
    course, leaves = found.course, jax.tree.leaves(params)
    elements, dtypes = sum(x.size for x in leaves), ", ".join(dict.fromkeys(x.dtype.name for x in leaves))
    say(f"{course.first} against {course.second}")
    say(f"{len(course.steps)} steps of {fed}; {len(leaves)} leaves, {elements:,} elements, {dtypes}")
    say(f"mode: {course.mode}; compared: {', '.join(found.compared)}")
    for why in dict.fromkeys(found.not_compared.values()):
        say(f"not compared: {', '.join(what for what, reason in found.not_compared.items() if reason == why)}: {why}")
    places = [place for place in course.distances if not found.same_at(place)]
    if places:
        _show_places(places[:SHOWN], found)
    if len(places) > SHOWN:
        say(f"and {len(places) - SHOWN} more; --json FILE has them all.")
    if course.parting:
        say(f"first: {course.parting}", "red")
    if explanation is not None:
        say(f"why: {explanation}")
    _show_verdict(found)


def _show_places(places: list[Place], found: Result) -> None:
    """A row for each leaf, and each field of its state, that differs in one of the precisions."""
    numbers = ["from step", "at the end", "ulp", "largest"]
    shown = table("", *numbers, *(["in float64"] if found.rounding else []), right=numbers)
    for place in places:
        of_steps = found.course.distances[place]
        last = list(of_steps.values())[-1]
        steps = [step for step, distance in of_steps.items() if not distance.same]
        shown.add_row(
            str(place),
            str(steps[0]) if steps else "",
            f"{100 * (last.differing or 0) / max(last.elements, 1):.0f} %",
            f"{max(distance.ulp or 0 for distance in of_steps.values()):.3g}",
            f"{max(distance.absolute or 0.0 for distance in of_steps.values()):.1e}",
            *([f"{found.rounding[place].kind}, {found.rounding[place].step}"] if found.rounding else []),
        )
    console.print(shown)


def _show_verdict(found: Result) -> None:
    course = found.course
    if found.rounding:
        kinds = Counter(verdict.kind for verdict in found.rounding.values())
        say(f"in float64: {', '.join(f'{kind}: {count}' for kind, count in kinds.items())}.")
    differing = sum(any(not distance.same for distance in of_steps.values()) for of_steps in course.distances.values())
    compared = sum(distance.elements for of_steps in course.distances.values() for distance in of_steps.values())
    verdict = f"{differing} of {len(course.distances)} arrays differ" if differing else f"{len(course.distances)} arrays, no difference"
    say(f"{verdict}; {compared:,} elements compared.", "red" if differing else "green")
