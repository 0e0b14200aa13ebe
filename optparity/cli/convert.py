"""`optparity convert`."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from .._files import readable
from ..checkpoints import checkpoint as checkpoints
from ..checkpoints import convert as converting
from ._console import console, need, progress, refusing, say, table
from ._errors import BadInputError

Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        help="A torch checkpoint (.pt, .pth, .ckpt, .bin, .tar), a .safetensors file, or a folder of Orbax or of Hugging Face's Trainer.",
    ),
]
Target = Annotated[
    Path | None,
    typer.Argument(metavar="OUT", help="A file likewise; a name without such a suffix is an Orbax folder's. Only --show does without."),
]
Class = Annotated[str | None, typer.Option(metavar="CLASS", help="Adam, SGD, ...: needed where the file does not tell.")]
Step = Annotated[int | None, typer.Option(min=0, help="Steps taken, where torch does not hold it: SGD, Momentum.")]
Missing = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="A parameter that may have no state where others have. May be repeated.")
]
Like = Annotated[
    Path | None,
    typer.Option(metavar="FILE.pt", help="Whose groups to take, where IN has none: the same model and optimizer in torch."),
]
ModelKey = Annotated[str | None, typer.Option(metavar="PATH", help="Where the model is in a torch checkpoint that has several.")]
OptimizerKey = Annotated[str | None, typer.Option(metavar="PATH", help="Where the optimizer is, likewise: optimizer_states.1.")]
Names = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.json",
        help="The names of the optimizer's parameters where IN does not tell: a list in its order, or a list of lists, one for each group. "
        "'model' says that they are in the order of the model's state_dict.",
    ),
]
SquareKernels = Annotated[
    Literal["transposed", "same"] | None,
    typer.Option(help="How torch has the kernels of a JAX checkpoint whose shape does not tell: Flax's Dense and Conv are transposed."),
]
Show = Annotated[bool, typer.Option("--show", help="Print which array is which parameter, before anything is written.")]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")]


def convert(
    source: Source,
    target: Target = None,
    optimizer: Class = None,
    step: Step = None,
    missing: Missing = None,
    like: Like = None,
    model_key: ModelKey = None,
    optimizer_key: OptimizerKey = None,
    names: Names = None,
    square_kernels: SquareKernels = None,
    show: Show = False,
    force: Force = False,
) -> None:
    """Convert a checkpoint between PyTorch, Orbax and safetensors.

    It holds a model and its optimizer, or the optimizer alone. Every bit of it is carried, both ways, and what is beside them: an epoch, a
    scaler. No moment is given a name that the file, the shapes or you do not tell.
    """
    with refusing(checkpoints.RefusedError):
        _examine(source, target, like, names, show, force)
        if square_kernels and converting.form(source) != "orbax":
            raise BadInputError("--square-kernels is for a checkpoint of JAX.")
        given = checkpoints.Given(optimizer, step, missing or (), like, model_key, optimizer_key, names, square_kernels)
        checkpoint = converting.read(source, given)
        _print(checkpoint, show)
        if target:
            with progress() as bar:
                bar.add_task(f"writing {target}", total=None)
                converting.write(checkpoint, target, force=force)
    for note in checkpoints.notes(checkpoint, to_torch=target is not None and converting.target_form(target) == "torch"):
        say(note)
    if target:
        say(f"{checkpoint.size:,} bytes of tensors written to {target}")


def _print(checkpoint: checkpoints.Checkpoint, show: bool) -> None:
    shown = table("part", "tensors", "state", "step", "bytes", right=("tensors", "step", "bytes"))
    for row in checkpoints.rows(checkpoint):
        shown.add_row(*row)
    console.print(shown)
    if show:
        which = table("array", "shape", "in torch", "layout", "by")
        for row in checkpoints.pairs(checkpoint):
            which.add_row(*row)
        console.print(which)


def _examine(source: Path, target: Path | None, like: Path | None, names: Path | None, show: bool, force: bool) -> None:
    """Refuse what needs no reading to be refused."""
    if target is None and not show:
        raise BadInputError("convert: OUT is needed; without it, --show prints what is in IN.")
    forms = [converting.form(source), *([] if target is None else [converting.target_form(target)])]
    packages = [package for form in forms for package in converting.PACKAGES[form]]
    need(*dict.fromkeys([*packages, "torch"] if like else packages), extras="cli,torch,convert")
    for file in (source, *(file for file in (like, names) if file and file.exists())):
        _readable(file)
    if target is None:
        return
    _apart(source, target)
    converting.check_target(target, force=force)
    if forms[0] == forms[1]:
        raise BadInputError(f"{source} and {target} have one format, {forms[0]}; there is nothing to convert.")


def _readable(file: Path) -> None:
    try:
        readable(file)
    except FileNotFoundError:
        raise BadInputError(f"{file}: no such file or folder.") from None
    except OSError as error:
        raise BadInputError(f"{error.filename} cannot be read: {error.strerror}.") from None


def _apart(source: Path, target: Path) -> None:
    """Refuse where one is in the other, or is it under another name."""
    if target.exists() and source.samefile(target):
        raise BadInputError(f"{source} and {target} are the same.")
    one, other = (Path(os.path.realpath(path)) for path in (source, target))
    if one.is_relative_to(other):
        raise BadInputError(f"{source} is in {target}, which would be replaced.")
    if source.is_dir() and other.is_relative_to(one):
        raise BadInputError(f"{target} is in {source}, which is to be left as it is.")
