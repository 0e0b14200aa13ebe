"""Damaged, hostile and odd files: one line, exit 2, nothing left, nothing replaced, and no code run."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from optparity.checkpoints import convert
from optparity.checkpoints.checkpoint import Given

from ..cli.running import optparity
from .examples import ADAM, changed
from .hostile import CASES

TIMEOUT = 60  # seconds
pytestmark = pytest.mark.usefixtures("as_users_have_it")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with one checkpoint in the three formats."""
    folder = tmp_path_factory.mktemp("good")
    torch.save(changed(), folder / "good.pt")
    for name in ("good.safetensors", "good"):
        convert.write(convert.read(folder / "good.pt", Given("Adam")), folder / name)
    (folder / "canary").write_text("untouched")
    return folder


@pytest.fixture
def folder(good, tmp_path, monkeypatch):
    """A copy of it, which is the working folder."""
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def in_time():
    """No refusal takes long: what goes on and on fails."""

    def over(number, frame):
        raise TimeoutError("it takes too long")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(TIMEOUT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def listing():
    """All that is in the working folder: kinds, links and contents."""
    found = {}
    for path in sorted(Path().rglob("*")):
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[path] = (path.lstat().st_mode, content)
    return found


def in_a_process(*arguments):
    command = [sys.executable, "-m", "optparity", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    return run.returncode, run.stdout, run.stderr


def test_there_are_many():
    assert len(CASES) >= 60


@pytest.mark.parametrize("label", CASES)
def test_is_refused_in_one_line(folder, monkeypatch, capsys, label):
    case = CASES[label]
    case.make()
    before = listing()
    arguments = ("convert", *case.arguments)
    status, out, err = in_a_process(*arguments) if case.waits else optparity(monkeypatch, capsys, *arguments)
    assert (status, err.count("\n")) == (2, 1), err
    assert case.late or not out
    assert re.match(f"optparity: {case.message}", err), err
    assert listing() == before
    assert Path("canary").read_text() == "untouched"


@pytest.mark.parametrize(("source", "out"), [("good.pt", "new.safetensors"), ("good.safetensors", "new.pt")])
def test_a_full_file_system_leaves_nothing(folder, monkeypatch, capsys, source, out):
    """No file may be longer than 1,000 bytes, which stands for a full one: it fails in the middle of what the libraries write."""
    before, limits = listing(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        status, _, err = optparity(monkeypatch, capsys, "convert", source, out, *ADAM)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (status, err.count("\n")) == (2, 1), err
    assert err.startswith(f"optparity: {out}")
    assert listing() == before


def test_a_long_name_is_one(folder, monkeypatch, capsys):
    """Of 255 bytes, so that nothing fits around it."""
    name = "x" * 243 + ".safetensors"
    for _ in range(2):
        assert optparity(monkeypatch, capsys, "convert", "good.pt", name, *ADAM, "--force")[0] == 0
    assert sorted(os.listdir()) == ["canary", "good", "good.pt", "good.safetensors", name]
