"""The text of an HLO program, taken apart: https://openxla.org/xla/operation_semantics"""

import re
from dataclasses import dataclass

import ml_dtypes
import numpy as np

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%(?P<name>[\w.-]+) \(.*\) -> .* \{\n(?P<body>(?:  .*\n)*)\}", re.MULTILINE)
_INSTRUCTION = re.compile(
    r"^  (?:ROOT )?%(?P<name>[\w.-]+) = (?P<shape>\(.*?\)|\S+) (?P<opcode>[\w-]+)\((?P<operands>.*?)\)(?P<attributes>.*)$", re.MULTILINE
)
_COMMENT = re.compile(r"/\*.*?\*/")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
_DTYPES = {
    "pred": np.dtype(bool),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    **{f"f{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"u{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class Array:
    """The dtype and the shape of a result."""

    dtype: np.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Instruction:
    """`name = shape opcode(operands), attributes`.

    Attributes:
        results: the one array that it makes, or those of its tuple.
        is_tuple: whether that is a tuple.
        operands: names of other instructions; of a parameter its number, of a constant its text.
    """

    name: str
    results: tuple[Array, ...]
    is_tuple: bool
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    def attribute(self, name: str) -> str:
        """The word that stands for an attribute. Raises: KeyError where it is not there."""
        found = re.search(rf"\b{name}=%?([\w.-]+)", self.attributes)
        if not found:
            raise KeyError(f"{self.name} has no {name}")
        return found[1]


def computations(text: str) -> dict[str, list[Instruction]]:
    """The computations of a program by name, the one that is called "ENTRY" there too; the last instruction is the result of each."""
    return {
        "ENTRY" if found["entry"] else found["name"]: [_instruction(line) for line in _INSTRUCTION.finditer(_COMMENT.sub("", found["body"]))]
        for found in _COMPUTATION.finditer(text)
    }


def _instruction(found: re.Match) -> Instruction:
    results = tuple(Array(_DTYPES[dtype], tuple(map(int, filter(None, sizes.split(","))))) for dtype, sizes in _SHAPE.findall(found["shape"]))
    operands = tuple(operand.strip().rpartition(" ")[2].lstrip("%") for operand in found["operands"].split(",") if operand.strip())
    return Instruction(found["name"], results, found["shape"].startswith("("), found["opcode"], operands, found["attributes"])
