"""What `optparity doctor --target` tries: programs of each operation and optimizer, compiled by this jax for a device that is not here.

What the compiler made is read, so that nothing rounds otherwise than the rules say, and run in NumPy: operations must have NumPy's bits,
and train steps those of the golden file.
"""

import functools
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from packaging.requirements import Requirement

from ..parity import canaries, golden
from ..parity.bits import differing
from ..parity.reports import Line
from ..registry import DTYPES, ROWS
from . import cuda, hlo_interpreter, programs, ptx, tpu
from .compiling import Compiled
from .programs import Program
from .targets import TARGETS
from .walking import Run, walker

LABEL = "default"  # of the rows that are compiled
LONGEST = 160  # what is shown of an error
PLAIN_OUTSIDE = "a/c, a = x/d outside the kernel"  # x/d is the caller's: a device that approximates it has other bits, and may
_NOT_READ = (ptx.UnknownError, ValueError, LookupError, OSError)  # raised where a text is not as it is known here, or not there


@dataclass(frozen=True)
class _Reader:
    """How programs are read that are compiled for a platform.

    Attributes:
        dtypes: that it has.
        problems: what in a program does not round as the rules say, in a line each.
        runs: makes a function of the program.
        subnormals: what becomes of them, as the golden file calls it.
    """

    dtypes: tuple[str, ...]
    problems: Callable[[Compiled], list[str]]
    runs: Callable[[Compiled], Run]
    subnormals: str


def _tpu_problems(compiled: Compiled) -> list[str]:
    return tpu.problems(compiled) + ([] if _is_canary(compiled.program) else tpu.lost(compiled))


def _tpu_runs(compiled: Compiled) -> Run:
    return hlo_interpreter.program(compiled.hlo, hlo_interpreter.Machine())


_READERS = {
    "cuda": _Reader(DTYPES, cuda.problems, cuda.runs, "kept"),
    "tpu": _Reader(tuple(dtype for dtype in DTYPES if dtype != "float64"), _tpu_problems, _tpu_runs, "flushed"),
}


def described(target: str) -> list[tuple[str, str]]:
    """The device, and the versions of what compiles for it."""
    packages = ("jax", "jaxlib", *(Requirement(package).name for package in TARGETS[target].packages), "optax", "numpy")
    return [
        ("compiled for", f"{TARGETS[target].title}; read and interpreted, not run"),
        *((package, version(package)) for package in packages),
    ]


def chosen(target: str) -> list[Program]:
    """What is compiled: the canaries, fenced, in each dtype that the target has; each optimizer's default train step, in every dtype."""
    fenced = [p for p in programs.canaries(_reader(target).dtypes) if p.dtype == "float64" or p.of != PLAIN_OUTSIDE]
    return fenced + programs.train_steps(DTYPES, [row for row in ROWS if row.label == LABEL])


def examine(target: str, compiled: Compiled) -> Line:
    """What became of a program."""
    program, reader = compiled.program, _reader(target)
    if program.dtype not in reader.dtypes:
        refused = f"is {program.dtype}, which" in (compiled.error or "")  # by our own error, which names the leaf
        found = "refused" if refused else compiled.error or "compiled"
        return _line(program, found, "as it must be" if refused else "NOT REFUSED", refused)
    if compiled.error:
        return _line(program, compiled.error, "DOES NOT COMPILE")
    try:
        problems = reader.problems(compiled)
        if problems:
            more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
            return _line(program, f"{problems[0]}{more}", "NOT ROUNDED ONCE")
        found, same = _found(program, reader.runs(compiled), reader.subnormals)
    except _NOT_READ as error:
        return _line(program, f"{type(error).__name__}: {error}", "NOT UNDERSTOOD")
    return _line(program, found, "rounded once" if same else "OTHER BITS", same)


def _reader(target: str) -> _Reader:
    return _READERS[TARGETS[target].platform]


def _is_canary(program: Program) -> bool:
    return program.build is programs.fenced_canary


def _line(program: Program, found: str, verdict: str, ok: bool = False) -> Line:
    what = program.of if _is_canary(program) else f"{program.of.optimizer}: train step"
    return Line(what, program.dtype, textwrap.shorten(found, LONGEST, placeholder=" ..."), verdict, ok)


def _found(program: Program, run: Run, subnormals: str) -> tuple[str, bool]:
    """How many of its results are not what they should be, in words, and whether there is none."""
    return _of_canary(program, run) if _is_canary(program) else _of_steps(program, run, subnormals)


def _of_canary(program: Program, run: Run) -> tuple[str, bool]:
    (canary,) = (canary for canary in canaries.CANARIES if canary.name == program.of)
    arrays = canaries.inputs(program.dtype, programs.ELEMENTS)
    (results,) = run(arrays)
    with np.errstate(all="ignore"):
        prepared = canary.prepare(*arrays)
    wrong = differing(results, canaries.rounded_once(canary, program.dtype, prepared)).mean()
    return f"{100 * wrong:.2g} % differ from NumPy's", not wrong


def _of_steps(program: Program, run: Run, subnormals: str) -> tuple[str, bool]:
    expected, configuration = _golden()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is 0 in float16")  # its NaNs are compared like other bits
        walked = golden.walk(walker(run), program.of, program.dtype, configuration)
    right = {stream: expected[subnormals][f"{program.of} | {stream} | {program.dtype}"][:1] for stream in walked}
    wrong = [stream for stream in walked if walked[stream] != right[stream]]
    named = f": {', '.join(wrong)}" if wrong else ""
    return f"{len(wrong)} of {len(walked)} streams differ{named}", not wrong


@functools.cache
def _golden() -> tuple[dict[str, golden.Hashes], dict]:
    """The packaged hashes, and how to come to the first of each trajectory."""
    document = golden.read()
    return golden.hashes(document), {**document["configuration"], "steps": document["configuration"]["every"]}
