"""What optax users put around an optimizer, and states in it whose every value names its parameter."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import GetAttrKey, keystr, tree_map_with_path

import jaxopt_impl
from optparity import interop
from optparity.interop.leaves import Leaves
from optparity.registry import OPTIMIZERS

RATE = 0.125  # a power of two, by which optax.rmsprop's momentum divides without rounding
STEP = 7
SHAPES = {"dec": {"b": (3,), "w": (2, 3)}, "enc": {"b": (3,), "w": (2, 3)}}  # each shape twice
PARAMS = jax.tree.map(lambda shape: jnp.ones(shape), SHAPES, is_leaf=lambda x: isinstance(x, tuple))
PATHS = ("dec.b", "dec.w", "enc.b", "enc.w")
ARGUMENTS: dict[str, dict[str, Any]] = {
    "adam": {},
    "adamw": {"weight_decay": 0.5},
    "sgd": {"momentum": 0.5},
    "rmsprop": {"momentum": 0.5, "centered": True},
    "adagrad": {},
}
FIELDS = ("exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "sum")
LABELS = {"dec": {"b": 0, "w": 1}, "enc": {"b": 0, "w": 1}}
WHOLE = jax.tree.map(lambda _: True, LABELS)


def code(field: str, path: str) -> float:
    """The value of a moment, which no other has."""
    return 1.0 + FIELDS.index(field) * len(PATHS) + PATHS.index(path)


def ours(name: str) -> Callable[..., Any]:
    return lambda learning_rate=RATE: OPTIMIZERS[name].jax(learning_rate, **ARGUMENTS[name])


def stock(name: str) -> Callable[..., Any]:
    return lambda learning_rate=RATE: OPTIMIZERS[name].stock_optax.make(learning_rate=learning_rate, **ARGUMENTS[name])


def described(params: Any, optimizers: Any, labels: Any = None) -> tuple[interop.Group, ...]:
    """The groups of a torch model whose parameters have the leaves' names, in their order."""
    return interop.describe(params, optimizers, labels=labels, parameters=Leaves(params).paths)


# label -> of what makes the optimizer, what makes the wrapped transform
AROUND: dict[str, Callable[[Callable[..., Any]], Any]] = {
    "nothing": lambda make: make(),
    "chain": lambda make: optax.chain(optax.clip_by_global_norm(1.0), make()),
    "chain in a chain": lambda make: optax.chain(optax.chain(optax.zero_nans(), optax.chain(make())), optax.identity()),
    "named_chain": lambda make: optax.named_chain(("clip", optax.clip(1.0)), ("rule", make())),
    "inject_hyperparams": lambda make: optax.inject_hyperparams(make)(learning_rate=RATE),
    "MultiSteps": lambda make: optax.MultiSteps(make(), 2),
    "apply_if_finite": lambda make: optax.apply_if_finite(make(), 3),
    "accumulate": lambda make: jaxopt_impl.accumulate(make(), 2),
    "loss_scale in a chain": lambda make: optax.chain(optax.clip(1.0), jaxopt_impl.loss_scale(make())),
    "params_ema behind": lambda make: optax.chain(make(), jaxopt_impl.params_ema(start=1)),
    "masked, all": lambda make: optax.masked(make(), WHOLE),
    "masked decay beside": lambda make: optax.chain(optax.masked(optax.add_decayed_weights(0.5), WHOLE), make()),
    "partition, one label": lambda make: optax.partition({"all": make()}, jax.tree.map(lambda _: "all", LABELS)),
    "inject in a chain": lambda make: optax.chain(optax.clip(1.0), optax.inject_hyperparams(make)(learning_rate=RATE)),
    "inject in MultiSteps": lambda make: optax.MultiSteps(optax.inject_hyperparams(make)(learning_rate=RATE), 2),
    "apply_if_finite in MultiSteps": lambda make: optax.MultiSteps(optax.apply_if_finite(make(), 3), 2),
    "MultiSteps in apply_if_finite": lambda make: optax.apply_if_finite(optax.MultiSteps(make(), 2).gradient_transformation(), 3),
}
# The same, of some leaves or several states.
APART: dict[str, Callable[[Callable[..., Any]], Any]] = {
    "two labels": lambda make: optax.partition({0: make(), 1: make()}, LABELS),
    "one label and frozen": lambda make: optax.partition({0: optax.set_to_zero(), 1: make()}, LABELS),
    "multi_transform in a chain": lambda make: optax.chain(optax.clip(1.0), optax.multi_transform({0: make(), 1: make()}, LABELS)),
    "masked": lambda make: optax.masked(make(), jax.tree.map(bool, LABELS)),
    "selective_transform": lambda make: optax.selective_transform(make(), freeze_mask=jax.tree.map(lambda x: not x, LABELS)),
    "inject in a partition": lambda make: optax.partition(
        {0: optax.inject_hyperparams(make)(learning_rate=RATE), 1: optax.chain(optax.clip(1.0), make())}, LABELS
    ),
}


def coded(name: str, state: Any) -> Any:
    """A state, ours or stock optax's, with a code as each moment, and STEP as each count of its steps."""
    theirs = {key: carried for fields in OPTIMIZERS[name].stock_optax.states.values() for key, carried in fields.items()}

    def value(path, leaf):
        keys = [str(key.name) if isinstance(key, GetAttrKey) else None for key in path]
        if keys[-1:] and keys[-1] in ("count", "step", "gradient_step"):
            return jnp.asarray(STEP, leaf.dtype)
        moments = [i for i, key in enumerate(keys) if key in FIELDS or key in theirs]
        if not moments:
            return leaf
        field, of = str(keys[moments[-1]]), keystr(path[moments[-1] + 1 :], simple=True, separator=".")
        if field in FIELDS:
            return jnp.full_like(leaf, code(field, of))
        return jnp.full_like(leaf, code(theirs[field].field, of) * (-RATE if theirs[field].scaled else 1))

    return tree_map_with_path(value, state)


def as_orbax_has_it(node: Any) -> Any:
    """What its StandardCheckpointer restores without a target: dicts and lists, with None where there is nothing, and strings as keys."""
    if hasattr(node, "_fields"):
        return {field: as_orbax_has_it(getattr(node, field)) for field in node._fields} or None
    if isinstance(node, Mapping):
        return {str(key): as_orbax_has_it(child) for key, child in node.items()}
    return [as_orbax_has_it(child) for child in node] if isinstance(node, list | tuple) else node


def as_flax_has_it(node: Any) -> Any:
    """What its msgpack_restore gives: dicts only, with empty ones where there is nothing, and NumPy's arrays."""
    if hasattr(node, "_fields"):
        return {field: as_flax_has_it(getattr(node, field)) for field in node._fields}
    if isinstance(node, list | tuple):
        return {str(i): as_flax_has_it(child) for i, child in enumerate(node)}
    if isinstance(node, Mapping):
        return {str(key): as_flax_has_it(child) for key, child in node.items()}
    return None if node is None else np.asarray(node)


FORMS: dict[str, Callable[[Any], Any]] = {"made": lambda state: state, "orbax": as_orbax_has_it, "flax": as_flax_has_it}


def names_its_parameters(states: Any, paths: set[str] | None = None) -> None:
    """Every moment in states of ours, and no other leaf, is the code of its parameter."""
    seen = set()
    for state in jax.tree.leaves(states, is_leaf=lambda x: type(x).__module__.startswith("jaxopt_impl")):
        if not hasattr(state, "step"):
            continue
        assert int(state.step) == STEP
        for field in set(state._fields) - {"step"}:

            def check(path, leaf, field=field):
                of = keystr(path, simple=True, separator=".")
                seen.add(of)
                np.testing.assert_array_equal(np.asarray(leaf), code(field, of), err_msg=f"{field} of {of}")

            tree_map_with_path(check, getattr(state, field))
    assert seen == (set(PATHS) if paths is None else paths)


def same(a: Any, b: Any) -> None:
    """Two trees of the same types, dtypes and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).dtype == np.asarray(y).dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
