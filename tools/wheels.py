"""The wheel, built and tried on each Python: `make wheels`, or `python -m tools.wheels PYTHON...`.

For each Python a new environment outside of the checkout gets the wheel, with the newest jax that this Python takes, under
constraints.txt. Torch is installed where the constraint has a build for it here (`--torch`); elsewhere what needs no torch is run.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
ABOUT = (
    "import importlib.metadata as m, sys, optparity, jaxopt_impl\n"
    "have = {d.metadata['Name'].lower() for d in m.distributions()}\n"
    "print('.'.join(map(str, sys.version_info[:3])), m.version('jax'), m.version('torch') if 'torch' in have else '-', optparity.__file__)"
)
RULES_ALONE = "import jaxopt_impl, jax.numpy as jnp; tx = jaxopt_impl.adam(0.1); print(tx.init(jnp.ones(2)).step)"
WITH_TORCH = ["optparity", "check", "adagrad", "--steps", "30"]
WITHOUT_TORCH = ["optparity", "golden", "check"]
console = Console(stderr=True)


class Tried(NamedTuple):
    """What came of one environment."""

    python: str
    jax: str
    torch: str
    command: str
    said: str
    status: int


def main(
    pythons: Annotated[list[Path], typer.Argument(help="The interpreters.")],
    torch: Annotated[list[str] | None, typer.Option(help="A version, as 3.11, that gets torch. May be repeated.")] = None,
) -> None:
    """Build the wheel and try it on each Python; exit 1 if one fails."""
    for python in pythons:
        if shutil.which(str(python)) is None:
            typer.echo(f"wheels: {python}: no such Python; say WHEEL_PYTHONS='/path/to/python3.12 ...'", err=True)
            raise typer.Exit(2)
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        tried = [result for python in pythons for result in try_python(python, wheel, Path(folder), torch or [])]
    table = Table("Python", "jax", "torch", "what ran", "what it said", "exit")
    for one in tried:
        table.add_row(*one[:-1], str(one.status))
    Console(width=140).print(wheel.name, table)
    raise typer.Exit(1 if any(one.status for one in tried) else 0)


def build(folder: Path) -> Path:
    """The wheel."""
    console.print("building the wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def try_python(python: Path, wheel: Path, folder: Path, with_torch: Sequence[str]) -> list[Tried]:
    """The transforms alone, then the command."""
    version = run([str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], folder)[1]
    extras = "torch,cli" if version in with_torch else "cli"
    whole = WITH_TORCH if version in with_torch else WITHOUT_TORCH
    return [
        try_install(python, version, wheel, "", folder / f"{version}-alone", ["python", "-c", RULES_ALONE]),
        try_install(python, version, wheel, f"[{extras}]", folder / f"{version}-whole", whole),
    ]


def try_install(python: Path, version: str, wheel: Path, extras: str, place: Path, command: Sequence[str]) -> Tried:
    """A new environment with the wheel, and a command in it."""
    console.print(f"Python {version}: optparity{extras}")
    run([str(python), "-m", "venv", str(place)], place.parent)
    binaries = place / "bin"
    pip = [str(binaries / "python"), "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    status, said = run([*pip, f"{wheel}{extras}"], place)
    jax = torch = "-"
    if not status:
        version, jax, torch, where = run([str(binaries / "python"), "-c", ABOUT], place)[1].split()
        status, said = run([str(binaries / command[0]), *command[1:]], place)
        if not where.startswith(str(place)):
            status, said = 1, f"optparity is imported from {where}"
    shown = "the transforms alone" if command[0] == "python" else " ".join(command)
    return Tried(version, jax, torch, shown, said.splitlines()[-1] if said else "", status)


def run(command: Sequence[str], folder: Path) -> tuple[int, str]:
    """Its exit status, and what it printed, or what went wrong."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout or done.stderr).strip()


if __name__ == "__main__":
    typer.run(main)
