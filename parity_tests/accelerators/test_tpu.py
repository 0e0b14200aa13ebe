"""Programs compiled for TPUs: each compiles, takes no approximation for a result, and gives the golden bits when NumPy runs it.

One generation is the reference: its train steps are walked against the golden file, its other programs against the CPU. The programs of the
others are held against the reference's. All is compiled by processes that run beside the tests.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest

from optparity.accelerators import arguments, programs, tpu
from optparity.accelerators.compiling import Compiled, compile_programs
from optparity.accelerators.hlo_interpreter import Machine, program
from optparity.accelerators.programs import Program
from optparity.accelerators.targets import DEVICES
from optparity.accelerators.walking import walker
from optparity.parity import canaries, golden
from optparity.parity.bits import differing
from optparity.registry import ROWS

from ..sampling import FULL
from . import broken

pytestmark = pytest.mark.accelerators

REFERENCE, *OTHERS = GENERATIONS = ("v5e", "v4", "v5p", "v6e")
DTYPES = ("float32", "bfloat16", "float16")  # no float64, which TPUs refuse
OFF = 24  # by so many units in the last place a quotient or a root may be wrong: corrected.py promises 30
STEPS = programs.train_steps(DTYPES)
CANARIES = programs.canaries(DTYPES)
IN_CONTEXTS = programs.in_contexts(DTYPES, {row.entry.kernel: row for row in FULL}.values())
OF_THE_OTHERS = [p for i, p in enumerate(IN_CONTEXTS) if i % len(DTYPES) == 0]
PLAIN_OUTSIDE = "a/c, a = x/d outside the kernel"  # that quotient is the caller's, and a TPU's
UNROLLED = "two steps in one program: XLA keeps the parameters between them in float32, where apply_updates has rounded them"


def _programs(generation: str) -> list[Program]:
    if generation == REFERENCE:
        return [*STEPS, *CANARIES, *IN_CONTEXTS]
    return [*STEPS, *OF_THE_OTHERS]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """By generation and name what was compiled; the next generation is compiled while this one is looked at."""
    with ThreadPoolExecutor(1) as pool:

        @cache
        def start(generation):
            return pool.submit(compile_programs, generation, _programs(generation), tmp_path_factory.mktemp(generation) / "all")

        @cache
        def of(generation):
            result = start(generation)
            for other in GENERATIONS[GENERATIONS.index(generation) + 1 :][:1]:
                start(other)
            return {found.program.name: found for found in result.result()}

        yield of
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def broken_ones(tmp_path):
    """What is compiled for the reference, of programs that are broken on purpose."""
    return lambda *of: compile_programs(REFERENCE, of, tmp_path / "broken", workers=1)


def _run(found: Compiled, leaves: list[np.ndarray], off: int = OFF) -> list[np.ndarray]:
    run = program(found.hlo, Machine(off=off))
    if not found.program.sharded:
        return run(leaves)
    shards = [[np.split(leaf, DEVICES)[i] if leaf.ndim else leaf for leaf in leaves] for i in range(DEVICES)]
    return [np.concatenate(parts) if parts[0].ndim else parts[0] for parts in zip(*map(run, shards), strict=True)]


def _same(got, expected) -> bool:
    return all(a.dtype == b.dtype and not differing(a, b).any() for a, b in zip(got, expected, strict=True))


def _hashes(found: Compiled, machine: Machine) -> golden.Hashes:
    configuration = {**golden.CONFIGURATION, "steps": golden.CONFIGURATION["every"]}
    return golden.walk(walker(program(found.hlo, machine)), found.program.of, found.program.dtype, configuration)


def _golden(of: Program, way: str) -> golden.Hashes:
    hashes = golden.hashes(golden.read())[way]
    return {stream: hashes[f"{of.of} | {stream} | {of.dtype}"][:1] for stream in golden.CONFIGURATION["streams"]}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_program_compiles_and_takes_no_approximation_for_a_result(compiled, generation):
    found = compiled(generation)
    assert {name: one.error for name, one in found.items() if one.error} == {}
    problems = {name: tpu.problems(one) for name, one in found.items() if one.program.of != PLAIN_OUTSIDE}
    assert {name: lines for name, lines in problems.items() if lines} == {}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_no_operation_of_a_rule_is_lost(compiled, generation):
    lost = {of.name: tpu.lost(compiled(generation)[of.name]) for of in STEPS}
    assert {name: lines for name, lines in lost.items() if lines} == {}


@pytest.mark.parametrize("of", STEPS, ids=lambda of: of.name)
def test_train_steps_give_the_golden_bits(compiled, of):
    assert _hashes(compiled(REFERENCE)[of.name], Machine(off=OFF)) == _golden(of, "flushed")


@pytest.mark.parametrize("of", [of for of in STEPS if of.of in FULL], ids=lambda of: of.name)
def test_train_steps_that_keep_subnormals_give_the_golden_bits(compiled, of):
    assert _hashes(compiled(REFERENCE)[of.name], Machine(off=OFF, flush=False)) == _golden(of, "kept")


@pytest.mark.parametrize("of", IN_CONTEXTS, ids=lambda of: of.name)
def test_every_context_gives_the_bits_of_the_cpu(compiled, of):
    leaves = arguments.drawn(of)
    same = _same(_run(compiled(REFERENCE)[of.name], leaves), arguments.on_cpu(of, leaves))
    assert same or (of.build is programs.constants and of.dtype == "bfloat16" and UNROLLED)


@pytest.mark.parametrize("of", CANARIES, ids=lambda of: of.name)
def test_fenced_canaries_give_the_bits_of_numpy(compiled, of):
    (canary,) = (canary for canary in canaries.CANARIES if canary.name == of.of)
    leaves = canaries.inputs(of.dtype, programs.ELEMENTS)
    with np.errstate(all="ignore"):
        expected = np.asarray(canary.expression(canaries.InNumPy, *canary.prepare(*leaves))).astype(of.dtype, copy=False)
    assert _same(_run(compiled(REFERENCE)[of.name], leaves, 0 if of.of == PLAIN_OUTSIDE else OFF), [expected])


@pytest.mark.parametrize("generation", OTHERS)
def test_the_other_generations_give_the_bits_of_the_first(compiled, generation):
    different = []
    for name, found in compiled(generation).items():
        leaves = arguments.drawn(found.program)
        if not _same(_run(found, leaves), _run(compiled(REFERENCE)[name], leaves)):
            different.append(name)
    assert different == []


def test_float64_is_refused_by_the_name_of_its_leaf(broken_ones):
    found = broken_ones(*programs.train_steps(["float64"], FULL))
    assert {one.error for one in found} == {
        f"TypeError: {row.entry.name}: params is float64, which TPUs do not have; float32 is needed." for row in FULL
    }


@pytest.mark.parametrize("build", [broken.unfenced, broken.approximate])
def test_a_rule_that_leans_on_an_approximation_is_seen(broken_ones, build):
    (adagrad,) = (row for row in ROWS if str(row) == "adagrad: default")
    for found in broken_ones(*(Program(dtype, build, adagrad, dtype) for dtype in DTYPES)):
        assert found.error is None
        assert tpu.problems(found), found.program
        if found.program.dtype == "float32":
            assert _hashes(found, Machine(off=OFF))["normal"] != _golden(found.program, "flushed")["normal"]


def test_a_fence_that_is_removed_is_seen(broken_ones):
    (found,) = broken_ones(Program("(a*0.1)*0.3", broken.without_fence, "(a*0.1)*0.3", "float32"))
    a, *others = canaries.inputs("float32", programs.ELEMENTS)
    expected = (a * np.float32(0.1)) * np.float32(0.3)
    assert 0.2 < differing(_run(found, [a, *others])[0], expected).mean() < 0.4
    assert tpu.lost(found) == ["1 of 2 multiply are left"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_rounding_that_is_dropped_is_seen(broken_ones, dtype):
    (sgd,) = (row for row in ROWS if str(row) == "sgd: all")
    (found,) = broken_ones(Program(dtype, broken.without_rounding, sgd, dtype))
    assert _hashes(found, Machine())["normal"] != _golden(found.program, "flushed")["normal"]


def test_sign_bits_in_int64_do_not_compile(broken_ones):
    (found,) = broken_ones(Program("int64", broken.signed_bits, ROWS[0], "float32"))
    assert found.error and "s32" in found.error and "u32" in found.error
