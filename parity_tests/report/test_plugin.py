"""The pytest plugin: what the fixture and the marker compare, what a failure says, and that the command it prints does it again."""

import functools
import os
import shlex
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import torch

import jaxopt_impl
import torch_ref
from optparity.testing import Parity

from ..cli.running import optparity
from ..sampling import EXHAUSTIVE

SHAPES = {"w": (3, 4), "b": (4,)}
ADAGRADS = {"jax": "optax:adagrad", "torch": "torch.optim:Adagrad", "params": SHAPES, "steps": 5}
PLANTED = {**ADAGRADS, "set": {"learning_rate": 0.5, "eps": 0.0}, "set_torch": {"lr": 0.5, "eps": 0.0}}
SAME = {"jax": "jaxopt_impl:sgd", "torch": "torch_ref:SGD", "set": {"learning_rate": 0.1}, "set_torch": {"lr": 0.1}, "params": SHAPES}

pytestmark = pytest.mark.usefixtures("as_users_have_it")


@pytest.fixture
def parity(tmp_path):
    return Parity("tests/test_mine.py::test_mine", tmp_path)


def failing(call, *arguments, **how) -> str:
    """What the failure says."""
    with pytest.raises(pytest.fail.Exception) as failed:
        call(*arguments, **how)
    return str(failed.value)


def test_a_transform_without_a_name_is_explained_by_what_is_said_of_it(parity):
    given = optax.adagrad(0.5, eps=0.0), functools.partial(torch.optim.Adagrad, lr=0.5, eps=0.0), SHAPES
    said = failing(parity, *given, steps=5, hyperparameters={"rule": "adagrad", "lr": 0.5, "eps": 0.0})
    assert "in the transform, the accumulator must begin at 0." in said


def torch_sgd(**arguments):
    return functools.partial(torch_ref.SGD, **arguments)


def test_the_fixture_gives_what_was_found(parity):
    result = parity(jaxopt_impl.sgd(0.1, momentum=0.9), torch_sgd(lr=0.1, momentum=0.9), SHAPES, steps=3)
    assert result.same
    assert result.compared == ("params", "momentum_buffer")
    (entry,) = parity.entries
    assert (entry.course, entry.explanation, entry.replay) == (result.course, None, "python -m pytest tests/test_mine.py::test_mine")
    assert entry.notes[0] == "Compared: params, momentum_buffer."


@pytest.mark.parametrize("closed_loop", [False, True])
def test_gradients_may_be_given(parity, closed_loop):
    params = {"w": np.ones(3, np.float32)}
    given = (lambda params, step: params) if closed_loop else [{"w": np.full(3, x, np.float32)} for x in (1, 2)]
    result = parity(jaxopt_impl.sgd(0.1, momentum=0.9), torch_sgd(lr=0.1, momentum=0.9), params, given, steps=2 if closed_loop else None)
    assert result.course.steps == [1, 2]
    assert "another formula" in failing(parity, optax.sgd(0.1), torch_sgd(lr=0.1, momentum=0.9), params, given, steps=2, float64=True)


def test_a_failure_says_where_why_and_how_to_do_it_again(parity):
    said = failing(parity.marked, **PLANTED, float64=True)
    lines = said.splitlines()
    assert lines[0] == "optax.adagrad(learning_rate=0.5, eps=0.0) and torch.optim.Adagrad(lr=0.5, eps=0.0) part (judged by bits):"
    assert lines[1].startswith("  first: step 1, ")
    assert "0x" in lines[1]
    assert "say initial_accumulator_value=0.0 to optax.adagrad" in lines[2]
    assert lines[3] == "  in float64: another formula in params['b'], params['w'], sum_of_squares = sum['b'], sum_of_squares = sum['w']"
    assert lines[4:] == [
        "  do it again:",
        '    echo \'{"w": [3, 4], "b": [4]}\' > shapes.json',
        "    optparity check --jax optax:adagrad --torch torch.optim:Adagrad --set learning_rate=0.5 --set eps=0.0 --set-second lr=0.5 "
        "--set-second eps=0.0 --params shapes.json --stream normal --steps 5 --float64",
    ]
    assert parity.entries[0].rounding


def test_the_command_does_it_again(parity, tmp_path, monkeypatch, capsys):
    """The same first difference, with every option; and with what is set on the way it is gone."""
    monkeypatch.chdir(tmp_path)
    how = {"stream": "wide", "seed": 3, "dtype": "bfloat16", "ulp": 2, "state_map": {"sum_of_squares": "sum"}}
    said = failing(parity.marked, **PLANTED | {"set": {"learning_rate": 0.5, "eps": 1.0}}, **how)
    first = said.split("  first: ")[1].split("\n")[0]
    echo, command = said.split("do it again:\n")[1].splitlines()
    subprocess.run(echo, shell=True, check=True)
    status, out, err = optparity(monkeypatch, capsys, *shlex.split(command)[1:])
    assert (status, err) == (1, "")
    assert f"first: {first}\n" in out


def test_own_modules_are_found_by_the_command(parity, tmp_path, monkeypatch):
    """A module that pytest has put on the path, and the command has not."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "mine_for_the_plugin.py").write_text("import optax\n\ndef sgd(lr):\n    return optax.sgd(2 * lr)\n")
    monkeypatch.syspath_prepend(tmp_path / "tests")
    said = failing(
        parity.marked, jax="mine_for_the_plugin:sgd", torch="torch.optim:SGD", set={"lr": 0.5}, set_torch={"lr": 0.5}, params=SHAPES
    )
    assert f"PYTHONPATH={tmp_path / 'tests'} optparity check --jax mine_for_the_plugin:sgd" in said


def test_what_has_no_name_is_done_again_by_pytest(parity):
    again = "do it again:\n    python -m pytest tests/test_mine.py::test_mine"
    assert again in failing(parity, optax.sgd(0.2), torch_sgd(lr=0.1), SHAPES, steps=1)
    schedule = {"learning_rate": optax.constant_schedule(0.5)}
    assert again in failing(parity.marked, **PLANTED | {"set": schedule})
    arrays = {"w": np.ones(3, np.float32)}
    assert again in failing(parity.marked, **PLANTED | {"params": arrays})
    assert again in failing(parity.marked, **PLANTED | {"params": arrays}, gradients=[arrays])


def test_parameters_may_be_a_file_or_nothing(parity, tmp_path):
    (tmp_path / "shapes.json").write_text('{"w": [2]}')
    parity.marked(**SAME | {"params": "shapes.json"})
    parity.marked(**SAME | {"params": None})
    assert [len({place.leaf for place in entry.course.distances}) for entry in parity.entries] == [1, 4]


def test_the_mode_is_kept(parity):
    how = SAME | {"jax": "optax:sgd", "torch": "torch.optim:SGD"}
    assert "judged by ulp=1" in failing(parity.marked, **how, ulp=1)
    parity.marked(**how, rtol=1e-3, atol=1e-5)
    assert str(parity.entries[-1].course.mode) == "rtol=0.001, atol=1e-05"


def test_two_of_one_framework(parity):
    sgds = ["jaxopt_impl:sgd", "optax:sgd"]
    said = failing(parity.marked, jax=sgds, set={"learning_rate": 0.1}, set_second={"learning_rate": 0.2}, params=SHAPES, steps=3)
    assert "jaxopt_impl.sgd(learning_rate=0.1) and optax.sgd(learning_rate=0.2) part" in said
    assert "--jax jaxopt_impl:sgd --jax optax:sgd --set learning_rate=0.1 --set-second learning_rate=0.2" in said


@pytest.mark.parametrize(
    ("arguments", "how", "message"),
    [
        (["optax:adam"], {}, "it takes names only, as jax=\"pkg:factory\"; got 'optax:adam'."),
        ([], {"jax": "optax:adam"}, "two optimizers are needed, in jax=, torch=, or two of them in one; got 1."),
        ([], {**SAME, "lr": 1}, "unknown lr; atol, dtype, float64, gradients, hyperparameters, jax,"),
        ([], {**SAME, "set_second": {}}, "set_torch and set_second are one thing"),
        ([], {**SAME, "jax": "optax:adammm"}, "--jax optax:adammm: optax has no adammm."),
        ([], {**SAME, "set": {}}, "jaxopt_impl.sgd() fails: TypeError"),
        ([], {**SAME, "stream": "loud"}, "parity: unknown stream 'loud'; one of normal, wide,"),
        ([], {**SAME, "ulp": -1}, "mode: ulp must be at least 0, got -1."),
        ([], {**SAME, "ulp": 1, "rtol": 1.0}, "mode: ulp=1 and tolerances are two modes; one is needed."),
        (
            [],
            {**SAME, "params": {"w": np.ones(3, np.float32)}, "dtype": "float64"},
            "parity: dtype=float64 is of parameters that are drawn",
        ),
    ],
)
def test_a_bad_marker_fails_in_one_line(parity, arguments, how, message):
    said = failing(parity.marked, *arguments, **how)
    assert said.startswith(f"@pytest.mark.parity: {message}")
    assert "\n" not in said
    assert parity.entries == []


def test_a_gradient_of_none_is_compared_and_not_explained(parity):
    params = {"w": np.ones(3, np.float32), "b": np.ones(2, np.float32)}
    said = failing(parity, optax.sgd(0.2), torch_sgd(lr=0.1), params, [{"w": np.ones(3, np.float32), "b": None}])
    assert "why: Nothing was tried: " in said


DOCS = (Path(__file__).parents[2] / "docs" / "in_pytest.md").read_text()
PROJECT = {
    "conftest.py": """
        import sys
        def pytest_sessionstart(session):
            print("heavy:", sorted({"jax", "torch", "numpy", "optax", "jinja2"} & sys.modules.keys()))
    """,
    "test_mine.py": """
        import pytest
        NAMES = dict(jax="jaxopt_impl:sgd", torch="torch_ref:SGD", params={"w": (3,)}, steps=3)
        SAME = dict(**NAMES, set={"learning_rate": 0.1}, set_torch={"lr": 0.1})

        @pytest.mark.parity(**SAME)
        @pytest.mark.parametrize("name", ["a/b", "a b"])
        def test_marked(name):
            pass

        @pytest.mark.parity(**{**SAME, "set": {"learning_rate": 0.2}})
        def test_planted():
            raise AssertionError("not reached")

        @pytest.mark.xfail(strict=True)
        @pytest.mark.parity(**{**SAME, "set": {"learning_rate": 0.2}})
        def test_expected_to_fail(parity):
            pass

        class TestOld(__import__("unittest").TestCase):
            @pytest.mark.parity(**{**SAME, "set": {"learning_rate": 0.2}})
            def test_planted(self):
                pass

        def test_without():
            pass
    """,
}


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """pytest in a process of its own; the plugin comes by its entry point, or by its name where this checkout is not installed anew."""
    by_name = [] if entry_points(group="pytest11", name="optparity") else ["-p", "optparity.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", *by_name, "-p", "no:cacheprovider", "-s", *arguments]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path):
    for name, text in PROJECT.items():
        (tmp_path / name).write_text("\n".join(line[8:] for line in text.splitlines()))
    (tmp_path / "test_docs.py").write_text(DOCS.split("```python\n")[1].split("```")[0])
    return tmp_path


@pytest.mark.parametrize("processes", [pytest.param("", id="alone"), pytest.param("2", id="two processes", marks=EXHAUSTIVE)])
def test_in_a_project(project, processes):
    """Every item with a marker is compared, markers need no registration, each test has its page, and docs/ shows what is printed."""
    done = pytest_in(project, "--strict-markers", "-Werror", "--parity-report=pages", *(["-n", processes] if processes else []))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "3 failed, 4 passed, 1 xfailed" in done.stdout
    assert processes or "heavy: []" in done.stdout
    assert "jaxopt_impl.sgd(learning_rate=0.2) and torch_ref.SGD(lr=0.1) part (judged by bits):" in done.stdout
    assert "not reached" not in done.stdout
    assert DOCS.split("```text\n")[1].split("```")[0] in done.stdout
    assert f"Pages of what was compared: {project / 'pages'}" in done.stdout
    pages = sorted(page.name.rpartition("-")[0] for page in (project / "pages").iterdir())
    marked = ["test_mine.py_test_marked_a_b"] * 2
    assert pages[:2] == ["test_docs.py_test_by_hand", "test_docs.py_test_by_name"]
    assert pages[2:] == ["test_mine.py_TestOld_test_planted", "test_mine.py_test_expected_to_fail", *marked, "test_mine.py_test_planted"]
    for page in (project / "pages").iterdir():
        assert ("✗ They differ" in page.read_text()) == ("marked" not in page.name and "by_hand" not in page.name)


def test_a_report_that_cannot_be_written_is_refused(project):
    (project / "file").write_text("")
    done = pytest_in(project, "--parity-report=file", "-k", "without")
    assert done.returncode == 4
    assert "ERROR: --parity-report file: the folder cannot be made: File exists." in done.stderr
    hidden = "import sys; sys.modules['jinja2'] = None\n"
    (project / "conftest.py").write_text(hidden)
    done = pytest_in(project, "--parity-report=pages", "-k", "without")
    assert done.returncode == 4
    assert "--parity-report: jinja2 is not installed; it needs: pip install 'optparity[cli]'" in done.stderr


def test_the_entry_point_is_the_plugin():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '[project.entry-points.pytest11]\noptparity = "optparity.pytest_plugin"' in text


def test_jax_settings_are_as_before(parity):
    before = jax.config.jax_enable_x64
    parity.marked(**SAME, dtype="float64")
    assert jax.config.jax_enable_x64 == before
