"""What `optparity convert` writes is whole or not there, and takes the place of nothing but with --force."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import torch_ref
from optparity.checkpoints import convert, safetensors_file
from optparity.checkpoints.checkpoint import Given

from ..cli.running import optparity
from .examples import ADAM, OUTPUTS, changed

pytestmark = pytest.mark.usefixtures("as_users_have_it")


def test_what_is_there_is_replaced_only_with_force(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    for out in (*OUTPUTS, "other.pt"):
        source = "out" if out == "other.pt" else "in.pt"
        given = ("convert", source, out, *(ADAM if source == "in.pt" else ()))
        assert optparity(monkeypatch, capsys, *given)[0] == 0
        before = {file: file.read_bytes() for file in sorted(Path().rglob("*")) if file.is_file()}
        status, shown, err = optparity(monkeypatch, capsys, *given)
        assert (status, shown, err) == (2, "", f"optparity: {out} is there already; --force replaces it.\n")
        assert before == {file: file.read_bytes() for file in sorted(Path().rglob("*")) if file.is_file()}
        assert optparity(monkeypatch, capsys, *given, "--force")[0] == 0
    assert sorted(os.listdir()) == ["in.pt", "other.pt", *OUTPUTS]


def test_a_folder_that_is_no_checkpoint_is_not_replaced(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("all of it")
    status, _, err = optparity(monkeypatch, capsys, "convert", "in.pt", "mine", *ADAM, "--force")
    assert (status, err) == (2, "optparity: mine is a folder that holds 'thesis.txt', which is not a checkpoint's; it is left as it is.\n")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "run", *ADAM)[0] == 0
    Path("mine/thesis.txt").rename("run/thesis.txt")
    status, _, err = optparity(monkeypatch, capsys, "convert", "in.pt", "run", *ADAM, "--force")
    assert (status, err) == (2, "optparity: run is a folder that holds 'thesis.txt', which is not a checkpoint's; it is left as it is.\n")
    Path("in.pt").rename("run/in.pt")
    status, _, err = optparity(monkeypatch, capsys, "convert", "run/in.pt", "run", *ADAM, "--force")
    assert (status, err) == (2, "optparity: run/in.pt is in run, which would be replaced.\n")
    assert Path("run/thesis.txt").read_text() == "all of it"


def test_a_link_is_followed(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    Path("elsewhere").mkdir()
    Path("out.safetensors").symlink_to("elsewhere/real.safetensors")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "out.safetensors", *ADAM)[0] == 0
    assert Path("out.safetensors").is_symlink()
    assert os.listdir("elsewhere") == ["real.safetensors"]


def test_what_is_replaced_comes_back_where_its_successor_does_not_arrive(monkeypatch, capsys, tmp_path):
    """The last rename fails, or the run is killed just before it."""
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    arguments = ("convert", "in.pt", "out", *ADAM)
    assert optparity(monkeypatch, capsys, *arguments)[0] == 0
    before = {file: file.read_bytes() for file in sorted(Path("out").rglob("*")) if file.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        assert optparity(patch, capsys, *arguments, "--force")[0] == 2
    assert before == {file: file.read_bytes() for file in sorted(Path("out").rglob("*")) if file.is_file()}
    Path(".out.replacing").mkdir()
    Path("out").rename(".out.replacing/old")
    status, _, err = optparity(monkeypatch, capsys, *arguments)
    assert (status, err) == (2, "optparity: out is there already; --force replaces it.\n")
    assert before == {file: file.read_bytes() for file in sorted(Path("out").rglob("*")) if file.is_file()}
    assert sorted(os.listdir()) == ["in.pt", "out"]


def test_a_full_disk_leaves_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")

    def full(checkpoint, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors_file, "write", full)
    status, _, err = optparity(monkeypatch, capsys, "convert", "in.pt", "out.safetensors", *ADAM)
    assert (status, err) == (2, "optparity: out.safetensors cannot be written: No space left on device.\n")
    assert os.listdir() == ["in.pt"]


def test_a_killed_run_leaves_no_half_file(tmp_path):
    """SIGKILL while it writes: no OUT; the next run takes away what was begun, and is whole."""
    weights = {f"w{i}": torch.randn(256, 1024) for i in range(32)}
    optimizer = torch_ref.AdaGrad(torch.nn.ParameterList(weights.values()).parameters())
    torch.save({"model": weights, "optimizer": optimizer.state_dict()}, tmp_path / "in.pt")
    for out in OUTPUTS:
        program = (
            "import sys, pathlib; from optparity.checkpoints import checkpoint, convert; source, out = map(pathlib.Path, sys.argv[1:])\n"
            "read = convert.read(source, checkpoint.Given('AdaGrad')); print('writing', flush=True); convert.write(read, out)"
        )
        run = subprocess.Popen([sys.executable, "-c", program, tmp_path / "in.pt", tmp_path / out], stdout=subprocess.PIPE, text=True)
        assert run.stdout.readline() == "writing\n"
        work, deadline = tmp_path / f".{out}.replacing", time.monotonic() + 60
        while not work.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
        assert work.exists()
        assert not (tmp_path / out).exists()
        convert.write(convert.read(tmp_path / "in.pt", Given("AdaGrad")), tmp_path / out)
        assert not work.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pt", *OUTPUTS]
