"""A decoder-only Transformer in PyTorch, written plainly: what a `Transformer`'s fields say, and nothing of how they are counted.

Grouped queries share keys and values without repeating them, or not (`repeat_kv`); attention is written out, or
`scaled_dot_product_attention`.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def linear(rows, columns, bias):
    return nn.Linear(rows, columns, bias=bias)


def norm(c):
    return nn.RMSNorm(c.hidden_size) if c.norm == "rmsnorm" else nn.LayerNorm(c.hidden_size, bias=c.bias)


def turned(x, cos, sin):
    """Rotary positions on the first numbers of each head, as many as there are angles."""
    some, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    half = some.shape[-1] // 2
    turned = some * cos + torch.cat([-some[..., half:], some[..., :half]], -1) * sin
    return torch.cat([turned, rest], -1) if rest.shape[-1] else turned


class Core(nn.Module):
    """Scores, mask, softmax, sum."""

    def __init__(self, c, window, fused):
        super().__init__()
        self.window, self.fused, self.softcap = window, fused, c.attention_softcap
        self.repeat = not fused if c.repeat_kv is None else c.repeat_kv

    def forward(self, q, k, v):
        if self.repeat:
            k, v = (of[:, :, None].expand(-1, -1, q.shape[1] // of.shape[1], -1, -1).reshape(*q.shape[:3], -1) for of in (k, v))
        (batch, heads, seq, dim), groups = q.shape, k.shape[1]
        row, column = torch.arange(seq, device=q.device)[:, None], torch.arange(seq, device=q.device)
        hidden = column > row
        window = seq if self.window is None else min(self.window, seq)
        windowed = window < seq
        if windowed:
            hidden = hidden | (column <= row - window)
        if self.fused:
            mask = ~hidden if windowed else None
            return F.scaled_dot_product_attention(q, k, v, mask, is_causal=not windowed, enable_gqa=heads != groups)
        scores = q.reshape(batch, groups, -1, dim) @ k.transpose(-2, -1) / math.sqrt(dim)
        if self.softcap:
            scores = torch.tanh(scores / 50) * 50
        weights = scores.view(batch, heads, seq, seq).masked_fill(hidden, -math.inf).softmax(-1)
        return (weights.view(batch, groups, -1, seq) @ v).view(batch, heads, seq, -1)


class Attention(nn.Module):
    def __init__(self, c, window, fused):
        super().__init__()
        heads, groups, dim, _ = c.sizes
        bias = c.bias if c.qkv_bias is None else c.qkv_bias
        self.widths, self.dim = (heads * dim, groups * dim, groups * dim), dim
        if c.fused_qkv:
            self.qkv = linear(c.hidden_size, sum(self.widths), bias)
        else:
            self.q, self.k, self.v = (linear(c.hidden_size, width, bias) for width in self.widths)
        if c.qk_norm:
            self.q_norm, self.k_norm = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.core = Core(c, window, fused)
        self.proj = linear(heads * dim, c.hidden_size, c.bias if c.proj_bias is None else c.proj_bias)
        self.c = c

    def forward(self, x, positions):
        batch, seq, _ = x.shape
        whole = self.qkv(x).split(self.widths, -1) if self.c.fused_qkv else (self.q(x), self.k(x), self.v(x))
        q, k, v = (part.view(batch, seq, -1, self.dim) for part in whole)
        if self.c.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        if positions:
            q, k = turned(q, *positions), turned(k, *positions)
        return self.proj(self.core(q, k, v).transpose(1, 2).reshape(batch, seq, -1))


class LatentAttention(nn.Module):
    def __init__(self, c, window, fused):
        super().__init__()
        self.c, heads, bias = c, c.num_attention_heads, c.bias if c.qkv_bias is None else c.qkv_bias
        queries = heads * (c.qk_nope_head_dim + c.qk_rope_head_dim)
        if c.q_lora_rank is not None:
            self.q_a, self.q_norm = linear(c.hidden_size, c.q_lora_rank, bias), nn.RMSNorm(c.q_lora_rank)
        self.q_b = linear(c.q_lora_rank or c.hidden_size, queries, False)
        self.kv_a, self.kv_norm = linear(c.hidden_size, c.kv_lora_rank + c.qk_rope_head_dim, bias), nn.RMSNorm(c.kv_lora_rank)
        self.kv_b = linear(c.kv_lora_rank, heads * (c.qk_nope_head_dim + c.v_head_dim), False)
        self.core = Core(c, window, fused)
        self.proj = linear(heads * c.v_head_dim, c.hidden_size, c.bias if c.proj_bias is None else c.proj_bias)

    def forward(self, x, positions):
        (batch, seq, _), c = x.shape, self.c
        q = self.q_b(x if c.q_lora_rank is None else self.q_norm(self.q_a(x)))
        q_plain, q_turned = (
            q.view(batch, seq, c.num_attention_heads, -1).transpose(1, 2).split((c.qk_nope_head_dim, c.qk_rope_head_dim), -1)
        )
        latent, k_turned = self.kv_a(x).split((c.kv_lora_rank, c.qk_rope_head_dim), -1)
        kv = self.kv_b(self.kv_norm(latent)).view(batch, seq, c.num_attention_heads, -1).transpose(1, 2)
        k_plain, v = kv.split((c.qk_nope_head_dim, c.v_head_dim), -1)
        shared = turned(k_turned[:, None], *positions).expand(-1, c.num_attention_heads, -1, -1)
        q, k = torch.cat([q_plain, turned(q_turned, *positions)], -1), torch.cat([k_plain, shared], -1)
        return self.proj(self.core(q, k, v).transpose(1, 2).reshape(batch, seq, -1))


class MLP(nn.Module):
    def __init__(self, c, width):
        super().__init__()
        bias = c.bias if c.mlp_bias is None else c.mlp_bias
        self.act, self.up, self.down = c.hidden_act, linear(c.hidden_size, width, bias), linear(width, c.hidden_size, bias)
        if self.act in ("swiglu", "geglu"):
            self.gate = linear(c.hidden_size, width, bias)

    def forward(self, x):
        if self.act == "swiglu":
            return self.down(F.silu(self.gate(x)) * self.up(x))
        if self.act == "geglu":
            return self.down(F.gelu(self.gate(x)) * self.up(x))
        return self.down({"gelu": F.gelu, "relu": F.relu}[self.act](self.up(x)))


class Experts(nn.Module):
    """Each token to its best k experts, one expert after the other; with a capacity the first rows that come, and padding."""

    def __init__(self, c):
        super().__init__()
        self.c, self.router = c, linear(c.hidden_size, c.num_experts, False)
        if c.router_bias:
            self.bias = nn.Parameter(torch.zeros(c.num_experts), requires_grad=False)
        self.experts = nn.ModuleList(MLP(c, c.moe_intermediate_size or c.sizes[3]) for _ in range(c.num_experts))
        if c.shared_expert_intermediate_size is not None:
            self.shared = MLP(c, c.shared_expert_intermediate_size)
        if c.shared_expert_gate:
            self.gate = linear(c.hidden_size, 1, False)

    def routed(self, x):
        if self.c.router_bias:
            scores = self.router(x).sigmoid()
            chosen = (scores + self.bias).detach().topk(self.c.num_experts_per_tok).indices
            weights = scores.gather(1, chosen)
        else:
            weights, chosen = self.router(x).softmax(-1).topk(self.c.num_experts_per_tok)
        return (weights / weights.sum(-1, keepdim=True) if self.c.norm_topk_prob else weights), chosen

    def forward(self, x):
        batch, seq, width = x.shape
        x = x.view(-1, width)
        weights, chosen = self.routed(x)
        result = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            token, place = self.rows_of(e, chosen)
            result = result.index_add(0, token, expert(x[token]) * weights[token, place][:, None])
        if self.c.shared_expert_intermediate_size is not None:
            shared = self.shared(x)
            result = result + (self.gate(x).sigmoid() * shared if self.c.shared_expert_gate else shared)
        return result.view(batch, seq, width)

    def rows_of(self, e, chosen):
        rows = (chosen == e).nonzero()
        if self.c.capacity_factor is not None:
            room = math.ceil(self.c.capacity_factor * chosen.numel() / self.c.num_experts)
            padding = torch.zeros(max(room - len(rows), 0), 2, dtype=rows.dtype)
            rows = torch.cat([rows[:room], padding])
        return rows.unbind(1)


class Block(nn.Module):
    def __init__(self, c, layer, fused):
        super().__init__()
        self.parallel, self.norms = c.parallel_block, nn.ModuleList(norm(c) for _ in range(c.norms))
        self.attention = (Attention if c.kv_lora_rank is None else LatentAttention)(c, layer.window, fused)
        self.mlp = Experts(c) if layer.experts else MLP(c, c.sizes[3])

    def forward(self, x, positions):
        if self.parallel:
            first = self.norms[0](x)
            return x + self.attention(first, positions) + self.mlp(self.norms[1](x) if len(self.norms) == 2 else first)
        if len(self.norms) == 2:
            x = x + self.attention(self.norms[0](x), positions)
            return x + self.mlp(self.norms[1](x))
        x = x + self.norms[1](self.attention(self.norms[0](x), positions))
        return x + self.norms[3](self.mlp(self.norms[2](x)))


class Model(nn.Module):
    """The model of a configuration; `fused` for scaled_dot_product_attention."""

    def __init__(self, c, fused=False):
        super().__init__()
        self.c, vocabulary = c, -(-c.vocab_size // c.vocab_multiple) * c.vocab_multiple
        self.wte = nn.Embedding(vocabulary, c.hidden_size)
        if c.positions == "learned":
            self.wpe = nn.Embedding(c.max_position_embeddings, c.hidden_size)
        self.blocks = nn.ModuleList(Block(c, layer, fused) for layer in c.layers)
        self.norm, self.head = norm(c), linear(c.hidden_size, vocabulary, c.head_bias)
        if c.tie_word_embeddings:
            self.head.weight = self.wte.weight

    def forward(self, tokens):
        c, seq = self.c, tokens.shape[-1]
        x, positions = self.wte(tokens), ()
        if c.positions == "learned":
            x = x + self.wpe(torch.arange(seq, device=tokens.device))
        else:
            dim = c.qk_rope_head_dim or c.rotary_dim or c.sizes[2]
            frequencies = 10000 ** -(torch.arange(0, dim, 2, device=tokens.device) / dim)
            angles = torch.arange(seq, device=tokens.device)[:, None] * torch.cat([frequencies, frequencies])
            positions = angles.cos(), angles.sin()
        for block in self.blocks:
            x = block(x, positions)
        logits = self.head(self.norm(x))
        return torch.tanh(logits / 30) * 30 if c.logit_softcap else logits
