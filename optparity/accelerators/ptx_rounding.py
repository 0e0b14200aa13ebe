"""Whether a kernel rounds as the rules are written: once per operation, to nearest-even, and nothing else.

Every instruction must be one of `ptx_operations`, where no other arithmetic on floats is than what rounds once. Approximate ones are there
too, since a quotient that is rounded once may begin with one. With what came of it nothing may be done but to make a whole number of it,
and of that a product, as the exact remainder needs that corrects it. It is not stored, not compared, and so never a result.
"""

import re
from collections.abc import Iterator, Set

from .ptx import Instruction, Kernel
from .ptx_interpreter import ACCESS, is_control
from .ptx_operations import OPERATIONS, Kind

_REGISTER = re.compile(r"%[a-z]+\d+")
_PRODUCT = re.compile(r"(mul|mad)\.lo\.[su]32")


def broken(kernel: Kernel) -> list[str]:
    """What in a kernel does not keep the contract, or is not known to keep it: an instruction a line, with the reason."""
    begun = {instruction.operands[0] for instruction in kernel.instructions if _kind(instruction) is Kind.APPROXIMATES}
    approximate = _reached(kernel, begun, {Kind.MOVES, Kind.ROUNDS, Kind.APPROXIMATES})
    return [
        f"{kernel.name}: {instruction}: {why}"
        for instruction in kernel.instructions
        for why in _reasons(kernel, instruction, bool(approximate.intersection(_read(instruction))))
    ]


def _reasons(kernel: Kernel, instruction: Instruction, reads_approximate: bool) -> Iterator[str]:
    kind, opcode = _kind(instruction), instruction.opcode
    if kind is None and not ACCESS.fullmatch(opcode) and not is_control(opcode):
        yield "it is not known to round once"
    elif reads_approximate and kind is None:
        yield "it stores what was approximated"
    elif reads_approximate and kind is Kind.COMPARES:
        yield "it compares what was approximated"
    elif reads_approximate and kind is Kind.COUNTS:
        whole = _reached(kernel, {instruction.operands[0]}, {Kind.MOVES, Kind.COUNTS})
        if not any(_PRODUCT.fullmatch(user.opcode) and whole.intersection(_read(user)) for user in kernel.instructions):
            yield "it makes a whole number of what was approximated, of which no remainder is taken"


def _kind(instruction: Instruction) -> Kind | None:
    operation = OPERATIONS.get(instruction.opcode)
    return operation.kind if operation else None


def _reached(kernel: Kernel, begun: Set[str], through: Set[Kind]) -> set[str]:
    """The registers that instructions of these kinds make of these registers, and of what they made of them."""
    reached, before = set(begun), -1
    while len(reached) > before:  # again, for what goes round in a loop
        before = len(reached)
        for instruction in kernel.instructions:
            if _kind(instruction) in through and reached.intersection(_read(instruction)):
                reached.add(instruction.operands[0])
    return reached


def _read(instruction: Instruction) -> list[str]:
    """The registers that an instruction reads, but for a guard and for addresses."""
    if ACCESS.fullmatch(instruction.opcode) and instruction.opcode.startswith("ld"):
        return []
    return _REGISTER.findall(" ".join(instruction.operands[1:]))
