"""What users install: the three packages, their data, and no test."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from .sampling import EXHAUSTIVE

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def names(wheel):
    """The files in it."""
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_the_packages_and_no_test(names):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {name.split("/")[0] for name in names} == {"optparity", "jaxopt_impl", "torch_ref", f"optparity-{version}.dist-info"}
    assert not [name for name in names if any(word in f"/{name}" for word in ("/test_", "conftest", "oracle", "parity_tests"))]


def test_the_wheel_holds_what_is_no_code(names):
    data = {f"{package}/py.typed" for package in ("optparity", "jaxopt_impl", "torch_ref")} | {"optparity/parity/golden.json"}
    data |= {"optparity/report/templates/report.html"}
    assert data <= set(names)
    tracked = subprocess.run(
        ["git", "ls-files", "optparity", "jaxopt_impl", "torch_ref"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {name for name in names if ".dist-info/" not in name} == set(tracked.stdout.split())


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


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A new environment with the wheel; what the wheel needs is lent to it from here."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True, capture_output=True)
    alone(venv / "bin" / "python", "-m", "pip", "install", "--no-index", "--no-deps", wheel, cwd=venv)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(
        sysconfig.get_paths()["purelib"]
    )  # a path that is lent has no .pth of its own: this checkout is not on it
    return venv / "bin"


def alone(*command, cwd) -> subprocess.CompletedProcess:
    """Run it without what this shell says to Python."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**env, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done


@EXHAUSTIVE
def test_a_package_outside_uses_the_wheel(installed, tmp_path):
    """Its own transform, its own torch optimizer, a pytest file: it passes, and with a mistake planted it fails and says why."""
    for name, text in HEAVY_BALL.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    where = alone(installed / "python", "-c", "import optparity; print(optparity.__file__)", cwd=tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(installed.parent)

    names = ["--jax", "heavy_ball.in_jax:heavy_ball", "--torch", "heavy_ball.in_torch:HeavyBall", "--steps", "20"]
    done = alone(installed / "python", "-m", "pytest", "--strict-markers", "--parity-report=pages", cwd=tmp_path)
    assert "2 passed" in done.stdout, done.stdout
    assert len(list((tmp_path / "pages").glob("*.html"))) == 2
    assert alone(installed / "optparity", "check", *names, cwd=tmp_path).returncode == 0

    planted = HEAVY_BALL["heavy_ball/in_torch.py"].replace('p -= group["lr"] * b', 'p -= group["lr"] * (p.grad + group["momentum"] * b)')
    (tmp_path / "heavy_ball/in_torch.py").write_text(planted)
    done = alone(installed / "python", "-m", "pytest", "--parity-report=pages", cwd=tmp_path)
    assert "2 failed" in done.stdout, done.stdout
    assert (
        "optparity check --jax heavy_ball.in_jax:heavy_ball --torch heavy_ball.in_torch:HeavyBall --stream normal --steps 20" in done.stdout
    )
    why = [line for line in done.stdout.splitlines() if line.startswith("  why: ")]
    assert len(why) == 2
    assert all("nesterov" in line.lower() for line in why), why
    assert all("Nesterov" in page.read_text() for page in (tmp_path / "pages").glob("*.html"))
    assert alone(installed / "optparity", "check", *names, cwd=tmp_path).returncode == 1
