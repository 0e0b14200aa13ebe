"""torch_ref against PyTorch's own optimizer database: each of its inputs, and each of its error inputs."""

import copy
import inspect

import pytest
import torch
from torch.testing._internal import common_optimizers

from optparity._arrays import to_torch
from optparity.parity.streams import gradients, parameters
from optparity.registry import OPTIMIZERS, ROWS

from ..sampling import FULL, sampled

STEPS = 20
EXCHANGING = [entry for entry in OPTIMIZERS.values() if entry.stock_torch and entry.stock_torch.exchanges_state]
ENTRIES = {getattr(torch.optim, entry.stock_torch.name): entry for entry in EXCHANGING}
PAIRS = {stock: entry.torch for stock, entry in ENTRIES.items()}
COUNTED = 34  # inputs in torch 2.13
INFOS = {info.optim_cls: info for info in common_optimizers.optim_db if info.optim_cls in PAIRS}
INPUTS = [(stock, given) for stock, info in INFOS.items() for given in info.optim_inputs_func(device="cpu")]
ERRORS = [(stock, given) for stock, info in INFOS.items() for given in info.optim_error_inputs_func(device="cpu", dtype=torch.float64)]


def name(value):
    return value.__name__ if isinstance(value, type) else getattr(value, "desc", None) or getattr(value, "error_regex", None)


def as_in_torch(stock, arguments):
    """Ours as torch.optim means it, where our defaults are others."""
    entry = ENTRIES[stock]
    departures = {key: inspect.signature(stock).parameters[key].default for key in entry.stock_torch.arguments}
    return {**departures, **entry.extra_keys, **arguments}


def problem():
    """A least-squares problem in float64, twice."""
    torch.manual_seed(0)
    weights = torch.randn(10, 5, dtype=torch.float64), torch.randn(10, dtype=torch.float64)
    data = torch.randn(5, dtype=torch.float64)
    make = lambda: [torch.nn.Parameter(w.clone()) for w in weights]  # noqa: E731
    loss = lambda params: (params[0] @ data + params[1]).square().sum()  # noqa: E731
    return make, loss


def walk(optimizer, params, loss, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        loss(params).backward()
        optimizer.step()


def distance(a, b):
    largest = max(float(x.detach().abs().max()) for x in b)
    return max(float((x - y).detach().abs().max()) for x, y in zip(a, b, strict=True)) / largest


def test_the_database_is_counted(capsys):
    counts = {stock.__name__: sum(s is stock for s, _ in INPUTS) for stock in PAIRS}
    errors = {stock.__name__: sum(s is stock for s, _ in ERRORS) for stock in PAIRS}
    with capsys.disabled():
        print(f"\ntorch {torch.__version__}: inputs {counts}, error inputs {errors}")
    assert all(counts.values())
    assert all(errors.values())
    if torch.__version__.startswith("2.13"):
        assert sum(counts.values()) == COUNTED


@pytest.mark.parametrize(("stock", "given"), INPUTS, ids=name)
def test_inputs(stock, given):
    """20 steps in float64, within 1e-12; the same keys; each goes on from the other's checkpoint."""
    arguments = dict(given.kwargs)
    refused = [flag for flag in ("capturable", "differentiable") if arguments.get(flag)]
    if refused:
        with pytest.raises(ValueError, match=rf"{PAIRS[stock].name}: {refused[0]}=True is not supported"):
            PAIRS[stock]([torch.nn.Parameter(torch.ones(2))], **arguments)
        return
    make, loss = problem()
    ours, theirs = make(), make()
    a, b = PAIRS[stock](ours, **as_in_torch(stock, arguments)), stock(theirs, **arguments)
    walk(a, ours, loss, STEPS)
    walk(b, theirs, loss, STEPS)
    assert distance(ours, theirs) < 1e-12

    assert set(a.state_dict()["param_groups"][0]) - {*ENTRIES[stock].extra_keys} == set(b.state_dict()["param_groups"][0])
    assert {i: set(s) for i, s in a.state_dict()["state"].items()} == {i: set(s) for i, s in b.state_dict()["state"].items()}

    from_stock, from_ours = make(), make()
    c, d = PAIRS[stock](from_stock), stock(from_ours)
    with torch.no_grad():
        for x, y in [*zip(from_stock, theirs, strict=True), *zip(from_ours, ours, strict=True)]:
            x.copy_(y)
    c.load_state_dict(copy.deepcopy(b.state_dict()))
    d.load_state_dict(copy.deepcopy(a.state_dict()))
    for optimizer, params in ((a, ours), (b, theirs), (c, from_stock), (d, from_ours)):
        walk(optimizer, params, loss, STEPS)
    assert distance(from_stock, theirs) < 1e-12
    assert distance(from_ours, ours) < 1e-12


@pytest.mark.parametrize(("stock", "given"), ERRORS, ids=name)
def test_error_inputs(stock, given):
    """The same type of error, with torch's own text in the message."""
    arguments = given.optimizer_error_input.kwargs
    params = given.optimizer_error_input.params
    if given.error_on is common_optimizers.OptimizerErrorEnum.STEP_ERROR:
        optimizer = PAIRS[stock](params, **arguments)
        with pytest.raises(given.error_type, match=given.error_regex):
            optimizer.step()
        return
    with pytest.raises(given.error_type, match=given.error_regex):
        PAIRS[stock](params, **arguments)


@pytest.mark.parametrize("ours", PAIRS.values(), ids=lambda c: c.__name__)
def test_flags_of_torch_optim(ours):
    """foreach and fused have no effect; capturable and differentiable are refused; a checkpoint keeps all four as data."""
    make, loss = problem()
    flags = [flag for flag in ("foreach", "fused", "capturable", "differentiable") if flag in inspect.signature(ours).parameters]
    plain = make()
    walk(ours(plain), plain, loss, 3)
    for flag in set(flags) & {"foreach", "fused"}:
        flagged = make()
        walk(ours(flagged, **{flag: True}), flagged, loss, 3)
        assert all(torch.equal(x, y) for x, y in zip(plain, flagged, strict=True))
    for flag in set(flags) - {"foreach", "fused"}:
        with pytest.raises(ValueError, match=f"{ours.name}: {flag}=True is not supported"):
            ours(make(), **{flag: True})
    params = make()
    optimizer = ours(params)
    state = optimizer.state_dict()
    state["param_groups"][0].update(dict.fromkeys(flags, True))
    optimizer.load_state_dict(state)
    walk(optimizer, params, loss, 3)
    assert all(optimizer.state_dict()["param_groups"][0][flag] is True for flag in flags)
    assert all(torch.equal(x, y) for x, y in zip(plain, params, strict=True))


@pytest.mark.parametrize("ours", PAIRS.values(), ids=lambda c: c.__name__)
def test_a_tensor_learning_rate(ours):
    make, loss = problem()
    with_float, with_tensor = make(), make()
    walk(ours(with_float, lr=0.01), with_float, loss, 3)
    walk(ours(with_tensor, lr=torch.tensor(0.01, dtype=torch.float64)), with_tensor, loss, 3)
    assert all(torch.equal(x, y) for x, y in zip(with_float, with_tensor, strict=True))


@pytest.mark.parametrize("row", sampled(zip(row for row in ROWS if row.stock_torch), lambda row: row in FULL), ids=str)
def test_a_thousand_steps_in_float64(row):
    """Each rule, with torch.optim's conventions, within 1e-12 of stock torch.optim: the formula is torch's, the roundings are not."""
    conventions = row.entry.extra_keys
    params = parameters({"w": (257,)}, "float64")
    p, q = (torch.nn.Parameter(to_torch(params["w"], copy=True)) for _ in range(2))
    ours, theirs = row.entry.torch([p], **{**row.entry.in_torch(row.arguments), **conventions}), row.stock_torch([q])
    for g, _ in zip(gradients("normal", params), range(1000), strict=False):
        p.grad, q.grad = to_torch(g["w"], copy=True), to_torch(g["w"], copy=True)
        ours.step()
        theirs.step()
    assert distance([p], [q]) < 1e-12
