"""How far the stock implementations are from the contract, measured; `optparity drift` writes it down."""

import warnings
from collections.abc import Callable, Iterator
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
from .registry import DTYPES, OPTIMIZERS, Row

ELEMENTS = 1003
FLAVOURS = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


@dataclass(frozen=True)
class Drift:
    """One optimizer and dtype: a report for each flavour of torch.optim, and for optax; None for one that torch does not have."""

    optimizer: str
    dtype: str
    reports: dict[str, Report | None]


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


def page(drifts: list[Drift], steps: int) -> str:
    """The Markdown page."""
    lines = [
        "# How far the stock optimizers are from the contract",
        "",
        f"Written by `optparity drift docs/drift.md`: {ELEMENTS:,} parameters, {steps:,} steps of normal gradients, the same for all;",
        "share of the parameters whose bits are not those of `torch_ref` (and so of `jaxopt_impl`) after the last step, and the largest",
        "distance in ulp there, which is dominated by parameters near zero. The stock implementations run in the configuration nearest to",
        "the row named. That they differ is no fault of theirs: each computes the same formula, in another order or with other roundings.",
        "",
        *(f"- {what}: {found}" for what, found in machine()),
        "",
        f"| optimizer | dtype | {' | '.join(f'torch.optim {name}' for name in FLAVOURS)} | optax |",
        "|---|---|" + "---|" * (len(FLAVOURS) + 1),
    ]
    for drift in drifts:
        row = f"`{drift.optimizer}` ({OPTIMIZERS[drift.optimizer].drift_row})"
        lines.append(f"| {row} | {drift.dtype} | {' | '.join(_cell(drift.reports[name]) for name in (*FLAVOURS, 'optax'))} |")
    lines += ["", "## Why", "", "| optimizer | torch.optim | optax |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {entry.stock_torch.drifts if entry.stock_torch else 'none'} | {entry.stock_optax.drifts} |"
        for name, entry in OPTIMIZERS.items()
    ]
    lines += [
        "",
        "torch's fused kernels contract otherwise than its for-loop, and otherwise in the last elements of a tensor than in the rest;",
        "in torch 2.13 fused SGD leaves parts of half tensors as they were (pytorch#191763). In the half types, torch.optim and optax",
        "round where a tensor is stored, the contract after each operation.",
        "",
        "## Learning rates",
        "",
        "`torch_ref.ScheduleLR(optimizer, jax.jit(schedule))` has the bits of the schedule. The nearest in torch, over as many steps:",
        "",
        "| optax | torch.optim.lr_scheduler | steps that differ in float32 | largest distance |",
        "|---|---|---|---|",
        *(f"| {ours} | {theirs} | {differ} of {steps:,} | {ulp:.1g} ulp |" for ours, theirs, differ, ulp in schedulers(steps)),
        "",
        "torch computes most of these by recurrence from the last learning rate, in float64; optax from the count, in float32.",
        "",
    ]
    return "\n".join(lines)


def _cell(report: Report | None) -> str:
    if report is None:
        return "none"
    return "0" if report.identical else f"{100 * report.share:.0f} %, {report.ulp[-1]:.1g} ulp"
