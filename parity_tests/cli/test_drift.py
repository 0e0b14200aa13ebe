"""`optparity drift`: the page that says how far the stock optimizers are from the contract."""

from pathlib import Path

from optparity import detection
from optparity.registry import DTYPES, OPTIMIZERS

from .running import one_line, optparity


def test_drift(monkeypatch, capsys, tmp_path):
    """The page has a line for each optimizer and dtype, a reason for each optimizer, and figures that are not ours."""
    page = tmp_path / "drift.md"
    status, out, _ = optparity(monkeypatch, capsys, "drift", page, "--steps", 3)
    assert status == 0
    assert f"{len(OPTIMIZERS) * len(DTYPES)} lines written" in out
    text = page.read_text()
    committed = (Path(__file__).parents[2] / "docs" / "drift.md").read_text()
    for line in committed.splitlines():
        if line.startswith("| `"):
            assert line.split("|")[1:3] in [other.split("|")[1:3] for other in text.splitlines()]
    assert text.count(" ulp") > 60


def test_bad_arguments_of_drift(monkeypatch, capsys):
    one_line(*optparity(monkeypatch, capsys, "drift"), "Missing argument 'FILE.md'")
    one_line(*optparity(monkeypatch, capsys, "drift", "x.md", "--steps", 1), "Invalid value for '--steps': Input should be greater than")
    one_line(
        *optparity(monkeypatch, capsys, "drift", "x.md", "--detection", "--steps", 9), "--detection --steps: the page of --detection has"
    )
    one_line(
        *optparity(monkeypatch, capsys, "drift", "x.md", "--detection", "--around"), "--detection --around: the page of --detection has"
    )
    one_line(*optparity(monkeypatch, capsys, "drift", "/proc/no/drift.md"), "/proc/no/drift.md cannot be written")


def test_the_page_of_detection_is_what_the_command_writes(monkeypatch, capsys, tmp_path):
    """The committed page, written from the rows that stand in it; `parity_tests/explain/test_detection.py` measures the rows."""
    committed = (Path(__file__).parents[2] / "docs" / "detection.md").read_text()
    page = tmp_path / "detection.md"
    monkeypatch.setattr(detection, "measure", lambda: detection.read(committed))
    monkeypatch.setattr(detection, "machine", lambda: [])
    status, out, _ = optparity(monkeypatch, capsys, "drift", page, "--detection")
    assert (status, out) == (0, f"{detection.total()} lines written to {page}\n")
    assert _without_machine(page.read_text()) == _without_machine(committed)


def _without_machine(text: str) -> list[str]:
    before, after = text.split("on:\n", 1)
    return [before, after[after.index("## No mistake") :]]
