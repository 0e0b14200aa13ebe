"""Accumulation over microbatches: the rows, and torch's sides as the comparison drives them."""

from typing import Any

import optax

import jaxopt_impl

from ..registry import Refused
from .driven import Driven
from .piece import Piece

SGD: dict[str, Any] = {
    "momentum": 0.9,
    "weight_decay": 1e-3,
}  # with it the scale of a mean shows in the parameters, as it does not with Adam


def _jax(accumulator_dtype=None, **arguments):
    inner = jaxopt_impl.sgd(0.1, **SGD, accumulator_dtype=accumulator_dtype)
    return jaxopt_impl.accumulate(inner, accumulator_dtype=accumulator_dtype, **arguments)


def _torch(accumulator_dtype=None, **arguments):
    import torch_ref

    def make(params):
        optimizer = torch_ref.SGD(params, lr=0.1, **SGD, accumulator_dtype=accumulator_dtype)
        accumulator = torch_ref.Accumulator(optimizer, accumulator_dtype=accumulator_dtype, **arguments)
        return Driven(optimizer, accumulator.step, lambda: _kept(accumulator))

    return make


def _kept(accumulator: Any) -> dict[str, Any]:
    return {"microbatch": accumulator.microbatch, "skipped": accumulator.skipped, "gathered": accumulator.gathered}


def _stock_jax(every, form="torch", skip_nonfinite=False, accumulator_dtype="float32"):
    inner = optax.chain(optax.add_decayed_weights(SGD["weight_decay"]), optax.sgd(0.1, SGD["momentum"]))
    skip = optax.skip_not_finite if skip_nonfinite else None
    steps = optax.MultiSteps(inner, every, should_skip_update_fn=skip, accumulator_dtype=accumulator_dtype)
    return steps.gradient_transformation()


def _stock_torch(every, **arguments):
    """A loop over microbatches as it is written by hand."""
    import torch

    def make(params):
        optimizer = torch.optim.SGD(params, lr=0.1, **SGD)
        sums: list[Any] = [None] * len(params)
        count = 0

        def step():
            nonlocal count
            count += 1
            for i, p in enumerate(params):
                sums[i] = p.grad if sums[i] is None else sums[i] + p.grad
            if count % every == 0:
                for i, p in enumerate(params):
                    p.grad, sums[i] = sums[i] / every, None
                optimizer.step()

        return Driven(optimizer, step)

    return make


ACCUMULATE = Piece(
    name="accumulate",
    rows={
        "default": {"every": 4},
        "every 1": {"every": 1},
        "every 3": {"every": 3},
        "every 3, optax": {"every": 3, "form": "optax"},
        "every 4, optax": {"every": 4, "form": "optax"},
        "every 1, optax": {"every": 1, "form": "optax"},
        "skip": {"every": 3, "skip_nonfinite": True},
        "skip, optax": {"every": 3, "form": "optax", "skip_nonfinite": True},
        "accumulator": {"every": 3, "accumulator_dtype": "float32"},
        "accumulator, optax": {"every": 3, "form": "optax", "accumulator_dtype": "float32"},
    },
    jax=_jax,
    torch=_torch,
    state=("momentum_buffer", "microbatch", "skipped", "gathered"),
    stock_jax=_stock_jax,
    stock_torch=_stock_torch,
    refused=(
        Refused({"every": 0}, "Invalid every value: 0 (accumulate: every >= 1)"),
        Refused({"every": 2.5}, "Invalid every: 2.5 (accumulate: every is a whole number)", TypeError),
        Refused({"every": float("nan")}, "Invalid every: nan (accumulate: every is a whole number)", TypeError),
        Refused({"every": True}, "Invalid every: True (accumulate: every is a whole number)", TypeError),
        Refused({"every": 2, "form": "sum"}, "Invalid form: 'sum' (accumulate: form is one of 'torch', 'optax')"),
    ),
    differs="optax takes a running mean in float32, its updates in between are +0, and a mean that was infinite stays NaN",
)

PIECES = (ACCUMULATE,)
