"""Decoders as a practitioner writes them from papers and model cards, by Hugging Face's names: the count is held against them.

They were written by somebody who had read the documentation of `optparity cost`, but neither the estimator nor the tests' other modules.
Sources: GPT-2 (Radford et al. 2019), Llama 2 (arXiv 2307.09288), GQA (2305.13245), Mistral (2310.06825), Mixtral (2401.04088),
Qwen 3 (2505.09388), DeepSeek-V2 and V3 (2405.04434, 2412.19437), SwiGLU (2002.05202), RoPE (2104.09864), RMSNorm (1910.07467).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Config(dict):
    """Hugging Face's config.json; a key that is not there is None."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


class RMSNorm(nn.Module):
    def __init__(self, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * x


def rope(seq: int, dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines, [seq, dim] each."""
    frequencies = 1.0 / 10000.0 ** (torch.arange(0, dim, 2, device=like.device) / dim)
    angles = torch.outer(torch.arange(seq, device=like.device).float(), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + rotate_half(x) * sin


def causal(seq: int, window: int | None, like: Tensor) -> Tensor:
    """[seq, seq], true where a token must not look."""
    positions = torch.arange(seq, device=like.device)
    distance = positions[:, None] - positions[None, :]
    hidden = distance < 0
    return hidden if window is None else hidden | (distance >= window)


def attend(q: Tensor, k: Tensor, v: Tensor, window: int | None, fused: bool) -> Tensor:
    """[b, n, s, d] each, keys and values with fewer heads or as many; the result is [b, s, n · d of the values]."""
    seq = q.shape[2]
    if window is not None and window >= seq:  # no mask of its own is made then, as in transformers
        window = None
    if fused:
        gqa = q.shape[1] != k.shape[1]
        if window is None:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=~causal(seq, window, q), enable_gqa=gqa)
    else:
        groups = q.shape[1] // k.shape[1]
        k, v = repeat_kv(k, groups), repeat_kv(v, groups)
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(causal(seq, window, q), float("-inf"))
        out = scores.softmax(dim=-1) @ v
    return out.transpose(1, 2).flatten(2)


def repeat_kv(x: Tensor, groups: int) -> Tensor:
    if groups == 1:
        return x
    batch, heads, seq, dim = x.shape
    return x[:, :, None].expand(batch, heads, groups, seq, dim).reshape(batch, heads * groups, seq, dim)


class GPT2Attention(nn.Module):
    def __init__(self, c: Config, fused: bool):
        super().__init__()
        self.heads, self.fused = c.n_head, fused
        self.c_attn = nn.Linear(c.n_embd, 3 * c.n_embd)
        self.c_proj = nn.Linear(c.n_embd, c.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        batch, seq, width = x.shape
        q, k, v = (each.view(batch, seq, self.heads, -1).transpose(1, 2) for each in self.c_attn(x).split(width, dim=2))
        return self.c_proj(attend(q, k, v, None, self.fused))


class GPT2Block(nn.Module):
    def __init__(self, c: Config, fused: bool):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(c.n_embd), nn.LayerNorm(c.n_embd)
        self.attn = GPT2Attention(c, fused)
        inner = c.n_inner or 4 * c.n_embd
        self.c_fc, self.c_proj = nn.Linear(c.n_embd, inner), nn.Linear(inner, c.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class GPT2(nn.Module):
    def __init__(self, c: Config, fused: bool):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(c.vocab_size, c.n_embd), nn.Embedding(c.n_positions, c.n_embd)
        self.h = nn.ModuleList(GPT2Block(c, fused) for _ in range(c.n_layer))
        self.ln_f = nn.LayerNorm(c.n_embd)
        self.lm_head = nn.Linear(c.n_embd, c.vocab_size, bias=False)
        if c.tie_word_embeddings is not False:
            self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class GroupedAttention(nn.Module):
    """Of Llama, Mistral, Qwen; with `fused_qkv` one matrix for all three, as in Phi-3."""

    def __init__(self, c: Config, fused: bool):
        super().__init__()
        self.heads, self.kv_heads = c.num_attention_heads, c.num_key_value_heads or c.num_attention_heads
        self.dim = c.head_dim or c.hidden_size // c.num_attention_heads
        self.window, self.fused = c.sliding_window, fused
        self.widths = [self.heads * self.dim, self.kv_heads * self.dim, self.kv_heads * self.dim]
        bias = bool(c.qkv_bias)
        if c.fused_qkv:
            self.qkv_proj = nn.Linear(c.hidden_size, sum(self.widths), bias=bias)
        else:
            self.q_proj, self.k_proj, self.v_proj = (nn.Linear(c.hidden_size, width, bias=bias) for width in self.widths)
        self.o_proj = nn.Linear(self.heads * self.dim, c.hidden_size, bias=False)
        self.q_norm, self.k_norm = (RMSNorm(self.dim), RMSNorm(self.dim)) if c.qk_norm else (nn.Identity(), nn.Identity())

    def projections(self, x: Tensor):
        return (
            self.qkv_proj(x).split(self.widths, dim=-1) if hasattr(self, "qkv_proj") else (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, seq, _ = x.shape
        q, k, v = (each.view(batch, seq, -1, self.dim) for each in self.projections(x))
        q, k, v = self.q_norm(q).transpose(1, 2), self.k_norm(k).transpose(1, 2), v.transpose(1, 2)
        return self.o_proj(attend(rotated(q, cos, sin), rotated(k, cos, sin), v, self.window, self.fused))


class LatentAttention(nn.Module):
    """Multi-head latent attention of DeepSeek-V2, section 2.1."""

    def __init__(self, c: Config, fused: bool):
        super().__init__()
        self.heads, self.nope, self.rope, self.value = c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
        self.rank, self.fused = c.kv_lora_rank, fused
        width = self.heads * (self.nope + self.rope)
        if c.q_lora_rank is None:
            self.q = nn.Linear(c.hidden_size, width, bias=False)
        else:
            down = nn.Linear(c.hidden_size, c.q_lora_rank, bias=False)
            self.q = nn.Sequential(down, RMSNorm(c.q_lora_rank), nn.Linear(c.q_lora_rank, width, bias=False))
        self.kv_a = nn.Linear(c.hidden_size, self.rank + self.rope, bias=False)
        self.kv_norm = RMSNorm(self.rank)
        self.kv_b = nn.Linear(self.rank, self.heads * (self.nope + self.value), bias=False)
        self.o_proj = nn.Linear(self.heads * self.value, c.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, seq, _ = x.shape
        q = self.q(x).view(batch, seq, self.heads, -1).transpose(1, 2)
        q_nope, q_rope = q.split([self.nope, self.rope], dim=-1)
        compressed, k_rope = self.kv_a(x).split([self.rank, self.rope], dim=-1)
        k_rope = k_rope.view(batch, seq, 1, self.rope).transpose(1, 2)
        kv = self.kv_b(self.kv_norm(compressed)).view(batch, seq, self.heads, -1).transpose(1, 2)
        k_nope, v = kv.split([self.nope, self.value], dim=-1)
        q_rope, k_rope = rotated(q_rope, cos, sin), rotated(k_rope, cos, sin)
        q = torch.cat((q_nope, q_rope), dim=-1)
        k = torch.cat((k_nope, k_rope.expand(-1, self.heads, -1, -1)), dim=-1)
        return self.o_proj(attend(q, k, v, None, self.fused))


class SwiGLU(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Experts(nn.Module):
    """Top-k of E experts: softmax, top-k, and the weights divided by their sum (Mixtral), or not (DeepSeek-V2, Qwen 2 MoE)."""

    def __init__(self, c: Config):
        super().__init__()
        count = c.num_local_experts or c.num_experts or c.n_routed_experts
        inner = c.moe_intermediate_size or c.intermediate_size
        self.k, self.normalised = c.num_experts_per_tok, c.model_type == "mixtral" or c.norm_topk_prob
        self.gate = nn.Linear(c.hidden_size, count, bias=False)
        self.experts = nn.ModuleList(SwiGLU(c.hidden_size, inner) for _ in range(count))
        shared = c.shared_expert_intermediate_size or (c.n_shared_experts or 0) * inner
        self.shared = SwiGLU(c.hidden_size, shared) if shared else None
        self.shared_gate = nn.Linear(c.hidden_size, 1, bias=False) if c.shared_expert_intermediate_size else None
        self.sigmoid, self.scale = c.model_type == "deepseek_v3", c.routed_scaling_factor
        if self.sigmoid:
            self.balance = nn.Parameter(torch.zeros(count), requires_grad=False)  # one of the parameters that DeepSeek counts

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the experts of each token, [tokens, k]."""
        if self.sigmoid:  # DeepSeek-V3: the bias chooses, and does not weigh
            scores = self.gate(x).sigmoid()
            chosen = (scores + self.balance).topk(self.k, dim=-1).indices
            weights = scores.gather(1, chosen)
        else:
            weights, chosen = self.gate(x).softmax(dim=-1).topk(self.k, dim=-1)
        if self.normalised:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return (weights if self.scale is None else weights * self.scale), chosen

    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.flatten(0, 1)
        weights, chosen = self.route(x)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == number)
            out.index_add_(0, rows, expert(x[rows]) * weights[rows, place, None])
        if self.shared is not None:
            shared = self.shared(x)
            out = out + (shared if self.shared_gate is None else self.shared_gate(x).sigmoid() * shared)
        return out.view_as(hidden)


class LlamaBlock(nn.Module):
    def __init__(self, c: Config, layer: int, fused: bool):
        super().__init__()
        self.input_norm, self.post_norm = RMSNorm(c.hidden_size), RMSNorm(c.hidden_size)
        self.attention = LatentAttention(c, fused) if c.kv_lora_rank else GroupedAttention(c, fused)
        sparse = c.num_experts_per_tok and layer >= (c.first_k_dense_replace or 0)
        self.mlp = Experts(c) if sparse else SwiGLU(c.hidden_size, c.intermediate_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.input_norm(x), cos, sin)
        return x + self.mlp(self.post_norm(x))


class Llama(nn.Module):
    """And what came of it: Mistral, Mixtral, Qwen 2 and 3, Phi-3, DeepSeek-V2 and V3."""

    def __init__(self, c: Config, fused: bool):
        super().__init__()
        self.embed = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(LlamaBlock(c, layer, fused) for layer in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        if c.tie_word_embeddings:
            self.lm_head.weight = self.embed.weight
        self.rotary = c.qk_rope_head_dim or c.head_dim or c.hidden_size // c.num_attention_heads

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        cos, sin = rope(tokens.shape[1], self.rotary, x)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.lm_head(self.norm(x))


SAID_BY_THE_FAMILY = {  # not by its config.json
    "phi3": {"fused_qkv": True},
    **{family: {"qkv_bias": True} for family in ("qwen2", "qwen2_moe")},
    **{family: {"qk_norm": True} for family in ("qwen3", "qwen3_moe")},
}


def build(config: dict, fused: bool) -> nn.Module:
    """The decoder of a config.json; `fused` takes torch's scaled_dot_product_attention."""
    family = config["model_type"]
    return (GPT2 if family == "gpt2" else Llama)(Config(config | SAID_BY_THE_FAMILY.get(family, {})), fused)
