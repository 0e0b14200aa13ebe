"""Strict settings for every test: eight devices, no silent promotion of ranks or dtypes.

`--exhaustive` runs the whole products; `--accelerators` what compiles for GPUs and TPUs; `--roads` what trains with other frameworks;
`--browser` what looks at pages.
"""

import os

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

from one_pass import library

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

OPTIONS = ("exhaustive", "accelerators", "roads", "browser")


def pytest_addoption(parser):
    for option in OPTIONS:
        parser.addoption(f"--{option}", action="store_true", help=f"run the tests and cases marked `{option}` as well")


def pytest_collection_modifyitems(config, items):
    """What is marked with an option's name is not collected without it. Of `exhaustive` one case of each kind stays (see `sampling`)."""
    for option in OPTIONS:
        if not config.getoption(f"--{option}"):
            left_out = [item for item in items if item.get_closest_marker(option)]
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if not item.get_closest_marker(option)]


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """float32 and float64, unless a test names its own."""
    return request.param


@pytest.fixture(autouse=True)
def x64_for_float64(request):
    """With x64 on where the test's dtype is float64."""
    with jax.enable_x64("dtype" in request.fixturenames and request.getfixturevalue("dtype") == "float64"):
        yield


@pytest.fixture
def as_users_have_it():
    """JAX's own settings of promotion, for models and training runs, which are not the code that the strict ones guard."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def with_one_pass():
    """The compiled library is there: skipped where it cannot be built or is switched off, and red where it should be there and is not."""
    if not library.is_available():
        reason = library.described()
        (pytest.skip if "no C++ compiler" in reason or "switched off" in reason else pytest.fail)(f"one_pass: {reason}")


@pytest.fixture
def without_one_pass(monkeypatch):
    """Every step through the rules, operation by operation, as where there is no compiled library; what was traced before is forgotten."""
    monkeypatch.setenv("OPTPARITY_ONE_PASS", "0")
    jax.clear_caches()
    yield
    jax.clear_caches()
