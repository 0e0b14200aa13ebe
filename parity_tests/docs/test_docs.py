"""The pages say what is so."""

import contextlib
import io
import re
import runpy

import pytest

from optparity.registry import OPTIMIZERS
from tools import pages as docs


def test_the_readme_example_prints_what_the_readme_says():
    page = (docs.ROOT / "README.md").read_text()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(docs.example("README.md"), "README.md", "exec"), {})
    shown = page.split("```\nJAX")[1].split("```")[0]
    assert printed.getvalue() == f"JAX{shown}"
    in_jax, in_torch = printed.getvalue().splitlines()
    assert in_jax.split()[1:] == in_torch.split()[1:]


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("script", sorted((docs.ROOT / "examples").glob("*.py")), ids=lambda script: script.name)
def test_examples_run(script, capsys):
    runpy.run_path(str(script))
    out = capsys.readouterr().out
    if script.name.startswith("article"):
        assert out.count(" moved by 0.010000") == 3  # AdaGrad's first step is η wherever there is a gradient
        assert "sum" in out.split("state before")[1].split("state after")[0]
    else:
        assert "there and back: True" in out


@pytest.mark.parametrize("page", docs.BLOCKS)
def test_generated_blocks_are_current(page):
    assert (docs.ROOT / page).read_text() == docs.written(page), f"{page} is not current: python -m tools.pages"


def test_the_first_screen_names_both_commands():
    first_screen = "\n".join((docs.ROOT / "README.md").read_text().splitlines()[:45])
    assert "`make parity`" in first_screen
    assert "`make test`" in first_screen
    assert "make test" in (docs.ROOT / ".ci/run").read_text()


MAKERS = [make for entry in OPTIMIZERS.values() for make in (entry.jax, entry.torch)]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_public_docstrings_say_everything(make):
    parts = ["Args:", "Dtypes:", "Raises:", "Exactness:", "Differs from:", "Example:"]
    parts += ["Shapes:", "Source:"] if make.__module__.startswith("jaxopt_impl") else ["State:"]
    for part in parts:
        assert re.search(rf"\b{part}", make.__doc__), part
