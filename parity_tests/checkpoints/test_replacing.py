"""What `optparity convert` writes is whole or not there, and takes the place of nothing but with --force."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import torch_ref
from optparity import _files
from optparity.checkpoints import convert, safetensors_file
from optparity.checkpoints.checkpoint import Given, RefusedError

from ..cli.running import optparity
from .examples import ADAM, OUTPUTS, changed, trained

pytestmark = pytest.mark.usefixtures("as_users_have_it")


def contents():
    """Of every file in and under the working folder."""
    return {file: file.read_bytes() for file in sorted(Path().rglob("*")) if file.is_file()}


def fails(error):
    def failing(*_, **__):
        raise error

    return failing


def test_what_is_there_is_replaced_only_with_force(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    for out in (*OUTPUTS, "other.pt"):
        source = "out" if out == "other.pt" else "in.pt"
        given = ("convert", source, out, *(ADAM if source == "in.pt" else ()))
        assert optparity(monkeypatch, capsys, *given)[0] == 0
        before = contents()
        status, shown, err = optparity(monkeypatch, capsys, *given)
        assert (status, shown, err) == (2, "", f"optparity: {out} is there already; --force replaces it.\n")
        assert before == contents()
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
    """To a file that is there, which is then replaced."""
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    Path("elsewhere").mkdir()
    Path("elsewhere/real.safetensors").write_text("old")
    Path("out.safetensors").symlink_to("elsewhere/real.safetensors")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "out.safetensors", *ADAM, "--force")[0] == 0
    assert Path("out.safetensors").is_symlink()
    assert Path("elsewhere/real.safetensors").stat().st_size > 1000
    assert os.listdir("elsewhere") == ["real.safetensors"]


@pytest.mark.parametrize("in_one_step", [True, False])
def test_what_is_replaced_comes_back_where_its_successor_does_not_arrive(monkeypatch, capsys, tmp_path, in_one_step):
    """The last rename fails, or the run is killed just before it, on systems that exchange two folders and on others."""
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    arguments = ("convert", "in.pt", "out", *ADAM)
    assert optparity(monkeypatch, capsys, *arguments)[0] == 0
    before = contents()
    with monkeypatch.context() as patch:
        if in_one_step:
            patch.setattr(_files, "_exchanged", fails(OSError(5, "Input/output error")))
        else:
            patch.setattr(_files, "_exchanged", lambda one, other: False)
            patch.setattr(Path, "replace", fails(OSError(5, "Input/output error")))
        status, _, err = optparity(patch, capsys, *arguments, "--force")
        assert (status, err) == (2, "optparity: out cannot be written: Input/output error.\n")
    assert contents() == before
    Path(".out.replacing").mkdir()
    Path("out").rename(".out.replacing/old")
    status, _, err = optparity(monkeypatch, capsys, *arguments)
    assert (status, err) == (2, "optparity: out is there already; --force replaces it.\n")
    assert contents() == before
    assert sorted(os.listdir()) == ["in.pt", "out"]


@pytest.mark.skipif(sys.platform != "linux", reason="two folders are exchanged in one step on Linux alone")
def test_two_folders_are_exchanged_in_one_step(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / folder.name).touch()
    assert _files._exchanged(one, other)
    assert [os.listdir(folder) for folder in (one, other)] == [["other"], ["one"]]
    assert not _files._exchanged(one, tmp_path / "nothing")


@pytest.mark.parametrize("out", OUTPUTS)
def test_what_appears_at_the_last_moment_is_kept(monkeypatch, tmp_path, out):
    """Between the last look and the rename."""
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    checkpoint, place = convert.read(Path("in.pt"), Given("Adam")), _files._place_fresh

    def late(new, target):
        Path(out).mkdir() if out == "out" else Path(out).write_text("another's")
        if out == "out":
            Path(out, "thesis.txt").write_text("another's")
        place(new, target)

    monkeypatch.setattr(_files, "_place_fresh", late)
    with pytest.raises(RefusedError, match=f"^{out} cannot be written: (File exists|Directory not empty)"):
        convert.write(checkpoint, Path(out))
    assert (Path(out, "thesis.txt") if out == "out" else Path(out)).read_text() == "another's"
    assert sorted(os.listdir()) == ["in.pt", out]


def test_a_device_that_appears_while_it_writes_is_kept(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    checkpoint, write = convert.read(Path("in.pt"), Given("Adam")), safetensors_file.write

    def late(checkpoint, path):
        write(checkpoint, path)
        os.mkfifo("out.safetensors")

    monkeypatch.setattr(safetensors_file, "write", late)
    with pytest.raises(RefusedError, match=r"^out.safetensors cannot be written: it is no regular file\.$"):
        convert.write(checkpoint, Path("out.safetensors"), force=True)
    assert Path("out.safetensors").is_fifo()
    assert sorted(os.listdir()) == ["in.pt", "out.safetensors"]


def test_a_link_that_is_turned_while_it_writes_is_not_followed(tmp_path):
    link = tmp_path / "link"
    for name in ("one", "other"):
        (tmp_path / name).write_text(name)
    link.symlink_to("one")

    def write():
        with _files.replacing(link) as new:
            new.write_text("new")
            link.unlink()
            link.symlink_to("other")

    with pytest.raises(OSError, match="the link has been changed meanwhile"):
        write()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"one": "one", "other": "other", "link": "other"}


def test_on_a_file_system_without_links_and_locks(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "link", fails(OSError(errno.EPERM, "Operation not permitted")))
    monkeypatch.setattr(_files.fcntl, "flock", fails(OSError(errno.ENOLCK, "No locks available")))
    with _files.replacing(tmp_path / "out", fresh=True) as new:
        new.write_text("new")
    with pytest.raises(OSError, match="Operation not permitted"), _files.replacing(tmp_path / "out", fresh=True) as new:
        new.write_text("newer")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out", "new")]


def test_one_process_at_a_time(tmp_path):
    """The second is refused, and takes nothing away from the first."""
    path = tmp_path / "out"
    with _files.replacing(path) as new:
        new.write_text("new")
        with pytest.raises(OSError, match="another process is writing it"), _files.replacing(path):
            pytest.fail("two write at once")
        with pytest.raises(OSError, match="another process is writing it"):
            _files.recover(path)
    assert path.read_text() == "new"


def test_a_lock_that_came_too_late_is_none(monkeypatch, tmp_path):
    """The folder was another's for a moment, who has taken it away and made it anew."""
    flock = _files.fcntl.flock

    def late(descriptor, how):
        flock(descriptor, how)
        for path in tmp_path.iterdir():
            path.rename(tmp_path / "gone")
            path.mkdir()

    monkeypatch.setattr(_files.fcntl, "flock", late)
    with pytest.raises(OSError, match="another process is writing it"), _files.replacing(tmp_path / "out"):
        pytest.fail("it is not locked")
    assert sorted(os.listdir(tmp_path)) == [".out.replacing", "gone"]


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_has_the_name_of_the_unfinished_is_kept(monkeypatch, capsys, tmp_path, kind):
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("all of it")
    work = Path(".out.replacing")
    {"file": lambda: work.write_text("x"), "folder": lambda: Path("mine").rename(work), "link": lambda: work.symlink_to("mine")}[kind]()
    before = contents()
    status, shown, err = optparity(monkeypatch, capsys, "convert", "in.pt", "out", *ADAM)
    assert status == 2
    assert err.startswith("optparity: out cannot be written: ")
    assert ".out.replacing is in the way" in err
    assert contents() == before
    assert "written to" not in shown


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


KILLING = Path(__file__).with_name("killing.py")
MOMENTS = {  # before this the run is ended: what is there then
    "os.rename": "old",
    "ctypes.dlsym": "old",  # where two folders are exchanged
    "shutil.rmtree": "new",
    "os.rmdir": "new",
    "never": "new",
}
ENDED = {"SIGKILL": -9, "SIGTERM": -15, "SIGINT": 130}


@pytest.mark.parametrize(
    ("out", "number", "moments"),
    [
        ("out.safetensors", "SIGTERM", ("os.rename", "shutil.rmtree", "never")),
        ("out.safetensors", "SIGINT", ("shutil.rmtree",)),
        ("out", "SIGKILL", ("os.rename", "ctypes.dlsym", "shutil.rmtree", "never")),
        ("out", "SIGINT", ("ctypes.dlsym", "os.rmdir")),
    ],
)
def test_a_killed_run_leaves_the_old_or_the_new(monkeypatch, tmp_path, out, number, moments):
    """Whole; and the next run takes away what was begun."""
    monkeypatch.chdir(tmp_path)
    for step in (2, 3):
        torch.save(trained(torch.optim.Adam, steps=step, groups=lambda model: model.named_parameters()), "in.pt")
        if step == 2:
            convert.write(convert.read(Path("in.pt"), Given("Adam")), Path(out))
            Path(out).rename("old")
    program = (sys.executable, KILLING, out, number, *map(str, moments))
    run = subprocess.run(program, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    ended = {moment: 0 if moment == "never" else ENDED[number] for moment in moments}
    assert run.stdout.splitlines() == [f"{moment} {ended[moment]} {MOMENTS[moment]} 0 - new" for moment in moments]
