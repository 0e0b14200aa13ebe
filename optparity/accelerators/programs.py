"""Programs to compile for an accelerator. Each is built where it is compiled, from a description that travels there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

import jaxopt_impl
from jaxopt_impl import numerics as nx

from ..parity.canaries import CANARIES, Canary
from ..parity.contexts import train_step_of
from ..parity.streams import STREAMS
from ..registry import DTYPES, HALVES, ROWS, Row

SHAPE = (len(STREAMS), 257)  # as the golden file has it: its streams, as the rows of one leaf
ELEMENTS = 4096  # of a canary
STEPS = 3  # of a scan


class Built(NamedTuple):
    """A function to compile, and the shapes of its arguments."""

    function: Callable
    arguments: tuple
    donated: tuple[int, ...] = ()


@dataclass(frozen=True)
class Program:
    """What is compiled.

    Attributes:
        name: for people.
        build: makes it, from `of` and `dtype`; a function of a module, so that it can be named to another process.
        of: what it is made from: a row, or the name of a canary.
        dtype: of its leaves.
        sharded: whether the leaves are spread over the devices, by their first axis.
    """

    name: str
    build: Callable[[Any, str], Built]
    of: Any
    dtype: str
    sharded: bool = False

    def __str__(self) -> str:
        return self.name


def train_steps(dtypes: Iterable[str] = DTYPES, rows: Iterable[Row] = ROWS) -> list[Program]:
    """The donated train step of each row and dtype."""
    return [Program(f"{row} | {dtype}", train_step, row, dtype) for row in rows for dtype in dtypes if dtype in row.dtypes]


def in_contexts(dtypes: Iterable[str], rows: Iterable[Row]) -> list[Program]:
    """The train step of each of these rows and dtypes in each context."""
    return [
        Program(f"{row} | {dtype} | {name}", build, row, dtype, sharded=name == "sharded")
        for row in rows
        for dtype in dtypes
        if dtype in row.dtypes
        for name, build in CONTEXTS.items()
    ]


def canaries(dtypes: Iterable[str] = DTYPES, *, fenced: bool = True) -> list[Program]:
    """Each rewrite that could break the contract, as the rules write it, or plain."""
    build, way = (fenced_canary, "fenced") if fenced else (plain_canary, "plain")
    return [
        Program(f"{canary.name} | {dtype} | {way}", build, canary.name, dtype)
        for dtype in dtypes
        for canary in CANARIES
        if canary.halves or dtype not in HALVES
    ]


def train_step(row: Row, dtype: str) -> Built:
    """A training step of one leaf, as the golden file has it."""
    return _built(row.tx, jax.ShapeDtypeStruct(SHAPE, dtype))


def scan(row: Row, dtype: str) -> Built:
    """`lax.scan` over some steps."""
    step, (params, state, gradient), _ = train_step(row, dtype)
    gradients = jax.ShapeDtypeStruct((STEPS, *gradient.shape), gradient.dtype)

    def steps(params, state, gradients):
        return lax.scan(lambda carry, gradient: (step(*carry, gradient), None), (params, state), gradients)[0]

    return Built(steps, (params, state, gradients), (0, 1))


def vmap(row: Row, dtype: str) -> Built:
    """A batch of two parameter sets."""
    step, arguments, donated = train_step(row, dtype)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), arguments)
    return Built(jax.vmap(step), batch, donated)


def cond(row: Row, dtype: str) -> Built:
    """A step that is taken or not."""
    step, arguments, _ = train_step(row, dtype)

    def perhaps(go, params, state, gradient):
        return lax.cond(go, step, lambda params, state, gradient: (params, state), params, state, gradient)

    return Built(perhaps, (jax.ShapeDtypeStruct((), bool), *arguments), (1, 2))


def product(row: Row, dtype: str) -> Built:
    """Gradients that are products of the same program."""
    step, (params, state, gradient), donated = train_step(row, dtype)
    return Built(lambda params, state, a, b: step(params, state, a * b), (params, state, gradient, gradient), donated)


def constants(row: Row, dtype: str) -> Built:
    """Constant parameters and gradients, in a program with `init`: the update and the state of the second step.

    Not the parameters: two sums of `optax.apply_updates` in one program are the caller's, and where a GPU has no addition of bfloat16
    (A100), XLA does not round the first.
    """

    def second_update(anything):  # by the device of an argument jax knows what it compiles for
        params = jnp.full(SHAPE, 0.3, dtype)
        params, state = train_step_of(row.tx)(params, row.tx.init(params), jnp.full(SHAPE, 0.1, dtype))
        return row.tx.update(jnp.full(SHAPE, -0.2, dtype), state, params)

    return Built(second_update, (jax.ShapeDtypeStruct((), dtype),))


def injected(row: Row, dtype: str) -> Built:
    """Every number of the row an array, known at run time only."""
    inject = optax.inject_hyperparams(row.entry.jax, hyperparam_dtype=jnp.dtype("float64" if dtype == "float64" else "float32"))
    return _built(inject(**row.arguments), jax.ShapeDtypeStruct(SHAPE, dtype))


def packed(row: Row, dtype: str) -> Built:
    """Two leaves in one array."""
    tree = {"w": jax.ShapeDtypeStruct((7, 11), dtype), "b": jax.ShapeDtypeStruct((11,), dtype)}
    return _built(row.tx, jax.eval_shape(jaxopt_impl.pack, tree))


def sharded(row: Row, dtype: str) -> Built:
    """A leaf that is spread over the devices."""
    return _built(row.tx, jax.ShapeDtypeStruct((4 * SHAPE[0], SHAPE[1]), dtype))


def large(row: Row, dtype: str) -> Built:
    """A leaf of which a thread takes several elements at once."""
    return _built(row.tx, jax.ShapeDtypeStruct((2**20,), dtype))


CONTEXTS = {build.__name__: build for build in (scan, vmap, cond, product, constants, injected, packed, sharded, large)}


def fenced_canary(name: str, dtype: str) -> Built:
    """An expression of a canary as kernels write it."""
    canary = _canary(name)

    def fenced(*arrays):
        return nx.finish(canary.expression(nx, *(nx.wrap(x, dtype) for x in nx.barrier(*canary.prepare(*arrays)))))

    return Built(fenced, (jax.ShapeDtypeStruct((ELEMENTS,), dtype),) * 4)


def plain_canary(name: str, dtype: str) -> Built:
    """The same expression in `jax.numpy`."""
    canary = _canary(name)
    return Built(lambda *arrays: canary.expression(jnp, *canary.prepare(*arrays)), (jax.ShapeDtypeStruct((ELEMENTS,), dtype),) * 4)


def _canary(name: str) -> Canary:
    return {canary.name: canary for canary in CANARIES}[name]


def _built(tx: optax.GradientTransformation, params) -> Built:
    return Built(train_step_of(tx), (params, jax.eval_shape(tx.init, params), params), (0, 1))
