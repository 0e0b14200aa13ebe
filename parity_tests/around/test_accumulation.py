"""Accumulation: against arithmetic in NumPy, against optax.MultiSteps, and what it hands on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_impl
import torch_ref
from optparity.around.driven import Driven
from optparity.parity.compare import assert_identical

from ..sampling import sampled

SHAPES = {"w": (8, 3), "b": ()}
PARAMS = {name: np.asarray(np.random.default_rng(1).standard_normal(shape), np.float32) for name, shape in SHAPES.items()}
DTYPES = ("float32", "float64", "bfloat16", "float16")


def microbatches(count, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    return [{name: rng.standard_normal(shape).astype(jnp.dtype(dtype)) for name, shape in SHAPES.items()} for _ in range(count)]


def oracle(leaves, form, wide):
    """The mean of arrays, each operation rounded to their dtype; of halves computed in float32, or altogether in `wide`."""
    dtype = leaves[0].dtype
    computed = np.dtype("float64") if dtype == np.float64 else np.dtype("float32")

    def rounded(x):
        return x.astype(computed) if wide else x.astype(dtype).astype(computed)

    total = leaves[0].astype(computed)
    for n, g in enumerate(leaves[1:], 1):
        g = g.astype(computed)
        total = rounded(total + g) if form == "torch" else rounded(total + rounded(rounded(g - total) / computed.type(n + 1)))
    return (rounded(total / computed.type(len(leaves))) if form == "torch" else total).astype(dtype)


CASES = [(dtype, form, every, wide) for dtype in DTYPES for form in ("torch", "optax") for every in (1, 3, 4, 7) for wide in (False, True)]


@pytest.mark.parametrize(("dtype", "form", "every", "wide"), sampled(CASES, lambda *case: CASES.index(case) % 9 == 5))
def test_the_mean_is_that_of_numpy_arithmetic(dtype, form, every, wide):
    given = microbatches(2 * every, dtype)
    tx = jaxopt_impl.accumulate(optax.identity(), every, form, accumulator_dtype="float32" if wide else None)
    update = jax.jit(tx.update)
    state = tx.init(given[0])
    for i, gradient in enumerate(given, 1):
        updates, state = update(gradient, state)
        for name, u in updates.items():
            expected = oracle([g[name] for g in given[i - every : i]], form, wide) if i % every == 0 else np.full_like(u, -0.0)
            assert np.asarray(u).dtype == expected.dtype
            assert np.asarray(u).tobytes() == expected.tobytes(), (i, name)
        assert (int(state.microbatch), int(state.skipped)) == (i % every, 0)


def test_the_first_gradient_is_the_sum_itself():
    zero = jnp.asarray([-0.0, 0.0])
    tx = jaxopt_impl.accumulate(optax.identity(), 1)
    assert np.signbit(jax.jit(tx.update)(zero, tx.init(zero))[0]).tolist() == [True, False]


@pytest.mark.parametrize(("every", "same"), [(4, True), (3, False)])
def test_dividing_each_loss_gives_other_bits_unless_by_a_power_of_two(every, same):
    given = microbatches(every)
    tx = jaxopt_impl.accumulate(optax.identity(), every)
    update, state = jax.jit(tx.update), tx.init(given[0])
    for gradient in given:
        ours, state = update(gradient, state)
    p = torch.nn.Parameter(torch.ones(SHAPES["w"]))
    for gradient in given:
        ((p * torch.tensor(gradient["w"])).sum() / every).backward()
    assert np.array_equal(np.asarray(ours["w"]), p.grad.numpy()) == same


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("skip", [False, True])
def test_steps_are_taken_when_multisteps_takes_them(skip):
    """Over planted infinities; after one that was added, optax's mean stays NaN, ours begins anew."""
    given = microbatches(40)
    for i in (4, 5, 11, 30):
        given[i]["w"][2, 1] = [np.inf, np.nan][i % 2]
    should_skip = optax.skip_not_finite if skip else None
    stock = optax.MultiSteps(optax.sgd(0.1), 3, should_skip_update_fn=should_skip)
    tx = jaxopt_impl.accumulate(optax.sgd(0.1), 3, "optax", skip_nonfinite=skip)
    stock_update, update = jax.jit(stock.update), jax.jit(tx.update)
    theirs, state, steps = stock.init(PARAMS), tx.init(PARAMS), 0
    for gradient in given if skip else given[:4]:
        expected, theirs = stock_update(gradient, theirs, PARAMS)
        ours, state = update(gradient, state, PARAMS)
        assert int(state.microbatch) == int(theirs.mini_step)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7), ours, expected)
        steps += bool(np.any(ours["w"]))
    assert steps == (12 if skip else 1)
    assert int(state.skipped) == (4 if skip else 0)
    if not skip:
        for gradient in given[4:9]:
            _, theirs = stock_update(gradient, theirs, PARAMS)
            updates, state = update(gradient, state, PARAMS)
        assert np.isnan(theirs.acc_grads["w"]).any()
        assert np.isfinite(updates["w"]).all()
        assert np.any(updates["w"])


ABSENT = {"always": range(12), "in some": (0, 1, 6, 8, 11), "in the last": (2, 5)}
WITHOUT = [(form, absent) for form in ("torch", "optax") for absent in ABSENT]


@pytest.mark.parametrize(
    ("form", "absent"), sampled(WITHOUT, lambda form, absent: absent == {"torch": "in some", "optax": "in the last"}[form])
)
def test_leaves_without_a_gradient(form, absent):
    """Both sides agree, also where a leaf has one in some microbatches only."""
    given = [{**gradient, "w": None} if i in ABSENT[absent] else gradient for i, gradient in enumerate(microbatches(12))]
    tx = jaxopt_impl.accumulate(jaxopt_impl.sgd(0.1, momentum=0.9), 3, form)

    def torch_side(params):
        optimizer = torch_ref.SGD(params, lr=0.1, momentum=0.9)
        accumulator = torch_ref.Accumulator(optimizer, 3, form)
        return Driven(optimizer, accumulator.step, lambda: {"gathered": accumulator.gathered})

    report = assert_identical(tx, torch_side, PARAMS, given, state_map={"gathered": "gathered"})
    assert "gathered" in report.compared


def test_what_a_leaf_has_gathered_waits_for_the_step_at_which_it_has_a_gradient():
    tx = jaxopt_impl.accumulate(optax.identity(), 2)
    one = {"w": jnp.ones(2), "b": jnp.ones(())}
    state = tx.init(one)
    for gradient in (one, {**one, "w": None}, {**one, "w": None}, one):
        updates, state = tx.update(gradient, state)
    assert updates["w"].tolist() == [1.0, 1.0]  # of microbatches 1 and 4
    _, state = tx.update({"w": None, "b": None}, state)
    assert int(state.microbatch) == 1


def test_it_compiles_once_and_hands_on_what_it_is_given():
    seen = []

    def update(updates, state, params=None, **extra_args):
        seen.append((params, extra_args))
        return updates, state

    tx = jaxopt_impl.accumulate(optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update), 2)
    step = jax.jit(tx.update)
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = tx.init(params)
    for gradient in microbatches(4):
        _, state = step(gradient, state, params, value=jnp.ones(()))
    assert step._cache_size() == 1
    assert all(given is not None and extra.keys() == {"value"} for given, extra in seen)
    assert not {x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)} & {x.unsafe_buffer_pointer() for x in jax.tree.leaves(params)}


def backward(p, gradient):
    p.grad = None
    (p * torch.tensor(gradient["w"])).sum().backward()


def test_a_hook_stands_between_the_mean_and_the_optimizer():
    p = torch.nn.Parameter(torch.zeros(SHAPES["w"]))
    optimizer = torch.optim.SGD([p], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: torch.nn.utils.clip_grad_value_([p], 0.25))
    accumulator = torch_ref.Accumulator(optimizer, 2)
    stepped = []
    for gradient in microbatches(4):
        accumulator.zero_grad()
        backward(p, gradient)
        stepped.append(accumulator.step())
        if stepped[-1]:
            scheduler.step()
            assert p.grad.abs().max() == 0.25
    assert stepped == [False, True, False, True]
    assert scheduler.get_last_lr() == [0.25]


def test_a_state_dict_goes_on_in_the_midst_of_a_step():
    given = microbatches(7)
    p, whole = (torch.nn.Parameter(torch.zeros(SHAPES["w"])) for _ in range(2))
    one = torch_ref.Accumulator(torch_ref.Adam([p], lr=0.1), 3)
    expected = torch_ref.Accumulator(torch_ref.Adam([whole], lr=0.1), 3)
    for i, gradient in enumerate(given):
        if i == 4:
            saved = one.state_dict()
            assert saved["microbatch"] == 1
            one = torch_ref.Accumulator(torch_ref.Adam([p], lr=0.1), 3)
            one.load_state_dict(saved)
        for accumulator, q in ((one, p), (expected, whole)):
            backward(q, gradient)
            accumulator.step()
    assert torch.equal(p, whole)
    assert torch.equal(one.gathered[p], expected.gathered[whole])

    def loaded(every=3, form="torch", p=p, **changed):
        torch_ref.Accumulator(torch.optim.SGD([p]), every, form).load_state_dict({**saved, **changed})

    with pytest.raises(ValueError, match=r"^accumulate: 1 microbatches of form 'torch' do not go on with every=3, form='optax'\.$"):
        loaded(form="optax")
    with pytest.raises(ValueError, match=r"^accumulate: 1 microbatches of form 'torch' do not go on with every=1, form='torch'\.$"):
        loaded(every=1)
    with pytest.raises(ValueError, match=r"^accumulate: leaf params\[0\] has shape \(2,\) but its gathered gradient has \(8, 3\)\.$"):
        loaded(p=torch.nn.Parameter(torch.zeros(2)))
    with pytest.raises(ValueError, match=r"^accumulate: leaf params\[1\] has no place here;"):
        loaded(gathered={1: torch.zeros(8, 3)})
    del saved["gathered"]
    with pytest.raises(ValueError, match=r"^accumulate: the state_dict has no gathered; got form, microbatch, skipped, optimizer\.$"):
        loaded()


def test_gradients_that_do_not_fit_are_refused_with_the_same_text():
    half = jnp.ones(2, jnp.bfloat16)
    tx = jaxopt_impl.accumulate(optax.sgd(0.1), 2)
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    p.grad_dtype = torch.float32
    p.grad = torch.ones(2)
    with pytest.raises(TypeError) as ours:
        tx.update([half.astype(jnp.float32)], tx.init([half]))
    with pytest.raises(TypeError) as theirs:
        torch_ref.Accumulator(torch_ref.SGD([p]), 2).step()
    text = "accumulate: leaf params[0] has dtype float32 but its gathered gradient has bfloat16."
    assert str(ours.value) == str(theirs.value) == text
    with pytest.raises(ValueError, match=r"^accumulate: leaf params\['b'\] has no gathered gradient;"):
        tx.update({"w": half, "b": half}, tx.init({"w": half}))
    with pytest.raises(TypeError, match=r"^accumulate: leaf params\['n'\] has dtype int32;"):
        tx.init({"n": jnp.arange(2)})
    with pytest.raises(ValueError, match=r"^accumulate: accumulator_dtype float64 is not supported; float32 or None is needed\.$"):
        jaxopt_impl.accumulate(optax.sgd(0.1), 2, accumulator_dtype="float64")


def test_float32_gradients_of_half_parameters():
    """The mean has the dtype of the gradients, which an optimizer with a float32 state takes."""
    params = {name: x.astype(jnp.bfloat16) for name, x in PARAMS.items()}
    inner = jaxopt_impl.adamw(0.1, accumulator_dtype="float32")
    tx = jaxopt_impl.accumulate(inner, 3, accumulator_dtype="float32")

    def torch_side(params):
        optimizer = torch_ref.AdamW(params, lr=0.1, accumulator_dtype=torch.float32)
        accumulator = torch_ref.Accumulator(optimizer, 3, accumulator_dtype=torch.float32)
        return Driven(optimizer, accumulator.step, lambda: {"gathered": accumulator.gathered})

    assert_identical(tx, torch_side, params, microbatches(7))
