"""The loop: batches to one side or to both, a line of the log for each step, checkpoints, and going on from one."""

import csv
import functools
import json
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from flax import nnx

import jaxopt_impl

from .._files import replacing
from ..datasets import unigram_entropy
from ..models import in_flax, weights
from ..parity.bits import differing, digest, ulp_distance
from ..parity.subnormals import torch_flushing_like_jax
from ..registry import OPTIMIZERS
from . import checkpoint
from .tasks import TASKS

FRAMEWORKS = {"torch": ("torch",), "jax": ("jax",), "both": ("torch", "jax")}
GRADIENTS = ("shared", "own")
RECIPE = "recipe"  # in the place of an optimizer's name


@dataclass(frozen=True)
class Run:
    """What is trained, and how: everything that the bits of the result depend on but the number of steps.

    Attributes:
        task: a key of `TASKS`.
        settings: those of the task's that are not its defaults.
        framework: "torch", "jax", or "both".
        gradients: with both, whether each side computes its own, or PyTorch's are "shared".
        optimizer: a key of `OPTIMIZERS`, or "recipe": `jaxopt_impl.recipe`.
        options: its arguments but the learning rate, by JAX's names.
    """

    task: str
    settings: Mapping[str, int] = field(default_factory=dict)
    framework: str = "both"
    gradients: str = "shared"
    optimizer: str = "adam"
    options: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float | None = None
    batch_size: int | None = None
    seed: int = 0


@dataclass
class Line:
    """What the log says of a step."""

    step: int
    loss: dict[str, float]  # of the batch, before the step, by side
    held_out: dict[str, float] = field(default_factory=dict)  # after the step, where it was evaluated
    differing: int | None = None  # elements of parameters and state whose bits differ between the sides
    max_ulp: int | None = None
    distance: float | None = None  # |θ_jax − θ_torch| / |θ_torch|

    @staticmethod
    def columns(run: Run) -> list[str]:
        sides = FRAMEWORKS[run.framework]
        learning = sides[:1] if run.gradients == "shared" else sides
        by_side = [*(f"loss_{side}" for side in learning), *(f"held_out_{side}" for side in sides)]
        return ["step", *by_side, *(("differing", "max_ulp", "distance") if len(sides) > 1 else ())]

    def row(self) -> dict[str, Any]:
        """By column; without what is not known."""
        row: dict[str, Any] = {"step": self.step, **{f"loss_{side}": loss for side, loss in self.loss.items()}}
        row |= {f"held_out_{side}": loss for side, loss in self.held_out.items()}
        apart = {"differing": self.differing, "max_ulp": self.max_ulp, "distance": self.distance}
        return row | {column: value for column, value in apart.items() if value is not None}

    @classmethod
    def parse(cls, row: Mapping[str, str]) -> "Line":
        """The inverse of `row`, from text."""
        known = {column: text for column, text in row.items() if text}
        loss, held_out = (
            {column.removeprefix(f"{what}_"): float(text) for column, text in known.items() if column.startswith(f"{what}_")}
            for what in ("loss", "held_out")
        )

        def number(column: str, kind: Callable) -> Any:
            return kind(known[column]) if column in known else None

        return cls(int(known["step"]), loss, held_out, number("differing", int), number("max_ulp", int), number("distance", float))


class Training:
    """A run in its folder: run.json, log.csv, checkpoints/, and in the end result.json. A context manager, which locks the folder.

    Args:
        run: what is trained.
        folder: where. With `resume` what is there is gone on with, from its latest checkpoint, or from the start where there is none yet.

    Raises: ValueError for what a model, an optimizer or the data refuses; a folder that is in use, holds a run already, or holds another
        one; a log that is not its run's. checkpoint.DamagedError for a checkpoint that is not whole. OSError where a file cannot be
        written.
    """

    def __init__(self, run: Run, folder: Path, *, resume: bool = False):
        self.task, self.folder = TASKS[run.task], folder
        self.log, self.checkpoints, self._about = folder / "log.csv", folder / "checkpoints", folder / "run.json"
        self.data, self.arguments = self.task.arguments(run.settings)
        rate = _learning_rate(run) if run.learning_rate is None else run.learning_rate
        self.batch_size = run.batch_size or self.task.batch_size
        self.run = replace(run, learning_rate=rate, batch_size=self.batch_size)
        if self.batch_size > len(self.data.inputs):
            raise ValueError(f"train: batch_size <= {len(self.data.inputs)}, the number of examples; got {self.batch_size}.")
        if not resume and (self._about.exists() or self.log.exists() or self.checkpoints.exists()):
            raise ValueError(f"train: {folder} holds a run already; --resume goes on with it, --out names another folder.")
        self.trainers = self._trainers()
        self.step, self.lines = 0, []
        self._stack = ExitStack()
        with self._stack:
            if folder.exists():
                self._stack.enter_context(_locked(folder))
                self._resume()
            else:
                folder.mkdir(parents=True)
                self._stack.enter_context(_locked(folder))
            self._write()
            self._stack = self._stack.pop_all()  # from here on until the end of the run

    def __enter__(self) -> "Training":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _trainers(self) -> list:
        """The sides, which start at the same bits."""
        run, trainers = self.run, []
        options = {"learning_rate": run.learning_rate, **run.options}
        entry = OPTIMIZERS.get(run.optimizer)
        tx = entry.jax(**options) if entry else jaxopt_impl.recipe(**options)
        start = weights.from_flax(getattr(in_flax, self.task.model)(**self.arguments, rngs=nnx.Rngs(run.seed)))
        sides = FRAMEWORKS[run.framework]
        if "torch" in sides:
            from .in_torch import Trainer

            optimizer = functools.partial(_torch_optimizer, run.optimizer, options)
            trainers.append(Trainer(self.task.model, self.arguments, self.task.loss, optimizer, start))
        if "jax" in sides:
            from .in_flax import Trainer

            trainers.append(Trainer(self.task.model, self.arguments, self.task.loss, tx, start))
        return trainers

    def _resume(self) -> None:
        """Go on where the folder's run is, if it holds one."""
        if not self._about.exists():
            return
        begun, now = _read(self._about), json.loads(json.dumps(asdict(self.run)))
        for key, value in now.items():
            if begun.get(key) != value:
                raise ValueError(f"train: {self.folder} was begun with {key} {begun.get(key)}; got {value}.")
        checkpoint.clear(self.checkpoints)
        path = checkpoint.latest(self.checkpoints)
        if path is not None:
            self.step = checkpoint.load(path, self.trainers)
            self.lines = self._read_log()

    def _read_log(self) -> list[Line]:
        """The lines up to the step that the run has come to."""
        try:
            text = self.log.read_text().splitlines(keepends=True)
            whole = (row for row in text if row.endswith("\n"))  # a killed run may leave a part of a line
            lines = [line for line in map(Line.parse, csv.DictReader(whole)) if line.step <= self.step]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"train: {self.log} cannot be read: {type(error).__name__}: {error}") from None
        if [line.step for line in lines] != list(range(1, self.step + 1)):
            raise ValueError(f"train: {self.log} has not the steps from 1 to {self.step}, where the latest checkpoint is.")
        return lines

    def _write(self) -> None:
        """What is trained, and the log as far as the run has come."""
        with replacing(self._about) as temporary:
            temporary.write_text(json.dumps(asdict(self.run), indent=1))
        with replacing(self.log) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, Line.columns(self.run))
            writer.writeheader()
            writer.writerows(line.row() for line in self.lines)

    def go(self, steps: int, *, eval_every: int = 100, checkpoint_every: int = 100) -> Iterator[Line]:
        """Train up to so many steps, and give the line of each. Ctrl-C (or SIGTERM) ends the run after its step; the last step is saved."""
        flushing = torch_flushing_like_jax() if self.trainers[0].name == "torch" else nullcontext()
        with flushing, _asked_to_stop() as asked, self.log.open("a", newline="") as file:
            writer = csv.DictWriter(file, Line.columns(self.run))
            saved = self.step
            while self.step < steps and not asked:
                self.step += 1
                line = self._advance()
                if self.step % eval_every == 0 or self.step == steps:
                    line.held_out = {trainer.name: self._evaluate(trainer)[0] for trainer in self.trainers}
                self.lines.append(line)
                writer.writerow(line.row())
                file.flush()
                if self.step % checkpoint_every == 0:
                    saved = self._save()
                yield line
            if saved != self.step:
                self._save()

    def _save(self) -> int:
        checkpoint.save(self.checkpoints, self.step, self.trainers)
        return self.step

    def _advance(self) -> Line:
        inputs, targets = self.data.batch(self.step, self.batch_size, self.run.seed)
        first, *others = self.trainers
        if others and self.run.gradients == "shared":
            loss, gradients = first.gradients(inputs, targets)
            for trainer in self.trainers:
                trainer.apply(gradients)
            losses = {first.name: loss}
        else:
            losses = {trainer.name: trainer.step(inputs, targets) for trainer in self.trainers}
        line = Line(self.step, losses)
        for other in others:
            line.differing, line.max_ulp, line.distance = _apart(other.arrays(), first.arrays())
        return line

    def _evaluate(self, trainer) -> tuple[float, float]:
        """Held out: the loss, and the share of right guesses, or of the targets' variance that is explained (R²)."""
        inputs, targets = self.data.held_out_inputs, self.data.held_out_targets
        loss, predictions = trainer.evaluate(inputs, targets)
        right = predictions.argmax(-1) == targets if self.task.loss == "cross_entropy" else None
        return loss, float(1 - loss / targets.var() if right is None else right.mean())

    def result(self) -> dict[str, Any]:
        """What the run has come to, as JSON (null for what is not finite); also written to result.json."""
        scores = {trainer.name: self._evaluate(trainer) for trainer in self.trainers}
        found: dict[str, Any] = {"run": asdict(self.run), "arguments": self.arguments, "steps": self.step}
        found["held_out"] = {side: _finite(loss) for side, (loss, _) in scores.items()}
        found[self.task.score] = {side: _finite(score) for side, (_, score) in scores.items()}
        if self.task.model == "GPT":
            found["unigram_entropy"] = unigram_entropy(self.data.held_out_targets)
        arrays = {trainer.name: trainer.arrays() for trainer in self.trainers}
        if len(arrays) > 1:
            found["differing"] = sum(line.differing or 0 for line in self.lines)
            found["elements"] = sum(array.size for array in arrays["torch"].values())
        # A hash of the parameters' bits, which do not depend on the framework.
        found["parameters"] = {side: digest([of[name] for name in sorted(of) if name.startswith("params.")]) for side, of in arrays.items()}
        with replacing(self.folder / "result.json") as temporary:
            temporary.write_text(json.dumps(found, indent=1))
        return found


def _learning_rate(run: Run) -> float:
    """The documented one; of a recipe AdamW's, which it warms up to."""
    return OPTIMIZERS["adamw" if run.optimizer == RECIPE else run.optimizer].learning_rate(run.task)


def _torch_optimizer(name: str, options: Mapping[str, Any], model: Any) -> Any:
    """What steps the parameters of a torch model."""
    import torch_ref

    if name == RECIPE:
        return torch_ref.Recipe(model, **options)
    return OPTIMIZERS[name].torch(model.parameters(), **OPTIMIZERS[name].in_torch(options))


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"train: {path} cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"train: {path} cannot be read: it holds no run.")
    return document


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Within it, the folder is this process's; the lock goes with the process, however it ends."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(f"train: {folder} is in use by another process.") from None
    try:
        yield
    finally:
        lock.release()


def _apart(got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> tuple[int, int, float]:
    """How many elements differ, by how many ulp at most, and how far apart the parameters are: |θ − θ'| / |θ'|."""
    # PyTorch counts steps for each parameter, or not at all; and has no state before the first step, which a recipe's is not the first of.
    begun = {name for name, array in got.items() if name in expected or array.any()}
    missing = begun ^ {name for name in expected if not name.startswith("step.")} ^ (begun & {"step"})
    if missing:
        raise RuntimeError(f"train: {min(missing)} is on one side only.")
    differ, farthest, square, length = 0, 0, 0.0, 0.0
    for name, b in expected.items():
        a = got["step"].astype(b.dtype) if name.startswith("step.") else got[name]
        different = differing(a, b)
        if different.any():
            differ, farthest = differ + int(different.sum()), max(farthest, int(ulp_distance(a, b).max()))
        if name.startswith("params."):
            with np.errstate(all="ignore"):  # a run that diverges has infinities
                square += float(np.square(a.astype(np.float64) - b).sum())
                length += float(np.square(b.astype(np.float64)).sum())
    return differ, farthest, math.sqrt(square / length) if length else 0.0


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Within it, the first Ctrl-C or SIGTERM is only noted; a second one is what it was."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number, frame):
        asked.append(number)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
