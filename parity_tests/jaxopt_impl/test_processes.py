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


@pytest.mark.parametrize(
    ("rows", "dtypes", "steps"),
    [(ADAM, ["float32"], 5), pytest.param([*FULL, *DEFAULTS], ["float32", "bfloat16"], 100, marks=EXHAUSTIVE)],
    ids=["few", "all"],
)
def test_two_processes_of_four_devices(rows, dtypes, steps, tmp_path):
    cases = tmp_path / "cases.json"
    cases.write_text(json.dumps([(row.optimizer, row.label, dtype) for row in rows for dtype in dtypes]))
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "parity_tests.jaxopt_impl.processes"]
    arguments = ["2", str(free_port()), str(cases), str(steps)]
    processes = [
        subprocess.Popen([*command, rank, *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    try:
        for process in processes:
            out, errors = process.communicate(
                timeout=60 + steps * len(rows) * len(dtypes)
            )  # each step gathers the parameters: they wait for each other
            assert process.returncode == 0, errors
            assert json.loads(out.splitlines()[-1]) == {"devices": 8, "apart": []}
    finally:
        for process in processes:
            process.kill()
            process.wait()
