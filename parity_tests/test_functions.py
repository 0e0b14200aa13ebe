"""A reader holds a function in his head: none is longer than 50 lines, its docstring aside."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    path for package in ("optparity", "jaxopt_impl", "torch_ref", "benchmarks", "tools") for path in sorted((ROOT / package).rglob("*.py"))
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first, *rest = node.body
            is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            body = rest if is_docstring and rest else node.body
            assert node.end_lineno - body[0].lineno + 1 < 50, f"{node.name}, line {node.lineno}"
