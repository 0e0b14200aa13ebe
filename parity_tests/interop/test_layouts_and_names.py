"""Which leaf is which parameter, and how its axes lie."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import torch_ref
from optparity import interop
from optparity.interop.leaves import Leaves

from .states import state_dicts_same


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


def test_names_that_are_the_same_belong_together_and_no_order_is_trusted():
    """JAX sorts the keys of a dict: layers.10 before layers.2."""
    names = [f"layers.{i}" for i in range(12)]
    weights = [torch.nn.Parameter(torch.full((2,), float(i))) for i in range(12)]
    params = {"layers": {str(i): np.zeros(2, np.float32) for i in range(12)}}
    runs: list[tuple[Any, dict[str, Any]]] = [
        (torch_ref.AdaGrad(zip(names, weights, strict=True)), {}),
        (torch_ref.AdaGrad(weights), {"parameters": names}),
        (torch_ref.AdaGrad(weights), {"names": lambda path: int(path.split(".")[1])}),
        (torch_ref.AdaGrad(weights), {"names": lambda path: path, "parameters": names}),
        (torch_ref.AdaGrad(weights), {"matching": interop.Matching(params, dict(zip(names, weights, strict=True)))}),
    ]
    for optimizer, given in runs:
        for i, weight in enumerate(weights):
            weight.grad = torch.full((2,), float(i))
        optimizer.step()
        carried = {"layers": {str(i): weight.detach().numpy().copy() for i, weight in enumerate(weights)}}
        state = interop.from_torch(optimizer, carried, **given).state
        assert all((state.sum["layers"][str(i)] == i * i).all() for i in range(12))
    with pytest.raises(
        ValueError, match=r"^names: leaf layers\.0 \(2,\) may be any of params\[0\], params\[1\], .*: its shape does not tell"
    ):
        interop.from_torch(optimizer, params)  # zeros tell nothing
    by_value = interop.from_torch(optimizer, carried).state
    assert all((by_value.sum["layers"][str(i)] == i * i).all() for i in range(12))


def test_values_of_a_live_optimizer_are_those_of_the_leaves():
    """Leaves a and b, which torch has as b and a, of one shape."""
    values = {"b": np.array([1, 2], np.float32), "a": np.array([3, 4], np.float32)}
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
    ways: list[dict[str, Any]] = [{}, {"parameters": ["b", "a"]}, {"names": {"a": 1, "b": 0}}]
    for arguments in ways:
        assert [leaf.path for leaf in interop.from_torch(optimizer, params, **arguments).groups[0].leaves] == ["b", "a"]
    assert interop.from_torch(optimizer, {"a": values["b"], "b": values["a"]}).groups[0].leaves[0].path == "a"
    wrong: list[dict[str, Any]] = [{"parameters": ["a", "b"]}, {"names": {"a": 0, "b": 1}}]
    for arguments in wrong:
        with pytest.raises(
            ValueError, match=r"^from_torch: leaf a has another value than (params\[0\]|'a'), which it is; carry the weights first"
        ):
            interop.from_torch(optimizer, jax.tree.map(jnp.array, params), **arguments)
    named = torch_ref.Adam([{"params": [("y", weights[0])]}, {"params": [("x", weights[1])]}])
    assert [group.leaves[0].path for group in interop.from_torch(named, params).groups] == ["b", "a"]
    with pytest.raises(ValueError, match=r"^from_torch: leaf a has the value of no parameter in torch: .* carry the weights first"):
        interop.from_torch(optimizer, {"a": values["a"] + 1, "b": values["b"]})


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
