"""Cruncher, a classifier and a small GPT in Flax NNX.  Mirror: in_torch.py, with the same parameters by name and shape.

Each class takes what its mirror takes, and `rngs`; for shapes and errors see there.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array


class Linear(nnx.Module):
    """x W (+ b), with `weight` (in, out) and, if asked for, `bias` (out). Starts normal with deviation `std`, 1/√in by default."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False, std: float | None = None, rngs: nnx.Rngs):
        std = 1 / math.sqrt(in_features) if std is None else std
        self.weight = nnx.Param(std * jax.random.normal(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(jnp.zeros(out_features)) if bias else None

    def __call__(self, x: Array) -> Array:
        y = x @ self.weight[...]
        return y if self.bias is None else y + self.bias


class Embedding(nnx.Module):
    """Rows of `weight` (num_embeddings, features)."""

    def __init__(self, num_embeddings: int, features: int, *, rngs: nnx.Rngs):
        self.weight = nnx.Param(0.02 * jax.random.normal(rngs.params(), (num_embeddings, features)))

    def __call__(self, tokens: Array) -> Array:
        return self.weight[...][tokens]


class LayerNorm(nnx.Module):
    """(x − mean) / √(variance + 1e-5), times `weight`, plus `bias`, over the last axis."""

    def __init__(self, features: int):
        self.weight = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, x: Array) -> Array:
        centered = x - x.mean(-1, keepdims=True)
        variance = jnp.square(centered).mean(-1, keepdims=True)
        return centered * jax.lax.rsqrt(variance + 1e-5) * self.weight + self.bias


class Cruncher(nnx.Module):
    """The article's model: `num_layers` products with (dim, dim) matrices and nothing between them, then one number for each row."""

    def __init__(self, dim: int, num_layers: int, *, rngs: nnx.Rngs):
        self.layers = nnx.List([Linear(dim, dim, rngs=rngs) for _ in range(num_layers)])
        self.final = Linear(dim, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return self.final(x).squeeze(-1)


class MLP(nnx.Module):
    """A classifier with one hidden layer of tanh."""

    def __init__(self, in_features: int, hidden_features: int, out_features: int, *, rngs: nnx.Rngs):
        self.hidden = Linear(in_features, hidden_features, bias=True, rngs=rngs)
        self.output = Linear(hidden_features, out_features, bias=True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.output(jnp.tanh(self.hidden(x)))


class Attention(nnx.Module):
    """Causal self-attention, written out."""

    def __init__(self, n_embd: int, n_head: int, std: float, *, rngs: nnx.Rngs):
        self.n_head = n_head
        self.c_attn = Linear(n_embd, 3 * n_embd, bias=True, std=0.02, rngs=rngs)
        self.c_proj = Linear(n_embd, n_embd, bias=True, std=std, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        batch, seq, n_embd = x.shape
        parts = jnp.split(self.c_attn(x), 3, axis=-1)
        q, k, v = (part.reshape(batch, seq, self.n_head, -1).swapaxes(1, 2) for part in parts)
        future = jnp.triu(jnp.ones((seq, seq), bool), 1)[None, None]
        scores = (q @ k.swapaxes(-2, -1)) / math.sqrt(q.shape[-1])
        y = jax.nn.softmax(jnp.where(future, -jnp.inf, scores)) @ v
        return self.c_proj(y.swapaxes(1, 2).reshape(batch, seq, n_embd))


class Block(nnx.Module):
    """Pre-LN: x + attention(LN(x)), then x + MLP(LN(x)), the MLP four times as wide, with GELU (its tanh form, as in GPT-2)."""

    def __init__(self, n_embd: int, n_head: int, std: float, *, rngs: nnx.Rngs):
        self.ln_1 = LayerNorm(n_embd)
        self.attn = Attention(n_embd, n_head, std, rngs=rngs)
        self.ln_2 = LayerNorm(n_embd)
        self.c_fc = Linear(n_embd, 4 * n_embd, bias=True, std=0.02, rngs=rngs)
        self.c_proj = Linear(4 * n_embd, n_embd, bias=True, std=std, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = x + self.attn(self.ln_1(x))
        return x + self.c_proj(jax.nn.gelu(self.c_fc(self.ln_2(x)), approximate=True))


class GPT(nnx.Module):
    """GPT-2's architecture: learned positions, pre-LN blocks, a final LayerNorm, and the token embedding again as the head."""

    def __init__(self, vocab_size: int, block_size: int, n_layer: int, n_head: int, n_embd: int, *, rngs: nnx.Rngs):
        if n_embd % n_head:
            raise ValueError(f"GPT: n_head divides n_embd; got n_head {n_head}, n_embd {n_embd}.")
        std = 0.02 / math.sqrt(2 * max(n_layer, 1))
        self.wte = Embedding(vocab_size, n_embd, rngs=rngs)
        self.wpe = Embedding(block_size, n_embd, rngs=rngs)
        self.h = nnx.List([Block(n_embd, n_head, std, rngs=rngs) for _ in range(n_layer)])
        self.ln_f = LayerNorm(n_embd)

    def __call__(self, tokens: Array) -> Array:
        x = self.wte(tokens) + self.wpe(jnp.arange(tokens.shape[-1]))[None]
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight[...].T
