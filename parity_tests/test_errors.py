"""Bad input: one clear line, the same on both sides. Who, what, rule, got."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_impl
import torch_ref
from optparity.registry import in_torch

NAN = float("nan")
ARGUMENTS = [
    ("sgd", {"learning_rate": -0.1}, ValueError, "Invalid learning rate: -0.1 (sgd: lr >= 0)"),
    ("sgd", {"learning_rate": NAN}, ValueError, "Invalid learning rate: nan (sgd: lr >= 0)"),
    ("sgd", {"momentum": -0.5}, ValueError, "Invalid momentum value: -0.5 (sgd: momentum >= 0)"),
    ("sgd", {"momentum": NAN}, ValueError, "Invalid momentum value: nan (sgd: momentum >= 0)"),
    ("sgd", {"weight_decay": -1.0}, ValueError, "Invalid weight_decay value: -1.0 (sgd: weight_decay >= 0)"),
    ("sgd", {"weight_decay": NAN}, ValueError, "Invalid weight_decay value: nan (sgd: weight_decay >= 0)"),
    ("sgd", {"dampening": NAN}, ValueError, "Invalid dampening value: nan (sgd: dampening is a number)"),
    ("sgd", {"momentum": "0.9"}, TypeError, "Invalid momentum: a number is needed, not '0.9' (sgd: momentum is a number)"),
    ("sgd", {"momentum": None}, TypeError, "Invalid momentum: a number is needed, not None (sgd: momentum is a number)"),
    (
        "sgd",
        {"nesterov": True},
        ValueError,
        "Nesterov momentum requires a momentum and zero dampening (sgd: momentum > 0, dampening = 0; got momentum 0.0, dampening 0.0)",
    ),
    (
        "sgd",
        {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
        ValueError,
        "Nesterov momentum requires a momentum and zero dampening (sgd: momentum > 0, dampening = 0; got momentum 0.9, dampening 0.1)",
    ),
    ("momentum", {"learning_rate": -1.0}, ValueError, "Invalid learning rate: -1.0 (momentum: lr >= 0)"),
    ("momentum", {"momentum": -0.5}, ValueError, "Invalid momentum value: -0.5 (momentum: momentum >= 0)"),
    ("momentum", {"weight_decay": NAN}, ValueError, "Invalid weight_decay value: nan (momentum: weight_decay >= 0)"),
    ("adagrad", {"learning_rate": -1.0}, ValueError, "Invalid learning rate: -1.0 (adagrad: lr >= 0)"),
    ("adagrad", {"lr_decay": -0.5}, ValueError, "Invalid lr_decay value: -0.5 (adagrad: lr_decay >= 0)"),
    ("adagrad", {"weight_decay": -0.5}, ValueError, "Invalid weight_decay value: -0.5 (adagrad: weight_decay >= 0)"),
    ("adagrad", {"eps": -1e-8}, ValueError, "Invalid epsilon value: -1e-08 (adagrad: eps >= 0)"),
    ("adagrad", {"eps": NAN}, ValueError, "Invalid epsilon value: nan (adagrad: eps >= 0)"),
    ("rmsprop", {"alpha": -0.1}, ValueError, "Invalid alpha value: -0.1 (rmsprop: alpha >= 0)"),
    ("rmsprop", {"eps": NAN}, ValueError, "Invalid epsilon value: nan (rmsprop: eps >= 0)"),
    ("rmsprop", {"momentum": -1}, ValueError, "Invalid momentum value: -1.0 (rmsprop: momentum >= 0)"),
    ("rmsprop", {"weight_decay": -1}, ValueError, "Invalid weight_decay value: -1.0 (rmsprop: weight_decay >= 0)"),
    ("adam", {"learning_rate": NAN}, ValueError, "Invalid learning rate: nan (adam: lr >= 0)"),
    ("adam", {"b1": 1.0}, ValueError, "Invalid beta parameter at index 0: 1.0 (adam: 0 <= b1 < 1)"),
    ("adam", {"b2": NAN}, ValueError, "Invalid beta parameter at index 1: nan (adam: 0 <= b2 < 1)"),
    ("adam", {"eps": -1e-8}, ValueError, "Invalid epsilon value: -1e-08 (adam: eps >= 0)"),
    ("adamw", {"weight_decay": -1}, ValueError, "Invalid weight_decay value: -1.0 (adamw: weight_decay >= 0)"),
    ("adamw", {"b2": -0.1}, ValueError, "Invalid beta parameter at index 1: -0.1 (adamw: 0 <= b2 < 1)"),
    (
        "adamw",
        {"accumulator_dtype": "float64"},
        ValueError,
        "adamw: accumulator_dtype float64 is not supported; float32 or None is needed.",
    ),
    ("adam", {"accumulator_dtype": "foo"}, ValueError, "adam: accumulator_dtype foo is not supported; float32 or None is needed."),
    (
        "adagrad",
        {"initial_accumulator_value": -0.1},
        ValueError,
        "Invalid initial_accumulator_value value: -0.1 (adagrad: initial_accumulator_value >= 0)",
    ),
]


@pytest.mark.parametrize(("name", "arguments", "error", "message"), ARGUMENTS)
def test_arguments(name, arguments, error, message):
    arguments = {"learning_rate": 0.1, **arguments}
    with pytest.raises(error) as ours:
        jaxopt_impl.OPTIMIZERS[name](**arguments)
    with pytest.raises(error) as theirs:
        torch_ref.OPTIMIZERS[name]([torch.nn.Parameter(torch.ones(2))], **in_torch(arguments))
    assert str(ours.value) == str(theirs.value) == message


def jax_step(name, params, gradients, change):
    """Init, then one update with a state that `change` made of the right one."""
    tx = jaxopt_impl.OPTIMIZERS[name](0.1, **({"momentum": 0.9} if name == "sgd" else {}))
    params = [jnp.asarray(p) for p in params]
    tx.update([jnp.asarray(g) for g in gradients], change(tx.init(params)), params)


def torch_step(name, params, gradients, change):
    parameters = [torch.nn.Parameter(torch.from_numpy(p), requires_grad=p.dtype.kind == "f") for p in params]
    optimizer = torch_ref.OPTIMIZERS[name](parameters, lr=0.1, **({"momentum": 0.9} if name == "sgd" else {}))
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = torch.from_numpy(g)
    optimizer.step()
    for i, p in enumerate(parameters):
        change(optimizer.state[p], i)
    optimizer.step()


def f32(*shape):
    return np.ones(shape, np.float32)


LEAVES = [  # name, params, gradients, what is done to the state in JAX (of the whole) and in torch (of each), error, message
    (
        "integer leaf",
        [f32(2), np.ones(2, np.int32)],
        None,
        None,
        TypeError,
        "{who}: leaf params[1] has dtype int32; a floating-point dtype (float32, float64, bfloat16, float16) is needed.",
    ),
    (
        "a leaf that the state does not have",
        [f32(2), f32(3)],
        lambda tree: [tree[0], None],
        lambda state, i, field: state.pop(field) if i else None,
        ValueError,
        "{who}: leaf params[1] has no {field}; gradients, parameters and state must have the same leaves.",
    ),
    (
        "another shape",
        [f32(2), f32(3)],
        lambda tree: [tree[0], jnp.ones(4)],
        lambda state, i, field: state.update({field: torch.ones(4)}) if i else None,
        ValueError,
        "{who}: leaf params[1] has shape (3,) but its {field} has (4,).",
    ),
    (
        "another dtype",
        [f32(2), f32(3)],
        lambda tree: [tree[0], jnp.ones(3, jnp.float16)],
        lambda state, i, field: state.update({field: torch.ones(3, dtype=torch.float16)}) if i else None,
        TypeError,
        "{who}: leaf params[1] has dtype float32 but its {field} has float16.",
    ),
]


@pytest.mark.parametrize("name", jaxopt_impl.OPTIMIZERS)
@pytest.mark.parametrize(("params", "in_jax", "in_torch", "error", "message"), [row[1:] for row in LEAVES], ids=[row[0] for row in LEAVES])
def test_leaves(name, params, in_jax, in_torch, error, message):
    field = {"adagrad": "sum", "rmsprop": "square_avg", "adam": "exp_avg", "adamw": "exp_avg"}.get(name, "momentum_buffer")

    def change_jax(state):
        return state._replace(**{field: in_jax(getattr(state, field))}) if in_jax else state

    def change_torch(state, i):
        if in_torch:
            state.setdefault("other", torch.ones(()))  # a state that is not empty, as after a load
            in_torch(state, i, field)

    with pytest.raises(error) as ours:
        jax_step(name, params, params, change_jax)
    with pytest.raises(error) as theirs:
        torch_step(name, params, params, change_torch)
    assert str(ours.value) == str(theirs.value) == message.format(who=name, field=field)


def test_trees_that_do_not_match():
    """What only a pytree can get wrong."""
    tx = jaxopt_impl.sgd(0.1, momentum=0.9)
    state = tx.init({"a": f32(2)})
    with pytest.raises(ValueError, match=r"sgd: leaf params\['b'\] has no momentum_buffer; gradients, parameters and state must have"):
        tx.update({"a": f32(2), "b": f32(2)}, state)
    with pytest.raises(ValueError, match=r"sgd: the momentum_buffer has another tree than the gradients"):
        tx.update({}, state)
    decayed = jaxopt_impl.adagrad(0.1, weight_decay=0.1)
    state = decayed.init({"a": f32(3)})
    with pytest.raises(ValueError, match=r"adagrad: weight_decay needs the parameters; call update\(updates, state, params\)"):
        decayed.update({"a": f32(3)}, state)
    with pytest.raises(ValueError, match=r"adagrad: leaf params\['a'\] has shape \(3,\) but its parameter has \(2,\)"):
        decayed.update({"a": f32(3)}, state, {"a": f32(2)})
    with pytest.raises(TypeError, match=r"sgd: leaf params has dtype int32; a floating-point dtype"):
        jaxopt_impl.sgd(0.1).update(np.ones(2, np.int32), jaxopt_impl.sgd(0.1).init(f32(2)))


def test_messages_are_one_line():
    assert all("\n" not in row[-1] for row in [*ARGUMENTS, *LEAVES])
