"""Programs are compiled once, for all tests of a target: with `--dist loadscope` one process runs them."""

import functools
import os

import pytest

from optparity.accelerators.compiling import WORKERS, Compiled, compile_programs
from optparity.accelerators.programs import Program


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """`compiled(target, programs) -> name -> Compiled`; what is asked for again is not compiled again."""

    @functools.cache
    def compile_once(target: str, programs: tuple[Program, ...]) -> dict[str, Compiled]:
        workers = 1 if "PYTEST_XDIST_WORKER" in os.environ else WORKERS
        made = compile_programs(target, programs, tmp_path_factory.mktemp(target), workers)
        return {each.program.name: each for each in made}

    return compile_once
