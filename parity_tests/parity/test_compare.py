"""The harness sees one bit, anywhere, and works on anybody's optimizers."""

import json
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_impl
import torch_ref
from optparity.parity.bits import as_bits
from optparity.parity.contexts import CONTEXTS
from optparity.parity.streams import STREAMS, gradients, parameters
from optparity.parity.subnormals import jax_flushes, torch_flushes, torch_flushing, torch_flushing_like_jax
from optparity.registry import OPTIMIZERS, ROWS

from .. import assert_identical, compare

PARAMS = {"layer": {"b": np.ones(3, "f4"), "w": np.arange(6, dtype="f4").reshape(2, 3)}}


def momentum(params):
    return torch_ref.SGD(params, lr=0.1, momentum=0.9)


def tampered(step, change):
    """jaxopt_impl.sgd, but that `change(updates, state)` has its way at one step."""
    tx = jaxopt_impl.sgd(0.1, momentum=0.9)

    def update(updates, state, params=None):
        updates, after = tx.update(updates, state, params)
        there = state.step == step - 1
        choose = lambda a, b: jnp.where(there, a, b)  # noqa: E731
        return jax.tree.map(choose, change(updates, after), (updates, after))

    return optax.GradientTransformation(tx.init, update)


def flip(tree):
    """The last bit of the second element of the first leaf, turned round."""
    leaves, treedef = jax.tree.flatten(tree)
    bits = jax.lax.bitcast_convert_type(leaves[0], jnp.int32)
    leaves[0] = jax.lax.bitcast_convert_type(bits.at[1].set(bits[1] ^ 1), jnp.float32)
    return treedef.unflatten(leaves)


@pytest.mark.parametrize("context", sorted(set(CONTEXTS) - {"constants", "sharded"}))
def test_one_bit_of_the_state_is_seen(context):
    tx = tampered(3, lambda u, s: (u, s._replace(momentum_buffer=flip(s.momentum_buffer))))
    report = compare(tx, momentum, PARAMS, gradients("normal", PARAMS), steps=5, context=context)
    assert not report.identical
    assert report.differing[:2] == [0, 0]
    first = report.first_difference
    assert (first.step, first.leaf, first.index, first.ulp) == (3, "momentum_buffer['layer']['b']", (1,), 1)
    assert int(first.got, 16) ^ int(first.expected, 16) == 1


def test_one_bit_of_the_parameters_is_seen_and_named():
    tx = tampered(2, lambda u, s: (flip(u), s))
    with pytest.raises(AssertionError, match=r"first at step 2, params\['layer'\]\['b'\]\[1\]: 0x[0-9a-f]{8} != 0x[0-9a-f]{8} \(\d+ ulp\)"):
        assert_identical(
            tx, momentum, {"layer": {"b": np.zeros(3, "f4")}}, gradients("normal", {"layer": {"b": np.zeros(3, "f4")}}), steps=3
        )


def test_the_sign_of_zero_is_seen():
    report = compare(optax.set_to_zero(), lambda p: torch_ref.SGD(p, lr=1.0), [np.array([-0.0], "f4")], [[np.array([0.0], "f4")]])
    assert report.first_difference.ulp == 1
    assert (report.first_difference.got, report.first_difference.expected) == ("0x00000000", "0x80000000")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_learning_rate_of_the_int_0(name):
    """It has no −0, as 0.0 has; where a parameter is −0, that shows."""
    params = {"w": np.full(8, -0.0, "f4")}
    make = lambda params: OPTIMIZERS[name].torch(params, lr=0)  # noqa: E731
    assert_identical(OPTIMIZERS[name].jax(0), make, params, gradients("normal", params), steps=1)


def test_a_report_as_json():
    report = assert_identical(jaxopt_impl.sgd(0.1, momentum=0.9), momentum, PARAMS, gradients("normal", PARAMS), steps=4)
    document = json.loads(report.to_json())
    assert document["identical"] is True
    assert document["first_difference"] is None
    assert document["differing"] == [0, 0, 0, 0]
    assert document["compared"] == ["params", "momentum_buffer"]
    assert document["elements"] == 18
    broken = compare(jaxopt_impl.sgd(0.2), lambda p: torch_ref.SGD(p, lr=0.1), PARAMS, gradients("normal", PARAMS), steps=1)
    assert json.loads(broken.to_json())["first_difference"]["leaf"] == "params['layer']['b']"


def test_stock_optimizers_and_a_state_map():
    """Anybody's: optax.adam against torch.optim.Adam, its moments by a map; without one, the report says what was compared."""
    make = lambda p: torch.optim.Adam(p, lr=1e-3)  # noqa: E731
    names = {"mu": "exp_avg", "nu": "exp_avg_sq"}
    with jax.numpy_dtype_promotion("standard"):  # optax.adam's own arithmetic promotes
        mapped = compare(optax.adam(1e-3), make, PARAMS, gradients("normal", PARAMS), steps=20, state_map=names)
        unmapped = compare(optax.adam(1e-3), make, PARAMS, gradients("normal", PARAMS), steps=2)
    assert set(mapped.compared) == {"params", "exp_avg", "exp_avg_sq"}
    assert not mapped.identical
    assert unmapped.compared == ("params",)


def test_state_is_found_inside_wrappers():
    tx = optax.chain(optax.identity(), optax.masked(jaxopt_impl.adagrad(0.1), {"layer": {"b": True, "w": True}}))
    report = assert_identical(tx, lambda p: torch_ref.AdaGrad(p, lr=0.1), PARAMS, gradients("normal", PARAMS), steps=3)
    assert set(report.compared) == {"params", "sum", "step"}


def test_a_closed_loop_sees_the_parameters():
    seen = []

    def gradient(params, step):
        seen.append((step, params["layer"]["b"].copy()))
        return jax.tree.map(lambda p: p * 0.5, params)

    assert_identical(jaxopt_impl.sgd(0.1, momentum=0.9), momentum, PARAMS, gradient, steps=3)
    assert [step for step, _ in seen] == [1, 2, 3]
    assert seen[1][1][0] == np.float32(1) - np.float32(0.1) * np.float32(0.5)


def test_a_list_of_gradients_ends_the_comparison():
    drawn = [g for g, _ in zip(gradients("normal", PARAMS), range(7), strict=False)]
    assert assert_identical(jaxopt_impl.sgd(0.1), lambda p: torch_ref.SGD(p, lr=0.1), PARAMS, drawn).steps == 7
    assert assert_identical(jaxopt_impl.sgd(0.1), lambda p: torch_ref.SGD(p, lr=0.1), PARAMS, drawn, context="scan").steps == 7


def test_bad_calls():
    tx, make = jaxopt_impl.sgd(0.1), lambda p: torch_ref.SGD(p, lr=0.1)
    with pytest.raises(ValueError, match=r"compare: unknown context 'jitt'; one of eager, jit, .* is needed"):
        compare(tx, make, PARAMS, [], context="jitt")
    with pytest.raises(ValueError, match="compare: context 'scan' takes 10 steps at once; a closed loop needs one at a time"):
        compare(tx, make, PARAMS, lambda p, t: p, steps=3, context="scan")
    with pytest.raises(ValueError, match="compare: no step was compared: gradients is empty, or steps is 0"):
        compare(tx, make, PARAMS, [])
    with pytest.raises(ValueError, match="compare: state_map 'mu' -> 'exp_avg': no such field in one of the states"):
        compare(tx, make, PARAMS, gradients("normal", PARAMS), steps=1, state_map={"mu": "exp_avg"})
    with pytest.raises(ValueError, match="compare: a closed loop does not end by itself"):
        compare(tx, make, PARAMS, lambda p, t: p)
    with pytest.raises(ValueError, match=r"compare: params\['a'\] is float32\[3\] in jax, float64\[3\] in torch"):
        compare(tx, make, {"a": np.ones(3)}, [{"a": np.ones(3)}])


def seen_within(flushes, before):
    """The zeros among a million halved normal numbers of torch and of NumPy, for each dtype, in threads that began otherwise."""
    torch.set_flush_denormal(before)
    torch.ones(2**20).mul(2.0)  # this thread's pool has started
    threads = torch.get_num_threads()
    with torch_flushing(flushes):
        tiny = [np.full(2**20, np.finfo(dtype).tiny, dtype) for dtype in ("float32", "float64")]
        zeros = [np.count_nonzero(as_bits(x) == 0) for y in tiny for x in ((torch.from_numpy(y) * 0.5).numpy(), y * y.dtype.type(0.5))]
    assert (torch.get_num_threads(), torch_flushes()) == (threads, before)
    return zeros


@pytest.mark.parametrize("flushes", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_subnormals_are_flushed_or_kept_within_and_only_within(flushes, before):
    """In a thread of its own, since a pool keeps the setting that it began with; afterwards everything is as it was."""
    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(seen_within, flushes, before).result() == [2**20 if flushes else 0] * 4


def test_torch_flushes_if_jax_does():
    with torch_flushing_like_jax():
        assert torch_flushes() == jax_flushes()


@pytest.mark.parametrize("stream", STREAMS)
def test_streams_are_what_they_are_called(stream, dtype):
    params = parameters({"w": (4096,)}, dtype)
    draws = [g["w"] for g, _ in zip(gradients(stream, params), range(6), strict=False)]
    again = [g["w"] for g, _ in zip(gradients(stream, params), range(6), strict=False)]
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(draws, again, strict=True))
    assert all(g.dtype == dtype and g.shape == (4096,) for g in draws)
    everything, tiny = np.concatenate(draws), np.finfo(dtype).tiny
    magnitude = np.abs(everything[np.isfinite(everything)])
    facts = {
        "normal": 0.5 < np.median(magnitude) < 0.8,
        "wide": np.median(magnitude) < 1 and magnitude.max() > 1e3 and np.quantile(magnitude, 0.01) < 1e-11,
        "zeros": (np.signbit(everything) & (everything == 0)).any() and (~np.signbit(everything) & (everything == 0)).mean() > 0.2,
        "constant": len(np.unique(everything)) == 1,
        "alternating": len(np.unique(everything)) == 2,
        "subnormal": 0.1 < ((magnitude < tiny) & (magnitude > 0)).mean() < 0.9,
        "huge": (np.log2(magnitude, where=magnitude > 0, out=np.zeros_like(magnitude)) > np.finfo(dtype).maxexp / 2).mean() > 0.5,
        "inf": np.isinf(everything).any() and not np.isnan(everything).any(),
        "nan": np.isnan(everything).any() and not np.isinf(everything).any(),
    }
    assert facts[stream]


@pytest.mark.parametrize("row", [row for row in ROWS if row.label == row.entry.drift_row], ids=str)
def test_the_stock_implementations_are_seen_to_differ(row):
    """What makes the harness worth having; were it to pass here, it could not fail."""
    params = parameters({"w": (1003,)}, "float32")
    for tx, make in ((row.stock_tx, row.torch), *([(row.tx, row.stock_torch)] if row.stock_torch else [])):
        with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic promotes
            report = compare(tx, make, params, gradients("normal", params), steps=50, context="train_step", state_map={})
        assert not report.identical
        assert report.compared == ("params",)
