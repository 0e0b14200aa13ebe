"""`optparity doctor --target`, with the compilers."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from optparity.accelerators import examine, programs
from optparity.registry import Row

from ..cli.running import optparity, started

pytestmark = pytest.mark.accelerators


def few(monkeypatch, dtype: str, *names: str) -> None:
    """Let no more than these canaries be compiled, and a step."""
    fenced = [program for program in programs.canaries([dtype]) if program.of in names]
    steps = programs.train_steps([dtype], [Row("sgd", "default")])
    monkeypatch.setattr(examine, "chosen", lambda target: [*fenced, *steps])


def line(out: str, what: str) -> str:
    """The one of the table that begins so."""
    (found,) = (line for line in out.splitlines() if line.startswith(f"{what} "))
    return found


@pytest.mark.parametrize("target", ["h100", "v5e"])
def test_the_contract_is_kept(target, monkeypatch, capsys):
    status, out, _ = optparity(monkeypatch, capsys, "doctor", "--target", target)
    assert f"The contract is kept in the programs compiled for {target}; they were not run." in out
    assert out.count("rounded once") == {"h100": 63 + 28, "v5e": 39 + 21}[target]  # canaries and steps
    assert out.count("as it must be") == {"h100": 0, "v5e": 7}[target]
    assert status == 0


@pytest.mark.parametrize(("target", "dtype", "broken"), [("a100", "float64", "(a/d)/c"), ("v4", "float32", "(a*0.1)*0.3")])
def test_a_fence_that_is_missing(target, dtype, broken, monkeypatch, capsys, tmp_path):
    few(monkeypatch, dtype, "a*b + c", broken)
    (tmp_path / "sitecustomize.py").write_text("from jaxopt_impl import numerics\nnumerics.fence = lambda x: x\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    status, out, _ = optparity(monkeypatch, capsys, "doctor", "--target", target)
    assert status == 1
    assert line(out, broken).rstrip().endswith("OTHER BITS")
    assert line(out, "a*b + c").rstrip().endswith("rounded once")
    assert f"1 lines break the contract in the programs compiled for {target}; they were not run." in out


def test_a_flag_that_breaks_the_contract(monkeypatch, capsys):
    few(monkeypatch, "float32", "a*b + c", "sqrt(c)")
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_ftz=true")
    status, out, _ = optparity(monkeypatch, capsys, "doctor", "--target", "h100")
    assert status == 1
    assert ".ftz.f32" in out
    assert "3 lines break the contract in the programs compiled for h100; they were not run." in out
    assert "Try it without XLA_FLAGS='--xla_gpu_ftz=true'." in out


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the children of a process are read from /proc")
def test_ctrl_c_leaves_no_process_and_no_file(tmp_path):
    """Though it be the command only that hears of it."""
    arguments = ("-m", "optparity", "doctor", "--target", "v5e")
    run = started(sys.executable, *arguments, start_new_session=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    while not list(tmp_path.glob("*/0000/lowered.txt")):
        assert run.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    assert len(children) == 2
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=8)  # to compile them all takes longer
    assert run.returncode == 130
    assert err.endswith("optparity: interrupted\n")
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert list(tmp_path.iterdir()) == []
