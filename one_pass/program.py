"""A recorder: it runs a kernel on symbols that write down what is done with them. So no rule is written a second time.

A kernel is Python over operators and a few functions of `numerics`. Here these are given symbols, and the functions of this module in the
place of those of `numerics`. Where a kernel asks whether a hyper-parameter is set (`if h.weight_decay:`), both answers are recorded, each
as a program of its own.
"""

import functools
import hashlib
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass
class Program:
    """What one kernel does, for one set of answers.

    Attributes:
        kernel: the module's name.
        asked: hyper-parameter -> whether it is set (neither False nor a Python 0), for those that the kernel asked about.
        fields: of the state, those that are read or written.
        numbers: what is computed once a step, in float64: expressions of `h[i]`, the hyper-parameters in the order of `Hyper`, then t.
        zeros: which numbers are asked, at run time, whether they are 0.
        lines: what is computed of each element: (name, operation, operands).
        update: the name of the update.
        after: field -> the name of its next value, where it has another one.
    """

    kernel: str
    asked: dict[str, bool]
    fields: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    zeros: list[int] = field(default_factory=list)
    lines: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    update: str = ""
    after: dict[str, str] = field(default_factory=dict)

    @functools.cached_property
    def name(self) -> str:
        """Its name in the library: of what it does, so that a library which was built of another rule does not have it."""
        does = (self.fields, self.numbers, self.zeros, self.lines, self.update, sorted(self.after.items()))
        return f"{self.kernel}_{hashlib.sha256(repr(does).encode()).hexdigest()[:8]}"

    def number(self, x: "Number | float") -> str:
        """The name of a number in what is computed of each element, where it is rounded to the leaf's dtype."""
        text = _text(x)
        if text not in self.numbers:
            self.numbers.append(text)
        return f"c{self.numbers.index(text)}"

    def leaf(self, operation: str, *operands: "Leaf | Number | float") -> "Leaf":
        """A line, and the leaf that it makes."""
        names = tuple(x.name if isinstance(x, Leaf) else self.number(x) for x in operands)
        name = f"x{len(self.lines)}"
        self.lines.append((name, operation, names))
        return Leaf(self, name)


class Number(NamedTuple):
    """A hyper-parameter, or what is computed of some: float64."""

    text: str
    asked: Callable[[], bool] = lambda: True

    def __bool__(self) -> bool:
        return self.asked()

    def __add__(self, other):
        return _operated("+", self, other)

    def __sub__(self, other):
        return _operated("-", self, other)

    def __mul__(self, other):
        return _operated("*", self, other)

    def __truediv__(self, other):
        return _operated("/", self, other)

    def __radd__(self, other):
        return _operated("+", other, self)

    def __rsub__(self, other):
        return _operated("-", other, self)

    def __rmul__(self, other):
        return _operated("*", other, self)

    def __rtruediv__(self, other):
        return _operated("/", other, self)

    def __neg__(self):
        return Number(f"-{self.text}")


class Leaf(NamedTuple):
    """An element of a leaf."""

    program: Program
    name: str

    def __add__(self, other):
        return self.program.leaf("+", self, other)

    def __sub__(self, other):
        return self.program.leaf("-", self, other)

    def __mul__(self, other):
        return self.program.leaf("*", self, other)

    def __truediv__(self, other):
        return self.program.leaf("/", self, other)

    def __radd__(self, other):
        return self.program.leaf("+", other, self)

    def __rsub__(self, other):
        return self.program.leaf("-", other, self)

    def __rmul__(self, other):
        return self.program.leaf("*", other, self)

    def __rtruediv__(self, other):
        return self.program.leaf("/", other, self)

    def __neg__(self):
        return self.program.leaf("neg", self)


def _operated(sign: str, a: Any, b: Any) -> Any:
    """A number of two; where a leaf is on the right, a leaf."""
    if isinstance(b, Leaf):
        return b.program.leaf(sign, a, b)
    return Number(f"({_text(a)} {sign} {_text(b)})")


def _text(x: Any) -> str:
    return x.text if isinstance(x, Number) else repr(float(x))


def sqrt(a):
    return a.program.leaf("sqrt", a) if isinstance(a, Leaf) else Number(f"sqrt({_text(a)})")


def sign(a: Leaf) -> Leaf:
    return a.program.leaf("sign", a)


def maximum(a: Leaf, b: Leaf) -> Leaf:
    return a.program.leaf("maximum", a, b)


def power(base: Number, t: Number) -> Number:
    return Number(f"power({_text(base)}, {_text(t)})")


def where(condition: Number, a: Any, b: Any) -> Number:
    return Number(f"({condition.text} ? {_text(a)} : {_text(b)})")


def unless_zero(number: Number, a: Leaf, b: Any) -> Leaf:
    """a, or b where the number is 0, which is told at run time."""
    b = b() if callable(b) else b
    program = a.program
    index = int(program.number(number)[1:])
    if index not in program.zeros:
        program.zeros.append(index)
    name = f"x{len(program.lines)}"
    program.lines.append((name, "unless", (f"z{index}", a.name, b.name)))
    return Leaf(program, name)


_NUMERICS = types.SimpleNamespace(sqrt=sqrt, sign=sign, maximum=maximum, power=power, where=where, unless_zero=unless_zero)


def programs(module: types.ModuleType) -> Iterator[Program]:
    """Every program of a kernel's module, once for each set of answers to its questions."""
    waiting: list[dict[str, bool]] = [{}]
    while waiting:
        answers = waiting.pop()
        program = recorded(module, lambda name, answers=answers: answers.get(name, False))
        yield program
        further = [name for name in program.asked if name not in answers]
        waiting += [{**dict.fromkeys(further[:i], False), **answers, name: True} for i, name in enumerate(further)]


def recorded(module: types.ModuleType, is_set: Callable[[str], bool]) -> Program:
    """The program of a kernel's module where the hyper-parameters are set for which `is_set` says so."""
    program = Program(module.__name__.rpartition(".")[2], {})

    def asked(name: str) -> bool:
        program.asked.setdefault(name, is_set(name))
        return program.asked[name]

    names = module.Hyper._fields
    known = {name: Number(f"h[{i}]", lambda name=name: asked(name)) for i, name in enumerate(names)}
    at_t = {"t": Number(f"h[{len(names)}]"), "first": Number(f"(h[{len(names)}] == 1)")}
    h = module.Hyper(**known | {name: at_t[name] for name in names if name in at_t})
    if hasattr(module, "prepare"):
        h = _with_symbols(module.prepare)(h)
    fields = [name for name in module.State._fields if name != "step"]
    before = {name: Leaf(program, name) for name in fields}
    u, state = _with_symbols(module.step)(Leaf(program, "g"), Leaf(program, "p"), module.State(**before), h)
    program.update = u.name
    program.after = {name: leaf.name for name in fields if (leaf := getattr(state, name)) is not None and leaf.name != name}
    read = {operand for _, _, operands in program.lines for operand in operands}
    program.fields = [name for name in fields if name in read or name in program.after]
    return program


def _with_symbols(function: Callable) -> Callable:
    """The same function, with the functions of this module in the place of those of `numerics`."""
    return types.FunctionType(function.__code__, {**function.__globals__, "nx": _NUMERICS})
