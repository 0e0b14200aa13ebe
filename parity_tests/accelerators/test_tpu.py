"""What a TPU's compiler makes of the rules, for four generations: read, and run in NumPy. No test here needs a TPU.

A program is run twice: as the compiler was given it, with exact quotients and roots, and as it was optimized, with wrong ones. For one
generation its bits are held against the golden file and the CPU as well.
"""

import itertools

import numpy as np
import pytest

from optparity.accelerators import programs, tpu
from optparity.accelerators.arguments import drawn, on_cpu
from optparity.accelerators.compiling import Compiled
from optparity.accelerators.hlo_interpreter import Machine, program
from optparity.accelerators.programs import Program
from optparity.accelerators.targets import DEVICES
from optparity.accelerators.walking import walker
from optparity.parity import canaries, golden
from optparity.parity.bits import differing
from optparity.registry import HALVES

from ..sampling import FULL
from . import broken

pytestmark = pytest.mark.accelerators

FIRST, *_ = GENERATIONS = ("v5e", "v4", "v5p", "v6e")
DTYPES = ("float32", *HALVES)  # a TPU has no float64
STEPS = tuple(programs.train_steps(DTYPES))
OUTSIDE = "a/c, a = x/d outside the kernel | float32 | fenced"  # x/d is the backend's own there, and approximate
CANARIES = tuple(program for program in programs.canaries(DTYPES) if program.name != OUTSIDE)
OFF = 24  # units in the last place, of 30 that corrected.py allows
EXACT, FLUSHES, KEEPS = Machine(off=0), Machine(off=OFF), Machine(off=OFF, flush=False)
CONFIGURATION = {**golden.CONFIGURATION, "steps": golden.CONFIGURATION["every"]}


def _in_contexts() -> tuple[Program, ...]:
    """Each optimizer in each context, in one dtype after the other."""
    every = {of.name: of for of in programs.in_contexts(DTYPES, FULL)}
    rows = {row.entry.name: row for row in FULL}.values()
    pairs = itertools.product(enumerate(rows), enumerate(programs.CONTEXTS))
    return tuple(every[f"{row} | {DTYPES[(i + j) % len(DTYPES)]} | {context}"] for (i, row), (j, context) in pairs)


CONTEXTS = _in_contexts()
PROGRAMS = STEPS + CONTEXTS


def on_each_generation() -> list:
    return [pytest.param(each, marks=pytest.mark.xdist_group(each)) for each in GENERATIONS]


def on_the_first(of: tuple[Program, ...]) -> list:
    return [pytest.param(each, marks=pytest.mark.xdist_group(FIRST), id=each.name) for each in of]


@pytest.mark.parametrize("generation", on_each_generation())
def test_every_program_compiles(generation, compiled):
    assert {name: each.error for name, each in compiled(generation, PROGRAMS).items() if each.error} == {}


@pytest.mark.parametrize("generation", on_each_generation())
def test_no_approximation_is_taken_for_a_result_and_nothing_is_float64(generation, compiled):
    found = compiled(generation, PROGRAMS)
    problems = {name: tpu.problems(each) for name, each in found.items()}
    assert {name: lines for name, lines in problems.items() if lines} == {}


@pytest.mark.parametrize("generation", on_each_generation())
def test_no_operation_of_a_rule_is_lost(generation, compiled):
    found = compiled(generation, PROGRAMS)
    lost = {of.name: tpu.lost(found[of.name]) for of in STEPS}
    assert {name: lines for name, lines in lost.items() if lines} == {}


@pytest.mark.parametrize("generation", on_each_generation())
def test_an_optimized_program_has_the_bits_of_the_lowered_one(generation, compiled):
    assert [name for name, each in compiled(generation, PROGRAMS).items() if not keeps_its_bits(each)] == []


@pytest.mark.parametrize("of", on_the_first(STEPS))
def test_every_stream_ends_in_the_golden_bits(of, compiled):
    """After 50 steps, subnormals flushed."""
    assert walked(compiled(FIRST, PROGRAMS)[of.name], of, FLUSHES) == []


@pytest.mark.parametrize("of", on_the_first(tuple(of for of in STEPS if of.of in FULL)))
def test_every_stream_ends_in_the_golden_bits_of_those_that_keep_subnormals(of, compiled):
    assert walked(compiled(FIRST, PROGRAMS)[of.name], of, KEEPS) == []


@pytest.mark.parametrize("of", on_the_first(CONTEXTS))
def test_each_context_has_the_bits_of_the_cpu(of, compiled):
    arguments = drawn(of)
    assert same(optimized(compiled(FIRST, PROGRAMS)[of.name], arguments), on_cpu(of, arguments))


@pytest.mark.parametrize("of", on_the_first(CANARIES))
def test_each_fenced_canary_has_the_bits_of_numpy(of, compiled):
    arguments = canaries.inputs(of.dtype, programs.ELEMENTS)
    (canary,) = (canary for canary in canaries.CANARIES if canary.name == of.of)
    with np.errstate(all="ignore"):
        expected = np.asarray(canary.expression(canaries.InNumPy, *canary.prepare(*arguments))).astype(of.dtype, copy=False)
    found = compiled(FIRST, CANARIES)[of.name]
    assert tpu.problems(found) == []
    assert same(optimized(found, arguments), [expected])


@pytest.mark.xdist_group(FIRST)
def test_float64_is_refused_by_the_name_of_its_leaf(compiled):
    found = compiled(FIRST, tuple(programs.train_steps(["float64"], FULL)))
    refused = {f"TypeError: {row.entry.name}: params is float64, which TPUs do not have; float32 is needed." for row in FULL}
    assert {each.error for each in found.values()} == refused


@pytest.mark.parametrize("of", on_the_first(broken.APPROXIMATE))
def test_an_approximation_that_is_taken_for_a_result_is_seen(of, compiled):
    found = compiled(FIRST, broken.APPROXIMATE)[of.name]
    assert not found.error
    assert tpu.problems(found)
    assert of.dtype != "float32" or walked(found, broken.intact(of), FLUSHES)


@pytest.mark.xdist_group(FIRST)
def test_a_fence_that_is_missing_is_seen(compiled):
    (found,) = compiled(FIRST, (broken.FOLDED,)).values()
    assert tpu.lost(found) == ["1 of 2 multiply are left"]
    assert not keeps_its_bits(found)


@pytest.mark.parametrize("of", on_the_first(broken.NOT_ROUNDED))
def test_a_rounding_that_is_missing_is_seen(of, compiled):
    assert "normal" in walked(compiled(FIRST, broken.NOT_ROUNDED)[of.name], broken.intact(of), FLUSHES)


@pytest.mark.parametrize("generation", on_each_generation())
def test_sign_bits_in_int64_do_not_compile(generation, compiled):
    (found,) = compiled(generation, (broken.SIGNED,)).values()
    assert "s32[] and u32[]" in found.error


def optimized(each: Compiled, arguments: list[np.ndarray], machine: Machine = FLUSHES) -> list[np.ndarray]:
    """The results of the optimized program: where a leaf is spread over devices, of each, put together."""
    run = program(each.hlo, machine)
    if not each.program.sharded:
        return run(arguments)
    shares = [[np.split(x, DEVICES)[i] if x.ndim else x for x in arguments] for i in range(DEVICES)]
    return [np.concatenate(parts) if parts[0].ndim else parts[0] for parts in zip(*map(run, shares), strict=True)]


def keeps_its_bits(each: Compiled) -> bool:
    arguments = drawn(each.program)
    return same(optimized(each, arguments), program(each.lowered, EXACT)(arguments))


def walked(each: Compiled, of: Program, machine: Machine) -> list[str]:
    """The streams that end elsewhere."""
    expected = golden.hashes(golden.read())["flushed" if machine.flush else "kept"]
    found = golden.walk(walker(program(each.hlo, machine)), of.of, of.dtype, CONFIGURATION)
    return [stream for stream, hashes in found.items() if hashes != expected[f"{of.of} | {stream} | {of.dtype}"][:1]]


def same(got: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return all(a.dtype == b.dtype and not differing(a, b).any() for a, b in zip(got, expected, strict=True))
