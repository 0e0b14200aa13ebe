"""Several devices: ZeRO, tensor parallelism, mixed precision."""

from math import prod

import jax
import jax.numpy as jnp
import pytest

from optparity.accounting import (
    Cruncher,
    Setup,
    estimate,
)
from optparity.registry import OPTIMIZERS

from .models import preset


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("devices", [1, 4, 64])
def test_zero_and_mixed_precision(optimizer, devices):
    """arXiv 1910.02054: 2P + 2P + KP bytes, K = 12 for Adam: a float32 master copy and the float32 state; each stage divides one more."""
    model = preset("gpt2")
    p = model.parameters
    kept = jax.tree.leaves(OPTIMIZERS[optimizer].jax(0.1).init(jnp.zeros(1)))
    k = 4 + 4 * (len(kept) - 1)  # without the counter

    def bytes_of(stage):
        setup = Setup(optimizer, mixed_precision=True, zero_stage=stage, data_parallel=devices)
        textbook, executed = estimate(model, 1, 16, setup).memory
        assert executed.parameters.keys() == {"bfloat16"}
        steps = 4 * len(model.weights()) if OPTIMIZERS[optimizer].has_step else 0  # a float32 counter for each tensor, not divided
        assert sum(executed.optimizer_state.values()) - sum(textbook.optimizer_state.values()) == steps
        return sum(textbook.totals[name] for name in ("parameters", "gradients", "optimizer_state"))

    assert bytes_of(0) == (4 + k) * p
    assert p % devices == 0  # see test_zero_divides_elements for where it is not
    assert bytes_of(1) == 4 * p + k * p // devices
    assert bytes_of(2) == 2 * p + (2 + k) * p // devices
    assert bytes_of(3) == (4 + k) * p // devices
    if k == 12:
        assert bytes_of(0) == 16 * p


def test_zero_divides_elements():
    """36 parameters on 5 devices: 8 elements on the fullest; Adam's moments and the float32 master copy are 3 × 36 elements, 22 there."""
    memory = estimate(Cruncher(4, 2), 2, setup=Setup("adam", zero_stage=3, data_parallel=5, mixed_precision=True)).memory[0]
    assert memory.components == {
        **{"parameters": {"bfloat16": 2 * 8}, "gradients": {"bfloat16": 2 * 8}},
        **{"optimizer_state": {"float32": 4 * 22}, "activations": {"bfloat16": 2 * 16}, "temporaries": {}},
    }


@pytest.mark.parametrize("name", ["gpt2", "gpt3-175b", "llama3-70b", "palm-540b", "chinchilla-70b"])
@pytest.mark.parametrize("t", [1, 2, 4])
def test_tensor_parallelism_divides_all_but_norms_and_single_heads(name, t):
    model = preset(name)
    _, k, d, _ = model.sizes
    h, parts = model.hidden_size, model.parameters_by_part()
    here = sum(map(prod, model.weights(t).values()))
    whole = model.parameters
    vocabulary = 1 if model.tie_word_embeddings else 2
    padded = vocabulary * h * (-(-model.vocab_size // t) * t - model.vocab_size)
    biases = 2 * h if model.bias else 0  # of the two matrices whose results are summed over devices
    replicated = parts["norms"] + parts["positions"] + model.num_hidden_layers * biases
    replicated_heads = model.num_hidden_layers * 2 * h * d * (max(k, t) - k)
    assert t * here == whole + padded + (t - 1) * replicated + replicated_heads


def test_the_heads_temporaries_are_divided_with_the_vocabulary():
    """Divided, the loss has the softmax in memory as well."""
    b, s, v = 8, 1024, 50257
    for t in (1, 2, 4):
        (head,) = preset("gpt2").temporaries(b, s, tensor_parallel=t)["log-softmax"].values()
        assert head == 4 * ((2 if t == 1 else 3) * b * s * -(-v // t) + 2)
