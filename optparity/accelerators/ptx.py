"""The kernels of a PTX text: https://docs.nvidia.com/cuda/parallel-thread-execution/"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

_ENTRY = re.compile(r"\.visible \.entry (?P<name>\w+)\((?P<parameters>.*?)\)(?P<limits>.*?)\n\{(?P<body>.*?)\n\}", re.DOTALL)
_FUNCTION = re.compile(r"\.(?:entry|func)\b")
_PARAMETER = re.compile(r"\.param \.[ub]64 [^,]*?(\w+)\s*(?:,|$)")
_STATEMENT = re.compile(r"(?:@(?P<guard>!?%\w+)\s+)?(?P<opcode>[a-z][\w.:]*)\s*(?P<operands>.*)")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^]]*\]|[^,\s]+")
_DECLARES_REGISTERS, _ADVISES = ".reg ", (".pragma ", ".loc ", "//")


class UnknownError(Exception):
    """Something in a compiled program that is not known here, so that nothing is said of the program."""


@dataclass(frozen=True)
class Instruction:
    """`@guard opcode operands;`: only in the threads where the guard, a predicate such as `%p1` or `!%p1`, holds."""

    opcode: str
    operands: tuple[str, ...]
    guard: str = ""

    def __str__(self) -> str:
        return f"{f'@{self.guard} ' if self.guard else ''}{self.opcode} {', '.join(self.operands)}".strip()


@dataclass(frozen=True)
class Kernel:
    """A function that the host starts.

    Attributes:
        name: as the host calls it.
        parameters: the names of its parameters, each the address of a buffer.
        instructions: in order.
        labels: label -> the number of the instruction that follows it.
    """

    name: str
    parameters: tuple[str, ...]
    instructions: tuple[Instruction, ...]
    labels: Mapping[str, int]


def kernels(text: str) -> Iterator[Kernel]:
    """The kernels of a PTX text.

    Raises: UnknownError where there is another function than these, or a line that is none of those of an elementwise loop.
    """
    entries = list(_ENTRY.finditer(text))
    if len(entries) != len(_FUNCTION.findall(text)):
        raise UnknownError("PTX with a function that is no kernel")
    for found in entries:
        parameters = tuple(_PARAMETER.findall(found["parameters"]))
        if len(parameters) != found["parameters"].count(".param"):
            raise UnknownError(f"{found['name']}: a parameter that is no address")
        yield Kernel(found["name"], parameters, *_instructions(found["name"], found["body"]))


def _instructions(name: str, body: str) -> tuple[tuple[Instruction, ...], dict[str, int]]:
    instructions: list[Instruction] = []
    labels = {}
    for line in filter(None, map(str.strip, body.splitlines())):
        statement = _STATEMENT.fullmatch(line.removesuffix(";"))
        if line.endswith(":"):
            labels[line[:-1]] = len(instructions)
        elif statement and line.endswith(";"):
            operands = tuple(_OPERAND.findall(statement["operands"]))
            instructions.append(Instruction(statement["opcode"], operands, statement["guard"] or ""))
        elif not line.startswith((_DECLARES_REGISTERS, *_ADVISES)):
            raise UnknownError(f"{name}: {line}")
    return tuple(_with_products(instructions)), labels


def _with_products(instructions: Sequence[Instruction]) -> Iterable[Instruction]:
    """Processors of compute capability 8 multiply bfloat16 by an FMA that adds the constant -0, which is the product, rounded once."""
    written = Counter(instruction.operands[0] for instruction in instructions if instruction.operands)
    moved = {tuple(instruction.operands) for instruction in instructions if instruction.opcode == "mov.b16" and not instruction.guard}
    for instruction in instructions:
        if instruction.opcode == "fma.rn.bf16":
            *product, addend = instruction.operands
            if (addend, "0x8000") in moved and written[addend] == 1:
                instruction = Instruction("mul.rn.bf16", tuple(product), instruction.guard)
        yield instruction
