"""The text of an HLO program, taken apart: https://openxla.org/xla/operation_semantics

    %add.1 = f32[1000]{0:T(1024)} add(%param_0, %broadcast.2), metadata={op_name="add"}

Layouts (`{0:T(1024)}`) are read over: they say where numbers lie, not what they are. The signs before names may be left out.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import ml_dtypes
import numpy as np

ENTRY = "ENTRY"
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) (?:\(.*)?\{")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (.*)")
_COMMENT = re.compile(r"/\*.*?\*/")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_NAME = re.compile(r"%([\w.-]+)")
DTYPES = {
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
    """`%name = shape opcode(operands), attributes`.

    Attributes:
        name: without the sign before it.
        shape: the text of its result's.
        opcode: what it does.
        inside: the text between the brackets: operands, the number of a parameter, or a constant.
        attributes: the rest of the line.
    """

    name: str
    shape: str
    opcode: str
    inside: str
    attributes: str

    @property
    def is_tuple(self) -> bool:
        return self.shape.startswith("(")

    @cached_property
    def results(self) -> tuple[Array, ...]:
        """The one array that it makes, or those of its tuple; what is no number (a token) is left out."""
        return tuple(
            Array(DTYPES[dtype], tuple(map(int, filter(None, sizes.split(",")))))
            for dtype, sizes in _ARRAY.findall(self.shape)
            if dtype in DTYPES
        )

    @cached_property
    def operands(self) -> tuple[str, ...]:
        """The names of other instructions."""
        if self.opcode in ("parameter", "constant"):
            return ()
        return tuple(_NAME.findall(self.inside) if "%" in self.inside else filter(None, self.inside.split(", ")))

    @property
    def number(self) -> int:
        """Of a parameter."""
        return int(self.inside)

    def attribute(self, name: str) -> str:
        """The word that stands for an attribute, or the text in its braces. Raises: KeyError where it is not there."""
        found = re.search(rf"\b{name}=(?:\{{([^}}]*)\}}|[%\"]?([\w.-]+))", self.attributes)
        if not found:
            raise KeyError(f"{self.name} has no {name}")
        return found[1] if found[2] is None else found[2]

    def numbers(self, name: str) -> tuple[int, ...]:
        """The whole numbers of an attribute."""
        return tuple(map(int, re.findall(r"\d+", self.attribute(name))))


def computations(text: str) -> dict[str, list[Instruction]]:
    """The computations of a program by name, the one that begins it as "ENTRY"; the last instruction is the result of each.

    Raises: ValueError where the text is no program's.
    """
    found: dict[str, list[Instruction]] = {}
    for line in _COMMENT.sub("", text).splitlines():
        if begins := _COMPUTATION.fullmatch(line):
            instructions = found.setdefault(ENTRY if begins[1] else begins[2], [])
        elif found and (instruction := _INSTRUCTION.fullmatch(line)):
            instructions.append(_instruction(*instruction.groups()))
    if ENTRY not in found:
        raise ValueError(f"this is not the text of an HLO program: {text[:80]!r}")
    return found


def _instruction(name: str, text: str) -> Instruction:
    shape = text[: _closing(text, 0) + 1] if text.startswith("(") else text.partition(" ")[0]
    opcode, _, _ = text[len(shape) + 1 :].partition("(")
    opening = len(shape) + 1 + len(opcode)
    closing = _closing(text, opening)
    return Instruction(name, shape, opcode, text[opening + 1 : closing], text[closing + 1 :])


def _closing(text: str, opening: int) -> int:
    """Where the bracket that stands there is closed."""
    depth = 0
    for i in range(opening, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i
    raise ValueError(f"a bracket is not closed in: {text}")
