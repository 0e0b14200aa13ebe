"""A recorded program as C++: a function for what is computed once a step, and a loop for what is computed of each element."""

from collections.abc import Iterable

from .program import Program

_HEAD = """// Written by `python -m tools.one_pass`, of jaxopt_impl/{kernel}.py; not by hand.
#include "../rounded.h"

namespace {{
"""
_OPERATIONS = {"neg": "-{}", "sqrt": "root({})", "sign": "sign({})", "maximum": "larger({}, {})", "unless": "{0} ? {2} : {1}"}


def kernel(name: str, programs: Iterable[Program]) -> str:
    """The file of a kernel: its loops, each once, and a table of its programs."""
    numbers: dict[str, str] = {}
    loops: dict[str, str] = {}
    rows: dict[str, str] = {}
    text = _HEAD.format(kernel=name)
    for program in programs:
        comment = ", ".join(sorted(asked for asked, is_set in program.asked.items() if is_set)) or "nothing set"
        text += f"\n// {program.name}: {comment}\n"
        text += _once(numbers, "numbers", _numbers(program))
        text += _once(loops, "loop", _loop(program))
        f, loop = numbers[_numbers(program)], loops[_loop(program)]
        each = ", ".join(f"{loop}<{kind}, false>" for kind in ("float", "double", "BFloat16", "Float16"))
        applied = ", ".join(f"{loop}<{kind}, true>" for kind in ("float", "double"))
        rows[program.name] = f'    {{"{program.name}", {len(program.fields)}, {f}, {{{each}}}, {{{applied}}}}},\n'
    table = f"}}  // namespace\n\nextern const Program TABLE({name})[] = {{\n{''.join(rows.values())}    {{}},\n}};\n"
    return f"{text}\n{table}"


def _once(known: dict[str, str], what: str, body: str) -> str:
    """A function with this body, if there is none yet."""
    if body in known:
        return f"// {known[body]}, as above\n"
    known[body] = f"{what}_{len(known)}"
    return body.replace("NAME", known[body])


def _numbers(program: Program) -> str:
    lines = "".join(f"    c[{i}] = {text};\n" for i, text in enumerate(program.numbers))
    return f"void NAME(const double* h, double* c) {{\n{lines}}}\n"


def _loop(program: Program) -> str:
    used = {operand for _, _, operands in program.lines for operand in operands} | {program.update, *program.after.values(), "p"}
    arrays = {"g": "a.g", "p": "a.p", **{name: f"a.before[{i}]" for i, name in enumerate(program.fields)}}
    arrays = {name: place for name, place in arrays.items() if name in used}
    after = {name: f"a.after[{program.fields.index(name)}]" for name in program.after} | {"u": "a.u"}
    pointers = "".join(f"    const Array<T>* {name}_ = of<T>({place});\n" for name, place in arrays.items())
    pointers += "".join(f"    Array<T>* next_{name} = of<T>({place});\n" for name, place in after.items())
    constants = "".join(f"    const T c{i}(a.c[{i}]);\n" for i in range(len(program.numbers)) if f"c{i}" in used)
    constants += "".join(f"    const bool z{i} = a.c[{i}] == 0;\n" for i in program.zeros)
    lines = "".join(f"        const T {name} = Element<T>::of({name}_[i]);\n" for name in arrays)
    lines += "".join(f"        const T {name} = {_line(operation, *operands)};\n" for name, operation, operands in program.lines)
    lines += "".join(f"        next_{name}[i] = kept({value});\n" for name, value in program.after.items())
    lines += f"        next_u[i] = kept(applied ? p + {program.update} : {program.update});\n"
    return (
        f"template <class T, bool applied> void NAME(const Operands& a) {{\n{pointers}{constants}"
        f"    EACH_ALONE\n    for (int64_t i = 0; i < a.n; i++) {{\n{lines}    }}\n}}\n"
    )


def _line(operation: str, *operands: str) -> str:
    if operation in "+-*/":
        return f" {operation} ".join(operands)
    return _OPERATIONS[operation].format(*operands)
