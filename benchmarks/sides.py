"""The two processes of the benchmark, one for each framework, so that their thread pools do not meet: each prepares, steps and times.

`serve(connection, side)` answers requests until None comes: a side has `prepare`, `time`, `ends` and `drop`.
"""

import contextlib
import os
import time
from collections.abc import Container, Iterator
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from optparity.registry import Row

from .runs import resident

CHECKED = (4099,)  # the shape on which the bits are compared
CHECKED_STEPS = 10
COPY = "copy"
SHOWS = 64e6  # bytes of an array whose coming and going the process's resident memory shows
CLEAR = Path("/proc/self/clear_refs")


def serve(connection, side: str, threads: int, compiled: bool) -> None:
    """The body of the process."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])  # XLA makes a thread for each core that it may use
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # on a GPU the other process needs its memory too
    own = InJax() if side == "jax" else InTorch(threads, compiled)
    with contextlib.suppress(EOFError):  # the other end is gone
        while (request := connection.recv()) is not None:
            method, *arguments = request
            connection.send(getattr(own, method)(*arguments))


def _start(shapes: list[tuple[int, ...]], dtype: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Parameters and gradients, the same in both processes."""
    rng = np.random.default_rng(0)
    params, gradients = ([(scale * rng.standard_normal(shape, "float32")).astype(dtype) for shape in shapes] for scale in (1, 1e-3))
    return params, gradients


class InJax:
    """`jaxopt_impl` in its forms, the same rule without its fences, and the nearest optax transform: a donated training step in one `jit`.

    They step on the same arrays in turn: where arrays lie in memory is worth several percent, and would else be taken for a difference.
    """

    def __init__(self):
        import jax

        self.jax = jax
        self.steps: dict[str, tuple] = {}
        self.target: Any = None

    def prepare(self, row: Row, shapes: list[tuple[int, ...]], dtype: str, only: Container[str] | None = None) -> dict[str, dict]:
        """Compile each, or only some, and say what it took and holds."""
        jax, found = self.jax, {}
        jax.config.update("jax_enable_x64", dtype == "float64")
        params, gradients = (jax.tree.map(jax.numpy.array, arrays) for arrays in _start(shapes, dtype))
        self.gradients = gradients
        self.arrays = [leaf for leaf in params if leaf.ndim]  # parameters, then the state's, leaf by leaf
        elements = sum(g.size for g in gradients)
        for name, (tx, step, context) in self._implementations(row).items():
            if only is not None and name not in only:
                continue
            state = jax.jit(tx.init)(params)
            start = time.perf_counter()
            with context():
                compiled: Any = jax.jit(step(tx), donate_argnums=(0, 1)).lower(params, state, gradients).compile()
            seconds = time.perf_counter() - start
            leaves, treedef = jax.tree.flatten((params, state))
            self.steps[name] = (compiled, treedef, [leaf if leaf.ndim == 0 else None for leaf in leaves])
            arrays = [leaf for leaf in leaves if leaf.ndim]
            self.arrays = self.arrays + arrays[len(self.arrays) :]
            memory, entry = compiled.memory_analysis(), compiled.as_text().split("ENTRY")[1]
            found[name] = {
                "compile_s": seconds,
                "kernels": entry.count(" fusion("),
                "traffic_bytes": compiled.cost_analysis()["bytes accessed"] / elements,
                "temporary_bytes": memory.temp_size_in_bytes // elements,
            }
        self.source = jax.numpy.ones((elements,), dtype)
        self.target = self.source + 1
        self.copy = jax.jit(lambda target, source: source * 1.5, donate_argnums=0, keep_unused=True)
        found[COPY] = {}
        return found

    def _implementations(self, row: Row) -> dict[str, Any]:
        """The transform of each, its training step, and the context in which that is traced and compiled."""
        from optparity.parity.contexts import train_step_of

        return {
            "jaxopt_impl": (row.tx, train_step_of, contextlib.nullcontext),
            "update_and_apply": (row.tx, _applied, contextlib.nullcontext),
            "by rule": (row.tx, train_step_of, by_rule),
            "unfenced": (row.tx, train_step_of, unfenced),
            "optax": (row.stock_tx, train_step_of, contextlib.nullcontext),
        }

    def time(self, name: str, steps: int) -> float:
        """Seconds for a step."""
        if name == COPY:
            start = time.perf_counter()
            for _ in range(steps):
                self.target = self.copy(self.target, self.source)
            self.target.block_until_ready()
            return (time.perf_counter() - start) / steps
        step, treedef, scalars = self.steps[name]
        own = iter(self.arrays)
        params, state = treedef.unflatten([next(own) if scalar is None else scalar.copy() for scalar in scalars])
        others = list(own)
        start = time.perf_counter()
        for _ in range(steps):
            params, state = step(params, state, self.gradients)
        self.jax.block_until_ready((params, state))
        seconds = time.perf_counter() - start
        self.arrays = [leaf for leaf in self.jax.tree.leaves((params, state)) if leaf.ndim] + others
        return seconds / steps

    def ends(self, row: Row, dtype: str) -> dict[str, np.ndarray]:
        """The parameters of each after some steps on a small leaf."""
        params, gradients = _start([CHECKED], dtype)
        found = {}
        for name, (tx, step_of, context) in self._implementations(row).items():
            p = self.jax.tree.map(self.jax.numpy.array, params)
            state, step = tx.init(p), self.jax.jit(step_of(tx), donate_argnums=(0, 1))
            with context():
                for _ in range(CHECKED_STEPS):
                    p, state = step(p, state, gradients)
            found[name] = np.asarray(p[0])
        return found

    def drop(self) -> None:
        """Let go of every array."""
        self.steps.clear()
        self.arrays = self.gradients = []
        self.source = self.target = None


def _applied(tx):
    from jaxopt_impl import update_and_apply

    return lambda params, state, gradients: update_and_apply(tx)(gradients, state, params)


@contextlib.contextmanager
def by_rule() -> Iterator[None]:
    """`jaxopt_impl` without the compiled library, for what is traced inside."""
    kept = os.environ.get("OPTPARITY_ONE_PASS")
    os.environ["OPTPARITY_ONE_PASS"] = "0"
    try:
        yield
    finally:
        os.environ.pop("OPTPARITY_ONE_PASS") if kept is None else os.environ.update(OPTPARITY_ONE_PASS=kept)


@contextlib.contextmanager
def unfenced() -> Iterator[None]:
    """`jaxopt_impl` without fences and barrier, and with each backend's own quotients, roots and float64, for what is traced inside."""
    from jaxopt_impl import numerics as nx

    kept = {name: getattr(nx, name) for name in ("signed_zero", "divided_by_scalar", "barrier", "instead")}
    nx.instead = lambda value, *arguments, **functions: value
    nx.signed_zero = lambda x, *others: np.zeros([], x.dtype)  # XLA drops the addition of it
    nx.divided_by_scalar, nx.barrier = (lambda a, b: a / b), (lambda *arrays: arrays)
    try:
        with by_rule():
            yield
    finally:
        for name, value in kept.items():
            setattr(nx, name, value)


class InTorch:
    """`torch_ref`, and torch.optim for-loop, foreach, fused, and compiled where there is one tensor only. On CUDA where XLA is too."""

    FLAVOURS = {  # noqa: RUF012
        "torch for-loop": {"foreach": False},
        "torch foreach": {"foreach": True},
        "torch fused": {"fused": True},
        "torch compiled": {"foreach": False},
    }

    def __init__(self, threads: int, compiled: bool):
        import jax
        import torch

        torch.set_num_threads(threads)
        self.compiled = compiled
        self.torch = torch
        self.device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
        self.steps: dict[str, Any] = {}

    def prepare(self, row: Row, shapes: list[tuple[int, ...]], dtype: str, only: Container[str] | None = None) -> dict[str, dict]:
        """Make each optimizer, or only some; take its first step, which makes its state and compiles; say what a step moves and holds."""
        from one_pass.library import is_available

        from .traffic import Traffic

        found = {}
        params, gradients = _start(shapes, dtype)
        elements = sum(g.size for g in gradients)
        for name, optimizer in self._optimizers(row, params, gradients):
            if only is not None and name not in only:
                continue
            step = optimizer.step
            if name == "torch compiled":
                if len(shapes) > 1 or not self.compiled:
                    continue
                step = self.torch.compile(step)
            start = time.perf_counter()
            step()
            self._wait()
            found[name] = {"compile_s": time.perf_counter() - start} if name == "torch compiled" else {}
            unseen = name == "torch compiled" or (name == "torch_ref" and is_available())  # PyTorch's dispatcher does not see what they do
            with contextlib.nullcontext() if unseen else Traffic() as traffic:
                step()
            if traffic is not None:
                found[name] |= {"traffic_bytes": traffic.bytes / elements, "kernels": traffic.operations}
            if (peak := self._peak(step, params)) is not None:
                found[name] |= {"temporary_bytes": peak // elements}
            self.steps[name] = step
        return found

    def _optimizers(self, row: Row, params: list[np.ndarray], gradients: list[np.ndarray]) -> Iterator[tuple[str, Any]]:
        from optparity._arrays import to_torch

        makers = {"torch_ref": row.torch}
        makers |= self._stock(row)
        shared = [to_torch(g, copy=True).to(self.device) for g in gradients]
        for name, make in makers.items():
            parameters = [self.torch.nn.Parameter(to_torch(p, copy=True).to(self.device)) for p in params]
            for p, g in zip(parameters, shared, strict=True):
                p.grad = g.clone() if row.arguments.get("maximize") else g  # fused takes the sign in place
            yield name, make(parameters)

    def _stock(self, row: Row) -> dict[str, Any]:
        """The nearest torch.optim optimizer in each flavour that it has; RMSprop has no fused form."""
        if row.entry.stock_torch is None or row.stock_torch is None:
            return {}
        known = signature(getattr(self.torch.optim, row.entry.stock_torch.name)).parameters
        return {name: partial(row.stock_torch, **flavour) for name, flavour in self.FLAVOURS.items() if flavour.keys() <= known.keys()}

    def _peak(self, step, params: list[np.ndarray]) -> int | None:
        """Bytes that a step takes for a while; None where that does not show: on a CPU memory that was freed before may be taken again."""
        cuda = self.torch.cuda
        if self.device == "cuda":
            cuda.reset_peak_memory_stats()
            before = cuda.memory_allocated()
            step()
            return cuda.max_memory_allocated() - before
        if sum(p.nbytes for p in params) < SHOWS or not CLEAR.exists():
            return None
        CLEAR.write_text("5")  # the highest so far is what is held now
        before = resident("VmRSS")
        step()
        return max(0, resident("VmHWM") - before)

    def _wait(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def time(self, name: str, steps: int) -> float:
        """Seconds for a step."""
        step = self.steps[name]
        start = time.perf_counter()
        for _ in range(steps):
            step()
        self._wait()
        return (time.perf_counter() - start) / steps

    def ends(self, row: Row, dtype: str) -> dict[str, np.ndarray]:
        """The parameters of each after some steps on a small leaf."""
        from optparity._arrays import to_numpy

        found = {}
        for name, optimizer in self._optimizers(row, *_start([CHECKED], dtype)):
            if name != "torch compiled":
                for _ in range(CHECKED_STEPS):
                    optimizer.step()
                found[name] = to_numpy(optimizer.param_groups[0]["params"][0])
        return found

    def drop(self) -> None:
        """Let go of every tensor."""
        self.steps.clear()
        self.torch.compiler.reset()
