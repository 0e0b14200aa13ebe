"""Bad input: one clear line, the same on both sides. Who, what, rule, got."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_impl
from optparity.registry import OPTIMIZERS, Row

ARGUMENTS = [(entry, refused) for entry in OPTIMIZERS.values() for refused in entry.refused]


@pytest.mark.parametrize(("entry", "refused"), ARGUMENTS, ids=lambda value: getattr(value, "name", None))
def test_arguments(entry, refused):
    arguments = {"learning_rate": 0.1, **refused.arguments}
    with pytest.raises(refused.error) as ours:
        entry.jax(**arguments)
    with pytest.raises(refused.error) as theirs:
        entry.torch([torch.nn.Parameter(torch.ones(2))], **entry.in_torch(arguments))
    assert str(ours.value) == str(theirs.value) == refused.message


def jax_step(row, params, gradients, change):
    """Init, then one update with a state that `change` made of the right one."""
    tx = row.tx
    params = [jnp.asarray(p) for p in params]
    tx.update([jnp.asarray(g) for g in gradients], change(tx.init(params)), params)


def torch_step(row, params, gradients, change):
    parameters = [torch.nn.Parameter(torch.from_numpy(p), requires_grad=p.dtype.kind == "f") for p in params]
    optimizer = row.torch(parameters)
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


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("params", "in_jax", "in_torch", "error", "message"), [row[1:] for row in LEAVES], ids=[row[0] for row in LEAVES])
def test_leaves(name, params, in_jax, in_torch, error, message):
    row = Row(name, "all")  # every optimizer keeps something with all its flags
    field = next(field for field, value in row.tx.init(jnp.zeros(1))._asdict().items() if value is not None)

    def change_jax(state):
        return state._replace(**{field: in_jax(getattr(state, field))}) if in_jax else state

    def change_torch(state, i):
        if in_torch:
            state.setdefault("other", torch.ones(()))  # a state that is not empty, as after a load
            in_torch(state, i, field)

    with pytest.raises(error) as ours:
        jax_step(row, params, params, change_jax)
    with pytest.raises(error) as theirs:
        torch_step(row, params, params, change_torch)
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
    assert all("\n" not in message for message in [*(refused.message for _, refused in ARGUMENTS), *(row[-1] for row in LEAVES)])
