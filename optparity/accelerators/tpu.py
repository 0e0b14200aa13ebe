"""What a TPU's program shows: that nothing in it is float64, that no approximation is taken for a result, and what it computes.

A TPU has no IEEE float64 (its compiler makes a pair of float32 of each) and approximates float32 quotients and roots. Both stand in the
program's text. What is below it, the TPU's own instructions, this does not see.
"""

from collections.abc import Iterator

from .compiling import Compiled
from .hlo import Instruction, Module, parse
from .hlo_interpreter import Machine, program
from .walking import Run

_FLOATS = {"f32", "f16", "bf16"}
_APPROXIMATE = {"divide", "sqrt", "rsqrt", "cbrt", "power", "exponential", "exponential-minus-one", "log", "log-plus-one"}
_MOVES = {"bitcast", "broadcast", "copy", "copy-start", "copy-done", "reshape", "slice", "transpose", "get-tuple-element", "tuple"}
_PASSES = _MOVES | {"multiply", "fusion", "parameter"}


def problems(compiled: Compiled) -> list[str]:
    """In a line each, what should not be in a program."""
    float64 = compiled.lowered.count("f64>")  # before it is optimized: then each is a pair of float32
    wide = [f"float64 is mentioned {float64} times"] if float64 else []
    relied_on = _relied_on(parse(compiled.hlo))
    return wide + [f"the {i.opcode} %{i.name} is taken for exact by %{user.name}, {user.opcode}" for i, user in relied_on]


def runs(compiled: Compiled, machine: Machine) -> Run:
    """The program as a function of the leaves of its arguments."""
    return program(parse(compiled.hlo), machine)


def _relied_on(module: Module) -> Iterator[tuple[Instruction, Instruction]]:
    """Each approximation that goes elsewhere than, scaled, to an integer, where it is corrected; with the instruction that takes it."""
    uses = _Uses(module)
    for name, computation in module.computations.items():
        for i in computation.instructions:
            if i.opcode in _APPROXIMATE and i.dtype in _FLOATS:
                yield from ((i, user) for user in uses.of(name, i.name) if user.opcode != "convert" or user.dtype[0] not in "su")


class _Uses:
    """Who takes a value, through whatever only moves or scales it, and into and out of fusions."""

    def __init__(self, module: Module):
        self.module = module
        lines = ((name, i) for name, computation in module.computations.items() for i in computation.instructions)
        self.callers = {called: (name, i) for name, i in lines for called in i.computations("calls")}

    def of(self, computation: str, value: str) -> list[Instruction]:
        """The instructions in which it ends."""
        ends, seen, waiting = {}, set(), [(computation, value)]
        while waiting:
            place = waiting.pop()
            if place in seen:
                continue
            seen.add(place)
            for where, user in self.next(*place):
                if user.opcode in _PASSES:
                    waiting.append((where, user.name))
                else:
                    ends[user.name] = user
        return list(ends.values())

    def next(self, computation: str, value: str) -> Iterator[tuple[str, Instruction]]:
        """The instructions that take it, with the computations in which they stand; of a fusion its parameter."""
        here = self.module.computations[computation]
        for user in here.instructions:
            for n, operand in enumerate(user.operands):
                if operand == value and user.opcode == "fusion":
                    (inside,) = user.computations("calls")
                    yield inside, self.module.computations[inside].parameters[n]
                elif operand == value:
                    yield computation, user
        if value == here.root:
            yield self.callers.get(computation, (computation, here.by_name[value]))
