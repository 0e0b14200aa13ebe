"""The main job: every optimizer, row and stream through both packages, and how far the stock implementations are from them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import jax

from .harness.report import Report
from .harness.streams import STREAMS, gradients, parameters
from .harness.table import ROWS, Row
from .harness.trials import compare_all

REAL = "digits"
DTYPES = ("float32", "float64")
ELEMENTS = 1003
OURS = "jaxopt_impl"
STOCK = ("torch.optim", "optax")
STEPS = {REAL: 1000}
OTHER_STEPS = 200


@dataclass(frozen=True)
class Trial:
    """One row on one stream."""

    row: Row
    stream: str
    dtype: str
    steps: int
    seed: int = 0


@dataclass
class Result:
    """What a trial found: reports against torch_ref by name, and the held-out accuracy where the stream is the digits."""

    trial: Trial
    reports: dict[str, Report] = field(default_factory=dict)
    accuracy: float | None = None

    @property
    def ours(self) -> Report:
        return self.reports[OURS]

    def to_dict(self) -> dict:
        """All of it, for JSON."""
        trial = self.trial
        return {
            "optimizer": trial.row.optimizer,
            "row": trial.row.label,
            "arguments": trial.row.arguments,
            "stream": trial.stream,
            "dtype": trial.dtype,
            "steps": self.ours.steps,
            "seed": trial.seed,
            "accuracy": self.accuracy,
            "against torch_ref": {
                name: {
                    "identical": report.identical,
                    "compared": report.compared,
                    "elements": report.elements,
                    "differing": report.differing,
                    "max_ulp": report.ulp,
                    "first_difference": None if report.identical else str(report.first_difference),
                }
                for name, report in self.reports.items()
            },
        }


def trials(names: list[str], streams: list[str], dtypes: list[str], steps: int | None, seed: int) -> list[Trial]:
    """Every row of the named optimizers on every stream."""
    return [
        Trial(row, stream, dtype, steps or STEPS.get(stream, OTHER_STEPS), seed)
        for row in ROWS
        if row.optimizer in names
        for dtype in dtypes
        for stream in streams
    ]


def run(trials: list[Trial]) -> Iterator[Result]:
    """The result of each trial, as it ends."""
    for trial in trials:
        with jax.enable_x64(trial.dtype == "float64"):
            yield _run(trial)


def _run(trial: Trial) -> Result:
    row, result, last = trial.row, Result(trial), {}
    if trial.stream == REAL:
        from .harness.digits import Digits

        digits = Digits(trial.dtype, trial.seed, ascend=row.arguments.get("maximize", False))
        params, source = digits.params, digits.gradient
    else:
        digits = None
        params = parameters({"w": (ELEMENTS,)}, trial.dtype, trial.seed)
        source = gradients(trial.stream, params, trial.seed)
    result.reports = compare_all(
        {OURS: row.tx, "optax": row.stock_tx},
        {"torch_ref": row.torch, "torch.optim": row.stock_torch},
        params,
        source,
        steps=trial.steps,
        context="train_step",
        after_step=lambda step, params: last.update(params=params),
    )
    if digits:
        with contextlib.suppress(KeyError):
            result.accuracy = digits.accuracy(jax.tree.unflatten(jax.tree.structure(params), last["params"]))
    return result


STREAM_NAMES = [*STREAMS, REAL]
