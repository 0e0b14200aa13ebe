"""What the documentation says and a program knows: `python -m tools.pages` writes it into the pages, a test reads it there."""

import functools
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import clipping
from benchmarks import page as performance
from benchmarks.runs import read
from optparity.explain.conventions import CONVENTIONS, Convention
from optparity.registry import OPTIMIZERS

from . import cost_measured

ROOT = Path(__file__).parent.parent


def optimizers() -> str:
    """A line for each optimizer: names, recurrence, state."""
    lines = ["| `jaxopt_impl` | `torch_ref` | recurrence | state |", "|---|---|---|---|"]
    for name, entry in OPTIMIZERS.items():
        module = importlib.import_module(entry.jax.__module__)
        recurrence = "<br>".join(_recurrence(inspect.getdoc(entry.jax) or ""))
        fields = ", ".join(f"`{field}`" for field in module.State._fields)
        lines.append(f"| `{name}` | `{entry.torch_name}` | {recurrence} | {fields} |")
    return "\n".join(lines)


def _recurrence(docstring: str) -> list[str]:
    """The indented lines that follow a docstring's first, and what they hold between wide spaces."""
    lines = docstring.splitlines()[2:]
    return [part for line in lines[: lines.index("")] for part in re.split(r"(?<=[,;])\s{2,}", line.strip())]


def script(name: str) -> str:
    """One of the examples, as a block of code."""
    return f"```python\n{(ROOT / 'examples' / f'{name}.py').read_text()}```"


def reference(package: str) -> str:
    """A line for mkdocstrings for each public function and class, by the module that defines it: `adagrad` alone would be the module."""
    module = importlib.import_module(package)
    public = [getattr(module, name) for name in module.__all__]
    functions = [found for found in public if inspect.isfunction(found) or inspect.isclass(found)]
    modules = [found for found in public if inspect.ismodule(found)]
    documented = [*functions, *(found for inner in modules for found in _defined(inner))]
    return "\n\n".join(f"::: {found.__module__}.{found.__name__}" for found in documented)


def _defined(module: ModuleType) -> list[Any]:
    """The public functions and classes that a module defines."""
    return [
        found
        for name, found in vars(module).items()
        if not name.startswith("_") and getattr(found, "__module__", "") == module.__name__ and callable(found)
    ]


def conventions() -> str:
    """A line for each convention that an explanation may name."""
    lines = ["| setting | of | what an optimizer does |", "|---|---|---|"]
    for each in CONVENTIONS:
        if isinstance(each, Convention):
            does = "<br>".join(choice.does for choice in each.choices.values())
            lines.append(f"| `{each.name}` | {', '.join(each.rules) or 'all'} | {does} |")
    return "\n".join(lines)


MEASURED = {"small_leaves": performance.small_leaves, "by_size": performance.by_size}
CLIPPING = ROOT / "docs" / "results" / "cpu_amd_epyc_2_cores_clipping.json"
ROADS = {
    "nanogpt": ("nanogpt", "flax_gpt"),
    "hugging_face": ("hugging_face",),
    "lightning": ("lightning_module",),
    "flax_nnx": ("flax_nnx",),
    "linen": ("linen",),
}
PACKAGES = ("optparity", "jaxopt_impl", "torch_ref", "optparity.interop", "optparity.accounting")
BLOCKS = {
    "README.md": {"optimizers": optimizers},
    "docs/optax.md": {"optimizers": optimizers},
    "docs/packing.md": {name: lambda make=make: make(performance.load()) for name, make in MEASURED.items()},
    "docs/explain.md": {"conventions": conventions},
    "docs/around.md": {"clipping": lambda: clipping.markdown(read(CLIPPING, ("size", "dtype", "seconds")))},
    "docs/cost_measured.md": {
        make.__name__: make for make in (cost_measured.runs, cost_measured.ran, cost_measured.states, cost_measured.utilization)
    },
    "docs/moving_a_run.md": {name: functools.partial(script, name) for name in ("move_to_jax", "move_to_torch")},
    **{f"docs/roads/{page}.md": {name: functools.partial(script, f"roads/{name}") for name in names} for page, names in ROADS.items()},
    **{f"docs/reference/{package.rpartition('.')[2]}.md": {"reference": functools.partial(reference, package)} for package in PACKAGES},
}


def written(page: str) -> str:
    """The page with each of its blocks as it is now."""
    text = (ROOT / page).read_text()
    for name, make in BLOCKS[page].items():
        begin, end = f"<!-- {name}: written by python -m tools.pages -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{make().strip()}\n\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    for page in BLOCKS:
        (ROOT / page).write_text(written(page))
