"""What recording costs: `python -m benchmarks.recording`.

The GPT of `optparity train gpt` trains in torch and in JAX, recorded and not, in turn: each round takes every way, in an order that
rotates. A ratio is that of two medians of so many steps within a round. Then a trace of `--gigabytes` is written and replayed, in a
process of its own each, whose largest memory is printed.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from optparity.traces.in_optax import recorded
from optparity.traces.in_torch import record_torch
from optparity.traces.recorder import Recorder
from optparity.training.tasks import TASKS

from .report import spread
from .runs import about, folder, resident, write

WARM = 5  # steps before the first that is timed
ELEMENTS = 250_000  # of a leaf of the large trace
LEAVES = 4


def main(
    rounds: Annotated[int, typer.Option(min=3)] = 15,
    steps: Annotated[int, typer.Option(min=1, help="Steps in each round.")] = 10,
    gigabytes: Annotated[float, typer.Option(min=0, help="Of the trace that is replayed; 0: none.")] = 2.0,
    out: Annotated[Path, typer.Option(help="The file for the run, as JSON.")] = Path("out/recording.json"),
) -> None:
    """Time recorded training steps against others, and replay a large trace."""
    folder(out.parent)
    document: dict[str, Any] = {**about("float32", os.cpu_count() or 1), "steps": steps}
    with tempfile.TemporaryDirectory() as place, ExitStack() as recorders:
        seconds = measured(Path(place), recorders, rounds, steps)
        document["seconds"] = seconds
        title = f"a step of the GPT, {rounds} rounds of {steps} steps, median (quartiles); ratios within a round"
        shown = Table("what", "ms", "/ not recorded", title=title, title_justify="left", box=None)
        for what, taken in seconds.items():
            plain = seconds[what.split(",")[0]]
            ratios = [a / b for a, b in zip(taken, plain, strict=True)]
            shown.add_row(what, spread(taken, 1e3), "" if taken is plain else spread(ratios))
        console = Console(width=140)
        console.print(shown)
    if gigabytes:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as place:
            document["replay"] = replayed(Path(place), gigabytes)
        for what, found in document["replay"].items():
            console.print(f"{what}: {found['seconds']:.0f} s, at most {found['mib']:.0f} MiB of memory; the trace has {found['gb']:.2f} GB")
    write(out, document)


def measured(place: Path, recorders: ExitStack, rounds: int, steps: int) -> dict[str, list[float]]:
    """The median seconds of a step, round by round. The recorders are open until the stack is closed."""
    runs = {**_in_torch(place, recorders), **_in_jax(place, recorders)}
    for run in runs.values():
        for _ in range(WARM):
            run()
    keys, seconds = list(runs), {key: [] for key in runs}
    for i in track(range(rounds), description="recording", console=Console(stderr=True), transient=True):
        for key in keys[i % len(keys) :] + keys[: i % len(keys)]:
            seconds[key].append(statistics.median(_time(runs[key]) for _ in range(steps)))
    return seconds


def _time(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _data() -> tuple[Any, dict[str, int], Any]:
    task = TASKS["gpt"]
    data, arguments = task.arguments({})
    return lambda step: data.batch(step, task.batch_size, 0), arguments, task


def _in_torch(place: Path, recorders: ExitStack) -> dict[str, Callable[[], Any]]:
    import torch
    from torch.nn import functional as F

    from optparity.models import in_torch

    batch, arguments, _ = _data()

    def made(**options):
        torch.manual_seed(0)
        model = in_torch.GPT(**arguments)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        recorder = record_torch(optimizer, place / f"torch-{options.get('tensors')}", model=model, **options) if options else None
        if recorder is not None:
            recorders.enter_context(recorder)
        count = [0]

        def run():
            count[0] += 1
            inputs, targets = map(torch.tensor, batch(count[0]))
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs).flatten(0, -2), targets.flatten())
            loss.backward()
            if recorder is not None:
                recorder.note(loss=loss)
            optimizer.step()
            return loss.item()

        return run

    return {
        "torch": made(),
        "torch, hashes": made(tensors=None),
        "torch, gradients": made(tensors="gradients"),
    }


def _in_jax(place: Path, recorders: ExitStack) -> dict[str, Callable[[], Any]]:
    import optax
    from flax import nnx

    from optparity.models import in_flax

    batch, arguments, _ = _data()

    def made(**options):
        model = in_flax.GPT(**arguments, rngs=nnx.Rngs(0))
        graph, params = nnx.split(model, nnx.Param)
        params = nnx.to_pure_dict(params)
        tx = optax.adamw(1e-3)
        if options:
            tx = recorded(tx, recorders.enter_context(Recorder(place / f"jax-{options['tensors']}", **options)))

        def loss_of(params, inputs, targets):
            state = nnx.state(model, nnx.Param)
            nnx.replace_by_pure_dict(state, params)
            logits = nnx.merge(graph, state)(inputs)
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

        @jax.jit
        def train_step(params, state, inputs, targets):
            loss, gradients = jax.value_and_grad(loss_of)(params, inputs, targets)
            extra = {"loss": loss, "batch": inputs} if options else {}
            updates, state = tx.update(gradients, state, params, **extra)
            return optax.apply_updates(params, updates), state, loss

        carry, count = [params, tx.init(params)], [0]

        def run():
            count[0] += 1
            *carry[:], loss = jax.block_until_ready(train_step(*carry, *batch(count[0])))
            return float(loss)

        return run

    return {"jax": made(), "jax, hashes": made(tensors=None), "jax, gradients": made(tensors="gradients")}


def replayed(place: Path, gigabytes: float) -> dict[str, dict[str, float]]:
    """Seconds and the largest memory of recording so many gradients, and of replaying them in either framework."""
    found = {}
    for what in ("record", "replay --torch torch.optim:SGD", "replay --jax optax:sgd"):
        command = [sys.executable, "-m", "benchmarks.recording", "alone", what, str(place), str(gigabytes)]
        found[what] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return found


def alone(what: str, place: Path, gigabytes: float) -> None:
    """In a process of its own: its time and memory, as JSON."""
    start = time.perf_counter()
    if what == "record":
        _record(place, gigabytes)
    else:
        from optparity.traces.reading import traces
        from optparity.traces.replay import replay
        from optparity.versus.factories import Named

        _, framework, name = what.split(" ")
        optimizer = Named("torch" if framework == "--torch" else "jax", name)
        assert replay(traces(place)[0], optimizer).compared.by_hashes
    gb = sum(path.stat().st_size for path in place.rglob("*.safetensors")) / 1e9
    print(json.dumps({"seconds": time.perf_counter() - start, "mib": resident("VmHWM") / 2**20, "gb": gb}))


def _record(place: Path, gigabytes: float) -> None:
    """SGD in NumPy."""
    rng = np.random.default_rng(0)
    params = {f"layer{i}": rng.standard_normal(ELEMENTS, np.float32) for i in range(LEAVES)}
    with Recorder(place, tensors="gradients") as recorder:
        recorder.start(params)
        for _ in range(round(gigabytes * 1e9 / (4 * ELEMENTS * LEAVES))):
            gradients = {name: rng.standard_normal(ELEMENTS, np.float32) for name in params}
            for name, g in gradients.items():
                params[name] -= np.float32(0.125) * g
            recorder.step(gradients=gradients, params=params, lr=0.125)


if __name__ == "__main__":
    if sys.argv[1:2] == ["alone"]:
        alone(sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))
    else:
        typer.run(main)
