"""The picture of a cost, and the files that it replaces."""

import os
from pathlib import Path

import matplotlib.figure
import matplotlib.image
import pytest

from optparity.accounting import (
    Cruncher,
    estimate,
)
from optparity.accounting import show as costing

from ..cli.running import optparity

COST = estimate(Cruncher(4, 2), 2)


def test_no_half_picture(monkeypatch, tmp_path):
    """What cannot be drawn leaves the old picture, and nothing beside it."""
    picture = tmp_path / "cost.png"
    picture.write_text("old")

    def half(self, file, **how):
        Path(file).write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", half)
    with pytest.raises(OSError, match=r"^disk full$"):
        costing.plot(COST, "title", picture)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("cost.png", "old")]


def test_a_picture_goes_where_the_link_points(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "cost.png", tmp_path / "elsewhere" / "real.png"
    link.symlink_to(target)
    with pytest.raises(OSError, match="leads nowhere"):
        costing.plot(COST, "title", link)
    target.touch()
    for _ in range(2):
        costing.plot(COST, "title", link)
        assert link.is_symlink()
        assert matplotlib.image.imread(target).shape[1] > 800
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["cost.png", "elsewhere", "real.png"]


def test_a_picture_replaces_files_only(tmp_path):
    pipe = tmp_path / "cost.png"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match=r"it is no regular file"):
        costing.plot(COST, "title", pipe)
    assert pipe.is_fifo()


def test_the_command_draws_into_files_only(tmp_path, monkeypatch, capsys):
    pipe = tmp_path / "cost.png"
    os.mkfifo(pipe)
    status, _, err = optparity(monkeypatch, capsys, "cost", "cruncher", "--batch", 2, "--plot", pipe)
    assert (status, err) == (2, f"optparity: --plot {pipe} cannot be written: it is no regular file.\n")
    assert pipe.is_fifo()
