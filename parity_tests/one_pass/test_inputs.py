"""What no compiled loop may be given: it goes through the rule, or is refused as before."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_impl
import torch_ref
from optparity.parity.bits import differing
from optparity.registry import Row

from .checks import PART, counted, outcome, random, same_bits, threads

N = 3 * PART + 5


def leaf(p: torch.Tensor, g: torch.Tensor) -> torch.nn.Parameter:
    p = torch.nn.Parameter(p)
    p.grad = g
    return p


def vector(seed: int, n: int = N) -> torch.Tensor:
    return random((n,), "float32", seed)


def tied_views():
    whole = vector(0)
    return [leaf(whole, vector(1)), leaf(whole.view(-1)[5:], vector(2, N - 5))]


def tied_whole():
    whole = vector(0)
    return [leaf(whole, vector(1)), leaf(whole.detach(), vector(2))]


def gradient_across_its_parameter():
    whole = vector(0, N + 1)
    return [leaf(whole[:-1], whole[1:])]


def parameter_across_its_gradient():
    whole = vector(0, N + 1)
    return [leaf(whole[1:], whole[:-1])]


def gradient_is_a_part_of_the_next_parameter():
    whole = vector(0)
    return [leaf(vector(1, 100), whole[:100]), leaf(whole, vector(2))]


def gradient_is_the_parameter_before():
    first = leaf(vector(0), vector(1))
    return [first, leaf(vector(2), first.detach())]


def negated_gradient():
    return [leaf(vector(0), torch.ops.aten._neg_view(vector(1)))]


def imaginary_part_of_a_conjugate():
    return [leaf(vector(0, 1), torch.complex(vector(1, 1), vector(2, 1)).conj().imag)]


def transposed_parameter():
    return [leaf(random((300, 7), "float32", 0).t(), random((7, 300), "float32", 1).contiguous())]


def transposed_gradient():
    return [leaf(random((7, 300), "float32", 0), random((300, 7), "float32", 1).t())]


def every_other_number():
    return [leaf(vector(0)[::2], vector(1)[::2])]


def one_number_for_all():
    return [leaf(vector(0), vector(1, 1).expand(N))]


def subclass():
    class Own(torch.Tensor):
        pass

    return [leaf(vector(0).as_subclass(Own), vector(1))]


BY_THE_RULE = [
    tied_views,
    tied_whole,
    gradient_across_its_parameter,
    parameter_across_its_gradient,
    gradient_is_a_part_of_the_next_parameter,
    gradient_is_the_parameter_before,
    negated_gradient,
    imaginary_part_of_a_conjugate,
    transposed_parameter,
    transposed_gradient,
    every_other_number,
    one_number_for_all,
    subclass,
]


def gradient_is_its_parameter():
    p = leaf(vector(0), vector(0))
    p.grad = p.detach()
    return [p]


def one_gradient_for_two():
    g = vector(0)
    return [leaf(vector(1), g), leaf(vector(2), g)]


def neighbours():
    whole = vector(0)
    return [leaf(whole[:1001], vector(1, 1001)), leaf(whole[1001:], vector(2, N - 1001))]


def empty_and_single():
    return [leaf(torch.zeros(shape), torch.ones(shape)) for shape in ((0,), (3, 0, 2), (), (1, 1, 1))]


def nothing():
    return [leaf(torch.zeros(0), torch.zeros(0))]


def odd_addresses():
    return [leaf(random((1030,), dtype, 0)[1:], random((1032,), dtype, 1)[3:]) for dtype in ("bfloat16", "float16", "float32", "float64")]


IN_ONE_PASS = [gradient_is_its_parameter, one_gradient_for_two, neighbours, empty_and_single, nothing, odd_addresses]
MAKERS = {"sgd": torch_ref.SGD, "adam": torch_ref.Adam}


def both(make, leaves) -> int:
    """Compare three steps with the rule's, whose leaves lie in memory in the same way. How many calls the library had."""
    results = []
    for foreach in (False, None):
        optimizer = make([{"params": leaves(), "foreach": foreach}], lr=0.125)
        with threads(3), counted() as taken:
            for _ in range(3):
                optimizer.step()
        results.append(outcome(optimizer))
    same_bits(*results)
    return len(taken)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("leaves", BY_THE_RULE)
def test_by_the_rule(leaves, make):
    assert both(make, leaves) == 0


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("leaves", IN_ONE_PASS)
def test_in_one_pass(leaves, make):
    assert both(make, leaves) > 0


def test_state_that_lies_across_the_parameter_or_another():
    for field in ("parameter", "exp_avg_sq"):
        results = []
        for foreach in (False, None):
            p = leaf(vector(0), vector(1))
            optimizer = torch_ref.Adam([{"params": [p], "foreach": foreach}])
            optimizer.step()
            state = optimizer.state[p]
            state["exp_avg"] = p.detach() if field == "parameter" else state[field]
            with threads(3), counted() as taken:
                optimizer.step()
            assert not taken
            results.append(outcome(optimizer))
        same_bits(*results)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("exp_avg", torch.zeros(4), r"adam: leaf params\[0\] has shape \(3,\) but its exp_avg has \(4,\)\."),
        ("exp_avg", torch.zeros(3, dtype=torch.float64), r"exp_avg .*float64"),
        ("exp_avg_sq", None, r"exp_avg_sq"),
    ],
    ids=["shape", "dtype", "missing"],
)
def test_state_that_does_not_fit_is_refused(field, value, message):
    p = leaf(torch.ones(3), torch.ones(3))
    optimizer = torch_ref.Adam([p])
    optimizer.step()
    optimizer.state[p][field] = value
    with counted() as taken, pytest.raises((TypeError, ValueError), match=message):
        optimizer.step()
    assert not taken


def adam_state(g, p, state):
    tx = jaxopt_impl.adam(0.125)
    return tx.update(g, state, p)


def test_what_does_not_fit_is_refused_in_jax():
    p = jnp.ones(3)
    s = jaxopt_impl.adam(0.125).init(p)
    wrong = [
        (jnp.ones(4), s, r"adam: leaf params has shape \(4,\) but its exp_avg has \(3,\)\."),
        (jnp.ones(3, jnp.int32), s, r"int32"),
        (p, s._replace(exp_avg=jnp.zeros(3, jnp.bfloat16)), r"exp_avg .*bfloat16"),
        (p, s._replace(exp_avg_sq=jnp.zeros((3, 1))), r"adam: leaf params has shape \(3,\) but its exp_avg_sq has \(3, 1\)\."),
    ]
    for g, state, message in wrong:
        for update in (adam_state, jax.jit(adam_state)):
            with pytest.raises((TypeError, ValueError), match=message):
                update(g, p, state)


@pytest.mark.parametrize("label", ["default", "weight_decay"])
def test_one_array_in_all_places_in_jax(label, monkeypatch):
    """The gradient, the parameter and the state: XLA copies what the library would overwrite."""
    row = Row("adam", label)
    shell = row.tx.update.__self__
    p = jnp.asarray(np.abs(vector(0).numpy()))
    state = shell.init(p)._replace(exp_avg=p, exp_avg_sq=p)
    results = []
    for switch in ("1", "0"):
        monkeypatch.setenv("OPTPARITY_ONE_PASS", switch)
        results.append(jax.tree.leaves(jax.jit(lambda g, s, p: (shell.update_and_apply(g, s, p), g, p))(p, state, p)))
    for ours, theirs in zip(*results, strict=True):
        assert not differing(np.asarray(ours), np.asarray(theirs)).any()


def test_empty_and_single_in_jax():
    tx = jaxopt_impl.momentum(0.125)
    leaves = {"empty": jnp.zeros((0,)), "flat": jnp.zeros((2, 0, 3)), "one": jnp.ones(()), "three": jnp.ones((1, 1, 3))}
    updates, state = jax.jit(tx.update)(leaves, tx.init(leaves), leaves)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, state.momentum_buffer) == jax.tree.map(jnp.shape, leaves)
    assert updates["one"] == updates["three"][0, 0, 0] == -0.125


def test_a_flag_that_is_none_is_not_set():
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    optimizer = torch_ref.SGD([p], lr=0.5, maximize=None)  # pyright: ignore[reportArgumentType]
    optimizer.step()
    assert p.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("foreach", [None, False])
def test_where_one_gradient_is_refused_nothing_of_the_group_has_stepped(foreach):
    first, second = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    first.grad, second.grad = torch.ones(2), torch.ones(2).to_sparse()
    optimizer = torch_ref.Adam([first, second], lr=0.5, foreach=foreach)
    with pytest.raises(TypeError, match="dense"):
        optimizer.step()
    assert first.tolist() == [1, 1]
    assert not optimizer.state[first]["step"]


def test_a_gradient_of_zeros_without_memory():
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch._efficientzerotensor((2,))  # pyright: ignore[reportPrivateImportUsage]
    torch_ref.SGD([p], lr=0.5).step()
    assert p.tolist() == [1, 1]


def test_a_forked_process_steps():
    """The threads of its parent are not there."""
    code = """
import os, torch, torch_ref
torch.set_num_threads(4)
parameters = [torch.nn.Parameter(torch.ones(8192)) for _ in range(8)]
for p in parameters:
    p.grad = torch.ones(8192)
optimizer = torch_ref.SGD(parameters, lr=0.5)
optimizer.step()
if child := os.fork():
    print(os.waitpid(child, 0)[1])
else:
    optimizer.step()
    os._exit(0 if parameters[7][0] == 0 else 1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"


@pytest.mark.parametrize("step", [7, torch.tensor(7.0), torch.tensor(2.0**24)], ids=str)
def test_steps_are_counted_as_they_were(step):
    """A number in the state of an older checkpoint too; float32 counts up to 2^24."""

    def stepped(foreach):
        p = torch.nn.Parameter(torch.ones(2))
        p.grad = torch.ones(2)
        optimizer = torch_ref.Adam([p], lr=0.5, betas=(0.5, 0.75), foreach=foreach)
        optimizer.step()
        optimizer.state[p]["step"] = step.clone() if isinstance(step, torch.Tensor) else step
        optimizer.step()
        return p.tolist(), float(optimizer.state[p]["step"])

    assert stepped(None) == stepped(False)
    assert stepped(None)[1] == float(step + 1)
