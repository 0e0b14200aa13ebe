"""The scripts of examples/scale, on several devices and in several processes: they learn, and each holds its share of the state."""

import os
import re
import subprocess
import sys

import pytest

from optparity.accounting import Setup, estimate

from ..accounting.models import preset
from ..jaxopt_impl.test_processes import free_port
from ..sampling import EXHAUSTIVE
from .test_docs import docs

FOLDER = docs.ROOT / "examples" / "scale"
PRINTED = re.compile(r"(\d+) \w+ .*\nloss ([\d.]+), after 20 steps ([\d.]+)\noptimizer state: ([\d,]+) of ([\d,]+) bytes .*\n")


def run_together(commands: list[list[str]], **environment: str) -> str:
    """What the first prints; none is left when one fails or takes too long."""
    settings = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", **environment}
    processes = [
        subprocess.Popen([sys.executable, *command], cwd=docs.ROOT, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    try:
        ended = [(*process.communicate(timeout=240), process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [status for *_, status in ended] == [0] * len(commands), ended
    return ended[0][0]


def jax_commands(processes: int) -> list[list[str]]:
    if processes == 1:
        return [[str(FOLDER / "zero_jax.py"), "--steps", "20"]]
    where = ["--coordinator", f"localhost:{free_port()}", "--processes", str(processes)]
    return [[str(FOLDER / "zero_jax.py"), "--steps", "20", *where, "--rank", str(rank)] for rank in range(processes)]


def torch_command(ranks: int, engine: str) -> list[str]:
    where = ["--standalone", "--nproc-per-node", str(ranks)]
    return ["-m", "torch.distributed.run", *where, str(FOLDER / "fsdp_torch.py"), "--steps", "20", "--engine", engine]


def check(printed: str, parts: int, share: float) -> None:
    found = PRINTED.search(printed)  # gloo may have said something before
    assert found, printed
    assert int(found[1]) == parts
    assert float(found[3]) < float(found[2]) - 0.5
    own, whole = (int(number.replace(",", "")) for number in found.group(4, 5))
    assert own == pytest.approx(whole * share, rel=0.01)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=EXHAUSTIVE)])
def test_zero_in_jax(processes):
    printed = run_together(jax_commands(processes), XLA_FLAGS=f"--xla_force_host_platform_device_count={8 // processes}")
    check(printed, 8, 1 / 8)


@pytest.mark.parametrize(("ranks", "engine"), [(2, "fsdp"), *(pytest.param(4, engine, marks=EXHAUSTIVE) for engine in ("fsdp", "ddp"))])
def test_fsdp_and_ddp_in_torch(ranks, engine):
    check(run_together([torch_command(ranks, engine)]), ranks, 1 / ranks if engine == "fsdp" else 1)


ROW = re.compile(r"\| (llama3-\w+) \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|")


def test_the_page_says_what_cost_counts():
    page = (docs.ROOT / "docs" / "scale.md").read_text()
    rows = ROW.findall(page)
    assert len(rows) == 6
    for name, devices, *shown in rows:
        number = int(devices.replace(",", ""))
        of_stage = [
            estimate(preset(name), 1, 1, setup=Setup("adamw", mixed_precision=True, zero_stage=stage, data_parallel=number))
            .memory[1]
            .totals
            for stage in (1, 2, 3)
        ]
        counted = [of_stage[0]["optimizer_state"], of_stage[1]["gradients"], of_stage[2]["parameters"]]
        assert [f"{size / 1e9:.3f}" for size in counted] == shown
        assert f"{of_stage[0]['parameters'] / 1e9:.3f} GB" in page
        if number == 10_000:
            assert f"{2 * of_stage[0]['parameters'] * (1 - 1 / number) / 1e9:,.0f} GB" in page
