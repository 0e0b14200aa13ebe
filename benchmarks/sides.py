"""The two processes of the benchmark, one for each framework, so that their thread pools do not meet: each prepares, steps and times.

`serve(connection, side)` answers requests until None comes: a `Side` has `prepare`, `time`, `ends` and `drop`.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from parity_tests.harness.table import Row

LEARNING_RATE = 1e-3
CHECKED = (4099,)  # the shape on which the bits are compared
CHECKED_STEPS = 10
COPY = "copy"
PACKED = "packed"  # jaxopt_impl over packed parameters; the packing of the gradients is in its time
EVERY_SMALL = 2**13  # elements: leaves below this are packed in the benchmark


def serve(connection, side: str, threads: int, compiled: bool) -> None:
    """The body of the process."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    own = (InJax if side == "jax" else InTorch)(threads, compiled)
    while (request := connection.recv()) is not None:
        method, *arguments = request
        connection.send(getattr(own, method)(*arguments))


def _start(shapes: list[tuple[int, ...]], dtype: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Parameters and gradients, the same in both processes."""
    rng = np.random.default_rng(0)
    arrays = [[rng.standard_normal(shape, dtype="float32").astype(dtype) for shape in shapes] for _ in range(2)]
    return arrays[0], [g * g.dtype.type(1e-3) for g in arrays[1]]


class InJax:
    """`jaxopt_impl`, the same rule without its fences, and the nearest optax transform: a donated training step in one `jit`."""

    def __init__(self, threads: int, compiled: bool):
        del threads, compiled  # XLA takes all cores, and always compiles
        import jax

        self.jax = jax
        self.steps: dict[str, Any] = {}

    def prepare(self, row: Row, shapes: list[tuple[int, ...]], dtype: str) -> dict[str, dict]:
        """Compile each, and say what it took and holds."""
        from jaxopt_impl import pack

        jax, found = self.jax, {}
        params, gradients = _start(shapes, dtype)
        self.gradients = jax.tree.map(jax.numpy.array, gradients)
        elements = sum(g.size for g in gradients)
        implementations = self._implementations(row)
        if len(shapes) > 1:
            implementations[PACKED] = implementations["jaxopt_impl"]
        for name, (tx, context) in implementations.items():
            placed = jax.tree.map(jax.numpy.array, params)
            if name == PACKED:
                placed = pack(placed, below=EVERY_SMALL)
            state = jax.jit(tx.init)(placed)
            start = time.perf_counter()
            with context():
                compiled = self._jit(tx).lower(placed, state, self.gradients).compile()
            seconds = time.perf_counter() - start
            self.steps[name] = [compiled, placed, state]
            memory, entry = compiled.memory_analysis(), compiled.as_text().split("ENTRY")[1]
            found[name] = {
                "compile_s": seconds,
                "kernels": entry.count(" fusion("),
                "traffic_bytes": compiled.cost_analysis()["bytes accessed"] / elements,
                "temporary_bytes": memory.temp_size_in_bytes // elements,
                "peak_bytes": memory.argument_size_in_bytes
                + memory.output_size_in_bytes
                - memory.alias_size_in_bytes
                + memory.temp_size_in_bytes,
            }
        source = jax.numpy.ones((elements,), dtype)
        scale = jax.jit(lambda target, x: x * 1.5, donate_argnums=0, keep_unused=True)
        target = source + 1
        self.steps[COPY] = [lambda target, state, _: (scale(target, source), state), target, None]
        found[COPY] = {}
        return found

    def _implementations(self, row: Row) -> dict[str, Any]:
        return {
            "jaxopt_impl": (row.tx, contextlib.nullcontext),
            "unfenced": (row.tx, unfenced),
            "optax": (row.stock_tx, contextlib.nullcontext),
        }

    def _jit(self, tx):
        import optax

        from jaxopt_impl.packing import Packed, pack

        def train_step(params, state, gradients):
            if isinstance(params, Packed):
                gradients = pack(gradients, like=params)
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        return self.jax.jit(train_step, donate_argnums=(0, 1))

    def time(self, name: str, steps: int) -> float:
        """Seconds for a step."""
        step, params, state = self.steps[name]
        start = time.perf_counter()
        for _ in range(steps):
            params, state = step(params, state, self.gradients)
        self.jax.block_until_ready((params, state))
        seconds = time.perf_counter() - start
        self.steps[name][1:] = [params, state]
        return seconds / steps

    def ends(self, row: Row, dtype: str) -> dict[str, np.ndarray]:
        """The parameters of each after some steps on a small leaf."""
        params, gradients = _start([CHECKED], dtype)
        found = {}
        for name, (tx, context) in self._implementations(row).items():
            p = self.jax.tree.map(self.jax.numpy.array, params)
            state, step = tx.init(p), self._jit(tx)
            with context():
                for _ in range(CHECKED_STEPS):
                    p, state = step(p, state, gradients)
            found[name] = np.asarray(p[0])
        return found

    def drop(self) -> None:
        self.steps.clear()


@contextlib.contextmanager
def unfenced() -> Iterator[None]:
    """`jaxopt_impl` without fences and barrier, for what is traced inside."""
    from jaxopt_impl import numerics as nx

    kept = {name: getattr(nx, name) for name in ("fence", "other_fence", "signed_zero", "barrier")}
    nx.fence = nx.other_fence = lambda x: x
    nx.signed_zero, nx.barrier = (lambda *x: 0.0), (lambda *arrays: arrays)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(nx, name, value)


class InTorch:
    """`torch_ref`, and torch.optim for-loop, foreach, fused, and compiled where there is one tensor only."""

    FLAVOURS = {  # noqa: RUF012
        "torch for-loop": {"foreach": False},
        "torch foreach": {"foreach": True},
        "torch fused": {"fused": True},
        "torch compiled": {"foreach": False},
    }

    def __init__(self, threads: int, compiled: bool):
        import torch

        torch.set_num_threads(threads)
        self.compiled = compiled
        self.torch = torch
        self.steps: dict[str, Any] = {}

    def prepare(self, row: Row, shapes: list[tuple[int, ...]], dtype: str) -> dict[str, dict]:
        """Make each optimizer and take its first step, which is when it makes its state, and compiles."""
        found = {}
        params, gradients = _start(shapes, dtype)
        gradients = [self.torch.from_numpy(g) for g in gradients]
        for name, optimizer in self._optimizers(row, params, gradients):
            step = optimizer.step
            if name == "torch compiled":
                if len(shapes) > 1 or not self.compiled:
                    continue
                step = self.torch.compile(step)
            start = time.perf_counter()
            step()
            self.steps[name] = step
            found[name] = {"compile_s": time.perf_counter() - start} if name == "torch compiled" else {}
        return found

    def _optimizers(self, row: Row, params: list[np.ndarray], gradients: list) -> Iterator[tuple[str, Any]]:
        makers = {"torch_ref": row.torch}
        makers |= {name: lambda p, flavour=flavour: row.stock_torch(p, **flavour) for name, flavour in self.FLAVOURS.items()}
        for name, make in makers.items():
            parameters = [self.torch.nn.Parameter(self.torch.from_numpy(p.copy())) for p in params]
            for p, g in zip(parameters, gradients, strict=True):
                p.grad = g.clone() if row.arguments.get("maximize") else g
            try:
                yield name, make(parameters)
            except TypeError:  # torch.optim.RMSprop has no fused form
                continue

    def time(self, name: str, steps: int) -> float:
        """Seconds for a step."""
        step = self.steps[name]
        start = time.perf_counter()
        for _ in range(steps):
            step()
        return (time.perf_counter() - start) / steps

    def ends(self, row: Row, dtype: str) -> dict[str, np.ndarray]:
        """The parameters of each after some steps on a small leaf."""
        params, gradients = _start([CHECKED], dtype)
        found = {}
        for name, optimizer in self._optimizers(row, params, [self.torch.from_numpy(g) for g in gradients]):
            if name != "torch compiled":
                for _ in range(CHECKED_STEPS):
                    optimizer.step()
                found[name] = optimizer.param_groups[0]["params"][0].detach().numpy()
        return found

    def drop(self) -> None:
        self.steps.clear()
        self.torch.compiler.reset()
