"""Random models and optimizers, carried there and back: the right moment at each leaf, or a refusal in one line; never another.

Each element of each weight and moment says whose it is and where it lies, so that no other assignment and no transposition looks right.
`random_models` says what is right.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import torch_ref
from optparity import interop
from optparity.interop.leaves import Leaves

from ..sampling import EXHAUSTIVE
from .random_models import Leaf, Model, models
from .states import state_dicts_same

OPTIMIZERS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "Adam": (torch.optim.Adam, {}, ("exp_avg", "exp_avg_sq")),
    "Adam with amsgrad": (torch.optim.Adam, {"amsgrad": True}, ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")),
    "AdamW": (torch_ref.AdamW, {}, ("exp_avg", "exp_avg_sq")),
    "RMSprop": (torch.optim.RMSprop, {"momentum": 0.9}, ("square_avg", "momentum_buffer")),
    "SGD": (torch.optim.SGD, {"momentum": 0.9}, ("momentum_buffer",)),
    "Adagrad": (torch.optim.Adagrad, {}, ("sum",)),
    "Lion": (torch_ref.Lion, {}, ("exp_avg",)),
}
WHOLE = ("RMSprop", "Adagrad")  # whose groups stay whole, as their rule does not use the step
STEPLESS = ("SGD", "Lion")
SOURCES = ("live", "a live copy", "named", "partly named", "without names", "parameters")
Arrays = Mapping[str, np.ndarray]


class Run(NamedTuple):
    """A torch optimizer, and what is true of each parameter by its name."""

    optimizer: torch.optim.Optimizer
    kind: str
    order: tuple[str, ...]
    moments: Mapping[str, Arrays]
    steps: Mapping[str, int]
    rates: Mapping[str, float]


class Case(NamedTuple):
    """What is carried, from where, and what the caller says."""

    model: Model
    run: Run
    weights: Any  # what a Matching is made of; None where there is none, and the caller has carried the weights
    source: str
    names: Mapping[str, Any] | None
    layouts: Mapping[str, Any] | None
    missing: bool


def coded(number: int, shape: Sequence[int]) -> np.ndarray:
    """Numbers that say whose they are, and where they lie; exact in float32."""
    return (1000.0 * (number + 1) + np.arange(np.prod(shape))).reshape(shape).astype(np.float32)


@st.composite
def runs(draw, model: Model) -> Run:
    """An optimizer in the middle of a run: several groups in an order of their own, some parameters behind, some without state."""
    kind = draw(st.sampled_from(sorted(OPTIMIZERS)))
    make, options, fields = OPTIMIZERS[kind]
    parameters, order = model.parameters, draw(st.permutations(list(model.parameters)))
    count = draw(st.integers(1, min(3, len(order))))
    held = [draw(st.sampled_from(range(count))) for _ in order]
    groups = [[name for name, group in zip(order, held, strict=True) if group == i] for i in range(count)]
    groups = [group for group in groups if group]
    rates = {name: 0.5**i for i, group in enumerate(groups) for name in group}
    named = [{"params": [(name, parameters[name]) for name in group], "lr": rates[group[0]]} for group in groups]
    optimizer = make(named, lr=1.0, **options)
    differ, lacking = draw(st.integers(0, 3)) == 0, draw(st.integers(0, 3)) == 0
    steps, moments = {}, {field: {} for field in fields}
    for i, (name, parameter) in enumerate(parameters.items()):
        steps[name] = draw(st.integers(1, 3)) if differ else 3
        if lacking and draw(st.booleans()):
            optimizer.state.pop(parameter, None)
            continue
        for j, field in enumerate(fields):
            moments[field][name] = coded(10 * i + 100 * (j + 1), parameter.shape)
        counted = {} if kind in STEPLESS else {"step": torch.tensor(float(steps[name]))}
        optimizer.state[parameter] = {**counted, **{field: torch.tensor(moments[field][name]) for field in fields}}
    return Run(optimizer, kind, tuple(name for group in groups for name in group), moments, steps, rates)


@st.composite
def cases(draw) -> Case:
    """A model with values, an optimizer, and a way to carry them."""
    model = draw(models())
    for i, parameter in enumerate(model.parameters.values()):
        value = draw(st.sampled_from(["own", "own", "own", "own", "zeros", "ones", "one constant"]))
        constant = {"zeros": 0.0, "ones": 1.0, "one constant": 0.5}
        parameter.data = torch.tensor(coded(i, parameter.shape)) if value == "own" else torch.full_like(parameter, constant[value])
    mapping, state_dict = model.parameters, model.module.state_dict()
    shuffled = dict(draw(st.permutations(list(mapping.items()))))
    weights = draw(st.sampled_from([None, None, model.module, model.module, mapping, shuffled, state_dict]))
    names = {leaf.path: leaf.source() for leaf in model.leaves} if draw(st.integers(0, 9)) < (9 if model.cut else 1) else None
    known = {leaf.path: leaf.layout for leaf in model.leaves if not leaf.flipped}
    some = {path: layout for path, layout in known.items() if draw(st.booleans())}
    layouts = draw(st.sampled_from([known, known, some, None]))
    return Case(model, draw(runs(model)), weights, draw(st.sampled_from(SOURCES)), names, layouts, draw(st.integers(0, 9)) < 8)


def tree(values: Arrays) -> dict[str, Any]:
    """Leaves by dotted paths, nested."""
    found: dict[str, Any] = {}
    for path, value in values.items():
        *above, last = path.split(".")
        at = found
        for token in above:
            at = at.setdefault(token, {})
        at[last] = jnp.asarray(value)
    return found


def same(got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """The same bits by the same names."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(np.asarray(got[name]), np.asarray(value), strict=True, err_msg=name)


def source(case: Case) -> tuple[Any, dict[str, Any]]:
    """What `from_torch` gets, and the arguments beside it."""
    optimizer: Any = case.run.optimizer
    kind = case.source
    state_dict = optimizer.state_dict()
    if kind == "live":
        return optimizer, {}
    if kind == "a live copy":
        twins = {name: torch.nn.Parameter(parameter.detach().clone()) for name, parameter in case.model.parameters.items()}
        groups = [{**group, "params": [(name, twins[name]) for name in group["param_names"]]} for group in optimizer.param_groups]
        copy = type(optimizer)([{key: value for key, value in group.items() if key != "param_names"} for group in groups])
        copy.load_state_dict(state_dict)
        return copy, {}
    for i, group in enumerate(state_dict["param_groups"]):
        if kind in ("without names", "parameters") or (kind == "partly named" and i):
            del group["param_names"]
    return state_dict, {"optimizer": type(optimizer).__name__, "parameters": case.run.order if kind == "parameters" else None}


def carried(case: Case) -> None:
    """There and back, with everything right; what may be refused raises ValueError or TypeError."""
    model, run = case.model, case.run
    arrays = {name: parameter.detach().numpy() for name, parameter in model.parameters.items()}
    given_names = case.source in ("live", "a live copy", "named", "parameters")
    named = case.names is None and (case.weights is not None or given_names)
    truth = (model.by_names(case.layouts or {}) if named else None) or model.leaves
    params, matching = tree({leaf.path: leaf.value(arrays) for leaf in model.leaves}), None
    if case.weights is not None:
        start = jax.tree.map(jnp.zeros_like, params)
        matching = interop.Matching(start, case.weights, names=case.names, layouts=case.layouts)
        params = interop.weights_from_torch(case.weights, start, matching=matching)
        same(Leaves(params).by_path, {leaf.path: leaf.value(arrays) for leaf in truth})
        same(interop.weights_to_torch(params, matching=matching), arrays)
    told = {} if matching else {"names": case.names, "layouts": case.layouts}
    lacking = [name for name in arrays if name not in next(iter(run.moments.values()))]
    missing = [leaf.path for leaf in truth if any(name in lacking for name, _ in leaf.pieces)] if case.missing else []
    given, arguments = source(case)
    imported = interop.from_torch(given, params, matching=matching, missing=missing, **told, **arguments)
    rightly_there(imported, run, truth)
    if "live" in case.source:  # whose values are compared, unless they are zeros or ones alone
        told_apart = {path: value for path, value in Leaves(params).by_path.items() if not (value == 0).all() and not (value == 1).all()}
        same(told_apart, {leaf.path: leaf.value(arrays) for leaf in truth if leaf.path in told_apart})
    back = interop.to_torch_state_dict(imported.state, imported.groups)
    state_dicts_same(back["param_groups"], given.state_dict()["param_groups"] if hasattr(given, "state_dict") else given["param_groups"])
    state = run.optimizer.state_dict()["state"]
    state_dicts_same({index: own for index, own in back["state"].items() if index in state}, state)


def rightly_there(imported: interop.Imported, run: Run, truth: Sequence[Leaf]) -> None:
    """Each leaf has its own moments, step and learning rate."""
    leaves, seen = {leaf.path: leaf for leaf in truth}, []
    for group in imported.groups:
        state = imported.state if len(imported.groups) == 1 else imported.state.inner_states[group.label].inner_state
        own = [leaves[leaf.path] for leaf in group.leaves]
        seen += [leaf.path for leaf in own]
        for leaf in own:
            names = [name for name, _ in leaf.pieces]
            assert {group.options["lr"]} == {run.rates[name] for name in names}
            if any(name not in own for own in run.moments.values() for name in names):
                continue
            if run.kind not in (*WHOLE, *STEPLESS):
                assert {int(state.step)} == {run.steps[name] for name in names}
            for field, moments in run.moments.items():
                got = Leaves(getattr(state, field)).by_path[leaf.path]
                np.testing.assert_array_equal(np.asarray(got), leaf.value(moments), strict=True, err_msg=f"{field} of {leaf.path}")
    assert sorted(seen) == sorted(leaves)


def outcome(case: Case) -> str:
    """What became of it: carried, or the kind of refusal."""
    try:
        carried(case)
    except (ValueError, TypeError) as error:
        message = str(error)
        assert re.match(r"^[A-Za-z_]+: .{20,}$", message), message  # one line, and who says it
        return re.sub(r"[^ ]*[\d.'\[(][^ ]*|leaf \S+", "_", message)[:60]
    return "carried"


@pytest.mark.parametrize("examples", [200, pytest.param(2000, marks=EXHAUSTIVE)])
def test_moments_are_at_their_leaves_or_refused(examples):
    seen: Counter[str] = Counter()

    @settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=(HealthCheck.too_slow,))
    @given(cases())
    def holds(case):
        seen[found := outcome(case)] += 1
        event(f"{case.model.scheme}: {'carried' if found == 'carried' else 'refused'}")

    holds()
    assert seen["carried"] * 3 >= seen.total(), seen
