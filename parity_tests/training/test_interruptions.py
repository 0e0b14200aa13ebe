"""A run that was killed, stopped or resumed has the bits of one that was not."""

import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from optparity.cli import main
from optparity.cli import train as command
from optparity.registry import OPTIMIZERS
from optparity.training import checkpoint
from optparity.training.run import Training

from ..cli.running import optparity
from ..sampling import EXHAUSTIVE, sampled
from .runs import files, hashes, trained

pytestmark = pytest.mark.usefixtures("as_users_have_it")


def train_in_this_process(arguments, output):
    """`optparity train`, as a process that can be killed."""
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["optparity", "train", *map(str, arguments)]
    main()


def lines(file: Path) -> int:
    return file.read_text().count("\n") if file.exists() else 0


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=EXHAUSTIVE)])
def test_kills_do_not_change_a_bit(kills, tmp_path):
    """SIGKILL at random moments, most of them while checkpoints are being written; then to the end."""
    steps = 12 * kills
    arguments = {"task": "mlp", "optimizer": "adam", "options": {"amsgrad": True}, "gradients": "own"}
    expected = trained(tmp_path / "whole", steps, checkpoint_every=60, **arguments).result()
    folder, output, moments, reached = tmp_path / "killed", tmp_path / "output", random.Random(0), []
    log = folder / "log.csv"
    command = ["mlp", "--optimizer", "adam", "--option", "amsgrad=true", "--gradients", "own", "--steps", steps, "--checkpoint-every", 1]
    command += ["--out", folder]
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])  # imports once what every one of them needs
    for kill in range(kills):
        process = processes.Process(target=train_in_this_process, args=([*command, *(["--resume"] if kill else [])], output))
        written = lines(log)
        process.start()
        # Some while it starts, and the others after so many steps and a moment: nearly all of its time then goes into checkpoints.
        starting = kill % 3 == 1
        goal, deadline = (
            written + (1 if starting else moments.randint(1, 5)),
            time.monotonic() + (moments.uniform(0, 2) if starting else 120),
        )
        while process.is_alive() and lines(log) < goal and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0 if starting else moments.uniform(0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, output.read_text()
        latest = checkpoint.latest(folder / "checkpoints")
        reached.append(checkpoint.check(latest) if latest else 0)
    process = processes.Process(target=train_in_this_process, args=([*command, "--resume"], output))
    process.start()
    process.join(300)
    assert process.exitcode == 0, output.read_text()
    assert reached == sorted(reached)
    assert len(set(reached)) > kills // 3, reached
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(expected))
    assert (folder / "log.csv").read_text() == (tmp_path / "whole" / "log.csv").read_text()
    assert files(folder / "checkpoints") == [f"step-{steps - 1:08}", f"step-{steps:08}"]
    assert files(folder) == ["checkpoints", "curves.png", "log.csv", "result.json", "run.json"]


@pytest.mark.parametrize("optimizer", sampled(zip(OPTIMIZERS), lambda optimizer: optimizer in ("sgd", "adam")))
def test_resumed_is_as_if_never_stopped(optimizer, tmp_path):
    """Row "all" of each optimizer, on both sides, through a checkpoint in the middle of an epoch."""
    what = {"task": "mlp", "optimizer": optimizer, "options": OPTIMIZERS[optimizer].rows["all"], "gradients": "own"}
    whole = trained(tmp_path / "whole", 12, **what)
    trained(tmp_path / "parts", 7, **what)
    parts = trained(tmp_path / "parts", 12, resume=True, **what)
    assert hashes(parts) == hashes(whole)
    assert [line.loss for line in parts.lines] == [line.loss for line in whole.lines]


@pytest.mark.parametrize(("module", "name"), [(Training, "_advance"), (command, "progress")], ids=["in a step", "between steps"])
def test_ctrl_c_saves_and_exits(module, name, tmp_path, monkeypatch, capsys):
    before, folder = signal.getsignal(signal.SIGINT), tmp_path / "run"
    arguments = ("train", "mlp", "--steps", 8, "--out", folder)
    original = getattr(module, name)

    def interrupted(*args):
        result = original(*args)
        if name == "_advance" and result.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        elif name == "progress":
            update = result.update
            result.update = lambda *a, **k: (update(*a, **k), k["completed"] == 4 and os.kill(os.getpid(), signal.SIGINT))
        return result

    with monkeypatch.context() as patch:
        patch.setattr(module, name, interrupted)
        status, out, _ = optparity(patch, capsys, *arguments)
    assert status == 130
    assert "Stopped at step 4 of 8, and saved; --resume goes on." in out
    assert files(folder / "checkpoints") == ["step-00000004"]
    assert signal.getsignal(signal.SIGINT) is before
    status, out, _ = optparity(monkeypatch, capsys, *arguments, "--resume")
    assert status == 0
    assert "Going on from step 4." in out
    assert "0 of 57,872 elements differ" in out
    expected = trained(tmp_path / "whole", 8, task="mlp").result()
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(expected))


def test_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    """No file of more than 1,000 bytes can be written: the first checkpoint fails, and leaves nothing that is taken for one."""
    folder, before = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        status, _, err = optparity(monkeypatch, capsys, "train", "mlp", "--steps", 2, "--checkpoint-every", 1, "--out", folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2
    assert err.strip().count("\n") == 0
    assert f"optparity: {folder}/checkpoints/step-00000001 cannot be written: " in err
    assert checkpoint.latest(folder / "checkpoints") is None
    status, _, _ = optparity(monkeypatch, capsys, "train", "mlp", "--steps", 2, "--out", folder, "--resume")
    assert status == 0
    assert files(folder / "checkpoints") == ["step-00000002"]
