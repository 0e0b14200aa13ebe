"""The clips compile for GPUs and TPUs, where the norm is one of integers, and read the gradients once more than optax does."""

import math

import pytest

from optparity.accelerators import hlo
from optparity.accelerators.compiling import Compiled

from . import clips

pytestmark = pytest.mark.accelerators


@pytest.mark.parametrize("target", ["h100", "v5e"])
def test_every_clip_compiles(target, compiled):
    found = compiled(target, clips.SMALL + clips.SHARDED)
    assert {name: each.error for name, each in found.items() if each.error} == {}


def test_on_a_tpu_nothing_is_float64(compiled):
    for each in compiled("v5e", clips.SMALL + clips.SHARDED).values():
        assert "f64[" not in each.hlo, each.program.name


@pytest.mark.parametrize(("clip", "name"), [("torch", "clip_by_global_norm"), ("value", "clip_by_value")])
def test_float64_is_refused_by_name(clip, name, compiled):
    (found,) = compiled("v5e", (clips.program(clip, "float64"),)).values()
    assert found.error == f"TypeError: {name}: params is float64, which TPUs do not have; float32 is needed."


def moved(each: Compiled) -> float:
    """The bytes for each element that the program's kernels read and write of arrays as large as the leaf."""
    (size,) = clips.LARGE
    entry = {i.name: i for i in hlo.computations(each.hlo)[hlo.ENTRY]}

    def large(instruction: hlo.Instruction) -> int:
        return sum(array.dtype.itemsize for array in instruction.results if math.prod(array.shape) >= size)

    kernels = [i for i in entry.values() if i.opcode in ("fusion", "reduce")]
    return sum(large(i) + sum(large(entry[name]) for name in i.operands) for i in kernels)


@pytest.mark.parametrize("target", ["h100", "v5e"])
def test_it_reads_the_gradients_once_more_than_optax(target, compiled):
    """For the largest of them. Nothing as large as they are is written beside the result."""
    ours, stock = (compiled(target, clips.COMPARED)[of.name] for of in clips.COMPARED)
    assert (moved(ours), moved(stock)) == (20, 16)
    assert ours.numbers["memory"]["temp_size_in_bytes"] < 1_000_000
