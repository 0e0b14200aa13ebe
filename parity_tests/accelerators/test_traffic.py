"""A training step of Adam reads and writes every array once, in one kernel."""

import pytest

from benchmarks.compiled import case
from benchmarks.steps import programs

pytestmark = pytest.mark.accelerators


@pytest.mark.parametrize("target", ["h100", "v5e"])
def test_adam_is_one_kernel_and_moves_no_more_than_it_must(target, compiled):
    step = next(program for program in programs(target) if program.of == ("jaxopt_impl", "32M"))
    found = case(target, compiled(target, (step,))[step.name])
    assert (found["array_kernels"], found["results"], found["bytes"]) == (1, 3, 28)
    assert found["temporary_bytes"] < 10_000  # scalars
    if target == "h100":
        assert found["launches"] == found["scalar_kernels"] + 1
        assert found["ptx"] < 60  # by integers there are 262
