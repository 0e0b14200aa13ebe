"""Good citizens of torch.optim: groups, closures, checkpoints exchanged with the stock classes, schedulers, pickling."""

import copy
import inspect
import io
import itertools

import numpy as np
import pytest
import torch

import torch_ref
from optparity.parity.bits import differing
from optparity.registry import OPTIMIZERS, ROWS

ROWS = [row for row in ROWS if "float32" in row.dtypes]
FULL = [row for row in ROWS if row.label in ("nesterov, all", "all", "all, outside")]
EXCHANGING = [row for row in ROWS if row.exchanges_state]


def model(dtype=torch.float32):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).to(dtype)


def train(net, optimizer, steps=4, start=0):
    for t in range(start, start + steps):
        x = torch.from_numpy(np.random.default_rng(t).standard_normal((8, 6))).to(next(net.parameters()).dtype)
        optimizer.zero_grad(set_to_none=True)
        net(x).square().mean().backward()
        optimizer.step()
    return net


def same(a, b):
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        assert not differing(x.detach().numpy(), y.detach().numpy()).any()


def same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a["param_groups"] == b["param_groups"]
    assert a["state"].keys() == b["state"].keys()
    for i, state in a["state"].items():
        assert state.keys() == b["state"][i].keys()
        for field, value in state.items():
            assert value.dtype == b["state"][i][field].dtype
            assert not differing(value.numpy(), b["state"][i][field].numpy()).any()


@pytest.mark.parametrize("entry", {row.optimizer: row.entry for row in EXCHANGING}.values(), ids=lambda entry: entry.name)
def test_the_constructor_is_the_counterparts(entry):
    """Same arguments in the same order, same defaults; AdaGrad has one more, and another epsilon."""
    ours, stock = (inspect.signature(make).parameters for make in (entry.torch, getattr(torch.optim, entry.stock_torch.name)))
    assert [k for k in ours if k not in (*entry.extra_keys, "accumulator_dtype", "mu_dtype")] == list(stock)
    assert all(ours[k].kind == stock[k].kind for k in stock)
    assert {k for k in stock if ours[k].default != stock[k].default} == entry.stock_torch.arguments.keys()


@pytest.mark.parametrize("row", EXCHANGING, ids=str)
def test_groups_and_state_have_the_counterparts_keys(row):
    ours, theirs = model(), model()
    a, b = row.torch(list(ours.parameters())), row.stock_torch(list(theirs.parameters()))
    for steps in (0, 2):
        train(ours, a, steps)
        train(theirs, b, steps)
        assert set(a.param_groups[0]) - set(b.param_groups[0]) == row.entry.extra_keys.keys()
        assert set(b.param_groups[0]) <= set(a.param_groups[0])
        for x, y in zip(a.state_dict()["state"].values(), b.state_dict()["state"].values(), strict=True):
            assert {k: (v.dtype, v.shape) for k, v in x.items()} == {k: (v.dtype, v.shape) for k, v in y.items()}


@pytest.mark.parametrize("row", EXCHANGING, ids=str)
@pytest.mark.parametrize("direction", ["from stock", "to stock"])
def test_checkpoints_go_both_ways(row, direction):
    """Mid-run, float64: the loaded side goes on as the other would have, within rounding."""
    makers = [row.stock_torch, row.torch]
    first, second = makers if direction == "from stock" else makers[::-1]
    net = model(torch.float64)
    optimizer = first(list(net.parameters()))
    train(net, optimizer, 5)
    other = copy.deepcopy(net)
    loaded = second(list(other.parameters()))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    train(net, optimizer, 5, start=5)
    train(other, loaded, 5, start=5)
    for x, y in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14)


def test_a_group_without_the_key_has_epsilon_where_the_stock_class_has_it():
    net = model()
    stock = torch.optim.Adagrad(net.parameters(), eps=1e-10)
    ours = torch_ref.AdaGrad(net.parameters())
    assert ours.param_groups[0]["eps_in_sqrt"] is True
    ours.load_state_dict(stock.state_dict())
    assert ours.param_groups[0]["eps_in_sqrt"] is False
    assert ours.param_groups[0]["eps"] == 1e-10
    again = torch_ref.AdaGrad(net.parameters())
    again.load_state_dict(torch_ref.AdaGrad(net.parameters()).state_dict())
    assert again.param_groups[0]["eps_in_sqrt"] is True


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_saved_copied_and_pickled_mid_run(row):
    """state_dict through a file, deepcopy and pickle: the same bits as a run that was not interrupted."""
    import pickle

    whole = model()
    straight = train(whole, row.torch(list(whole.parameters())), 6)
    net = model()
    optimizer = row.torch(list(net.parameters()))
    train(net, optimizer, 3)

    resumed = copy.deepcopy(net)
    loaded = row.torch(list(resumed.parameters()))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    same(train(resumed, loaded, 3, start=3), straight)

    for clone in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        other_net, other = clone((net, optimizer))
        same(train(other_net, other, 3, start=3), straight)
        same_state(other, loaded)


@pytest.mark.parametrize("row", FULL, ids=str)
def test_groups_with_their_own_hyper_parameters(row):
    """Two groups step as two optimizers would; add_param_group in mid-run begins that group's own first step."""
    net, twin = model(), model()
    optimizer = row.torch([{"params": net[0].parameters()}, {"params": net[2].parameters(), "lr": 0.05}])
    parts = [row.torch(list(twin[0].parameters())), row.torch([{"params": twin[2].parameters(), "lr": 0.05}])]
    for t in range(3):
        train(net, optimizer, 1, start=t)
        for p, q in zip(net.parameters(), twin.parameters(), strict=True):
            q.grad = p.grad.clone()
        for part in parts:
            part.step()
        same(net, twin)
    late = torch.nn.Parameter(torch.ones(4))
    alone = torch.nn.Parameter(torch.ones(4))
    optimizer.add_param_group({"params": [late]})
    fresh = row.torch([alone])
    for _ in range(3):
        late.grad, alone.grad = torch.full((4,), 0.3), torch.full((4,), 0.3)
        for p in net.parameters():
            p.grad = None
        optimizer.step()
        fresh.step()
        assert not differing(late.detach().numpy(), alone.detach().numpy()).any()


@pytest.mark.parametrize("row", FULL, ids=str)
def test_a_parameter_without_gradient_is_skipped(row):
    p, q = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    optimizer = row.torch([p, q])
    p.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(q.detach(), torch.ones(3))
    assert not optimizer.state[q] or float(optimizer.state[q]["step"]) == 0
    q.grad = torch.ones(3)
    late = torch.nn.Parameter(torch.ones(3))
    late.grad = torch.ones(3)
    p.grad = None
    optimizer.step()
    row.torch([late]).step()
    assert torch.equal(q.detach(), late.detach())


@pytest.mark.parametrize("row", FULL, ids=str)
def test_closure_hooks_and_scheduler(row):
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = row.torch([p])
    calls = []
    optimizer.register_step_pre_hook(lambda *a: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *a: calls.append("post"))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    start = optimizer.param_groups[0]["lr"]

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3.0
    scheduler.step()
    assert calls == ["pre", "post"]
    assert optimizer.param_groups[0]["lr"] == start * 0.5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_tensor_learning_rate_and_ignored_flags(name):
    make = OPTIMIZERS[name].torch
    nets = [model() for _ in range(3)]
    for net, arguments in zip(
        nets, [{"lr": 0.1}, {"lr": torch.tensor(0.1, dtype=torch.float64)}, {"lr": 0.1, "foreach": True}], strict=True
    ):
        train(net, make(net.parameters(), **arguments))
    same(nets[0], nets[1])
    same(nets[0], nets[2])
    with pytest.raises(ValueError, match=f"{name}: differentiable=True is not supported"):
        make(model().parameters(), differentiable=True)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_named_parameters_name_the_errors(name):
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = OPTIMIZERS[name].torch(embedding.named_parameters(), lr=0.1)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match=rf"{name}: the gradient of leaf params\['weight'\] is sparse_coo; a dense gradient is needed"):
        optimizer.step()
    with pytest.raises(TypeError, match=rf"{name}: leaf params\[0\] has dtype complex64; a floating-point dtype"):
        OPTIMIZERS[name].torch([torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))])


@pytest.mark.parametrize("row", FULL, ids=str)
def test_the_gradient_is_left_alone(row):
    """No aliasing: the buffer of the first step is not the gradient, and the gradient is as it was."""
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.tensor([1.0, 2.0, 3.0])
    optimizer = row.torch([p])
    optimizer.step()
    assert torch.equal(p.grad, torch.tensor([1.0, 2.0, 3.0]))
    before = [v.clone() for v in optimizer.state[p].values()]
    p.grad.zero_()
    assert all(torch.equal(x, y) for x, y in zip(before, optimizer.state[p].values(), strict=True))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_strides_shapes_and_company_do_not_matter(row):
    rng = np.random.default_rng(0)
    values, gradients = rng.standard_normal((6, 4)).astype("f4"), [rng.standard_normal((6, 4)).astype("f4") for _ in range(3)]
    layouts = [lambda x: x, lambda x: x.t().contiguous().t(), lambda x: x[:, :]]
    results = []
    for layout, grad_layout in itertools.product(layouts[:2], layouts[:2]):
        p = torch.nn.Parameter(layout(torch.from_numpy(values.copy())))
        optimizer = row.torch([p, torch.nn.Parameter(torch.ones(()))])
        for g in gradients:
            p.grad = grad_layout(torch.from_numpy(g.copy()))
            optimizer.step()
        results.append(p.detach().numpy())
    assert not any(differing(np.ascontiguousarray(results[0]), np.ascontiguousarray(r)).any() for r in results)


def test_hooks_on_loading_are_heard():
    """A pre-hook that exchanges the states of two parameters, with accumulators of halves as well."""
    for dtype, arguments in ((torch.float32, {}), (torch.bfloat16, {"accumulator_dtype": torch.float32})):
        a, b = (torch.nn.Parameter(torch.ones(2, dtype=dtype)) for _ in range(2))
        optimizer = torch_ref.Adam([a, b], **arguments)
        a.grad, b.grad = torch.full((2,), 0.1, dtype=dtype), torch.full((2,), 0.3, dtype=dtype)
        optimizer.step()
        state = copy.deepcopy(optimizer.state_dict())
        optimizer.register_load_state_dict_pre_hook(lambda _, d: {**d, "state": {0: d["state"][1], 1: d["state"][0]}})
        optimizer.load_state_dict(state)
        assert torch.equal(optimizer.state[a]["exp_avg"], state["state"][1]["exp_avg"])
        assert optimizer.state[a]["exp_avg"].dtype == torch.float32


def test_a_group_cannot_ask_for_what_is_refused():
    with pytest.raises(ValueError, match="adam: capturable=True is not supported"):
        torch_ref.Adam([{"params": [torch.nn.Parameter(torch.ones(1))], "capturable": True}])


def test_what_an_older_checkpoint_leaves_out_is_off():
    p = torch.nn.Parameter(torch.ones(1))
    state = torch.optim.SGD([p], lr=0.1).state_dict()
    del state["param_groups"][0]["maximize"]
    ours, stock = torch_ref.SGD([p], maximize=True), torch.optim.SGD([p], maximize=True)
    for optimizer in (ours, stock):
        optimizer.load_state_dict(copy.deepcopy(state))
        assert optimizer.param_groups[0]["maximize"] is False


def test_adagrad_shares_its_memory():
    p = torch.nn.Parameter(torch.ones(1))
    optimizer = torch_ref.AdaGrad([p])
    optimizer.share_memory()
    assert optimizer.state[p]["sum"].is_shared()
