import pytest

from one_pass import library


@pytest.fixture(autouse=True)
def library_is_there():
    """These tests are about the library: without one they say why; one that is out of date fails."""
    if not library.is_available():
        reason = library.described()
        (pytest.fail if "other sources" in reason else pytest.skip)(f"one_pass: {reason}")
