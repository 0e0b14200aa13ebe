"""Imports point one way, in every file of the repository."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = {"optparity._arrays", "optparity._files", "optparity._figures", "optparity.datasets"}
RULES = {
    *("jaxopt_impl", "jaxopt_impl.numerics", "jaxopt_impl.checks", "jaxopt_impl.transform"),
    *("jaxopt_impl.batches", "jaxopt_impl.binary64", "jaxopt_impl.corrected", "jaxopt_impl.platforms"),
    *("one_pass", "jaxopt_impl.one_pass", "jaxopt_impl.applied", "torch_ref.one_pass"),
    "jaxopt_impl.around",
    "torch_ref.around",
    *("torch_ref", "torch_ref.numerics", "torch_ref.checks", "torch_ref.optimizer", "torch_ref.shards"),
}
LOWER = BASE | RULES | {"optparity.registry", "optparity.around"}
MIDDLE = {"optparity.parity", "optparity.interop", "optparity.accounting", "optparity.models"}
COMPARED = {f"optparity.{name}" for name in ("versus", "traces", "explain", "report")}
UPPER = COMPARED | {
    "optparity.accelerators",
    "optparity.checkpoints",
    "optparity.training",
    "optparity.check",
    "optparity.doctor",
    "optparity.drift",
    "optparity.drift_around",
    "optparity.detection",
    "optparity.testing",
}
PRODUCT = LOWER | MIDDLE | UPPER | {"optparity", "optparity.cli"}
# What each part may import of ours, beside itself.
MAY_IMPORT = {
    "jaxopt_impl.batches": set(),
    "jaxopt_impl.binary64": set(),
    "jaxopt_impl.corrected": set(),
    "jaxopt_impl.platforms": set(),
    "jaxopt_impl.numerics": {f"jaxopt_impl.{name}" for name in ("batches", "binary64", "corrected", "platforms")},
    "one_pass": set(),
    "jaxopt_impl.one_pass": {"one_pass", "jaxopt_impl.numerics"},
    "jaxopt_impl.checks": {"jaxopt_impl.numerics"},
    "jaxopt_impl.transform": {"jaxopt_impl.numerics", "jaxopt_impl.checks", "jaxopt_impl.one_pass"},
    "jaxopt_impl.applied": {"jaxopt_impl.transform", "jaxopt_impl.one_pass"},
    "jaxopt_impl.around": {
        "jaxopt_impl",
        *(f"jaxopt_impl.{name}" for name in ("numerics", "binary64", "platforms", "checks", "transform")),
    },
    "jaxopt_impl": {f"jaxopt_impl.{name}" for name in ("numerics", "checks", "transform", "applied", "around")},
    "torch_ref.shards": set(),
    "torch_ref.numerics": {"torch_ref.shards"},
    "torch_ref.checks": {"torch_ref.numerics"},
    "torch_ref.one_pass": {"one_pass", "torch_ref.numerics"},
    "torch_ref.optimizer": {"torch_ref.numerics", "torch_ref.checks", "torch_ref.one_pass", "torch_ref.shards"},
    "torch_ref.around": {"torch_ref", *(f"torch_ref.{name}" for name in ("numerics", "checks", "optimizer", "shards"))},
    "torch_ref": {f"torch_ref.{name}" for name in ("numerics", "checks", "optimizer", "around")},
    "optparity._arrays": set(),
    "optparity._files": set(),
    "optparity._figures": {"optparity._files"},
    "optparity.datasets": set(),
    "optparity.registry": RULES,
    "optparity.around": RULES | {"optparity.registry"},
    "optparity.parity": LOWER,
    "optparity.interop": LOWER,
    "optparity.accounting": LOWER,
    "optparity.models": LOWER,
    "optparity.versus": LOWER | MIDDLE,
    "optparity.explain": LOWER | MIDDLE | {"optparity.versus"},
    "optparity.traces": LOWER | MIDDLE | {"optparity.versus", "optparity.explain"},
    "optparity.report": LOWER | MIDDLE | {"optparity.versus", "optparity.explain", "optparity.doctor"},
    "optparity.testing": LOWER | MIDDLE | COMPARED,
    "optparity.pytest_plugin": COMPARED | {"optparity.testing"},
    "optparity.accelerators": LOWER | MIDDLE,
    "optparity.checkpoints": LOWER | MIDDLE,
    "optparity.training": LOWER | MIDDLE,
    "optparity.check": LOWER | MIDDLE,
    "optparity.doctor": LOWER | MIDDLE | {"optparity.accelerators"},
    "optparity.drift": LOWER | MIDDLE | {"optparity.doctor"},
    "optparity.drift_around": LOWER | MIDDLE | {"optparity.doctor", "optparity.drift"},
    "optparity.detection": LOWER | MIDDLE | {"optparity.versus", "optparity.explain", "optparity.doctor", "optparity.drift"},
    "optparity.cli": LOWER | MIDDLE | UPPER | {"optparity"},
    "optparity.__main__": {"optparity.cli"},
    "optparity": LOWER | MIDDLE | {"optparity.traces"},  # its __init__
    "benchmarks": PRODUCT,
    "tools": PRODUCT | {"benchmarks"},
    "examples": PRODUCT,
    "parity_tests": PRODUCT | {"benchmarks", "tools"},
}
OURS = {name.split(".")[0] for name in MAY_IMPORT}
FILES = [path for package in sorted(OURS) for path in sorted((ROOT / package).rglob("*.py"))]
NEEDS_ONLY = {"one_pass": set(), "jaxopt_impl": {"jax", "numpy", "optax"}, "torch_ref": {"numpy", "torch"}}


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def part(name: str) -> str:
    """The part of the house that a module belongs to: the longest of the names above that begins its own."""
    return max((known for known in MAY_IMPORT if f"{name}.".startswith(f"{known}.")), key=len)


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it the import stands."""
    package = module(path).split(".") if path.stem == "__init__" else module(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                there = ROOT.joinpath(*full.split("."))
                yield full if there.with_suffix(".py").exists() or (there / "__init__.py").exists() else base


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_point_one_way(path):
    here = part(module(path))
    for name in imported(path):
        if name.split(".")[0] in OURS and part(name) != here:
            assert part(name) in MAY_IMPORT[here], f"{module(path)} imports {name}"


@pytest.mark.parametrize("package", NEEDS_ONLY)
def test_the_two_packages_need_their_framework_only(package):
    for path in (ROOT / package).rglob("*.py"):
        roots = {name.split(".")[0] for name in imported(path)} - {package, "one_pass"}
        assert roots - sys.stdlib_module_names <= NEEDS_ONLY[package], module(path)


def test_every_part_is_there():
    """So that no rule above is about a file that has moved."""
    for name in MAY_IMPORT:
        there = ROOT.joinpath(*name.split("."))
        assert there.is_dir() or there.with_suffix(".py").exists(), name
