"""The update over leaves that are spread over the chips of a TPU: it sends nothing. Compiled for 4 and for 16 chips; none is needed."""

import json
import os
import subprocess
import sys

import pytest

from optparity.accelerators.targets import TARGETS

from ..jaxopt_impl.test_sharding import COLLECTIVES
from .sharded import CASES

pytestmark = [pytest.mark.accelerators, pytest.mark.every_jax]


@pytest.fixture(scope="module", params=[("v5e:2x2", 4), ("v5e:4x4", 16)], ids=lambda param: param[0])
def programs(request):
    topology, chips = request.param
    environment = {**os.environ, **TARGETS["v5e"].environment, "TPU_ACCELERATOR_TYPE": f"v5litepod-{chips}", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "parity_tests.accelerators.sharded", topology]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["chips"] == chips
    return chips, found["programs"]


def test_the_update_holds_no_collective(programs):
    """Neither over one axis of chips nor beside tensor parallelism; the gather of the parameters after it is one."""
    found = {name: COLLECTIVES.findall(program["hlo"]) for name, program in programs[1].items()}
    assert len(found) == len(CASES)
    assert {name: ops for name, ops in found.items() if ops and not name.startswith("gathered")} == {}
    assert [name for name, ops in found.items() if not ops and name.startswith("gathered")] == []


def test_each_chip_has_its_share_of_the_state(programs):
    """But for counters and leaves that do not divide, which are whole."""
    chips, found = programs
    for name, program in found.items():
        assert program["state_here"] == (program["state"] - program["small"]) // chips + program["small"], name
        assert program["small"] < program["state"] / 1000
