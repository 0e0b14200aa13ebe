"""Good citizens of optax: every wrapper, every kind of tree, one compilation, state where the leaves are."""

import dataclasses
import importlib
import math
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxopt_impl import binary64
from jaxopt_impl import numerics as nx
from optparity.parity.bits import differing
from optparity.parity.contexts import on_mesh
from optparity.registry import OPTIMIZERS, ROWS

from ..sampling import ACCUMULATORS, DEFAULTS, FULL, sampled
from .trees import same


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    weight: Any
    bias: Any


def params():
    rng = np.random.default_rng(0)
    x = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    return {"a": Layer(x(3, 4), None), "b": (x(5), [x(), jnp.zeros((0, 2))]), "c": {}}


def grads(seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), jnp.float32), params())


def walk(tx, steps=4, p=None, wrap=jax.jit):
    p = params() if p is None else p
    state, update, seen = tx.init(p), wrap(tx.update), []
    for t in range(steps):
        u, state = update(jax.tree.map(lambda x, t=t: x * (t + 1), grads()), state, p)
        p = optax.apply_updates(p, u)
        seen.append(p)
    return seen, state


@pytest.mark.parametrize("row", sampled(zip(ROWS), lambda row: row in FULL + ACCUMULATORS), ids=str)
def test_any_tree_and_the_alone_leaf_agree(row):
    """None, (), empty and nested leaves; a leaf's bits do not depend on its company."""
    seen, state = walk(row.tx)
    p, g = params(), grads()
    alone, s = p["b"][0], row.tx.init(p["b"][0])
    for t in range(4):
        u, s = jax.jit(row.tx.update)(g["b"][0] * (t + 1), s, alone)
        alone = optax.apply_updates(alone, u)
    same(alone, seen[-1]["b"][0])
    assert int(state.step) == 4
    assert state.step.dtype == jnp.int32
    empty = row.tx.init({})
    assert row.tx.update({}, empty, {})[0] == {}


WRAPPERS = {
    "chain": lambda tx: optax.chain(optax.identity(), tx),
    "named_chain": lambda tx: optax.named_chain(("rule", tx)),
    "masked": lambda tx: optax.masked(tx, lambda tree: jax.tree.map(lambda _: True, tree)),
    "partition": lambda tx: optax.partition({"all": tx}, lambda tree: jax.tree.map(lambda _: "all", tree)),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 1).gradient_transformation(),
    "with_extra_args_support": optax.with_extra_args_support,
}


@pytest.mark.parametrize(
    ("row", "wrapper"),
    sampled(product(FULL, WRAPPERS), lambda row, wrapper: (FULL.index(row) - list(WRAPPERS).index(wrapper)) % len(WRAPPERS) == 0),
    ids=str,
)
def test_inside_the_wrappers_of_optax(row, wrapper):
    """The same bits as alone."""
    expected, _ = walk(row.tx)
    with jax.numpy_dtype_promotion("standard"):  # optax's own wrappers promote
        same(walk(WRAPPERS[wrapper](row.tx))[0], expected)


@pytest.mark.parametrize("row", FULL, ids=str)
def test_masked_and_partitioned_leaves(row):
    """A masked leaf passes through; a frozen partition stays; the others have the bits that they have alone."""
    expected, _ = walk(row.tx)
    labels = {"a": "ours", "b": "frozen", "c": "frozen"}
    seen, state = walk(optax.partition({"ours": row.tx, "frozen": optax.set_to_zero()}, labels))
    same(seen[-1]["a"], expected[-1]["a"])
    same(seen[-1]["b"], params()["b"])
    assert not any(isinstance(leaf, optax.MaskedNode) for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("row", DEFAULTS, ids=str)
def test_lookahead(row):
    tx = optax.lookahead(row.tx, sync_period=2, slow_step_size=0.5)
    p = optax.LookaheadParams.init_synced(params())
    state = tx.init(p)
    with jax.numpy_dtype_promotion("standard"):  # lookahead's own arithmetic promotes
        for _ in range(2):
            updates, state = jax.jit(tx.update)(grads(), state, p)
            p = optax.apply_updates(p, updates)
    assert int(state.fast_state.step) == 2


@pytest.mark.parametrize("row", FULL, ids=str)
def test_every_number_can_be_injected(row):
    """`inject_hyperparams` with each numeric argument: the bits of the float32 values, and no recompilation when they change."""
    tx = optax.inject_hyperparams(OPTIMIZERS[row.optimizer].jax)(**row.arguments)
    as_float32 = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in row.arguments.items()}
    state = tx.init(params())
    numeric = {k for k, v in as_float32.items() if not isinstance(v, bool)}
    assert numeric <= set(state.hyperparams)
    p, q = params(), params()
    expected = OPTIMIZERS[row.optimizer].jax(**as_float32)
    expected_state, update = expected.init(q), jax.jit(tx.update)
    for _ in range(4):
        u, state = update(grads(), state, p)
        p = optax.apply_updates(p, u)
        v, expected_state = jax.jit(expected.update)(grads(), expected_state, q)
        q = optax.apply_updates(q, v)
        same(p, q)
    state.hyperparams["learning_rate"] = jnp.asarray(0.5, jnp.float32)
    update(grads(), state, p)
    assert update._cache_size() == 1


INJECTED = [("adam", "b1"), ("adamw", "b1"), ("rmsprop", "alpha"), ("sgd", "momentum"), ("momentum", "momentum")]


@pytest.mark.parametrize(("name", "argument"), INJECTED)
def test_an_injected_number_is_a_float32_one(name, argument):
    """Not the Python number: other bits in the end, unless it is a static argument. (The limit, as the docs have it.)"""
    make = OPTIMIZERS[name].jax
    given = {"learning_rate": 0.5, argument: 0.9}
    expected = walk(make(**given), steps=3)[0][-1]
    static = optax.inject_hyperparams(make, static_args=(argument, *others(name, argument)))(**given)
    same(walk(static, steps=3)[0][-1], expected)
    injected = walk(optax.inject_hyperparams(make, static_args=others(name, argument))(**given), steps=3)[0][-1]
    same(injected, walk(make(0.5, **{argument: float(np.float32(0.9))}), steps=3)[0][-1])
    leaves = zip(jax.tree.leaves(injected), jax.tree.leaves(expected), strict=True)
    differ = any(differing(np.asarray(a), np.asarray(b)).any() for a, b in leaves)
    assert differ == (argument != "momentum")  # 0.9 meets a leaf in float32 anyway; 1 − 0.9 is not 1 − float32(0.9) in float32


def others(name, argument):
    """The numbers of an optimizer but these two."""
    return tuple(key for key in OPTIMIZERS[name].defaults if key not in ("learning_rate", argument))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_schedule_is_called_with_the_count_before_the_step(name):
    make = OPTIMIZERS[name].jax
    seen, _ = walk(make(lambda count: jnp.where(count < 2, 0.5, 0.25)))
    p, state = params(), make(0.5).init(params())
    for t in range(4):
        tx = make(0.5 if t < 2 else 0.25)
        u, state = tx.update(jax.tree.map(lambda x, t=t: x * (t + 1), grads()), state, p)
        p = optax.apply_updates(p, u)
        same(p, seen[t])


@pytest.mark.parametrize("row", FULL, ids=str)
def test_tree_map_params(row):
    """optax.tree.map_params finds the state's copies of the parameters, and leaves the counter."""
    _, state = walk(row.tx)
    doubled = optax.tree.map_params(row.tx, lambda x: 2 * x, state, transform_non_params=lambda x: x)
    same(doubled, jax.tree.map(lambda x: x if x.dtype == jnp.int32 else 2 * x, state))


@pytest.mark.parametrize("row", FULL, ids=str)
def test_a_leaf_without_gradient_is_skipped(row):
    """Its update is None, which apply_updates does not take for a change, and its state stays."""
    p, g = {"a": jnp.ones(3), "b": jnp.ones(3)}, {"a": jnp.ones(3), "b": None}
    state = row.tx.init(p)
    u, after = jax.jit(row.tx.update)(g, state, p)
    assert u["b"] is None
    for field, value in after._asdict().items():
        if field != "step" and value is not None:
            same(value["b"], getattr(state, field)["b"])
            assert differing(np.asarray(value["a"]), np.asarray(getattr(state, field)["a"])).any()


@pytest.mark.parametrize("row", sampled(zip(ROWS), lambda row: row in FULL), ids=str)
def test_one_compilation(row):
    step = jax.jit(lambda p, s, g: row.tx.update(g, s, p))
    p = {"w": jnp.ones(8), "weak": jnp.asarray(1.0)}
    state = row.tx.init(p)
    for _ in range(3):
        _, state = step(p, state, {"w": jnp.ones(8), "weak": jnp.ones(())})
    assert step._cache_size() == 1


@pytest.mark.usefixtures("without_one_pass")
@pytest.mark.parametrize("row", DEFAULTS, ids=str)
def test_leaves_of_a_shape_are_traced_once(row):
    """So that a thousand of them do not take a thousand times as long."""
    p = [jnp.ones(8), jnp.ones(8), jnp.ones(8), jnp.ones(9)]
    text = jax.jit(row.tx.update).lower(p, row.tx.init(p), p).as_text()
    assert text.count("func.func private @step_leaf") == 2


@pytest.mark.usefixtures("without_one_pass")
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_run_time_numbers_are_rounded_once_for_all_leaves(row):
    tx, p = exact(row, lambda count: 0.1 / (count + 1).astype(jnp.float32)), jnp.ones(8)
    text = jax.jit(tx.update).lower(p, tx.init(p), p).as_text()
    outside, inside = text.split("func.func private @step_leaf")
    rounding = "(tensor<f64>) -> tensor<f32>"
    assert rounding in outside
    assert rounding not in inside.split("func.func private")[0]


@pytest.mark.parametrize("row", sampled(zip(ROWS), lambda row: row in FULL), ids=str)
def test_one_compilation_and_state_where_the_leaves_are_when_sharded(row):
    p = on_mesh({"spread": np.ones(1000, "f4"), "whole": np.ones(7, "f4")})
    g = on_mesh({"spread": np.ones(1000, "f4"), "whole": np.ones(7, "f4")})
    state = row.tx.init(p)
    mesh = p["spread"].sharding.mesh
    assert state.step.sharding == NamedSharding(mesh, PartitionSpec())
    step = jax.jit(lambda p, s, g: row.tx.update(g, s, p), donate_argnums=1)
    for _ in range(3):
        for field, value in state._asdict().items():
            if field != "step" and value is not None:
                assert value["spread"].sharding.is_equivalent_to(p["spread"].sharding, 1)
                assert value["whole"].sharding.is_equivalent_to(p["whole"].sharding, 1)
        _, state = step(p, state, g)
    assert step._cache_size() == 1


@pytest.mark.parametrize("row", DEFAULTS, ids=str)
def test_a_device_that_is_not_the_default(row):
    p = jax.device_put({"w": jnp.ones(8)}, jax.devices()[1])
    state, step = row.tx.init(p), jax.jit(lambda g, s, p: row.tx.update(g, s, p))
    for _ in range(3):
        _, state = step(p, state, p)
    assert step._cache_size() == 1
    assert state.step.devices() == {jax.devices()[1]}


@pytest.mark.parametrize("row", FULL, ids=str)
def test_saved_and_restored(row):
    """The state is a NamedTuple of arrays: through NumPy and back, mid-run, to the same bits."""
    expected, _ = walk(row.tx)
    p, state = params(), row.tx.init(params())
    for t in range(4):
        u, state = jax.jit(row.tx.update)(jax.tree.map(lambda x, t=t: x * (t + 1), grads()), state, p)
        p = optax.apply_updates(p, u)
        p, state = jax.tree.map(lambda x: jnp.asarray(np.array(x)), (p, state))
        same(p, expected[t])


@pytest.mark.parametrize(
    ("row", "dtype"),
    sampled(
        product(ROWS, ["float32", "float64"]),
        lambda row, dtype: row in FULL and dtype == ("float32", "float64")[FULL.index(row) % 2],
    ),
    ids=str,
)
def test_differentiable(row, dtype):
    """grad and jvp through five unrolled steps, by learning rate and parameters, agree with those of the same rule unfenced, to 1e-6."""
    fenced, plain = (lambda lr, p, make=make: final_loss(make(row, lr), p) for make in (exact, unfenced))
    p = jnp.linspace(0.5, 1.5, 5, dtype=dtype)
    lr = jnp.asarray(0.05, dtype)
    got, expected = (jax.grad(f, (0, 1))(lr, p) for f in (fenced, plain))
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert np.all(ours != 0)
    tangents = (jnp.asarray(0.7, dtype), jnp.linspace(-0.3, 1.1, 5, dtype=dtype))
    got, expected = (jax.jvp(f, (lr, p), tangents)[1] for f in (fenced, plain))
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert np.isfinite(got)
    assert got != 0


@pytest.mark.parametrize("row", DEFAULTS, ids=str)
def test_float64_is_refused_on_a_tpu(row):
    """A leaf and a hyper-parameter, named; a program for another platform has them, and one for a TPU has float32."""
    tx = optax.inject_hyperparams(row.entry.jax)(**row.arguments)

    def lower(platform, leaf, number):
        with jax.enable_x64(True):
            p = {"w": jax.ShapeDtypeStruct((3,), leaf)}
            state = jax.eval_shape(tx.init, p)
            state = state._replace(hyperparams={name: jax.ShapeDtypeStruct((), number) for name in state.hyperparams})
            jax.jit(tx.update).trace(p, state, p).lower(lowering_platforms=(platform,))

    lower("tpu", np.float32, np.float32)
    lower("cuda", np.float64, np.float64)
    with pytest.raises(TypeError, match=rf"^{row.optimizer}: params\['w'\] is float64, which TPUs do not have; float32 is needed\.$"):
        lower("tpu", np.float64, np.float32)
    with pytest.raises(TypeError, match=rf"^{row.optimizer}: lr is float64, which TPUs do not have; float32 is needed\.$"):
        lower("tpu", np.float32, np.float64)


@pytest.mark.parametrize(
    ("row", "dtype"),
    sampled(
        product(ROWS, ["float32", "float64"]),
        lambda row, dtype: row in FULL and dtype == "float32" and row.optimizer in ("adagrad", "rmsprop", "adam"),
    ),
    ids=str,
)
def test_a_batch_of_one_number_alone(row, dtype):
    """`vmap` over a hyper-parameter, with one leaf and one state for all, has the bits of one call for each."""
    rng = np.random.default_rng(0)
    p, g = (jnp.asarray(rng.standard_normal((64, 33)), dtype) for _ in range(2))
    numbers = {name: value for name, value in row.arguments.items() if type(value) is float and value}
    state = row.tx.init(p)
    for name, value in numbers.items():

        def update(number, g, p, state, name=name):
            return row.entry.jax(**{**row.arguments, name: number}).update(g, state, p)

        batch = jnp.asarray([value, value * 0.75], jnp.float32)
        one = [jax.jit(update)(number, g, p, state) for number in batch]
        for axes in ((0, None, None, None), (None, 0, None, None)):
            if axes[0] is None:
                one = [jax.jit(update)(batch[0], x, p, state) for x in (g, -g)]
            given = (batch, g) if axes[0] == 0 else (batch[0], jnp.stack([g, -g]))
            together = jax.jit(jax.vmap(update, axes))(*given, p, state)
            for i, alone in enumerate(one):
                for x, y in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
                    assert not differing(np.asarray(x[i]), np.asarray(y)).any(), name


def test_a_number_of_numpy_has_the_bits_of_pythons_on_a_tpu():
    """Though it is a float64 array."""
    with jax.enable_x64(True):
        number = nx.scalar(np.array(0.1)) * nx.scalar(np.array(0.3))
        assert not number.arrays()
        expected = np.float32(np.float64(0.1) * np.float64(0.3))
        assert number.rounded_to("float32") == expected
        assert number.by_integers() == expected
        with pytest.raises(TypeError, match=r"^a float64 array is a pair of float32"):
            binary64.from_array(jnp.asarray(0.1))


def final_loss(tx, p):
    state = tx.init(p)
    for _ in range(5):
        g = jax.grad(lambda p: jnp.sum(jnp.cos(p)))(p)
        u, state = tx.update(g, state, p)
        p = jax.tree.map(jnp.add, p, u)
    return jnp.sum(p**2)


def exact(row, lr):
    return OPTIMIZERS[row.optimizer].jax(**{**row.arguments, "learning_rate": lr})


def unfenced(row, lr):
    """The same kernel on bare arrays, in the same shell."""
    module = importlib.import_module(OPTIMIZERS[row.optimizer].jax.__module__)
    tx = exact(row, lr)
    arguments = {**row.arguments, "learning_rate": lr}

    class Bare:
        where, maximum, sign = staticmethod(jnp.where), staticmethod(jnp.maximum), staticmethod(jnp.sign)
        unless_zero = staticmethod(lambda number, a, b: a)
        sqrt = staticmethod(lambda x: math.sqrt(x) if isinstance(x, float) else jnp.sqrt(x))
        power = staticmethod(lambda base, t: base**t)

    bare = lambda f: type(f)(f.__code__, {**vars(module), "nx": Bare})  # noqa: E731
    step, prepare = bare(module.step), bare(module.prepare) if hasattr(module, "prepare") else lambda h: h
    names = {"learning_rate": "lr"}
    given = {names.get(k, k): v for k, v in arguments.items()}
    defaults = {f: row_default(module, row, f) for f in module.Hyper._fields}

    def update(updates, state, params=None):
        t = int(state.step) + 1  # nothing is compiled here: a number, so that the corrections are computed in float64
        values = {**defaults, **given, "t": t, "first": t == 1, **row.entry.variant}
        h = prepare(module.Hyper(**{field: values[field] for field in module.Hyper._fields}))
        u, s = step(updates, params, state, h)
        return u, s._replace(step=jnp.asarray(t, jnp.int32))

    return optax.GradientTransformation(tx.init, update)


def row_default(module, row, field):
    import inspect

    parameters = inspect.signature(OPTIMIZERS[row.optimizer].jax).parameters
    return parameters[field].default if field in parameters else module.Hyper._field_defaults.get(field)
