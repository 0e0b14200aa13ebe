"""Training runs: the same bits on both sides, the same bits after any interruption, and what is learned."""

import csv
import json
import multiprocessing
import os
import random
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

from . import cli
from .harness.table import OPTIMIZERS
from .test_cli import optparity
from .training import checkpoint, run
from .training.run import Run, Training
from .training.tasks import TASKS

pytestmark = pytest.mark.usefixtures("as_users_have_it")


def trained(folder: Path, steps: int, *, resume: bool = False, checkpoint_every: int = 10_000, **what) -> Training:
    training = Training(Run(**what), folder, resume=resume)
    for _ in training.go(steps, checkpoint_every=checkpoint_every):
        pass
    return training


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("task", TASKS)
def test_shared_gradients_keep_every_bit_and_the_model_learns(task, optimizer, tmp_path):
    """300 steps (1,000 of the classifier, to see what it comes to): every bit of parameters and state, at every step."""
    steps = 1000 if task == "mlp" else 300
    training = trained(tmp_path, steps, task=task, optimizer=optimizer)
    result = training.result()
    assert [line.differing for line in training.lines] == [0] * steps
    assert result["parameters"]["torch"] == result["parameters"]["jax"]
    assert result["elements"] >= sum(p.numel() for p in training.trainers[0].model.parameters())
    for side in ("torch", "jax"):
        if task == "mlp":
            assert result["accuracy"][side] >= 0.95
        elif task == "gpt":
            assert result["held_out"][side] < result["unigram_entropy"]
        else:
            assert result["r2"][side] > 0.5


def test_own_gradients_part_and_both_learn(tmp_path):
    """Each side with its own gradients: not the same bits, but below the entropy of the text in both."""
    training = trained(tmp_path, 100, task="gpt", gradients="own", optimizer="adam")
    result = training.result()
    assert result["differing"] > 0
    assert training.lines[0].distance < 1e-3
    assert set(training.lines[-1].loss) == {"torch", "jax"}
    for side in ("torch", "jax"):
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
    cli.main()


def test_ten_kills_do_not_change_a_bit(tmp_path):
    """SIGKILL at ten random moments, most of them while checkpoints are being written; then to the end."""
    arguments = {"task": "mlp", "optimizer": "adam", "options": {"amsgrad": True}, "gradients": "own"}
    expected = trained(tmp_path / "whole", 60, checkpoint_every=30, **arguments).result()
    folder, output, moments, reached = tmp_path / "killed", tmp_path / "output", random.Random(0), []
    log = folder / "log.csv"
    command = ["mlp", "--optimizer", "adam", "--option", "amsgrad=true", "--gradients", "own", "--steps", 60, "--checkpoint-every", 2]
    command += ["--out", folder]
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])  # imports once what every one of them needs
    for kill in range(10):
        process = processes.Process(target=train_in_this_process, args=([*command, *(["--resume"] if kill else [])], output))
        lines = log.read_text().count("\n") if log.exists() else 0
        process.start()
        begun = time.monotonic()
        # Two while it starts, and the others once it takes steps: nearly all of its time then goes into checkpoints.
        while kill not in (3, 6) and process.is_alive() and (not log.exists() or log.read_text().count("\n") <= lines):
            time.sleep(0.01)
            assert time.monotonic() - begun < 120
        time.sleep(moments.uniform(0, 2 if kill in (3, 6) else 0.5))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, output.read_text()
        latest = checkpoint.latest(folder / "checkpoints")
        reached.append(checkpoint.read(latest)["step"] if latest else 0)
    process = processes.Process(target=train_in_this_process, args=([*command, "--resume"], output))
    process.start()
    process.join(300)
    assert process.exitcode == 0, output.read_text()
    assert reached == sorted(reached)
    assert len(set(reached)) > 3, reached
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(expected))
    assert (folder / "log.csv").read_text() == (tmp_path / "whole" / "log.csv").read_text()
    assert files(folder / "checkpoints") == ["step-00000058", "step-00000060"]
    assert files(folder) == ["checkpoints", "curves.png", "log.csv", "result.json"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resumed_is_as_if_never_stopped(optimizer, tmp_path):
    """Row "all" of each optimizer, on both sides, through a checkpoint in the middle of an epoch."""
    label = "nesterov, all" if optimizer == "sgd" else "all"
    what = {"task": "mlp", "optimizer": optimizer, "options": OPTIMIZERS[optimizer].rows[label], "gradients": "own"}
    whole = trained(tmp_path / "whole", 12, **what)
    trained(tmp_path / "parts", 7, **what)
    parts = trained(tmp_path / "parts", 12, resume=True, **what)
    assert checkpoint.hashes(parts.trainers) == checkpoint.hashes(whole.trainers)
    assert [line.loss for line in parts.lines] == [line.loss for line in whole.lines]


def test_ctrl_c_saves_and_exits(tmp_path, monkeypatch, capsys):
    advance = Training._advance

    def interrupted(self):
        line = advance(self)
        if line.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return line

    before = signal.getsignal(signal.SIGINT)
    arguments = ("train", "mlp", "--steps", 8, "--out", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_advance", interrupted)
        status, out, _ = optparity(patch, capsys, *arguments)
    assert status == 130
    assert "Stopped at step 4 of 8, and saved; --resume goes on." in out
    assert signal.getsignal(signal.SIGINT) is before
    status, out, _ = optparity(monkeypatch, capsys, *arguments, "--resume")
    assert status == 0
    assert "Going on from step 4." in out
    assert "0 of 57,872 elements differ" in out
    expected = trained(tmp_path / "whole", 8, task="mlp").result()
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == json.loads(json.dumps(expected))


def test_what_a_run_leaves_can_be_read(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    arguments = ("--steps", 6, "--eval-every", 3, "--checkpoint-every", 2, "--gradients", "own", "--set", "hidden_features=8", "--lr", 0.01)
    status, out, _ = optparity(monkeypatch, capsys, "train", "mlp", *arguments, "--out", folder)
    assert status == 0
    assert max(map(len, out.splitlines())) <= 100
    assert files(folder) == ["checkpoints", "curves.png", "log.csv", "result.json"]
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


def other_bits(path):
    saved = torch.load(path / "torch.pt", weights_only=True)
    saved["model"]["hidden.weight"][0, 0] += 1e-3
    torch.save(saved, path / "torch.pt")


def flip_in_jax(path):
    """One bit in the middle of the largest file of the Orbax folder."""
    file = max((file for file in (path / "jax").rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGES = {
    "no torch.pt": (lose("torch.pt"), "the torch side cannot be read"),
    "half of torch.pt": (truncate("torch.pt"), "the torch side cannot be read"),
    "other bits in torch.pt": (other_bits, "the torch side's bits are not those that were saved"),
    "no jax": (lose("jax"), "the jax side cannot be read"),
    "one bit of jax": (flip_in_jax, "the jax side"),
    "no run.json": (lose("run.json"), "cannot be read"),
    "half of run.json": (truncate("run.json"), "cannot be read"),
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tree"], "unknown task 'tree'; one of cruncher, mlp, gpt is needed."),
        (["gpt", "--set", "n_head=3"], "GPT: n_head divides n_embd; got n_head 3, n_embd 64."),
        (["gpt", "--set", "n_embd=-4"], "GPT: n_embd is a positive integer; got -4."),
        (["gpt", "--set", "n_layer=1.5"], "GPT: n_layer is a positive integer; got 1.5."),
        (["gpt", "--set", "block_size=100000"], "gpt: block_size < 4306, the length of the text held out; got 100000."),
        (["mlp", "--set", "n_layer=2"], "unknown --set key 'n_layer'; one of hidden_features is needed."),
        (["mlp", "--set", "hidden_features"], "--set hidden_features: KEY=VALUE is needed."),
        (["mlp", "--optimizer", "lion"], "unknown optimizer 'lion'; one of sgd, momentum, adagrad, rmsprop, adam, adamw is needed."),
        (["mlp", "--option", "beta=1"], "unknown --option key 'beta'; one of b1, b2, eps, weight_decay, amsgrad, maximize, "),
        (["mlp", "--option", "amsgrad=1"], "--option amsgrad=1: true or false is needed."),
        (["mlp", "--option", "b1=high"], "--option b1=high: a number is needed."),
        (["mlp", "--option", "b1=2"], "Invalid beta parameter at index 0: 2.0 (adam: 0 <= b1 < 1)"),
        (["mlp", "--lr", "-1"], "Invalid learning rate: -1.0 (adam: lr >= 0)"),
        (["mlp", "--batch-size", "5000"], "train: batch_size <= 1347, the number of examples; got 5000."),
        (["mlp", "--steps", "0"], "Invalid value for '--steps': "),
        (["mlp", "--framework", "keras"], "unknown framework 'keras'; one of torch, jax, both is needed."),
        (["mlp", "--framework", "jax", "--gradients", "shared"], "--gradients shared: PyTorch's gradients need --framework both."),
        (["mlp", "--gradients", "no"], "unknown gradients 'no'; one of shared, own is needed."),
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
