"""What packing saves where leaves are many and small: `python -m benchmarks.packing`.

A step per call, and inside one jit (a `scan` over steps, where dispatch is apart). Each step has gradients of its own, leaf by leaf,
and packs them: with the same gradients in each step XLA would move their packing out of the loop.
"""

import statistics
import time
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from jaxopt_impl import pack
from parity_tests.harness.table import OPTIMIZERS, Row

STEPS = 8  # inside one jit
CALLS = 4  # one step each


def main(
    optimizer: Annotated[list[str] | None, typer.Option(help=f"{', '.join(OPTIMIZERS)}; may be repeated. Default: adam.")] = None,
    leaves: Annotated[int, typer.Option(min=1)] = 2000,
    size: Annotated[int, typer.Option(min=1, help="Elements of a leaf.")] = 256,
    rounds: Annotated[int, typer.Option(min=3)] = 12,
) -> None:
    """Time optax and jaxopt_impl leaf by leaf, and jaxopt_impl packed, in rounds, each round in another order."""
    unknown = [name for name in optimizer or [] if name not in OPTIMIZERS]
    if unknown:
        typer.echo(f"benchmarks.packing: --optimizer {unknown[0]}: one of {', '.join(OPTIMIZERS)} is needed.", err=True)
        raise typer.Exit(2)
    shown = Table(title=f"{leaves} leaves of {size}, float32; milliseconds a step, and the ratio to optax within a round (quartiles)")
    for header in ("row", "", "compile s", "per call", "/ optax", "in one jit", "/ optax"):
        shown.add_column(header)
    for name in optimizer or ["adam"]:
        row = next(Row(name, label) for label in ("momentum", "default") if label in OPTIMIZERS[name].rows)  # one that keeps state
        runs = {key: Run(tx, leaves, size, packed) for key, tx, packed in sides(row)}
        seconds: dict[str, list[tuple[float, float]]] = {key: [] for key in runs}
        keys = list(runs)
        for i in track(range(rounds), description=str(row), console=Console(stderr=True), transient=True):
            for key in keys[i % len(keys) :] + keys[: i % len(keys)]:
                seconds[key].append((runs[key].per_call(), runs[key].in_one_jit()))
        for key, run in runs.items():
            cells = []
            for which in (0, 1):
                ratios = [one[which] / other[which] for one, other in zip(seconds[key], seconds["optax"], strict=True)]
                low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
                cells += [f"{1e3 * statistics.median(s[which] for s in seconds[key]):.3f}", f"{middle:.3f} ({low:.2f} to {high:.2f})"]
            shown.add_row(str(row), key, f"{run.compile_s:.1f}", *cells)
    Console(width=140).print(shown)


def sides(row: Row) -> list[tuple[str, optax.GradientTransformation, bool]]:
    return [("optax", row.stock_tx, False), ("jaxopt_impl", row.tx, False), ("packed", row.tx, True)]


class Run:
    """One transform over many leaves: compiled and warm."""

    def __init__(self, tx: optax.GradientTransformation, leaves: int, size: int, packed: bool):
        rng = np.random.default_rng(0)
        params = [jnp.array(rng.standard_normal(size, "float32")) for _ in range(leaves)]
        self.gradients = [jnp.array(rng.standard_normal((STEPS, size), "float32")) for _ in range(leaves)]
        self.first = [g[0] for g in self.gradients]
        like = pack(params, below=size + 1) if packed else None
        self.carry = (params if like is None else like, tx.init(params if like is None else like))

        def step(carry, gradients):
            params, state = carry
            updates, state = tx.update(gradients if like is None else pack(gradients, like=like), state, params)
            return optax.apply_updates(params, updates), state

        def steps(carry, gradients):
            return jax.lax.scan(lambda carry, g: (step(carry, g), None), carry, gradients)[0]

        start = time.perf_counter()
        self.step = jax.jit(step, donate_argnums=0).lower(self.carry, self.first).compile()
        self.compile_s = time.perf_counter() - start
        self.steps = jax.jit(steps, donate_argnums=0).lower(self.carry, self.gradients).compile()
        self.per_call()
        self.in_one_jit()

    def per_call(self) -> float:
        """Seconds a step."""
        start = time.perf_counter()
        for _ in range(CALLS):
            self.carry = self.step(self.carry, self.first)
        jax.block_until_ready(self.carry)
        return (time.perf_counter() - start) / CALLS

    def in_one_jit(self) -> float:
        """Seconds a step."""
        start = time.perf_counter()
        self.carry = jax.block_until_ready(self.steps(self.carry, self.gradients))
        return (time.perf_counter() - start) / STEPS


if __name__ == "__main__":
    typer.run(main)
