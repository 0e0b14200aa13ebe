"""Loss scale and steps left out: the decisions of stock torch.amp.GradScaler and optax.apply_if_finite, step for step."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_impl
import torch_ref
from optparity import interop
from optparity.around.driven import Driven
from optparity.parity.compare import assert_identical

from ..sampling import EXHAUSTIVE, sampled

HYPERS = {
    "default": {},
    "powers of two": {"init_scale": 2.0**20, "growth_interval": 7},
    "no powers of two": {"init_scale": 3.7, "growth_factor": 1.3, "backoff_factor": 0.7, "growth_interval": 2},
    "overflow": {"init_scale": 2.0**126, "growth_factor": 3.0, "growth_interval": 1, "backoff_factor": 0.9},
}


def planted(steps, dtype=np.float32, seed=0):
    """Gradients of 6 elements: runs of finite ones, and infinities and NaNs at random places."""
    rng = np.random.default_rng(seed)
    gradients = rng.standard_normal((steps, 6)).astype(dtype)
    for i in range(steps):
        if rng.random() < (0.5 if i // 50 % 2 else 0.04):
            gradients[i, rng.integers(6)] = rng.choice([np.inf, -np.inf, np.nan])
    return gradients


def run(scaler, optimizer_of, gradients, dtype):
    """Each step's scale and count, how often the optimizer stepped, and the parameters."""
    p = torch.nn.Parameter(torch.ones(6, dtype=dtype))
    optimizer = optimizer_of([p])
    steps = []
    optimizer.register_step_post_hook(lambda *_: steps.append(1))
    scaler.scale(torch.zeros(()))
    seen = []
    for g in gradients:
        p.grad = torch.tensor(g, dtype=dtype)
        scaler.step(optimizer)
        scaler.update()
        seen.append((scaler.get_scale(), scaler._get_growth_tracker(), len(steps), p.detach().double().tolist()))
    return seen


DTYPES = [torch.float32, torch.float64, torch.bfloat16]
STOCK = [(hyper, dtype) for hyper in HYPERS for dtype in DTYPES]


@pytest.mark.parametrize(("hyper", "dtype"), sampled(STOCK, lambda *case: STOCK.index(case) % 4 == 0), ids=str)
def test_torch_side_is_stock_gradscaler(hyper, dtype):
    """Scales, counts, and the parameters of a stock optimizer, over 600 steps with some 150 left out."""
    gradients = planted(600)
    sides = [
        run(scaler("cpu", **HYPERS[hyper]), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), gradients, dtype)
        for scaler in (torch_ref.GradScaler, torch.amp.GradScaler)
    ]
    assert sides[0] == sides[1]
    assert len({scale for scale, *_ in sides[0]}) > 5


@pytest.mark.parametrize("hyper", ["no powers of two", "overflow", *(pytest.param(name, marks=EXHAUSTIVE) for name in HYPERS)])
def test_jax_side_decides_as_stock_gradscaler(hyper):
    """The same scales and counts, and an inner step where it makes one."""
    gradients = planted(600)
    expected = run(torch.amp.GradScaler("cpu", **HYPERS[hyper]), lambda p: torch.optim.SGD(p, lr=0.1), gradients, torch.float32)
    tx = jaxopt_impl.loss_scale(optax.scale_by_schedule(lambda count: -1.0), **HYPERS[hyper])

    def step(state, gradient):
        _, state = tx.update(gradient, state)
        return state, (state.scale, state.growth_tracker, state.inner_state.count)

    _, seen = jax.jit(lambda gradients: jax.lax.scan(step, tx.init(jnp.ones(6)), gradients))(gradients)
    assert list(zip(*(x.tolist() for x in seen), strict=True)) == [step[:3] for step in expected]


def test_a_scale_that_would_be_infinite_is_not_taken():
    tx = jaxopt_impl.loss_scale(optax.identity(), init_scale=2.0**127, growth_interval=1)
    update, state = jax.jit(tx.update), tx.init(jnp.ones(2))
    for _ in range(2):
        _, state = update(jnp.ones(2), state)
    assert (state.scale.item(), state.growth_tracker.item()) == (2.0**127, 0)


@pytest.mark.parametrize("scale", [3.0, 65536.0])
def test_unscaling_is_a_product_with_the_reciprocal_that_float64_gives(scale):
    gradient = np.random.default_rng(2).standard_normal(500).astype(np.float32)
    tx = jaxopt_impl.loss_scale(optax.identity(), init_scale=scale)
    expected = gradient * np.float32(1 / np.float64(np.float32(scale)))
    assert np.asarray(jax.jit(tx.update)(gradient, tx.init(gradient))[0]).tobytes() == expected.tobytes()
    assert (scale == 65536.0) == np.array_equal(expected, gradient / np.float32(scale))


def test_a_loss_in_float16_finds_its_scale():
    """Gradients that underflow without a scale, and overflow at first with it; the overflow is seen in float16, not in what XLA keeps."""
    tx = jaxopt_impl.loss_scale(jaxopt_impl.sgd(0.5), growth_interval=100)
    p = jnp.full((3,), 2.0, jnp.float16)

    @jax.jit
    def step(p, state):
        gradient = jax.grad(lambda p: jaxopt_impl.scaled((p * p * jnp.float16(0.25)).sum(), state))(p)
        updates, state = tx.update(gradient, state, p)
        return optax.apply_updates(p, updates), state

    state = tx.init(p)
    scales = [float(state.scale)]
    for _ in range(4):
        p, state = step(p, state)
        scales.append(float(state.scale))
    assert scales == [65536.0, 32768.0, 32768.0, 32768.0, 32768.0]
    assert p.tolist() == [2.0 * 0.75**3] * 3


def test_scaled_finds_the_state():
    tx = optax.chain(optax.clip(1.0), jaxopt_impl.accumulate(jaxopt_impl.loss_scale(optax.sgd(0.1), 8.0), 2))
    state = tx.init(jnp.ones(2))
    assert jaxopt_impl.scaled(jnp.float32(3), state) == 24
    assert jaxopt_impl.scaled(jnp.bfloat16(3), state).dtype == jnp.float32
    for other, count in ((optax.sgd(0.1).init(jnp.ones(2)), 0), ((state, state), 2)):
        with pytest.raises(ValueError, match=rf"^scaled: one state of loss_scale is needed; got {count}\.$"):
            jaxopt_impl.scaled(jnp.float32(3), other)


@pytest.mark.parametrize("outer", ["loss_scale", pytest.param("accumulate", marks=EXHAUSTIVE)])
def test_with_accumulation(outer):
    """Each microbatch unscaled; or their sum."""
    gradients = [{"w": g} for g in planted(60)]
    params = {"w": np.ones(6, np.float32)}
    hyper = {"init_scale": 3.7, "growth_factor": 1.3, "growth_interval": 4}
    sgd = jaxopt_impl.sgd(0.1, momentum=0.9)
    if outer == "loss_scale":
        tx = jaxopt_impl.loss_scale(jaxopt_impl.accumulate(sgd, 3), **hyper)
    else:
        tx = jaxopt_impl.accumulate(jaxopt_impl.loss_scale(sgd, **hyper), 3, skip_nonfinite=True)

    def torch_side(params):
        optimizer, scaler = torch_ref.SGD(params, lr=0.1, momentum=0.9), torch_ref.GradScaler("cpu", **hyper)
        scaler.scale(torch.zeros(()))

        class Scaled:
            """What the accumulator takes for an optimizer."""

            param_groups, state = optimizer.param_groups, optimizer.state

            def step(self):
                scaler.step(inner)
                scaler.update()

        if outer == "loss_scale":
            accumulator = inner = torch_ref.Accumulator(optimizer, 3)
            step = Scaled().step
        else:
            inner = optimizer
            accumulator = torch_ref.Accumulator(Scaled(), 3, skip_nonfinite=True)
            step = accumulator.step
        return Driven(optimizer, step, lambda: {"scale": scaler._scale, "gathered": accumulator.gathered})

    assert {"scale", "gathered"} <= set(assert_identical(tx, torch_side, params, gradients).compared)


def scaler_and_optimizer(gradient, **hyper):
    p = torch.nn.Parameter(torch.zeros(2, dtype=gradient.dtype))
    p.grad = gradient
    scaler = torch_ref.GradScaler("cpu", 4.0, **hyper)
    scaler.scale(torch.zeros(()))
    return scaler, torch.optim.SGD([p], lr=1.0), p


def test_gradscaler_keeps_the_order_of_calls():
    scaler, optimizer, p = scaler_and_optimizer(torch.tensor([4.0, 8.0]))
    with pytest.raises(AssertionError, match="No inf checks were recorded prior to update"):
        scaler.update()
    scaler.unscale_(optimizer)
    assert p.grad.tolist() == [1.0, 2.0]
    with pytest.raises(RuntimeError, match="already been called on this optimizer"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert p.tolist() == [-1.0, -2.0]
    with pytest.raises(RuntimeError, match="after step"):
        scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=r"step\(\) has already been called"):
        scaler.step(optimizer)
    scaler.update()
    scaler.update(16.0)
    assert scaler.get_scale() == 16.0
    with pytest.raises(AssertionError, match="_scale is None"):
        torch_ref.GradScaler("cpu").unscale_(optimizer)


def test_gradscaler_is_torchs_in_all_else():
    scaler, optimizer, p = scaler_and_optimizer(torch.tensor([torch.inf, 8.0]), growth_interval=5)
    assert isinstance(scaler, torch.amp.GradScaler)
    scaler.step(optimizer)
    scaler.update()
    assert p.tolist() == [0.0, 0.0]
    stock = torch.amp.GradScaler("cpu")
    stock.load_state_dict(scaler.state_dict())
    again = torch_ref.GradScaler("cpu")
    again.load_state_dict(stock.state_dict())
    assert pickle.loads(pickle.dumps(again)).state_dict() == scaler.state_dict() == stock.state_dict()
    assert scaler.get_scale() == 2.0
    off = torch_ref.GradScaler("cpu", enabled=False)
    p.grad = torch.tensor([1.0, 8.0])
    off.step(optimizer)
    off.update()
    assert p.tolist() == [-1.0, -8.0]
    assert off.state_dict() == {}
    assert not off.is_enabled()


def test_gradscaler_takes_float16_two_optimizers_fused_ones_and_none_with_a_gradient():
    scaler, optimizer, p = scaler_and_optimizer(torch.tensor([4.0, 8.0], dtype=torch.float16))
    q = torch.nn.Parameter(torch.zeros(2))
    fused = torch.optim.Adam([q], lr=1.0, fused=True)
    q.grad = torch.tensor([torch.nan, 1.0])
    scaler.step(optimizer)
    scaler.step(fused)
    scaler.update()
    assert p.tolist() == [-1.0, -2.0]
    assert q.tolist() == [0.0, 0.0]
    assert scaler.get_scale() == 2.0  # one of the two had no finite gradient
    p.grad, q.grad = None, torch.tensor([2.0, 4.0])
    scaler.step(optimizer)
    scaler.step(fused)
    scaler.update()
    assert q.grad.tolist() == [1.0, 2.0]
    assert scaler._get_growth_tracker() == 1


def test_optimizers_with_fused_do_not_divide_by_the_scale_themselves():
    given = torch.tensor(np.random.default_rng(3).standard_normal(500), dtype=torch.float32)
    unscaled = []
    for scaler in (torch_ref.GradScaler("cpu", 3.0), torch.amp.GradScaler("cpu", 3.0)):
        p = torch.nn.Parameter(torch.zeros(500))
        p.grad = given.clone()
        scaler.scale(torch.zeros(()))
        scaler.step(torch.optim.Adam([p], fused=True))
        unscaled.append(p.grad)
    assert torch.equal(unscaled[0], given * float(np.float32(1 / 3)))
    assert not torch.equal(*unscaled)


def test_leaves_without_a_gradient():
    gradients = [{"w": g, "b": None} for g in planted(20)]
    params = {"w": np.ones(6, np.float32), "b": np.ones(2, np.float32)}
    tx = jaxopt_impl.loss_scale(jaxopt_impl.sgd(0.1, momentum=0.9), growth_interval=2)

    def torch_side(params):
        optimizer, scaler = torch_ref.SGD(params, lr=0.1, momentum=0.9), torch_ref.GradScaler("cpu", growth_interval=2)
        scaler.scale(torch.zeros(()))
        return Driven(optimizer, lambda: (scaler.step(optimizer), scaler.update()), lambda: {"scale": scaler._scale})

    assert "scale" in assert_identical(tx, torch_side, params, gradients).compared
    state = tx.init(params)
    updates, state = tx.update({"w": None, "b": None}, state)
    assert updates == {"w": None, "b": None}
    assert int(state.growth_tracker) == 1


@pytest.mark.parametrize("most", [pytest.param(0, marks=EXHAUSTIVE), 2])
def test_apply_if_finite_decides_as_optax_does(most):
    gradients = planted(300)
    inner = optax.scale_by_schedule(lambda count: -1.0)
    seen = []
    for tx in (optax.apply_if_finite(inner, most), jaxopt_impl.apply_if_finite(inner, most)):

        def step(state, gradient, tx=tx):
            updates, state = tx.update(gradient, state)
            counts = (state.notfinite_count, state.last_finite, state.total_notfinite)
            return state, (updates, *counts, state.inner_state.count)

        seen.append(jax.jit(lambda g, tx=tx, step=step: jax.lax.scan(step, tx.init(jnp.ones(6)), g))(gradients)[1])
    jax.tree.map(np.testing.assert_array_equal, *seen)
    assert seen[1][1].max() > 2
    left_out = np.diff([0, *seen[1][4].tolist()]) == 0
    assert np.signbit(seen[1][0][left_out]).all()
    assert left_out.any() == (most > 0)


def test_apply_if_finite_goes_on_from_a_state_dict():
    p = torch.nn.Parameter(torch.zeros(1))
    one, other = (torch_ref.ApplyIfFinite(torch.optim.SGD([p], lr=1.0), 2) for _ in range(2))
    p.grad = torch.tensor([torch.nan])
    assert [one.step(), one.step()] == [False, False]
    other.load_state_dict(one.state_dict())
    assert other.counts == (2, False, 2)
    assert other.step()
    with pytest.raises(ValueError, match=r"^apply_if_finite: the state_dict has no notfinite_count; got optimizer\.$"):
        one.load_state_dict({"optimizer": {}})


def test_a_scaler_goes_to_jax_and_back():
    hyper = {"growth_factor": 1.3, "backoff_factor": 0.7, "growth_interval": 5}
    scaler = torch.amp.GradScaler("cpu", 3.7, **hyper)
    tx = optax.chain(optax.identity(), jaxopt_impl.loss_scale(optax.sgd(0.1), **hyper))
    gradients = planted(60)
    before, after = gradients[:33], gradients[33:]
    run(scaler, lambda p: torch.optim.SGD(p, lr=0.1), before, torch.float32)
    state = interop.scaler_from_torch(scaler.state_dict(), tx.init(jnp.ones(6)), **hyper)
    assert interop.scaler_to_torch(state, **hyper) == scaler.state_dict()
    update = jax.jit(tx.update)
    for g in after:
        _, state = update(g, state)
    expected = run(scaler, lambda p: torch.optim.SGD(p, lr=0.1), after, torch.float32)[-1]
    written = interop.scaler_to_torch(state, **hyper)
    assert (written["scale"], written["_growth_tracker"]) == expected[:2]
    stock = torch.amp.GradScaler("cpu")
    stock.load_state_dict(written)
    assert stock.state_dict() == scaler.state_dict()


def test_a_scaler_that_does_not_carry_over_is_refused():
    good = torch.amp.GradScaler("cpu").state_dict()
    state = jaxopt_impl.loss_scale(optax.sgd(0.1)).init(jnp.ones(2))
    refused = [
        ({}, "the state_dict is empty, as that of a disabled GradScaler is."),
        ({k: v for k, v in good.items() if k != "scale"}, "scale is missing."),
        ({**good, "growth_factor": 4.0}, "growth_factor is 4.0 in the state_dict, 2.0 here; make loss_scale with the same."),
        ({**good, "growth_interval": 7}, "growth_interval is 7 in the state_dict, 2000 here; make loss_scale with the same."),
        ({**good, "scale": float("nan")}, "scale is a finite number >= 0; got nan."),
        ({**good, "scale": 1e39}, "scale is a finite number >= 0; got 1e+39."),
        ({**good, "_growth_tracker": -1}, "_growth_tracker is a whole number from 0 on; got -1."),
        ({**good, "_growth_tracker": "1"}, "_growth_tracker is a number; got '1'."),
    ]
    for state_dict, message in refused:
        with pytest.raises(ValueError, match=r"^scaler_from_torch: ") as error:
            interop.scaler_from_torch(state_dict, state)
        assert str(error.value) == f"scaler_from_torch: {message}"
    with pytest.raises(ValueError, match=r"^scaler_to_torch: one state of loss_scale is needed; got 0\.$"):
        interop.scaler_to_torch(optax.sgd(0.1).init(jnp.ones(2)))


def test_interop_reads_through_a_loss_scale_and_refuses_what_is_gathered():
    params = {"w": jnp.ones(2)}
    tx = jaxopt_impl.accumulate(jaxopt_impl.loss_scale(jaxopt_impl.adam(0.1)), 2)
    state = tx.init(params)
    groups = interop.describe(params, ("adam", {"learning_rate": 0.1}), parameters=["w"])
    update = jax.jit(tx.update)
    for _ in range(2):
        _, state = update(params, state, params)
    assert interop.to_torch_state_dict(state, groups)["state"][0]["step"] == 1
    _, state = update(params, state, params)
    with pytest.raises(ValueError, match=r"accumulate at the root has gathered gradients in 1 microbatches, which would be lost;"):
        interop.to_torch_state_dict(state, groups)
