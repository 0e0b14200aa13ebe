"""What a TPU's program shows: nothing in it is float64, no approximation is taken for a result, no operation of the rule is gone.

A TPU has no IEEE float64 (its compiler makes a pair of float32 of each) and approximates float32 quotients and roots. Both stand in the
program's text. What is below it, the TPU's own instructions, this does not see.
"""

from collections import Counter
from collections.abc import Iterator

from . import hlo
from .compiling import Compiled
from .hlo import Instruction

_APPROXIMATE = {"divide", "sqrt", "rsqrt", "cbrt", "power", "exponential", "exponential-minus-one", "log", "log-plus-one"}
_MOVES = {"bitcast", "broadcast", "copy", "copy-start", "copy-done", "reshape", "slice", "transpose", "get-tuple-element", "tuple"}
_PASSES = _MOVES | {"multiply", "add", "fusion", "parameter"}
_COUNTS = {"convert", "bitcast-convert"}
_ROUNDS = ("add", "subtract", "multiply", "divide", "sqrt", "rsqrt", "maximum", "sign", "reduce-precision")
_SIGN_BIT = "2147483648"
_RESULT = Instruction("result", "()", "result", "", "")  # of the program, or of a turn of a loop


def problems(compiled: Compiled) -> list[str]:
    """In a line each, what should not be in a program."""
    float64 = compiled.lowered.count("f64[")  # before it is optimized: then each is a pair of float32
    wide = [f"float64 is mentioned {float64} times"] if float64 else []
    relied_on = _relied_on(hlo.computations(compiled.hlo))
    return wide + [f"the {i.opcode} %{i.name} is taken for exact by the {user.opcode} %{user.name}" for i, user in relied_on]


def lost(compiled: Compiled) -> list[str]:
    """In a line each, which float32 operations and which fences of the lowered program the optimized one has fewer of.

    It may have more, in copies. Not for a program of constants, which are computed when it is compiled.
    """
    before, after = _counted(compiled.lowered), _counted(compiled.hlo)
    return [f"{after[what]} of {count} {what} are left" for what, count in before.items() if after[what] < count]


def _counted(text: str) -> Counter[str]:
    """The operations on float32 arrays that round or choose, and the sign bits that are taken out of arrays: a fence has one."""
    counted: Counter[str] = Counter()
    for instructions in hlo.computations(text).values():
        sign_bits = set()
        for i in instructions:
            if (i.opcode == "constant" and i.inside == _SIGN_BIT) or (i.opcode == "broadcast" and sign_bits.issuperset(i.operands)):
                sign_bits.add(i.name)
            elif i.opcode in _ROUNDS and i.shape.startswith("f32[") and i.results[0].shape:
                counted[i.opcode] += 1
            elif i.opcode == "and" and i.results[0].shape and not sign_bits.isdisjoint(i.operands):
                counted["fence"] += 1
    return counted


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
        ends, seen = {}, set()
        waiting: list[tuple[str, Instruction, int | None]] = [(computation, value, None)]
        while waiting:
            place = waiting.pop()
            if place in seen:
                continue
            seen.add(place)
            for where, user, part in self.next(*place):
                if user.opcode in _PASSES:
                    waiting.append((where, user, part))
                else:
                    ends[user.name] = user
        return list(ends.values())

    def next(self, computation: str, value: Instruction, part: int | None) -> Iterator[tuple[str, Instruction, int | None]]:
        """Where it goes from there, as that part of a tuple: the instructions that take it, and the computations in which they stand."""
        here = self.computations[computation]
        for user in here:
            for n, operand in enumerate(user.operands):
                if operand != value.name:
                    continue
                if user.opcode == "fusion":
                    inside = user.attribute("calls")
                    yield inside, next(i for i in self.computations[inside] if i.opcode == "parameter" and i.number == n), part
                elif user.opcode == "tuple":
                    yield computation, user, n
                elif user.opcode != "get-tuple-element" or user.numbers("index") == (part,):
                    yield computation, user, None
        if value is here[-1]:
            yield *self.callers.get(computation, (computation, _RESULT)), part
