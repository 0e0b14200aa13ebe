"""What an exact norm costs: `python -m benchmarks.clipping`.

A donated training step of `chain(clip_by_global_norm, adamw)` in jaxopt_impl and in optax, AdamW without a clip in both, and the norm
alone, also in torch. Each is called in turn, in rounds, each round in another order; ratios are taken within a round.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import jaxopt_impl
from optparity.parity.contexts import train_step_of
from optparity.registry import DTYPES

from .report import spread
from .runs import about, fail, folder, write

MAX_NORM, LR = 1.0, 1e-3
HEADERS = ["what", "ms", "/ its peer"]
PEERS = {  # what is compared with what
    "clip and adamw": "optax, clip and adamw",
    "clip and adamw, form='optax'": "optax, clip and adamw",
    "adamw": "optax, adamw",
    "global_norm": "optax.tree.norm",
    "torch_ref.get_total_norm": "torch.nn.utils.get_total_norm",
}


def main(
    size: Annotated[int, typer.Option(min=1, help="Elements of a leaf.")] = 1 << 25,
    leaves: Annotated[int, typer.Option(min=1)] = 1,
    dtype: Annotated[str, typer.Option(help=f"{', '.join(DTYPES)}.")] = "float32",
    rounds: Annotated[int, typer.Option(min=3)] = 15,
    out: Annotated[Path, typer.Option(help="The file for the run, as JSON.")] = Path("out/clipping.json"),
) -> None:
    """Time clipped training steps, and norms, against optax and torch."""
    if dtype not in DTYPES:
        fail(f"--dtype {dtype}: one of {', '.join(DTYPES)} is needed.")
    folder(out.parent)
    with jax.enable_x64(dtype == "float64"):
        seconds = measured(size, leaves, dtype, rounds)
    write(out, {**about(dtype, os.cpu_count() or 1), "size": size, "leaves": leaves, "seconds": seconds})
    title = f"{leaves} x {size} {dtype}, {rounds} rounds, median (quartiles); ratios within a round"
    shown = Table(*HEADERS, title=title, title_justify="left", box=None)
    for what, taken in seconds.items():
        shown.add_row(what, spread(taken, 1e3), spread(ratios(seconds, what, PEERS[what])) if what in PEERS else "")
    Console(width=140).print(shown)


def measured(size: int, leaves: int, dtype: str, rounds: int) -> dict[str, list[float]]:
    """The seconds that each took, round by round, after a round that warms."""
    runs = _runs(size, leaves, dtype)
    keys, seconds = list(runs), {key: [] for key in runs}
    in_turn = [keys[i % len(keys) :] + keys[: i % len(keys)] for i in range(rounds + 1)]
    for i, order in enumerate(track(in_turn, description="clipping", console=Console(stderr=True), transient=True)):
        for key in order:
            start = time.perf_counter()
            runs[key]()
            if i:
                seconds[key].append(time.perf_counter() - start)
    return seconds


def ratios(seconds: dict[str, list[float]], one: str, other: str) -> list[float]:
    """One's time by another's, round by round."""
    return [a / b for a, b in zip(seconds[one], seconds[other], strict=True)]


def markdown(document: dict[str, Any]) -> str:
    """The ratios of a run, for a page."""
    seconds = document["seconds"]
    lines = [f"| {document['size']:,} elements, {document['dtype']} | time relative to | ratio (quartiles) |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {one} | {other} | {spread(ratios(seconds, one, other))} |" for one, other in PEERS.items())])


def _runs(size: int, leaves: int, dtype: str) -> dict[str, Callable[[], Any]]:
    import torch

    import torch_ref
    from optparity._arrays import to_torch

    rng = np.random.default_rng(0)
    gradients = [rng.standard_normal(size, "float32").astype(jnp.dtype(dtype)) for _ in range(leaves)]
    given = [jnp.asarray(g) for g in gradients]
    tensors = [to_torch(g) for g in gradients]
    norms = {"global_norm": jax.jit(jaxopt_impl.global_norm), "optax.tree.norm": jax.jit(optax.tree.norm)}
    stock = optax.clip_by_global_norm(MAX_NORM)
    transforms = {
        "clip and adamw": optax.chain(jaxopt_impl.clip_by_global_norm(MAX_NORM), jaxopt_impl.adamw(LR)),
        "clip and adamw, form='optax'": optax.chain(jaxopt_impl.clip_by_global_norm(MAX_NORM, "optax"), jaxopt_impl.adamw(LR)),
        "optax, clip and adamw": optax.chain(stock, optax.adamw(LR)),
        "adamw": jaxopt_impl.adamw(LR),
        "optax, adamw": optax.adamw(LR),
    }
    return {
        **{what: _step(tx, given) for what, tx in transforms.items()},
        **{what: lambda norm=norm: norm(given).block_until_ready() for what, norm in norms.items()},
        "torch_ref.get_total_norm": lambda: torch_ref.get_total_norm(tensors),
        "torch.nn.utils.get_total_norm": lambda: torch.nn.utils.get_total_norm(tensors),
    }


def _step(tx: optax.GradientTransformation, gradients: list[jax.Array]) -> Callable[[], Any]:
    """A training step on parameters of its own; each call goes on where the last one ended."""
    step = jax.jit(train_step_of(tx), donate_argnums=(0, 1))
    params = [jnp.copy(g) for g in gradients]
    carry = [params, tx.init(params)]

    def run():
        carry[:] = jax.block_until_ready(step(*carry, gradients))

    return run


if __name__ == "__main__":
    typer.run(main)
