"""What GPUs and TPUs have to do in a step, read from compiled programs: `python -m benchmarks.compiled`. Nothing is run on a device."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from optparity.accelerators import hlo, ptx
from optparity.accelerators.compiling import Compiled, compile_programs
from optparity.accelerators.hlo import Instruction
from optparity.accelerators.targets import TARGETS

from .runs import about, fail, folder, write
from .steps import DTYPE, OPERATIONS, WORKLOADS, programs

_LAUNCH = re.compile(r"\d+: kCustomKernel +\[.*\] (\w+) grid: \[(\d+), 1, 1\] threads: \[(\d+), 1, 1\] ")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_PASSES_ON = ("parameter", "constant", "bitcast", "tuple", "get-tuple-element", "copy-done")
_NEAR = re.compile(r"\w+\[[\d,]*\]\{[^}]*S\([1-9]\)[^}]*\}")  # in a memory of the TPU's chip: to fill it in advance is no more traffic


def main(
    target: Annotated[list[str] | None, typer.Option(help=f"{', '.join(TARGETS)}; may be repeated. Default: all.")] = None,
    out: Annotated[Path, typer.Option(help="The file for what was found, as JSON.")] = Path("out/compiled.json"),
) -> None:
    """Compile the training step of Adam, as jaxopt_impl and as optax, and count what each program moves and computes."""
    for name in target or []:
        if name not in TARGETS:
            fail(f"--target {name}: one of {', '.join(TARGETS)} is needed.")
        if missing := TARGETS[name].missing():
            fail(f"--target {name}: {missing}")
    folder(out.parent)
    cases = []
    for name in track(target or TARGETS, description="compiling", console=Console(stderr=True), transient=True):
        with TemporaryDirectory() as dumps:
            cases += [case(name, each) for each in compile_programs(name, programs(name), Path(dumps))]
    write(out, {**about(DTYPE, 1), "cases": cases})


def case(target: str, compiled: Compiled) -> dict[str, Any]:
    """A line of the result."""
    if compiled.error:
        fail(f"{compiled.program.name} did not compile for {target}: {compiled.error}")
    implementation, what = compiled.program.of
    leaves, size, _ = WORKLOADS["32M" if what in OPERATIONS else what]
    found = counted(compiled, leaves * size)
    if TARGETS[target].platform == "cuda":
        found |= launched(compiled, leaves * size // found["array_kernels"])
    return {"target": target, "implementation": implementation, "program": what, **found}


def counted(compiled: Compiled, elements: int) -> dict[str, Any]:
    """Kernels over arrays, the most arrays that one of them writes, and bytes: those moved for each element, and those held for a while.

    `cost_analysis` is XLA's own count of the bytes, and `estimated_cycles` its estimate of the time; None where it has none.
    """
    entry = {i.name: i for i in hlo.computations(compiled.hlo)[hlo.ENTRY]}
    moving = [i for i in entry.values() if i.opcode not in _PASSES_ON and _bytes(i)]
    large = [i for i in moving if i.opcode != "copy-start"]
    read = sum(_bytes(entry[name]) for i in large for name in i.operands)  # that which copy-start reads is among its results
    cost = compiled.numbers["cost"]
    cycles = [int(number) for number in _CYCLES.findall(compiled.hlo)]
    return {
        "array_kernels": len(large),
        "results": max(len(i.results) for i in large),
        "bytes": (read + sum(map(_bytes, moving))) / elements,
        "cost_analysis": cost["bytes accessed"] / elements if cost else None,
        "estimated_cycles": sum(cycles) or None,
        "temporary_bytes": compiled.numbers["memory"]["temp_size_in_bytes"],
    }


def launched(compiled: Compiled, elements: int) -> dict[str, Any]:
    """CUDA: what is started beside the kernels over arrays, and the PTX instructions of these, for each element."""
    kernels = {kernel.name: kernel for kernel in ptx.kernels(compiled.ptx)}
    launches = list(_launches(compiled.launches))
    (large,) = {(name, threads) for name, threads in launches if threads > 1}
    return {
        "scalar_kernels": sum(threads == 1 for _, threads in launches),
        "launches": len(launches),
        "ptx": len(kernels[large[0]].instructions) * large[1] / elements,
    }


def _launches(text: str) -> Iterator[tuple[str, int]]:
    """The name of each kernel and the number of its threads. Raises: ValueError where something else is started."""
    for line in filter(None, map(str.strip, text.splitlines())):
        found = _LAUNCH.match(line)
        if not found:
            raise ValueError(f"XLA starts: {line}")
        yield found[1], int(found[2]) * int(found[3])


def _bytes(instruction: Instruction) -> int:
    """Of the arrays that it makes in the device's memory; a number by itself does not count."""
    results = replace(instruction, shape=_NEAR.sub("", instruction.shape)).results
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in results if array.shape)


if __name__ == "__main__":
    typer.run(main)
