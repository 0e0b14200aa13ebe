"""Runs an optimized HLO program in NumPy: what a TPU's program computes, without a TPU.

Every operation rounds once, as HLO says, but for those that a TPU approximates: a float32 quotient or root is made wrong by up to
`Arithmetic.off` ulp, so that a program which leans on one gives other bits. What stands below HLO is not seen: that the TPU's own + - * of
float32 and its conversions round once, to nearest, is trusted. An operation that is not known is refused.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .hlo import Computation, Instruction, Module
from .hlo_operations import DTYPES, ELEMENTWISE, TYPED

_APPROXIMATE = ("divide", "sqrt", "rsqrt")
_BITS = ("negate", "abs", "select", "is-finite")  # float operations that look at no number: a subnormal passes


class UnknownOperationError(ValueError):
    """A program holds what the interpreter does not know."""


@dataclass(frozen=True)
class Machine:
    """How it computes in float32.

    Attributes:
        off: by how many ulp, at most, a quotient or a root is wrong.
        flush: whether subnormals count as zeros, as operands and as results.
        seed: of the errors.
    """

    off: int = 4
    flush: bool = True
    seed: int = 0

    def does(self, opcode: str, function: Callable) -> Callable:
        """A float32 operation as this machine does it."""
        if opcode in _BITS:
            return function
        done = _flushing(function) if self.flush else function
        return _wrong(done, self.off, np.random.default_rng(self.seed)) if self.off and opcode in _APPROXIMATE else done


def _flushing(function: Callable) -> Callable:
    return lambda *operands: _flushed(function(*map(_flushed, operands)))


def _flushed(x):
    """Zeros in the place of subnormals."""
    if x.dtype != np.float32:
        return x
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)[()]


def _wrong(function: Callable, off: int, rng: np.random.Generator) -> Callable:
    def wrong(*operands):
        x = function(*operands)
        moved = (np.asarray(x).view(np.int32) + rng.integers(-off, off, np.shape(x), np.int32, endpoint=True)).view(np.float32)
        return np.where(np.isfinite(x) & (x != 0) & np.isfinite(moved), moved, x)[()]

    return wrong


def program(module: Module, machine: Machine) -> Callable[[Sequence], list[np.ndarray]]:
    """The module as a function of its arguments, which returns its results; made once, for many runs."""
    main = _Program(module, machine).function(module.entry)
    expected = [(DTYPES[p.dtype], p.shape) for p in module.main.parameters]

    def call(arguments):
        got = [(x.dtype, x.shape) for x in map(np.asarray, arguments)]
        if got != expected:
            raise ValueError(f"the program takes {expected}, not {got}")
        with np.errstate(all="ignore"):
            results = main(*(np.asarray(x)[()] for x in arguments))
        return [np.asarray(x) for x in (results if isinstance(results, tuple) else (results,))]

    return call


class _Program:
    """Makes functions of a module's computations."""

    def __init__(self, module: Module, machine: Machine):
        self.module, self.machine = module, machine
        self.function = functools.cache(self._function)

    def _function(self, name: str) -> Callable:
        computation = self.module.computations[name]
        steps = [(i.name, self.operation(i, computation), i.operands) for i in computation.instructions if i.opcode != "parameter"]
        parameters, root = [p.name for p in computation.parameters], computation.root

        def call(*arguments):
            values = dict(zip(parameters, arguments, strict=True))
            for name, function, operands in steps:
                values[name] = function(*[values[operand] for operand in operands])
            return values[root]

        return call

    def operation(self, i: Instruction, computation: Computation) -> Callable:
        """What an instruction does with its operands."""
        try:
            if i.opcode in _CONTROL:
                return _CONTROL[i.opcode](i, self.function)
            function = ELEMENTWISE[i.opcode] if i.opcode in ELEMENTWISE else TYPED[i.opcode](i)
        except (KeyError, NotImplementedError) as error:
            raise UnknownOperationError(f"{i.opcode} is not known here: %{i.name} = {i.type} {i.opcode}({i.payload})") from error
        computes = i.opcode in ELEMENTWISE or i.opcode == "compare"
        if computes and "f32" in computation.dtypes(i):
            return self.machine.does(i.opcode, function)
        return function


def _while(i: Instruction, function: Callable) -> Callable:
    (condition,), (body,) = i.computations("condition"), i.computations("body")
    condition, body = function(condition), function(body)

    def loop(carried):
        while condition(carried):
            carried = body(carried)
        return carried

    return loop


def _conditional(i: Instruction, function: Callable) -> Callable:
    branches = [function(name) for name in i.computations("branch_computations")]
    if not branches:  # of a truth value
        branches = [function(i.computations(f"{which}_computation")[0]) for which in ("false", "true")]
    last = len(branches) - 1
    first = 1 if i.computations("true_computation") else 0

    def choose(index, *operands):
        chosen = min(int(index), last) if index >= 0 else last
        operand = operands[1 - chosen] if first else operands[chosen]
        return branches[chosen](operand)

    return choose


_CONTROL: dict[str, Callable[[Instruction, Callable], Callable]] = {
    "fusion": lambda i, function: function(i.computations("calls")[0]),
    "call": lambda i, function: function(i.computations("to_apply")[0]),
    "while": _while,
    "conditional": _conditional,
}
