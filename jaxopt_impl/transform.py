"""The shell that makes an optax transform of a kernel: pytrees, the step counter, schedules, sharding. Knows no rule by name.

A kernel is `step(g, p, s, h) -> (u, s)` on one leaf: gradient, parameter (None where the rule does not read it), `State` and
`Hyper`; it returns the update that `optax.apply_updates` adds, and the next state.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from jax.tree_util import keystr, tree_flatten_with_path

from . import checks
from . import numerics as nx


def transform(
    who: str,
    step: Callable,
    hyper: Any,
    make_state: Callable[..., Any],
    start: dict[str, Any],
    *,
    at_step: Callable[[Any], Any] = lambda h: h,
    accumulator_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """The optax transform of a kernel.

    Args:
        who: the name that error messages begin with.
        step: the kernel.
        hyper: its `Hyper`: numbers, arrays [] that may be known at run time only, or schedules `count -> value`.
            `t` (1, 2, ...) and `first` (t = 1), where it has them, are set here at each step.
        make_state: its `State`.
        start: for each field but `step` the number that it starts at, or None where this configuration keeps no such field.
        at_step: what the kernel's module makes of the hyper-parameters once a step, in float64.
        accumulator_dtype: float32 keeps the state of bfloat16 and float16 leaves, and their arithmetic, in float32.
    """
    accumulator = checks.accumulator(who, accumulator_dtype)
    kept = {field: value for field, value in start.items() if value is not None}
    none = dict.fromkeys(start)
    reads_params = not nx.off(getattr(hyper, "weight_decay", 0))

    def init(params):
        for path, leaf in tree_flatten_with_path(params)[0]:
            path, name = f"params{keystr(path)}", jnp.result_type(leaf).name
            checks.floating(who, path, name)
            checks.eps_survives(who, path, nx.state_dtype(name, accumulator), getattr(hyper, "eps", None))
        trees = {
            field: jax.tree.map(lambda leaf, value=value: jnp.full_like(leaf, value, dtype=_state_dtype(leaf)), params)
            for field, value in kept.items()
        }
        return make_state(**(none | trees), step=counter(params))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        if reads_params and params is None:
            raise ValueError(f"{who}: weight_decay needs the parameters; call update(updates, state, params).")
        updates = jax.tree.map(_array, updates)
        gradients, treedef = jax.tree.flatten(updates, is_leaf=_is_none)
        for path, g in _leaves(updates):
            if g is not None:
                checks.floating(who, path, jnp.result_type(g).name)
        columns = {field: _column(who, updates, getattr(state, field), field, _state_dtype) for field in kept}
        columns["p"] = _column(who, updates, params if reads_params else None, "parameter", jnp.result_type)

        values = {field: jnp.asarray(value(state.step)) if callable(value) else value for field, value in hyper._asdict().items()}
        for field, value in values.items():
            checks.not_half(who, field, getattr(value, "dtype", None))
        t = optax.safe_increment(state.step)
        with jax.enable_x64(True):  # for float64 scalars; leaves keep their dtype
            at_t = {"t": nx.scalar(t), "first": t == 1}
            h = {field: at_t[field] if field in at_t else nx.scalar(value) for field, value in values.items()}
            h = at_step(type(hyper)(**h))
            nx.round_ahead(h, {_state_dtype(g).name for g in gradients if g is not None})
            leaf = partial(step_leaf, h)
            if isinstance(t, Tracer):  # traced once for all leaves of a shape; outside of a jit it would be compiled at each step
                leaf = jax.jit(leaf)
            done = []
            for g, *own in zip(gradients, *columns.values(), strict=True):
                own = dict(zip(columns, own, strict=True))
                done.append((None, own) if g is None else leaf(g, own))

        trees = {field: treedef.unflatten([own[field] for _, own in done]) for field in kept}
        return treedef.unflatten([u for u, _ in done]), make_state(**(none | trees), step=t)

    def step_leaf(h, g, own):
        """One leaf through the kernel: arrays in, arrays out."""
        dtype, kept_dtype = jnp.result_type(g).name, _state_dtype(g).name
        g, own = nx.barrier(g, own)
        exact = {field: None if array is None else nx.leaf(array, kept_dtype) for field, array in own.items()}
        p = exact.pop("p")
        u, s = step(nx.leaf(g, kept_dtype), p, make_state(**(none | exact)), h)
        return nx.result(u, dtype), {field: nx.array(getattr(s, field)) for field in exact}

    def _state_dtype(leaf):
        return np.dtype(nx.state_dtype(jnp.result_type(leaf).name, accumulator))

    return optax.GradientTransformationExtraArgs(init, update)


def _array(leaf):
    """A leaf with the dtype that this process has for it, x64 or not: NumPy's float64 and Python's floats too."""
    return jnp.asarray(leaf, jnp.result_type(leaf))


def _column(who, updates, tree, what, dtype_of):
    """The leaves of a tree that must look like `updates` (None where there is no gradient), in the order of its leaves."""
    expected, treedef = jax.tree.flatten(updates, is_leaf=_is_none)
    if tree is None:
        return [None] * len(expected)
    leaves, its_treedef = jax.tree.flatten(jax.tree.map(_array, tree), is_leaf=_is_none)
    if treedef != its_treedef:
        there = dict(_leaves(tree))
        for path, _ in _leaves(updates):
            checks.present(who, path, what, path in there)
        raise ValueError(f"{who}: the {what} has another tree than the gradients: {its_treedef}, gradients {treedef}.")
    for (path, g), leaf in zip(_leaves(updates), leaves, strict=True):
        if g is not None:
            checks.present(who, path, what, leaf is not None)
            checks.alike(who, path, what, jnp.shape(leaf), jnp.result_type(leaf).name, jnp.shape(g), dtype_of(g).name)
    return leaves


def counter(params):
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
