"""Whole runs: the same bits on both sides, and what is learned."""

from itertools import product

import numpy as np
import pytest

from optparity.registry import OPTIMIZERS
from optparity.training import run
from optparity.training.tasks import TASKS

from ..cli.running import optparity
from ..sampling import EXHAUSTIVE, sampled
from .runs import SMALLER, trained

pytestmark = pytest.mark.usefixtures("as_users_have_it")


@pytest.mark.parametrize(
    ("task", "optimizer"),
    sampled(product(TASKS, OPTIMIZERS), lambda task, optimizer: task == "mlp" or optimizer == "adam"),
)
def test_shared_gradients_keep_every_bit(task, optimizer, tmp_path):
    """300 steps at the documented settings: every bit of parameters and state, at every step."""
    training = trained(tmp_path / "run", 300, task=task, optimizer=optimizer, settings=SMALLER.get(task, {}))
    result = training.result()
    assert [line.differing for line in training.lines] == [0] * 300
    assert result["parameters"]["torch"] == result["parameters"]["jax"]
    assert result["elements"] >= sum(p.numel() for p in training.trainers[0].model.parameters())
    assert result["held_out"]["jax"] < 0.9 * training.lines[0].loss["torch"]


@pytest.mark.parametrize("optimizer", sampled(zip(OPTIMIZERS), lambda optimizer: optimizer == "adam"))
@pytest.mark.parametrize(("task", "steps"), [("mlp", 1000), pytest.param("gpt", 100, marks=EXHAUSTIVE)])
def test_own_gradients_part_and_both_sides_learn(task, steps, optimizer, tmp_path):
    """At the documented settings: the classifier to 95 % of what is held out, the GPT below the entropy of its text, in both frameworks."""
    training = trained(tmp_path / "run", steps, task=task, gradients="own", optimizer=optimizer, settings=SMALLER.get(task, {}))
    result = training.result()
    assert result["differing"] > 0
    assert training.lines[0].distance < 1e-3
    for side in ("torch", "jax"):
        assert len([line for line in training.lines if side in line.loss]) == steps
        if task == "mlp":
            assert result["accuracy"][side] >= 0.95
        else:
            assert result["held_out"][side] < result["unigram_entropy"]


def test_a_bit_that_differs_is_seen(tmp_path, monkeypatch, capsys):
    """With one bit of one moment flipped on one side, the run says so and exits with 1."""
    apart = run._apart

    def flipped(got, expected):
        name = next(name for name in got if name.startswith("exp_avg."))
        bits = got[name].copy().view(np.uint32)
        bits.flat[0] ^= 1
        return apart({**got, name: bits.view(np.float32)}, expected)

    monkeypatch.setattr(run, "_apart", flipped)
    status, out, _ = optparity(monkeypatch, capsys, "train", "mlp", "--steps", 2, "--out", tmp_path / "run")
    assert status == 1
    assert "2 of 14,468 elements differ" in out


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_one_framework_goes_the_way_of_the_pair(framework, tmp_path):
    """A run of one framework, and the same side of a run of both with own gradients, end in the same bits."""
    alone = trained(tmp_path / "alone", 5, task="mlp", framework=framework, gradients="own").result()
    pair = trained(tmp_path / "pair", 5, task="mlp", gradients="own").result()
    assert list(alone["parameters"]) == [framework]
    assert alone["parameters"][framework] == pair["parameters"][framework]
    assert "differing" not in alone
