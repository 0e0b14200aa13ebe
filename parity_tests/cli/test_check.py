"""`optparity check`: what it prints, what it writes, how it exits."""

import contextlib
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from pathlib import Path

import jax
import matplotlib.image
import numpy as np
import pytest

import torch_ref
from jaxopt_impl import numerics as nx
from optparity import check, registry
from optparity.around import PIECES
from optparity.check import Result, Trial, summaries
from optparity.parity import contexts
from optparity.parity.reports import Difference, Report
from optparity.registry import OPTIMIZERS, ROWS

from .running import one_line, optparity, started


def plain_zero(x, *others):
    """In the place of a signed zero: XLA drops the addition of it, and the fences are down."""
    return np.zeros([], x.dtype)


def test_check_says_same_and_writes_files(monkeypatch, capsys, tmp_path):
    json_file, picture = tmp_path / "new" / "parity.json", tmp_path / "parity.png"
    status, out, _ = optparity(
        *(monkeypatch, capsys, "check", "adagrad", "--steps", 20, "--stream", "normal", "--stream", "digits"),
        *("--dtype", "float32", "--json", json_file, "--plot", picture),
    )
    assert status == 0
    assert out.count("  2/2  ") == 8
    assert "no difference" in out
    assert max(map(len, out.splitlines())) <= 100
    document = json.loads(json_file.read_text())
    assert len(document["results"]) == 2 * 8
    ours = document["results"][0]["against torch_ref"]["jaxopt_impl"]
    assert ours["differing"] == [0] * 20
    assert ours["compared"] == ["params", "step", "sum"] or ours["compared"] == ["params", "sum", "step"]
    assert set(document["results"][0]["against torch_ref"]) == {"jaxopt_impl"}
    assert not document["results"][1]["against torch_ref"]["optax"]["identical"]
    assert not document["results"][1]["against torch_ref"]["torch.optim"]["identical"]
    assert document["machine"]["jax"]
    height, width, _ = matplotlib.image.imread(picture).shape
    assert width > 500
    assert height > 200
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


@pytest.fixture
def fences_down(monkeypatch, without_one_pass):
    """Compiled anew, within the test and after it."""

    def forget():
        contexts._built.cache_clear()
        for row in registry.ROWS:
            row.__dict__.pop("tx", None)

    monkeypatch.setattr(nx, "signed_zero", plain_zero)
    forget()
    yield
    jax.clear_caches()
    forget()


@pytest.mark.usefixtures("fences_down")
def test_check_names_the_first_difference(monkeypatch, capsys):
    """With the fence down, the main job goes red; the end of the output says where."""
    arguments = ("check", "momentum", "--jobs", 1, "--steps", 3, "--stream", "normal", "--stream", "wide", "--dtype", "float32")
    status, out, _ = optparity(monkeypatch, capsys, *arguments)
    assert status == 1
    *_, headers, summary, first, _, _, _, fifth, more, verdict = out.splitlines()
    assert headers.split() == ["optimizer", "rows", "dtypes", "streams", "trials", "elements", "compared", "differing"]
    assert summary.split()[:5] == ["momentum", "4", "1", "2", "8"]
    assert int(summary.split()[-1].replace(",", "")) > 1000
    where = r"step [12], params\['w'\]\[\d+\]: 0x[0-9a-f]{8} != 0x[0-9a-f]{8} \(1 ulp\)"
    assert re.fullmatch(f"momentum: default on normal, float32: {where}", first)
    assert fifth.startswith("momentum: weight_decay on normal, float32: step ")
    assert more == "and 3 more; --json FILE has them all."
    assert verdict.startswith("8 of 8 trials differ; 48,144 elements compared")


def result(row, stream, dtype, differing):
    """Of two steps of ten elements."""
    first = Difference(1, "params['w']", (0,), "0x1", "0x2", 1) if any(differing) else None
    return Result(Trial(row, stream, dtype, 2), {check.OURS: Report("a", "b", elements=10, differing=differing, first_difference=first)})


def test_the_summary_adds_up():
    sgd, adam = (next(row for row in ROWS if row.optimizer == name) for name in ("sgd", "adam"))
    results = [
        result(sgd, "normal", "float32", [0, 0]),
        result(sgd, "wide", "float32", [0, 3]),
        result(adam, "normal", "float32", [1, 2]),
        result(adam, "normal", "float64", [0, 0]),
        result(adam, "wide", "float64", [0, 0]),
    ]
    one, other, whole = summaries(results)
    assert one == check.Summary("sgd", rows=1, dtypes=1, streams=2, trials=2, elements=40, differing=3)
    assert other == check.Summary("adam", rows=1, dtypes=2, streams=2, trials=3, elements=60, differing=3)
    assert whole == check.Summary("all", rows=2, dtypes=2, streams=2, trials=5, elements=100, differing=6)
    assert list(summaries(results[:2])) == [one]


def test_the_verdict_is_the_last_line(monkeypatch, capsys):
    """After a line for each optimizer and one for all; narrow enough for 80 columns."""
    arguments = ("check", "sgd", "momentum", "--jobs", 1, "--stream", "normal", "--dtype", "float32", "--steps", 2)
    status, out, _ = optparity(monkeypatch, capsys, *arguments)
    assert status == 0
    *_, sgd, momentum, whole, verdict = out.splitlines()
    assert [line.split()[0] for line in (sgd, momentum, whole)] == ["sgd", "momentum", "all"]
    assert [line.split()[-1] for line in (sgd, momentum, whole)] == ["0", "0", "0"]
    assert verdict == "12 trials, no difference; 42,126 elements compared between jitted jaxopt_impl and torch_ref."
    assert all(len(line) <= 80 for line in out.splitlines() if line.startswith(("optimizer", "sgd", "momentum")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["adamm"], f"Invalid value for 'NAME': 'adamm' is not one of {', '.join(map(repr, [*OPTIMIZERS, *PIECES]))}."),
        (["--stream", "nope"], "Invalid value for '--stream': 'nope' is not one of 'normal', 'wide', "),
        (["--dtype", "int8"], "Invalid value for '--dtype': 'int8' is not one of 'float32', 'float64', 'bfloat16', 'float16'."),
        (["--steps", "0"], "Invalid value for '--steps'"),
        (["--steps", "many"], "Invalid value for '--steps'"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
        (["--plot", "picture.gif"], "--plot picture.gif: a file name that ends in .png, .svg or .pdf is needed."),
        (["--json", "/proc/no/file.json"], "/proc/no/file.json cannot be written"),
        (["--json", "."], ". is a folder; a file name is needed."),
        (["--colour"], "No such option"),
    ],
)
def test_bad_arguments_of_check(monkeypatch, capsys, arguments, message):
    one_line(*optparity(monkeypatch, capsys, "check", *arguments), message)


def test_an_option_that_is_repeated_counts_once(monkeypatch, capsys):
    arguments = (
        "check",
        "sgd",
        "--jobs",
        1,
        "--stream",
        "normal",
        "--stream",
        "normal",
        "--dtype",
        "float32",
        "--dtype",
        "float32",
        "--steps",
        2,
    )
    status, out, _ = optparity(monkeypatch, capsys, *arguments)
    assert status == 0
    assert "8 trials, no difference" in out


def test_nothing_is_made_for_a_command_that_is_refused(monkeypatch, capsys, tmp_path):
    assert optparity(monkeypatch, capsys, "check", "adamm", "--json", tmp_path / "new" / "file.json")[0] == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the children of a process are read from /proc")
def test_ctrl_c_ends_the_processes_as_well():
    """Ctrl-C, which every process of the terminal gets, when the two that compute are there."""
    run = started(sys.executable, "-m", "optparity", "check", "rmsprop", "adam", "--jobs", "2", start_new_session=True)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    while len(children.read_text().split()) < 3:  # Python's tracker of resources is one
        assert run.poll() is None
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=120)
    assert (run.returncode, err) == (130, "optparity: interrupted\n")
    with contextlib.suppress(ProcessLookupError):  # until none of them is left
        while True:
            os.killpg(run.pid, 0)
            time.sleep(0.05)


def test_processes_that_nobody_waits_for_are_ended():
    """As for a caller who takes the first result only."""
    before = multiprocessing.active_children()
    trials = check.trials(["sgd", "momentum"], ["normal"], ["float32"], 2, 0)
    found = check.run(trials, jobs=2)
    assert next(found).ours.identical
    found.close()
    assert multiprocessing.active_children() == before


def test_what_stands_around_the_step_is_checked_too(monkeypatch, capsys):
    streams = ("--stream", "normal", "--stream", "digits", "--dtype", "float32", "--jobs", 1)
    status, out, _ = optparity(monkeypatch, capsys, "check", "clip_by_value", "by_path", "--around", "--steps", 4, *streams)
    assert status == 0
    assert re.search(r"clip_by_value: default +float32 +2/2", out)
    assert re.search(r"by_path: large +float32 +2/2", out)
    assert out.splitlines()[-1].startswith("10 trials, no difference")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("recipe",), "recipe stands around the step: say --around."),
        (("adam", "--around"), "--around adam: adam is an optimizer."),
        (("master_weights", "--around", "--dtype", "float64"), "nothing to do: no row of these pieces has these dtypes."),
    ],
)
def test_names_of_the_other_table_are_refused(arguments, message, monkeypatch, capsys):
    one_line(*optparity(monkeypatch, capsys, "check", *arguments), message)


def test_a_piece_that_differs_is_seen(monkeypatch, capsys):
    """With another limit on torch's side, the command says where, and exits with 1."""
    monkeypatch.setattr("torch_ref.clip_grad_value_", lambda params, limit, clip=torch_ref.clip_grad_value_: clip(params, limit / 2))
    arguments = ("check", "clip_by_value", "--around", "--steps", 2, "--stream", "normal", "--dtype", "float32", "--jobs", 1)
    status, out, _ = optparity(monkeypatch, capsys, *arguments)
    assert status == 1
    assert "clip_by_value: default on normal, float32: step 1, params" in out
