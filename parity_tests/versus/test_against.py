"""Any two optimizers side by side: what is compared, what is found, what is refused."""

from typing import Any

import jax
import numpy as np
import optax
import pytest
import torch

import jaxopt_impl
import torch_ref
from optparity.parity.streams import gradients, parameters
from optparity.parity.subnormals import torch_flushes
from optparity.versus import Course, Mode, Named, Place, Result, against

pytestmark = pytest.mark.usefixtures("as_users_have_it")
SMALL = {"w": (5, 3), "b": (3,), "s": ()}
ONE = {"w": (7,)}  # our own rules take long to compile


def run(first, second, *, stream="normal", dtype="float32", steps=4, sizes: Any = SMALL, **how) -> Result:
    params = parameters(sizes, dtype)
    return against(first, second, params, gradients(stream, params), steps=steps, **how)


def adamw(**arguments):
    return lambda params: torch.optim.AdamW(params, lr=0.1, **arguments)


def test_our_own_pair_is_the_same_in_bits():
    found = run(jaxopt_impl.adam(0.1), lambda params: torch_ref.Adam(params, lr=0.1), stream="subnormal", sizes=ONE)
    assert found.same
    assert found.compared == ("params", "exp_avg", "exp_avg_sq", "step")
    assert found.not_compared == {}
    assert found.course.steps == [1, 2, 3, 4]
    assert str(found.course.mode) == "bits"


def test_optax_against_torch_by_the_names_that_mean_the_same():
    tx = optax.adamw(0.1, weight_decay=1e-2)
    found = run(tx, adamw())
    assert found.compared == ("params", "count = step", "mu = exp_avg", "nu = exp_avg_sq")
    assert not found.same
    assert run(tx, adamw(), mode=Mode(rtol=1e-5, atol=1e-4)).same
    assert not run(tx, adamw(eps=1e-2), mode=Mode(rtol=1e-5, atol=1e-4)).same


def test_either_framework_may_be_first():
    tx = optax.adamw(0.1, weight_decay=1e-2)
    one, other = run(tx, adamw()).course, run(adamw(), tx).course
    assert (one.first, one.second, other.first, other.second) == ("jax", "torch", "torch", "jax")
    assert one.parting.step == other.parting.step
    assert (one.parting.first, one.parting.second) == (other.parting.second, other.parting.first)


def test_optax_against_optax():
    """Without torch's names: each field by its own."""
    found = run(optax.sgd(0.1, 0.9), optax.sgd(0.1, 0.9))
    assert found.same
    assert found.compared == ("params", "trace")
    found = run(optax.sgd(0.1, 0.9), optax.sgd(0.1, 0.9, nesterov=True))
    assert str(found.course.parting).startswith("step 1, params['b'][0]: 0x")
    assert [str(place) for place in found.course.distances if not found.same_at(place)] == ["params['b']", "params['s']", "params['w']"]


def test_torch_against_torch():
    found = run(adamw(), adamw(fused=True), mode=Mode(rtol=1e-5, atol=1e-4))
    assert found.same
    assert (found.course.first, found.course.second) == ("first", "second")
    assert not run(adamw(), adamw(amsgrad=True, betas=(0.9, 0.9))).same


def test_torch_alone_keeps_subnormals_and_its_threads(monkeypatch):
    """Only beside JAX it has to do as JAX does."""
    seen = []

    class Watched(torch.optim.SGD):
        def step(self):
            seen.append(torch_flushes())
            super().step()

    run(lambda params: Watched(params, 0.1), lambda params: Watched(params, 0.1), steps=1)
    run(optax.sgd(0.1), lambda params: Watched(params, 0.1), steps=1)
    assert seen == [False, False, True]
    assert not torch_flushes()


def test_halves_and_float64():
    for dtype in ("bfloat16", "float16", "float64"):
        found = run(jaxopt_impl.momentum(0.1), lambda params: torch_ref.Momentum(params, lr=0.1), dtype=dtype, sizes=ONE)
        assert found.same, found.course.parting


def test_a_gradient_may_be_none_and_a_loop_may_be_closed():
    """A counter is compared for leaves that have had every gradient, state from a leaf's first one on."""

    def half(params, step):
        return {"w": params["w"] * np.float32(0.5), "b": None if step < 3 else params["b"]}

    params = parameters({"w": (4,), "b": (2,)}, "float32")
    found = against(jaxopt_impl.adam(0.1), lambda params: torch_ref.Adam(params, 0.1), params, half, steps=4)
    steps = {str(place): list(of_steps) for place, of_steps in found.course.distances.items()}
    assert steps["exp_avg['b']"] == [3, 4]
    assert steps["step['w']"] == [1, 2, 3, 4]
    assert "step['b']" not in steps
    assert found.course.distances[Place("params", "['b']")][2].same
    assert not found.course.distances[Place("params", "['b']")][3].same  # to the transform it is the third step, to torch the first


def test_state_may_be_left_out_or_mapped():
    assert run(optax.adam(0.1), optax.adam(0.1), state=False).compared == ("params",)
    renamed = lambda params: torch.optim.Rprop(params, lr=0.1)  # noqa: E731
    found = run(optax.rprop(0.1), renamed, state_map={"prev_updates": "prev"})
    assert "prev_updates = prev" in found.compared
    found = run(optax.rprop(0.1), renamed)
    assert found.not_compared == dict.fromkeys(
        ("prev_updates of jax", "prev of torch", "step of torch"), found.not_compared["prev of torch"]
    )


def test_a_field_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"state_map nu=sum: torch has no state field sum; it has: step, exp_avg, exp_avg_sq\."):
        run(optax.adam(0.1), adamw(), state_map={"nu": "sum"})


def test_state_of_another_shape_is_named_not_compared():
    found = run(optax.adafactor(0.1, min_dim_size_to_factor=2), lambda params: torch.optim.Adafactor(params), sizes={"w": (4, 3)})
    assert found.not_compared["v_row = row_var['w']"] == "one is float32[3] and float32[4, 1] the other"


def test_what_does_not_fit_is_refused():
    params = parameters(SMALL, "float32")
    step = {name: np.zeros(shape, np.float32) for name, shape in SMALL.items()}
    tx = optax.sgd(0.1)
    for gradient, message in (
        ({**step, "b": np.zeros(4, np.float32)}, r"gradients of step 1: leaf \['b'\] is float32\[4\]; the parameter is float32\[3\]\."),
        ({**step, "b": np.zeros(3)}, r"leaf \['b'\] is float64\[3\]; the parameter is float32\[3\]"),
        ({"w": step["w"]}, "gradients of step 1: "),
    ):
        with pytest.raises(ValueError, match=message):
            against(tx, tx, params, [gradient])
    for arguments, message in (
        ({"gradients": []}, "no step was compared"),
        ({"gradients": [step], "steps": 0}, "no step was compared"),
        ({"gradients": lambda params, step: params}, "a closed loop does not end by itself"),
        ({"gradients": [step], "form": "scan"}, "form is one of jit, train_step, eager; got 'scan'"),
        ({"gradients": [step], "params": {}}, "params: there is no leaf"),
        ({"gradients": [step], "params": {"w": np.zeros(3, int)}}, r"params: leaf \['w'\] has dtype int64"),
        ({"gradients": [step], "params": {"w": np.zeros(3)}, "float64": True}, r"float64: leaf \['w'\] is float64 already"),
    ):
        with pytest.raises(ValueError, match=message):
            against(tx, tx, **{"params": params, **arguments})
    with pytest.raises(TypeError, match=r"against: a Named, an optax transform, or a callable .* is needed; got int"):
        against(tx, 3, params, [step])


def broken(update):
    """An optax transform with this update."""
    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lambda params: torch.optim.LBFGS(params), "^torch fails at step 1: TypeError: LBFGS.step"),
        (lambda params: torch.optim.SGD(params, lr=-1), "^torch cannot be made: ValueError: Invalid learning rate: -1"),
        (lambda params: torch.optim.Muon(params), "^torch cannot be made: ValueError: Muon only supports 2D parameters"),
    ],
)
def test_a_torch_optimizer_that_fails_is_named(optimizer, message):
    with pytest.raises(ValueError, match=message) as refused:
        run(optax.sgd(0.1), optimizer)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (broken(lambda g, state, params: 1 / 0), "^jax fails at step 1: ZeroDivisionError: division by zero"),
        (optax.polyak_sgd(), "^jax fails at step 1: TypeError: "),
        (
            broken(lambda g, state, params: (jax.tree.map(lambda x: x[None], g), state)),
            r"^params\['b'\] is float32\[1, 3\] in jax, float32\[3\] in ",
        ),
        (optax.GradientTransformation(lambda params: {}["no"], optax.identity().update), "^jax fails in init: KeyError: 'no'"),
    ],
)
def test_a_transform_that_fails_is_named(optimizer, message):
    with pytest.raises(ValueError, match=message) as refused:
        run(optimizer, adamw())
    assert "\n" not in str(refused.value)


def test_an_optimizer_by_name():
    found = run(Named("jax", "jaxopt_impl:sgd", {"learning_rate": 0.1}), Named("torch", "torch_ref:SGD", {"lr": 0.1}), sizes=ONE)
    assert found.same
    assert (found.course.first, found.course.second) == ("jaxopt_impl.sgd(learning_rate=0.1)", "torch_ref.SGD(lr=0.1)")
    twice = run(Named("jax", "optax:adam", {"learning_rate": 0.1}), Named("jax", "optax:adam", {"learning_rate": 0.1})).course
    assert (twice.first, twice.second) == ("first optax.adam(learning_rate=0.1)", "second optax.adam(learning_rate=0.1)")


@pytest.mark.parametrize("form", ["jit", "train_step", "eager"])
def test_each_form_calls_the_transform(form):
    assert run(jaxopt_impl.sgd(0.1), lambda params: torch_ref.SGD(params, lr=0.1), form=form, sizes=ONE).same


def test_everything_found_goes_into_json():
    import json

    found = run(optax.adamw(0.1), adamw(eps=1e-2), float64=True, steps=2)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["same"] is False
    assert document["parting"].startswith("step 1, ")
    place = next(place for place in document["places"] if (place["name"], place["leaf"]) == ("mu = exp_avg", "['w']"))
    assert place["stage"] == "state"
    assert place["steps"] == [1, 2]
    assert place["same"][0] in (True, False)
    told = {f"{of['stage']}{of['leaf']}": of["kind"] for of in document["rounding"]}
    assert told["params['w']"] == "another formula"
    assert document["in_float64"]["first"] == "jax"
    assert "in_float64" not in run(optax.sgd(0.1), optax.sgd(0.1), steps=1).to_dict()


def test_nan_on_one_side_is_infinitely_far():
    course = Course("a", "b")
    course.note(1, Place("params", "['w']"), np.array([1.0, np.nan]), np.array([1.0, 2.0]))
    distance = course.distances[Place("params", "['w']")][1]
    assert (distance.same, distance.differing, distance.absolute) == (False, 1, np.inf)
    assert course.to_dict()["places"][0]["absolute"] == ["inf"]
