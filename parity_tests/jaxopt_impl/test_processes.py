"""Several processes of JAX, the state of an optimizer spread over the devices of all: the bits of one device."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ..sampling import DEFAULTS, EXHAUSTIVE, FULL

ROOT = Path(__file__).parents[2]
ADAM = [row for row in FULL if str(row) == "adam: all"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


ALL = ([*FULL, *DEFAULTS], ["float32", "bfloat16"])


@pytest.mark.parametrize(
    ("processes", "rows", "dtypes", "steps", "stage"),
    [
        (2, ADAM, ["float32"], 5, 1),
        pytest.param(2, *ALL, 5, 1, marks=EXHAUSTIVE),
        *(pytest.param(processes, *ALL, 100, 3, marks=EXHAUSTIVE) for processes in (1, 2)),
    ],
    ids=["few", "stage 1", "stage 3, 100 steps, 1 process", "stage 3, 100 steps, 2 processes"],
)
def test_eight_devices_of_some_processes(processes, rows, dtypes, steps, stage, tmp_path):
    cases = tmp_path / "cases.json"
    cases.write_text(json.dumps([(row.optimizer, row.label, dtype) for row in rows for dtype in dtypes]))
    devices = f"--xla_force_host_platform_device_count={8 // processes}"
    environment = {**os.environ, "XLA_FLAGS": devices, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "parity_tests.jaxopt_impl.processes"]
    arguments = [str(processes), str(free_port()), str(cases), str(steps), str(stage)]
    started = [
        subprocess.Popen(
            [*command, str(rank), *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(processes)
    ]
    try:
        for process in started:
            out, errors = process.communicate(timeout=300 + 20 * len(rows) * len(dtypes))
            assert process.returncode == 0, errors
            assert json.loads(out.splitlines()[-1]) == {"devices": 8, "apart": []}
    finally:
        for process in started:
            process.kill()
            process.wait()
