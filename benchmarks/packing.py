"""What packing saves where leaves are many and small: `python -m benchmarks.packing`.

A step per call, and inside one jit (a `scan` over steps, where dispatch is apart). Each step has gradients of its own, leaf by leaf,
and packs them: with the same gradients in each step XLA would move their packing out of the loop. With `--loss` a step is a whole
training step: the gradients are those of an elementwise loss, which unpacks its parameters.
"""

import os
import time
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

from jaxopt_impl import pack, unpack
from optparity.accounting import state
from optparity.registry import OPTIMIZERS, ROWS, Row

from .report import spread
from .runs import about, fail, folder, write

STEPS = 8  # inside one jit
CALLS = 4  # one step each
COMPILES = 3  # in turn
LEAF = jax.ShapeDtypeStruct((1024,), "float32")
STATEFUL = [next(row for row in ROWS if row.optimizer == name and state(row.tx, LEAF).arrays) for name in OPTIMIZERS]  # the first that has
MEASURED = {"compile_s": 1.0, "per_call": 1e3, "in_one_jit": 1e3}  # in the unit of its header
HEADERS = ["case", "", "compile, s", "/ optax", "per call, ms", "/ optax", "in one jit, ms", "/ optax"]


def main(
    optimizer: Annotated[list[str] | None, typer.Option(help=f"{', '.join(OPTIMIZERS)}; may be repeated. Default: all.")] = None,
    leaves: Annotated[int, typer.Option(min=1)] = 2000,
    size: Annotated[list[int] | None, typer.Option(min=1, help="Elements of a leaf; may be repeated. Default: 256.")] = None,
    loss: Annotated[bool, typer.Option("--loss", help="A whole training step, with the gradients of a loss.")] = False,
    rounds: Annotated[int, typer.Option(min=3)] = 12,
    out: Annotated[Path, typer.Option(help="The file for the run, as JSON.")] = Path("out/packing.json"),
) -> None:
    """Time optax and jaxopt_impl leaf by leaf, and jaxopt_impl packed, in rounds, each round in another order."""
    for name in optimizer or []:
        if name not in OPTIMIZERS:
            fail(f"--optimizer {name}: one of {', '.join(OPTIMIZERS)} is needed.")
    folder(out.parent)
    rows = [row for row in STATEFUL if not optimizer or row.optimizer in optimizer]
    cases = [measured(row, leaves, elements, loss, rounds) for row in rows for elements in size or [256]]
    write(out, {**about("float32", os.cpu_count() or 1), "cases": cases})
    shown = Table(*HEADERS, title=f"{rounds} rounds, median (quartiles); ratios within a round", title_justify="left", box=None)
    for case in cases:
        for line in lines(case):
            shown.add_row(*line)
    Console(width=190).print(shown)


def measured(row: Row, leaves: int, size: int, loss: bool, rounds: int) -> dict[str, Any]:
    """The seconds that each side took, round by round."""
    sides = {"optax": (row.stock_tx, False), "jaxopt_impl": (row.tx, False), "packed": (row.tx, True)}
    description, console = f"{row}, {leaves} x {size}", Console(stderr=True)
    runs = {key: Run(tx, leaves, size, packed, loss) for key, (tx, packed) in sides.items()}
    found: dict[str, Any] = {key: {which: [] for which in MEASURED} for key in runs}
    keys = list(runs)
    in_turn = [keys[i % len(keys) :] + keys[: i % len(keys)] for i in range(max(rounds, COMPILES))]
    for order in track(in_turn[:COMPILES], description=f"{description}: compiling", console=console, transient=True):
        for key in order:
            found[key]["compile_s"].append(runs[key].compile())
    for run in runs.values():
        run.warm()
    for order in track(in_turn[:rounds], description=description, console=console, transient=True):
        for key in order:
            found[key]["per_call"].append(runs[key].per_call())
            found[key]["in_one_jit"].append(runs[key].in_one_jit())
    return {"row": str(row), "leaves": leaves, "size": size, "loss": loss, "sides": found}


def lines(case: dict[str, Any]) -> list[list[str]]:
    """A line for each side, under `HEADERS`."""
    found = []
    for key, side in case["sides"].items():
        found.append([f"{case['row']}, {case['leaves']} x {case['size']}{', loss' * case['loss']}", key])
        for which, unit in MEASURED.items():
            found[-1] += [spread(side[which], unit), spread(ratios(case, key, "optax", which))]
    return found


def ratios(case: dict[str, Any], one: str, other: str, which: str) -> list[float]:
    """One side's time by another's, round by round."""
    return [a / b for a, b in zip(case["sides"][one][which], case["sides"][other][which], strict=True)]


class Run:
    """One transform over many leaves, to be compiled, warmed and timed."""

    def __init__(self, tx: optax.GradientTransformation, leaves: int, size: int, packed: bool, with_loss: bool):
        rng = np.random.default_rng(0)
        params = [jnp.array(rng.standard_normal(size, "float32")) for _ in range(leaves)]
        self.given = [jnp.array(rng.standard_normal((STEPS, size), "float32")) for _ in range(leaves)]  # gradients, or targets
        self.first = [g[0] for g in self.given]
        like = pack(params, below=size + 1) if packed else None
        self.carry = (params if like is None else like, tx.init(params if like is None else like))

        def loss(params, targets):
            return sum(jnp.square(p - target).sum() for p, target in zip(unpack(params), targets, strict=True))

        def step(carry, given):
            params, state = carry
            if with_loss:
                given = jax.grad(loss)(params, given)
            elif like is not None:
                given = pack(given, like=like)
            updates, state = tx.update(given, state, params)
            return optax.apply_updates(params, updates), state

        def steps(carry, given):
            return jax.lax.scan(lambda carry, g: (step(carry, g), None), carry, given)[0]

        self.functions = step, steps

    def compile(self) -> float:
        """Seconds to trace and compile a step."""
        start = time.perf_counter()
        step = lambda *given: self.functions[0](*given)  # noqa: E731 (another function each time, which jax has not traced yet)
        self.step = jax.jit(step, donate_argnums=0).lower(self.carry, self.first).compile()
        return time.perf_counter() - start

    def warm(self) -> None:
        """Compile the steps inside one jit as well, and run both."""
        self.steps = jax.jit(self.functions[1], donate_argnums=0).lower(self.carry, self.given).compile()
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
        self.carry = jax.block_until_ready(self.steps(self.carry, self.given))
        return (time.perf_counter() - start) / STEPS


if __name__ == "__main__":
    typer.run(main)
