"""A process of examples/scale is killed, or hangs: the others end and say why, and who goes on has the bits of an undisturbed run."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from optparity.checkpoints.orbax_folder import read_tree

from ..jaxopt_impl.test_processes import ROOT, free_port
from ..sampling import EXHAUSTIVE

pytestmark = EXHAUSTIVE

MOMENTS, STEPS, EVERY, TIMEOUT = 10, 110, 5, 60
PARAMETERS = 28  # arrays of a GPT of two blocks
LONGEST = 2 * TIMEOUT  # of jax.distributed: until it counts a process as lost, and until it gives up to leave together with it
ENGINES = ("fsdp", "jax")
SAID = re.compile(r"Connection (closed|reset) by peer|Socket closed|heartbeat timeout|another task died|Timed out waiting \d+ms")


class Process(NamedTuple):
    process: subprocess.Popen
    log: Path
    begun: float

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")


def command(engine: str, rank: int, port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
    """How a process of two is started, and its environment."""
    how = ["--steps", str(STEPS), "--every", str(EVERY), "--timeout", str(TIMEOUT), "--checkpoints", str(folder)]
    if engine == "jax":
        where = ["--coordinator", f"localhost:{port}", "--processes", "2", "--rank", str(rank)]
        return ["examples/scale/zero_jax.py", *where, *how], {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    where = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    return ["examples/scale/fsdp_torch.py", *how], where


@contextlib.contextmanager
def started(engine: str, folder: Path, logs: Path) -> Iterator[list[Process]]:
    """Two processes, as on two machines: nobody but they themselves ends one when the other has ended. None is left after the block."""
    port, processes = free_port(), []
    logs.mkdir()
    with contextlib.ExitStack() as stack:
        for rank in range(2):
            arguments, own = command(engine, rank, port, folder)
            settings = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", **own}
            log = stack.enter_context((logs / str(rank)).open("w"))
            process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=settings, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(Process(process, logs / str(rank), time.time()))
        yield processes


def finish(engine: str, folder: Path, logs: Path) -> None:
    with started(engine, folder, logs) as processes:
        for each in processes:
            assert each.process.wait(900) == 0, each.said


def wait_for(there: Callable[[], bool], processes: list[Process]) -> None:
    deadline = time.monotonic() + 600
    while not there():
        assert [each.process.poll() for each in processes] == [None, None], [each.said for each in processes]
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.005)


def is_begun(step: int, folder: Path, processes: list[Process]) -> bool:
    """Whether these processes have begun a checkpoint: what others left of it is older than they."""
    paths = (path for top in folder.glob(f"{step}*") for path in (top, *top.rglob("*")))
    try:
        return any(path.stat().st_mtime > processes[0].begun for path in paths)
    except FileNotFoundError:  # renamed meanwhile
        return False


def newest(engine: str, folder: Path) -> int:
    """The step of the newest whole checkpoint."""
    whole = {"fsdp": "*/.metadata", "jax": "*/_CHECKPOINT_METADATA"}[engine]
    return max((int(name) for file in folder.glob(whole) if (name := file.parent.name).isdigit()), default=0)


def read(engine: str, folder: Path, step: int, at: Path) -> list[tuple[str, np.ndarray]]:
    """The parameters and the optimizer's state in a checkpoint, by name."""
    if engine == "jax":
        tree = read_tree(folder / str(step) / "default")[0]
    else:
        dcp_to_torch_save(folder / str(step), at)
        tree = torch.load(at, weights_only=False)
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def disturb(engine: str, folder: Path, logs: Path, whole: bool, wait: float, victim: int, how: signal.Signals) -> None:
    """One is killed or stopped soon after the next checkpoint was begun, or is whole; the other ends in time, and says why."""
    step = newest(engine, folder) + EVERY
    with started(engine, folder, logs) as processes:
        wait_for(lambda: newest(engine, folder) >= step if whole else is_begun(step, folder, processes), processes)
        time.sleep(wait)
        assert processes[victim].process.poll() is None
        processes[victim].process.send_signal(how)
        other = processes[1 - victim]
        assert other.process.wait(LONGEST) != 0, other.said
    assert not (folder / str(STEPS)).exists(), "it was not in the middle of the run"
    assert SAID.search(other.said), other.said


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_run_goes_on_with_the_bits_of_an_undisturbed_one(engine, tmp_path):
    """Killed at ten random moments, in checkpoints and between them; every checkpoint has the bits."""
    finish(engine, tmp_path / "undisturbed", tmp_path / "logs")
    drawn, run = random.Random(0), tmp_path / "run"
    for moment in range(MOMENTS):
        whole, wait, victim = drawn.random() < 0.5, drawn.uniform(0, 0.2), drawn.randrange(2)
        disturb(engine, run, tmp_path / f"logs {moment}", whole, wait, victim, signal.SIGKILL)
    finish(engine, run, tmp_path / "last logs")
    for step in range(EVERY, STEPS + 1, EVERY):
        found, expected = (read(engine, folder, step, tmp_path / "checkpoint.pt") for folder in (run, tmp_path / "undisturbed"))
        assert [name for name, _ in found] == [name for name, _ in expected]
        apart = [name for (name, a), (_, b) in zip(found, expected, strict=True) if a.dtype != b.dtype or a.tobytes() != b.tobytes()]
        assert (step, apart) == (step, [])
        assert len(found) > 3 * PARAMETERS  # each has two moments


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_process_that_hangs_ends_the_others(engine, victim, tmp_path):
    """As where a machine is lost: no connection is closed."""
    disturb(engine, tmp_path / "run", tmp_path / "logs", True, 0, victim, signal.SIGSTOP)


def test_torchrun_says_which_process_was_killed(tmp_path):
    """And ends the others."""
    where = ["--standalone", "--nproc-per-node", "2", "examples/scale/fsdp_torch.py", "--steps", "100000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", *where, "--every", "5", "--checkpoints", str(tmp_path / "run")]
    agent = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 240
        while not (tmp_path / "run" / "5").exists():
            assert agent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        workers = [int(pid) for pid in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()]
        os.kill(workers[-1], signal.SIGKILL)
        said = agent.communicate(timeout=LONGEST)[0]
    finally:
        agent.terminate()  # it ends its workers
        agent.wait(60)
    assert agent.returncode == 1
    assert f"Signal 9 (SIGKILL) received by PID {workers[-1]}" in said
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
