"""Runs of the recipe: accumulation, clip, decay mask, warmed-up cosine, average; the same bits on both sides."""

import pytest

from ..sampling import EXHAUSTIVE
from .runs import SMALLER, hashes, trained

pytestmark = pytest.mark.usefixtures("as_users_have_it")
OPTIONS = {"every": 2, "warmup_steps": 3, "decay_steps": 140, "max_norm": 0.5, "ema_decay": 0.9}
GPT = {"task": "gpt", "settings": SMALLER["gpt"], "optimizer": "recipe", "options": OPTIONS}
MLP = {"task": "mlp", "optimizer": "recipe", "options": OPTIONS}


@pytest.mark.parametrize("steps", [24, pytest.param(300, marks=EXHAUSTIVE)])
def test_no_bit_differs(steps, tmp_path):
    """Parameters, moments, average, norm, counts and what is gathered, after every microbatch; and it is all there."""
    training = trained(tmp_path / "run", steps, **GPT)
    assert [line.differing for line in training.lines] == [0] * steps
    for trainer in training.trainers:
        fields = {name.split(".")[0] for name in trainer.arrays()}
        assert fields == {"params", "step", "exp_avg", "exp_avg_sq", "average", "gathered", "norm", "microbatch", "skipped", "n_averaged"}
    norm, decayed = training.trainers[0].optimizer.norm, training.trainers[0].optimizer.param_groups[0]
    assert norm > OPTIONS["max_norm"]  # it was clipped
    assert len(decayed["params"]) == 10  # matrices and embeddings
    assert training.lines[-1].loss["torch"] < training.lines[0].loss["torch"]


def test_going_on_is_as_if_it_had_not_stopped(tmp_path):
    """Stopped in the midst of a step, between its two microbatches."""
    whole = trained(tmp_path / "whole", 9, **MLP)
    trained(tmp_path / "halves", 5, **MLP)
    halves = trained(tmp_path / "halves", 9, resume=True, **MLP)
    assert hashes(halves) == hashes(whole)
    assert [line.loss for line in halves.lines] == [line.loss for line in whole.lines]
