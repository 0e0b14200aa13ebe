"""What XLA makes of the rules for an H100 and an A100: compiled, read, and run in NumPy. No test here needs a GPU."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from optparity.accelerators import cuda, programs
from optparity.accelerators.arguments import drawn, on_cpu
from optparity.accelerators.compiling import Compiled
from optparity.accelerators.programs import Program
from optparity.accelerators.ptx import UnknownError
from optparity.accelerators.targets import DEVICES
from optparity.accelerators.walking import walker
from optparity.parity import canaries, golden
from optparity.parity.bits import differing
from optparity.registry import DTYPES, ROWS

from ..sampling import FULL
from . import broken

pytestmark = pytest.mark.accelerators

STEPS = {
    "full rows": tuple(programs.train_steps(rows=FULL)),
    "other rows": tuple(programs.train_steps(rows=[row for row in ROWS if row not in FULL])),
}
OUTSIDE = "a/c, a = x/d outside the kernel | float32 | fenced"  # x/d is the backend's own there, and approximate
CANARIES = tuple(program for program in programs.canaries() if program.name != OUTSIDE)
GOLDEN = golden.read()
CONFIGURATION = {**GOLDEN["configuration"], "steps": GOLDEN["configuration"]["every"]}
KEPT = golden.hashes(GOLDEN)["kept"]
GO_ROUND = ("scan", "cond")  # with branches of XLA's own, which are read only


def in_contexts() -> tuple[Program, ...]:
    """Each full row in each context, in another dtype each time."""
    every = {program.name: program for program in programs.in_contexts(DTYPES, FULL)}
    pairs = zip(itertools.product(FULL, programs.CONTEXTS), itertools.cycle(DTYPES), strict=False)
    return tuple(every[f"{row} | {dtype} | {context}"] for (row, context), dtype in pairs)


CONTEXTS = in_contexts()


def broken_ones(compiled: dict[str, Compiled]) -> dict[str, list[str]]:
    """Of the programs those that did not compile or that have problems, with these."""
    found = {name: [each.error] if each.error else cuda.problems(each) for name, each in compiled.items()}
    return {name: lines for name, lines in found.items() if lines}


def result(each: Compiled) -> Sequence[np.ndarray]:
    """Of its program, for any arguments: of a canary or of a step."""
    _, intact, of = each.program.of
    return cuda.runs(each)(drawn(Program("", intact, of, each.program.dtype)))


def walked(each: Compiled, program: Program) -> list[str]:
    """The streams that end elsewhere."""
    found = golden.walk(walker(cuda.runs(each)), program.of, program.dtype, CONFIGURATION)
    return [stream for stream, hashes in found.items() if hashes != KEPT[f"{program.of} | {stream} | {program.dtype}"][:1]]


def canary_differs(each: Compiled, name: str) -> bool:
    """Whether its bits are others than NumPy's."""
    dtype = each.program.dtype
    arrays = canaries.inputs(dtype, programs.ELEMENTS)
    (canary,) = (canary for canary in canaries.CANARIES if canary.name == name)
    (got,) = cuda.runs(each)(arrays)
    with np.errstate(all="ignore"):
        right = canaries.rounded_once(canary, dtype, canary.prepare(*arrays))
    return bool(differing(got, right).any())


class OnGpu:
    """The tests of a GPU. A class for each, so that one process runs them, and compiles."""

    gpu: str

    @pytest.mark.every_jax
    @pytest.mark.parametrize("together", [STEPS["full rows"], CONTEXTS], ids=["rows", "contexts"])
    def test_full_rows_round_once_for_each_operation(self, together, compiled):
        assert broken_ones(compiled(self.gpu, together)) == {}

    def test_other_rows_round_once_for_each_operation(self, compiled):
        assert broken_ones(compiled(self.gpu, STEPS["other rows"])) == {}

    @pytest.mark.every_jax
    @pytest.mark.parametrize("program", broken.SEEN, ids=str)
    def test_a_program_that_breaks_the_contract_is_seen(self, program, compiled):
        each = compiled(self.gpu, broken.SEEN)[program.name]
        assert not each.error
        assert cuda.problems(each)
        with pytest.raises(UnknownError, match="an instruction that is not known"):
            result(each)

    @pytest.mark.parametrize("program", [*STEPS["full rows"], *STEPS["other rows"]], ids=str)
    def test_every_stream_ends_in_the_golden_bits(self, program, compiled):
        """After 50 steps, subnormals kept."""
        (together,) = (steps for steps in STEPS.values() if program in steps)
        assert walked(compiled(self.gpu, together)[program.name], program) == []

    @pytest.mark.parametrize("program", CANARIES, ids=str)
    def test_each_fenced_canary_has_the_bits_of_numpy(self, program, compiled):
        assert not canary_differs(compiled(self.gpu, CANARIES)[program.name], program.of)

    @pytest.mark.parametrize("program", broken.UNSEEN, ids=str)
    def test_what_a_dropped_fence_leads_to_shows_in_the_bits(self, program, compiled):
        each = compiled(self.gpu, broken.UNSEEN)[program.name]
        assert broken_ones({program.name: each}) == {}
        _, intact, of = program.of
        assert canary_differs(each, of) if intact is programs.fenced_canary else walked(each, Program("", intact, of, program.dtype))

    @pytest.mark.parametrize("program", [program for program in CONTEXTS if program.build.__name__ not in GO_ROUND], ids=str)
    @pytest.mark.usefixtures("as_users_have_it")  # `inject_hyperparams` promotes
    def test_each_context_has_the_bits_of_the_cpu(self, program, compiled):
        """Of one device, where the leaf is spread over several."""
        arguments = drawn(program)
        expected = on_cpu(program, arguments)
        if program.sharded:
            arguments, expected = ([x[: len(x) // DEVICES] if x.ndim else x for x in arrays] for arrays in (arguments, expected))
        for got, right in zip(cuda.runs(compiled(self.gpu, CONTEXTS)[program.name])(arguments), expected, strict=True):
            assert not differing(got, right).any()


class TestH100(OnGpu):
    gpu = "h100"


class TestA100(OnGpu):
    gpu = "a100"
