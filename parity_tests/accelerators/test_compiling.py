"""Compiling for a device that is not here: what goes wrong is said in a line."""

import os

import jax
import pytest

from optparity.accelerators import cuda, programs, targets
from optparity.accelerators.compiling import compile_programs
from optparity.accelerators.programs import Built, Program
from optparity.registry import Row

SGD = Program("sgd", programs.train_step, Row("sgd", "default"), "float32")


def refuses(of, dtype):
    raise ValueError("first line\nsecond line")


def dies(of, dtype):
    os._exit(3)


def knows_no_device(of, dtype):
    return Built(lambda: jax.numpy.zeros(3, dtype), ())


@pytest.mark.parametrize("target", targets.TARGETS)
def test_what_is_not_installed_is_named(target, tmp_path, monkeypatch):
    monkeypatch.setattr(targets, "_installed", lambda package: None)
    said = r"^[\w-]+ is not installed; compiling for .* with jax .* needs: pip install 'optparity\[accelerators\]' '[\w-]+.*'$"
    with pytest.raises(RuntimeError, match=said):
        compile_programs(target, [SGD], tmp_path)


@pytest.mark.accelerators
def test_a_program_that_does_not_compile_has_its_error(tmp_path):
    calls = []
    broken = [Program(build.__name__, build, None, "float32") for build in (refuses, knows_no_device)]
    first, second, third = compile_programs("h100", [*broken, SGD], tmp_path, advance=lambda: calls.append(1))
    assert first.error == "ValueError: first line second line"
    assert second.error == "ValueError: knows_no_device: jax compiled it for another device; it needs an argument."
    assert third.error is None
    assert len(calls) == 3


@pytest.mark.accelerators
def test_a_process_that_dies_is_told(tmp_path):
    with pytest.raises(RuntimeError, match=r"^the process that compiles ended with status 3: "):
        compile_programs("h100", [Program("dies", dies, None, "float32"), SGD], tmp_path)


@pytest.mark.accelerators
@pytest.mark.every_jax
def test_flags_that_break_the_contract_are_heard(tmp_path):
    (flushes,) = compile_programs("h100", [SGD], tmp_path, flags="--xla_gpu_ftz=true")
    assert any(".ftz." in line for line in cuda.problems(flushes))
