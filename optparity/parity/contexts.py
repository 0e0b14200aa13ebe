"""What a caller may compile around an update, and what must not change its bits.

A context turns a transform into `advance(params, state, gradients) -> [(params, state), ...]`, one pair for each of the gradients.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxopt_impl.applied import apply_updates, is_one_pass, update_and_apply
from one_pass.library import is_available


@dataclass(frozen=True)
class Context:
    """One way to run an update; `advance` is built once per transform, so that its compilations are shared.

    Attributes:
        what: the way, in words.
        build: transform -> `advance`.
        block: how many steps `advance` takes at a time.
        most_steps: how many steps there are to take, where that is limited.
        like: makes of a tree of NumPy arrays the one that both sides start from, or are fed.
        place: makes of that tree what the transform's side holds.
        feed: makes of a gradient what `advance` gets; together with the gradient that it stands for.
        init: transform, placed parameters -> state.
        lanes: each tree that the result holds, and that must be as expected.
        except_on: stream -> why parity does not hold there, where it does not and the step is no compiled pass.
        passes: transforms -> whether all of it is within the compiled pass, which keeps subnormals.
    """

    what: str
    build: Callable
    block: int = 1
    most_steps: int | None = None
    like: Callable = lambda tree: tree
    place: Callable = lambda tree: jax.tree.map(jnp.array, tree)
    feed: Callable = lambda gradient, rng: (gradient, gradient)
    init: Callable = lambda tx, params: tx.init(params)
    lanes: Callable = lambda tree: [tree]
    except_on: Mapping[str, str] = field(default_factory=dict)
    passes: Callable = lambda transforms: False

    def holds_on(self, stream: str) -> bool:
        """Whether the two packages are to be equal on a stream."""
        return stream not in self.except_on or (is_available() and jax.default_backend() == "cpu")

    def advance(self, tx: optax.GradientTransformation) -> Callable:
        return _built(self.build, tx)


@functools.cache
def _built(build, tx):
    return build(tx)


def train_step_of(tx):
    """The update and apply_updates: `train_step(params, state, gradient) -> (params, state)`."""

    def train_step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return apply_updates(params, updates), state

    return train_step


_apply_updates = jax.jit(apply_updates)  # a program of its own: nothing of the update is in it


def _one(train_step):
    return lambda params, state, gradients: [train_step(params, state, gradients[0])]


def _eager(tx):
    return _one(train_step_of(tx))


def _jit(tx):
    update = jax.jit(tx.update)

    def train_step(params, state, gradient):
        updates, state = update(gradient, state, params)
        return _apply_updates(params, updates), state

    return _one(train_step)


def _applied(tx):
    return _one(jax.jit(lambda params, state, gradient: update_and_apply(tx)(gradient, state, params), donate_argnums=(0, 1)))


def _jit_train_step(tx):
    return _one(jax.jit(train_step_of(tx), donate_argnums=(0, 1)))


def _scan(tx):
    train_step = train_step_of(tx)

    @jax.jit
    def scan(params, state, gradients):
        def body(carry, gradient):
            carry = train_step(carry[0], carry[1], gradient)
            return carry, carry

        return lax.scan(body, (params, state), gradients)[1]

    def advance(params, state, gradients):
        seen = []
        for _, alike in itertools.groupby(gradients, jax.tree.structure):  # a None where another step has a gradient is another program
            steps = list(alike)
            stacked = scan(params, state, jax.tree.map(lambda *g: jnp.stack(g), *steps))
            seen += [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(len(steps))]
            params, state = seen[-1]
        return seen

    return advance


def _vmap(tx):
    return _one(jax.jit(jax.vmap(train_step_of(tx))))


def _two_lanes(tree):
    """A batch of two: the tree, and the tree with its leaves reversed, which an elementwise rule must carry to the reversed result."""
    return jax.tree.map(lambda x: jnp.stack([x, np.flip(x)]), tree)


def _product(tx):
    train_step = train_step_of(tx)
    return _one(jax.jit(lambda params, state, factors: train_step(params, state, jax.tree.map(jnp.multiply, *factors))))


def _factors(gradient, rng):
    b = jax.tree.map(lambda g: (1 + rng.random(g.shape)).astype(g.dtype), gradient)
    with np.errstate(over="ignore", under="ignore"):
        return (gradient, b), jax.tree.map(lambda g, b: np.asarray(g * b), gradient, b)


def _constants(tx):
    def advance(params, state, gradients):
        del state
        numbers = jax.tree.map(lambda x: (x.shape, x.dtype, x.flat[0] if x.size else 0), params)

        def whole():
            full = {"is_leaf": lambda x: isinstance(x, tuple)}
            params = jax.tree.map(lambda x: jnp.full(x[0], x[2], x[1]), numbers, **full)
            state, seen = tx.init(params), []
            for gradient in gradients:
                gradient = jax.tree.map(lambda g: jnp.full(g.shape, g.flat[0] if g.size else 0, g.dtype), gradient)
                params, state = train_step_of(tx)(params, state, gradient)
                seen.append((params, state))
            return seen

        return jax.jit(whole)()

    return advance


def _first_everywhere(tree):
    """The first element of each leaf in the place of all."""
    return jax.tree.map(lambda x: np.full(x.shape, x.flat[0], x.dtype) if x.size else x, tree)


def _cond(tx):
    train_step = train_step_of(tx)

    @jax.jit
    def step(go, params, state, gradient):
        return lax.cond(go, train_step, lambda params, state, gradient: (params, state), params, state, gradient)

    go = jnp.asarray(True)
    return _one(lambda params, state, gradient: step(go, params, state, gradient))


def on_mesh(tree):
    """Every leaf spread over 8 devices where its first axis divides by 8, on each of them where it does not."""
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))

    def put(x):
        spread = x.ndim and x.size and x.shape[0] % 8 == 0
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec("data") if spread else PartitionSpec()))

    return jax.tree.map(put, tree)


CONTEXTS = {
    "eager": Context("every operation by itself", _eager, most_steps=5),
    "jit": Context("the update in a jit, apply_updates outside", _jit),
    "train_step": Context("the update and apply_updates in one jit, donated", _jit_train_step),
    "applied": Context("update_and_apply in a jit, donated", _applied, passes=lambda transforms: all(map(is_one_pass, transforms))),
    "scan": Context("lax.scan over steps", _scan, block=10),
    "vmap": Context(
        "vmap over a batch of parameter sets",
        _vmap,
        place=_two_lanes,
        feed=lambda gradient, rng: (_two_lanes(gradient), gradient),
        init=lambda tx, params: jax.vmap(tx.init)(params),
        lanes=lambda tree: [jax.tree.map(lambda x: x[0], tree), jax.tree.map(lambda x: jnp.flip(x[1]), tree)],
    ),
    "product": Context("gradients that are products computed inside the same jit", _product, feed=_factors),
    "constants": Context(
        "init and two updates in one jit, with constant parameters and gradients",
        _constants,
        block=2,
        most_steps=2,
        like=_first_everywhere,
        place=lambda tree: tree,
        feed=lambda gradient, rng: (_first_everywhere(gradient),) * 2,
        init=lambda tx, params: None,
        except_on={"subnormal": "a program of constants is evaluated while it is compiled, where subnormals are kept, not flushed"},
    ),
    "cond": Context("under lax.cond", _cond),
    "sharded": Context(
        "leaves spread over 8 devices, donated",
        _jit_train_step,
        place=on_mesh,
        feed=lambda gradient, rng: (on_mesh(gradient), gradient),
    ),
}
