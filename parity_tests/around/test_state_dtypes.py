"""First moments in bfloat16, float32 masters, stochastic rounding: against MPFR, Random123 and exact counts; both sides alike."""

import copy
import itertools
import math
import pickle
from fractions import Fraction

import gmpy2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.extend.random import threefry_2x32

import jaxopt_impl
import torch_ref
from jaxopt_impl import numerics as jax_nx
from jaxopt_impl.around import threefry as in_jax
from optparity._arrays import to_numpy, to_torch
from optparity.interop import describe, from_torch, to_torch_state_dict
from optparity.parity.bits import differing
from optparity.parity.compare import assert_identical
from optparity.parity.streams import gradients, parameters
from torch_ref import numerics as torch_nx
from torch_ref import shards
from torch_ref.around import threefry as in_torch

from .. import oracle
from ..sampling import EXHAUSTIVE

BFLOAT16 = jnp.bfloat16
RANDOM123 = [  # kat_vectors of Random123 1.14: counter, key, result of threefry2x32 with 20 rounds
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


def drawn_by_both(key, counter):
    """The two words in JAX, and in torch, which keeps them in int32."""
    ours = in_jax.threefry2x32([jnp.uint32(k) for k in key], [jnp.array(c, jnp.uint32) for c in counter])
    words = [torch.from_numpy(np.array(c, np.uint32).view(np.int32)) for c in counter]
    theirs = in_torch.threefry2x32([torch_nx.word(int(k)) for k in key], words)
    return np.stack(ours), np.stack([word.numpy().view(np.uint32) for word in theirs])


@pytest.mark.parametrize(("counter", "key", "result"), RANDOM123, ids=("zeros", "ones", "pi"))
def test_threefry_is_random123s(counter, key, result):
    for drawn in drawn_by_both(key, [[c] for c in counter]):
        assert np.ravel(drawn).tolist() == list(result)


def test_threefry_is_jaxs():
    rng = np.random.default_rng(0)
    key, counter = rng.integers(0, 2**32, 2, np.uint32), rng.integers(0, 2**32, (2, 1000), np.uint32)
    expected = np.asarray(threefry_2x32(key, counter.reshape(-1))).reshape(2, -1)
    for drawn in drawn_by_both(key, counter):
        np.testing.assert_array_equal(drawn, expected)


def drawn_bits(seed=0, step=1, leaf=0, field=0, size=2**15):
    """The bits of a field, by torch_ref (that both draw the same is tested above, and in every run)."""
    key = in_torch.of_leaf((torch_nx.word(seed >> 32), torch_nx.word(seed)), torch_nx.word(step), torch_nx.word(leaf))
    return in_torch.sixteen(in_torch.threefry2x32(key, (field // 4, shards.places(torch.empty(size)))), field).numpy()


def test_bits_are_uniform():
    """Each bit, and the numbers as 256 classes, within five standard deviations."""
    bits = drawn_bits()
    n = len(bits)
    assert bits.min() >= 0
    assert bits.max() < 2**16
    for i in range(16):
        assert abs((bits >> i & 1).sum() - n / 2) < 5 * math.sqrt(n) / 2
    for byte in (bits & 255, bits >> 8):
        assert abs((np.bincount(byte, minlength=256) - n / 256) ** 2 / (n / 256)).sum() < 255 + 5 * math.sqrt(2 * 255)


def test_bits_of_different_places_do_not_go_together():
    """No correlation from element to element, nor with those of another seed, step, leaf or field; the fifth field is not the first."""
    bits = drawn_bits()
    others = [
        *(drawn_bits(seed=seed) for seed in (1, 2**32, 2**63)),
        *(drawn_bits(step=step) for step in (2, 3)),
        *(drawn_bits(leaf=leaf) for leaf in (1, 2)),
        *(drawn_bits(field=field) for field in range(1, 9)),
        *(np.roll(bits, shift) for shift in (1, 2, 17)),
    ]
    correlations = np.corrcoef([bits, *others]) - np.eye(len(others) + 1)
    assert abs(correlations).max() < 5 / math.sqrt(len(bits))


def narrowed_by(x, bits):
    """Numbers rounded by these bits on both sides, jitted in JAX; as bfloat16."""

    @jax.jit
    def rounded(x, bits):
        return jax_nx.finish(jax_nx.narrowed_by(jax_nx.wrap(x, "float32"), bits), "bfloat16")

    ours = np.asarray(rounded(jnp.array(x), jnp.array(bits, jnp.uint32)))
    tensor = torch_nx.narrowed_by(torch_nx.wrap(to_torch(np.array(x)), "float32"), to_torch(np.array(bits, np.int32)))
    theirs = to_numpy(torch_nx.finish(tensor, "bfloat16"))
    assert ours.dtype == theirs.dtype == BFLOAT16
    assert not differing(ours, theirs).any()
    return ours


def of_bits(*bits):
    return np.array(bits, np.uint32).view(np.float32)


def test_what_bfloat16_holds_stays():
    """All 65,536 numbers of bfloat16, whatever the bits: zeros with their sign, subnormal numbers, infinities, NaN."""
    numbers = np.arange(2**16, dtype=np.uint16).view(BFLOAT16)
    for bits in (0, 1, 0x8000, 0xFFFF):
        with np.errstate(invalid="ignore"):  # NaNs that signal are compared
            assert not differing(narrowed_by(numbers.astype(np.float32), np.full(2**16, bits)), numbers).any()


def test_a_number_between_two_goes_up_as_often_as_it_is_near():
    """By exact count over all 65,536 draws: the mean is the number, for either sign, near a power of two, tiny, subnormal."""
    numbers = of_bits(0x3F800001, 0xBF80FFFF, 0x3F7F8001, 0xC0490FDB, 0x00800001, 0x80801234, 0x00001234, 0x80012345, 0x7F7E4321)
    draws = np.arange(2**16)
    for x in numbers:
        rounded = narrowed_by(np.full(2**16, x), draws)
        values, counts = np.unique(rounded.astype(np.float64), return_counts=True)
        assert len(values) == 2
        assert sum(Fraction(value) * int(count) for value, count in zip(values, counts, strict=True)) / 2**16 == Fraction(float(x))


def test_beyond_the_largest_number_is_infinity():
    beyond = of_bits(0x7F7FFFFF, 0xFF7FFFFF)
    assert narrowed_by(beyond, [0xFFFF, 0xFFFF]).tolist() == [math.inf, -math.inf]
    assert np.isfinite(narrowed_by(beyond, [0, 0]).astype(np.float32)).all()


def test_a_nan_of_the_lower_half_stays_one():
    assert np.isnan(narrowed_by(of_bits(0x7F800001, 0xFF80FFFF), [0xFFFF, 0]).astype(np.float32)).all()


def after(tx, params, grads):
    state = tx.init(params)
    update = jax.jit(tx.update)
    for g in grads:
        updates, state = update(g, state, params)
        with jax.numpy_dtype_promotion("standard"):
            params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("start", [1.5, -1.5, 1.0, 2.0**-100])
def test_the_mean_of_many_parameters_is_right(start):
    """65,536 parameters of one number, 30 steps of a twentieth of a unit: the mean of all within five standard deviations."""
    n, steps, part = 2**16, 30, 1 / 20
    unit = 2.0 ** (math.frexp(abs(start))[1] - 8)
    params, _ = after(
        jaxopt_impl.stochastic_rounding(jaxopt_impl.sgd(part * unit), seed=5), jnp.full(n, start, BFLOAT16), [jnp.full(n, -1.0)] * steps
    )
    moved = (np.asarray(params, np.float64) - start) / unit
    assert abs(moved.mean() - steps * part) < 5 * math.sqrt(steps * part * (1 - part) / n)
    assert moved.std() > 0


def test_it_learns_where_rounding_to_nearest_stands_still():
    """Minimize x²/2 with steps far below half a unit: to nearest nothing moves, stochastically the mean follows float32."""
    n, rate, steps = 4096, 2.0**-11, 400
    start = jnp.full(n, 1.0, BFLOAT16)

    def train(tx):
        def body(carry, _):
            params, state = carry
            updates, state = tx.update(params, state, params)
            with jax.numpy_dtype_promotion("standard"):
                return (optax.apply_updates(params, updates), state), None

        return np.asarray(jax.lax.scan(body, (start, tx.init(start)), None, steps)[0][0], np.float64)

    exact = (1 - rate) ** steps
    assert (train(jaxopt_impl.sgd(rate)) == 1).all()
    assert abs(train(jaxopt_impl.master_weights(jaxopt_impl.sgd(rate))) - exact).max() < 2**-8
    assert abs(train(jaxopt_impl.stochastic_rounding(jaxopt_impl.sgd(rate), seed=1)).mean() - exact) < 2e-3


def test_a_mean_square_in_bfloat16_decays_only_if_it_is_rounded_at_random():
    """β₂ = 0.999: to nearest v stays where it is; at random its mean is β₂ᵗ."""
    n, steps = 4096, 200
    params = jnp.ones(n, BFLOAT16)
    grads = [jnp.ones(n, BFLOAT16) * 8, *[jnp.zeros(n, BFLOAT16)] * steps]
    _, nearest = after(jaxopt_impl.adam(1e-3), params, grads)
    _, random = after(jaxopt_impl.stochastic_rounding(jaxopt_impl.adam(1e-3), seed=2), params, grads)
    v, exact = np.asarray(random.inner_state.exp_avg_sq), 0.001 * 64 * 0.999**steps
    assert v.dtype == BFLOAT16
    assert np.unique(np.asarray(nearest.exp_avg_sq, np.float64)) == [float(BFLOAT16(0.064))]
    assert abs(v.astype(np.float64).mean() / exact - 1) < 2e-3


def test_state_stays_in_float32_where_it_is_to():
    params = {"w": jnp.ones((2, 3), BFLOAT16), "wide": jnp.ones(3)}
    for state, dtype in ((True, "bfloat16"), (False, "float32")):
        inner = jaxopt_impl.stochastic_rounding(jaxopt_impl.adam(0.1), 0, state=state).init(params).inner_state
        assert {inner.exp_avg["w"].dtype, inner.exp_avg_sq["w"].dtype} == {jnp.dtype(dtype)}
        assert inner.exp_avg["wide"].dtype == np.float32


@pytest.mark.usefixtures("as_users_have_it")
def test_inside_of_chains_partitions_and_injected_numbers_state_is_found():
    params = {"a": jnp.ones((2, 3), BFLOAT16), "b": jnp.ones(3, BFLOAT16)}
    inner = optax.chain(
        optax.trace(0.9),
        optax.partition(
            {"x": optax.inject_hyperparams(optax.adam)(0.1), "y": optax.inject_hyperparams(jaxopt_impl.adam)(0.1)}, {"a": "x", "b": "y"}
        ),
    )
    tx = jaxopt_impl.stochastic_rounding(inner, 0)
    state = jax.eval_shape(tx.init, params)
    for _ in range(2):
        assert not [leaf for leaf in jax.tree.leaves(state) if leaf.shape and leaf.dtype == np.float32]
        assert sum(leaf.dtype == BFLOAT16 for leaf in jax.tree.leaves(state)) == 6
        _, state = jax.eval_shape(tx.update, params, state, params)


@EXHAUSTIVE
def test_a_moment_that_the_inner_optimizer_rounds_itself_is_its_own():
    tx = jaxopt_impl.stochastic_rounding(jaxopt_impl.adam(0.1, eps=1e-4, mu_dtype="bfloat16"), 3)
    make = lambda params: torch_ref.StochasticRounding(  # noqa: E731
        params, lambda copies: torch_ref.Adam(copies, 0.1, eps=1e-4, mu_dtype=torch.bfloat16), 3
    )
    params = parameters({"w": (5, 7)}, "bfloat16")
    report = assert_identical(tx, lambda params: Stepping(make(params)), params, gradients("normal", params), steps=5)
    assert {"exp_avg", "exp_avg_sq"} <= set(report.compared)


MIXED = {"half": (4, 6), "wide": (6,), "scale": ()}
WRAPPERS = {
    "master_weights": (jaxopt_impl.master_weights, torch_ref.MasterWeights, ("float16", "float32", "bfloat16")),
    "stochastic_rounding": (
        lambda tx: jaxopt_impl.stochastic_rounding(tx, 7),
        lambda params, make: torch_ref.StochasticRounding(params, make, 7),
        ("bfloat16", "float32", "bfloat16"),
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("context", ["jit", pytest.param("scan", marks=EXHAUSTIVE)])
def test_mixed_trees_float32_gradients_and_gradients_of_none(wrapper, context):
    """What is no half passes through; gradients may be float32; a parameter without a gradient stays, and draws nothing."""
    ours, theirs, dtypes = WRAPPERS[wrapper]
    params = {
        name: parameters({name: shape}, dtype, i)[name] for i, ((name, shape), dtype) in enumerate(zip(MIXED.items(), dtypes, strict=True))
    }
    fed = []
    for i, g in enumerate(itertools.islice(gradients("normal", params), 8)):
        g["scale"] = g["scale"].astype(np.float32)
        if i in (2, 3):
            g["half"] = g["wide"] = None
        if i == 6 and context == "jit":  # a scan needs something to scan over
            g = dict.fromkeys(g)
        fed.append(g)
    make = lambda params: Stepping(theirs(params, lambda copies: torch_ref.RMSprop(copies, 0.05, momentum=0.9)))  # noqa: E731
    report = assert_identical(ours(jaxopt_impl.rmsprop(0.05, momentum=0.9)), make, params, fed, context=context)
    assert {"square_avg", "momentum_buffer"} <= set(report.compared)


class Stepping:
    """A wrapper with the state of its inner optimizer, by parameter."""

    def __init__(self, wrapper):
        self.wrapper, self.step = wrapper, wrapper.step

    @property
    def state(self):
        return {p: self.wrapper.optimizer.state.get(self.wrapper.copies.get(p, p), {}) for p in self.wrapper.parameters}


def nearest(x, dtype):
    """MPFR's nearest number of a half."""
    fmt = oracle.FORMATS[dtype]
    with fmt.gradual:
        return float(+gmpy2.mpfr(float(x)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_masters_are_stepped_in_float32_and_rounded_once(dtype):
    """Against MPFR: Adam in float32 on the masters, each parameter the nearest half of its master."""
    params = parameters({"w": (11,)}, dtype)["w"]
    fed = list(itertools.islice(gradients("normal", params), 12))
    arguments = {"learning_rate": 0.5, "weight_decay": 0.1}  # so large that q - p is often no half
    walked = oracle.walk(oracle.Rounded, "adamw", arguments, params.astype(np.float32), [g.astype(np.float32) for g in fed])
    tx = jaxopt_impl.master_weights(jaxopt_impl.adamw(**arguments))
    state, update = tx.init(params), jax.jit(tx.update)
    for g, (expected, _) in zip(fed, walked, strict=True):
        updates, state = update(g, state, params)
        with jax.numpy_dtype_promotion("standard"):
            params = optax.apply_updates(params, updates)
        assert params.dtype == dtype
        assert not differing(np.asarray(state.master), oracle.to_numpy(expected, np.float32)).any()
        assert np.asarray(params, np.float64).tolist() == [nearest(x.value, dtype) for x in expected]


def test_an_update_that_is_a_product_is_rounded_before_it_is_added():
    """Whatever the inner transform is: XLA would contract the product of optax.sgd with the sum, in one element of fifty."""
    rng = np.random.default_rng(0)
    params, g = rng.standard_normal(4000, np.float32).astype(BFLOAT16), rng.standard_normal(4000, np.float32)
    tx = jaxopt_impl.master_weights(optax.sgd(0.1))
    _, state = jax.jit(tx.update)(jnp.array(g), tx.init(params), params)
    assert not differing(np.asarray(state.master), params.astype(np.float32) + np.float32(-0.1) * g).any()


@pytest.mark.parametrize(("dtype", "fold"), [("bfloat16", 16), ("float16", 13)])
def test_an_update_reaches_what_it_is_to(dtype, fold):
    """p + (q - p) is q for every q from p / 2^fold on, of either sign; not for every smaller one."""
    rng = np.random.default_rng(1)
    fmt = oracle.FORMATS[dtype]
    digits = rng.integers(2 ** (fmt.precision - 1), 2**fmt.precision, (2, 400_000))
    signs = rng.choice([-1.0, 1.0], digits.shape)

    def reached(exponent):
        p, q = (signs * digits * 2.0 ** (1 - fmt.precision)).astype(np.float32)
        q = np.ldexp(q, exponent).astype(np.float32)
        u = jax_nx.update_to(jax_nx.wrap(jnp.array(p), "float32"), jax_nx.wrap(jnp.array(q), "float32"))
        with jax.numpy_dtype_promotion("standard"):
            return (np.asarray(optax.apply_updates(jnp.array(p.astype(dtype)), u.x), np.float32) == q).all()

    least = {"bfloat16": -40, "float16": -14}[dtype]
    found = [exponent for exponent in range(least, 13) if reached(exponent)]
    assert found == list(range(-fold, 13))


def test_a_parameter_that_does_not_move_keeps_its_sign_and_infinity():
    params = jnp.array([0.0, -0.0, math.inf, -math.inf, 1.0], jnp.float16)
    for tx in (jaxopt_impl.master_weights(jaxopt_impl.sgd(1.0)), jaxopt_impl.stochastic_rounding(jaxopt_impl.sgd(1.0), 0)):
        params = params if "master" in tx.update.__qualname__ else params.astype(BFLOAT16)
        still, _ = after(tx, params, [jnp.zeros(5)] * 2)
        assert not differing(np.asarray(still), np.asarray(params)).any()


FIRST_MOMENTS = [
    ("adamw", {"learning_rate": 0.1, "eps": 1e-3, "weight_decay": 0.1, "amsgrad": True}, "float32"),
    ("adam", {"learning_rate": 0.1, "eps": 1e-3}, "float64"),
    ("adam", {"learning_rate": 0.1, "eps": 1e-3, "accumulator_dtype": "float32"}, "bfloat16"),
    ("adam", {"learning_rate": 0.1, "eps": 1e-3}, "float16"),
    ("lion", {"learning_rate": 0.1, "weight_decay": 0.1}, "float32"),
]


@pytest.mark.parametrize(("name", "arguments", "dtype"), FIRST_MOMENTS, ids=lambda x: x if isinstance(x, str) else "")
def test_the_first_moment_is_used_whole_and_rounded_when_stored(name, arguments, dtype, monkeypatch):
    """Against the rules of the oracle, whose state is rounded by MPFR between steps."""
    rule = getattr(oracle, name)

    def rounding(g, p, state, t, **own):
        u, state = rule(g, p, state, t, **own)
        return u, {**state, "exp_avg": state["exp_avg"].into(oracle.FORMATS["bfloat16"]).into(g.format)}

    monkeypatch.setattr(oracle, name, rounding)
    params = parameters({"w": (11,)}, dtype)["w"]
    fed = list(itertools.islice(gradients("normal", params), 12))
    expected = oracle.walk(oracle.Rounded, name, arguments, params, fed)
    tx = getattr(jaxopt_impl, name)(**arguments, mu_dtype="bfloat16")
    make = lambda params: getattr(torch_ref, {"adam": "Adam", "adamw": "AdamW", "lion": "Lion"}[name])(  # noqa: E731
        params, **{"lr" if key == "learning_rate" else key: value for key, value in arguments.items()}, mu_dtype=torch.bfloat16
    )
    with jax.enable_x64(dtype == "float64"):
        assert_identical(tx, make, params, fed)
        state, update = tx.init(params), jax.jit(tx.update)
        for g, (p, s) in zip(fed, expected, strict=True):
            updates, state = update(g, state, params)
            params = optax.apply_updates(params, updates)
            assert state.exp_avg.dtype == BFLOAT16
            assert not differing(np.asarray(params), oracle.to_numpy(p, dtype)).any()
            assert not differing(np.asarray(state.exp_avg), oracle.to_numpy(s["exp_avg"], BFLOAT16)).any()


def test_a_float64_moment_is_rounded_once():
    """1 + 2⁻⁸ + 2⁻⁴⁰ is above the middle; by way of float32 it would be the middle, and go to 1."""
    numbers = np.array([1 + 2.0**-8 + 2.0**-40, -(1 + 3 * 2.0**-8 - 2.0**-40), 1 + 2.0**-8, math.inf, -0.0, 2.0**-1000, 1e300, math.nan])
    expected = np.array([1 + 2.0**-7, -(1 + 2.0**-7), 1.0, math.inf, -0.0, 0.0, math.inf, math.nan]).astype(BFLOAT16)
    with jax.enable_x64(True):
        ours = np.asarray(jax.jit(lambda x: jax_nx.unwrap(jax_nx.Rounded(x), "bfloat16"))(jnp.array(numbers)))
    theirs = to_numpy(torch_nx.unwrap(torch_nx.Rounded(torch.from_numpy(numbers)), "bfloat16"))
    assert not differing(ours, expected).any()
    assert not differing(theirs, expected).any()


def test_a_mask_of_adamw_keeps_the_dtype():
    params = {"a": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}
    tx = jaxopt_impl.adamw(0.1, mask={"a": True, "b": False}, mu_dtype="bfloat16")
    make = lambda params: torch_ref.AdamW([{"params": params[:1]}, {"params": params[1:], "weight_decay": 0}], 0.1, mu_dtype="bfloat16")  # noqa: E731
    assert_identical(tx, make, params, gradients("normal", params), steps=4)


def trained(optimizer, p, steps, seed):
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        p.grad = torch.randn(p.shape, generator=rng).to(p.dtype)
        optimizer.step()
    return optimizer


MAKERS = {
    "mu_dtype": lambda params: torch_ref.AdamW(params, 0.05, mu_dtype=torch.bfloat16, accumulator_dtype=torch.float32),
    "master_weights": lambda params: torch_ref.MasterWeights(params, lambda copies: torch_ref.AdamW(copies, 0.05)),
    "stochastic_rounding": lambda params: torch_ref.StochasticRounding(params, lambda copies: torch_ref.AdamW(copies, 0.05), 11),
    "float32 state": lambda params: torch_ref.StochasticRounding(params, lambda copies: torch.optim.SGD(copies, 0.05, 0.9), 1, state=False),
}


def flat(tree):
    return [x for x in jax.tree.leaves(tree, is_leaf=torch.is_tensor) if torch.is_tensor(x)]


@pytest.mark.parametrize("way", ["state_dict", "pickle", "deepcopy"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_run_in_torch_goes_on_where_it_was_saved(name, way):
    """The same bits of the parameter and of every tensor of the state, with the same dtypes."""
    p = torch.nn.Parameter(torch.linspace(-2, 2, 24, dtype=torch.bfloat16).view(4, 6))
    first = trained(MAKERS[name]([p]), p, 3, seed=0)
    if way == "state_dict":
        q = torch.nn.Parameter(p.detach().clone())
        second = MAKERS[name]([q])
        second.load_state_dict(copy.deepcopy(first.state_dict()))
    else:
        q, second = copy.deepcopy((p, first)) if way == "deepcopy" else pickle.loads(pickle.dumps((p, first)))
    states = first.state_dict(), second.state_dict()
    assert [x.dtype for x in flat(states[0])] == [x.dtype for x in flat(states[1])]
    trained(first, p, 3, seed=1)
    trained(second, q, 3, seed=1)
    for a, b in zip([p, *flat(first.state_dict())], [q, *flat(second.state_dict())], strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a.detach(), b.detach())


def test_a_state_dict_of_other_masters_is_refused():
    wrapper = lambda *shapes: torch_ref.MasterWeights(  # noqa: E731
        [torch.nn.Parameter(torch.ones(shape, dtype=torch.bfloat16)) for shape in shapes], torch.optim.SGD
    )
    message = r"^master_weights: the state_dict has masters of shapes \[\(2,\)\]; \[\(2,\), \(3,\)\] are needed\.$"
    with pytest.raises(ValueError, match=message):
        wrapper(2, 3).load_state_dict(wrapper(2).state_dict())


def test_wrappers_take_groups_names_schedulers_and_closures():
    p, q = (torch.nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in (torch.bfloat16, torch.float32))
    wrapper = torch_ref.MasterWeights([{"params": [("p", p)], "lr": 0.5}], lambda groups: torch.optim.SGD(groups, lr=1.0))
    wrapper.add_param_group({"params": [("q", q)]})
    assert [group["param_names"] for group in wrapper.param_groups] == [["p"], ["q"]]
    assert wrapper.param_groups[1]["params"][0] is q
    scheduler = torch.optim.lr_scheduler.ExponentialLR(wrapper.optimizer, 0.5)

    def closure():
        wrapper.zero_grad()
        loss = p.float().sum() + q.sum()
        loss.backward()
        return loss

    assert wrapper.step(closure).item() == 6
    scheduler.step()
    assert wrapper.step(closure).item() == 3 * 0.5 + 3 * 0.0
    assert p.tolist() == [0.25] * 3
    assert wrapper.copies[p].tolist() == [0.25] * 3
    assert q.tolist() == [-0.5] * 3
    wrapper.zero_grad(set_to_none=False)
    assert p.grad.tolist() == wrapper.copies[p].grad.tolist() == [0.0] * 3


def refusals():
    half, ours, theirs = jnp.ones(3, BFLOAT16), jaxopt_impl.master_weights(jaxopt_impl.sgd(0.1)), torch_ref.MasterWeights
    rounded = jaxopt_impl.stochastic_rounding(jaxopt_impl.sgd(0.1), 0)
    rounding = lambda params, make: torch_ref.StochasticRounding(params, make, 0)  # noqa: E731
    wrong = "leaf {} has dtype bfloat16 but its gradient has float16; bfloat16 or float32 is needed."
    return {
        "gradient of masters": (ours, theirs, half, np.float16, f"master_weights: {wrong}"),
        "gradient of rounded": (rounded, rounding, half, np.float16, f"stochastic_rounding: {wrong}"),
        "float16": (
            *(rounded, rounding, half.astype(np.float16), None),
            "stochastic_rounding: leaf {} has dtype float16; bfloat16 is rounded so, and master_weights is there for float16.",
        ),
        "integers": (
            *(ours, theirs, jnp.ones(3, np.int32), None),
            "master_weights: leaf {} has dtype int32; a floating-point dtype (float32, float64, bfloat16, float16) is needed.",
        ),
    }


@pytest.mark.parametrize("case", refusals())
def test_both_sides_refuse_leaves_with_the_same_text(case):
    tx, make, leaf, gradient, message = refusals()[case]

    def step():
        tx.update({"w": leaf.astype(gradient)}, tx.init({"w": leaf}), {"w": leaf})

    def step_in_torch():
        p = to_torch(np.array(leaf))
        wrapper = make([p], lambda params: torch.optim.SGD(params, 0.1))
        p.grad_dtype = torch.float16
        p.grad = torch.ones_like(p, dtype=torch.float16)
        wrapper.step()

    with pytest.raises(TypeError) as ours:
        step()
    with pytest.raises(TypeError) as theirs:
        step_in_torch()
    assert str(ours.value) == message.format("params['w']")
    assert str(theirs.value) == message.format("params[0]")


@pytest.mark.parametrize("tx", [jaxopt_impl.master_weights(optax.sgd(0.1)), jaxopt_impl.stochastic_rounding(optax.sgd(0.1), 0)])
def test_parameters_are_needed_and_have_the_gradients_tree(tx):
    params = {"w": jnp.ones(3, BFLOAT16)}
    state = tx.init(params)
    with pytest.raises(ValueError, match=r": the parameters are needed; call update\(updates, state, params\)\.$"):
        tx.update(params, state)
    with pytest.raises(ValueError, match=r": the parameters have another tree than the gradients: "):
        tx.update(params, state, {**params, "b": jnp.ones(3)})


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_nothing_is_compiled_twice_or_shared(wrapper):
    tx, params = WRAPPERS[wrapper][0](jaxopt_impl.adamw(0.1)), {"w": jnp.ones((8, 3), BFLOAT16), "b": jnp.ones(3)}
    state = tx.init(params)
    pointers = {x.unsafe_buffer_pointer() for x in jax.tree.leaves(params)}
    assert pointers.isdisjoint(x.unsafe_buffer_pointer() for x in jax.tree.leaves(state))
    update = jax.jit(tx.update)
    for _ in range(3):
        updates, state = update(params, state, params)
    assert updates["w"].dtype == updates["b"].dtype == np.float32
    assert update._cache_size() == 1


def test_interop_refuses_what_it_does_not_carry():
    params = {"w": jnp.ones((2, 3), BFLOAT16)}
    groups = describe(params, ("adam", {"learning_rate": 0.1}))
    for tx, name in (
        (jaxopt_impl.master_weights(jaxopt_impl.adam(0.1)), "MasterWeightsState"),
        (jaxopt_impl.stochastic_rounding(jaxopt_impl.adam(0.1), 0), "StochasticRoundingState"),
    ):
        with pytest.raises(ValueError, match=f"^to_torch_state_dict: {name} at the root is no part of a state of jaxopt_impl"):
            to_torch_state_dict(tx.init(params), groups)
    with pytest.raises(ValueError, match=r"^describe: adam with mu_dtype does not carry over"):
        describe(params, ("adam", {"learning_rate": 0.1, "mu_dtype": "bfloat16"}))
    p = torch.nn.Parameter(torch.ones(2, 3, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"^from_torch: Adam with mu_dtype does not carry over"):
        from_torch(torch_ref.Adam([p], mu_dtype="bfloat16"), params)
    with pytest.raises(
        ValueError, match=r"^from_torch: an optimizer of torch.optim or torch_ref is needed, .* got torch_ref's MasterWeights\.$"
    ):
        from_torch(torch_ref.MasterWeights([p], torch.optim.Adam), params)
