"""The shell that makes an optax transform of a kernel: pytrees, the step counter, schedules, sharding. Knows no rule by name.

A kernel is `step(g, p, s, h) -> (u, s)` on one leaf: gradient, parameter (None where the rule does not read it), `State` and
`Hyper`; it returns the update that `optax.apply_updates` adds, and the next state.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from jax.tree_util import keystr, tree_flatten_with_path

from . import checks
from . import numerics as nx


def transform(
    who: str, step: Callable, hyper: Any, make_state: Callable[..., Any], **start: float | jax.Array | None
) -> optax.GradientTransformationExtraArgs:
    """The optax transform of a kernel.

    Args:
        who: the name that error messages begin with.
        step: the kernel.
        hyper: its `Hyper`: numbers, arrays [] that may be known at run time only, or schedules `count -> value`.
            `t` (1, 2, ...) and `first` (t = 1), where it has them, are set here at each step.
        make_state: its `State`.
        start: for each field but `step` the number that it starts at, or None where this configuration keeps no such field.
    """
    kept = {field: value for field, value in start.items() if value is not None}
    none = dict.fromkeys(start)
    reads_params = not nx.off(getattr(hyper, "weight_decay", 0))

    def init(params):
        for path, leaf in _leaves(params):
            checks.floating(who, path, jnp.result_type(leaf).name)
        trees = {field: jax.tree.map(functools.partial(_full_like, value), params) for field, value in kept.items()}
        return make_state(**(none | trees), step=_counter(params))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        if reads_params and params is None:
            raise ValueError(f"{who}: weight_decay needs the parameters; call update(updates, state, params).")
        gradients, treedef = jax.tree.flatten(updates, is_leaf=_is_none)
        for path, g in _leaves(updates):
            if g is not None:
                checks.floating(who, path, jnp.result_type(g).name)
        columns = {field: _column(who, updates, getattr(state, field), field) for field in kept}
        columns["p"] = _column(who, updates, params if reads_params else None, "parameter")

        values = [jnp.asarray(value(state.step)) if callable(value) else value for value in hyper]
        t = optax.safe_increment(state.step)
        with jax.enable_x64(True):  # for float64 scalars; leaves keep their dtype
            h = hyper._replace(**{field: nx.scalar(value) for field, value in zip(hyper._fields, values, strict=True)})
            at_t = {"t": nx.scalar(t), "first": t == 1}
            h = h._replace(**{field: value for field, value in at_t.items() if field in h._fields})
            done = []
            for g, *own in zip(gradients, *columns.values(), strict=True):
                own = dict(zip(columns, own, strict=True))
                done.append((None, own) if g is None else _step_leaf(step, lambda s: make_state(**(none | s)), h, g, own))

        trees = {field: treedef.unflatten([own[field] for _, own in done]) for field in kept}
        return treedef.unflatten([u for u, _ in done]), make_state(**(none | trees), step=t)

    return optax.GradientTransformationExtraArgs(init, update)


def _step_leaf(step, make_state, h, g, own):
    """One leaf through the kernel: arrays in, arrays out."""
    g, own = nx.barrier(g, own)
    exact = {field: None if array is None else nx.Exact(array) for field, array in own.items()}
    p = exact.pop("p")
    u, s = step(nx.Exact(g), p, make_state(exact), h)
    return nx.result(u), {field: getattr(s, field).x for field in exact}


def _full_like(value, leaf):
    return jnp.full_like(leaf, value, dtype=jnp.result_type(leaf))


def _column(who, updates, tree, what):
    """The leaves of a tree that must look like `updates` (None where there is no gradient), in the order of its leaves."""
    expected, treedef = jax.tree.flatten(updates, is_leaf=_is_none)
    if tree is None:
        return [None] * len(expected)
    leaves, its_treedef = jax.tree.flatten(tree, is_leaf=_is_none)
    if treedef != its_treedef:
        there = dict(_leaves(tree))
        for path, _ in _leaves(updates):
            checks.present(who, path, what, path in there)
        raise ValueError(f"{who}: the {what} has another tree than the gradients: {its_treedef}, gradients {treedef}.")
    for (path, g), leaf in zip(_leaves(updates), leaves, strict=True):
        if g is not None:
            checks.present(who, path, what, leaf is not None)
            checks.alike(who, path, what, jnp.shape(leaf), jnp.result_type(leaf).name, jnp.shape(g), jnp.result_type(g).name)
    return leaves


def _counter(params):
    """The step counter, int32 []: on the devices of the leaves, so that the first step's output does not recompile the second."""
    step = jnp.zeros([], jnp.int32)
    for leaf in jax.tree.leaves(params):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) and leaf.committed:
            if isinstance(leaf.sharding, NamedSharding):
                return jax.device_put(step, NamedSharding(leaf.sharding.mesh, PartitionSpec()))
            if isinstance(leaf.sharding, SingleDeviceSharding):
                step = jax.device_put(step, leaf.sharding)
    return step


def _leaves(tree):
    return [(f"params{keystr(path)}", leaf) for path, leaf in tree_flatten_with_path(tree, is_leaf=_is_none)[0]]


def _is_none(x):
    return x is None
