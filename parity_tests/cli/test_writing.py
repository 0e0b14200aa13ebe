"""Where the commands write their reports: to files, which are replaced whole, and through pipes and terminals. Nothing else is touched."""

import json
import os
import socket
import subprocess
import sys
import threading
import tty
from pathlib import Path

import pytest

from .running import one_line, optparity

COST = ("cost", "cruncher", "--batch", 2, "--json")
WRITING = {
    "cost": COST,
    "check": ("check", "--json"),
    "golden": ("golden", "write"),
    "drift": ("drift",),
}


def dangling():
    Path("x.json").symlink_to("nowhere")


def circle():
    Path("x.json").symlink_to("x.json")


def behind_a_dangling_link():
    Path("gone").symlink_to("nowhere")


def bound():
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("x.json")


ODD = {
    "a dangling link": (dangling, "x.json", "x.json cannot be written: the link x.json leads nowhere."),
    "a link to itself": (circle, "x.json", "x.json cannot be written: "),
    "a folder that is a dangling link": (
        behind_a_dangling_link,
        "gone/x.json",
        "gone/x.json cannot be written: the link gone leads nowhere.",
    ),
    "a socket": (bound, "x.json", "x.json cannot be written: it is no regular file."),
    "a folder": (lambda: Path("x.json").mkdir(), "x.json", "x.json is a folder; a file name is needed."),
    "a name too long": (lambda: None, "x" * 300, "cannot be written: File name too long."),
    "a file for a folder": (lambda: Path("x").touch(), "x/x.json", "x/x.json cannot be written: Not a directory."),
}


@pytest.mark.parametrize("label", ODD)
@pytest.mark.parametrize("command", WRITING)
def test_what_cannot_be_replaced_is_refused_before_any_work(monkeypatch, capsys, tmp_path, command, label):
    monkeypatch.chdir(tmp_path)
    make, path, message = ODD[label]
    make()
    before = sorted((entry.name, entry.lstat().st_mode, entry.lstat().st_ino) for entry in tmp_path.iterdir())
    one_line(*optparity(monkeypatch, capsys, *WRITING[command], path), message)
    assert before == sorted((entry.name, entry.lstat().st_mode, entry.lstat().st_ino) for entry in tmp_path.iterdir())


def test_a_pipe_gets_the_report(monkeypatch, capsys, tmp_path):
    """A named one, and what a shell makes of `>(program)`."""
    named, read = tmp_path / "pipe", []
    os.mkfifo(named)
    reader = threading.Thread(target=lambda: read.append(named.read_text()))
    reader.start()
    while optparity(monkeypatch, capsys, *COST, named)[0]:  # until it is open
        pass
    reader.join()
    ours, theirs = os.pipe()
    assert optparity(monkeypatch, capsys, *COST, f"/dev/fd/{theirs}")[0] == 0
    os.close(theirs)
    with open(ours) as opened:
        assert json.loads(read[0]) == json.load(opened)
    assert named.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_pipe_that_nobody_reads_is_not_waited_for(monkeypatch, capsys, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    status, _, err = optparity(monkeypatch, capsys, *COST, tmp_path / "pipe")
    assert (status, err) == (2, f"optparity: {tmp_path}/pipe cannot be used: no process reads it.\n")
    assert (tmp_path / "pipe").is_fifo()


def test_a_device_gets_the_report(monkeypatch, capsys):
    """A terminal, as /dev/null would."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    got = []

    def listen():
        while not (got and got[-1].endswith(b"}")):
            got.append(os.read(ours, 1 << 16))

    reader = threading.Thread(target=listen)
    reader.start()
    assert optparity(monkeypatch, capsys, *COST, os.ttyname(theirs))[0] == 0
    reader.join()
    assert json.loads(b"".join(got))["model"] == "cruncher"
    os.close(ours)
    os.close(theirs)


def test_what_is_printed_to_is_not_replaced(tmp_path):
    """A shell has opened it before: the table would go to a file without a name."""
    out = tmp_path / "out.txt"
    program = (sys.executable, "-m", "optparity", *map(str, COST), out)
    with out.open("w") as opened:
        run = subprocess.run(program, stdout=opened, stderr=subprocess.PIPE, text=True, check=False)
    assert (run.returncode, run.stderr) == (2, f"optparity: {out} cannot be written: it is the file that is printed to.\n")
    assert out.read_text() == ""


@pytest.mark.parametrize("command", ["cost gpt2", "check sgd"])
def test_a_picture_is_not_sent_through_a_pipe(monkeypatch, capsys, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    one_line(
        *optparity(monkeypatch, capsys, *command.split(), "--plot", "pipe.png"), "--plot pipe.png cannot be written: it is no regular file."
    )
    assert Path("pipe.png").is_fifo()
