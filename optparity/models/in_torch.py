"""Cruncher, a classifier and a small GPT in PyTorch.  Mirror: in_flax.py, with the same parameters by name and shape."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Module):
    """x W (+ b), with `weight` (in, out) and, if asked for, `bias` (out). Starts normal with deviation `std`, 1/√in by default."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False, std: float | None = None):
        super().__init__()
        std = 1 / math.sqrt(in_features) if std is None else std
        self.weight = nn.Parameter(std * torch.randn(in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class Cruncher(nn.Module):
    """The article's model: `num_layers` products with (dim, dim) matrices and nothing between them, then one number for each row.

    Shapes: [batch, dim] -> [batch].
    """

    def __init__(self, dim: int, num_layers: int):
        super().__init__()
        self.layers = nn.ModuleList([Linear(dim, dim) for _ in range(num_layers)])
        self.final = Linear(dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.final(x).squeeze(-1)


class MLP(nn.Module):
    """A classifier with one hidden layer of tanh.

    Shapes: [batch, in_features] -> logits [batch, out_features].
    """

    def __init__(self, in_features: int, hidden_features: int, out_features: int):
        super().__init__()
        self.hidden = Linear(in_features, hidden_features, bias=True)
        self.output = Linear(hidden_features, out_features, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.tanh(self.hidden(x)))


class Attention(nn.Module):
    """Causal self-attention, written out: no fused kernel, so that its operations and what autograd saves can be counted."""

    def __init__(self, n_embd: int, n_head: int, std: float):
        super().__init__()
        self.n_head = n_head
        self.c_attn = Linear(n_embd, 3 * n_embd, bias=True, std=0.02)
        self.c_proj = Linear(n_embd, n_embd, bias=True, std=std)

    def forward(self, x: Tensor) -> Tensor:
        batch, seq, n_embd = x.shape
        parts = self.c_attn(x).split(n_embd, dim=-1)
        q, k, v = (part.view(batch, seq, self.n_head, -1).transpose(1, 2) for part in parts)
        future = torch.ones(seq, seq, dtype=torch.bool, device=x.device).triu(1)
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
        y = scores.masked_fill(future, -math.inf).softmax(-1) @ v
        return self.c_proj(y.transpose(1, 2).reshape(batch, seq, n_embd))


class Block(nn.Module):
    """Pre-LN: x + attention(LN(x)), then x + MLP(LN(x)), the MLP four times as wide, with GELU (its tanh form, as in GPT-2)."""

    def __init__(self, n_embd: int, n_head: int, std: float):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd)
        self.attn = Attention(n_embd, n_head, std)
        self.ln_2 = nn.LayerNorm(n_embd)
        self.c_fc = Linear(n_embd, 4 * n_embd, bias=True, std=0.02)
        self.c_proj = Linear(4 * n_embd, n_embd, bias=True, std=std)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    """GPT-2's architecture: learned positions, pre-LN blocks, a final LayerNorm, and the token embedding again as the head.

    Arguments and parameter names are GPT-2's. Starts as GPT-2 does: normal with deviation 0.02, and 0.02 / √(2 n_layer) for what writes
    into the residual stream.

    Shapes: tokens int64 [batch, seq], seq <= block_size -> logits [batch, seq, vocab_size].
    Raises: ValueError where `n_head` does not divide `n_embd`.
    """

    def __init__(self, vocab_size: int, block_size: int, n_layer: int, n_head: int, n_embd: int):
        super().__init__()
        if n_embd % n_head:
            raise ValueError(f"GPT: n_head divides n_embd; got n_head {n_head}, n_embd {n_embd}.")
        std = 0.02 / math.sqrt(2 * max(n_layer, 1))
        self.wte = nn.Embedding(vocab_size, n_embd)
        self.wpe = nn.Embedding(block_size, n_embd)
        self.h = nn.ModuleList([Block(n_embd, n_head, std) for _ in range(n_layer)])
        self.ln_f = nn.LayerNorm(n_embd)
        for embedding in (self.wte, self.wpe):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[-1], device=tokens.device))
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T
