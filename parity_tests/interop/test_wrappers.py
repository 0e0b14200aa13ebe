"""States of ours and of stock optax inside of what optax puts around them: there and back, every moment at its parameter."""

from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_impl
from optparity import interop

from ..sampling import sampled
from .states import state_dicts_same
from .wrapped import (
    APART,
    ARGUMENTS,
    AROUND,
    FORMS,
    LABELS,
    PARAMS,
    PATHS,
    RATE,
    STEP,
    as_orbax_has_it,
    code,
    coded,
    described,
    names_its_parameters,
    ours,
    same,
    stock,
)

EACH = [(name, around, form) for name in ARGUMENTS for around in AROUND for form in FORMS]


def of_cycle(*case):
    """Each wrapper with each optimizer and each form in some case, but not the product."""
    name, around, form = case
    return (list(ARGUMENTS).index(name) + list(AROUND).index(around) + list(FORMS).index(form)) % 3 == 0


def given(name) -> dict[str, Any]:
    """What `from_optax` and `to_optax` have to be told, as nothing in the state tells it."""
    return {"learning_rate": RATE} if name == "rmsprop" else {}


@pytest.mark.parametrize(("name", "around", "form"), sampled(EACH, of_cycle), ids=str)
def test_from_optax_and_back(name, around, form):
    tx = AROUND[around](stock(name))
    state = coded(name, tx.init(PARAMS))
    told = given(name) if name in ("adam", "adamw") or counts_steps(around) else {**given(name), "step": STEP}
    found = interop.from_optax(name, FORMS[form](state), PARAMS, **told)
    assert jax.tree.structure(found) == jax.tree.structure(ours(name)().init(PARAMS))
    names_its_parameters(found)
    new = begun(around, tx, state)
    same(interop.to_optax(name, found, new, **given(name)), state)
    same(interop.to_optax(name, found, FORMS[form](new), **given(name)), FORMS[form](state))


def counts_steps(around):
    """Whether something around a state without a count tells its step: the innermost that can is not one that leaves out steps."""
    return "inject" in around or ("MultiSteps" in around and not around.startswith("apply_if_finite in"))


def begun(around, tx, state):
    """A new state to be filled. A wrapper that leaves out steps of what is inside has a count of its own, which stays as it is there."""
    skips = [word for word in ("MultiSteps", "apply_if_finite") if word in around]
    return jax.tree.map(lambda new, old: old if len(skips) == 2 and new.dtype == np.int32 else new, tx.init(PARAMS), state)


@pytest.mark.parametrize(("name", "around", "form"), sampled(EACH, of_cycle), ids=str)
def test_to_torch_and_back(name, around, form):
    tx = AROUND[around](ours(name))
    state, groups = coded(name, tx.init(PARAMS)), described(PARAMS, (name, {"learning_rate": RATE, **ARGUMENTS[name]}))
    written = interop.to_torch_state_dict(FORMS[form](state), groups)
    bare = coded(name, ours(name)().init(PARAMS))
    state_dicts_same(written, interop.to_torch_state_dict(bare, groups))
    for i, path in enumerate(PATHS):
        for field in set(written["state"][i]) - {"step"}:
            assert (written["state"][i][field].numpy() == code(field, path)).all()
    step = None if "step" in written["state"][0] else STEP
    back = interop.from_torch(written, PARAMS, optimizer=groups[0].optimizer, parameters=PATHS, step=step)
    same(back.state, bare)
    new = begun(around, tx, state)
    same(interop.wrapped(back.state, new), state)
    same(interop.wrapped(state, FORMS[form](new)), FORMS[form](state))


PART = [(name, around, form) for name in ARGUMENTS for around in APART for form in FORMS]
TRAINED = {"two labels", "multi_transform in a chain", "inject in a partition"}  # all leaves are; of the others the w's alone


def trained(around) -> set[str]:
    return set(PATHS) if around in TRAINED else {"dec.w", "enc.w"}


def groups_of(name, around, labels=(0, 1)):
    """Torch's groups of what is trained: the one of the w's, or one for each label."""
    pair = (name, {"learning_rate": RATE, **ARGUMENTS[name]})
    if around in TRAINED:
        return described(PARAMS, dict.fromkeys(labels, pair), labels=jax.tree.map(lambda i: labels[i], LABELS))
    return described({key: {"w": tree["w"]} for key, tree in PARAMS.items()}, pair)


@pytest.mark.parametrize(("name", "around", "form"), sampled(PART, lambda *case: PART.index(case) % 2 == 0), ids=str)
def test_of_some_leaves_from_optax_and_back(name, around, form):
    """What comes back is the state of ours in the same mask or partition, whatever else was around it."""
    tx = APART[around](stock(name))
    state = coded(name, tx.init(PARAMS))
    labels = {0: name, 1: name} if around in TRAINED else name
    told = {**given(name), **({} if name in ("adam", "adamw") else {"step": STEP})}
    found = interop.from_optax(labels, FORMS[form](state), PARAMS, **told)
    names_its_parameters(found, trained(around))
    expected = {
        "masked": optax.masked(ours(name)(), jax.tree.map(bool, LABELS)),
        "one label and frozen": APART["one label and frozen"](ours(name)),
        "selective_transform": APART["selective_transform"](ours(name)),
    }.get(around, APART["two labels"](ours(name)))
    if form == "made" or around in TRAINED or around == "masked":
        assert jax.tree.structure(found) == jax.tree.structure(expected.init(PARAMS))
    else:  # the labels are strings there
        same(interop.wrapped(found, expected.init(PARAMS)), coded(name, expected.init(PARAMS)))
    same(interop.to_optax(labels, found, tx.init(PARAMS), **given(name)), state)


@pytest.mark.parametrize(("name", "around", "form"), sampled(PART, lambda *case: PART.index(case) % 2 == 1), ids=str)
def test_of_some_leaves_to_torch_and_back(name, around, form):
    tx = APART[around](ours(name))
    state, groups = coded(name, tx.init(PARAMS)), groups_of(name, around)
    written = interop.to_torch_state_dict(FORMS[form](state), groups)
    order = [leaf.path for group in groups for leaf in group.leaves]
    assert set(order) == trained(around)
    for i, path in enumerate(order):
        assert written["state"][i].keys() - {"step"}
        for field in written["state"][i].keys() - {"step"}:
            assert (written["state"][i][field].numpy() == code(field, path)).all()
    state_dicts_same(interop.to_torch_state_dict(FORMS[form](state), groups_of(name, around, ("z", "a"))), written)  # leaves decide
    if around in TRAINED:
        step = None if "step" in written["state"][0] else STEP
        back = interop.from_torch(written, PARAMS, optimizer=groups[0].optimizer, parameters=order, step=step)
        same(interop.wrapped(back.state, tx.init(PARAMS)), state)


def test_each_label_may_be_another_optimizer():
    make: dict[Hashable, Any] = {"a": ours("adam")(), "s": ours("sgd")(), "p": jaxopt_impl.sgd(RATE), "z": optax.set_to_zero()}
    theirs: dict[Hashable, Any] = {"a": stock("adam")(), "s": stock("sgd")(), "p": optax.sgd(RATE), "z": optax.set_to_zero()}
    labels = {"dec": {"b": "a", "w": "s"}, "enc": {"b": "p", "w": "z"}}
    tx, stocks = optax.partition(make, labels), optax.partition(theirs, labels)
    state = {"inner_states": stocks.init(PARAMS).inner_states}
    state = stocks.init(PARAMS)._replace(
        inner_states={label: coded({"s": "sgd"}.get(label, "adam"), each) for label, each in state["inner_states"].items()}
    )
    names = {"a": "adam", "s": "sgd", "p": "sgd"}
    for form in FORMS.values():
        found = interop.from_optax(names, form(state), PARAMS, step=STEP)
        assert jax.tree.structure(found) == jax.tree.structure(tx.init(PARAMS))
        names_its_parameters(found, {"dec.b", "dec.w"})
        same(interop.to_optax(names, found, stocks.init(PARAMS)), state)
    for wrong, message in [
        ({"a": "adam"}, r"from_optax: TraceState at inner_states\.s\.inner_state\.0\.0 is no part of optax's state of adam"),
        (
            {"s": "sgd", "a": "sgd"},
            r"from_optax: ScaleByAdamState at inner_states\.a\.inner_state\.0\.0 is no part of optax's state of sgd",
        ),
        (
            {"a": "sgd", "s": "adam"},
            r"from_optax: ScaleByAdamState at inner_states\.a\.inner_state\.0\.0 is no part of optax's state of sgd",
        ),
        ({"s": "sgd", "a": "adam", "x": "sgd"}, r"from_optax: the label 'x' is not once among 'a', 'p', 's', 'z'\.$"),
        ("sgd", r"from_optax: ScaleByAdamState at inner_states\.a\.inner_state\.0\.0 is no part of optax's state of sgd"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            interop.from_optax(wrong, state, PARAMS, step=STEP)
    plain = optax.partition({0: optax.sgd(RATE), 1: optax.set_to_zero()}, LABELS).init(PARAMS)
    with pytest.raises(ValueError, match=r"^from_optax: no part of this partition holds state of sgd; a mapping from its labels to names"):
        interop.from_optax("sgd", plain, PARAMS, step=STEP)
    scheduled = optax.partition({"a": optax.adam(RATE), "b": optax.sgd(optax.constant_schedule(RATE))}, {"dec": "a", "enc": "b"})
    with pytest.raises(ValueError, match=r"^from_optax: the label 'b' at the root holds a count; name it in a mapping"):
        interop.from_optax("adam", as_orbax_has_it(scheduled.init(PARAMS)), PARAMS)


WHERE_OURS = "is no part of a state of jaxopt_impl .*, and nothing that is read through; give the state beside it"
ADAM = {"learning_rate": RATE}
GROUPS = described(PARAMS, ("adam", ADAM))
BARE = coded("adam", ours("adam")().init(PARAMS))


def test_what_would_be_lost_is_refused():
    """And the state inside, given alone, is what the message says it is."""
    for make, read in [
        (jaxopt_impl.adam, lambda state: interop.to_torch_state_dict(state, GROUPS)),
        (optax.adam, lambda state: interop.from_optax("adam", state, PARAMS)),
    ]:
        new = optax.MultiSteps(make(RATE), 3).init(PARAMS)
        half = new._replace(mini_step=jnp.asarray(2))
        acc = new._replace(acc_grads=jax.tree.map(lambda g: g * np.float32(np.inf), new.acc_grads))  # what an update leaves of an inf
        finite = optax.apply_if_finite(make(RATE), 3).init(PARAMS)._replace(notfinite_count=jnp.asarray(2))
        ema = optax.chain(optax.ema(0.5), make(RATE)).init(PARAMS)
        for state, message in [
            (half, "MultiSteps at the root has gathered gradients in 2 mini-steps, which would be lost; take the mini-steps up to its upd"),
            (as_orbax_has_it(half), "MultiSteps at the root has gathered gradients in 2 mini-steps"),
            ({"opt": half}, "MultiSteps at opt has gathered gradients in 2 mini-steps"),
            (acc, "MultiSteps at the root has gathered gradients in 0 mini-steps"),
            (finite, "apply_if_finite at the root has left out the last 2 updates, and counts on from there; give its inner_state"),
            (ema, "EmaState at 0 is no part of .*, and nothing that is read through; give the state beside it, or inside of it"),
            (as_orbax_has_it(ema), r"an array at 0\.count is no part of "),
            ({"x": "text", "y": BARE}, "str at x is no part of "),
            (half._replace(mini_step=jnp.ones(1, jnp.int32)), r"mini_step is a whole number; got int32\[1\]"),
        ]:
            with pytest.raises(ValueError, match=f"^(to_torch_state_dict|from_optax): {message}"):
                read(state)
        for inside in (half.inner_opt_state, finite.inner_state, ema[1]):
            read(inside)


def test_hyper_parameters_are_those_of_the_group():
    inject = optax.inject_hyperparams(jaxopt_impl.adamw)
    arguments = {"learning_rate": 0.1, "b1": 0.8, "weight_decay": 0.3}  # none of which float32 has
    groups = described(PARAMS, ("adamw", arguments))
    state = inject(**arguments).init(PARAMS)
    written = interop.to_torch_state_dict(state, groups)["param_groups"][0]
    assert (written["lr"], written["betas"][0], written["weight_decay"]) == (0.1, 0.8, 0.3)
    state.hyperparams["learning_rate"] = jnp.float32(0.05)
    given = interop.to_torch_state_dict(state, groups, learning_rate=state.hyperparams["learning_rate"])
    assert given["param_groups"][0]["lr"] == float(np.float32(0.05))
    schedule = optax.constant_schedule(0.25)
    scheduled = optax.chain(jaxopt_impl.adamw(1.0, b1=0.8, weight_decay=0.3), optax.scale_by_schedule(schedule))
    for wrong, message in [
        (state, r"learning_rate is 0\.05\d* at the root, 0\.1 in group 0; give learning_rate"),
        (as_orbax_has_it(state), r"learning_rate is 0\.05\d* at the root, 0\.1 in group 0; give learning_rate"),
        (inject(0.1, b1=0.8).init(PARAMS), r"weight_decay is 0\.01\d* at the root, 0\.3 in group 0; the group has to have it too"),
        (
            inject(schedule, b1=0.8, weight_decay=0.3).init(PARAMS),
            r"the learning rate follows a schedule at hyperparams_states\.learning_rate",
        ),
        (scheduled.init(PARAMS), r"the learning rate follows a schedule at 1\.count; learning_rate is needed"),
        (
            inject(0.1, b1=schedule, weight_decay=0.3).init(PARAMS),
            r"b1 follows a schedule at hyperparams_states\.b1\.count; a group of torch",
        ),
        (
            optax.inject_hyperparams(lambda lr: jaxopt_impl.adamw(lr))(0.1).init(PARAMS),
            "lr at the root is no argument of adamw; give the inner_state there, to do without it",
        ),
    ]:
        with pytest.raises(ValueError, match=f"^to_torch_state_dict: {message}"):
            interop.to_torch_state_dict(wrong, groups)
    beside = optax.chain(optax.inject_hyperparams(optax.clip)(0.5), jaxopt_impl.adamw(0.1))  # its numbers are not the optimizer's
    interop.to_torch_state_dict(beside.init(PARAMS), groups)
    for state in (inject(schedule, b1=0.8, weight_decay=0.3).init(PARAMS), scheduled.init(PARAMS)):
        assert interop.to_torch_state_dict(state, groups, learning_rate=schedule)["param_groups"][0]["lr"] == 0.25


def twice(tx):
    """The state after two updates."""
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    for _ in range(2):
        _, state = update(PARAMS, state, PARAMS)
    return state


@pytest.mark.usefixtures("as_users_have_it")
def test_counts_that_disagree_are_refused():
    inject = optax.inject_hyperparams(jaxopt_impl.adam)(RATE).init(PARAMS)
    scheduled = optax.inject_hyperparams(jaxopt_impl.adam)(optax.constant_schedule(RATE)).init(PARAMS)
    multi = optax.MultiSteps(jaxopt_impl.adam(RATE), 2).init(PARAMS)
    three = jnp.asarray(3, jnp.int32)
    for state, message in [
        (inject._replace(count=three), "the count at count stands at 3, the state at inner_state at step 0"),
        (multi._replace(gradient_step=three), "the count at gradient_step stands at 3, the state at inner_opt_state at step 0"),
        (
            scheduled._replace(hyperparams_states={"learning_rate": optax.ScaleByScheduleState(three)}),
            r"the schedule of learning_rate at hyperparams_states\.learning_rate\.count stands at 3, the state at inner_state at step 0",
        ),
    ]:
        with pytest.raises(ValueError, match=f"^to_torch_state_dict: {message}"):
            interop.to_torch_state_dict(state, GROUPS, learning_rate=RATE)
    theirs = optax.inject_hyperparams(optax.adam)(RATE).init(PARAMS)._replace(count=three)
    with pytest.raises(ValueError, match=r"^from_optax: one step is needed; got 0 \(inner_state\.0\.count\), 3 \(count\)\."):
        interop.from_optax("adam", theirs, PARAMS)
    inside = optax.inject_hyperparams(lambda learning_rate: optax.MultiSteps(optax.adam(learning_rate), 2).gradient_transformation())
    state = twice(inside(RATE))
    assert int(state.count) == 2
    assert int(interop.from_optax("adam", state, PARAMS).step) == 1  # the count outside is of mini-steps
    state = twice(inside(optax.constant_schedule(RATE)))
    with pytest.raises(ValueError, match=r"^from_optax: one step is needed; got 1 .*, 2 \(hyperparams_states\.learning_rate\.count\)"):
        interop.from_optax("adam", state, PARAMS)  # a schedule of ours would go on elsewhere


def test_two_states_are_one_too_many():
    """Candidates are named; neither is taken."""
    twice = optax.chain(ours("adam")(), ours("adam")()).init(PARAMS)
    some, rest = (optax.masked(ours("adam")(), jax.tree.map(lambda i, chosen=chosen: i == chosen, LABELS)) for chosen in (0, 1))
    apart = optax.chain(some, rest).init(PARAMS)
    two = optax.partition({"a": ours("adam")(), "b": ours("adam")()}, {"dec": "a", "enc": "b"}).init(PARAMS)
    overlapping = two._replace(inner_states={**two.inner_states, "b": two.inner_states["a"]})
    pair = ("adam", ADAM)
    by_label = described(PARAMS, {"a": pair, "b": pair}, labels={"dec": {"b": "a", "w": "b"}, "enc": {"b": "a", "w": "b"}})
    other = described(PARAMS, {"x": pair, "y": pair}, labels={"dec": {"b": "x", "w": "y"}, "enc": {"b": "x", "w": "y"}})
    for state, groups, message in [
        (twice, GROUPS, r"leaf dec\.b has state at 0 and at 1; give the one that goes on"),
        (overlapping, GROUPS, r"leaf dec\.b has state at inner_states\.a\.inner_state and at inner_states\.b\.inner_state; give the one"),
        (
            apart,
            GROUPS,
            r"group 0 \(dec\.b, .*\) needs one state; there are 0\.inner_state \(dec\.b, enc\.b\), 1\.inner_state \(dec\.w, enc",
        ),
        (two, other, r"group 'x' \(dec\.b, enc\.b\) needs one state; there are inner_states\.a\.inner_state \(dec\.b, dec\.w\), inner"),
        (two, GROUPS, r"group 0 \(dec\.b, .*\) needs one state"),
        (
            two,
            described({"dec": PARAMS["dec"]}, pair),
            r"the state at inner_states\.b\.inner_state is of no group; there are groups 0\.",
        ),
        (optax.adam(RATE).init(PARAMS), GROUPS, f"ScaleByAdamState at 0 {WHERE_OURS}"),
        (optax.clip(1.0).init(PARAMS), GROUPS, "a state of jaxopt_impl is needed; got EmptyState without one"),
    ]:
        with pytest.raises(ValueError, match=f"^to_torch_state_dict: {message}"):
            interop.to_torch_state_dict(state, groups)
    with pytest.raises(ValueError, match=r"^Adam: the state has exp_avg of dec\.b, dec\.w; the group keeps dec\.b, enc\.b"):
        interop.to_torch_state_dict(two, by_label)
    for state, message in [
        (optax.chain(optax.scale_by_adam(), optax.adam(RATE)), "ScaleByAdamState at 0 and ScaleByAdamState at 1.0 are both exp_avg; give"),
        (
            optax.chain(*(optax.masked(optax.adam(RATE), jax.tree.map(lambda i, chosen=chosen: i == chosen, LABELS)) for chosen in (0, 1))),
            r"ScaleByAdamState at 0\.inner_state\.0 and ScaleByAdamState at 1\.inner_state\.0 are both exp_avg",
        ),
        (
            optax.chain(optax.scale_by_adam(), optax.partition({0: optax.adam(RATE), 1: optax.set_to_zero()}, LABELS)),
            r"ScaleByAdamState at 0 is not of one of the labels named; there is state at 0, 1\.inner_states\.0\.inner_state\.0",
        ),
    ]:
        with pytest.raises(ValueError, match=f"^from_optax: {message}"):
            interop.from_optax("adam", state.init(PARAMS), PARAMS)
    stocks = optax.partition({"a": optax.adam(RATE), "b": optax.adam(RATE)}, {"dec": "a", "enc": "b"}).init(PARAMS)
    with pytest.raises(ValueError, match=r"^from_optax: leaf dec\.b has state under two labels of 'a', 'b'"):
        interop.from_optax("adam", stocks._replace(inner_states={**stocks.inner_states, "b": stocks.inner_states["a"]}), PARAMS)


def test_partitions_in_each_other_and_after_each_other():
    """The one around the state is read; a second one around it is refused, one beside it is not."""
    whole = jax.tree.map(lambda _: "x", LABELS)
    beside = optax.chain(
        optax.partition({0: optax.clip(1.0), 1: optax.identity()}, LABELS),
        optax.partition({"x": optax.set_to_zero(), "y": optax.adam(RATE)}, {"dec": "x", "enc": "y"}),
    )
    for label in ("y", "adam"):
        found = interop.from_optax({label: "adam"} if label == "y" else "adam", coded("adam", beside.init(PARAMS)), PARAMS)
        assert found.inner_states.keys() == {"x", "y"}
        names_its_parameters(found, {"enc.b", "enc.w"})
    alike = optax.chain(
        optax.partition({0: optax.clip(1.0), 1: optax.identity()}, LABELS),
        optax.partition({0: optax.set_to_zero(), 1: optax.adam(RATE)}, LABELS),
    )
    names_its_parameters(interop.from_optax("adam", coded("adam", alike.init(PARAMS)), PARAMS), {"dec.w", "enc.w"})
    with pytest.raises(ValueError, match=r"^from_optax: the label 1 is not once among 0, 1, 0, 1\."):
        interop.from_optax({1: "adam"}, alike.init(PARAMS), PARAMS)
    inside = optax.partition({"x": optax.partition({0: optax.adam(RATE), 1: optax.set_to_zero()}, LABELS)}, whole)
    with pytest.raises(
        ValueError, match=r"^from_optax: one partition around ScaleByAdamState is read through; there are partitions at the root"
    ):
        interop.from_optax("adam", inside.init(PARAMS), PARAMS)
    ours_inside = optax.partition({"x": optax.partition({0: ours("adam")(), 1: ours("adam")()}, LABELS)}, whole)
    written = interop.to_torch_state_dict(coded("adam", ours_inside.init(PARAMS)), groups_of("adam", "two labels"))
    assert [float(written["state"][i]["exp_avg"].flatten()[0]) for i in range(4)] == [code("exp_avg", PATHS[i]) for i in (0, 2, 1, 3)]


def test_a_count_around_a_state_without_moments_is_its_step():
    multi = optax.MultiSteps(optax.sgd(RATE), 2).init(PARAMS)._replace(gradient_step=jnp.asarray(STEP))
    assert int(interop.from_optax("sgd", multi, PARAMS).step) == STEP
    inject = optax.inject_hyperparams(optax.sgd)(RATE).init(PARAMS)._replace(count=jnp.asarray(STEP))
    assert int(interop.from_optax("sgd", inject, PARAMS).step) == STEP
    tx = optax.partition({0: optax.MultiSteps(optax.sgd(RATE), 2).gradient_transformation(), 1: optax.adam(RATE)}, LABELS)
    state = coded("adam", tx.init(PARAMS))
    found = interop.from_optax({0: "sgd", 1: "adam"}, state, PARAMS)
    assert [int(found.inner_states[label].inner_state.step) for label in (0, 1)] == [STEP, STEP]


def test_a_checkpoint_may_leave_out_what_is_empty():
    """As NNX does of its state: of a wrapper around nothing its numbers are left."""
    state, count = coded("adam", ours("adam")().init(PARAMS)), jnp.asarray(STEP, jnp.int32)
    zero = jnp.asarray(0, jnp.int32)
    for beside in [
        {"count": count, "hyperparams": {"max_norm": jnp.asarray(1.0)}},
        {"mini_step": zero, "gradient_step": zero, "acc_grads": {}},
        {"notfinite_count": zero, "last_finite": jnp.asarray(True), "total_notfinite": zero},
    ]:
        written = interop.to_torch_state_dict({0: beside, 2: as_orbax_has_it(state)}, GROUPS)
        state_dicts_same(written, interop.to_torch_state_dict(BARE, GROUPS))


def test_a_state_without_a_place_is_refused():
    params = {"a": jnp.ones(2)}
    both, plain = jaxopt_impl.adam(RATE, amsgrad=True).init(params), jaxopt_impl.adam(RATE).init(params)
    two = optax.partition({"a": ours("adam")(), "b": ours("adam")()}, {"dec": "a", "enc": "b"}).init(PARAMS)
    without = {field: value for field, value in plain._asdict().items() if value is not None}
    for state, like, message in [
        (both, plain, "max_exp_avg_sq is of a; none in the place"),
        (
            both,
            without,
            "max_exp_avg_sq is of a; none in the place",
        ),
        (plain, both, "max_exp_avg_sq is of no leaves; a in the place"),
        (
            two,
            BARE,
            r"the place at the root \(dec\.b, .*\) needs one state; there are inner_states\.a\.inner_state \(dec",
        ),
        (
            two,
            two._replace(inner_states={"a": two.inner_states["a"]}),
            r"the state at inner_states\.b\.inner_state has no place among",
        ),
    ]:
        with pytest.raises(ValueError, match=f"^wrapped: {message}"):
            interop.wrapped(state, like)


def test_a_state_that_lacks_a_leaf_is_refused_without_a_mask_around_it():
    some = {"dec": PARAMS["dec"]}
    for state in (optax.adam(RATE).init(some), as_orbax_has_it(optax.adam(RATE).init(some))):
        with pytest.raises(ValueError, match=r"^adam: exp_avg has the leaves dec\.b, dec\.w; dec\.b, dec\.w, enc\.b, enc\.w are needed"):
            interop.from_optax("adam", state, PARAMS)


def test_an_injected_learning_rate_is_the_one_that_is_given():
    state = optax.inject_hyperparams(optax.rmsprop)(0.25, momentum=0.5).init(PARAMS)
    with pytest.raises(ValueError, match=r"^from_optax: learning_rate 0\.5 was given; inject_hyperparams at the root has 0\.25\."):
        interop.from_optax("rmsprop", state, PARAMS, learning_rate=0.5)


def test_labels_that_a_checkpoint_made_strings_tell_states_without_leaves():
    tx = optax.partition({0: jaxopt_impl.sgd(0.5), 1: jaxopt_impl.sgd(0.25)}, LABELS)
    groups = described(PARAMS, {label: ("sgd", {"learning_rate": rate}) for label, rate in ((0, 0.5), (1, 0.25))}, labels=LABELS)
    written = interop.to_torch_state_dict(as_orbax_has_it(tx.init(PARAMS)), groups)
    assert [group["lr"] for group in written["param_groups"]] == [0.5, 0.25]
