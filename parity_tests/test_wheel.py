"""What users install: the packages, their data, the compiled library where there is a compiler, and no test."""

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from .sampling import EXHAUSTIVE

ROOT = Path(__file__).parents[1]


PACKAGES = ("jaxopt_impl", "one_pass", "optparity", "torch_ref")
LIBRARY = "one_pass/libonepass.so"
COMPILER = """#!/bin/sh
while test "$1" != -o; do shift; done
echo compiled > "$2"
"""
FAILING = """#!/bin/sh
echo "library.cc:1: note: it is here" >&2
echo "library.cc:1: error: a mistake" >&2
exit 1
"""
NO_COMPILER = "no C++ compiler was found: neither $CXX nor c++, g++ or clang++"


def built(folder: Path, *options: str, source: Path = ROOT, **env: str) -> tuple[Path, str]:
    """What hatchling builds without a network, and what it says."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CXX")}
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", *options, "-d", folder],
        cwd=source,
        env={**kept, **env},
        check=True,
        capture_output=True,
        text=True,
    )
    (found,) = folder.iterdir()
    return found, done.stderr


def script(path: Path, text: str) -> str:
    """A compiler's stand-in."""
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel whose library is empty: what takes the compiler's place is quick."""
    cxx = script(tmp_path_factory.mktemp("compiler") / "cxx", COMPILER)
    return built(tmp_path_factory.mktemp("wheel"), "-t", "wheel", CXX=cxx)[0]


@pytest.fixture(scope="module")
def names(wheel):
    """The files in it."""
    return zipfile.ZipFile(wheel).namelist()


@pytest.fixture
def stale(tmp_path):
    """A copy of the sources in which a library lies already."""
    source = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, tracked):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    (source / LIBRARY).write_text("of other sources")
    return source


def test_the_wheel_holds_the_packages_and_no_test(names):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {name.split("/")[0] for name in names} == {*PACKAGES, f"optparity-{version}.dist-info"}
    assert not [name for name in names if any(word in f"/{name}" for word in ("/test_", "conftest", "oracle", "parity_tests"))]


def test_the_wheel_holds_what_is_no_code(names):
    data = {f"{package}/py.typed" for package in ("optparity", "jaxopt_impl", "torch_ref")} | {"optparity/parity/golden.json"}
    data |= {"optparity/report/templates/report.html", "one_pass/native/library.cc"}
    assert data <= set(names)
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name for name in names if ".dist-info/" not in name} == {*tracked.stdout.split(), LIBRARY}


def test_the_wheel_with_the_library_is_for_this_platform_and_for_any_python(wheel):
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")
    (about,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/WHEEL"))
    assert b"\nRoot-Is-Purelib: false\n" in zipfile.ZipFile(wheel).read(about)
    assert zipfile.ZipFile(wheel).read(LIBRARY) == b"compiled\n"


@pytest.mark.parametrize(
    ("compiler", "why"),
    [
        (None, NO_COMPILER),
        (FAILING, "cxx failed: library.cc:1: error: a mistake"),
        ("no program", "[Errno 8] Exec format error: "),
    ],
    ids=["missing", "failing", "no program"],
)
def test_the_wheel_without_the_library_is_pure_and_its_build_says_why(stale, tmp_path, compiler, why):
    """No library that happens to lie there is taken along."""
    cxx = {"CXX": script(tmp_path / "cxx", compiler)} if compiler else {}
    made, said = built(tmp_path / "wheel", "-t", "wheel", source=stale, PATH=str(tmp_path), **cxx)
    assert made.name.endswith("-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(made).namelist() if name.endswith(".so")]
    line, _ = said.splitlines()  # and where the wheel is
    assert line.startswith(f"one_pass: not compiled, steps take several passes: {why}")


def test_an_editable_wheel_leaves_the_library_in_the_checkout(stale, tmp_path, monkeypatch):
    """The hook by itself: hatchling needs another package for such a wheel."""
    monkeypatch.setenv("CXX", script(tmp_path / "cxx", COMPILER))
    hook = runpy.run_path(str(ROOT / "hatch_build.py"))["CompiledLibrary"](str(stale), {}, None, None, "", "wheel")
    taken = {}
    hook.initialize("editable", taken)
    hook.finalize("editable", taken, "")
    assert (stale / LIBRARY).read_text() == "compiled\n"
    assert not taken


def test_the_source_distribution_can_build_the_library(stale, tmp_path):
    made, _ = built(tmp_path / "sdist", "-t", "sdist", source=stale)
    with tarfile.open(made) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    native = {path.relative_to(ROOT).as_posix() for path in (ROOT / "one_pass/native").rglob("*.*")}
    assert native | {"hatch_build.py", "one_pass/build.py"} <= names
    assert not [name for name in names if name.endswith(".so")]


def test_the_library_is_built_with_the_headers_of_the_oldest_jax():
    """XLA refuses a library that was built with newer headers than its own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (jax,) = (name for name in project["project"]["dependencies"] if name.startswith("jax>="))
    (jaxlib,) = (name for name in project["build-system"]["requires"] if name.startswith("jaxlib"))
    oldest = jax.removeprefix("jax>=").split(",")[0]
    major, minor = map(int, oldest.split("."))
    assert jaxlib == f"jaxlib>={oldest},<{major}.{minor + 1}"


def test_the_citation_is_of_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    sections = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1:]
    assert next(section for section in sections if not section.startswith("Unreleased")).startswith(version)


HEAVY_BALL = {  # 0.5 and 0.125 are powers of two, so that no product rounds and plain code has the same bits
    "heavy_ball/__init__.py": "",
    "heavy_ball/in_jax.py": """
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class State(NamedTuple):
    b: Any


def heavy_ball(learning_rate=0.125, momentum=0.5):
    def init(params):
        return State(jax.tree.map(jnp.zeros_like, params))

    def update(gradients, state, params=None):
        b = jax.tree.map(lambda g, b: momentum * b + g, gradients, state.b)
        return jax.tree.map(lambda b: -learning_rate * b, b), State(b)

    return optax.GradientTransformation(init, update)
""",
    "heavy_ball/in_torch.py": """
import torch


class HeavyBall(torch.optim.Optimizer):
    def __init__(self, params, lr=0.125, momentum=0.5):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                b = state.get("b", torch.zeros_like(p))
                state["b"] = b = group["momentum"] * b + p.grad
                p -= group["lr"] * b
""",
    "test_heavy_ball.py": """
import pytest
from heavy_ball.in_jax import heavy_ball
from heavy_ball.in_torch import HeavyBall


@pytest.mark.parity(jax="heavy_ball.in_jax:heavy_ball", torch="heavy_ball.in_torch:HeavyBall", steps=20)
def test_by_name():
    pass


def test_by_hand(parity):
    result = parity(heavy_ball(), HeavyBall, params={"w": (3, 4)}, steps=20, stream="wide")
    assert result.compared == ("params", "b")
""",
}


def installed(wheel: Path, folder: Path) -> Path:
    """The programs of a new environment with the wheel; what the wheel needs is lent to it from here."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True, capture_output=True)
    alone(venv / "bin" / "python", "-m", "pip", "install", "--no-index", "--no-deps", wheel, cwd=venv)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(
        sysconfig.get_paths()["purelib"]
    )  # a path that is lent has no .pth of its own: this checkout is not on it
    return venv / "bin"


def alone(*command, cwd, **env) -> subprocess.CompletedProcess:
    """Run it without what this shell says to Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**kept, "JAX_PLATFORMS": "cpu", **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done


@EXHAUSTIVE
@pytest.mark.parametrize(
    ("path", "said"), [(os.environ["PATH"], "compiled, "), ("/nowhere", f"not used: not built, {NO_COMPILER}")], ids=["with", "without"]
)
def test_a_wheel_from_a_machine_with_a_compiler_and_one_without(tmp_path, path, said):
    """Each is installed where there is none."""
    made, _ = built(tmp_path / "wheel", "-t", "wheel", PATH=path)
    programs = installed(made, tmp_path)
    doctor = alone(programs / "optparity", "doctor", "--elements", 1024, cwd=tmp_path, PATH="/nowhere")
    assert f"one pass on the CPU   {said}" in doctor.stdout
    check = alone(programs / "optparity", "check", "adam", "--steps", 30, cwd=tmp_path, PATH="/nowhere")
    assert check.returncode == 0, check.stdout


@EXHAUSTIVE
def test_a_package_outside_uses_the_wheel(tmp_path):
    """Its own transform, its own torch optimizer, a pytest file: it passes, and with a mistake planted it fails and says why."""
    programs = installed(built(tmp_path / "wheel", "-t", "wheel")[0], tmp_path)
    for name, text in HEAVY_BALL.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    where = alone(programs / "python", "-c", "import optparity; print(optparity.__file__)", cwd=tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(programs.parent)

    names = ["--jax", "heavy_ball.in_jax:heavy_ball", "--torch", "heavy_ball.in_torch:HeavyBall", "--steps", "20"]
    done = alone(programs / "python", "-m", "pytest", "--strict-markers", "--parity-report=pages", cwd=tmp_path)
    assert "2 passed" in done.stdout, done.stdout
    assert len(list((tmp_path / "pages").glob("*.html"))) == 2
    assert alone(programs / "optparity", "check", *names, cwd=tmp_path).returncode == 0

    planted = HEAVY_BALL["heavy_ball/in_torch.py"].replace('p -= group["lr"] * b', 'p -= group["lr"] * (p.grad + group["momentum"] * b)')
    (tmp_path / "heavy_ball/in_torch.py").write_text(planted)
    done = alone(programs / "python", "-m", "pytest", "--parity-report=pages", cwd=tmp_path)
    assert "2 failed" in done.stdout, done.stdout
    assert (
        "optparity check --jax heavy_ball.in_jax:heavy_ball --torch heavy_ball.in_torch:HeavyBall --stream normal --steps 20" in done.stdout
    )
    why = [line for line in done.stdout.splitlines() if line.startswith("  why: ")]
    assert len(why) == 2
    assert all("nesterov" in line.lower() for line in why), why
    assert all("Nesterov" in page.read_text() for page in (tmp_path / "pages").glob("*.html"))
    assert alone(programs / "optparity", "check", *names, cwd=tmp_path).returncode == 1
