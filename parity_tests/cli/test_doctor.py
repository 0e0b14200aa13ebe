"""`optparity doctor`: what this machine does, and what it says of a device's programs. The compilers are tried with --accelerators."""

import jax
import pytest
import torch

from jaxopt_impl import numerics as nx
from one_pass import library
from optparity import doctor
from optparity.accelerators import compiling, examine, programs, targets
from optparity.accelerators.compiling import Compiled
from optparity.registry import Row

from .running import one_line, optparity
from .test_check import plain_zero


def test_doctor(monkeypatch, capsys):
    status, out, _ = optparity(monkeypatch, capsys, "doctor", "--elements", 65536)
    assert status == 0
    assert "The contract is kept here." in out
    assert f"{torch.__version__}" in out
    assert jax.devices()[0].device_kind in out.split("jax devices are")[1].splitlines()[0]
    for line in ("a / sqrt(c)", "torch_ref: sqrt(c)", "jax: subnormals", "torch: subnormals within"):
        assert line in out


def test_doctor_says_whether_the_compiled_library_is_used(monkeypatch):
    assert dict(doctor.machine())["one pass on the CPU"] == library.described()
    monkeypatch.setenv("OPTPARITY_ONE_PASS", "0")
    assert dict(doctor.machine())["one pass on the CPU"] == "not used: switched off by OPTPARITY_ONE_PASS=0"


def test_doctor_on_a_tpu_leaves_float64_out(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    lines = [line for line in doctor.examine(1024) if line.what.startswith("jax: ")]
    assert {line.dtype for line in lines} == {"float32", "bfloat16", "float16"}


def test_doctor_sees_a_broken_fence(monkeypatch, capsys):
    monkeypatch.setattr(nx, "signed_zero", plain_zero)
    status, out, _ = optparity(monkeypatch, capsys, "doctor", "--elements", 65536)
    assert status == 1
    assert "THE FENCE DOES NOT HOLD" in out


def test_bad_arguments_of_doctor(monkeypatch, capsys):
    for elements in (3, 2**26 + 1, 10**12, 10**23):
        one_line(*optparity(monkeypatch, capsys, "doctor", "--elements", elements), "Invalid value for '--elements': Input should be ")
    one_line(
        *optparity(monkeypatch, capsys, "doctor", "--target", "b200"), "'b200' is not one of 'h100', 'a100', 'v4', 'v5e', 'v5p', 'v6e'."
    )
    refused = optparity(monkeypatch, capsys, "doctor", "--target", "v4", "--elements", 4096)
    one_line(*refused, "--elements 4096: it is for what runs on this machine, not for --target v4.")


def test_elements_for_which_there_is_no_memory(monkeypatch, capsys):
    def no_room(_):
        raise MemoryError("Unable to allocate 512. MiB for an array")

    monkeypatch.setattr(doctor, "examine", no_room)
    status, _, err = optparity(monkeypatch, capsys, "doctor", "--elements", 2**26)
    assert (status, err) == (2, "optparity: Unable to allocate 512. MiB for an array\n")


@pytest.mark.parametrize(
    ("target", "installed", "message"),
    [
        ("h100", {}, "jax-cuda12-pjrt is not installed; compiling for NVIDIA H100"),
        ("a100", {"jax-cuda12-pjrt": "0.9.1"}, "jax-cuda12-pjrt 0.9.1 is installed; compiling for NVIDIA A100"),
        ("a100", {"jax-cuda12-pjrt": targets.version("jaxlib")}, "nvidia-cuda-nvcc-cu12 is not installed; compiling for NVIDIA A100"),
        ("v5e", {}, "libtpu is not installed; compiling for TPU v5e"),
        ("v5e", {"libtpu": "0.0.1"}, "libtpu 0.0.1 is installed; compiling for TPU v5e"),
    ],
)
def test_compilers_that_are_not_there(target, installed, message, monkeypatch, capsys):
    monkeypatch.setattr(targets, "_installed", installed.get)
    refused = optparity(monkeypatch, capsys, "doctor", "--target", target)
    one_line(*refused, f"--target {target}: {message}")
    one_line(*refused, f"with jax {targets.version('jax')} needs: pip install 'optparity[accelerators]' '")


def test_programs_that_do_not_compile_or_are_not_understood(monkeypatch, capsys, tmp_path):
    """Each is a line of the table, and so is float64 on a TPU, which our own error must refuse."""
    step, canary = (programs.train_step, Row("sgd", "default")), (programs.fenced_canary, "a / c")
    made = {
        (*step, "float32"): ("error.txt", "XlaRuntimeError: no"),
        (*step, "float64"): ("error.txt", "TypeError: sgd: params is float64, which TPUs do not have; float32 is needed."),
        (*canary, "float32"): ("hlo.txt", "not HLO"),
        (*canary, "float64"): ("error.txt", "XlaRuntimeError: no"),
    }
    compiled = [Compiled(programs.Program("", *what), tmp_path / str(i)) for i, what in enumerate(made)]
    for each, (name, text) in zip(compiled, made.values(), strict=True):
        each.folder.mkdir()
        (each.folder / "lowered.txt").touch()
        (each.folder / name).write_text(text)
    monkeypatch.setattr(targets.Target, "missing", lambda self: None)
    monkeypatch.setattr(examine, "described", lambda target: [])
    monkeypatch.setattr(compiling, "compile_programs", lambda *_, **__: compiled)
    status, out, _ = optparity(monkeypatch, capsys, "doctor", "--target", "v6e")
    verdicts = ("DOES NOT COMPILE", "as it must be", "NOT UNDERSTOOD", "NOT REFUSED")
    assert [out.count(verdict) for verdict in verdicts] == [1, 1, 1, 1]
    assert "3 lines break the contract in the programs compiled for v6e; they were not run." in out
    assert status == 1
