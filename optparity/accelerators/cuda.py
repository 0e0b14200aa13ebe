"""What a CUDA program shows: that its kernels round as the rules are written, and what it computes, in NumPy.

A program is run in the memory that XLA has planned for it, its kernels one after the other. What is below PTX is not seen: that ptxas and
the processor do what the instructions say is trusted.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from . import ptx, ptx_interpreter
from .compiling import Compiled
from .hlo import ENTRY, Instruction, computations
from .ptx import UnknownError
from .walking import Run

_LAUNCH = re.compile(r"\d+: kCustomKernel +\[.*\] (\w+) grid: \[(\d+), 1, 1\] threads: \[(\d+), 1, 1\] +shared_memory: 0 bytes")
_ARRANGES = re.compile(  # copies, and what decides which kernels are started when
    r"^\d+: k(Copy|While|Conditional|DynamicSliceFusion|AsyncStart|AsyncDone) |^(condition|body|true_branch|false_branch):$|^No thunks\.$"
)
_COPY = re.compile(r"\d+: kCopy +\[.*\] kCopy")
_ALLOCATION = re.compile(r"allocation \d+: size (\d+)")
_VALUE = re.compile(r" value: <\d+ ([\w.-]+?)(?:\{(\d*)\})? @\d+> \(size=\d+,offset=(\d+)\)")
_PASSES_ON = ("bitcast", "get-tuple-element", "tuple")


def problems(compiled: Compiled) -> list[str]:
    """In a line each, what should not be in a program: an instruction that is not known to round once, or not known at all."""
    kernels = {kernel.name: kernel for kernel in ptx.kernels(compiled.ptx)}
    started = list(filter(None, map(str.strip, compiled.launches.splitlines())))
    unread = [line for line in started if not _ARRANGES.search(line) and not ((found := _LAUNCH.fullmatch(line)) and found[1] in kernels)]
    return [f"XLA starts: {line}" for line in unread] + [
        f"{kernel.name}: {instruction}"
        for kernel in kernels.values()
        for instruction in kernel.instructions
        if not ptx_interpreter.is_known(instruction.opcode)
    ]


def runs(compiled: Compiled) -> Run:
    """The program as a function of the leaves of its arguments.

    Raises: UnknownError where it does more than to start kernels in a row and to copy.
    """
    return _Program(compiled)


class _Launch(NamedTuple):
    """A kernel that XLA starts, with its grid."""

    kernel: ptx.Kernel
    blocks: int
    threads: int


class _Place(NamedTuple):
    """Where in memory an array is."""

    allocation: int
    offset: int


class _Program:
    def __init__(self, compiled: Compiled):
        self.computations = computations(compiled.hlo)
        self.entry = {instruction.name: instruction for instruction in self.computations[ENTRY]}
        self.started = _started(self.entry.values(), compiled)
        self.sizes, self.places = _planned(compiled.buffers)

    def __call__(self, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
        memory = ptx_interpreter.Memory()
        allocated = [memory.allocate(size) for size in self.sizes]

        def address(name: str, i: int = 0) -> int:
            place = self.place(name, i)
            return allocated[place.allocation] + place.offset

        def array(name: str, i: int = 0) -> np.ndarray:
            result = self.entry[name].results[i]
            return memory.view(address(name, i), result.dtype, int(np.prod(result.shape))).reshape(result.shape)

        for name, instruction in self.entry.items():
            if instruction.opcode == "parameter":
                array(name)[...] = arguments[instruction.number]
            elif instruction.opcode == "constant":
                array(name)[...] = np.array(instruction.inside).astype(array(name).dtype)  # NumPy refuses what is no single number
            elif launch := self.started.get(name):
                results = [address(name, i) for i in range(len(instruction.results))]
                ptx_interpreter.run(*launch, [*map(address, instruction.operands), *results], memory)
            elif instruction.opcode not in _PASSES_ON:
                (source,), result, start = instruction.operands, array(name), self.first_copied(instruction)
                result.reshape(-1)[...] = array(source).reshape(-1)[start : start + result.size]
        *_, root = self.entry.values()
        return [array(root.name, i).copy() for i in range(len(root.results))]

    def first_copied(self, instruction: Instruction) -> int:
        """Where a copy begins that the host makes, of an array or of a slice of a vector."""
        if instruction.opcode == "copy":
            return 0
        if instruction.opcode == "fusion":
            *_, root = self.computations[instruction.attribute("calls")]
            if root.opcode == "slice" and len(root.results[0].shape) == 1:
                return root.numbers("slice")[0]
        raise UnknownError(f"{instruction.name}, {instruction.opcode}")

    def place(self, name: str, i: int) -> _Place:
        """Where the array of an instruction is, or that of its tuple with this number."""
        instruction = self.entry[name]
        if instruction.opcode == "bitcast":
            return self.place(instruction.operands[0], i)
        if instruction.opcode == "get-tuple-element":
            return self.place(instruction.operands[0], instruction.numbers("index")[0])
        if instruction.opcode == "tuple":
            return self.place(instruction.operands[i], 0)
        return self.places[name, str(i) if instruction.is_tuple else ""]


def _started(instructions: Iterable[Instruction], compiled: Compiled) -> dict[str, _Launch | None]:
    """The kernel of each instruction that has become one, None for a copy: XLA starts them in the order of the instructions."""
    kernels = {kernel.name: kernel for kernel in ptx.kernels(compiled.ptx)}
    launches = list(_launches(compiled.launches, kernels))
    names = [instruction.name for instruction in instructions if instruction.opcode not in ("parameter", "constant", *_PASSES_ON)]
    if len(names) != len(launches):
        raise UnknownError(f"XLA starts {len(launches)} kernels and copies; the program has {', '.join(names)}")
    started: dict[str, _Launch | None] = {}
    for name, launch in zip(names, launches, strict=True):
        if launch and launch.kernel.name != re.sub(r"\W", "_", name) and launch not in started.values():  # equal kernels are shared
            raise UnknownError(f"{launch.kernel.name} is started for {name}")
        started[name] = launch
    return started


def _launches(text: str, kernels: dict[str, ptx.Kernel]) -> Iterator[_Launch | None]:
    """What XLA starts, in order; None for a copy."""
    for line in filter(None, map(str.strip, text.splitlines())):
        if found := _LAUNCH.fullmatch(line):
            yield _Launch(kernels[found[1]], int(found[2]), int(found[3]))
        elif _COPY.fullmatch(line):
            yield None
        else:
            raise UnknownError(f"XLA starts: {line}")


def _planned(text: str) -> tuple[list[int], dict[tuple[str, str], _Place]]:
    """The size of each allocation, and the place of each instruction's result, or of each of its results."""
    sizes, places = [], {}
    for line in text.splitlines():
        if found := _ALLOCATION.match(line):
            sizes.append(int(found[1]))
        elif found := _VALUE.match(line):
            places[found[1], found[2] or ""] = _Place(len(sizes) - 1, int(found[3]))
    return sizes, places
