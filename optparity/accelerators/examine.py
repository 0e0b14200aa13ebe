"""What `optparity doctor --target` tries: a program for each operation and for each optimizer, compiled by this jax for a device that is not here.

What the compiler made is read, so that no instruction rounds otherwise than the rules say, and interpreted: operations must give NumPy's
bits, and train steps those of the golden file.
"""

import functools
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from packaging.requirements import Requirement

from ..parity import canaries, golden
from ..parity.bits import differing
from ..parity.reports import Line
from ..registry import DTYPES, ROWS
from . import hlo_interpreter, programs, ptx, rounding, tpu
from .compiling import Compiled
from .module import Module
from .programs import Program
from .targets import TARGETS
from .walking import Run, walker

LABEL = "default"  # of the rows that are compiled
LONGEST = 160  # what is shown of an error
_NOT_READ = (ptx.UnknownError, ValueError, LookupError)  # by what reads a text that is not as it knows them


@dataclass(frozen=True)
class _Reader:
    """How programs are read that are compiled for a platform.

    Attributes:
        dtypes: that it has.
        problems: what in a program does not round as the rules say, in a line each.
        run: makes a function of the program.
        subnormals: what becomes of them, as the golden file calls it.
    """

    dtypes: tuple[str, ...]
    problems: Callable[[Compiled], list[str]]
    run: Callable[[Compiled], Run]
    subnormals: str


def _cuda_problems(compiled: Compiled) -> list[str]:
    return [problem for text in compiled.ptx for kernel in ptx.kernels(text) for problem in rounding.broken(kernel)]


def _tpu_run(compiled: Compiled) -> Run:
    return hlo_interpreter.program(compiled.hlo, hlo_interpreter.Machine())


_READERS = {
    "cuda": _Reader(DTYPES, _cuda_problems, Module, "kept"),
    "tpu": _Reader(tuple(dtype for dtype in DTYPES if dtype != "float64"), tpu.problems, _tpu_run, "flushed"),
}


def described(target: str) -> list[tuple[str, str]]:
    """The device, and the versions of what compiles for it."""
    packages = ("jax", "jaxlib", *(Requirement(package).name for package in TARGETS[target].packages), "optax", "numpy")
    return [("target", TARGETS[target].title), *((package, version(package)) for package in packages)]


def compiled_for(target: str) -> list[Program]:
    """What is compiled: every canary, fenced, and the default train step of every optimizer, in each dtype."""
    rows = [row for row in ROWS if row.label == LABEL]
    return [*programs.canaries(_reader(target).dtypes), *programs.train_steps(DTYPES, rows)]


def examine(target: str, compiled: Compiled) -> Line:
    """What became of a program."""
    program, reader = compiled.program, _reader(target)
    if program.dtype not in reader.dtypes:
        return _refused(compiled)
    if compiled.error:
        return _line(program, textwrap.shorten(compiled.error, LONGEST), "DOES NOT COMPILE")
    try:
        problems = reader.problems(compiled)
        found, differs = _differs(program, reader.run(compiled), reader.subnormals)
    except _NOT_READ as error:
        return _line(program, textwrap.shorten(f"{type(error).__name__}: {error}", LONGEST), "NOT UNDERSTOOD")
    if problems:
        more = f" ({len(problems)} in all)" if problems[1:] else ""
        return _line(program, f"{problems[0]}{more}; {found}", "NOT ROUNDED ONCE")
    return _line(program, found, "OTHER BITS" if differs else "rounded once", not differs)


def _reader(target: str) -> _Reader:
    return _READERS[TARGETS[target].platform]


def _line(program: Program, found: str, verdict: str, ok: bool = False) -> Line:
    return Line(program.of if _is_canary(program) else f"{program.of.optimizer}: train step", program.dtype, found, verdict, ok)


def _is_canary(program: Program) -> bool:
    return program.build is programs.fenced_canary


def _refused(compiled: Compiled) -> Line:
    """A dtype that the device does not have must be refused by our own error, which names it."""
    refused = f"is {compiled.program.dtype}" in (compiled.error or "")
    verdict = "refused, as it has none" if refused else "NOT REFUSED"
    return _line(compiled.program, textwrap.shorten(compiled.error or "compiled", LONGEST), verdict, refused)


def _differs(program: Program, run: Run, subnormals: str) -> tuple[str, bool]:
    """How many of its results are not what they should be, in words, and whether there are any."""
    return _canary_differs(program, run) if _is_canary(program) else _steps_differ(program, run, subnormals)


def _canary_differs(program: Program, run: Run) -> tuple[str, bool]:
    (canary,) = (canary for canary in canaries.CANARIES if canary.name == program.of)
    arrays = canaries.inputs(program.dtype, programs.ELEMENTS)
    (results,) = run(arrays)
    wrong = int(differing(results, canaries.rounded_once(canary, program.dtype, arrays)).sum())
    return f"{wrong} of {programs.ELEMENTS} results differ", bool(wrong)


def _steps_differ(program: Program, run: Run, subnormals: str) -> tuple[str, bool]:
    expected, configuration = _golden()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is 0 in float16")  # its NaNs are compared like other bits
        walked = golden.walk(walker(run), program.of, program.dtype, configuration)
    wrong = [s for s, (got,) in walked.items() if got != expected[subnormals][f"{program.of} | {s} | {program.dtype}"][0]]
    streams = f" ({', '.join(wrong)})" if wrong else ""
    return f"{len(wrong)} of {len(walked)} streams differ{streams}", bool(wrong)


@functools.cache
def _golden() -> tuple[dict[str, golden.Hashes], dict]:
    """The packaged hashes, and how to come to the first of each trajectory."""
    document = golden.read()
    return golden.hashes(document), {**document["configuration"], "steps": document["configuration"]["every"]}
