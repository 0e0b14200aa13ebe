"""`optparity doctor`: what this machine does."""

import torch

from jaxopt_impl import numerics as nx

from .running import one_line, optparity
from .test_check import plain_zero


def test_doctor(monkeypatch, capsys):
    status, out, _ = optparity(monkeypatch, capsys, "doctor", "--elements", 65536)
    assert status == 0
    assert "The contract is kept here." in out
    assert f"{torch.__version__}" in out
    for line in ("a / sqrt(c)", "torch_ref: sqrt(c)", "jax: subnormals", "torch: subnormals within"):
        assert line in out


def test_doctor_sees_a_broken_fence(monkeypatch, capsys):
    monkeypatch.setattr(nx, "signed_zero", plain_zero)
    status, out, _ = optparity(monkeypatch, capsys, "doctor", "--elements", 65536)
    assert status == 1
    assert "THE FENCE DOES NOT HOLD" in out


def test_bad_arguments_of_doctor(monkeypatch, capsys):
    one_line(*optparity(monkeypatch, capsys, "doctor", "--elements", 3), "Invalid value for '--elements'")
