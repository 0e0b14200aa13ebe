"""What a TPU's compiler makes of the rules, for four generations: read, and run in NumPy. No test here needs a TPU.

A program is run twice: as the compiler was given it, with exact quotients and roots, and as it was optimized, with wrong ones. For the v5e
its bits are held against the golden file, the CPU and NumPy as well.
"""

import itertools
from collections.abc import Callable

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
from optparity.registry import HALVES, ROWS

from ..sampling import FULL
from . import broken

pytestmark = pytest.mark.accelerators

DTYPES = ("float32", *HALVES)  # a TPU has no float64
FULL_STEPS = tuple(programs.train_steps(DTYPES, FULL))
OTHER_STEPS = tuple(programs.train_steps(DTYPES, [row for row in ROWS if row not in FULL]))
OUTSIDE = "a/c, a = x/d outside the kernel | float32 | fenced"  # x/d is the backend's own there, and approximate
CANARIES = tuple(program for program in programs.canaries(DTYPES) if program.name != OUTSIDE)
OFF = 24  # units in the last place, of 30 that corrected.py allows
EXACT, FLUSHES, KEEPS = Machine(off=0), Machine(off=OFF), Machine(off=OFF, flush=False)
CONFIGURATION = {**golden.CONFIGURATION, "steps": golden.CONFIGURATION["every"]}


def in_contexts() -> tuple[Program, ...]:
    """Each optimizer in each context, in one dtype after the other; a large leaf, for which NumPy takes seconds, of one optimizer."""
    every = {of.name: of for of in programs.in_contexts(DTYPES, FULL)}
    rows = {row.entry.name: row for row in FULL}.values()
    pairs = itertools.product(enumerate(rows), enumerate(programs.CONTEXTS))
    return tuple(
        every[f"{row} | {DTYPES[(i + j) % len(DTYPES)]} | {context}"]
        for (i, row), (j, context) in pairs
        if context != "large" or row.entry.name == "adam"
    )


CONTEXTS = in_contexts()
KINDS = {"full rows": FULL_STEPS, "contexts": CONTEXTS, "other rows": OTHER_STEPS}


def optimized(each: Compiled, arguments: list[np.ndarray]) -> list[np.ndarray]:
    """The results of the optimized program: where a leaf is spread over devices, of each, put together."""
    run = program(each.hlo, FLUSHES)
    if not each.program.sharded:
        return run(arguments)
    shares = [[np.split(x, DEVICES)[i] if x.ndim else x for x in arguments] for i in range(DEVICES)]
    return [np.concatenate(parts) if parts[0].ndim else parts[0] for parts in zip(*map(run, shares), strict=True)]


def keeps_its_bits(each: Compiled) -> bool:
    """Whether the optimized program computes what the lowered one does."""
    arguments = drawn(each.program)
    return same(optimized(each, arguments), program(each.lowered, EXACT)(arguments))


def walked(each: Compiled, of: Program, machine: Machine) -> list[str]:
    """The streams that end elsewhere."""
    expected = golden.hashes(golden.read())["flushed" if machine.flush else "kept"]
    found = golden.walk(walker(program(each.hlo, machine)), of.of, of.dtype, CONFIGURATION)
    return [stream for stream, hashes in found.items() if hashes != expected[f"{of.of} | {stream} | {of.dtype}"][:1]]


def same(got: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return all(a.dtype == b.dtype and not differing(a, b).any() for a, b in zip(got, expected, strict=True))


def told(compiled: dict[str, Compiled], reader: Callable[[Compiled], list[str]]) -> dict[str, list[str]]:
    """What a reader finds in the programs, of those in which it finds something."""
    found = {name: reader(each) for name, each in compiled.items()}
    return {name: lines for name, lines in found.items() if lines}


kinds = pytest.mark.parametrize(
    "kind", [pytest.param("full rows", marks=pytest.mark.every_jax), pytest.param("contexts", marks=pytest.mark.every_jax), "other rows"]
)


class OnTpu:
    """The tests of a generation. A class for each, so that one process runs them, and compiles."""

    generation: str

    @kinds
    def test_every_program_compiles(self, kind, compiled):
        assert {name: each.error for name, each in compiled(self.generation, KINDS[kind]).items() if each.error} == {}

    @kinds
    def test_no_approximation_is_taken_for_a_result_and_nothing_is_float64(self, kind, compiled):
        assert told(compiled(self.generation, KINDS[kind]), tpu.problems) == {}

    @kinds
    def test_an_optimized_program_has_the_bits_of_the_lowered_one(self, kind, compiled):
        assert [name for name, each in compiled(self.generation, KINDS[kind]).items() if not keeps_its_bits(each)] == []

    @pytest.mark.every_jax
    def test_no_operation_of_a_rule_is_lost(self, compiled):
        assert told(compiled(self.generation, FULL_STEPS), tpu.lost) == {}

    def test_no_operation_of_another_row_is_lost(self, compiled):
        assert told(compiled(self.generation, OTHER_STEPS), tpu.lost) == {}

    @pytest.mark.every_jax
    def test_sign_bits_in_int64_do_not_compile(self, compiled):
        (found,) = compiled(self.generation, (broken.SIGNED,)).values()
        assert "s32[] and u32[]" in found.error


class TestV4(OnTpu):
    generation = "v4"


class TestV5p(OnTpu):
    generation = "v5p"


class TestV6e(OnTpu):
    generation = "v6e"


class TestV5e(OnTpu):
    generation = "v5e"

    @pytest.mark.parametrize("of", [*FULL_STEPS, *OTHER_STEPS], ids=str)
    def test_every_stream_ends_in_the_golden_bits(self, of, compiled):
        """After 50 steps, subnormals flushed."""
        (together,) = (steps for steps in (FULL_STEPS, OTHER_STEPS) if of in steps)
        assert walked(compiled(self.generation, together)[of.name], of, FLUSHES) == []

    @pytest.mark.parametrize("of", FULL_STEPS, ids=str)
    def test_with_subnormals_kept_every_stream_ends_in_the_golden_bits(self, of, compiled):
        assert walked(compiled(self.generation, FULL_STEPS)[of.name], of, KEEPS) == []

    @pytest.mark.parametrize("of", CONTEXTS, ids=str)
    @pytest.mark.usefixtures("as_users_have_it")  # `inject_hyperparams` promotes
    def test_each_context_has_the_bits_of_the_cpu(self, of, compiled):
        arguments = drawn(of)
        assert same(optimized(compiled(self.generation, CONTEXTS)[of.name], arguments), on_cpu(of, arguments))

    @pytest.mark.parametrize("of", CANARIES, ids=str)
    def test_each_fenced_canary_has_the_bits_of_numpy(self, of, compiled):
        arguments = canaries.inputs(of.dtype, programs.ELEMENTS)
        (canary,) = (canary for canary in canaries.CANARIES if canary.name == of.of)
        with np.errstate(all="ignore"):
            expected = canaries.rounded_once(canary, of.dtype, canary.prepare(*arguments))
        found = compiled(self.generation, CANARIES)[of.name]
        assert tpu.problems(found) == []
        assert same(optimized(found, arguments), [expected])

    @pytest.mark.every_jax
    def test_float64_is_refused_by_the_name_of_its_leaf(self, compiled):
        found = compiled(self.generation, tuple(programs.train_steps(["float64"], FULL)))
        refused = {f"TypeError: {row.entry.name}: params is float64, which TPUs do not have; float32 is needed." for row in FULL}
        assert {each.error for each in found.values()} == refused

    @pytest.mark.every_jax
    @pytest.mark.parametrize("of", broken.APPROXIMATE, ids=str)
    def test_an_approximation_that_is_taken_for_a_result_is_seen(self, of, compiled):
        found = compiled(self.generation, broken.APPROXIMATE)[of.name]
        assert not found.error
        assert tpu.problems(found)
        assert of.dtype != "float32" or walked(found, broken.intact(of), FLUSHES)

    @pytest.mark.every_jax
    def test_a_fence_that_is_missing_is_seen(self, compiled):
        (found,) = compiled(self.generation, (broken.FOLDED,)).values()
        assert tpu.lost(found) == ["1 of 2 multiply are left"]
        assert not keeps_its_bits(found)

    @pytest.mark.parametrize("of", broken.NOT_ROUNDED, ids=str)
    def test_a_rounding_that_is_missing_is_seen(self, of, compiled):
        assert "normal" in walked(compiled(self.generation, broken.NOT_ROUNDED)[of.name], broken.intact(of), FLUSHES)
