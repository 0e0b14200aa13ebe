"""A compiled CUDA program, run in NumPy: its kernels one after the other, in the memory that XLA has planned for them."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from . import hlo, interpreter, ptx
from .compiling import Compiled
from .ptx import UnknownError

_LAUNCH = re.compile(r"\d+: kCustomKernel +\[.*\] (\w+) grid: \[(\d+), 1, 1\] threads: \[(\d+), 1, 1\] +shared_memory: 0 bytes")
_COPY = re.compile(r"\d+: kCopy +\[.*\] kCopy")
_SLICE = re.compile(r"slice=\{\[(\d+):\d+\]\}")
_ALLOCATION = re.compile(r"allocation \d+: size (\d+)")
_VALUE = re.compile(r" value: <\d+ ([\w.-]+?)(?:\{(\d*)\})? @\d+> \(size=\d+,offset=(\d+)\)")
_PASSES_ON = ("bitcast", "get-tuple-element", "tuple")


class _Launch(NamedTuple):
    """A kernel that XLA starts, with its grid."""

    kernel: ptx.Kernel
    blocks: int
    threads: int


class _Place(NamedTuple):
    """Where in memory an array is."""

    allocation: int
    offset: int


class Module:
    """A program that can be called with NumPy arrays.

    Raises: UnknownError where it does more than to start kernels in a row and to copy.
    """

    def __init__(self, compiled: Compiled):
        kernels = {kernel.name: kernel for text in compiled.ptx for kernel in ptx.kernels(text)}
        self.launches = dict(_launches(compiled.launches, kernels))
        self.computations = hlo.computations(compiled.hlo)
        self.entry = {instruction.name: instruction for instruction in self.computations[hlo.ENTRY]}
        self.sizes, self.places = _planned(compiled.buffers)

    def __call__(self, arguments: Sequence[np.ndarray], seed: int = 0) -> list[np.ndarray]:
        """The results. `seed` is that of the errors of approximate instructions."""
        memory, rng = interpreter.Memory(), np.random.default_rng(seed)
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
            elif launch := self.launch(instruction):
                addresses = [address(operand) for operand in instruction.operands] + [address(name, i) for i in _counted(instruction)]
                interpreter.run(*launch, addresses, memory, rng)
            elif instruction.opcode not in _PASSES_ON:
                (operand,) = instruction.operands
                copied = array(name).size
                start = self.first_copied(instruction)
                array(name).reshape(-1)[...] = array(operand).reshape(-1)[start : start + copied]
        return [array(name, i).copy() for i in _counted(instruction)]

    def launch(self, instruction: hlo.Instruction) -> _Launch | None:
        """The kernel that an instruction has become, if it has."""
        return self.launches.get(re.sub(r"\W", "_", instruction.name)) if instruction.opcode == "fusion" else None

    def first_copied(self, instruction: hlo.Instruction) -> int:
        """Where a copy begins that the host makes, of an array or of a slice of it."""
        if instruction.opcode == "copy":
            return 0
        if instruction.opcode == "fusion":
            *_, root = self.computations[instruction.attribute("calls")]
            if root.opcode == "slice" and (bounds := _SLICE.search(root.attributes)):
                return int(bounds[1])
        raise UnknownError(f"{instruction.name} = {instruction.opcode}")

    def place(self, name: str, i: int) -> _Place:
        """Where the array of an instruction is, or that of its tuple with this number."""
        instruction = self.entry[name]
        if instruction.opcode == "bitcast":
            return self.place(instruction.operands[0], i)
        if instruction.opcode == "get-tuple-element":
            return self.place(instruction.operands[0], int(instruction.attribute("index")))
        if instruction.opcode == "tuple":
            return self.place(instruction.operands[i], 0)
        return self.places[name, str(i) if instruction.is_tuple else ""]


def _counted(instruction: hlo.Instruction) -> range:
    return range(len(instruction.results))


def _launches(text: str, kernels: dict[str, ptx.Kernel]) -> Iterator[tuple[str, _Launch]]:
    """The kernels that are started, by the instruction that they are of. Copies are told by the instructions."""
    for line in filter(None, map(str.strip, text.splitlines())):
        if found := _LAUNCH.fullmatch(line):
            yield found[1], _Launch(kernels[found[1]], int(found[2]), int(found[3]))
        elif not _COPY.fullmatch(line):
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
