"""Every test here is of the compiled library."""

import pytest


@pytest.fixture(autouse=True)
def _with_one_pass(with_one_pass):
    pass
