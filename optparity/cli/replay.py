"""`optparity replay`."""

from pathlib import Path
from typing import Annotated

import typer

from ..traces.reading import traces
from ..traces.replay import replay as again
from ..versus.factories import Named
from ._console import need, refusing, say
from ._errors import BadInputError
from ._options import assignments
from .diff import ToleranceOption, about, judged, summary

Folder = Annotated[Path, typer.Argument(metavar="TRACE", help="The folder of a trace with the elements of the gradients.")]
Torch = Annotated[
    str | None, typer.Option("--torch", metavar="PKG.MODULE:FACTORY", help="A torch.optim.Optimizer, of a list of parameters.")
]
Jax = Annotated[str | None, typer.Option("--jax", metavar="PKG.MODULE:FACTORY", help="What makes an optax transform.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An argument of the factory. May be repeated.")]
BeforeClip = Annotated[bool, typer.Option("--before-clip", help="Feed what backward left, not what the optimizer got.")]
Rank = Annotated[int, typer.Option(min=0, help="Whose trace.")]


def replay(
    trace: Folder,
    torch: Torch = None,
    jax: Jax = None,
    set_: Set = None,
    tolerance: ToleranceOption = None,
    before_clip: BeforeClip = False,
    rank: Rank = 0,
) -> None:
    """Feed recorded gradients to an optimizer: is it the optimizer?

    If it takes the recorded steps, the runs part before it. Without a learning rate it gets the recorded ones. Exit 0 if state and
    parameters are the recorded ones at every step.
    """
    if (torch is None) == (jax is None):
        raise BadInputError("--torch or --jax is needed, one of them.")
    need("safetensors", *(["torch"] if torch else []), extras="convert,torch")
    with refusing(ValueError):
        found = traces(trace)
        if rank not in found:
            raise ValueError(f"--rank {rank}: {trace} has {', '.join(map(str, found))}.")
        optimizer = Named("torch", torch, assignments("--set", set_)) if torch else Named("jax", str(jax), assignments("--set", set_))
        replayed = again(found[rank], optimizer, mode=judged(tolerance), before_clip=before_clip)
    say(about(found[rank]))
    say(f"{summary(replayed.compared)}; {replayed.rates}.")
    if replayed.ended:
        say(f"Ended early: {replayed.ended}")
    same = replayed.compared.course.same
    say(str(replayed), "green" if same else "red")
    raise typer.Exit(0 if same else 1)
