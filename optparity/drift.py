"""How far the stock implementations are from the contract, measured; `optparity drift` writes it down."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from .doctor import machine
from .parity.bits import ulp_distance
from .parity.compare import compare_all
from .parity.reports import Report
from .parity.streams import gradients, parameters
from .registry import DTYPES, OPTIMIZERS, Optimizer, Row

ELEMENTS = 1003
FLAVOURS = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


@dataclass(frozen=True)
class Drift:
    """One optimizer and dtype: a report for each flavour of torch.optim, and for optax; None for one that torch does not have."""

    optimizer: str
    dtype: str
    reports: dict[str, Report | None]

    def __str__(self) -> str:
        return f"{self.optimizer}, {self.dtype}"


def measure(steps: int) -> Iterator[Drift]:
    """Each optimizer and dtype, on normal gradients, all fed the same."""
    for name, entry in OPTIMIZERS.items():
        for dtype in DTYPES:
            with jax.enable_x64(dtype == "float64"), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".* is 0 in float16")
                yield Drift(name, dtype, _measure(Row(name, entry.drift_row), dtype, steps))


def _measure(row: Row, dtype: str, steps: int) -> dict[str, Report | None]:
    params = parameters({"w": (ELEMENTS,)}, dtype)
    reports = compare_all(
        {"optax": row.stock_tx},
        {"torch_ref": row.torch, **_flavours(row)},
        params,
        gradients("normal", params),
        steps=steps,
        context="train_step",
    )
    return {name: reports.get(name) for name in (*FLAVOURS, "optax")}


def _flavours(row: Row) -> dict[str, Callable]:
    """The nearest torch.optim optimizer in each flavour that this torch has (its RMSprop has no fused form)."""
    import torch

    found, stock = {}, row.stock_torch
    if stock is None:
        return found
    for name, flavour in FLAVOURS.items():
        make = partial(stock, **flavour)
        try:
            make([torch.nn.Parameter(torch.ones(1))])
        except TypeError:
            continue
        found[name] = make
    return found


class Schedule(NamedTuple):
    """An optax schedule, and the nearest of torch.optim.lr_scheduler."""

    in_optax: str
    in_torch: str
    schedule: optax.Schedule
    make: Callable[[Any], Any]


LEARNING_RATE = 0.01


def _schedules(steps: int) -> list[Schedule]:
    from torch.optim import lr_scheduler

    lr, warm = LEARNING_RATE, max(1, steps // 10)

    def after_warm_up(optimizer):
        parts = [lr_scheduler.LinearLR(optimizer, 0.01, 1.0, warm), lr_scheduler.CosineAnnealingLR(optimizer, steps - warm)]
        return lr_scheduler.SequentialLR(optimizer, parts, [warm])

    return [
        Schedule("constant_schedule", "ConstantLR", optax.constant_schedule(lr), lambda o: lr_scheduler.ConstantLR(o, 1.0)),
        Schedule(
            "exponential_decay, staircase",
            "StepLR",
            optax.exponential_decay(lr, warm, 0.7, staircase=True),
            lambda o: lr_scheduler.StepLR(o, warm, 0.7),
        ),
        Schedule(
            "cosine_decay_schedule",
            "CosineAnnealingLR",
            optax.cosine_decay_schedule(lr, steps),
            lambda o: lr_scheduler.CosineAnnealingLR(o, steps),
        ),
        Schedule(
            "warmup_cosine_decay_schedule",
            "LinearLR, then CosineAnnealingLR",
            optax.warmup_cosine_decay_schedule(0.01 * lr, lr, warm, steps),
            after_warm_up,
        ),
    ]


def schedulers(steps: int) -> list[tuple[str, str, int, int]]:
    """optax schedule, torch.optim.lr_scheduler, steps at which the float32 learning rates differ, largest distance in ulp."""
    import torch

    rows = []
    for each in _schedules(steps):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=LEARNING_RATE)
        scheduler, there = each.make(optimizer), []
        for _ in range(steps):
            there.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        here = np.array([jax.jit(each.schedule)(t) for t in range(steps)], np.float32)
        ulp = ulp_distance(here, np.array(there, np.float32))
        rows.append((each.in_optax, each.in_torch, int((ulp > 0).sum()), int(ulp.max())))
    return rows


PAGE = """\
# How far torch.optim and optax are

`torch_ref` and `jaxopt_impl` round each operation once. torch.optim and optax compute the same formulas, in another
order or with other roundings. That is no fault of theirs, but their bits differ. This page shows how far apart they
end.

All took {steps:,} steps with the same normal gradients, on {elements:,} parameters. The first number is the share
of parameters whose bits differ from those of `torch_ref` after the last step. The second is the largest distance in
*ulp*: 1 ulp apart are neighbours, with no number of the format between them. Parameters near zero dominate it.
Brackets name the configuration, and torch.optim and optax run in the nearest one that they have.

Written by `optparity drift docs/drift.md`, on:

{machine}

{distances}

## Why

{reasons}

An *FMA* computes a product and a sum with one rounding. *Contracts* means that a compiler makes FMAs.

torch's fused kernels make other FMAs than its for-loop, and others in the last elements of a tensor than in the
rest. In torch 2.13 fused SGD leaves parts of half-precision tensors as they were (pytorch#191763). In half
precision, torch.optim and optax round where a tensor is stored; `torch_ref` and `jaxopt_impl` round after each
operation.

## Learning rates

`torch_ref.ScheduleLR(optimizer, jax.jit(schedule))` has the bits of the schedule. The nearest schedulers of torch,
over as many steps:

{rates}

torch computes most of these from the last learning rate, in float64. optax computes them from the count, in float32.
"""


def page(drifts: list[Drift], steps: int) -> str:
    """The Markdown page."""
    return PAGE.format(
        steps=steps,
        elements=ELEMENTS,
        machine="\n".join(f"- {what}: {found}" for what, found in machine()),
        distances=markdown_table(["optimizer", "dtype", *(f"torch.optim {name}" for name in FLAVOURS), "optax"], map(_distances, drifts)),
        reasons=markdown_table(["optimizer", "torch.optim", "optax"], map(_reasons, OPTIMIZERS.values())),
        rates=markdown_table(
            ["optax", "torch.optim.lr_scheduler", "steps that differ in float32", "largest distance"],
            ([ours, theirs, f"{differ} of {steps:,}", f"{ulp:.1g} ulp"] for ours, theirs, differ, ulp in schedulers(steps)),
        ),
    )


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    ruled = f"|{'---|' * len(headers)}"
    return "\n".join([f"| {' | '.join(headers)} |", ruled, *(f"| {' | '.join(row)} |" for row in rows)])


def _distances(drift: Drift) -> list[str]:
    row = f"`{drift.optimizer}` ({OPTIMIZERS[drift.optimizer].drift_row})"
    return [row, drift.dtype, *(_cell(drift.reports[name]) for name in (*FLAVOURS, "optax"))]


def _reasons(entry: Optimizer) -> list[str]:
    return [f"`{entry.name}`", entry.stock_torch.drifts if entry.stock_torch else "none", entry.stock_optax.drifts]


def _cell(report: Report | None) -> str:
    if report is None:
        return "none"
    return "0" if report.identical else f"{100 * report.share:.0f} %, {report.ulp[-1]:.1g} ulp"
