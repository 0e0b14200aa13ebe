"""A run carried across goes on with the same bits: PyTorch to JAX, JAX to PyTorch, there and back; stock optimizers; refusals."""

import itertools
import subprocess
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import optax
import pytest
import torch
from flax import nnx

import jaxopt_impl
import torch_ref
from optparity import interop
from optparity._arrays import to_numpy
from optparity.interop.leaves import Leaves
from optparity.parity.bits import differing, ulp_distance
from optparity.parity.contexts import _on_mesh
from optparity.parity.streams import gradients, parameters
from optparity.parity.subnormals import torch_flushing_like_jax
from optparity.parity.torch_side import TorchSide
from optparity.registry import OPTIMIZERS, ROWS, Row
from tools import moving_a_run as moving
from tools.pages import ROOT

SIZES = {"b": (3,), "w": (5, 7)}
BEFORE, AFTER = 3, 4

CASES = [(row, dtype) for row in ROWS for dtype in ("float32", "bfloat16") if dtype in row.dtypes]


def state_dicts_same(a, b):
    """Every bit, every key, every kind of number; tensors by dtype as well."""
    assert type(a) is type(b), (a, b)
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert not differing(to_numpy(a), to_numpy(b)).any()
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            state_dicts_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            state_dicts_same(x, y)
    else:
        assert a == b or (a != a and b != b)


class JaxRun:
    def __init__(self, tx, params, state=None):
        self.params = jax.tree.map(jnp.array, params)
        self.state = tx.init(self.params) if state is None else state
        self._update = jax.jit(tx.update)

    def step(self, gradient):
        updates, self.state = self._update(jax.tree.map(jnp.array, gradient), self.state, self.params)
        self.params = optax.apply_updates(self.params, updates)


def same_leaves(params, expected):
    for name, a, b in zip(params, jax.tree.leaves(params), expected, strict=True):
        assert not differing(np.asarray(a), b).any(), name


@pytest.mark.parametrize(("row", "dtype"), CASES, ids=str)
def test_goes_on_with_the_same_bits(row, dtype):
    """k steps in torch_ref and n more in JAX are k + n steps in torch_ref, the same from JAX to torch, and there and back is equal."""
    params = parameters(SIZES, dtype)
    drawn = list(itertools.islice(gradients("wide", params), BEFORE + AFTER))
    in_jax = JaxRun(row.tx, params)
    with torch_flushing_like_jax():
        whole, other = TorchSide(row.torch, jax.tree.leaves(params)), None
        for t, gradient in enumerate(drawn):
            if t == BEFORE:
                imported = interop.from_torch(whole.optimizer, params, step=None if whole.optimizer.has_step else BEFORE)
                state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), whole.optimizer.state_dict())
                carried = JaxRun(imported.tx, dict(zip(params, whole.params(), strict=True)), imported.state)
                other = TorchSide(row.torch, jax.tree.leaves(jax.tree.map(np.array, in_jax.params)))
                groups = interop.describe(params, (row.optimizer, row.arguments))
                other.optimizer.load_state_dict(interop.to_torch_state_dict(in_jax.state, groups))
                assert other.optimizer.state_dict()["param_groups"] == whole.optimizer.state_dict()["param_groups"]
            if t < BEFORE:
                in_jax.step(gradient)
            else:
                carried.step(gradient)
                other.step(jax.tree.leaves(gradient))
            whole.step(jax.tree.leaves(gradient))
        same_leaves(carried.params, whole.params())
        same_leaves(dict(zip(params, other.params(), strict=True)), whole.params())
        state_dicts_same(other.optimizer.state_dict()["state"], whole.optimizer.state_dict()["state"])
        state_dicts_same(interop.to_torch_state_dict(carried.state, imported.groups), whole.optimizer.state_dict())


@pytest.mark.parametrize(("row", "dtype"), CASES, ids=str)
def test_stock_moments_are_carried_whole(row, dtype):
    """Every configuration of torch.optim: its state is in JAX bit for bit, and back again, param_groups included."""
    params = parameters(SIZES, dtype)
    stock = TorchSide(row.stock_torch, jax.tree.leaves(params))
    for gradient in itertools.islice(gradients("wide", params), BEFORE):
        stock.step(jax.tree.leaves(gradient))
    _, state, groups = interop.from_torch(stock.optimizer, params)
    kept = {field: value for field, value in stock.state().items() if field != "step"}
    assert kept.keys() == {field for field in state._fields if field != "step" and getattr(state, field) is not None}
    for field, arrays in kept.items():
        same_leaves(getattr(state, field), arrays)
    for like in interop.torch_state.LIKE:
        state_dicts_same(interop.to_torch_state_dict(state, groups, like=like), stock.optimizer.state_dict())
    steps = stock.state().get("step")
    assert int(state.step) == (int(steps[0]) if steps else int(bool(kept)))


def documented_drift(optimizer, dtype):
    """The largest distance in ulp that docs/drift.md has for torch.optim's for-loop."""
    page = (ROOT / "docs" / "drift.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith(f"| `{optimizer}` (") and f"| {dtype} |" in line]
    return float(line.split("|")[3].split(",")[1].removesuffix(" ulp "))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_after_stock_the_next_steps_drift_no_further_than_documented(name, dtype):
    row, params = Row(name, OPTIMIZERS[name].drift_row), parameters({"w": (1003,)}, dtype)
    drawn = list(itertools.islice(gradients("normal", params), BEFORE + AFTER))
    stock = TorchSide(row.stock_torch, jax.tree.leaves(params))
    for gradient in drawn[:BEFORE]:
        stock.step(jax.tree.leaves(gradient))
    imported = interop.from_torch(stock.optimizer, params)
    carried = JaxRun(imported.tx, {"w": stock.params()[0]}, imported.state)
    for gradient in drawn[BEFORE:]:
        stock.step(jax.tree.leaves(gradient))
        carried.step(gradient)
    ulp = ulp_distance(np.asarray(carried.params["w"]), stock.params()[0])
    assert ulp.max() <= documented_drift(name, dtype)
    assert np.median(ulp) <= 1


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("make", [torch_ref.Adam, torch.optim.Adam], ids=["torch_ref", "torch.optim"])
def test_a_flax_model_goes_on_with_its_torch_twins_run(make):
    """Kernels (in, out) against weights (out, in): weights and Adam's state carried mid-run on the digits.

    Fed the same gradients in a closed loop, JAX and torch_ref differ in no element at any step.
    """
    model = moving.in_torch()
    optimizer = make(model.named_parameters(), lr=3e-3, betas=(0.8, 0.99))
    for step in range(1, 21):
        moving.torch_step(model, optimizer, step)
    _, start = nnx.split(moving.InFlax(nnx.Rngs(1)), nnx.Param)
    params = interop.weights_from_torch(dict(model.named_parameters()), start, **moving.TWIN)
    tx, state, groups = interop.from_torch(optimizer, params, **moving.TWIN)
    assert int(state.step) == 20
    reference = moving.in_torch()
    reference.load_state_dict(model.state_dict())
    exact = torch_ref.Adam(reference.named_parameters())
    exact.load_state_dict(interop.to_torch_state_dict(state, groups))
    update = jax.jit(tx.update)
    with torch_flushing_like_jax():
        for step in range(21, 41):
            moving.torch_step(reference, exact, step)
            theirs = {name: p.grad for name, p in reference.named_parameters()}
            updates, state = update(interop.weights_from_torch(theirs, params, **moving.TWIN), state, params)
            params = optax.apply_updates(params, updates)
            weights = {name: p.detach() for name, p in reference.named_parameters()}
            state_dicts_same(interop.weights_to_torch(params, **moving.TWIN), weights)
            state_dicts_same(interop.to_torch_state_dict(state, groups), exact.state_dict())


@pytest.mark.usefixtures("as_users_have_it")
def test_with_gradients_of_its_own_the_run_goes_on_where_it_was(tmp_path):
    """The losses of both sides are drawn together; where the moments are dropped, the loss jumps."""
    losses = moving.curves(50, 80)
    np.testing.assert_allclose(losses["JAX"], losses["PyTorch"], rtol=1e-3)
    jump = np.array(losses["JAX, moments dropped"]) / losses["PyTorch"]
    assert (jump[:50] == 1).all()
    assert jump[51:61].mean() > 1.3
    moving.draw(losses, 50, tmp_path / "losses.png")
    assert matplotlib.image.imread(tmp_path / "losses.png").shape[1] > 500


def test_groups_become_a_partition_and_come_back():
    """Two groups of other hyper-parameters, one amsgrad, named in another order than the leaves, one transposed: the same bits."""
    params = {"b": np.ones(3, np.float32), "v": np.full((7, 5), 0.5, np.float32), "w": np.ones((5, 7), np.float32)}
    shapes = {"w": (5, 7), "v": (5, 7), "b": (3,)}

    def make(parameters):
        decay = {"params": [("w", parameters[0]), ("v", parameters[1])], "weight_decay": 0.1, "amsgrad": True, "name": "decayed"}
        return torch_ref.AdamW([decay, {"params": [("b", parameters[2])], "lr": torch.tensor(0.25)}], lr=0.01, weight_decay=0)

    rng = np.random.default_rng(0)
    drawn = [{name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()} for _ in range(BEFORE + AFTER)]
    layouts = {"v": (1, 0)}
    with torch_flushing_like_jax():
        whole = TorchSide(make, [np.ones((5, 7), np.float32), np.full((5, 7), 0.5, np.float32), np.ones(3, np.float32)])
        for gradient in drawn[:BEFORE]:
            whole.step(list(gradient.values()))
        imported = interop.from_torch(whole.optimizer, params, layouts=layouts)
        assert isinstance(imported.state, optax.transforms.PartitionState)
        assert jax.tree.structure(imported.state) == jax.tree.structure(imported.tx.init(params))
        state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), whole.optimizer.state_dict())
        w, v, b = whole.params()
        carried = JaxRun(imported.tx, {"b": b, "v": v.T, "w": w}, imported.state)
        for gradient in drawn[BEFORE:]:
            whole.step(list(gradient.values()))
            carried.step({**gradient, "v": gradient["v"].T})
        w, v, b = whole.params()
        same_leaves(carried.params, [b, v.T, w])
        state_dicts_same(interop.to_torch_state_dict(carried.state, imported.groups), whole.optimizer.state_dict())

    labels = {"b": "plain", "v": "decayed", "w": "decayed"}
    arguments = {
        "decayed": {"learning_rate": 0.01, "weight_decay": 0.1, "amsgrad": True},
        "plain": {"learning_rate": 0.25, "weight_decay": 0},
    }
    tx = optax.partition({label: jaxopt_impl.adamw(**each) for label, each in arguments.items()}, labels)
    groups = interop.describe(
        params,
        {label: ("adamw", each) for label, each in arguments.items()},
        labels=labels,
        layouts=layouts,
        names={"w": 0, "v": 1, "b": 2},
    )
    begun = JaxRun(tx, params)
    for gradient in drawn:
        begun.step({**gradient, "v": gradient["v"].T})
    state_dicts_same(interop.to_torch_state_dict(begun.state, groups)["state"], whole.optimizer.state_dict()["state"])


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_schedule_goes_on_at_its_step(name):
    """SGD holds no step, so it is given; the learning rates that follow are those of the schedule from there on."""
    arguments = {"momentum": 0.9, "dampening": 0.5} if name == "sgd" else {}
    schedule = jax.jit(optax.cosine_decay_schedule(0.1, 20))
    params = parameters(SIZES, "float32")
    drawn = list(itertools.islice(gradients("normal", params), BEFORE + AFTER))
    with torch_flushing_like_jax():
        whole = TorchSide(lambda p: OPTIMIZERS[name].torch(p, lr=0.1, **arguments), jax.tree.leaves(params))
        scheduler = torch_ref.ScheduleLR(whole.optimizer, schedule)
        for t, gradient in enumerate(drawn):
            if t == BEFORE:
                if name == "sgd":
                    with pytest.raises(
                        ValueError, match=r"^SGD: its state holds no step, and the learning rate depends on it; step is needed"
                    ):
                        interop.from_torch(whole.optimizer, params, learning_rate=schedule)
                imported = interop.from_torch(whole.optimizer, params, step=BEFORE, learning_rate=schedule)
                carried = JaxRun(imported.tx, dict(zip(params, whole.params(), strict=True)), imported.state)
            if t >= BEFORE:
                carried.step(gradient)
            whole.step(jax.tree.leaves(gradient))
            scheduler.step()
        same_leaves(carried.params, whole.params())
        with pytest.raises(ValueError, match=r"^to_torch_state_dict: group 0 has a schedule in JAX; learning_rate is needed"):
            interop.to_torch_state_dict(carried.state, imported.groups)
        back = interop.to_torch_state_dict(carried.state, imported.groups, learning_rate=schedule)
        state_dicts_same(back, whole.optimizer.state_dict())


def test_learning_rates_are_given_by_group():
    """Numbers are in the groups from then on; a schedule's value is the one at the state's step."""
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in "ab"]
    optimizer = torch_ref.SGD([{"params": [weights[0]]}, {"params": [weights[1]]}], lr=0.5)
    params = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    tx, state, groups = interop.from_torch(optimizer, params, learning_rate=[0.25, None])
    updates, state = tx.update(params, state, params)
    assert (float(updates["a"][0]), float(updates["b"][0])) == (-0.25, -0.5)
    rates = lambda groups=groups, **given: [  # noqa: E731
        group["lr"] for group in interop.to_torch_state_dict(state, groups, **given)["param_groups"]
    ]
    assert rates() == [0.25, 0.5]
    assert rates(learning_rate=0.125) == [0.125, 0.125]
    assert rates(learning_rate=[lambda step: jnp.float32(step / 8), np.float32(2)]) == [0.125, 2.0]
    half = interop.from_torch(optimizer, params, learning_rate=[lambda step: 0.1, 0.75], step=0).groups
    assert rates(half, learning_rate=[3, None]) == [3, 0.75]
    with pytest.raises(ValueError, match=r"^to_torch_state_dict: group 0 has a schedule in JAX; learning_rate is needed"):
        rates(half, learning_rate=[None, 3])
    with pytest.raises(ValueError, match=r"^to_torch_state_dict: one learning_rate for each of 2 groups is needed; got 3"):
        rates(learning_rate=[0.1, 0.1, 0.1])
    for wrong in ("0.1", True, (0.1, 0.1), np.ones(2), lambda step: "0.1"):
        with pytest.raises(ValueError, match=r"^to_torch_state_dict: learning_rate is a number, a schedule, or a list of these"):
            rates(learning_rate=wrong)
    with pytest.raises(ValueError, match=r"^from_torch: learning_rate is a number, a schedule, or a list of these"):
        interop.from_torch(optimizer, params, learning_rate="0.1")


def test_betas_may_be_tensors():
    betas = tuple(map(torch.tensor, (0.5, 0.75)))
    given = [adam_state_dict(), adam_state_dict(param_groups__0__betas=betas)]
    given[0]["param_groups"][0]["betas"] = (0.5, 0.75)
    numbers, tensors = (interop.from_torch(each, PARAMS, optimizer="Adam") for each in given)
    for a, b in zip(*(jax.tree.leaves(each.tx.update(PARAMS, each.state, PARAMS)) for each in (numbers, tensors)), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    state_dicts_same(interop.to_torch_state_dict(tensors.state, tensors.groups), given[1])


STOCK = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5}),
    "adagrad": (torch.optim.Adagrad, {"eps_in_sqrt": False}),
    "rmsprop": (torch.optim.RMSprop, {"momentum": 0.9, "centered": True}),
    "adam": (torch.optim.Adam, {"amsgrad": True, "weight_decay": 0.25}),
    "adamw": (torch.optim.AdamW, {}),
}


@pytest.mark.parametrize("name", STOCK)
def test_a_run_born_in_jax_goes_on_in_torch_optim(name):
    make, arguments = STOCK[name]
    params = parameters(SIZES, "float32")
    run = JaxRun(OPTIMIZERS[name].jax(0.125, **arguments), params)
    drawn = list(itertools.islice(gradients("normal", params), BEFORE + AFTER))
    for gradient in drawn[:BEFORE]:
        run.step(gradient)
    stock = TorchSide(lambda weights: make(weights, lr=1.0), [np.array(leaf) for leaf in jax.tree.leaves(run.params)])
    groups = interop.describe(params, (name, {"learning_rate": 0.125, **arguments}))
    stock.optimizer.load_state_dict(interop.to_torch_state_dict(run.state, groups, like="torch.optim"))
    for gradient in drawn[BEFORE:]:
        run.step(gradient)
        stock.step(jax.tree.leaves(gradient))
    for ours, theirs in zip(jax.tree.leaves(run.params), stock.params(), strict=True):
        np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-5, atol=1e-5)


def test_state_is_where_its_leaf_is():
    weights = {"spread": torch.ones(16), "whole": torch.ones(7)}
    parameters = [torch.nn.Parameter(weight) for weight in weights.values()]
    optimizer = torch_ref.Adam(zip(weights, parameters, strict=True))
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    start = _on_mesh({name: np.zeros(weight.shape, np.float32) for name, weight in weights.items()})
    params = interop.weights_from_torch(weights, start)
    _, state, groups = interop.from_torch(optimizer, params)
    for tree in (params, state.exp_avg, state.exp_avg_sq):
        for path, leaf in tree.items():
            assert leaf.sharding.is_equivalent_to(start[path].sharding, 1), path
    assert not start["spread"].sharding.is_fully_replicated
    assert state.step.sharding.is_fully_replicated
    assert len(state.step.sharding.device_set) == 8
    state_dicts_same(interop.to_torch_state_dict(state, groups), optimizer.state_dict())


def test_a_layout_and_its_way_back():
    weight = torch.arange(24.0).reshape(4, 6).requires_grad_()
    optimizer = torch_ref.Adam([weight])
    (weight.square().sum() / 2).backward()
    optimizer.step()
    layout = [(1, 0), interop.Reshape((6, 4), (3, 2, 4)), (2, 0, 1)]
    expected = np.arange(24.0, dtype=np.float32).reshape(4, 6).T.reshape(3, 2, 4).transpose(2, 0, 1)
    params = {"kernel": jnp.zeros((4, 3, 2))}
    _, state, groups = interop.from_torch(optimizer, params, layouts={"['kernel']": layout})
    b1, one_minus = np.float32(0.9), np.float32(1 - 0.9)
    np.testing.assert_array_equal(np.asarray(state.exp_avg["kernel"]), b1 * 0 + one_minus * expected)
    state_dicts_same(interop.to_torch_state_dict(state, groups), optimizer.state_dict())


def test_names_that_are_the_same_belong_together_and_others_are_in_order():
    """JAX sorts the keys of a dict: layers.10 before layers.2."""
    names = [f"layers.{i}" for i in range(12)]
    weights = [torch.nn.Parameter(torch.full((2,), float(i))) for i in range(12)]
    params = {"layers": {str(i): np.zeros(2, np.float32) for i in range(12)}}
    for optimizer, given in (
        (torch_ref.AdaGrad(zip(names, weights, strict=True)), {}),
        (torch_ref.AdaGrad(weights), {"parameters": names}),
        (torch_ref.AdaGrad(weights), {"names": lambda path: int(path.split(".")[1])}),
        (torch_ref.AdaGrad(weights), {"names": lambda path: path, "parameters": names}),
    ):
        for i, weight in enumerate(weights):
            weight.grad = torch.full((2,), float(i))
        optimizer.step()
        state = interop.from_torch(optimizer, params, **given).state
        assert all((state.sum["layers"][str(i)] == i * i).all() for i in range(12))
    in_order = interop.from_torch(optimizer, params).state  # zeros tell nothing
    assert in_order.sum["layers"]["10"][0] == 4


def test_the_default_order_never_swaps():
    """Leaves a and b, which torch has as b and a, of one shape."""
    values = {"b": np.float32([1, 2]), "a": np.float32([3, 4])}
    weights = [torch.nn.Parameter(torch.from_numpy(value.copy())) for value in values.values()]
    params = {"a": values["a"], "b": values["b"]}
    for named, arguments, message in [
        (["b", "c"], {}, "names: some leaves and parameters have the same names, but only leaves a, only torch c; names is needed"),
        (["b", "b"], {}, "names: two parameters in torch are 'b'; names is needed"),
        (["b", "b"], {"names": {"a": "b", "b": 1}}, "names: leaf a is 'b', but so are two parameters in torch; give indices"),
        (["b", "a"], {"parameters": ["a", "b"]}, "parameters: 'a' was given, but the param_names of the groups have 'b' in its place"),
    ]:
        given = torch_ref.Adam(weights).state_dict()
        given["param_groups"][0]["param_names"] = named
        with pytest.raises(ValueError, match=f"^{message}"):
            interop.from_torch(given, params, optimizer="Adam", **arguments)
    optimizer = torch_ref.Adam(weights)
    with pytest.raises(ValueError, match=r"^from_torch: leaf a has the value of params\[1\], but is params\[0\] where only the order"):
        interop.from_torch(optimizer, jax.tree.map(jnp.array, params))
    for arguments in ({"parameters": ["b", "a"]}, {"names": {"a": 1, "b": 0}}):
        assert [leaf.path for leaf in interop.from_torch(optimizer, params, **arguments).groups[0].leaves] == ["b", "a"]
    assert interop.from_torch(optimizer, {"a": values["b"], "b": values["a"]}).groups[0].leaves[0].path == "a"
    named = torch_ref.Adam([{"params": [("y", weights[0])]}, {"params": [("x", weights[1])]}])
    with pytest.raises(ValueError, match=r"^from_torch: leaf a has the value of params\['x'\], but is params\['y'\] where"):
        interop.from_torch(named, params)


def test_missing_state_starts_as_new_only_where_it_is_named():
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in "ab")
    optimizer = torch_ref.Adam([a, b])
    a.square().sum().backward()
    optimizer.step()
    params = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    with pytest.raises(ValueError, match=r"^Adam: params\[1\] has no state, but others of its group have some; list it in missing"):
        interop.from_torch(optimizer, params)
    _, state, groups = interop.from_torch(optimizer, params, missing=["b"])
    assert not state.exp_avg["b"].any()
    back = interop.to_torch_state_dict(state, groups)["state"]
    state_dicts_same(back[0], optimizer.state_dict()["state"][0])
    assert back[1]["step"] == 1

    for dampening in (0, 0.5):
        optimizer = torch_ref.SGD([a, b], lr=0.1, momentum=0.9, dampening=dampening)
        optimizer.step()
        if dampening:
            with pytest.raises(ValueError, match=r"^SGD: params\[1\] has no state, and with dampening a first step differs from step 1"):
                interop.from_torch(optimizer, params, missing=["b"])
        else:
            assert not interop.from_torch(optimizer, params, missing=["b"]).state.momentum_buffer["b"].any()


def test_a_run_that_has_not_begun():
    for make in (entry.torch for entry in OPTIMIZERS.values()):
        optimizer = make([torch.nn.Parameter(torch.ones(2))], lr=0.1)
        imported = interop.from_torch(optimizer, {"w": np.ones(2, np.float32)})
        assert int(imported.state.step) == 0
        state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), optimizer.state_dict())


def test_both_sides_have_memory_of_their_own():
    """What either side does next in place, its tensor of a learning rate included, the other does not see."""
    weight, rate = torch.nn.Parameter(torch.ones(64, 64)), torch.tensor(0.5)
    optimizer = torch_ref.Adam([weight], lr=rate)
    weight.grad = torch.ones(64, 64)
    optimizer.step()
    params = interop.weights_from_torch({"w": weight}, {"w": np.zeros((64, 64), np.float32)})
    imported = interop.from_torch(optimizer, params)
    written = interop.to_torch_state_dict(jax.tree.map(np.array, imported.state), imported.groups)
    before = [np.asarray(x).copy() for x in (params["w"], imported.state.exp_avg["w"], written["state"][0]["exp_avg"])]
    in_numpy = jax.tree.map(np.array, imported.state)
    interop.to_torch_state_dict(in_numpy, imported.groups)["state"][0]["exp_avg"].zero_()
    optimizer.step()
    rate.fill_(7.0)
    for now, then in zip((params["w"], imported.state.exp_avg["w"], written["state"][0]["exp_avg"]), before, strict=True):
        np.testing.assert_array_equal(np.asarray(now), then)
    assert in_numpy.exp_avg["w"].all()
    for lr in (imported.groups[0].options["lr"], written["param_groups"][0]["lr"]):
        assert lr == 0.5


def test_a_state_dict_of_halves_tells_its_accumulators():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    optimizer = torch_ref.Adam([torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))], accumulator_dtype="float32")
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3, dtype=torch.bfloat16)
    optimizer.step()
    imported = interop.from_torch(optimizer.state_dict(), params, optimizer="Adam")
    assert imported.state.exp_avg["w"].dtype == jnp.float32
    assert imported.groups[0].accumulator_dtype == "float32"
    _, state = imported.tx.update(params, imported.state, params)
    assert state.exp_avg["w"].dtype == jnp.float32


def test_stock_adagrads_eps_is_outside_the_root():
    params = {"w": np.ones(3, np.float32)}
    for optimizer, inside in ((torch.optim.Adagrad, False), (torch_ref.AdaGrad, True)):
        tx, state, _ = interop.from_torch(optimizer([torch.nn.Parameter(torch.ones(3))], lr=1.0, eps=0.25), params)
        updates, _ = tx.update({"w": np.full(3, 2.0, np.float32)}, state)
        expected = -np.float32(2) / (np.sqrt(np.float32(4.25)) if inside else np.float32(2.25))
        np.testing.assert_array_equal(np.asarray(updates["w"]), np.full(3, expected))


def test_old_checkpoints_count_in_numbers():
    """torch before 1.12 had `step` as an int, and no flags in its groups."""
    group = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "params": [0]}
    old = {"state": {0: {"step": 7, "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}}, "param_groups": [group]}
    imported = interop.from_torch(old, {"w": np.ones(2, np.float32)}, optimizer="Adam")
    assert int(imported.state.step) == 7
    state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), old)


def altered(tree, changes):
    """A tree of dicts and lists with changes at a__0__b; a change to None removes."""
    for where, value in changes.items():
        *path, last = (int(key) if key.isdecimal() else key for key in where.split("__"))
        at = tree
        for key in path:
            at = at[key]
        if value is None:
            del at[last]
        else:
            at[last] = value
    return tree


def adam_state_dict(**changes):
    """A good state_dict of Adam over a (3) and b (2, 3), with changes."""
    state = {
        i: {"step": torch.tensor(3.0), "exp_avg": torch.ones(shape), "exp_avg_sq": torch.ones(shape)}
        for i, shape in enumerate([(3,), (2, 3)])
    }
    group = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "params": [0, 1]}
    given = {"state": state, "param_groups": [group]}
    return altered(given, changes)


PARAMS = {"a": np.ones(3, np.float32), "b": np.ones((2, 3), np.float32)}


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, {"optimizer": None}, r"from_torch: a state_dict does not tell its class; optimizer is one of SGD, Momentum, Adagrad"),
        ({}, {"optimizer": "LBFGS"}, r"unknown optimizer class 'LBFGS'; one of SGD, "),
        ({}, {"optimizer": "SGD"}, r"SGD: group 0 has the unknown key 'betas'; lr, momentum, dampening"),
        ({"state": None}, {}, r"Adam: a state_dict has the keys state and param_groups; got no state\."),
        ({"epoch": 3}, {}, r"Adam: a state_dict has the keys state and param_groups; got 'epoch' as well\."),
        ({"param_groups__0__params": [0, 0]}, {}, r"Adam: each parameter is in one group, once; got params \[0, 0\]\."),
        ({"param_groups__0__params": [0]}, {}, r"Adam: there is state of params\[1\], which is in no group\."),
        ({"param_groups__0__eps": None}, {}, r"Adam: group 0 has no 'eps'; each of lr, betas"),
        ({"param_groups__0__betas": 0.9}, {}, r"Adam: group 0 has betas 0\.9; two numbers are needed\."),
        ({"param_groups__0__lr": -1.0}, {}, r"Invalid learning rate: -1\.0 \(adam: lr >= 0\)"),
        ({"param_groups__0__trust": 1.0}, {}, r"Adam: group 0 has the unknown key 'trust'"),
        ({"param_groups__0__name": print}, {}, r"Adam: group 0 has 'name': a number, a string or a tensor is needed"),
        ({"param_groups__0__param_names": ["x"]}, {}, r"Adam: group 0 has 2 params but 1 param_names\."),
        ({"param_groups__0__decoupled_weight_decay": False}, {"optimizer": "AdamW"}, r"AdamW: group 0 has decoupled_weight_decay=False"),
        ({"param_groups__0__amsgrad": True}, {}, r"Adam: params\[0\] has no max_exp_avg_sq; each of step, exp_avg, exp_avg_sq, max"),
        ({"state__1__exp_avg_sq": None}, {}, r"Adam: params\[1\] has no exp_avg_sq; each of step, exp_avg, exp_avg_sq is needed\."),
        ({"state__1__step": None}, {}, r"Adam: params\[1\] has no step"),
        ({"state__1": None}, {}, r"Adam: params\[1\] has no state, but others of its group have some"),
        (
            {"state__1__max_exp_avg_sq": torch.ones(2, 3)},
            {},
            r"Adam: params\[1\] has state 'max_exp_avg_sq'; with these settings it keeps st",
        ),
        (
            {"state__1__ema": torch.ones(2, 3)},
            {},
            r"Adam: params\[1\] has state 'ema'; with these settings it keeps step, exp_avg, exp_avg_sq",
        ),
        (
            {"state__1__step": torch.tensor(4.0)},
            {},
            r"Adam: params\[1\] is at step 4 \(float32\), params\[0\] at 3 \(float32\); a group has o",
        ),
        ({"state__0__step": torch.tensor(2.5)}, {}, r"Adam: params\[0\] has step 2\.5; a whole number is needed\."),
        ({"state__0__step": torch.tensor(float("nan"))}, {}, r"Adam: params\[0\] has step nan; a whole number is needed\."),
        ({"state__0__step": torch.ones(2)}, {}, r"Adam: params\[0\] has step tensor\(\[1\., 1\.\]\); a whole number is needed\."),
        ({}, {"step": 4}, r"Adam: step 4 was given, but the state of group 0 says 3\."),
        ({"state__0__exp_avg": [1.0]}, {}, r"Adam: exp_avg of params\[0\] is a tensor; got list\."),
        (
            {"state__0__exp_avg": torch.ones(3).to_sparse()},
            {},
            r"Adam: exp_avg of params\[0\]: a dense tensor is needed; got one that is sp",
        ),
        ({"state__1__exp_avg": torch.ones(3, 2)}, {}, r"Adam: exp_avg of params\[1\] has shape \(3, 2\) in the layout of leaf b, which"),
        ({}, {"layouts": {"b": (1, 0)}}, r"Adam: exp_avg of params\[1\] has shape \(3, 2\) in the layout of leaf b, which has \(2, 3\)"),
        ({}, {"layouts": {"a": (1, 0)}}, r"Adam: exp_avg of params\[0\]: axes \(1, 0\) do not fit shape \(3,\) \(layout of leaf a\)"),
        ({}, {"layouts": {"b": interop.Reshape((6,), (2, 3))}}, r"Adam: exp_avg of params\[1\]: a reshape from \(6,\) to \(2, 3\) does"),
        ({}, {"layouts": {"c": (1, 0)}}, r"layouts: no leaf has the path c; one of a, b is needed\."),
        ({"state__0__exp_avg": torch.ones(3).double()}, {}, r"Adam: exp_avg of params\[0\] has dtype float64; leaf a has float32, so tha"),
        ({"state__0__exp_avg": torch.ones(3).bfloat16()}, {}, r"Adam: exp_avg of params\[0\] has dtype bfloat16; leaf a has float32"),
        ({}, {"names": {"a": 0}}, r"names: leaf b is not among them; each leaf is one parameter\."),
        ({}, {"names": {"a": 0, "b": 0}}, r"names: leaves a and b are both 0\."),
        ({}, {"names": {"a": 0, "b": 2}}, r"names: leaf b is 2; a name or an index below 2 is needed\."),
        ({}, {"names": {"a": "w", "b": "v"}}, r"names: leaf a is 'w', but the groups hold no param_names"),
        ({}, {"names": {"a": "w", "b": "v"}, "parameters": ["x", "v"]}, r"names: leaf a is 'w'; one of x, v is needed\."),
        ({}, {"parameters": ["x"]}, r"names: torch has 2 parameters; got 1 names of parameters\."),
        ({}, {"missing": ["c"]}, r"missing: no leaf has the path c; one of a, b is needed\."),
        ({}, {"learning_rate": [0.1, 0.2]}, r"from_torch: one learning_rate for each of 1 groups is needed; got 2\."),
        (
            {"param_groups__0__params": [0], "state__1": None},
            {},
            r"names: 2 leaves but 1 parameters in torch; each leaf is one parameter\.",
        ),
    ],
)
def test_what_does_not_carry_over_is_refused_by_name(changes, arguments, message):
    interop.from_torch(adam_state_dict(), PARAMS, optimizer="Adam")
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        interop.from_torch(adam_state_dict(**changes), PARAMS, **{"optimizer": "Adam", **arguments})


def test_live_optimizers_are_held_against_the_leaves():
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])
    for params, error, message in [
        (
            {"a": np.ones(4, np.float32)},
            ValueError,
            r"Adam: value of params\[0\] has shape \(3,\) in the layout of leaf a, which has \(4,\)",
        ),
        ({"a": jnp.ones(3, jnp.bfloat16)}, TypeError, r"Adam: value of params\[0\] has dtype float32; leaf a has bfloat16"),
        ({"a": np.ones(3, int)}, TypeError, r"adam: leaf params\['a'\] has dtype int32; a floating-point dtype"),
    ]:
        with pytest.raises(error, match=f"^{message}"):
            interop.from_torch(optimizer, params)
    other = torch.optim.Adadelta([torch.nn.Parameter(torch.ones(3))])
    with pytest.raises(
        ValueError, match=r"^from_torch: an optimizer of torch\.optim or torch_ref is needed, one of .*; got torch's Adadelta\.$"
    ):
        interop.from_torch(other, PARAMS)
    with pytest.raises(ValueError, match=r"^from_torch: optimizer 'SGD' was given; got a Adam\.$"):
        interop.from_torch(optimizer, PARAMS, optimizer="SGD")


def sgd_state_dict(momentum=0.9, **group):
    group = {"lr": 0.1, "momentum": momentum, "dampening": 0, "weight_decay": 0, "params": [0], **group}
    return {"state": {0: {"momentum_buffer": torch.ones(3)}} if momentum else {}, "param_groups": [group]}


def test_the_step_of_sgd():
    params = {"a": np.ones(3, np.float32)}
    step_of = lambda given, **step: int(interop.from_torch(given, params, optimizer="SGD", **step).state.step)  # noqa: E731
    assert step_of(sgd_state_dict()) == 1
    assert step_of(sgd_state_dict(), step=9) == 9
    assert step_of(sgd_state_dict(0)) == 0
    assert step_of({**sgd_state_dict(), "state": {}}) == 0
    assert step_of(sgd_state_dict(0, initial_lr=0.1), step=9) == 9
    for given, step, message in [
        (sgd_state_dict(0, initial_lr=0.1), None, "its state holds no step, and the learning rate depends on it; step is needed"),
        (sgd_state_dict(), 0, "step 0 was given, but momentum_buffer is there, so that a step was taken"),
        ({**sgd_state_dict(), "state": {}}, 3, r"params\[0\] has no state, but step 3 was given"),
        (sgd_state_dict(), -1, "0 <= step <= 2147483647; got -1"),
    ]:
        with pytest.raises(ValueError, match=f"^SGD: {message}"):
            step_of(given, step=step)


def test_what_torch_cannot_hold_is_refused():
    params = {"a": jnp.ones(3, jnp.bfloat16)}

    def written(name, arguments, *, like="torch_ref", state=None, described=None):
        state = OPTIMIZERS[name].jax(**arguments).init(params) if state is None else state
        groups = interop.describe(params, (name, arguments if described is None else described))
        return interop.to_torch_state_dict(state, groups, like=like)

    rate = {"learning_rate": 0.1}
    half_adam = jaxopt_impl.adam(0.1).init(params)
    too_far = half_adam._replace(step=np.int32(2**24 + 1))
    for arguments, message in [
        (
            (("adagrad", rate), {"like": "torch.optim"}),
            r"AdaGrad: eps_in_sqrt=True does not carry over to torch.optim, which has False",
        ),
        ((("momentum", rate), {"like": "torch.optim"}), r"Momentum: torch.optim has no such state; the nearest, SGD, keeps b = −v/η"),
        (
            (("adam", {**rate, "accumulator_dtype": jnp.float32}), {"like": "torch.optim"}),
            r"Adam: state of halves in float32 does not carry",
        ),
        ((("adam", rate), {"like": "numpy"}), r"to_torch_state_dict: like is one of torch_ref, torch.optim; got 'numpy'"),
        ((("adam", rate), {"state": too_far}), r"Adam: step 16777217 of params\[0\] is not a float32, in which torch counts\."),
        ((("adam", {**rate, "amsgrad": True}), {"state": half_adam}), r"Adam: the state has max_exp_avg_sq of ; the group keeps a"),
        ((("adam", rate), {"described": {**rate, "amsgrad": True}}), r"Adam: the state has max_exp_avg_sq of ; the group keeps a"),
        (
            (("adam", {**rate, "amsgrad": True}), {"described": rate}),
            r"Adam: the state has max_exp_avg_sq of a; the group keeps none of it",
        ),
        (
            (("adam", rate), {"described": {**rate, "accumulator_dtype": "float32"}}),
            r"Adam: exp_avg of leaf a has dtype bfloat16; the leaf",
        ),
        ((("sgd", rate), {"state": half_adam}), r"SGD: the state has exp_avg of a; the group keeps none of it"),
        ((("adam", rate), {"state": jaxopt_impl.sgd(0.1).init(params)}), r"Adam: the state has no exp_avg; it has momentum_buffer, step"),
        (
            (("adam", rate), {"state": half_adam._replace(exp_avg={"a": jnp.ones(2, jnp.bfloat16)})}),
            r"Adam: exp_avg of leaf a has shape \(2,\)",
        ),
        ((("adam", rate), {"state": half_adam._replace(step=-1)}), r"Adam: the state has step -1; a whole number >= 0 is needed"),
        ((("adam", rate), {"state": half_adam._replace(step=2.5)}), r"Adam: the state has step 2\.5; a whole number >= 0 is needed"),
        ((("adam", rate), {"state": half_adam._replace(step=np.ones(1))}), r"Adam: the state has step \[1\.\]; a whole number >= 0"),
        ((("adam", rate), {"state": half_adam._replace(step=True)}), r"Adam: the state has step True; a whole number >= 0 is needed"),
        ((("adam", rate), {"described": {}}), r"describe: adam has no learning_rate; a number is needed"),
        ((("adam", rate), {"described": {"learning_rate": "0.1"}}), r"describe: learning_rate is a number"),
        ((("adam", rate), {"described": {"learning_rate": lambda t: 0.1}}), r"describe: a torch group has a number as learning_rate"),
        ((("adam", rate), {"described": {**rate, "beta": 1}}), r"adam: unknown argument 'beta'; one of learning_rate, b1"),
    ]:
        (name, given), rest = arguments
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            written(name, given, **rest)
    for given, message in [
        (("adam", {"learning_rate": -1.0}), r"Invalid learning rate: -1\.0 \(adam: lr >= 0\)"),
        (("adam", {**rate, "b1": 1.5}), r"Invalid beta parameter at index 0: 1\.5"),
        (("lion", rate), "describe: unknown optimizer 'lion'; one of sgd, momentum"),
        ("adam", r"describe: an optimizer is a name and its arguments, as \('adam', .*; got 'adam'"),
        ({"a": "adam"}, "describe: an optimizer is a name and its arguments, as"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            interop.describe(params, given)
    assert "eps_in_sqrt" not in written("adagrad", {**rate, "eps_in_sqrt": False}, like="torch.optim")["param_groups"][0]


def test_weights_that_do_not_fit_are_refused():
    for weights, arguments, message in [
        ({"a": torch.ones(3)}, {}, "names: 2 leaves but 1 parameters in torch"),
        ({"a": torch.ones(3), "b": torch.ones(3, 2)}, {}, r"weights: b has shape \(3, 2\); leaf b has \(2, 3\)"),
        ({"a": torch.ones(3), "b": torch.ones(2, 3).double()}, {}, "weights: b has dtype float64; leaf b has float32"),
        ({"a": torch.ones(3), "b": torch.ones(3, 2)}, {"layouts": {"b": (0, 1, 2)}}, r"weights: b as leaf b: axes \(0, 1, 2\) do not fit"),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            interop.weights_from_torch(weights, PARAMS, **arguments)
    with pytest.raises(ValueError, match=r"^names: leaf b is not among them"):
        interop.weights_to_torch(PARAMS, names={"a": "x"})
    with pytest.raises(ValueError, match=r"^names: leaves a and b are both 'x'\.$"):
        interop.weights_to_torch(PARAMS, names=lambda path: "x")
    with pytest.raises(ValueError, match=r"^interop: two leaves have the path x\.y\.$"):
        interop.weights_to_torch({"x": {"y": np.ones(1)}, "x.y": np.ones(1)})


@jax.tree_util.register_dataclass
@dataclass
class Scale:
    value: jax.Array


def test_only_a_variables_value_has_no_name():
    """A field that is called value is one of the path, as it is in torch; the value of nnx's Param is the parameter."""
    state = nnx.split(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)[1]
    assert Leaves({"linear": state, "scale": Scale(jnp.ones(1))}).paths == ["linear.bias", "linear.kernel", "scale.value"]
    assert Leaves({"linear": state}).given({"['linear']['bias'].value": 1, "linear.kernel": 2}, "names") == {
        "linear.bias": 1,
        "linear.kernel": 2,
    }


def test_a_partition_with_one_label():
    labels = {"a": "all", "b": "all"}
    tx = optax.partition({"all": jaxopt_impl.adam(0.1)}, labels)
    groups = interop.describe(PARAMS, {"all": ("adam", {"learning_rate": 0.1})}, labels=labels)
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    alone = jaxopt_impl.adam(0.1)
    _, expected = alone.update(PARAMS, alone.init(PARAMS), PARAMS)
    state_dicts_same(interop.to_torch_state_dict(state, groups), interop.to_torch_state_dict(expected, groups))


def test_float32_accumulators_of_float32_are_torchs_own():
    arguments = {"learning_rate": 0.1, "accumulator_dtype": jnp.float32}
    groups = interop.describe(PARAMS, ("adam", arguments))
    state = jaxopt_impl.adam(**arguments).init(PARAMS)
    state_dicts_same(interop.to_torch_state_dict(state, groups, like="torch.optim"), interop.to_torch_state_dict(state, groups))


def test_reading_needs_no_torch():
    """Tensors are known by what they can do; the package is imported, and reads an array of its own kind, where torch is not there."""
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, optparity.interop as interop\n"
        "group = dict(lr=0.1, momentum=0.0, dampening=0, weight_decay=0, params=[0])\n"
        "given = dict(state={}, param_groups=[group])\n"
        "assert int(interop.from_torch(given, [np.ones(2, np.float32)], optimizer='SGD', step=5).state.step) == 5\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


OPTAX = {
    "adam": ("adam", optax.adam(0.125), {"b1": 0.9}),
    "adamw": ("adamw", optax.adamw(0.125, weight_decay=0.01), {}),
    "sgd": ("sgd", optax.sgd(0.125, momentum=0.9), {"momentum": 0.9}),
    "sgd, scheduled": (
        "sgd",
        optax.sgd(optax.linear_schedule(0.5, 0.1, 9), momentum=0.9, nesterov=True),
        {"momentum": 0.9, "nesterov": True},
    ),
    "adagrad": ("adagrad", optax.adagrad(0.125, 0.1, 1e-7), {"eps": 1e-7}),
    "rmsprop": ("rmsprop", optax.rmsprop(0.125, 0.99, eps_in_sqrt=False), {}),
    "rmsprop, centered": ("rmsprop", optax.rmsprop(0.125, 0.99, 1e-3, eps_in_sqrt=False, centered=True), {"centered": True, "eps": 1e-3}),
    "rmsprop, momentum": ("rmsprop", optax.rmsprop(0.125, 0.99, eps_in_sqrt=False, momentum=0.9), {"momentum": 0.9}),
    "amsgrad, uncorrected": ("adam", optax.amsgrad(0.125, bias_correction_nu=False), None),
}


def test_an_optax_state_of_step_0_starts_as_ours():
    """SGD's first buffer is the gradient, −0 too; optax's trace starts from +0."""
    params = jnp.ones(3)
    state = interop.from_optax("sgd", optax.sgd(0.1, momentum=0.9).init(params), params, step=0)
    new = jaxopt_impl.sgd(0.1, momentum=0.9).init(params)
    assert not differing(np.asarray(state.momentum_buffer), np.asarray(new.momentum_buffer)).any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("label", OPTAX)
@pytest.mark.usefixtures("as_users_have_it")
def test_optax_states_are_read_and_written(label, dtype):
    """There and back is every bit, and the transform that goes on stays next to optax's own."""
    name, theirs, arguments = OPTAX[label]
    params = parameters(SIZES, dtype)
    drawn = list(itertools.islice(gradients("normal", params), BEFORE + AFTER))
    stock = JaxRun(theirs, params)
    for gradient in drawn[:BEFORE]:
        stock.step(gradient)
    given = {"learning_rate": 0.125, "bias_correction_nu": False}
    state = interop.from_optax(name, stock.state, params, step=BEFORE, **given)
    back = interop.to_optax(name, state, theirs.init(params), **given)
    assert jax.tree.structure(back) == jax.tree.structure(stock.state)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(stock.state), strict=True):
        assert a.dtype == b.dtype
        assert not differing(np.asarray(a), np.asarray(b)).any()
    if arguments is not None:
        rate = optax.linear_schedule(0.5, 0.1, 9) if "scheduled" in label else 0.125
        ours = JaxRun(OPTIMIZERS[name].jax(rate, **arguments), stock.params, state)
        for gradient in drawn[BEFORE:]:
            stock.step(gradient)
            ours.step(gradient)
        for a, b in zip(jax.tree.leaves(ours.params), jax.tree.leaves(stock.params), strict=True):
            np.testing.assert_allclose(
                np.float32(a), np.float32(b), rtol=1e-2 if dtype == "bfloat16" else 1e-5, atol=0.05 if dtype == "bfloat16" else 1e-5
            )


@pytest.mark.usefixtures("as_users_have_it")
def test_optax_states_that_mean_something_else_are_refused():
    params = {"a": np.ones(3, np.float32)}
    momentum = optax.rmsprop(0.1, momentum=0.9).init(params)
    for (name, tx), arguments, message in [
        (("momentum", optax.sgd(0.1, momentum=0.9)), {}, "optax has no state of 'momentum': optax.sgd's trace is −v/η, other bits"),
        (("lion", optax.lion(0.1)), {}, "optax has no state of 'lion': one of sgd, adagrad, rmsprop, adam, adamw is needed"),
        (("adam", optax.lion(0.1)), {}, "optax's ScaleByLionState is no part of a adam state; ScaleByAdamState, ScaleByAmsgradState are"),
        (("adam", optax.amsgrad(0.1)), {}, "optax's ScaleByAmsgradState does not carry over: its maximum is of the corrected"),
        (("sgd", optax.sgd(0.1, momentum=0.9)), {}, "from_optax: this sgd state holds no count of steps; step is needed"),
        (("adagrad", optax.adagrad(0.1)), {}, "from_optax: this adagrad state holds no count of steps; step is needed"),
        (("adam", optax.adam(0.1)), {"step": 3}, "from_optax: one step is needed; got 3, 0"),
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
        (("adam", optax.inject_hyperparams(optax.adam)(0.1)), {}, "optax's InjectStatefulHyperparamsState is no part of a adam state"),
        (("adam", optax.adam(0.1, mu_dtype=jnp.bfloat16)), {}, "adam: exp_avg of leaf a has dtype bfloat16; float32 is needed"),
        (
            ("rmsprop", optax.rmsprop(optax.constant_schedule(0.5), momentum=0.9)),
            {"learning_rate": 0.5},
            "from_optax: rmsprop's momentum under a schedule keeps the learning rates that it was built with",
        ),
        (
            ("sgd", optax.chain(optax.trace(0.9), optax.trace(0.5))),
            {"step": 3},
            "from_optax: optax's TraceState and TraceState in one chain are both momentum_buffer; one is needed",
        ),
        (("adam", optax.sgd(0.1)), {"step": 0}, "from_optax: this state has no exp_avg, which adam needs; got EmptyState and EmptyState"),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            interop.from_optax(name, tx.init(params), params, **arguments)
    tiny = jax.tree.map(lambda x: jnp.full_like(x, 1e-38), momentum)
    with pytest.raises(ValueError, match=r"^optax.rmsprop's momentum is −η times ours; divided by this η, some element"):
        interop.to_optax(
            "rmsprop", interop.from_optax("rmsprop", tiny, params, step=1, learning_rate=0.5), momentum, learning_rate=2.0**-40
        )
    ours = jaxopt_impl.adam(0.1, amsgrad=True).init(params)
    with pytest.raises(ValueError, match=r"^to_optax: max_exp_avg_sq has no place in this adam state of optax: ScaleByAdamState and"):
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
            "to_optax: optax's TraceState and TraceState in one chain are both momentum_buffer",
        ),
        ("adam", ours, 5, "optax's int is no part of a adam state"),
        ("adam", ours, (), r"to_optax: a state of optax is needed; got \(\)"),
        ("adam", optax.adam(0.1).init(params), optax.adam(0.1).init(params), "to_optax: a state of jaxopt_impl.adam is needed; got tuple"),
        ("adam", jaxopt_impl.sgd(0.1).init(params), optax.adam(0.1).init(params), "to_optax: optax's ScaleByAdamState holds mu, but the"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            interop.to_optax(name, given, like, learning_rate=0.5)
    with pytest.raises(ValueError, match=r"^to_optax: optax's TraceState holds trace, but the sgd state has no momentum_buffer"):
        interop.to_optax("sgd", jaxopt_impl.sgd(0.1).init(params), optax.sgd(0.1, momentum=0.9).init(params))
