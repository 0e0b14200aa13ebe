"""Programs to compile for an accelerator: a training step of Adam as each implementation writes it, and what is corrected, alone."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

import jaxopt_impl
from jaxopt_impl import numerics as nx
from optparity.accelerators.programs import Built, Program
from optparity.accelerators.targets import TARGETS
from optparity.parity.contexts import train_step_of
from optparity.registry import Row

from .sides import by_rule, unfenced

DTYPE = "float32"
ADAM = Row("adam", "default")


class Workload(NamedTuple):
    """Leaves of one size, each by itself or all of them in one array."""

    leaves: int
    size: int
    packed: bool = False


WORKLOADS = {"32M": Workload(1, 32_000_000), "400x4096": Workload(400, 4096), "400x4096, packed": Workload(400, 4096, packed=True)}


@contextlib.contextmanager
def by_integers() -> Iterator[None]:
    """`jaxopt_impl` with quotients and roots by integer remainders on GPUs too, for what is traced inside."""
    kept = nx.instead

    def instead(value, *arguments, **functions):
        return kept(value, *arguments, **functions | ({"gpu": functions["other"]} if "gpu" in functions else {}))

    nx.instead = instead
    try:
        with by_rule():
            yield
    finally:
        nx.instead = kept


IMPLEMENTATIONS: dict[str, tuple[Any, Callable]] = {
    "jaxopt_impl": (ADAM.tx, contextlib.nullcontext),
    "by integers": (ADAM.tx, by_integers),
    "unfenced": (ADAM.tx, unfenced),
    "optax": (ADAM.stock_tx, contextlib.nullcontext),
}
OPERATIONS: dict[str, Callable] = {"a / b": lambda a, b: a / b, "sqrt(a)": nx.sqrt}


MANY = "400x4096"  # takes a minute and more for each target
MANY_FOR = ("h100", "v5e")


def programs(target: str) -> Iterator[Program]:
    """What is compiled for a target."""
    platform = TARGETS[target].platform
    for implementation in IMPLEMENTATIONS:
        if platform == "cuda" or implementation != "by integers":
            for workload in (name for name in WORKLOADS if name != MANY or (target in MANY_FOR and implementation != "by integers")):
                yield Program(f"{implementation} | {workload}", step, (implementation, workload), DTYPE)
    if platform == "cuda":
        for implementation in ("jaxopt_impl", "by integers", "unfenced"):
            for name in OPERATIONS:
                yield Program(f"{implementation} | {name}", operation, (implementation, name), DTYPE)


def step(of: tuple[str, str], dtype: str) -> Built:
    """The donated training step of an implementation on a workload."""
    (tx, context), (leaves, size, packed) = IMPLEMENTATIONS[of[0]], WORKLOADS[of[1]]
    params: Any = [jax.ShapeDtypeStruct((size,), dtype)] * leaves
    if packed:
        params = jax.eval_shape(lambda tree: jaxopt_impl.pack(tree, below=size + 1), params)
    train_step = train_step_of(tx)

    def within(*arguments):
        with context():
            return train_step(*arguments)

    return Built(within, (params, jax.eval_shape(tx.init, params), params), (0, 1))


def operation(of: tuple[str, str], dtype: str) -> Built:
    """An operation on large arrays, alone."""
    context, function = IMPLEMENTATIONS[of[0]][1], OPERATIONS[of[1]]
    array = jax.ShapeDtypeStruct((WORKLOADS["32M"].size,), dtype)

    def within(*arrays):
        with context():
            return nx.unwrap(function(*(nx.wrap(x, dtype) for x in arrays)))

    return Built(within, (array,) * function.__code__.co_argcount)
