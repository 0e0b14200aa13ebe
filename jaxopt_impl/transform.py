"""The shell that makes an optax transform of a kernel: pytrees, the step counter, schedules, sharding. Knows no rule by name.

A kernel is `step(g, p, s, h) -> (u, s)` on one leaf: gradient, parameter (None where the rule does not read it), `State` and
`Hyper`; it returns the update that `optax.apply_updates` adds, and the next state.
"""

import functools
import numbers
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from jax.tree_util import keystr, tree_flatten_with_path

from . import checks, one_pass
from . import numerics as nx


def _as_it_is(h):
    return h


def transform(
    name: str,
    step: Callable,
    hyper: Any,
    make_state: Callable[..., Any],
    initial_values: Mapping[str, float | None],
    *,
    prepare: Callable[[Any], Any] = _as_it_is,
    accumulator_dtype: Any = None,
    own_dtypes: Mapping[str, str | None] = MappingProxyType({}),
) -> optax.GradientTransformationExtraArgs:
    """The optax transform of a kernel.

    Args:
        name: what error messages begin with.
        step: the kernel.
        hyper: its `Hyper`: numbers, arrays [] that may be known at run time only, or schedules `count -> value`.
            `t` (1, 2, ...) and `first` (t = 1), where it has them, are set here at each step.
        make_state: its `State`.
        initial_values: for each field but `step` the number that it starts at, or None where this configuration keeps no such field.
        prepare: what the kernel's module makes of the hyper-parameters once a step, in float64.
        accumulator_dtype: float32 keeps the state of bfloat16 and float16 leaves, and their arithmetic, in float32.
        own_dtypes: of fields that are kept in it, whatever the leaf's is: computed and used as the others are, rounded when stored.
    """
    shell = Shell(name, step, hyper, make_state, initial_values, prepare, checks.accumulator(name, accumulator_dtype), own_dtypes)
    return optax.GradientTransformationExtraArgs(shell.init, shell.update)


@dataclass(frozen=True, eq=False)
class Shell:
    """`init` and `update` of one kernel with its hyper-parameters; the arguments are those of `transform`."""

    name: str
    step: Callable
    hyper: Any
    make_state: Callable[..., Any]
    initial_values: Mapping[str, float | None]
    prepare: Callable[[Any], Any]
    accumulator: str | None
    own_dtypes: Mapping[str, str | None]

    @functools.cached_property
    def kept(self) -> dict[str, float]:
        """The fields that this configuration keeps, with the number that each starts at."""
        return {field: value for field, value in self.initial_values.items() if value is not None}

    @property
    def kernel(self) -> tuple[Callable, Callable | None, type]:
        """The rule, what it makes of the hyper-parameters, and their type."""
        return self.step, None if self.prepare is _as_it_is else self.prepare, type(self.hyper)

    @functools.cached_property
    def _content(self) -> tuple:
        """What two shells have in common that are the same: numbers by their digits, with their type."""
        hyper = [(type(x).__name__, repr(x)) if isinstance(x, numbers.Real | np.ndarray) else x for x in self.hyper]
        dtypes = tuple((field, str(dtype)) for field, dtype in self.own_dtypes.items())
        return self.name, self.step, self.prepare, type(self.hyper), *hyper, self.make_state, tuple(self.kept), self.accumulator, dtypes

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Shell) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def with_told(self, names: Container[str]) -> "Shell":
        """The same without hyper-parameters that are told at run time: it can be compared, and holds no array of a trace."""
        hyper = {name: one_pass.TOLD if name in names and name != "t" else value for name, value in self.hyper._asdict().items()}
        return replace(self, hyper=type(self.hyper)(**hyper))

    @property
    def reads_params(self) -> bool:
        return not nx.is_static_zero(getattr(self.hyper, "weight_decay", 0))

    def init(self, params):
        """The state before the first step."""
        for path, leaf in tree_flatten_with_path(params)[0]:
            path, dtype = f"params{keystr(path)}", jnp.result_type(leaf).name
            checks.floating(self.name, path, dtype)
            eps, in_sqrt = (getattr(self.hyper, field, None) for field in ("eps", "eps_in_sqrt"))
            checks.eps_survives(self.name, path, nx.state_dtype(dtype, self.accumulator), eps, in_sqrt)
        trees = {
            field: jax.tree.map(lambda leaf, field=field, value=value: _filled(leaf, value, self.field_dtype(field, leaf)), params)
            for field, value in self.kept.items()
        }
        return self.state(trees, step=counter(params))

    def update(self, updates, state, params=None, **extra_args):
        """The updates and the next state: hyper-parameters once, then the kernel on each leaf."""
        del extra_args
        return self.stepped(updates, state, params, applied=False)

    def update_and_apply(self, updates, state, params):
        """The next parameters and the next state."""
        return self.stepped(updates, state, params, applied=True)

    def stepped(self, updates, state, params, *, applied: bool):
        """The updates, or with `applied` the next parameters, and the next state."""
        if applied and params is None:
            raise ValueError(f"{self.name}: update_and_apply needs the parameters; call it with (gradients, state, params).")
        updates = jax.tree.map(_array, updates)
        self.check(updates, params)
        gradients = [self.no_float64_on_tpu(path, g) for path, g in _leaves(updates)]
        treedef = jax.tree.structure(updates, is_leaf=_is_none)
        inputs = self.inputs(updates, state, params, applied=applied)
        if inputs and all(g is None for g in gradients):
            return params if applied else updates, state  # nobody steps, and PyTorch counts for each parameter
        leaves = list(zip(gradients, inputs, self.dtypes(updates, params), strict=True))
        values = self.values(state.step)
        t = optax.safe_increment(state.step)
        stepping = [leaf for leaf in leaves if leaf[0] is not None]
        operands = [t, *(x for g, own, _ in stepping for x in (g, *own.values()) if x is not None)]
        operands += [value for value in values.values() if isinstance(value, jax.Array)]
        step = partial(one_pass.step, self) if one_pass.applies(self) and one_pass.takes(operands) else self.by_rule
        stepped = iter(step(values, t, stepping, applied=applied))
        outputs = [(own["p"] if applied else None, own) if g is None else next(stepped) for g, own, _ in leaves]
        trees = {field: treedef.unflatten([own[field] for _, own in outputs]) for field in self.kept}
        return treedef.unflatten([u for u, _ in outputs]), self.state(trees, step=t)

    def by_rule(self, values, t, leaves, *, applied: bool) -> list[tuple[Any, dict]]:
        """For each leaf (gradient, own arrays by name, dtype) its update, or next parameter, and its next state."""
        with jax.enable_x64(True):  # for float64 scalars; leaves keep their dtype
            step_leaf = partial(self.step_leaf, self.prepared(values, t, [g for g, _, _ in leaves]))
            if isinstance(t, Tracer):  # traced once for all leaves of a shape; outside of a jit it would be compiled at each step
                step_leaf = jax.jit(step_leaf, static_argnums=2)
            outputs = [step_leaf(g, own if self.reads_params else {**own, "p": None}, dtype) for g, own, dtype in leaves]
        if not applied:
            return outputs
        return [(optax.apply_updates(own["p"], u), s) for (u, s), (_, own, _) in zip(outputs, leaves, strict=True)]

    def check(self, updates, params) -> None:
        """Raise where the gradients are not floating point, or the parameters are needed and not there."""
        if self.reads_params and params is None:
            raise ValueError(f"{self.name}: weight_decay needs the parameters; call update(updates, state, params).")
        for (path, g), dtype in zip(_leaves(updates), self.dtypes(updates, params), strict=True):
            if g is not None:
                checks.floating(self.name, path, jnp.result_type(g).name)
                checks.gradient(self.name, path, jnp.result_type(g).name, dtype, self.accumulator)

    def dtypes(self, updates, params) -> list[str | None]:
        """The dtype of each leaf: its parameter's; its gradient's where no parameters like the gradients are given, and none are needed."""
        own = [None if g is None else jnp.result_type(g).name for _, g in _leaves(updates)]
        if params is None or jax.tree.structure(params, is_leaf=_is_none) != jax.tree.structure(updates, is_leaf=_is_none):
            return own
        leaves = jax.tree.leaves(params, is_leaf=_is_none)
        return [dtype if p is None else jnp.result_type(p).name for p, dtype in zip(leaves, own, strict=True)]

    def inputs(self, updates, state, params, *, applied: bool) -> list[dict]:
        """For each leaf its state by field, and its parameter as "p" (None where neither the rule reads it nor the step is `applied`)."""
        columns = {
            field: _column(self.name, updates, getattr(state, field), field, partial(self.field_dtype, field)) for field in self.kept
        }
        parameters = _column(self.name, updates, params if self.reads_params or self.accumulator or applied else None, "parameter")
        columns["p"] = parameters if self.reads_params or applied else [None] * len(parameters)
        return [dict(zip(columns, own, strict=True)) for own in zip(*columns.values(), strict=True)]

    def values(self, step) -> dict[str, Any]:
        """The hyper-parameters, schedules called with the count of the steps done."""
        values = {field: jnp.asarray(value(step)) if callable(value) else value for field, value in self.hyper._asdict().items()}
        for field, value in values.items():
            checks.not_half(self.name, field, getattr(value, "dtype", None))
            if callable(getattr(self.hyper, field)) and (number := nx.static_value(value)) is not None:
                checks.schedule(self.name, field, step, number)
        return {field: self.no_float64_on_tpu(field, value) for field, value in values.items()}

    def no_float64_on_tpu(self, what: str, value):
        """The same leaf or hyper-parameter; to compile it for a TPU is an error if it is a float64."""
        if not isinstance(value, jax.Array) or value.dtype != np.float64:
            return value
        return nx.refused_on_tpu(value, f"{self.name}: {what} is float64, which TPUs do not have; float32 is needed.")

    def prepared(self, values, t, gradients) -> Any:
        """The kernel's `Hyper` at step t, as kernels take it, rounded for the dtypes of the leaves."""
        at_t = {"t": nx.scalar(t), "first": t == 1}
        h = {field: at_t[field] if field in at_t else nx.scalar(value) for field, value in values.items()}
        h = self.prepare(type(self.hyper)(**h))
        nx.round_ahead(h, {self.state_dtype(g).name for g in gradients if g is not None})
        return h

    def step_leaf(self, h, g, own, dtype):
        """One leaf of a dtype through the kernel: arrays in, arrays out."""
        computed_in = self.state_dtype(g).name
        g, own = nx.barrier(g, own)
        wrapped = {field: None if array is None else nx.wrap(array, computed_in) for field, array in own.items()}
        p = wrapped.pop("p")
        u, s = self.step(nx.wrap(g, computed_in), p, self.state(wrapped), h)
        return nx.finish(u, dtype), {field: nx.unwrap(getattr(s, field), self.own_dtypes.get(field)) for field in wrapped}

    def state(self, fields, **step) -> Any:
        """The kernel's `State`, None where this configuration keeps no such field."""
        return self.make_state(**(dict.fromkeys(self.initial_values) | fields), **step)

    def state_dtype(self, leaf) -> np.dtype:
        """In which a leaf is computed, and its state kept but for fields of an own dtype."""
        return np.dtype(nx.state_dtype(jnp.result_type(leaf).name, self.accumulator))

    def field_dtype(self, field: str, leaf) -> np.dtype:
        """In which a field of a leaf is kept."""
        return np.dtype(self.own_dtypes.get(field) or self.state_dtype(leaf))


def _array(leaf):
    """A leaf with the dtype that this process has for it, x64 or not: NumPy's float64 and Python's floats too."""
    return jnp.asarray(leaf, jnp.result_type(leaf))


def _filled(leaf, value, dtype: np.dtype) -> jax.Array:
    """An array shaped as a leaf, every number of it `value`, which is rounded once."""
    number = nx.static_value(value)
    return jnp.full_like(leaf, value if number is None else nx.rounded_to(number, dtype.name), dtype=dtype)


def _column(name, updates, tree, what, dtype_of=None):
    """The leaves of a tree that must look like `updates` (None where there is no gradient), in the order of its leaves.

    Of each, `dtype_of` says from the gradient what dtype it must have.
    """
    expected, treedef = jax.tree.flatten(updates, is_leaf=_is_none)
    if tree is None:
        return [None] * len(expected)
    leaves, its_treedef = jax.tree.flatten(jax.tree.map(_array, tree), is_leaf=_is_none)
    if treedef != its_treedef:
        there = dict(_leaves(tree))
        for path, _ in _leaves(updates):
            checks.present(name, path, what, path in there)
        raise ValueError(f"{name}: the {what} has another tree than the gradients: {its_treedef}, gradients {treedef}.")
    for (path, g), leaf in zip(_leaves(updates), leaves, strict=True):
        if g is not None:
            checks.present(name, path, what, leaf is not None)
            dtype = jnp.result_type(leaf).name
            checks.alike(name, path, what, jnp.shape(leaf), dtype, jnp.shape(g), dtype_of(g).name if dtype_of else dtype)
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
