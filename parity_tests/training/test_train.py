"""Training runs: the same bits on both sides, the same bits after any interruption, and what is learned."""

import csv
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import jax
import matplotlib.image
import numpy as np
import pytest
import torch

from optparity.cli import main
from optparity.cli import train as command
from optparity.parity.bits import digest
from optparity.registry import OPTIMIZERS
from optparity.training import checkpoint, run
from optparity.training.run import Run, Training
from optparity.training.tasks import TASKS

from ..cli.running import optparity

pytestmark = pytest.mark.usefixtures("as_users_have_it")


SMALLER = {"gpt": {"n_embd": 32, "block_size": 32}}  # to save time


def trained(folder: Path, steps: int, *, resume: bool = False, checkpoint_every: int = 10_000, **what) -> Training:
    with Training(Run(**what), folder, resume=resume) as training:
        for _ in training.go(steps, checkpoint_every=checkpoint_every):
            pass
    return training


def hashes(training: Training) -> dict[str, str]:
    """Of every bit of each side's parameters and state."""
    return {trainer.name: digest([array for _, array in sorted(trainer.arrays().items())]) for trainer in training.trainers}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("task", TASKS)
def test_shared_gradients_keep_every_bit(task, optimizer, tmp_path):
    """300 steps at the documented settings: every bit of parameters and state, at every step."""
    training = trained(tmp_path / "run", 300, task=task, optimizer=optimizer, settings=SMALLER.get(task, {}))
    result = training.result()
    assert [line.differing for line in training.lines] == [0] * 300
    assert result["parameters"]["torch"] == result["parameters"]["jax"]
    assert result["elements"] >= sum(p.numel() for p in training.trainers[0].model.parameters())
    assert result["held_out"]["jax"] < 0.9 * training.lines[0].loss["torch"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("task", "steps"), [("mlp", 1000), ("gpt", 100)])
def test_own_gradients_part_and_both_sides_learn(task, steps, optimizer, tmp_path):
    """At the documented settings: the classifier to 95 % of what is held out, the GPT below the entropy of its text, in both frameworks."""
    training = trained(tmp_path / "run", steps, task=task, gradients="own", optimizer=optimizer, settings=SMALLER.get(task, {}))
    result = training.result()
    assert result["differing"] > 0
    assert training.lines[0].distance < 1e-3
    for side in ("torch", "jax"):
        assert len([line for line in training.lines if side in line.loss]) == steps
        if task == "mlp":
            assert result["accuracy"][side] >= 0.95
        else:
            assert result["held_out"][side] < result["unigram_entropy"]


def test_a_bit_that_differs_is_seen(tmp_path, monkeypatch, capsys):
    """With one bit of one moment flipped on one side, the run says so and exits with 1."""
    apart = run._apart

    def flipped(got, expected):
        name = next(name for name in got if name.startswith("exp_avg."))
        bits = got[name].copy().view(np.uint32)
        bits.flat[0] ^= 1
        return apart({**got, name: bits.view(np.float32)}, expected)

    monkeypatch.setattr(run, "_apart", flipped)
    status, out, _ = optparity(monkeypatch, capsys, "train", "mlp", "--steps", 2, "--out", tmp_path / "run")
    assert status == 1
    assert "2 of 14,468 elements differ" in out


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_one_framework_goes_the_way_of_the_pair(framework, tmp_path):
    """A run of one framework, and the same side of a run of both with own gradients, end in the same bits."""
    alone = trained(tmp_path / "alone", 5, task="mlp", framework=framework, gradients="own").result()
    pair = trained(tmp_path / "pair", 5, task="mlp", gradients="own").result()
    assert list(alone["parameters"]) == [framework]
    assert alone["parameters"][framework] == pair["parameters"][framework]
    assert "differing" not in alone


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def train_in_this_process(arguments, output):
    """`optparity train`, as a process that can be killed."""
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["optparity", "train", *map(str, arguments)]
    main()


def lines(file: Path) -> int:
    return file.read_text().count("\n") if file.exists() else 0


def test_ten_kills_do_not_change_a_bit(tmp_path):
    """SIGKILL at ten random moments, most of them while checkpoints are being written; then to the end."""
    arguments = {"task": "mlp", "optimizer": "adam", "options": {"amsgrad": True}, "gradients": "own"}
    expected = trained(tmp_path / "whole", 120, checkpoint_every=60, **arguments).result()
    folder, output, moments, reached = tmp_path / "killed", tmp_path / "output", random.Random(0), []
    log = folder / "log.csv"
    command = ["mlp", "--optimizer", "adam", "--option", "amsgrad=true", "--gradients", "own", "--steps", 120, "--checkpoint-every", 1]
    command += ["--out", folder]
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])  # imports once what every one of them needs
    for kill in range(10):
        process = processes.Process(target=train_in_this_process, args=([*command, *(["--resume"] if kill else [])], output))
        written = lines(log)
        process.start()
        # Two while it starts, and the others after so many steps and a moment: nearly all of its time then goes into checkpoints.
        starting = kill in (3, 6)
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
    assert len(set(reached)) > 3, reached
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(expected))
    assert (folder / "log.csv").read_text() == (tmp_path / "whole" / "log.csv").read_text()
    assert files(folder / "checkpoints") == ["step-00000119", "step-00000120"]
    assert files(folder) == ["checkpoints", "curves.png", "log.csv", "result.json", "run.json"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resumed_is_as_if_never_stopped(optimizer, tmp_path):
    """Row "all" of each optimizer, on both sides, through a checkpoint in the middle of an epoch."""
    label = "nesterov, all" if optimizer == "sgd" else "all"
    what = {"task": "mlp", "optimizer": optimizer, "options": OPTIMIZERS[optimizer].rows[label], "gradients": "own"}
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


def test_what_a_run_leaves_can_be_read(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    arguments = ("--steps", 6, "--eval-every", 3, "--checkpoint-every", 2, "--gradients", "own", "--set", "hidden_features=8", "--lr", 0.01)
    status, out, _ = optparity(monkeypatch, capsys, "train", "mlp", *arguments, "--out", folder)
    assert status == 0
    assert max(map(len, out.splitlines())) <= 100
    assert files(folder) == ["checkpoints", "curves.png", "log.csv", "result.json", "run.json"]
    assert files(folder / "checkpoints") == ["step-00000004", "step-00000006"]
    rows = list(csv.DictReader((folder / "log.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [bool(row["held_out_jax"]) for row in rows] == [False, False, True, False, False, True]
    result = json.loads((folder / "result.json").read_text())
    assert float(rows[-1]["held_out_torch"]) == result["held_out"]["torch"]
    assert result["arguments"] == {"hidden_features": 8, "in_features": 64, "out_features": 10}
    assert result["run"]["learning_rate"] == 0.01
    height, width, _ = matplotlib.image.imread(folder / "curves.png").shape
    assert (width > 800, height > 600) == (True, True)
    saved = torch.load(folder / "checkpoints" / "step-00000006" / "torch.pt", weights_only=True)
    assert set(saved) == {"model", "optimizer"}
    torch.optim.Adam([torch.nn.Parameter(p) for p in saved["model"].values()]).load_state_dict(saved["optimizer"])


def lose(name):
    def break_it(path):
        (shutil.rmtree if (path / name).is_dir() else os.remove)(path / name)

    return break_it


def truncate(name):
    def break_it(path):
        os.truncate(path / name, (path / name).stat().st_size // 2)

    return break_it


def other_rate(path):
    saved = torch.load(path / "torch.pt", weights_only=True)
    saved["optimizer"]["param_groups"][0]["lr"] = 0.5
    torch.save(saved, path / "torch.pt")


def flip_in_jax(path):
    """One bit in the middle of the largest file of the Orbax folder."""
    file = max((file for file in (path / "jax").rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def document(text):
    return lambda path: (path / "checkpoint.json").write_text(text)


DAMAGES = {
    "no torch.pt": (lose("torch.pt"), "torch.pt is not as it was saved."),
    "half of torch.pt": (truncate("torch.pt"), "torch.pt is not as it was saved."),
    "another rate in torch.pt": (other_rate, "torch.pt is not as it was saved."),
    "no jax": (lose("jax"), "is not as it was saved."),
    "one bit of jax": (flip_in_jax, "is not as it was saved."),
    "one file more": (lambda path: (path / "jax" / "more").touch(), "jax/more is not as it was saved."),
    "no checkpoint.json": (lose("checkpoint.json"), "checkpoint.json cannot be read: FileNotFoundError"),
    "half of checkpoint.json": (truncate("checkpoint.json"), "checkpoint.json cannot be read: JSONDecodeError"),
    "a list": (document("[]"), "checkpoint.json cannot be read: TypeError"),
    "no files": (document('{"step": 2}'), "checkpoint.json cannot be read: KeyError"),
    "files are null": (document('{"step": 2, "files": null}'), "checkpoint.json is not that of step-00000002."),
    "another step": (document('{"step": 1, "files": {}}'), "checkpoint.json is not that of step-00000002."),
    "no step": (document('{"step": "2", "files": {}}'), "checkpoint.json is not that of step-00000002."),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train") / "run"
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        trained(folder, 2, task="mlp")
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_one_line(damage, saved, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    break_it, message = DAMAGES[damage]
    path = checkpoint.latest(folder / "checkpoints")
    break_it(path)
    status, out, err = optparity(monkeypatch, capsys, "train", "mlp", "--steps", 3, "--out", folder, "--resume")
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"optparity: {path}")
    assert message in err


LOGS = {
    "absent": (lambda log: log.unlink(), "log.csv cannot be read: FileNotFoundError"),
    "empty": (lambda log: log.write_text(""), "log.csv has not the steps from 1 to 2, where the latest checkpoint is."),
    "a line less": (lambda log: log.write_text("".join(log.read_text().splitlines(True)[:-1])), "log.csv has not the steps from 1 to 2"),
    "other columns": (lambda log: log.write_text("a,b\n1,2\n"), "log.csv cannot be read: KeyError"),
    "no numbers": (lambda log: log.write_text(log.read_text().replace("1,", "one,")), "log.csv cannot be read: ValueError"),
    "not text": (lambda log: log.write_bytes(b"\xff\xfe"), "log.csv cannot be read: UnicodeDecodeError"),
}


@pytest.mark.parametrize("damage", LOGS)
def test_a_damaged_log_is_refused_in_one_line(damage, saved, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    break_it, message = LOGS[damage]
    break_it(folder / "log.csv")
    status, out, err = optparity(monkeypatch, capsys, "train", "mlp", "--steps", 3, "--out", folder, "--resume")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"optparity: train: {folder}/{message}" in err


def test_a_run_without_a_checkpoint_begins_again_and_says_so(saved, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    shutil.rmtree(folder / "checkpoints")
    status, _, err = optparity(monkeypatch, capsys, "train", "mlp", "--seed", 1, "--steps", 1, "--out", folder, "--resume")
    assert (status, err) == (2, f"optparity: train: {folder} was begun with seed 0; got 1.\n")
    status, out, _ = optparity(monkeypatch, capsys, "train", "mlp", "--steps", 1, "--out", folder, "--resume")
    assert status == 0
    assert "No checkpoint yet: from the start." in out
    assert len((folder / "log.csv").read_text().splitlines()) == 2


def test_one_process_at_a_time(saved, monkeypatch, capsys):
    with Training(Run("mlp"), saved, resume=True):
        status, _, err = optparity(monkeypatch, capsys, "train", "mlp", "--out", saved, "--resume")
    assert (status, err) == (2, f"optparity: train: {saved} is in use by another process.\n")


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tree"], "Invalid value for 'task': 'tree' is not one of 'cruncher', 'mlp', 'gpt'."),
        (["gpt", "--set", "n_head=3"], "GPT: n_head divides n_embd; got n_head 3, n_embd 64."),
        (["gpt", "--set", "n_embd=-4"], "GPT: n_embd is a positive integer; got -4."),
        (["gpt", "--set", "n_layer=1.5"], "GPT: n_layer is a positive integer; got 1.5."),
        (["gpt", "--set", "block_size=100000"], "gpt: block_size < 4306, the length of the text held out; got 100000."),
        (["mlp", "--set", "n_layer=2"], "unknown --set key 'n_layer'; one of hidden_features is needed."),
        (["mlp", "--set", "hidden_features"], "--set hidden_features: KEY=VALUE is needed."),
        (["mlp", "--optimizer", "lyon"], "Invalid value for '--optimizer': 'lyon' is not one of 'sgd', 'momentum', "),
        (["mlp", "--option", "beta=1"], "unknown --option key 'beta'; one of b1, b2, eps, weight_decay, amsgrad, maximize, "),
        (["mlp", "--option", "amsgrad=1"], "adam: amsgrad is true or false; got 1."),
        (["mlp", "--option", "b1=high"], "adam: b1 is a number; got 'high'."),
        (["mlp", "--option", "b1=2"], "Invalid beta parameter at index 0: 2.0 (adam: 0 <= b1 < 1)"),
        (["mlp", "--lr", "-1"], "Invalid learning rate: -1.0 (adam: lr >= 0)"),
        (["mlp", "--batch-size", "5000"], "train: batch_size <= 1347, the number of examples; got 5000."),
        (["mlp", "--steps", "0"], "Invalid value for '--steps': "),
        (["mlp", "--framework", "keras"], "Invalid value for '--framework': 'keras' is not one of 'torch', 'jax', 'both'."),
        (["mlp", "--framework", "jax", "--gradients", "shared"], "--gradients shared: PyTorch's gradients need --framework both."),
        (["mlp", "--framework", "torch", "--gradients", "shared"], "--gradients shared: PyTorch's gradients need --framework both."),
        (["mlp", "--seed", "4294967296"], "Invalid value for '--seed': "),
        (["mlp", "--set", "hidden_features=99999999999999"], ""),
        (["mlp", "--gradients", "no"], "Invalid value for '--gradients': 'no' is not one of 'shared', 'own'."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments_are_said_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    status, out, err = optparity(monkeypatch, capsys, "train", *arguments, "--out", tmp_path / "run")
    assert status == 2
    assert out == ""
    assert err.startswith(f"optparity: {message}")
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_not_overwritten(saved, tmp_path, monkeypatch, capsys):
    before = (saved / "log.csv").read_bytes()
    for more, message in [
        ([], f"train: {saved} holds a run already; --resume goes on with it, --out names another folder."),
        (["--resume", "--seed", 1], f"train: {saved} was begun with seed 0; got 1."),
        (["--resume", "--optimizer", "sgd"], f"train: {saved} was begun with optimizer adam; got sgd."),
    ]:
        status, _, err = optparity(monkeypatch, capsys, "train", "mlp", "--out", saved, *more)
        assert (status, err) == (2, f"optparity: {message}\n")
    assert (saved / "log.csv").read_bytes() == before
    (tmp_path / "file").write_text("")
    status, _, err = optparity(monkeypatch, capsys, "train", "mlp", "--out", tmp_path / "file")
    assert (status, err.count("\n")) == (2, 1)
