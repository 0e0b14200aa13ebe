"""What a TPU's program shows: that nothing in it is float64, that no approximation is taken for a result, and what it computes.

A TPU has no IEEE float64 (its compiler makes a pair of float32 of each) and approximates float32 quotients and roots. Both stand in the
program's text. What is below it, the TPU's own instructions, this does not see.
"""

from collections.abc import Iterator

from . import hlo
from .compiling import Compiled
from .hlo import Instruction

_APPROXIMATE = {"divide", "sqrt", "rsqrt", "cbrt", "power", "exponential", "exponential-minus-one", "log", "log-plus-one"}
_MOVES = {"bitcast", "broadcast", "copy", "copy-start", "copy-done", "reshape", "slice", "transpose", "get-tuple-element", "tuple"}
_PASSES = _MOVES | {"multiply", "add", "fusion", "parameter"}
_COUNTS = {"convert", "bitcast-convert"}


def problems(compiled: Compiled) -> list[str]:
    """In a line each, what should not be in a program."""
    float64 = compiled.lowered.count("f64[")  # before it is optimized: then each is a pair of float32
    wide = [f"float64 is mentioned {float64} times"] if float64 else []
    relied_on = _relied_on(hlo.computations(compiled.hlo))
    return wide + [f"the {i.opcode} %{i.name} is taken for exact by %{user.name}, {user.opcode}" for i, user in relied_on]


def _relied_on(computations: dict[str, list[Instruction]]) -> Iterator[tuple[Instruction, Instruction]]:
    """Each approximation that ends elsewhere than in an integer, where it is corrected; with the instruction that takes it."""
    uses = _Uses(computations)
    for name, instructions in computations.items():
        for i in instructions:
            if i.opcode in _APPROXIMATE and i.results[0].dtype.kind not in "iu":
                yield from ((i, user) for user in uses.of(name, i) if user.opcode not in _COUNTS or user.results[0].dtype.kind not in "iu")


class _Uses:
    """Who takes a value, through whatever only moves or scales it, and into and out of fusions."""

    def __init__(self, computations: dict[str, list[Instruction]]):
        self.computations = computations
        fusions = ((name, i) for name, instructions in computations.items() for i in instructions if i.opcode == "fusion")
        self.callers = {i.attribute("calls"): (name, i) for name, i in fusions}

    def of(self, computation: str, value: Instruction) -> list[Instruction]:
        """The instructions in which it ends."""
        ends, seen, waiting = {}, set(), [(computation, value)]
        while waiting:
            place = waiting.pop()
            if place in seen:
                continue
            seen.add(place)
            for where, user in self.next(*place):
                if user.opcode in _PASSES:
                    waiting.append((where, user))
                else:
                    ends[user.name] = user
        return list(ends.values())

    def next(self, computation: str, value: Instruction) -> Iterator[tuple[str, Instruction]]:
        """The instructions that take it, with the computations in which they stand; of a fusion its parameter."""
        here = self.computations[computation]
        for user in here:
            for n, operand in enumerate(user.operands):
                if operand == value.name and user.opcode == "fusion":
                    inside = user.attribute("calls")
                    yield inside, next(i for i in self.computations[inside] if i.opcode == "parameter" and i.number == n)
                elif operand == value.name:
                    yield computation, user
        if value is here[-1]:
            yield self.callers.get(computation, (computation, value))
