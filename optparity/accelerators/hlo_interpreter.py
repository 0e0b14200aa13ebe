"""Runs an HLO program in NumPy, lowered or optimized: what a TPU computes, without a TPU.

Every operation rounds once, as HLO says, but for those that a TPU approximates: a float32 quotient or root is made wrong by up to
`Machine.off` ulp, so that a program which leans on one gives other bits. What is below HLO is not seen: that the TPU's own + - * of float32
and its conversions round once, to nearest, is trusted. An operation that is not known is refused.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from .hlo import ENTRY, Instruction, computations
from .hlo_operations import ELEMENTWISE, TYPED

_APPROXIMATE = ("divide", "sqrt", "rsqrt")
_TINY = np.finfo(np.float32).tiny
_WITH_ITS_EXPONENTS = (np.float32, ml_dtypes.bfloat16)  # a subnormal of these is one of float32, in which a TPU computes
_BITS = ("negate", "abs", "select", "is-finite")  # float operations that look at no number: a subnormal passes


class UnknownOperationError(ValueError):
    """A program holds what the interpreter does not know."""


@dataclass(frozen=True)
class Machine:
    """How it computes in float32, and so in bfloat16.

    Attributes:
        off: by how many ulp, at most, a quotient or a root is wrong.
        flush: whether subnormals count as zeros, as operands and as results.
        seed: of the errors.
    """

    off: int = 4
    flush: bool = True
    seed: int = 0

    def does(self, opcode: str, function: Callable) -> Callable:
        """An operation on float32 or bfloat16 as this machine does it."""
        if opcode in _BITS:
            return function
        done = _flushing(function) if self.flush else function
        return _wrong(done, self.off, np.random.default_rng(self.seed)) if self.off and opcode in _APPROXIMATE else done


def _flushing(function: Callable) -> Callable:
    return lambda *operands: _flushed(function(*map(_flushed, operands)))


def _flushed(x):
    """Zeros in the place of subnormals."""
    if x.dtype not in _WITH_ITS_EXPONENTS:
        return x
    return np.where(np.abs(x) < x.dtype.type(_TINY), np.copysign(x.dtype.type(0), x), x)[()]


def _wrong(function: Callable, off: int, rng: np.random.Generator) -> Callable:
    def wrong(*operands):
        x = function(*operands)
        if x.dtype != np.float32:
            return x
        moved = (np.asarray(x).view(np.int32) + rng.integers(-off, off, np.shape(x), np.int32, endpoint=True)).view(np.float32)
        return np.where(np.isfinite(x) & (x != 0) & np.isfinite(moved), moved, x)[()]

    return wrong


def program(text: str, machine: Machine) -> Callable[[Sequence], list[np.ndarray]]:
    """A program as a function of its arguments, which returns its results; made once, for many runs."""
    made = _Program(computations(text), machine)
    main = made.function(ENTRY)
    expected = [(array.dtype, array.shape) for parameter in made.parameters(ENTRY) for array in parameter.results]

    def call(arguments):
        got = [(x.dtype, x.shape) for x in map(np.asarray, arguments)]
        if got != expected:
            raise ValueError(f"the program takes {expected}, not {got}")
        with np.errstate(all="ignore"):
            results = main(*(np.asarray(x)[()] for x in arguments))
        return [np.asarray(x) for x in (results if isinstance(results, tuple) else (results,))]

    return call


class _Program:
    """Makes functions of a program's computations."""

    def __init__(self, computations: dict[str, list[Instruction]], machine: Machine):
        self.computations, self.machine = computations, machine
        self.function = functools.cache(self._function)

    def parameters(self, name: str) -> list[Instruction]:
        """Those of a computation, in order."""
        return sorted((i for i in self.computations[name] if i.opcode == "parameter"), key=lambda i: i.number)

    def _function(self, name: str) -> Callable:
        instructions = {i.name: i for i in self.computations[name]}
        steps = [(i.name, self.operation(i, instructions), i.operands) for i in instructions.values() if i.opcode != "parameter"]
        parameters, result = [p.name for p in self.parameters(name)], next(reversed(instructions))

        def call(*arguments):
            values = dict(zip(parameters, arguments, strict=True))
            for name, function, operands in steps:
                values[name] = function(*[values[operand] for operand in operands])
            return values[result]

        return call

    def operation(self, i: Instruction, others: Mapping[str, Instruction]) -> Callable:
        """What an instruction does with its operands."""
        try:
            if i.opcode in _CONTROL:
                return _CONTROL[i.opcode](i, self.function)
            function = ELEMENTWISE[i.opcode] if i.opcode in ELEMENTWISE else TYPED[i.opcode](i)
        except (KeyError, NotImplementedError) as error:
            raise UnknownOperationError(f"{error}: %{i.name} = {i.shape} {i.opcode}({i.inside}){i.attributes[:80]}") from error
        arrays = [array for each in (i, *map(others.__getitem__, i.operands)) for array in each.results]
        computes = i.opcode in ELEMENTWISE or i.opcode == "compare"
        return self.machine.does(i.opcode, function) if computes and any(a.dtype in _WITH_ITS_EXPONENTS for a in arrays) else function


def _while(i: Instruction, function: Callable) -> Callable:
    condition, body = function(i.attribute("condition")), function(i.attribute("body"))

    def loop(carried):
        while condition(carried):
            carried = body(carried)
        return carried

    return loop


def _conditional(i: Instruction, function: Callable) -> Callable:
    if "true_computation" in i.attributes:
        if_true, if_false = function(i.attribute("true_computation")), function(i.attribute("false_computation"))
        return lambda condition, a, b: if_true(a) if condition else if_false(b)
    branches = [function(name.strip().lstrip("%")) for name in i.attribute("branch_computations").split(",")]

    def choose(index, *operands):
        chosen = index if 0 <= index < len(branches) else len(branches) - 1
        return branches[chosen](operands[chosen])

    return choose


def _reduce(i: Instruction, function: Callable) -> Callable:
    combine, axes = function(i.attribute("to_apply")), i.numbers("dimensions")
    if any(array.dtype.kind not in "iub" for array in i.results):
        raise NotImplementedError("the order of a sum of floats is not known")

    def reduce(x, start):
        front = np.moveaxis(x, axes, range(len(axes)))
        return functools.reduce(combine, front.reshape(-1, *front.shape[len(axes) :]), start)

    return reduce


_CONTROL: dict[str, Callable[[Instruction, Callable], Callable]] = {
    "reduce": _reduce,
    "fusion": lambda i, function: function(i.attribute("calls")),
    "call": lambda i, function: function(i.attribute("to_apply")),
    "while": _while,
    "conditional": _conditional,
}
