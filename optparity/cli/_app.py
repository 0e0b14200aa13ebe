"""The typer app: what each command does in a line. The command itself is in the file of its name."""

from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer
from typer.core import TyperGroup

from ._errors import importing

COMMANDS = {
    "check": "Compare both packages bit for bit, on the same gradients.",
    "diff": "Find where two recorded runs part, how far, and how it grows.",
    "replay": "Feed recorded gradients to an optimizer: is it the optimizer?",
    "doctor": "Try on this machine each rewrite that could break the contract.",
    "golden": "Write or check the hashes of every trajectory of one package.",
    "drift": "Measure how far torch.optim and optax are from the contract.",
    "explain": "Say how torch.optim and optax differ in an optimizer of one name.",
    "cost": "Count the memory and FLOPs of a training step.",
    "train": "Train a model in PyTorch, in JAX, or in both side by side.",
    "convert": "Convert a checkpoint between PyTorch, Orbax and safetensors.",
}


class _Lazy(TyperGroup):
    """Imports a command's file when the command is run or completed: --help and --version need not wait for jax."""

    def resolve_command(self, ctx, args):
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and _load(found.name), rest


def _load(name):
    with importing():
        function = getattr(import_module(f".{name}", __package__), name)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name)(function)
    return typer.main.get_command(alone)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"optparity {version('optparity')}")
        raise typer.Exit


app = typer.Typer(cls=_Lazy, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def _optparity(
    context: typer.Context,
    _: Annotated[bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Show the version and exit.")] = False,
) -> None:
    """The same optimizer in JAX and in PyTorch, and the proof, bit for bit, that it is the same."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for _name, _summary in COMMANDS.items():
    app.command(_name, short_help=_summary)(lambda: None)
