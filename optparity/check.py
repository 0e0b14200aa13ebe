"""The main job: every optimizer, row and stream through both packages, and how far the stock implementations are from them."""

import itertools
import signal
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import jax

from ._figures import drawing
from .around import AROUND_ROWS, AroundRow
from .around.piece import SIZES
from .parity.compare import compare_all
from .parity.reports import Report
from .parity.streams import STREAMS, gradients, parameters
from .registry import HALVES, ROWS, Row

REAL = "digits"
LEAVES = {"w": (1003,)}  # of an optimizer, to which leaves are all the same
OURS = "jaxopt_impl"
STOCK = ("torch.optim", "optax")
STREAM_NAMES = [*STREAMS, REAL]


@dataclass(frozen=True)
class Trial:
    """One row on one stream."""

    row: Row | AroundRow
    stream: str
    dtype: str
    steps: int
    seed: int = 0
    with_stock: bool = True  # whether the stock implementations are measured as well

    def __str__(self) -> str:
        return f"{self.row} on {self.stream}, {self.dtype}"


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


@dataclass(frozen=True)
class Summary:
    """What the trials of one optimizer come to: how many rows, dtypes and streams, and of how many elements the bits differ."""

    optimizer: str
    rows: int
    dtypes: int
    streams: int
    trials: int
    elements: int
    differing: int


def summaries(results: Sequence[Result]) -> Iterator[Summary]:
    """One for each optimizer, then one for all of them where they are several."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.trial.row.optimizer, []).append(result)
    for optimizer, group in groups.items():
        yield _summary(optimizer, group)
    if len(groups) > 1:
        yield _summary("all", results)


def _summary(optimizer: str, results: Sequence[Result]) -> Summary:
    return Summary(
        optimizer,
        rows=len({str(result.trial.row) for result in results}),
        dtypes=len({result.trial.dtype for result in results}),
        streams=len({result.trial.stream for result in results}),
        trials=len(results),
        elements=sum(result.ours.steps * result.ours.elements for result in results),
        differing=sum(sum(result.ours.differing) for result in results),
    )


def trials(names: list[str], streams: list[str], dtypes: list[str], steps: int | None, seed: int, *, around: bool = False) -> list[Trial]:
    """Every row of the named optimizers, or of what stands around the step, on every stream.

    The stock implementations are on the real one, or on the last if that is left out.
    """
    drift = REAL if REAL in streams else streams[-1]
    return [
        Trial(row, stream, dtype, steps or default_steps(stream, dtype), seed, with_stock=stream == drift)
        for row in (AROUND_ROWS if around else ROWS)
        if row.optimizer in names
        for dtype in dtypes
        if dtype in row.dtypes
        for stream in streams
    ]


def default_steps(stream: str, dtype: str) -> int:
    """What fits into the five minutes that the whole table may take."""
    if stream == REAL:
        return 100 if dtype in HALVES else 1000
    return 100


def run(trials: list[Trial], jobs: int = 1) -> Iterator[Result]:
    """The result of each trial, in their order, as it ends; computed in so many processes."""
    groups = [list(group) for _, group in itertools.groupby(trials, lambda trial: (trial.row, trial.dtype))]
    if jobs == 1 or len(groups) == 1:
        yield from itertools.chain.from_iterable(map(_run_group, groups))
        return
    with ProcessPoolExecutor(min(jobs, len(groups)), get_context("spawn")) as pool:
        others = set(active_children())
        try:
            with _interrupts_held():
                found = [pool.submit(_run_group, group) for group in groups]  # `map` would cancel them, at which Python 3.11 stumbles
            for results in found:
                yield from results.result()
        except BaseException:
            for worker in set(active_children()) - others:
                worker.terminate()  # what it computes nobody waits for
            raise


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that are started within it get no Ctrl-C: it is for this one, after the block, and this one ends them."""
    if not hasattr(signal, "pthread_sigmask") or current_thread() is not main_thread():  # on Windows, or where no Ctrl-C arrives
        yield
        return
    noted: list[bool] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # they inherit it
    handler = signal.signal(signal.SIGINT, lambda *_: noted.append(True))  # another thread may take the signal for this one
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if noted:
            signal.raise_signal(signal.SIGINT)


def _run_group(trials: list[Trial]) -> list[Result]:
    """The trials of one row and dtype, which share their compilations."""
    with warnings.catch_warnings(), jax.enable_x64(trials[0].dtype == "float64"):
        warnings.filterwarnings("ignore", message=".* is 0 in float16")  # its NaNs are compared like other bits
        return [_run(trial) for trial in trials]


def _run(trial: Trial) -> Result:
    row, result, last = trial.row, Result(trial), {}
    if trial.stream == REAL:
        from .parity.digits import Digits

        digits = Digits(trial.dtype, trial.seed, ascend=row.arguments.get("maximize", False))
        params, source = digits.params, digits.gradient
    else:
        digits = None
        params = parameters(SIZES if isinstance(row, AroundRow) else LEAVES, trial.dtype, trial.seed)
        source = gradients(trial.stream, params, trial.seed)
    result.reports = compare_all(
        {OURS: row.tx, **({"optax": row.stock_tx} if trial.with_stock and row.stock_tx else {})},
        {"torch_ref": row.torch, **({"torch.optim": row.stock_torch} if trial.with_stock and row.stock_torch else {})},
        params,
        source,
        steps=trial.steps,
        context="train_step",
        after_step=lambda step, params: last.update(params=params),
    )
    if digits:
        result.accuracy = digits.accuracy(jax.tree.unflatten(jax.tree.structure(params), last["params"]))
    return result


LINES = {"torch.optim": ("tab:orange", "-", 1.2), "optax": ("tab:blue", "--", 1.2), OURS: ("tab:green", "-", 2.5)}


def draw(results: Sequence[Result], path: Path) -> None:
    """The distance from torch_ref over the steps: a panel for each optimizer, a line for each implementation.

    It is that of its first row and dtype, on the stream on which the stock implementations were measured.
    """
    chosen: dict[str, Result] = {}
    for result in results:
        if result.trial.with_stock:
            chosen.setdefault(result.trial.row.optimizer, result)
    columns = 1 if len(chosen) < 4 else 2
    rows = -(-len(chosen) // columns)
    with drawing(path, rows, columns, figsize=(8 * columns, 1 + 2.6 * rows)) as (figure, axes):
        for spare in axes.flat[len(chosen) :]:
            spare.set_visible(False)
        for axis, result in zip(axes.flat, chosen.values(), strict=False):
            _panel(axis, result)
        for axis in axes[-1]:
            axis.set_xlabel("step")
        figure.suptitle("Distance from torch_ref when all are fed the same gradients")


def _panel(axis: Any, result: Result) -> None:
    trial = result.trial
    for name, (color, dash, width) in LINES.items():
        report = result.reports.get(name)
        if report is not None:  # torch.optim does not have every optimizer
            end = "0 ulp at every step" if report.identical else f"{100 * report.share:.0f} % differ at the end"
            axis.plot(range(1, report.steps + 1), report.ulp, color=color, linestyle=dash, lw=width, label=f"{name}: {end}")
    axis.set_yscale("symlog", linthresh=1)
    axis.set_ylim(-0.5, 1e3 * max(1, axis.get_ylim()[1]))
    axis.set_ylabel("largest distance, ulp")
    axis.set_title(f"{trial.row.optimizer}, {trial.dtype}, gradients: {trial.stream}", loc="left", fontsize=10)
    axis.legend(fontsize=8, loc="upper center", ncols=3)
    axis.grid(alpha=0.3)
