"""Configurations with the models that they describe, in both frameworks, their losses, and the measured peak of a step."""

import jax
import jax.numpy as jnp
import optax
import torch
from flax import nnx
from torch.nn import functional as F

from optparity.accounting import (
    PRESETS,
    Transformer,
    from_dict,
    torch_peak,
)
from optparity.models import in_flax

CRUNCHERS = [(2, 4, 2), (3, 5, 1), (8, 16, 5), (5, 6, 0), (64, 32, 4), (1, 1, 1), (16, 8, 9)]  # B, D, L


GPTS = [  # vocab, block, L, a, h; b, s
    ((50, 8, 1, 2, 16), (3, 8)),
    ((65, 32, 2, 4, 32), (2, 17)),
    ((128, 16, 3, 3, 24), (1, 16)),
    ((33, 24, 2, 1, 8), (5, 1)),
    ((257, 64, 1, 8, 64), (4, 64)),
]


def preset(name):
    """A preset that is a Transformer."""
    model = PRESETS[name]
    assert isinstance(model, Transformer)
    return model


def read(document):
    """A configuration that is a Transformer's."""
    model = from_dict(document)
    assert isinstance(model, Transformer)
    return model


def transformer(vocab, block, layers, heads, width):
    """The configuration of `optparity.models`' GPT."""
    return Transformer(vocab, width, layers, heads, max_position_embeddings=block)


def on_meta(make, *sizes):
    with torch.device("meta"):
        return make(*sizes)


def language_loss(model, batch, seq):
    """Cross-entropy of the next token, on the model's device."""
    device = next(model.parameters()).device
    tokens, targets = (torch.zeros(batch, seq, dtype=torch.int64, device=device) for _ in range(2))

    def loss():
        logits = model(tokens)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    return loss


def squared_loss(model, batch, dim, *, inputs_require_grad=False):
    x = torch.zeros(batch, dim, device="meta", requires_grad=inputs_require_grad)
    y = torch.zeros(batch, device="meta")
    return lambda: F.mse_loss(model(x), y)


def gpt_in_jax(*sizes):
    """Parameters as shapes, and the loss of parameters, tokens and targets."""
    graph, params = nnx.split(nnx.eval_shape(lambda: in_flax.GPT(*sizes, rngs=nnx.Rngs(0))))

    def loss(params, tokens, targets):
        with jax.numpy_rank_promotion("allow"):
            return optax.softmax_cross_entropy_with_integer_labels(nnx.merge(graph, params)(tokens), targets).mean()

    return params, loss


def cruncher_in_jax(dim, layers):
    graph, params = nnx.split(nnx.eval_shape(lambda: in_flax.Cruncher(dim, layers, rngs=nnx.Rngs(0))))
    return params, lambda params, x, y: jnp.square(nnx.merge(graph, params)(x) - y).mean()


def held(memory):
    """All that exists between the forward and the backward pass."""
    return {name: of for name, of in memory.components.items() if name != "temporaries"}


def peaks(model, loss, data, memory):
    """Measured bytes of a step where gradients stand already, and where the backward pass makes them; `data` and state are there before."""
    for before in (True, False):
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if before and p.requires_grad else None
        gradients = memory.totals["gradients"] if before else 0
        yield memory.totals["parameters"] + memory.totals["optimizer_state"] + gradients + data + torch_peak(loss)


def assert_is_the_peak(model, loss, data, memory):
    """At least the measured peak, and close above it.

    The largest place is counted to the byte; above it stand only sums of small things that are not all there at once: at most 5 % where
    gradients stand already, plus the gradients where they do not.
    """
    standing, fresh = peaks(model, loss, data, memory)
    assert max(standing, fresh) <= memory.total <= 1.05 * standing
    assert memory.total - memory.totals["gradients"] <= 1.05 * fresh


def assert_is_enough(model, loss, data, memory):
    """At least the measured peak, to the byte, and at most 20 % above it."""
    measured = max(peaks(model, loss, data, memory))
    assert measured <= memory.total <= 1.2 * measured


def by_dtype(arrays):
    found = {}
    for array in arrays:
        name = str(array.dtype).removeprefix("torch.")
        found[name] = found.get(name, 0) + array.nbytes
    return {name: count for name, count in found.items() if count}
