"""What `optparity convert` costs on an Adam checkpoint: `python -m benchmarks.convert [--gigabytes 1] [--rounds 5]`.

Each measurement is a process of its own, timed after its imports, with the files in the page cache and the disk quiet (`sync`) before it.
Rounds are interleaved, and ratios are taken within a round: to safetensors against copying the file, to Orbax against Orbax's own save of
the same tree from memory. Memory is the peak of the process (VmHWM) less that of one which only imports, in units of the checkpoint.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .runs import resident

LIMITS = {"safetensors": ("copy", 3.0), "orbax": ("orbax save", 1.3), "torch": ("copy", None), "torch from orbax": ("copy", None)}
MEMORY = 2.5


def main() -> None:
    """Make the checkpoint, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    Path("out").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir="out") as folder:
        _measured("make", Path(folder), given.gigabytes)
        size = (Path(folder) / "in.pt").stat().st_size
        seen: dict[str, list[dict[str, float]]] = {}
        for _ in range(given.rounds):
            for task in TASKS:
                if task != "make":
                    seen.setdefault(task, []).append(_measured(task, Path(folder), given.gigabytes))
    imports = statistics.median(run["peak"] for run in seen["imports"])
    print(f"a checkpoint of {size / 1e9:.3f} GB, {given.rounds} rounds, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    print(f"imports alone: {imports / 1e9:.2f} GB")
    print(f"{'':18s}{'seconds':>22s}{'against':>12s}{'ratio':>20s}{'limit':>7s}{'memory':>8s}{'limit':>7s}")
    for task, runs in seen.items():
        if task == "imports":
            continue
        seconds, peak = [run["seconds"] for run in runs], max(run["peak"] for run in runs)
        memory = f"{(peak - imports) / size:7.2f}x"
        if task not in LIMITS:
            print(f"{task:18s}{_spread(seconds):>22s}{'':39s}{memory}")
            continue
        other, limit = LIMITS[task]
        ratios = [a / b["seconds"] for a, b in zip(seconds, seen[other], strict=True)]
        print(f"{task:18s}{_spread(seconds):>22s}{other:>12s}{_spread(ratios):>20s}{limit or '':>7}{memory}{MEMORY:>7}")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _measured(task: str, folder: Path, gigabytes: float) -> dict[str, float]:
    """Seconds and peak of memory of a task in a process of its own."""
    os.sync()
    command = [sys.executable, "-c", f"from benchmarks.convert import run; run({task!r}, {str(folder)!r}, {gigabytes})"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def run(task: str, folder: str, gigabytes: float) -> None:
    """Do one task here, and print what it took."""
    import orbax.checkpoint  # noqa: F401
    import safetensors.numpy  # noqa: F401
    import torch  # noqa: F401

    prepared = TASKS[task](Path(folder), gigabytes)
    start = time.perf_counter()
    if prepared is not None:
        prepared()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak": resident("VmHWM")}))


def _make(folder: Path, gigabytes: float) -> None:
    """Weights and moments of 24 layers, as a transformer of that size has them."""
    import torch

    torch.manual_seed(0)
    width = round((gigabytes * 1e9 / 3 / 4 / 24 / 4) ** 0.5)
    weights = {f"h.{i}.{name}": torch.randn(4 * width, width) for i in range(24) for name in ("weight",)}
    parameters = {name: torch.nn.Parameter(weight) for name, weight in weights.items()}
    optimizer = torch.optim.Adam(parameters.items())
    for p in parameters.values():
        p.grad = torch.randn_like(p)
    optimizer.step()
    torch.save({"model": weights, "optimizer": optimizer.state_dict()}, folder / "in.pt")


def _converted(source: str, target: str) -> Callable[[Path, float], Callable[[], None]]:
    def prepare(folder, gigabytes):
        from optparity.checkpoints import convert
        from optparity.checkpoints.checkpoint import Given

        def task():
            convert.write(convert.read(folder / source, Given("Adam")), folder / target, force=True)

        return task

    return prepare


def _orbax_save(folder: Path, gigabytes: float) -> Callable[[], None]:
    import numpy as np
    import orbax.checkpoint as ocp

    from optparity.checkpoints import arrays, convert
    from optparity.checkpoints.checkpoint import Given

    def copied(tree):
        return {key: copied(value) for key, value in tree.items()} if isinstance(tree, dict) else np.array(tree)

    tree = copied(arrays.tree(convert.read(folder / "in.pt", Given("Adam"))))

    def task():
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save((folder / "orbax_save").absolute(), tree, force=True)

    return task


TASKS: dict[str, Callable] = {
    "make": _make,
    "imports": lambda folder, gigabytes: None,
    "copy": lambda folder, gigabytes: lambda: shutil.copyfile(folder / "in.pt", folder / "copy.pt"),
    "safetensors": _converted("in.pt", "out.safetensors"),
    "orbax save": _orbax_save,
    "orbax": _converted("in.pt", "out"),
    "torch": _converted("out.safetensors", "back.pt"),
    "torch from orbax": _converted("out", "back.pt"),
}

if __name__ == "__main__":
    main()
