"""The compiled step within JAX: where it is called, where the rule stands for it, and that both give the same bits."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxopt_impl
from jaxopt_impl import one_pass
from jaxopt_impl.applied import is_one_pass
from jaxopt_impl.one_pass import MOST_LEAVES
from optparity.parity.bits import differing
from optparity.registry import ROWS

from ..sampling import DEFAULTS, FULL

CALL = 'custom_call_target="optparity_one_pass"'
pytestmark = pytest.mark.usefixtures("with_one_pass")


def tree(seed: int, dtype: str = "float32") -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.standard_normal(shape), dtype) for name, shape in {"w": (17, 59), "b": (7,), "s": ()}.items()}


def by_rule(monkeypatch, function: Callable[[], Any]) -> Any:
    """What a function gives without the library."""
    with monkeypatch.context() as patch:
        patch.setenv("OPTPARITY_ONE_PASS", "0")
        jax.clear_caches()
        result = function()
    jax.clear_caches()
    return result


def assert_same(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        assert not differing(np.asarray(a), np.asarray(b)).any()


def compiled(function: Any, *arguments: Any, **how: Any) -> str:
    """The text of what XLA makes of a function."""
    text = jax.jit(function, **how).lower(*arguments).compile().as_text()
    assert text is not None
    return text


def train_step(tx):
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_row_has_its_program(row):
    assert is_one_pass(row.tx)


@pytest.mark.parametrize("row", FULL, ids=str)
def test_it_is_one_call_for_many_leaves_of_a_dtype(row):
    params = [jnp.ones(3, dtype) for dtype in ("float32", "bfloat16") for _ in range(MOST_LEAVES)] + [jnp.ones(5)]
    text = compiled(row.tx.update, params, row.tx.init(params), params)
    assert text.count(CALL) == 3


@pytest.mark.parametrize("row", DEFAULTS, ids=str)
def test_applied_and_donated_it_needs_no_memory(row):
    leaf = jax.ShapeDtypeStruct((2**20,), jnp.float32)
    state = jax.eval_shape(row.tx.init, leaf)
    step = jaxopt_impl.update_and_apply(row.tx)
    applied = jax.jit(lambda params, state, gradient: step(gradient, state, params), donate_argnums=(0, 1)).lower(leaf, state, leaf)
    assert applied.compile().memory_analysis().temp_size_in_bytes < 1000


@pytest.mark.parametrize("row", DEFAULTS, ids=str)
def test_an_update_takes_the_memory_of_its_gradient(monkeypatch, row):
    """Where that is computed in the same program. A large one that is given stays as it is, and the rule needs no memory for the update."""

    def temporaries(size: int, gradient_of) -> int:
        leaf = jax.ShapeDtypeStruct((size,), jnp.float32)

        def step(params, state, g):
            return train_step(row.tx)(params, state, gradient_of(g))

        compiled = jax.jit(step, donate_argnums=(0, 1)).lower(leaf, jax.eval_shape(row.tx.init, leaf), leaf).compile()
        return compiled.memory_analysis().temp_size_in_bytes // size

    def everywhere():
        return [temporaries(2**24, lambda g: g), temporaries(2**24, jnp.cumsum)]

    assert everywhere() == by_rule(monkeypatch, everywhere)
    assert temporaries(2**15, lambda g: g) == 4  # the update of a small one


@pytest.mark.parametrize("row", FULL, ids=str)
def test_derivatives_are_the_rules(monkeypatch, row):
    """Of parameters after two steps, by the first parameters, by the gradients and by the learning rate, forward and backward."""
    params, gradient = tree(0), tree(1)

    def loss(params, gradient, rate):
        tx = row.optimizer.jax(**{**row.arguments, "learning_rate": rate}) if hasattr(row.optimizer, "jax") else row.tx
        state = tx.init(params)
        for _ in range(2):
            params, state = train_step(tx)(params, state, gradient)
        return sum(jnp.sum(jnp.sin(p)) for p in jax.tree.leaves(params))

    def derivatives():
        return jax.jit(jax.value_and_grad(loss, (0, 1)))(params, gradient, 0.1), jax.jit(jax.jacfwd(loss, 1))(params, gradient, 0.1)

    assert_same(derivatives(), by_rule(monkeypatch, derivatives))


@pytest.mark.parametrize("over", ["gradients", "rates", "both"])
def test_vmap_is_many_steps(over):
    """Over gradients, over learning rates, and over one within the other, where everything is told at run time."""
    params, gradients = tree(0), [tree(i) for i in (1, 2, 3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients)
    rates = jnp.array([0.1, 0.2], jnp.float32)

    def step(rate, gradient):
        tx = jaxopt_impl.adamw(rate)
        return train_step(tx)(params, tx.init(params), gradient)

    step = jax.jit(step)
    if over == "gradients":
        mapped = [jax.vmap(step, (None, 0))(rates[0], stacked)]
        expected = [[step(rates[0], g) for g in gradients]]
    elif over == "rates":
        mapped = [jax.vmap(step, (0, None))(rates, gradients[0])]
        expected = [[step(rate, gradients[0]) for rate in rates]]
    else:
        whole = jax.vmap(lambda rate: jax.vmap(lambda g: step(rate, g))(stacked))(rates)
        mapped = [jax.tree.map(lambda x, i=i: x[i], whole) for i in range(2)]
        expected = [[step(rate, g) for g in gradients] for rate in rates]
    for lanes, one_by_one in zip(mapped, expected, strict=True):
        for i, own in enumerate(one_by_one):
            assert_same(jax.tree.map(lambda x, i=i: x[i] if x.ndim else x, lanes), own)


def test_a_program_for_several_devices_has_the_rule():
    """Parted by XLA, or within `shard_map`; and no array is gathered."""
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    tx = jaxopt_impl.adam(0.1)
    params, gradient = (jax.device_put(np.random.default_rng(i).standard_normal(800).astype("f4"), spread) for i in (0, 1))
    state = tx.init(params)
    parted = jax.jit(train_step(tx))
    text = compiled(train_step(tx), params, state, gradient)
    assert CALL not in text
    assert "all-gather" not in text

    whole = jax.tree.map(lambda x: PartitionSpec("data") if x.ndim else PartitionSpec(), state)
    own = jax.shard_map(
        train_step(tx), mesh=mesh, in_specs=(PartitionSpec("data"), whole, PartitionSpec("data")), out_specs=(PartitionSpec("data"), whole)
    )
    text = compiled(own, params, state, gradient)
    assert CALL not in text
    assert "all-gather" not in text
    alone = jax.jit(train_step(tx))(*jax.tree.map(np.asarray, (params, state, gradient)))
    assert_same(parted(params, state, gradient), alone)
    assert_same(jax.jit(own)(params, state, gradient), alone)


def test_exported_it_is_the_rule():
    """It runs where there is no library; the bits are those that it has here."""
    tx, params, gradient = jaxopt_impl.adam(0.1), tree(0), tree(1)
    step = jax.jit(train_step(tx))
    exported = jax.export.export(step)(params, tx.init(params), gradient)
    assert "optparity_one_pass" not in exported.mlir_module()
    assert_same(exported.call(params, tx.init(params), gradient), step(params, tx.init(params), gradient))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_elsewhere_it_is_the_rule(platform):
    leaf = jnp.ones(8)
    tx = jaxopt_impl.adam(0.1)
    text = jax.jit(tx.update).trace(leaf, tx.init(leaf), leaf).lower(lowering_platforms=(platform,)).as_text()
    assert "optparity_one_pass" not in text
    assert "stablehlo.sqrt" in text


def test_scan_cond_and_checkpoint(monkeypatch):
    tx, params, gradient = jaxopt_impl.adamw(0.1, amsgrad=True), tree(0), tree(1)

    def run():
        step = jax.checkpoint(train_step(tx))

        def body(carry, go):
            carry = jax.lax.cond(go, lambda c: step(*c, gradient), lambda c: c, carry)
            return carry, carry

        return jax.jit(lambda carry: jax.lax.scan(body, carry, jnp.array([True, False, True])))((params, tx.init(params)))

    assert_same(run(), by_rule(monkeypatch, run))


def test_any_transform_is_applied():
    """One that has no pass as `tx.update` and `optax.apply_updates` do it; a parameter without a gradient stays."""
    params, gradient = tree(0), {**tree(1), "b": None}
    for tx in (jaxopt_impl.adam(0.1), optax.chain(optax.identity(), jaxopt_impl.adam(0.1))):
        assert is_one_pass(tx) == (not isinstance(tx.init(params), tuple) or hasattr(tx.init(params), "_fields"))
        stepped, state = jax.jit(jaxopt_impl.update_and_apply(tx))(gradient, tx.init(params), params)
        updates, after = jax.jit(tx.update)(gradient, tx.init(params), params)
        expected = {name: p if updates[name] is None else optax.apply_updates(p, updates[name]) for name, p in params.items()}
        assert_same((stepped, state), (expected, after))


def test_subnormals_are_kept_where_the_parameters_are_stepped():
    tiny = np.float32(1e-40)
    tx = jaxopt_impl.sgd(0.5)
    params = jnp.full(1000, tiny)
    stepped, _ = jax.jit(jaxopt_impl.update_and_apply(tx))(-params, tx.init(params), params)
    assert (np.asarray(stepped) == tiny + np.float32(0.5) * tiny).all()
    updates, _ = jax.jit(tx.update)(-params, tx.init(params), params)
    assert not np.asarray(updates).any()  # as the program around it


def test_a_program_from_the_compilation_cache_calls_the_library(tmp_path):
    code = """
import os, jax, jax.numpy as jnp, numpy as np, jaxopt_impl
jax.config.update("jax_compilation_cache_dir", os.environ["CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
tx, p = jaxopt_impl.adam(0.1), jnp.linspace(-1, 1, 1000)
u, _ = jax.jit(tx.update)(p, tx.init(p), p)
print(np.asarray(u).tobytes().hex()[:64], len(os.listdir(os.environ["CACHE"])))
"""
    run = functools.partial(
        subprocess.run, [sys.executable, "-c", code], env={**os.environ, "CACHE": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    first, second = (run().stdout.split() for _ in range(2))
    assert first == second
    assert int(first[1]) > 0


def test_what_is_not_summed_is_refused_within_shard_map():
    """The type of an update says that the devices have different ones."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    tx = jaxopt_impl.sgd(0.1, momentum=0.9)
    params = jnp.zeros(4)
    step = jax.shard_map(
        lambda g: tx.update(g, tx.init(params), params)[0], mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec()
    )
    with pytest.raises(ValueError, match="out_specs"):
        jax.jit(step)(jnp.ones(8))


def test_outside_of_a_jit_the_same_step_is_compiled_once():
    """A transform that `optax.inject_hyperparams` makes anew at each step is the same one."""
    tx, params = optax.inject_hyperparams(jaxopt_impl.adam)(learning_rate=0.1), jnp.ones(5)
    state, sizes = tx.init(params), []
    for _ in range(4):
        _, state = tx.update(params, state, params)
        sizes.append(one_pass._alone._cache_size())
    assert len(set(sizes[1:])) == 1


def test_a_trace_is_not_held():
    tx, params = optax.inject_hyperparams(jaxopt_impl.adam)(learning_rate=0.1), jnp.ones(5)
    state = tx.init(params)
    with jax.checking_leaks():
        jax.jit(lambda g, s: tx.update(g, s, g))(params, state)


def test_without_jit_it_is_the_rule():
    tx, params = jaxopt_impl.adam(0.1), tree(0)
    with jax.disable_jit():
        plain = tx.update(tree(1), tx.init(params), params)
    assert_same(plain, jax.jit(tx.update)(tree(1), tx.init(params), params))


def test_leaves_on_several_devices_step_where_they_are():
    tx, devices = jaxopt_impl.sgd(0.1, momentum=0.9), jax.devices()[:2]
    params = [jax.device_put(jnp.ones(3), device) for device in devices]
    updates, _ = tx.update(params, tx.init(params), params)
    assert [next(iter(u.devices())) for u in updates] == devices


def test_applied_it_needs_the_parameters():
    tx = jaxopt_impl.sgd(0.1)
    with pytest.raises(ValueError, match=r"sgd: update_and_apply needs the parameters; call it with \(gradients, state, params\)\."):
        jaxopt_impl.update_and_apply(tx)(jnp.ones(3), tx.init(jnp.ones(3)), None)


def test_a_rule_of_somebody_elses_is_not_recorded(tmp_path, monkeypatch):
    """It may use what the recorder does not know."""
    tmp_path.joinpath("own_rule.py").write_text("""
from typing import NamedTuple

from jaxopt_impl import numerics as nx
from jaxopt_impl.transform import transform


class State(NamedTuple):
    step: nx.Count = None


class Hyper(NamedTuple):
    lr: nx.Number


def halved(x):
    return nx.sqrt(x * x) * 0.5


def step(g, p, s, h):
    return -h.lr * halved(g) if h.lr > 0 else g, s


tx = transform("own", step, Hyper(0.5), State, {})
""")
    monkeypatch.syspath_prepend(tmp_path)
    import own_rule  # pyright: ignore[reportMissingImports]

    assert own_rule.tx.update(jnp.array([2.0]), own_rule.tx.init(jnp.ones(1)))[0] == -0.5
