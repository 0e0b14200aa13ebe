"""What XLA's text says: the computations of an optimized program, instruction by instruction.

    %add.1 = f32[1000]{0:T(1024)} add(%param_0, %broadcast.2), metadata={...}

Layouts, tiles and memory spaces are read over: they say where numbers lie, not what they are.
"""

import re
from dataclasses import dataclass
from functools import cached_property

_INSTRUCTION = re.compile(r"^\s*(ROOT )?%([\w.-]+) = (.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.-]+) \(.*\{$")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_OPERAND = re.compile(r"%([\w.-]+)")


@dataclass(frozen=True)
class Instruction:
    """One line of a computation: its operands by name, its constant or number as `payload`, its attributes as `rest` of the line."""

    name: str
    type: str
    opcode: str
    payload: str
    rest: str

    @cached_property
    def operands(self) -> tuple[str, ...]:
        return tuple(_OPERAND.findall(self.payload))

    @property
    def is_tuple(self) -> bool:
        return self.type.startswith("(")

    @cached_property
    def arrays(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Dtype and shape of the array, or of each array in a flat tuple."""
        found = _ARRAY.findall(self.type)
        return tuple((dtype, tuple(int(n) for n in shape.split(",") if n)) for dtype, shape in found)

    @property
    def dtype(self) -> str:
        return self.arrays[0][0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.arrays[0][1]

    def attribute(self, name: str) -> str | None:
        """The text of an attribute, or None where the line has none."""
        found = re.search(rf'(?:^|, ){name}=(\{{[^}}]*\}}|"[^"]*"|[^,]+)', self.rest)
        return found and found[1]

    def numbers(self, name: str) -> tuple[int, ...]:
        """The whole numbers of an attribute: `dimensions={0,1}`."""
        return tuple(map(int, re.findall(r"-?\d+", self.attribute(name) or "")))

    def computations(self, name: str) -> tuple[str, ...]:
        """The computations that an attribute names: `calls=%a`, `branch_computations={%a, %b}`."""
        return tuple(_OPERAND.findall(self.attribute(name) or ""))


@dataclass(frozen=True)
class Computation:
    """Instructions in the order of the text, in which operands come first; the last but for its name is `root`."""

    name: str
    instructions: tuple[Instruction, ...]
    root: str

    @cached_property
    def parameters(self) -> list[Instruction]:
        found = [i for i in self.instructions if i.opcode == "parameter"]
        return sorted(found, key=lambda i: int(i.payload))

    @cached_property
    def by_name(self) -> dict[str, Instruction]:
        return {i.name: i for i in self.instructions}

    def dtypes(self, i: Instruction) -> set[str]:
        """Of the operands and the results of one of its instructions."""
        return {dtype for each in (i, *map(self.by_name.__getitem__, i.operands)) for dtype, _ in each.arrays}


@dataclass(frozen=True)
class Module:
    """A program: its computations, and the name of the one that is entered."""

    computations: dict[str, Computation]
    entry: str

    @property
    def main(self) -> Computation:
        return self.computations[self.entry]

    @property
    def instructions(self):
        """Every instruction, of every computation."""
        return [i for computation in self.computations.values() for i in computation.instructions]


def parse(text: str) -> Module:
    """The module that `compiled.as_text()` shows, or a file of `--xla_dump_hlo_as_text`. Raises ValueError where it is none."""
    computations, entry, header, lines = {}, None, None, []
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            header, lines = found[2], []
            entry = header if found[1] else entry
        elif line.startswith("}") and header:
            computations[header] = _computation(header, lines)
            header = None
        elif header and (found := _INSTRUCTION.match(line)):
            lines.append(found)
    if entry is None:
        raise ValueError(f"no ENTRY computation in {text[:80]!r}: is it the text of an HLO module?")
    return Module(computations, entry)


def _computation(name: str, lines: list[re.Match]) -> Computation:
    roots = [found[2] for found in lines if found[1]]
    return Computation(name, tuple(_instruction(found[2], found[3]) for found in lines), roots[0])


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opcode, bracket, _ = text[end:].strip().partition("(")
    start = text.index(bracket, end)
    stop = _closing(text, start)
    return Instruction(name, text[:end], opcode, text[start + 1 : stop], text[stop + 1 :].removeprefix(", "))


def _closing(text: str, start: int) -> int:
    """Where the bracket at `start` is closed."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i
    raise ValueError(f"a bracket is not closed: {text[:120]!r}")
