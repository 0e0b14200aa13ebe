"""Which check sees which mistake; `optparity drift --detection` writes it down.

Each planted mistake of `explain` is trained beside what is right, and judged by what people use to compare two implementations.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from .datasets import digits
from .doctor import machine
from .drift import markdown_table
from .explain.planted import Planted, planted
from .explain.sides import Side, train, walk
from .parity.bits import differing, ulp_distance
from .parity.subnormals import torch_flushing_like_jax
from .versus.factories import Named

HIDDEN, BATCH = 16, 64
SHORT, LONG, TRAINED = 10, 100, 200  # steps: of the two comparisons on the same gradients, and of the training
CHECKS = ("bits", "ulp <= 4", "assert_close", "rtol=1e-5, 10 steps", "rtol=1e-5, 100 steps", "final loss")
Params = Mapping[str, np.ndarray]

ADAMW = {"lr": 0.01, "weight_decay": 0.1}
SAME: Mapping[str, tuple[Side, Side]] = {
    "`torch_ref.AdamW` and `jaxopt_impl.adamw`": (
        Named("torch", "torch_ref:AdamW", ADAMW),
        Named("jax", "jaxopt_impl:adamw", {"learning_rate": 0.01, "weight_decay": 0.1}),
    ),
    "`torch.optim.AdamW` and `optax.adamw`": (
        Named("torch", "torch.optim:AdamW", ADAMW),
        Named("jax", "optax:adamw", {"learning_rate": 0.01, "weight_decay": 0.1}),
    ),
    "`torch.optim.AdamW` and its fused form": (
        Named("torch", "torch.optim:AdamW", ADAMW),
        Named("torch", "torch.optim:AdamW", {**ADAMW, "fused": True}),
    ),
}


@dataclass(frozen=True)
class Row:
    """One pair, and which of `CHECKS` see a difference."""

    name: str
    seen: Mapping[str, bool]
    sentence: str = ""

    def __str__(self) -> str:
        return self.name

    def cells(self) -> list[str]:
        return [self.name, *("seen" if self.seen[check] else "" for check in CHECKS)]


def total() -> int:
    return len(SAME) + len(planted())


def measure() -> Iterator[Row]:
    """The pairs without a mistake, then each mistake."""
    yield from map(row_of_pair, SAME)
    for mistake in planted():
        yield row_of(mistake)


def row_of_pair(name: str) -> Row:
    return Row(name, seen_by(*SAME[name]))


def row_of(mistake: Planted) -> Row:
    return Row(mistake.name, seen_by(mistake.right, mistake.wrong), mistake.sentence)


def seen_by(right: Side, wrong: Side) -> dict[str, bool]:
    """Which checks tell the two apart: all but the last on the gradients of the right one's training, in float32."""
    with torch_flushing_like_jax():
        return _seen_by(right, wrong)


def _seen_by(right: Side, wrong: Side) -> dict[str, bool]:
    start, fed = _parameters(), []

    def recorded(params: Params, step: int) -> Params:
        fed.append(_gradient(params, step))
        return fed[-1]

    points = train(right, start, recorded, LONG, "float32"), walk(wrong, start, fed, "float32")
    found = dict(zip(CHECKS, _judged(*points), strict=False))
    losses = [_loss(train(side, start, _gradient, TRAINED, "float32")[-1]) for side in (right, wrong)]
    return found | {"final loss": not abs(losses[1] - losses[0]) <= 0.01 * losses[0]}


def _judged(right: Sequence[Sequence[np.ndarray]], wrong: Sequence[Sequence[np.ndarray]]) -> Iterator[bool]:
    pairs = [list(zip(*points, strict=True)) for points in zip(right, wrong, strict=True)]
    yield any(differing(a, b).any() for pair in pairs for a, b in pair)
    yield any((ulp_distance(a, b) > 4).any() for pair in pairs for a, b in pair)
    yield not all(_torch_is_content(a, b) for a, b in pairs[-1])
    for steps in (SHORT, LONG):
        yield not all(np.allclose(b, a, rtol=1e-5) for a, b in pairs[steps - 1])


def _torch_is_content(right: np.ndarray, wrong: np.ndarray) -> bool:
    import torch

    try:
        torch.testing.assert_close(torch.tensor(wrong), torch.tensor(right))
    except AssertionError:
        return False
    return True


def _parameters() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "hidden": (rng.standard_normal((64, HIDDEN)) / 8).astype(np.float32),
        "hidden_bias": np.full(HIDDEN, 0.1, np.float32),
        "output": (rng.standard_normal((HIDDEN, 10)) / 4).astype(np.float32),
        "output_bias": np.full(10, 0.1, np.float32),
    }


def _logits(leaves: Mapping[str, Any], images: Any) -> Any:
    return (images @ leaves["hidden"] + leaves["hidden_bias"]).tanh() @ leaves["output"] + leaves["output_bias"]


@cache
def _data() -> list[Any]:
    import torch

    data = digits()
    return [torch.from_numpy(x).to(kind) for x, kind in zip(data, 2 * [torch.float32, torch.int64], strict=True)]


def _gradient(params: Params, step: int) -> dict[str, np.ndarray]:
    """That of the mean cross-entropy on the batch of this step."""
    import torch

    images, labels, *_ = _data()
    rows = digits().rows(step, BATCH, 0)
    leaves = {name: torch.tensor(np.asarray(x), requires_grad=True) for name, x in params.items()}
    loss = torch.nn.functional.cross_entropy(_logits(leaves, images[rows]), labels[rows])
    return {name: g.numpy() for name, g in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True)}


def _loss(leaves: Sequence[np.ndarray]) -> float:
    """The mean cross-entropy on the digits held out."""
    import torch

    *_, images, labels = _data()
    named = {name: torch.tensor(x) for name, x in zip(sorted(_parameters()), leaves, strict=True)}
    return torch.nn.functional.cross_entropy(_logits(named, images), labels).item()


PAGE = """\
# Which check sees which mistake

Somebody ports a training run and makes one mistake. Which comparison with the original tells? Here are {count} mistakes,
each planted in code that is otherwise right, on the digits in float32.

- *bits*: a bit of a parameter differs within {long} steps, both sides being fed the same gradients.
- *ulp <= 4*: an element is more than 4 representable numbers away within these steps.
- *assert_close*: `torch.testing.assert_close` with its defaults (rtol 1.3e-6, atol 1e-5), after {long} steps.
- *rtol=1e-5*: `numpy.allclose(rtol=1e-5)`, atol being its default 1e-8, after {short} and after {long} steps.
- *final loss*: both train by themselves for {trained} steps. The loss on the held-out digits differs by more than 1 %.

Bits saw {bits} of {count}, `assert_close` {close}, the final loss {loss}. A check by bits needs implementations that have the same bits
when nothing is wrong. The first table shows that ours have, and that stock ones have not.

Written by `optparity drift --detection docs/detection.md`, on:

{machine}

## No mistake

A check that sees something here is a false alarm.

{same}

## One mistake

{mistakes}

## What the explanation says

`optparity.explain` names each of them. It runs both sides in float64, and finds the convention in which they differ.

{sentences}
"""


def page(rows: Sequence[Row]) -> str:
    """The Markdown page."""
    same, mistakes = rows[: len(SAME)], rows[len(SAME) :]

    def share(check: str) -> int:
        return sum(row.seen[check] for row in mistakes)

    return PAGE.format(
        count=len(mistakes),
        short=SHORT,
        long=LONG,
        trained=TRAINED,
        bits="all" if share("bits") == len(mistakes) else share("bits"),
        close=share("assert_close"),
        loss=share("final loss"),
        machine="\n".join(f"- {what}: {found}" for what, found in machine()),
        same=markdown_table(["the same formula", *CHECKS], (row.cells() for row in same)),
        mistakes=markdown_table(["mistake", *CHECKS], (row.cells() for row in mistakes)),
        sentences=markdown_table(["mistake", "explanation"], ([row.name, _escaped(row.sentence)] for row in mistakes)),
    )


def read(page: str) -> list[Row]:
    """The rows of a page that the command has written."""
    sentences = {mistake.name: mistake.sentence for mistake in planted()}
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    known = {*SAME, *sentences}
    return [
        Row(name, {check: bool(cell) for check, cell in zip(CHECKS, cells, strict=True)}, sentences.get(name, ""))
        for name, *cells in lines
        if name in known and len(cells) == len(CHECKS)
    ]


def _escaped(sentence: str) -> str:
    return sentence.replace("*", "\\*").replace("|", "\\|").replace("_", "\\_")
