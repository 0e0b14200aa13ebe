"""Checkpoints and logs that are damaged are refused, in one line."""

import os
import shutil

import pytest
import torch

from optparity.training import checkpoint

from ..cli.running import optparity

pytestmark = pytest.mark.usefixtures("as_users_have_it")


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
