"""What the documentation says and a program knows: `python -m tools.pages` writes it into the pages, a test reads it there."""

import ast
import functools
import importlib
import inspect
from pathlib import Path

from optparity.registry import OPTIMIZERS

ROOT = Path(__file__).parent.parent


def optimizers() -> str:
    """A line for each optimizer: names, recurrence, state."""
    lines = ["| JAX | PyTorch | recurrence | state |", "|---|---|---|---|"]
    for name, entry in OPTIMIZERS.items():
        module = importlib.import_module(entry.jax.__module__)
        recurrence = "<br>".join(_recurrence(inspect.getdoc(entry.jax) or ""))
        fields = ", ".join(f"`{field}`" for field in module.State._fields)
        lines.append(f"| `jaxopt_impl.{name}` | `torch_ref.{entry.torch_name}` | {recurrence} | {fields} |")
    return "\n".join(lines)


def _recurrence(docstring: str) -> list[str]:
    """The indented lines that follow a docstring's first."""
    lines = docstring.splitlines()[2:]
    return [line.strip() for line in lines[: lines.index("")]]


def script(name: str) -> str:
    """One of the examples, as a block of code."""
    return f"```python\n{(ROOT / 'examples' / f'{name}.py').read_text()}```"


BLOCKS = {
    "README.md": {"optimizers": optimizers},
    "docs/moving_a_run.md": {name: functools.partial(script, name) for name in ("move_to_jax", "move_to_torch")},
}


def written(page: str) -> str:
    """The page with each of its blocks as it is now."""
    text = (ROOT / page).read_text()
    for name, make in BLOCKS[page].items():
        begin, end = f"<!-- {name}: written by python -m tools.pages -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{make()}\n{end}{rest.split(end)[1]}"
    return text


def example(page: str) -> str:
    """The first Python example of a page."""
    code = (ROOT / page).read_text().split("```python\n")[1].split("```")[0]
    ast.parse(code)
    return code


if __name__ == "__main__":
    for page in BLOCKS:
        (ROOT / page).write_text(written(page))
