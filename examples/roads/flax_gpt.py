"""GPT-2 in Flax NNX, with the names that GPT-2 has in PyTorch."""

import jax
import jax.numpy as jnp
from flax import nnx


class Attention(nnx.Module):
    """Causal self-attention with one projection for queries, keys and values."""

    def __init__(self, n_embd, n_head, rngs):
        self.n_head = n_head
        self.c_attn = nnx.Linear(n_embd, 3 * n_embd, rngs=rngs)
        self.c_proj = nnx.Linear(n_embd, n_embd, rngs=rngs)

    def __call__(self, x):
        q, k, v = (part.reshape(*x.shape[:2], self.n_head, -1) for part in jnp.split(self.c_attn(x), 3, axis=-1))
        return self.c_proj(jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape))


class MLP(nnx.Module):
    """Four times as wide, with GELU: exactly as in nanoGPT, or approximately as in Hugging Face's GPT-2."""

    def __init__(self, n_embd, approximate, rngs):
        self.approximate = approximate
        self.c_fc = nnx.Linear(n_embd, 4 * n_embd, rngs=rngs)
        self.c_proj = nnx.Linear(4 * n_embd, n_embd, rngs=rngs)

    def __call__(self, x):
        return self.c_proj(nnx.gelu(self.c_fc(x), approximate=self.approximate))


class Block(nnx.Module):
    """Attention and MLP, each behind a LayerNorm and beside the residual stream."""

    def __init__(self, n_embd, n_head, approximate, rngs):
        self.ln_1, self.ln_2 = (nnx.LayerNorm(n_embd, epsilon=1e-5, rngs=rngs) for _ in range(2))
        self.attn, self.mlp = Attention(n_embd, n_head, rngs), MLP(n_embd, approximate, rngs)

    def __call__(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nnx.Module):
    """The head shares its weight with the token embedding."""

    def __init__(self, vocab_size, block_size, n_layer, n_head, n_embd, *, approximate=False, rngs):
        self.wte, self.wpe = nnx.Embed(vocab_size, n_embd, rngs=rngs), nnx.Embed(block_size, n_embd, rngs=rngs)
        self.h = nnx.List([Block(n_embd, n_head, approximate, rngs) for _ in range(n_layer)])
        self.ln_f = nnx.LayerNorm(n_embd, epsilon=1e-5, rngs=rngs)

    def __call__(self, tokens):
        x = self.wte(tokens) + self.wpe(jnp.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.wte.attend(self.ln_f(x))
