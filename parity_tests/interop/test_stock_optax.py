"""The states of optax's own transforms: read, written, refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_impl
from optparity import interop
from optparity.parity.bits import differing
from optparity.parity.streams import gradients, parameters
from optparity.registry import ROWS

from ..sampling import ACCUMULATORS, sampled
from .states import AFTER, BEFORE, SIZES, JaxRun


def test_an_optax_state_of_step_0_starts_as_ours():
    """SGD's first buffer is the gradient, −0 too; optax's trace starts from +0."""
    params = jnp.ones(3)
    state = interop.from_optax("sgd", optax.sgd(0.1, momentum=0.9).init(params), params, step=0)
    new = jaxopt_impl.sgd(0.1, momentum=0.9).init(params)
    assert not differing(np.asarray(state.momentum_buffer), np.asarray(new.momentum_buffer)).any()


def carried(name, theirs, params, drawn, **given):
    """A run of optax, and the state that it gives ours, which is written back to the same bits."""
    stock = JaxRun(theirs, params)
    for gradient in drawn:
        stock.step(gradient)
    state = interop.from_optax(name, stock.state, params, step=len(drawn), **given)
    back = interop.to_optax(name, state, theirs.init(params), **given)
    assert jax.tree.structure(back) == jax.tree.structure(stock.state)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(stock.state), strict=True):
        assert a.dtype == b.dtype
        assert not differing(np.asarray(a), np.asarray(b)).any()
    return stock, state


def stays_near(stock, ours, drawn):
    """The transform that goes on stays next to optax's own."""
    for gradient in drawn:
        stock.step(gradient)
        ours.step(gradient)
    for a, b in zip(jax.tree.leaves(ours.params), jax.tree.leaves(stock.params), strict=True):
        rtol, atol = (1e-2, 0.05) if a.dtype == jnp.bfloat16 else (1e-5, 1e-5)
        np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=rtol, atol=atol)


CASES = [(row, dtype) for row in ROWS if row.entry.stock_optax.states for dtype in ("float32", "bfloat16") if row not in ACCUMULATORS]


@pytest.mark.parametrize(
    ("row", "dtype"), sampled(CASES, lambda row, dtype: dtype == ("float32", "bfloat16")[ROWS.index(row) % 2]), ids=str
)
@pytest.mark.usefixtures("as_users_have_it")
def test_optax_states_are_read_and_written(row, dtype):
    """There and back is every bit. Of AMSGrad and dampening optax keeps something else: bits to carry, but no run to go on with."""
    params = parameters(SIZES, dtype)
    drawn = list(itertools.islice(gradients("normal", params), BEFORE + AFTER))
    arguments = {**row.arguments, "learning_rate": 0.125}  # a power of two divides without rounding
    theirs, ours = row.entry.stock_optax.make(**arguments), row.entry.jax(**arguments)
    stock, state = carried(row.optimizer, theirs, params, drawn[:BEFORE], learning_rate=0.125, bias_correction_nu=False)
    if not arguments.keys() & {"amsgrad", "dampening"}:
        stays_near(stock, JaxRun(ours, stock.params, state), drawn[BEFORE:])


@pytest.mark.usefixtures("as_users_have_it")
def test_a_schedule_of_optax_goes_on_at_its_step():
    params, rate = parameters(SIZES, "float32"), optax.linear_schedule(0.5, 0.1, 9)
    drawn = list(itertools.islice(gradients("normal", params), BEFORE + AFTER))
    stock, state = carried("sgd", optax.sgd(rate, momentum=0.9, nesterov=True), params, drawn[:BEFORE])
    stays_near(stock, JaxRun(jaxopt_impl.sgd(rate, momentum=0.9, nesterov=True), stock.params, state), drawn[BEFORE:])


@pytest.mark.usefixtures("as_users_have_it")
def test_optax_states_that_mean_something_else_are_refused():
    params = {"a": np.ones(3, np.float32)}
    momentum = optax.rmsprop(0.1, momentum=0.9).init(params)
    for (name, tx), arguments, message in [
        (("momentum", optax.sgd(0.1, momentum=0.9)), {}, "optax has no state of 'momentum': optax.sgd's trace is −v/η, other bits"),
        (("adamax", optax.adamax(0.1)), {}, "optax has no state of 'adamax': one of sgd, adagrad, rmsprop, adam, adamw, lion is needed"),
        (
            ("adam", optax.lion(0.1)),
            {},
            r"from_optax: ScaleByLionState at 0 is no part of optax's state of adam \(ScaleByAdamState, ScaleByAmsgradState\), and nothing",
        ),
        (("adam", optax.amsgrad(0.1)), {}, "optax's ScaleByAmsgradState does not carry over: its maximum is of the corrected"),
        (("sgd", optax.sgd(0.1, momentum=0.9)), {}, "from_optax: this sgd state holds no count of steps; step is needed"),
        (("adagrad", optax.adagrad(0.1)), {}, "from_optax: this adagrad state holds no count of steps; step is needed"),
        (("adam", optax.adam(0.1)), {"step": 3}, r"from_optax: one step is needed; got 3 \(step\), 0 \(0.count\)\."),
        (
            ("rmsprop", optax.rmsprop(0.1, momentum=0.9)),
            {"step": 3, "learning_rate": 0.1},
            "optax.rmsprop's momentum is −η times ours, which",
        ),
        (("rmsprop", optax.rmsprop(0.1, momentum=0.9)), {"step": 3}, "optax.rmsprop's momentum is −η times ours, which divides without ro"),
        (
            ("rmsprop", optax.rmsprop(0.1, bias_correction=True)),
            {"step": 3},
            "optax's ScaleByRmsWithCountState does not carry over: bias_co",
        ),
        (
            ("adam", optax.adam(0.1, mu_dtype=jnp.bfloat16)),
            {},
            "adam: exp_avg of leaf a has dtype bfloat16; the state that",
        ),
        (
            ("rmsprop", optax.rmsprop(optax.constant_schedule(0.5), momentum=0.9)),
            {"learning_rate": 0.5},
            "from_optax: rmsprop's momentum under a schedule keeps the learning rates that it was built with",
        ),
        (
            ("sgd", optax.chain(optax.trace(0.9), optax.trace(0.5))),
            {"step": 3},
            "from_optax: TraceState at 0 and TraceState at 1 are both momentum_buffer; give the one that goes on",
        ),
        (("adam", optax.sgd(0.1)), {"step": 0}, "from_optax: this state has no exp_avg, which adam needs; got no part of one"),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            interop.from_optax(name, tx.init(params), params, **arguments)
    tiny = jax.tree.map(lambda x: jnp.full_like(x, 1e-38), momentum)
    with pytest.raises(ValueError, match=r"^optax.rmsprop's momentum is −η times ours; divided by this η, some element"):
        interop.to_optax(
            "rmsprop", interop.from_optax("rmsprop", tiny, params, step=1, learning_rate=0.5), momentum, learning_rate=2.0**-40
        )
    ours = jaxopt_impl.adam(0.1, amsgrad=True).init(params)
    with pytest.raises(ValueError, match=r"^to_optax: max_exp_avg_sq has no place in this adam state of optax: ScaleByAdamState\."):
        interop.to_optax("adam", ours, optax.adam(0.1).init(params))
    for name, given, like, message in [
        (
            "rmsprop",
            jaxopt_impl.rmsprop(0.5, momentum=0.9).init(params),
            optax.rmsprop(optax.constant_schedule(0.5), momentum=0.9).init(params),
            "to_optax: rmsprop's momentum under a schedule keeps",
        ),
        (
            "sgd",
            jaxopt_impl.sgd(0.5, momentum=0.9).init(params),
            optax.chain(optax.trace(0.9), optax.trace(0.5)).init(params),
            "to_optax: TraceState at 0 and TraceState at 1 are both momentum_buffer",
        ),
        ("adam", ours, 5, "to_optax: int at the root is no part of optax's state of adam"),
        ("adam", jaxopt_impl.adam(0.1).init(params), (), "to_optax: exp_avg has no place in this adam state of optax: no part of one"),
        (
            "adam",
            optax.adam(0.1).init(params),
            optax.adam(0.1).init(params),
            "to_optax: ScaleByAdamState at 0 is no part of a state of jaxopt_impl",
        ),
        ("adam", jaxopt_impl.sgd(0.1).init(params), optax.adam(0.1).init(params), "to_optax: optax's ScaleByAdamState holds mu, but the"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            interop.to_optax(name, given, like, learning_rate=0.5)
    with pytest.raises(ValueError, match=r"^to_optax: optax's TraceState holds trace, but the sgd state has no momentum_buffer"):
        interop.to_optax("sgd", jaxopt_impl.sgd(0.1).init(params), optax.sgd(0.1, momentum=0.9).init(params))
