"""PTX in NumPy: every thread of a kernel at once, one instruction after the other.

Kernels of elementwise loops only: branches go forward, threads share nothing. What is not known is refused.
"""

import functools
import re
from collections.abc import Iterable, Sequence

import numpy as np

from .ptx import Instruction, Kernel, UnknownError
from .ptx_operations import OPERATIONS, TYPES

_BUFFER = 40  # bits of an address that tell where in its buffer it is
_ACCESS = re.compile(r"(?P<verb>ld|st)\.global(\.nc)?(\.v(?P<vector>[24]))?\.(?P<type>[busf]\d+)")
_ADDRESS = re.compile(r"\[(?P<register>%\w+)(?:\+(?P<offset>-?\d+))?\]")
_PARAMETER = re.compile(r"ld\.param(::entry)?\.[bu]64")
_BRANCHES = {"bra", "bra.uni"}
_TO_GLOBAL = "cvta.to.global.u64"
# They end a thread, wait for the kernel before, or tell the next one that it may start.
_NOTHING = {"ret", "griddepcontrol.wait", "griddepcontrol.launch_dependents"}


def is_known(opcode: str) -> bool:
    """Whether this is an instruction that `run` knows: one that rounds once, or none that rounds."""
    return opcode in OPERATIONS or opcode in _BRANCHES | _NOTHING | {_TO_GLOBAL} or any(p.fullmatch(opcode) for p in (_ACCESS, _PARAMETER))


class Memory:
    """The buffers of a device. An address is a number that tells the buffer and the byte in it."""

    def __init__(self) -> None:
        self.buffers: list[np.ndarray] = []

    def allocate(self, size: int) -> int:
        """A new buffer of so many bytes; its address."""
        self.buffers.append(np.zeros(-(-size // 16) * 16, np.uint8))
        return (len(self.buffers) - 1) << _BUFFER

    def view(self, address: int, dtype: np.dtype, size: int) -> np.ndarray:
        """`size` numbers from an address on; to write to it is to write to the buffer."""
        start = address & (1 << _BUFFER) - 1
        return self.buffers[address >> _BUFFER][start : start + size * dtype.itemsize].view(dtype)

    def locate(self, addresses: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The one buffer that all these addresses are in, as numbers of so many bytes, and the index of each."""
        numbers, offsets = addresses >> np.uint64(_BUFFER), addresses & np.uint64((1 << _BUFFER) - 1)
        number = int(numbers[0])
        if (numbers != numbers[0]).any() or number >= len(self.buffers) or (offsets % np.uint64(width)).any():
            raise UnknownError("threads that reach into different buffers, or between numbers")
        buffer, index = self.buffers[number].view(f"u{width}"), (offsets // np.uint64(width)).astype(np.int64)
        if (index >= buffer.size).any():
            raise UnknownError("a thread that reaches out of its buffer")
        return buffer, index


def run(kernel: Kernel, blocks: int, threads: int, arguments: Sequence[int], memory: Memory) -> None:
    """Run a kernel on a grid of so many blocks of so many threads.

    Args:
        arguments: an address for each of its parameters.

    Raises: UnknownError where an instruction or an operand is not known.
    """
    if len(arguments) != len(kernel.parameters):
        raise UnknownError(f"{kernel.name}: {len(kernel.parameters)} parameters for {len(arguments)} buffers")
    block, thread = np.divmod(np.arange(blocks * threads, dtype=np.uint32), np.uint32(threads))
    machine = _Machine(
        dict(zip(kernel.parameters, arguments, strict=True)),
        {"%ctaid.x": block, "%tid.x": thread, "%ntid.x": np.array(threads, np.uint32), "%nctaid.x": np.array(blocks, np.uint32)},
        memory,
    )
    with np.errstate(all="ignore"):
        for number, instruction in enumerate(kernel.instructions):
            machine.arrive(label for label, there in kernel.labels.items() if there == number)
            try:
                if instruction.opcode in _BRANCHES and kernel.labels[instruction.operands[0]] <= number:
                    raise UnknownError("a branch backwards")
                machine.execute(instruction)
            except (UnknownError, KeyError, ValueError) as error:
                raise UnknownError(f"{kernel.name}: {instruction}: {error}") from None


class _Machine:
    """The registers of all threads, and which threads are at this place of the program."""

    def __init__(self, parameters: dict[str, int], special: dict[str, np.ndarray], memory: Memory):
        self.parameters, self.memory = parameters, memory
        self.registers = dict(special)
        self.here = np.ones(special["%tid.x"].size, bool)
        self.ahead: dict[str, np.ndarray] = {}

    def arrive(self, labels: Iterable[str]) -> None:
        """The threads that went ahead to these labels are here again."""
        for label in labels:
            self.here = self.here | self.ahead.pop(label, np.False_)

    def execute(self, instruction: Instruction) -> None:
        """One instruction, in the threads that are here and for which its guard holds."""
        opcode, operands = instruction.opcode, instruction.operands
        guard = instruction.guard
        held = np.logical_xor(self.read(guard.lstrip("!"), "pred"), guard.startswith("!")) if guard else np.True_
        acting = self.here & held
        if opcode in _BRANCHES:
            (label,) = operands
            self.ahead[label] = self.ahead.get(label, np.False_) | acting
            self.here = self.here & ~acting
        elif opcode in OPERATIONS:
            self.compute(opcode, operands, acting)
        elif access := _ACCESS.fullmatch(opcode):
            self.move(access, operands, acting)
        elif _PARAMETER.fullmatch(opcode):
            self.write(operands[0], np.array(self.parameters[operands[1].strip("[]")], np.uint64), acting)
        elif opcode == _TO_GLOBAL:
            self.write(operands[0], self.read(operands[1], "u64"), acting)
        elif opcode not in _NOTHING or guard:
            raise UnknownError("an instruction that is not known")

    def compute(self, opcode: str, operands: Sequence[str], acting: np.ndarray) -> None:
        """An instruction that makes a register from registers."""
        operation = OPERATIONS[opcode]
        destination, *sources = operands
        if len(sources) != len(operation.sources):
            raise UnknownError(f"{len(sources)} operands; {len(operation.sources)} are known")
        result = operation.function(*(self.read(source, t) for source, t in zip(sources, operation.sources, strict=True)))
        assert result.dtype == TYPES[operation.result], f"{opcode} makes {result.dtype}"
        self.write(destination, result, acting)

    def move(self, access: re.Match, operands: Sequence[str], acting: np.ndarray) -> None:
        """A load or a store, of one number or of two or four that are neighbours."""
        if not acting.any():
            return
        width = TYPES[access["type"]].itemsize
        place, values = operands if access["verb"] == "st" else operands[::-1]
        address = _ADDRESS.fullmatch(place)
        names = re.findall(r"[^{},\s]+", values)
        if not address or len(names) != int(access["vector"] or 1):
            raise UnknownError("an operand that is not known")
        first = np.broadcast_to(self.read(address["register"], "u64"), acting.shape)[acting] + np.uint64(int(address["offset"] or 0))
        for i, name in enumerate(names):
            buffer, index = self.memory.locate(first + np.uint64(i * width), width)
            if access["verb"] == "st":
                buffer[index] = np.broadcast_to(self.read(name, f"u{8 * width}"), acting.shape)[acting]
            else:
                loaded = np.zeros(acting.shape, f"u{max(width, 2)}")  # no register is smaller than 16 bits
                loaded[acting] = buffer[index]
                self.write(name, loaded, acting)

    def read(self, operand: str, t: str) -> np.ndarray:
        """A register, two halves of one, or a number, as this type."""
        if operand.startswith("{"):
            lower, upper = (self.read(half, "b16").astype(np.uint32) for half in operand.strip("{}").replace(",", " ").split())
            return (lower | upper << np.uint32(16)).view(TYPES[t])
        if not operand.startswith("%"):
            return _number(operand, t)
        value = self.registers[operand]
        width, dtype = value.dtype.itemsize, TYPES[t]
        if (value.dtype.kind == "b") != (dtype.kind == "b") or width < dtype.itemsize:
            raise UnknownError(f"{operand} as {t}")
        if width > dtype.itemsize:
            value = value.astype(f"u{dtype.itemsize}")  # its lower bits
        return value.view(dtype)

    def write(self, register: str, value: np.ndarray, acting: np.ndarray) -> None:
        """Set a register in the threads that act."""
        if not re.fullmatch(r"%[a-z]+\d+", register):
            raise UnknownError(f"{register} as a destination")
        bits = value if value.dtype == bool else value.view(f"u{value.dtype.itemsize}")
        before = self.registers.get(register)
        self.registers[register] = bits if before is None or acting.all() else np.where(acting, bits, before)


@functools.cache
def _number(text: str, t: str) -> np.ndarray:
    """A number in an instruction, as this type: an integer, or the bits of a float in hexadecimal."""
    dtype = TYPES[t]
    if t == "pred":
        return np.array(int(text) != 0)
    if text[:2] in ("0f", "0d", "0x"):
        if {"0f": 4, "0d": 8}.get(text[:2], dtype.itemsize) != dtype.itemsize:
            raise UnknownError(f"{text} as {t}")
        bits = int(text[2:], 16)
    elif dtype.kind in "iu":
        bits = int(text)
    else:
        raise UnknownError(f"{text} as {t}")
    return np.array(bits % (1 << 8 * dtype.itemsize), f"u{dtype.itemsize}").view(dtype)
