"""Schedules of the learning rate: a transform's, and torch_ref driven by `ScheduleLR`."""

from itertools import product

import jax
import numpy as np
import optax
import pytest
import torch

import torch_ref
from optparity.parity.streams import gradients, parameters
from optparity.registry import OPTIMIZERS, Row

from .. import assert_identical
from ..sampling import sampled

SCHEDULES = {
    "constant": optax.constant_schedule(0.01),
    "step": optax.piecewise_constant_schedule(0.01, {10: 0.5, 20: 0.1}),
    "cosine": optax.cosine_decay_schedule(0.01, 40, alpha=0.1),
    "warm-up": optax.warmup_cosine_decay_schedule(1e-4, 0.01, 10, 40, 1e-5),
}


class Scheduled:
    """An optimizer and its scheduler as one, for the harness."""

    def __init__(self, optimizer, scheduler):
        self.optimizer, self.scheduler = optimizer, scheduler

    @property
    def state(self):
        return self.optimizer.state

    def step(self):
        self.optimizer.step()
        self.scheduler.step()


@pytest.mark.parametrize(
    ("name", "schedule"),
    sampled(product(OPTIMIZERS, SCHEDULES), lambda name, kind: (list(OPTIMIZERS).index(name) - list(SCHEDULES).index(kind)) % 4 == 0),
)
def test_schedules(name, schedule):
    """A transform with the schedule, and torch_ref driven by the shipped helper: 0 differing bits, compiled or not."""
    row = Row(name, "all")
    params = parameters({"w": (257,)}, "float32")
    arguments = {**row.arguments, "learning_rate": SCHEDULES[schedule]}
    tx = OPTIMIZERS[name].jax(**arguments)

    def make(given):
        optimizer = row.torch(given)
        return Scheduled(optimizer, torch_ref.ScheduleLR(optimizer, jax.jit(SCHEDULES[schedule])))

    with jax.numpy_dtype_promotion("standard"):  # optax's schedules promote
        for context in ("train_step", "scan"):
            assert_identical(tx, make, params, gradients("normal", params), steps=50, context=context)


def test_a_scheduler_is_saved_without_its_schedule():
    optimizer = torch_ref.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = torch_ref.ScheduleLR(optimizer, lambda count: 1.0 / (1 + count))
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    again = torch_ref.ScheduleLR(optimizer, lambda count: 1.0 / (1 + count))
    again.load_state_dict(scheduler.state_dict())
    assert "schedule" not in scheduler.state_dict()
    optimizer.step()
    again.step()
    assert optimizer.param_groups[0]["lr"] == float(np.float32(0.2))
