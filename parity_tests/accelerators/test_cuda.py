"""What XLA makes of the rules for an H100 and an A100: compiled, read, and run in NumPy. No test here needs a GPU.

The tests of `compiled` programs are for every jax; what they compute, for one.
"""

import itertools
from collections.abc import Iterable, Sequence

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
from optparity.registry import DTYPES

from ..sampling import FULL
from . import broken

pytestmark = pytest.mark.accelerators

GPUS = ("h100", "a100")
STEPS = tuple(programs.train_steps())
OUTSIDE = "a/c, a = x/d outside the kernel | float32 | fenced"  # x/d is the backend's own there, and approximate
CANARIES = tuple(program for program in programs.canaries() if program.name != OUTSIDE)
GOLDEN = golden.read()
CONFIGURATION = {**GOLDEN["configuration"], "steps": GOLDEN["configuration"]["every"]}
KEPT = golden.hashes(GOLDEN)["kept"]
GO_ROUND = ("scan", "cond")  # with branches of XLA's own, which are read only


def _in_contexts() -> tuple[Program, ...]:
    """Each row in each context in float32, and in another dtype each time."""
    every = {program.name: program for program in programs.in_contexts(DTYPES, FULL)}
    others = itertools.cycle(dtype for dtype in DTYPES if dtype != "float32")
    pairs = itertools.product(FULL, programs.CONTEXTS)
    return tuple(every[f"{row} | {dtype} | {context}"] for row, context in pairs for dtype in ("float32", next(others)))


CONTEXTS = _in_contexts()


def on_each_gpu(names: Iterable) -> list:
    return [pytest.param(gpu, name, marks=pytest.mark.xdist_group(gpu), id=f"{gpu}-{name}") for gpu in GPUS for name in names]


def problems(each: Compiled) -> list[str]:
    return [each.error] if each.error else cuda.problems(each)


@pytest.mark.parametrize(("gpu", "what"), on_each_gpu(["steps", "contexts"]))
def test_compiled_programs_round_once_for_each_operation(gpu, what, compiled):
    made = compiled(gpu, {"steps": STEPS, "contexts": CONTEXTS}[what])
    assert {name: problems(each) for name, each in made.items() if problems(each)} == {}


@pytest.mark.parametrize(("gpu", "program"), on_each_gpu(broken.SEEN))
def test_compiled_programs_that_break_the_contract_are_seen(gpu, program, compiled):
    each = compiled(gpu, broken.SEEN)[program.name]
    assert not each.error
    assert cuda.problems(each)
    with pytest.raises(UnknownError, match="an instruction that is not known"):
        result(each)


@pytest.mark.parametrize(("gpu", "program"), on_each_gpu(STEPS))
def test_every_stream_ends_in_the_golden_bits(gpu, program, compiled):
    """After 50 steps, subnormals kept."""
    assert walked(compiled(gpu, STEPS)[program.name], program) == []


@pytest.mark.parametrize(("gpu", "program"), on_each_gpu(CANARIES))
def test_each_fenced_canary_has_the_bits_of_numpy(gpu, program, compiled):
    assert not canary_differs(compiled(gpu, CANARIES)[program.name], program.of)


@pytest.mark.parametrize(("gpu", "program"), on_each_gpu(broken.UNSEEN))
def test_what_a_dropped_fence_leads_to_shows_in_the_bits(gpu, program, compiled):
    each = compiled(gpu, broken.UNSEEN)[program.name]
    assert not problems(each)
    _, intact, of = program.of
    assert canary_differs(each, of) if intact is programs.fenced_canary else walked(each, Program("", intact, of, program.dtype))


@pytest.mark.parametrize(("gpu", "program"), on_each_gpu([program for program in CONTEXTS if program.build.__name__ not in GO_ROUND]))
@pytest.mark.usefixtures("as_users_have_it")  # `inject_hyperparams` promotes
def test_each_context_has_the_bits_of_the_cpu(gpu, program, compiled):
    """Of one device, where the leaf is spread over several."""
    arguments = drawn(program)
    expected = on_cpu(program, arguments)
    if program.sharded:
        arguments, expected = ([x[: len(x) // DEVICES] if x.ndim else x for x in arrays] for arrays in (arguments, expected))
    for got, right in zip(cuda.runs(compiled(gpu, CONTEXTS)[program.name])(arguments), expected, strict=True):
        assert not differing(got, right).any()


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
        right = np.asarray(canary.expression(canaries.InNumPy, *canary.prepare(*arrays))).astype(dtype)
    return bool(differing(got, right).any())
