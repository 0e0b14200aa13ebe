"""The pytest plugin: the fixture `parity`, the marker `parity`, the option `--parity-report`.

pytest imports this file whenever it starts, so it imports nothing heavy: jax and torch come with the first comparison.
"""

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import Parity

MARKER = (
    'parity(jax=NAME, torch=NAME, **how): before the test, compare two optimizers that are named as "pkg.module:factory"; of one '
    "framework, as jax=[NAME, NAME]. set, set_torch (or set_second): their arguments. params: shapes, arrays, or a file of shapes. "
    "steps, stream, seed, dtype, gradients: what they are fed. ulp, or rtol and atol: what is accepted; by default only the same bits. "
    "float64, state_map: as of the fixture."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("optparity")
    group.addoption(
        "--parity-report", metavar="DIR", type=Path, help="Write a page of HTML into DIR for each test that compares optimizers."
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    folder = config.getoption("--parity-report")
    if folder is None:
        return
    if not find_spec("jinja2"):
        raise pytest.UsageError("--parity-report: jinja2 is not installed; it needs: pip install 'optparity[cli]'")
    try:
        _folder(config).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise pytest.UsageError(f"--parity-report {folder}: the folder cannot be made: {error.strerror}.") from None


def _folder(config: pytest.Config) -> Path:
    return config.invocation_params.dir / str(config.getoption("--parity-report"))


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> "Parity":
    """Compare two optimizers: `parity(first, second, params, gradients, steps=..., ulp=...)`. The test fails where they part."""
    return _of(request.node)


_KEY: pytest.StashKey[Any] = pytest.StashKey()


def _of(item: Any) -> "Parity":
    """What compares for a test, one for the whole of it."""
    if _KEY not in item.stash:
        from .testing import Parity

        item.stash[_KEY] = Parity(item.nodeid, item.config.invocation_params.dir)
    return item.stash[_KEY]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """What the markers say is compared first."""
    for marker in item.iter_markers("parity"):
        _of(item).marked(*marker.args, **marker.kwargs)
    return (yield)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """A page for each test: so no two processes write the same file."""
    if item.config.getoption("--parity-report") is None or _KEY not in item.stash or not item.stash[_KEY].entries:
        return
    from .report import write

    number = hashlib.sha256(item.nodeid.encode()).hexdigest()[:8]  # names that differ only in what a file name cannot hold
    name = re.sub(r"[^\w.-]+", "_", item.nodeid, flags=re.ASCII)[-100:].strip("_.")
    write(_folder(item.config) / f"{name}-{number}.html", item.nodeid, item.stash[_KEY].entries)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("--parity-report") is not None and any(_folder(config).glob("*.html")):  # with xdist, other processes wrote them
        terminalreporter.write_line(f"Pages of what was compared: {_folder(config)}")
