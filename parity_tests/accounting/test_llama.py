"""Llama, and other parts that a transformer may have, against autograd."""

import math
from math import prod

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from optparity.accounting import (
    Transformer,
    estimate,
    measure_torch,
    torch_flops,
)

from .models import assert_is_the_peak, held, language_loss, on_meta

LLAMAS = [  # V, h, L, a, k, d, f; b, s
    ((50, 20, 2, 4, 2, 6, 40), (3, 8)),
    ((65, 16, 1, 4, 1, 4, 44), (2, 9)),
    ((128, 24, 3, 6, 3, 8, 20), (1, 16)),
    ((33, 32, 2, 2, 2, 16, 64), (4, 5)),
    ((257, 64, 1, 8, 4, 10, 100), (2, 32)),
]


def llama(vocab, width, layers, heads, kv_heads, head_dim, intermediate):
    return Transformer(
        *(vocab, width, layers, heads, kv_heads, head_dim, intermediate),
        hidden_act="swiglu",
        positions="rotary",
        norm="rmsnorm",
        bias=False,
        tie_word_embeddings=False,
        fused_qkv=False,
        repeat_kv=False,
    )


class LlamaBlock(nn.Module):
    """GQA without repeated keys and values, rotary positions, SwiGLU, RMSNorm; attention written out."""

    def __init__(self, width, heads, kv_heads, head_dim, intermediate):
        super().__init__()
        linear = lambda rows, columns: nn.Linear(rows, columns, bias=False)  # noqa: E731
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.ln_1, self.ln_2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.k, self.v = (linear(width, n * head_dim) for n in (heads, kv_heads, kv_heads))
        self.proj = linear(heads * head_dim, width)
        self.gate, self.up, self.down = linear(width, intermediate), linear(width, intermediate), linear(intermediate, width)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.ln_1(x), cos, sin)
        return x + self.mlp(self.ln_2(x))

    def attention(self, z, cos, sin):
        batch, seq, _ = z.shape
        q, k, v = (of(z).view(batch, seq, -1, self.head_dim).transpose(1, 2) for of in (self.q, self.k, self.v))
        q, k = (t * cos + torch.cat([-t[..., self.head_dim // 2 :], t[..., : self.head_dim // 2]], -1) * sin for t in (q, k))
        scores = q.reshape(batch, self.kv_heads, -1, self.head_dim) @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
        future = torch.ones(seq, seq, dtype=torch.bool, device=z.device).triu(1)
        weights = scores.view(batch, self.heads, seq, seq).masked_fill(future, -math.inf).softmax(-1)
        y = weights.view(batch, self.kv_heads, -1, seq) @ v
        return self.proj(y.view(batch, self.heads, seq, -1).transpose(1, 2).reshape(batch, seq, -1))

    def mlp(self, z):
        return self.down(F.silu(self.gate(z)) * self.up(z))


class Llama(nn.Module):
    def __init__(self, vocab, width, layers, *sizes):
        super().__init__()
        self.wte, self.ln_f, self.head = nn.Embedding(vocab, width), nn.RMSNorm(width), nn.Linear(width, vocab, bias=False)
        self.h, self.head_dim = nn.ModuleList(LlamaBlock(width, *sizes) for _ in range(layers)), sizes[2]

    def forward(self, tokens):
        position = torch.arange(tokens.shape[-1], device=tokens.device)[:, None]
        half = position / 10000 ** (torch.arange(0, self.head_dim, 2, device=tokens.device) / self.head_dim)
        angle = torch.cat([half, half], -1)
        x, cos, sin = self.wte(tokens), angle.cos(), angle.sin()
        for block in self.h:
            x = block(x, cos, sin)
        return self.head(self.ln_f(x))


@pytest.mark.parametrize(("sizes", "data"), LLAMAS)
def test_llama_in_torch(sizes, data):
    config, model = llama(*sizes), on_meta(Llama, *sizes)
    assert len(list(model.parameters())) == len(config.weights())
    loss = language_loss(model, *data)
    executed = estimate(config, *data).memory[1]
    assert held(measure_torch(model, loss)) == held(executed)
    assert torch_flops(loss) == config.flops(*data)
    assert_is_the_peak(model, loss, 2 * 8 * prod(data), executed)


def test_a_parallel_block_has_one_norm():
    one, two = (Transformer(50, 16, 1, 2, max_position_embeddings=8, parallel_block=parallel) for parallel in (True, False))
    assert two.parameters - one.parameters == 2 * 16
    b, s = 3, 8
    kept = [sum(model.block_activations(b, s).values()) for model in (one, two)]
    assert kept[1] - kept[0] == 2 * 4 * s * b * 16 + 2 * 4 * s * b


def test_relu_keeps_one_of_the_two():
    relu, gelu = (Transformer(50, 16, 1, 2, max_position_embeddings=8, hidden_act=act) for act in ("relu", "gelu"))
    kept = [sum(model.block_activations(3, 8).values()) for model in (relu, gelu)]
    assert kept[1] - kept[0] == 4 * 3 * 8 * 64
    assert relu.parameters == gelu.parameters
