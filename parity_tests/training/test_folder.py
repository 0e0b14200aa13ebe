"""The folder of a run: what is in it, and that it is neither overwritten nor shared."""

import csv
import json
import shutil

import matplotlib.image
import pytest
import torch

from optparity.training.run import Run, Training

from ..cli.running import optparity
from .runs import files

pytestmark = pytest.mark.usefixtures("as_users_have_it")


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
