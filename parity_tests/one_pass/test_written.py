"""What is compiled is what the rules say now."""

import importlib
import re

import pytest

from one_pass import build, library
from one_pass.program import programs
from optparity.registry import OPTIMIZERS
from tools import one_pass as tool

LIMITS = {name: int(n) for name, n in re.findall(r"constexpr int (\w+) = (\d+);", (build.NATIVE / "programs.h").read_text())}
PROGRAMS = {name: list(programs(importlib.import_module(f"jaxopt_impl.{name}"))) for name in tool.KERNELS}


@pytest.mark.parametrize("kernel", tool.KERNELS)
def test_the_files_are_what_the_tool_writes(kernel):
    assert (tool.FOLDER / f"{kernel}.cc").read_text() == tool.written(kernel), "python -m tools.one_pass writes them"


def test_every_kernel_is_compiled():
    kernels = {entry.kernel for entry in OPTIMIZERS.values()}
    assert set(tool.KERNELS) == kernels
    assert {path.stem for path in tool.FOLDER.iterdir()} == kernels
    assert set(re.findall(r"DO\((\w+)\)", (build.NATIVE / "library.cc").read_text())) == kernels


@pytest.mark.parametrize("kernel", tool.KERNELS)
def test_programs_fit_into_the_librarys_arrays_and_are_in_it(kernel):
    for program in PROGRAMS[kernel]:
        assert len(program.fields) <= LIMITS["MOST_FIELDS"]
        assert len(program.numbers) <= LIMITS["MOST_NUMBERS"]
        assert library.available().one_pass_has(program.name.encode()), program.name
    assert not library.available().one_pass_has(f"{kernel}_00000000".encode())


def test_a_library_of_other_sources_is_not_used(tmp_path, monkeypatch):
    """A rule that was changed since then must not step as it was."""
    (tmp_path / "rounded.h").write_text("// another")
    monkeypatch.setattr(build, "NATIVE", tmp_path)
    library._loaded.cache_clear()
    try:
        with pytest.raises(library.UnavailableError, match=r"built of other sources; python -m one_pass.build builds it anew"):
            library.available()
    finally:
        library._loaded.cache_clear()
