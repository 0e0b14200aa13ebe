"""Which leaf is which parameter: names that mean the same, shapes that leave one answer, layouts, parts and stacks."""

import copy
from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

import torch_ref
from optparity import interop
from optparity.interop.naming import matched

from .states import state_dicts_same

SAME = [
    ("equal", {"a.weight": "a.weight", "b.weight": "b.weight"}),
    ("a prefix", {"a.weight": "module.a.weight", "b.weight": "module.b.weight"}),
    ("a prefix", {"params.a.weight": "module._orig_mod.a.weight", "params.b.weight": "module._orig_mod.b.weight"}),
    ("a prefix", {"a.weight": "model.a._orig_mod.weight", "b.weight": "model.b.weight"}),
    ("translated", {"model.a.kernel": "a.weight", "model.a.bias": "a.bias"}),
    ("translated", {"embed.embedding": "embed.weight", "norm.scale": "norm.weight"}),
    ("translated", {"layers_2.kernel": "layers.2.weight", "layers_10.kernel": "layers.10.weight", "out.kernel": "out.weight"}),
    ("translated", {"Dense_2.kernel": "2.weight", "Dense_10.kernel": "10.weight"}),
    ("numbered", {"Dense_2.kernel": "2.weight", "Dense_10.kernel": "10.weight", "out.kernel": "out.weight"}),
    ("translated", {"params.h_0.q.kernel": "transformer.h.0.q.weight", "params.h_1.q.kernel": "transformer.h.1.q.weight"}),
    ("numbered", {"blocks_0.q.kernel": "layers.0.q.weight", "blocks_1.q.kernel": "layers.1.q.weight", "out.kernel": "out.weight"}),
    ("translated", {"mean.mean": "mean.running_mean", "norm.var": "norm.running_var"}),
    ("translated", {"a.kernel": "weight"}),
]


@pytest.mark.parametrize(("way", "same"), SAME)
def test_names_that_mean_the_same(way, same):
    assert matched(list(same), list(same.values())[::-1]) == (same, way)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.weight", "b.weight"], ["a.weight", "c.weight"]),
        (["Dense_0.kernel", "Conv_1.kernel"], ["0.weight", "1.weight"]),  # two lists in Flax, one in torch
        (["enc_0.kernel", "dec_1.kernel"], ["dec.0.weight", "enc.1.weight"]),  # a word that is on both sides means itself
        (["Dense_0.kernel", "Dense_1.kernel"], ["0.weight", "2.weight"]),
        (["Dense_0.kernel", "Dense_0.scale"], ["0.weight", "1.weight"]),
        (["a.kernel", "a.scale"], ["a.weight", "b.weight"]),
    ],
)
def test_names_that_do_not_tell(paths, names):
    assert matched(paths, names) is None


def test_square_kernels_are_decided_by_the_module_or_refused():
    """A Linear transposes, transformers' Conv1D does not; a mapping of weights tells neither."""

    class Conv1D(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.arange(16.0).reshape(4, 4))

    model = nn.ModuleDict({"a": nn.Linear(4, 4, bias=False), "b": Conv1D(), "c": nn.Linear(3, 4, bias=False), "d": nn.Linear(4, 4)})
    params = {name: {"kernel": jnp.zeros((3 if name == "c" else 4, 4))} for name in "abcd"}
    params["d"] = {"weight": jnp.zeros((4, 4)), "bias": jnp.zeros(4)}
    matching = interop.Matching(params, model)
    assert {path: pair.layout for path, pair in matching.pairs.items()} == {
        "a.kernel": (1, 0),
        "b.kernel": None,
        "c.kernel": (1, 0),
        "d.bias": None,
        "d.weight": None,
    }
    assert str(matching).splitlines() == [
        "leaf      shape   in torch  layout    by",
        "a.kernel  (4, 4)  a.weight  (1, 0)    translated; square: Linear tells",
        "b.kernel  (4, 4)  b.weight  as it is  translated; square: Conv1D tells",
        "c.kernel  (3, 4)  c.weight  (1, 0)    translated",
        "d.bias    (4,)    d.bias    as it is  translated",
        "d.weight  (4, 4)  d.weight  as it is  translated; square: taken as it is",
    ]
    carried, weights = interop.weights_from_torch(model, params, matching=matching), dict(model.named_parameters())
    np.testing.assert_array_equal(carried["a"]["kernel"], weights["a.weight"].detach().numpy().T)
    np.testing.assert_array_equal(carried["b"]["kernel"], weights["b.weight"].detach().numpy())
    with pytest.raises(ValueError, match=r"^layouts: leaf a\.kernel \(4, 4\) may be a\.weight as it is or with axes \(1, 0\): its shape"):
        interop.Matching(params, weights)
    given = interop.Matching(params, weights, layouts={"a.kernel": (1, 0), "b.kernel": None})
    assert {path: pair.layout for path, pair in given.pairs.items()} == {path: pair.layout for path, pair in matching.pairs.items()}


def test_convolutions_lie_as_flax_has_them():
    model = nn.ModuleDict({"one": nn.Conv1d(2, 3, 5), "two": nn.Conv2d(2, 2, 3), "three": nn.Conv3d(2, 3, 2), "up": nn.Linear(2, 3)})
    shapes = {"one": (5, 2, 3), "two": (3, 3, 2, 2), "three": (2, 2, 2, 2, 3), "up": (2, 3)}
    params = {name: {"kernel": jnp.zeros(shape), "bias": jnp.zeros(shape[-1])} for name, shape in shapes.items()}
    matching = interop.Matching(params, model)
    carried = interop.weights_from_torch(model, params, matching=matching)
    weight = dict(model.named_parameters())["two.weight"].detach().numpy()
    np.testing.assert_array_equal(carried["two"]["kernel"], np.moveaxis(weight, (0, 1), (3, 2)))
    back = interop.weights_to_torch(carried, matching=matching)
    state_dicts_same(back, {name: weight.detach() for name, weight in model.named_parameters()})
    with pytest.raises(
        ValueError, match=r"^layouts: leaf two\.kernel \(3, 3, 2, 2\) may be two\.weight .*axes \(2, 3, 1, 0\) or .* \(2, 3, 0, 1\)"
    ):
        interop.Matching(params, dict(model.named_parameters()))


def test_buffers_are_no_parameters():
    """A model tells them; in a mapping one more tensor is refused, by name."""
    model = nn.Sequential(OrderedDict(norm=nn.BatchNorm1d(3), out=nn.Linear(3, 2)))
    params = {"norm": {"scale": jnp.ones(3), "bias": jnp.zeros(3)}, "out": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
    assert "norm.running_mean" not in str(interop.Matching(params, model))
    with pytest.raises(ValueError, match=r"^names: 4 leaves but 7 parameters in torch; .* In torch: .*norm\.running_mean"):
        interop.Matching(params, model.state_dict())


def test_shapes_decide_only_if_one_assignment_fits():
    """A kernel may lie in two ways, so that the only assignment is found leaf by leaf."""
    params = {"x": {"kernel": jnp.zeros((3, 5))}, "y": {"kernel": jnp.zeros((5, 3))}, "z": jnp.zeros(7)}
    weights = {"u.weight": torch.zeros(5, 3), "v.weight": torch.zeros(3, 5), "w": torch.zeros(7)}
    with pytest.raises(
        ValueError, match=r"^names: leaf x\.kernel \(3, 5\) may be any of 'u\.weight', 'v\.weight': its shape does not tell"
    ):
        interop.Matching(params, weights)
    layouts = {"x.kernel": (1, 0), "y.kernel": (1, 0)}
    pairs = interop.Matching(params, weights, layouts=layouts).pairs
    assert {path: pair.source.parts[0].name for path, pair in pairs.items()} == {"x.kernel": 0, "y.kernel": 1, "z": 2}
    assert {pair.way for pair in pairs.values()} == {"shape"}
    with pytest.raises(ValueError, match=r"^names: no parameter in torch has the shape of leaf z \(7,\): 'u\.weight' \(5, 3\), "):
        interop.Matching(params, {**weights, "w": torch.zeros(8)})
    with pytest.raises(ValueError, match=r"^names: some leaves and parameters have the same names, but only leaves x, only torch y"):
        interop.Matching({"a": jnp.zeros(3), "x": jnp.zeros(4)}, {"a": torch.zeros(4), "y": torch.zeros(3)})


class Attention(nn.Module):
    """Queries, keys and values in one weight, as torch.nn.MultiheadAttention has them; keys and values are fewer."""

    def __init__(self):
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.randn(8, 4))
        self.out = nn.Linear(4, 4, bias=False)

    def forward(self, x):
        q, k, v = (x @ self.in_proj_weight.T).split([4, 2, 2], -1)
        return self.out(q * torch.cat([k, v], -1))


class Layers(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.layers = nn.ModuleList(Attention() for _ in range(count))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


ROWS = {"query": (0, 4), "key": (4, 6), "value": (6, 8)}


def fused(layer):
    return {f"{name}.kernel": interop.Part(f"{layer}in_proj_weight", *rows) for name, rows in ROWS.items()}


def trained(model, make):
    optimizer = make(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("make", [torch_ref.AdamW, torch.optim.RMSprop, torch_ref.SGD, torch_ref.Lion], ids=lambda make: make.__name__)
def test_leaves_that_split_and_stack_torch_parameters(make):
    """Fused weights as three leaves, scanned layers as one, and both: weights and every moment, there and back, every bit."""
    torch.manual_seed(0)
    model = Layers(11)
    optimizer = trained(model, (lambda p, lr: make(p, lr, momentum=0.9)) if make is torch_ref.SGD else make)
    names: dict[str, Any] = {
        f"{name}.kernel": interop.Stacked([interop.Part(f"layers.{i}.in_proj_weight", *rows) for i in range(11)])
        for name, rows in ROWS.items()
    }
    names["out.kernel"] = interop.Stacked([f"layers.{i}.out.weight" for i in range(11)], axis=1)
    start = {name: {"kernel": jnp.zeros((11, 4, stop - start))} for name, (start, stop) in ROWS.items()}
    start["out"] = {"kernel": jnp.zeros((4, 11, 4))}
    matching = interop.Matching(start, model, names=names, layouts=lambda path: (1, 0))
    params = interop.weights_from_torch(model, start, matching=matching)
    np.testing.assert_array_equal(params["key"]["kernel"][10], model.state_dict()["layers.10.in_proj_weight"][4:6].numpy().T)
    np.testing.assert_array_equal(params["out"]["kernel"][:, 10], model.state_dict()["layers.10.out.weight"].numpy().T)
    state_dicts_same(interop.weights_to_torch(params, matching=matching), {n: p.detach() for n, p in model.named_parameters()})

    step = None if optimizer.state_dict()["state"][0].get("step") is not None else 3
    tx, state, groups = interop.from_torch(optimizer, params, matching=matching, step=step)
    for field in (field for field in state._fields if field != "step" and getattr(state, field) is not None):
        own = [optimizer.state[p][field].numpy() for name, p in model.named_parameters() if "in_proj" in name]
        np.testing.assert_array_equal(getattr(state, field)["value"]["kernel"], [moment[6:8].T for moment in own])
    state_dicts_same(interop.to_torch_state_dict(state, groups), optimizer.state_dict())
    updates, state = tx.update(params, state, params)
    new = interop.to_torch_state_dict(state, groups)["state"]
    assert new.keys() == optimizer.state_dict()["state"].keys()
    assert jax.tree.structure(optax.apply_updates(params, updates)) == jax.tree.structure(params)


def test_one_fused_parameter_is_three_leaves():
    torch.manual_seed(0)
    model = Attention()
    optimizer = trained(model, torch_ref.AdamW)
    start = {name: {"kernel": jnp.zeros((4, stop - start))} for name, (start, stop) in ROWS.items()} | {
        "out": {"kernel": jnp.zeros((4, 4))}
    }
    names = {**fused(""), "out.kernel": "out.weight"}
    layouts = dict.fromkeys(names, (1, 0))
    matching = interop.Matching(start, model, names=names, layouts=layouts)
    assert "in_proj_weight[4:6]" in str(matching)
    params = interop.weights_from_torch(model, start, matching=matching)
    imported = interop.from_torch(optimizer, params, matching=matching)
    state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), optimizer.state_dict())
    for wrong, message in [
        ({"key.kernel": interop.Part("in_proj_weight", 5, 7)}, r"in_proj_weight\[0:4\], .* are not the whole of in_proj_weight \(8, 4\)"),
        ({"value.kernel": interop.Part("in_proj_weight", 6, 9)}, r"in_proj_weight\[0:4\], .*\[6:9\] are not the whole"),
        ({"key.kernel": "in_proj_weight"}, r"names: leaves key\.kernel and query\.kernel are both 'in_proj_weight'"),
        ({"out.kernel": interop.Stacked(["out.weight"])}, r"names: leaf out\.kernel has shape \(4, 4\); a stack of 1 along axis 0 has not"),
        ({"out.kernel": ["out.weight"]}, r"names: leaf out\.kernel is \['out\.weight'\]; a name, an index, a Part or Stacked is needed"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            interop.Matching(start, model, names={**names, **wrong}, layouts=layouts)


def test_a_matching_knows_the_optimizers_parameters_by_memory():
    """Groups from the top layer down, without names: the parameters themselves tell; a copy's state_dict does not."""
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(12)))
    groups = [{"params": model[i].parameters(), "lr": 0.1 * 0.5**i} for i in reversed(range(12))]
    optimizer = torch.optim.AdamW(groups)
    model(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()
    start = {f"Dense_{i}": {"kernel": jnp.zeros((4, 4))} for i in range(12)}
    parameters = dict(model.named_parameters())
    for weights in (model, model.state_dict()):
        layouts = None if weights is model else (lambda path: (1, 0))
        matching = interop.Matching(start, weights, layouts=layouts)
        params = interop.weights_from_torch(model, start, matching=matching)
        imported = interop.from_torch(optimizer, params, matching=matching)
        for group in imported.groups:
            (leaf,) = group.leaves
            i = int(leaf.path.removeprefix("Dense_").removesuffix(".kernel"))
            assert group.options["lr"] == 0.1 * 0.5**i
            moment = imported.state.inner_states[group.label].inner_state.exp_avg[f"Dense_{i}"]["kernel"]
            np.testing.assert_array_equal(moment.T, optimizer.state[parameters[f"{i}.weight"]]["exp_avg"])
        state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), optimizer.state_dict())
    names = [name for name, _ in model.named_parameters()]
    with pytest.raises(ValueError, match=r"^parameters: '0\.weight' was given, but the optimizer's is 11\.weight"):
        interop.from_torch(optimizer, params, matching=matching, parameters=names)
    apart = interop.Matching(start, copy.deepcopy(model))
    with pytest.raises(
        ValueError, match=r"^matching: params\[0\] of the optimizer \(4, 4\) may be any of '0\.weight', .*: its shape does not"
    ):
        interop.from_torch(optimizer, params, matching=apart)
    imported = interop.from_torch(optimizer.state_dict(), params, optimizer="AdamW", matching=apart, parameters=names[::-1])
    state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), optimizer.state_dict())


def test_a_matching_is_of_its_leaves():
    matching = interop.Matching({"w": jnp.zeros(3)}, {"w": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"^matching: it is of other leaves: w has shape \(3,\) there and \(4,\) here"):
        interop.weights_to_torch({"w": jnp.zeros(4)}, matching=matching)
    with pytest.raises(ValueError, match=r"^matching: it was made with its own names; give names there"):
        interop.weights_to_torch({"w": jnp.zeros(3)}, matching=matching, names={"w": "x"})
    with pytest.raises(TypeError, match=r"^matching: weights is a torch module or a mapping from names to tensors; got list"):
        interop.Matching({"w": jnp.zeros(3)}, [torch.zeros(3)])


def test_the_order_of_torchs_parameters_is_not_made_up():
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    with pytest.raises(ValueError, match=r"^describe: the order of torch's parameters is not known, and leaves have one shape; matching="):
        interop.describe(params, ("adam", {"learning_rate": 0.1}))
    (group,) = interop.describe({"a": jnp.zeros(2), "b": jnp.zeros(3)}, ("adam", {"learning_rate": 0.1}))
    assert [leaf.path for leaf in group.leaves] == ["a", "b"]
    model = nn.ParameterDict({"b": torch.ones(2), "a": torch.ones(2)})
    (group,) = interop.describe(params, ("adam", {"learning_rate": 0.1}), matching=interop.Matching(params, model))
    assert [leaf.path for leaf in group.leaves] == [name for name, _ in model.named_parameters()]


def test_a_leaf_under_a_name_of_its_own_is_not_taken_as_it_is():
    """An encoder and a decoder, each transposed: taken as they are, each would fit the other."""
    params = {"down": {"w": jnp.zeros((4, 6))}, "up": {"w": jnp.zeros((6, 4))}}
    weights = {"encoder.weight": torch.zeros(6, 4), "decoder.weight": torch.zeros(4, 6)}
    with pytest.raises(ValueError, match=r"^names: leaf down\.w \(4, 6\) may be any of 'encoder\.weight', 'decoder\.weight': its shape"):
        interop.Matching(params, weights)
    with pytest.raises(ValueError, match=r"^layouts: leaf w \(4, 4\) may be l\.weight as it is or with axes \(1, 0\): its shape"):
        interop.Matching({"w": jnp.zeros((4, 4))}, nn.ModuleDict({"l": nn.Linear(4, 4, bias=False)}))
    (pair,) = interop.Matching({"w": jnp.zeros((4, 4))}, {"l.weight": torch.zeros(4, 4)}, layouts={"w": (1, 0)}).pairs.values()
    assert pair.layout == (1, 0)


def test_the_kernels_of_recurrent_layers_are_transposed_and_those_of_transposed_convolutions_refused():
    lstm = nn.LSTMCell(4, 4, bias=False)
    gates = {f"{side}{gate}.kernel": (side, i) for side in "ih" for i, gate in enumerate("ifgo")}
    names = {path: interop.Part(f"weight_{side}h", 4 * i, 4 * i + 4) for path, (side, i) in gates.items()}
    start = {path.split(".")[0]: {"kernel": jnp.zeros((4, 4))} for path in gates}
    carried = interop.weights_from_torch(lstm, start, names=names)
    np.testing.assert_array_equal(carried["hg"]["kernel"], lstm.weight_hh.detach().numpy()[8:12].T)
    with pytest.raises(ValueError, match=r"^layouts: leaf hf\.kernel \(4, 4\) may be weight_hh\[4:8\] as it is or with axes"):
        interop.Matching(start, dict(lstm.named_parameters()), names=names, layouts=dict.fromkeys(list(gates)[:5], (1, 0)))
    flipped = nn.ConvTranspose1d(3, 5, 2, bias=False)
    with pytest.raises(ValueError, match=r"^layouts: leaf kernel \(2, 3, 5\) may be weight as a transposed convolution only"):
        interop.Matching({"kernel": jnp.zeros((2, 3, 5))}, flipped)
    assert interop.Matching({"kernel": jnp.zeros((2, 3, 5))}, flipped, layouts={"kernel": (2, 0, 1)}).pairs["kernel"].layout == (2, 0, 1)


def test_a_class_that_only_has_the_name_of_torchs_tells_nothing():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 4))

    with pytest.raises(ValueError, match=r"^layouts: leaf kernel \(4, 4\) may be weight as it is or with axes \(1, 0\)"):
        interop.Matching({"kernel": jnp.zeros((4, 4))}, Linear())


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"names": {"a": interop.Part("w", 0, 2, -1), "b": interop.Part("w", 2, 4, -1)}},
            ValueError,
            r"names: w\[0:2\] is no part or stack",
        ),
        ({"names": {"a": interop.Part("w", 0, 2, 3), "b": interop.Part("w", 2, 4, 3)}}, ValueError, r"w.* are not the whole of w \(4, 4\)"),
        ({"names": {"a": interop.Stacked([]), "b": "w"}}, ValueError, r"names: Stacked\(names=\[\], axis=0\) is no part or stack"),
        ({"names": {"a": True, "b": "w"}}, ValueError, r"names: leaf a is True; a name or an index below 1 is needed"),
        ({"names": ["w", "w"]}, TypeError, r"names: a mapping or a function from paths is needed; got list"),
        ({"layouts": [(1, 0)]}, TypeError, r"layouts: a mapping or a function from paths is needed; got list"),
    ],
)
def test_what_is_given_wrongly_is_refused(given, error, message):
    with pytest.raises(error, match=f"^{message}"):
        interop.Matching({"a": jnp.zeros((4, 2)), "b": jnp.zeros((4, 2))}, {"w": torch.zeros(4, 4)}, **given)


@pytest.mark.parametrize("layout", [5, True, [(1, 0), 3], [None], {1: 0}])
def test_a_layout_is_axes_or_reshapes(layout):
    with pytest.raises(ValueError, match=r"^layouts: leaf a has shape \(3, 2\); x a layout is axes as \(1, 0\), a Reshape, or several"):
        interop.Matching({"a": jnp.zeros((3, 2))}, {"x": torch.zeros(2, 3)}, names={"a": "x"}, layouts={"a": layout})


def test_a_leaf_that_is_left_over_is_named():
    with pytest.raises(ValueError, match=r"^names: leaf b \(3,\) is left without a parameter in torch: all of its shape are leaves a\."):
        interop.Matching({"a": jnp.zeros(3), "b": jnp.zeros(3)}, {"x": torch.zeros(3), "y": torch.zeros(4)})
    stale = torch.optim.Adam([nn.Parameter(torch.full((2, 3), 2.0)), nn.Parameter(torch.full((2, 3), 3.0))])
    with pytest.raises(
        ValueError, match=r"^from_torch: leaf a\.kernel has the value of no parameter in torch: .*; carry the weights first"
    ):
        interop.from_torch(stale, {name: {"kernel": jnp.full((3, 2), 4.0)} for name in "ab"})


def test_groups_without_parameters_come_back():
    groups: Any = [{"params": [], "lr": 0.5}, {"params": [nn.Parameter(torch.ones(3))]}, {"params": [], "lr": 0.3}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    imported = interop.from_torch(optimizer, {"a": jnp.ones(3)})
    state_dicts_same(interop.to_torch_state_dict(imported.state, imported.groups), optimizer.state_dict())
