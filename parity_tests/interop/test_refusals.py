"""What does not carry over is refused, in one line that names it."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_impl
from optparity import interop
from optparity.registry import OPTIMIZERS

from .states import PARAMS, adam_state_dict


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, {"optimizer": None}, r"from_torch: a state_dict does not tell its class; optimizer is one of SGD, Momentum, Adagrad"),
        ({}, {"optimizer": "LBFGS"}, r"unknown optimizer class 'LBFGS'; one of SGD, "),
        (
            {},
            {"optimizer": "SGD"},
            r"SGD: group 0 has the key 'betas', which is of the rule of Adam, AdamW, Lion; SGD has lr, momentum",
        ),
        ({"state": None}, {}, r"Adam: a state_dict has the keys state and param_groups; got no state\."),
        ({"epoch": 3}, {}, r"Adam: a state_dict has the keys state and param_groups; got 'epoch' as well\."),
        ({"param_groups__0__params": [0, 0]}, {}, r"Adam: each parameter is in one group, once; got params \[0, 0\]\."),
        ({"param_groups__0__params": [0]}, {}, r"Adam: there is state of params\[1\], which is in no group\."),
        ({"param_groups__0__eps": None}, {}, r"Adam: group 0 has no 'eps'; each of lr, betas"),
        ({"param_groups__0__betas": 0.9}, {}, r"Adam: group 0 has betas 0\.9; two numbers are needed\."),
        ({"param_groups__0__lr": -1.0}, {}, r"Invalid learning rate: -1\.0 \(adam: lr >= 0\)"),
        ({"param_groups__0__trust_coeff": 1.0}, {}, r"Adam: group 0 has the key 'trust_coeff', which is of the rule of LARS and LAMB"),
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
            {"state__1__step": torch.tensor(3)},
            {},
            r"Adam: params\[0\] counts in float32, params\[1\] in int64; a group counts in one\.",
        ),
        (
            {"state__1__step": torch.tensor(4.0)},
            {"learning_rate": lambda count: 0.1},
            r"Adam: params\[0\] is at step 3, others of its group at 4: a schedule counts one step for all; learning_rate is a number here",
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
        ({}, {"layouts": {"b": (1, 0)}}, r"names: no parameter in torch has the shape of leaf b \(2, 3\) in layout \(1, 0\): params"),
        ({}, {"layouts": {"a": (1, 0)}}, r"names: no parameter in torch has the shape of leaf a \(3,\) in layout \(1, 0\): params"),
        ({}, {"layouts": {"a": (1, 0)}, "names": {"a": 0, "b": 1}}, r"layouts: leaf a has shape \(3,\); params\[0\] axes \(1, 0\) do not"),
        (
            {},
            {"layouts": {"b": interop.Reshape((6,), (2, 3))}},
            r"names: no parameter in torch has the shape of leaf b \(2, 3\) in layout Resh",
        ),
        ({}, {"layouts": {"c": (1, 0)}}, r"layouts: no leaf has the path c; one of a, b is needed\."),
        ({"state__0__exp_avg": torch.ones(3).double()}, {}, r"Adam: exp_avg of params\[0\] has dtype float64; leaf a has float32, so tha"),
        ({"state__0__exp_avg": torch.ones(3).bfloat16()}, {}, r"Adam: exp_avg of params\[0\] has dtype bfloat16; leaf a has float32"),
        ({}, {"names": {"a": 0}}, r"names: leaf b is not among them; each leaf is one parameter\."),
        ({}, {"names": {"a": 0, "b": 0}}, r"names: leaves a and b are both params\[0\]\."),
        ({}, {"names": {"a": 0, "b": 2}}, r"names: leaf b is 2; a name or an index below 2 is needed\."),
        ({}, {"names": {"a": "w", "b": "v"}}, r"names: leaf a is 'w', but the groups hold no param_names"),
        ({}, {"names": {"a": "w", "b": "v"}, "parameters": ["x", "v"]}, r"names: leaf a is 'w'; one of x, v is needed\."),
        ({}, {"parameters": ["x"]}, r"parameters: torch has 2 parameters; got 1 names of parameters\."),
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
            r"names: no parameter in torch has the shape of leaf a \(4,\): params\[0\] \(3,\)\.",
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
        ((("adam", rate), {"state": too_far}), r"Adam: step 16777217 of params\[0\]: torch counts in float32, which stops at 16777216\."),
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
        (("adamax", rate), "describe: unknown optimizer 'adamax'; one of sgd, momentum"),
        ("adam", r"describe: an optimizer is a name and its arguments, as \('adam', .*; got 'adam'"),
        ({"a": "adam"}, "describe: an optimizer is a name and its arguments, as"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            interop.describe(params, given)
    assert "eps_in_sqrt" not in written("adagrad", {**rate, "eps_in_sqrt": False}, like="torch.optim")["param_groups"][0]


def test_weights_that_do_not_fit_are_refused():
    for weights, arguments, message in [
        ({"a": torch.ones(3)}, {}, "names: 2 leaves but 1 parameters in torch"),
        ({"a": torch.ones(3), "b": torch.ones(3, 2)}, {}, r"layouts: leaf b has shape \(2, 3\); b has \(3, 2\) in torch\."),
        ({"a": torch.ones(3), "b": torch.ones(2, 3).double()}, {}, "weights: b has dtype float64; leaf b has float32"),
        (
            {"a": torch.ones(3), "b": torch.ones(3, 2)},
            {"layouts": {"b": (0, 1, 2)}},
            r"layouts: leaf b has shape \(2, 3\); b axes \(0, 1, 2\) do not fit",
        ),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            interop.weights_from_torch(weights, PARAMS, **arguments)
    with pytest.raises(ValueError, match=r"^names: leaf b is not among them"):
        interop.weights_to_torch(PARAMS, names={"a": "x"})
    with pytest.raises(ValueError, match=r"^names: leaves a and b are both 'x'\.$"):
        interop.weights_to_torch(PARAMS, names=lambda path: "x")
    with pytest.raises(ValueError, match=r"^interop: two leaves have the path x\.y\.$"):
        interop.weights_to_torch({"x": {"y": np.ones(1)}, "x.y": np.ones(1)})
