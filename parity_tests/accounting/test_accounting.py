"""Memory and FLOPs: what the estimator says from configurations, against the facts, autograd, the compilers and the optimizers' state."""

import inspect
import json
import math
import os
import subprocess
import sys
from math import prod
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.figure
import matplotlib.image
import optax
import pytest
import torch
from flax import nnx
from torch import nn
from torch.nn import functional as F
from torch.utils import flop_counter
from torch.utils.checkpoint import checkpoint

from optparity import accounting
from optparity.accounting import (
    CONVENTIONS,
    PRESETS,
    Cruncher,
    Setup,
    Transformer,
    estimate,
    jax_flops,
    jax_memory,
    measure_jax,
    measure_torch,
    torch_flops,
    torch_peak,
)
from optparity.accounting import show as costing
from optparity.accounting.state import state
from optparity.models import in_flax, in_torch
from optparity.registry import OPTIMIZERS, ROWS

from ..cli.running import optparity

CRUNCHERS = [(2, 4, 2), (3, 5, 1), (8, 16, 5), (5, 6, 0), (64, 32, 4), (1, 1, 1), (16, 8, 9)]  # B, D, L
GPTS = [  # vocab, block, L, a, h; b, s
    ((50, 8, 1, 2, 16), (3, 8)),
    ((65, 32, 2, 4, 32), (2, 17)),
    ((128, 16, 3, 3, 24), (1, 16)),
    ((33, 24, 2, 1, 8), (5, 1)),
    ((257, 64, 1, 8, 64), (4, 64)),
]
LLAMAS = [  # V, h, L, a, k, d, f; b, s
    ((50, 20, 2, 4, 2, 6, 40), (3, 8)),
    ((65, 16, 1, 4, 1, 4, 44), (2, 9)),
    ((128, 24, 3, 6, 3, 8, 20), (1, 16)),
    ((33, 32, 2, 2, 2, 16, 64), (4, 5)),
    ((257, 64, 1, 8, 4, 10, 100), (2, 32)),
]


def transformer(vocab, block, layers, heads, width):
    """The configuration of `optparity.models`' GPT."""
    return Transformer(vocab, width, layers, heads, max_position_embeddings=block)


def llama(vocab, width, layers, heads, kv_heads, head_dim, intermediate):
    return Transformer(
        *(vocab, width, layers, heads, kv_heads, head_dim, intermediate),
        hidden_act="swiglu",
        positions="rotary",
        norm="rmsnorm",
        bias=False,
        tie_word_embeddings=False,
        fused_qkv=False,
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


def held(memory):
    """All that exists between the forward and the backward pass."""
    return {name: of for name, of in memory.components.items() if name != "temporaries"}


def peaks(model, loss, data, memory):
    """Measured bytes of a step where gradients stand already, and where the backward pass makes them; `data` and state are there before."""
    for before in (True, False):
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if before else None
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


# the article


@pytest.mark.parametrize(
    ("optimizer", "article", "executed", "kept"), [("adagrad", 496, 652, 144), ("sgd", 352, 496, 0), ("adam", 640, 796, 288)]
)
def test_the_articles_numbers_and_the_executed_ones_come_of_one_call(optimizer, article, executed, kept):
    cost = estimate(PRESETS["cruncher"], batch=2, setup=Setup(optimizer))
    assert cost.parameters == 36
    assert {memory.label: memory.total for memory in cost.memory} == {"the article": article, "executed (torch)": executed}
    assert cost.flops == {"6nd": 432, "executed": 368}
    assert cost.memory[0].totals == {
        **{"parameters": 144, "gradients": 144, "activations": 64, "temporaries": 0},
        "optimizer_state": kept,
    }


@pytest.mark.parametrize(("batch", "dim", "layers"), CRUNCHERS)
def test_cruncher_in_torch(batch, dim, layers):
    config, model = Cruncher(dim, layers), on_meta(in_torch.Cruncher, dim, layers)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == config.weights()
    loss = squared_loss(model, batch, dim)
    executed = estimate(config, batch, setup=Setup("adagrad")).memory[1]
    measured = measure_torch(model, loss, "adagrad")
    assert held(measured) == held(executed)
    assert measured.totals["activations"] == 4 * (batch * dim * layers + batch * dim + 2 * batch)
    assert torch_flops(loss) == config.flops(batch)
    requires_grad = squared_loss(model, batch, dim, inputs_require_grad=True)
    assert torch_flops(requires_grad) == config.flops(batch, inputs_require_grad=True) == 6 * batch * config.parameters


@pytest.mark.parametrize(("batch", "dim", "layers"), CRUNCHERS)
def test_cruncher_in_jax(batch, dim, layers):
    """Residuals exact; XLA's temporaries are others (see `Cruncher.activations`), its FLOPs within 1 % where rows are 8 or more."""
    config = Cruncher(dim, layers)
    params, loss = cruncher_in_jax(dim, layers)
    x, y = jax.ShapeDtypeStruct((batch, dim), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.float32)
    executed = estimate(config, batch, setup=Setup("adagrad", framework="jax", donate=True)).memory[1]
    measured = measure_jax(loss, params, x, y, optimizer="adagrad")
    for component in ("parameters", "gradients", "optimizer_state", "activations"):
        assert measured.components[component] == executed.components[component]
    assert measured.totals["activations"] == 4 * (batch * dim * layers + batch * dim + batch)
    if min(batch, dim) >= 8:
        assert jax_flops(jax.grad(loss), params, x, y) == pytest.approx(config.flops(batch), rel=0.01)


@pytest.mark.parametrize(("batch", "dim", "layers"), [(64, 32, 4), (128, 64, 2), (256, 16, 3), (1024, 64, 2), (512, 32, 6)])
def test_xlas_temporaries_of_cruncher(batch, dim, layers):
    """More rows than columns, so that no output has room for an activation: 1 or 2 activations above 4BDL, and scraps."""
    params, loss = cruncher_in_jax(dim, layers)
    x, y = jax.ShapeDtypeStruct((batch, dim), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.float32)
    above, scraps = divmod(jax_memory(jax.grad(loss), params, x, y)["temp"] - 4 * batch * dim * layers, 4 * batch * dim)
    assert above in (1, 2)
    assert scraps < 4 * batch * dim / 8


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 6])
@pytest.mark.parametrize(("batch", "dim"), [(16, 64), (32, 64), (64, 128)])
def test_xlas_temporaries_where_outputs_have_room(batch, dim, layers):
    """No more rows than columns: activations lie in the gradients' buffers, at most three in temporaries; 4BDL at L = 3, by chance.

    So where the weights come layer by layer; in another order (as a dict sorts them) it is one less.
    """

    def loss(weights, x, y):
        for weight in weights:
            x = x @ weight
        return jnp.square(x.squeeze(-1) - y).mean()

    weights = [jax.ShapeDtypeStruct((dim, columns), jnp.float32) for columns in (*[dim] * layers, 1)]
    x, y = jax.ShapeDtypeStruct((batch, dim), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.float32)
    assert jax_memory(jax.grad(loss), weights, x, y)["temp"] == 4 * batch * dim * min(layers + 1, 3)


# the Transformer against the facts


def test_parameters_of_known_models():
    known = {
        **{"gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200},
        **{"llama2-7b": 6_738_415_616, "llama2-13b": 13_015_864_320, "llama2-70b": 68_976_648_192},
        **{"llama3-8b": 8_030_261_248, "llama3-70b": 70_553_706_496, "llama3-405b": 405_853_388_800},
    }
    assert {name: PRESETS[name].parameters for name in known} == known
    printed = {"small": 125, "medium": 356, "large": 760, "xl": 1320, "2.7b": 2650, "6.7b": 6660, "13b": 12850, "175b": 174600}  # table D.1
    for name, millions in printed.items():
        assert PRESETS[f"gpt3-{name}"].parameters / 1e6 == pytest.approx(millions, rel=0.004), name
    assert round(PRESETS["gpt3-175b"].parameters / 1e8) == 1746
    assert round(PRESETS["palm-540b"].parameters / 1e7) in (54035, 54036)
    assert PRESETS["palm-540b"].parameters_by_part()["norms"] == 119 * 18432  # no biases there either
    assert round(PRESETS["chinchilla-70b"].parameters / 1e9, 1) == 70.1
    without = Transformer(**{**vars(PRESETS["chinchilla-70b"]), "positions": "rotary"})
    assert round(without.parameters / 1e9, 1) == 64.7


def test_gpt2_small():
    """nanoGPT's transformer_sizing.ipynb, and a module."""
    config, model = PRESETS["gpt2"], on_meta(in_torch.GPT, 50257, 1024, 12, 12, 768)
    assert sum(p.numel() for p in model.parameters()) == config.parameters
    assert len(list(model.parameters())) == len(config.weights())
    block = config.block_flops(1, 1024)
    assert block == {
        **{"kqv": 3_623_878_656, "scores": 1_610_612_736, "reduce": 1_610_612_736, "proj": 1_207_959_552},
        **{"ffw1": 4_831_838_208, "ffw2": 4_831_838_208},
    }
    assert sum(block.values()) == 17_716_740_096
    assert config.head_flops(1, 1024) == 79_047_426_048
    assert config.forward_flops(1, 1024) == 291_648_307_200
    assert config.flops(1, 1024) == 874_944_921_600
    assert config.parameters_by_part()["head"] == 0
    assert config.non_embedding_parameters == config.parameters - (50257 + 1024) * 768
    assert torch_flops(language_loss(model, 1, 1024)) == 874_944_921_600


@pytest.mark.parametrize("name", [name for name, model in PRESETS.items() if isinstance(model, Transformer)])
@pytest.mark.parametrize(("batch", "seq"), [(1, 1024), (7, 100)])
def test_conventions(name, batch, seq):
    model = PRESETS[name]
    a, k, d, f = model.sizes
    n, h, layers, vocab, tokens = model.parameters, model.hidden_size, model.num_hidden_layers, model.vocab_size, batch * seq
    assert list(CONVENTIONS) == ["6nd", "kaplan", "chinchilla", "palm", "executed"]
    matrices = layers * (h * (a + 2 * k) * d + a * d * h + (3 if model.hidden_act == "swiglu" else 2) * h * f)
    assert model.flops(batch, seq, "6nd") == 6 * n * tokens
    assert model.flops(batch, seq, "kaplan") == 3 * tokens * (2 * matrices + 2 * layers * seq * a * d)
    assert model.flops(batch, seq, "palm") == tokens * (6 * n + 12 * layers * a * d * seq)
    forward = 2 * tokens * (matrices + vocab * h) + 4 * layers * seq * tokens * a * d
    # arXiv 2203.15556, appendix F, line by line
    embeddings, logits = 2 * tokens * vocab * h, 2 * tokens * h * vocab
    qkv, scores = 2 * tokens * h * (a + 2 * k) * d, 2 * tokens * seq * a * d
    softmax, reduce, projection = 3 * a * seq * tokens, 2 * tokens * seq * a * d, 2 * tokens * a * d * h
    dense = 2 * tokens * h * f * (3 if model.hidden_act == "swiglu" else 2)
    appendix = embeddings + layers * (qkv + scores + softmax + reduce + projection + dense) + logits
    assert model.flops(batch, seq, "chinchilla") == 3 * appendix
    if model.positions == "relative":
        forward += layers * (2 * seq * h * a * d + 2 * seq * tokens * a * d)
    assert model.flops(batch, seq) == 3 * forward
    if name.startswith("gpt2"):
        assert forward == batch * (2 * seq * (12 * layers * h * h + vocab * h) + 4 * layers * seq * seq * h)


def test_gpt3s_training():
    """300B tokens: 3.14e23 FLOPs, 3640 petaflop/s-days (arXiv 2005.14165, table D.1)."""
    flops = PRESETS["gpt3-175b"].flops(1, 2000, "6nd") * 150_000_000
    assert round(flops / 1e21) == 314
    assert round(flops / (1e15 * 86400)) == pytest.approx(3640, abs=3)


KORTHIKANTI = [(2048, 4, 6144, 64, 8), (1024, 1, 768, 12, 4), (128, 3, 1024, 16, 16), (512, 2, 512, 8, 2), (64, 7, 256, 4, 1)]


@pytest.mark.parametrize(("s", "b", "h", "a", "t"), KORTHIKANTI)
def test_activations_of_korthikanti(s, b, h, a, t):
    """arXiv 2205.05198, table 2, in 16 bit; outside the blocks dropout's mask, two 16-bit inputs and float32 logits (section 4.3)."""
    layers, vocab = 3, 64 * t
    model = Transformer(vocab, h, layers, a, max_position_embeddings=s)

    def block(recompute="none", t=1, sequence_parallel=False):
        how = {"dtype": "bfloat16", "tensor_parallel": t, "sequence_parallel": sequence_parallel}
        return sum(model.block_activations(b, s, "korthikanti", recompute, **how).values())

    core = 5 * a * s * s * b
    assert block() == 34 * s * b * h + core
    assert block(t=t) * t == (10 * t + 24) * s * b * h + core
    assert block(t=t, sequence_parallel=True) * t == 34 * s * b * h + core
    assert block("selective", t, True) * t == 34 * s * b * h
    assert block("selective", t) * t == (10 * t + 24) * s * b * h
    assert block("full") == block("full", t) == 2 * s * b * h
    how = {"dtype": "bfloat16", "tensor_parallel": t, "sequence_parallel": True}
    whole = model.activations(b, s, "korthikanti", **how)
    outside = s * b * h + 2 * s * b * h + 2 * s * b * h + 4 * s * b * vocab
    assert sum(whole.values()) * t == layers * (34 * s * b * h + core) + outside
    # what autograd keeps of it: no dropout (three masks and a result), and outside log-probabilities in 16 bit for float32 logits
    kept = model.activations(b, s, "executed", **how)
    blocks = layers * (34 * s * b * h + core - 2 * s * b * h - 3 * a * s * s * b)
    assert kept["bfloat16"] * t == blocks + 4 * s * b * h + 2 * s * b * vocab + 2 * t  # 2: the weight of the targets


# the Transformer against autograd


@pytest.mark.parametrize("attention", ["written-out", "sdpa"])
@pytest.mark.parametrize(("sizes", "data"), GPTS)
def test_gpt_in_torch(monkeypatch, sizes, data, attention):
    """To the byte and the FLOP; 64sbh + 4as²b + 16sb + s² a block, or 64sbh + 4asb + 16sb."""
    if attention == "sdpa":
        monkeypatch.setattr(in_torch.Attention, "forward", _fused)
    config, model = transformer(*sizes), in_torch.GPT(*sizes)
    (b, s), a, h = data, sizes[3], sizes[4]
    loss = language_loss(model, b, s)
    measured, executed = measure_torch(model, loss), estimate(config, b, s, Setup(attention=attention)).memory[1]
    assert held(measured) == held(executed)
    block = {"written-out": 64 * s * b * h + 4 * a * s * s * b + 16 * s * b + s * s, "sdpa": 64 * s * b * h + 4 * a * s * b + 16 * s * b}
    assert sum(config.block_activations(b, s, attention=attention).values()) == block[attention]
    if attention == "written-out":
        assert torch_flops(loss) == config.flops(b, s)


# the peak: what the backward pass has in flight


PEAKS = [  # vocab, block, L, a, h; b, s: from the head, the MLP, the softmax, a gradient of a weight, the tied embedding
    (((50, 128, 4, 4, 64), (8, 128)), "softmax"),
    (((500, 128, 4, 4, 64), (8, 128)), "log-softmax"),
    (((2000, 128, 2, 4, 64), (8, 128)), "log-softmax"),
    (((50257, 64, 2, 4, 64), (4, 64)), "log-softmax"),
    (((65, 32, 2, 4, 32), (2, 17)), "mlp down"),
    (((65, 32, 3, 2, 128), (16, 32)), "mlp down"),
    (((33, 24, 2, 1, 8), (5, 1)), "mlp down"),
    (((5000, 32, 1, 4, 256), (1, 32)), "embedding"),
]


@pytest.mark.parametrize("attention", ["written-out", "sdpa"])
@pytest.mark.parametrize(("shape", "place"), PEAKS)
def test_peak_of_gpt_in_torch(monkeypatch, shape, place, attention):
    """What fits is the measured peak of the whole step."""
    (sizes, (b, s)), meta = shape, attention == "written-out"
    if not meta:
        monkeypatch.setattr(in_torch.Attention, "forward", _fused)  # its kernel on the meta device is another
    config, model = transformer(*sizes), on_meta(in_torch.GPT, *sizes) if meta else in_torch.GPT(*sizes)
    executed = estimate(config, b, s, Setup("adam", attention=attention)).memory[1]
    assert_is_the_peak(model, language_loss(model, b, s), 2 * 8 * b * s, executed)
    places = config.temporaries(b, s, attention=attention)
    if meta:
        assert max(places, key=lambda name: sum(places[name].values())) == place
    kept = executed.totals["activations"]
    assert sum(places["log-softmax"].values()) == 4 * (2 * b * s * sizes[0] + 2), "two tensors b s V, the loss and its gradient"
    assert executed.total >= kept + 4 * 2 * b * s * sizes[0]


def test_the_heads_temporaries_are_divided_with_the_vocabulary():
    b, s, v = 8, 1024, 50257
    for t in (1, 2, 4):
        (head,) = PRESETS["gpt2"].temporaries(b, s, tensor_parallel=t)["log-softmax"].values()
        assert head == 4 * (2 * b * s * -(-v // t) + 2)


def test_torch_peak_is_the_profilers():
    """To the allocator's alignment of scalars."""
    model = in_torch.GPT(500, 32, 2, 4, 64)
    loss = language_loss(model, 4, 32)
    counted = torch_peak(loss)
    model.zero_grad()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        loss().backward()
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    assert abs(most - counted) <= 256


@pytest.mark.parametrize(("batch", "dim", "layers"), [*CRUNCHERS, (512, 8, 1), (4096, 16, 3), (3, 64, 2)])
def test_peak_of_cruncher_in_torch(batch, dim, layers):
    config, model = Cruncher(dim, layers), on_meta(in_torch.Cruncher, dim, layers)
    loss, data = squared_loss(model, batch, dim), 4 * (batch * dim + batch)
    assert_is_the_peak(model, loss, data, estimate(config, batch, setup=Setup("sgd")).memory[1])


def _fused(self, x):
    batch, seq, width = x.shape
    q, k, v = (part.view(batch, seq, self.n_head, -1).transpose(1, 2) for part in self.c_attn(x).split(width, -1))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return self.c_proj(y.transpose(1, 2).reshape(batch, seq, width))


def test_flops_of_sdpa_as_torch_counts_its_kernels():
    """CPU counts none (pytorch#195460): torch's formulas, called on the shapes."""
    config, shape = transformer(50, 8, 2, 4, 16), (3, 4, 8, 4)
    kernels = flop_counter.sdpa_flop_count(shape, shape, shape) + flop_counter.sdpa_backward_flop_count(shape, shape, shape, shape)
    core = 3 * 2 * config.block_flops(3, 8)["scores"]
    assert config.flops(3, 8, attention="sdpa") == config.flops(3, 8) + 2 * (kernels - core)


@pytest.mark.parametrize(("sizes", "data"), GPTS)
def test_half_precision_statistics_on_a_device(sizes, data):
    """bfloat16 as CUDA and the meta device have it: statistics in float32."""
    model = on_meta(in_torch.GPT, *sizes).to(torch.bfloat16)
    executed = estimate(transformer(*sizes), *data, Setup(dtype="bfloat16")).memory[1]
    assert held(measure_torch(model, language_loss(model, *data))) == held(executed)


@pytest.mark.parametrize("recompute", ["selective", "full"])
@pytest.mark.parametrize(("sizes", "data"), GPTS)
def test_recomputation_in_torch(monkeypatch, sizes, data, recompute):
    """torch.utils.checkpoint around each block, or around each attention core: what is kept, and the FLOPs of doing it again."""
    again = lambda function, *args: checkpoint(function, *args, use_reentrant=True)  # noqa: E731
    if recompute == "full":
        block = in_torch.Block.forward
        monkeypatch.setattr(in_torch.Block, "forward", lambda self, x: again(lambda x: block(self, x), x))
    else:
        monkeypatch.setattr(in_torch.Attention, "forward", lambda self, x: _with_core(self, x, again))
    config, model = transformer(*sizes), in_torch.GPT(*sizes)
    loss = language_loss(model, *data)
    executed = estimate(config, *data, Setup(recompute=recompute)).memory[1]
    assert measure_torch(model, loss).activations == executed.activations
    assert torch_flops(loss) == config.flops(*data, recompute=recompute)
    in_jax = estimate(config, *data, Setup(recompute=recompute, framework="jax", donate=True)).memory[1]
    kept, everything = (config.block_activations(*data, recompute=how) for how in (recompute, "none"))
    assert in_jax.totals["temporaries"] == sum(everything.values()) - sum(kept.values()) > 0
    standing, fresh = peaks(model, loss, 2 * 8 * prod(data), executed)
    assert max(standing, fresh) <= executed.total <= 1.05 * standing


def _with_core(self, x, run):
    batch, seq, width = x.shape
    q, k, v = (part.view(batch, seq, self.n_head, -1).transpose(1, 2) for part in self.c_attn(x).split(width, -1))

    def core(q, k, v):
        future = torch.ones(seq, seq, dtype=torch.bool).triu(1)
        return ((q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])).masked_fill(future, -math.inf).softmax(-1) @ v

    return self.c_proj(run(core, q, k, v).transpose(1, 2).reshape(batch, seq, width))


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


# the optimizer's state


STATE_LEAVES = {"w": (3, 4), "b": (5,), "scale": ()}


@pytest.mark.parametrize(("row", "dtype"), [(row, dtype) for row in ROWS for dtype in row.dtypes], ids=str)
def test_state_of_every_row(row, dtype):
    """Estimated and measured bytes, by dtype, after a step in PyTorch and as initialised in JAX: ours and torch.optim's."""
    shapes = {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in STATE_LEAVES.items()}
    options = {name: value for name, value in row.arguments.items() if name != "learning_rate"}
    in_jax = row.tx.init({name: jnp.ones(shape, dtype) for name, shape in STATE_LEAVES.items()})
    assert state(row.optimizer, shapes, **options).bytes == by_dtype(jax.tree.leaves(in_jax))
    assert state(row.tx, shapes).bytes == by_dtype(jax.tree.leaves(in_jax))
    ours = state(row.optimizer, shapes, "torch", **options).bytes
    makers = [row.torch] if "accumulator_dtype" in options else [row.torch, row.stock_torch]
    for make in makers:
        parameters = [nn.Parameter(torch.ones(shape, dtype=getattr(torch, dtype))) for shape in STATE_LEAVES.values()]
        optimizer = make(parameters)
        for p in parameters:
            p.grad = torch.ones_like(p)
        optimizer.step()
        kept = [value for one in optimizer.state_dict()["state"].values() for value in one.values() if isinstance(value, torch.Tensor)]
        assert ours == by_dtype(kept)


def by_dtype(arrays):
    found = {}
    for array in arrays:
        name = str(array.dtype).removeprefix("torch.")
        found[name] = found.get(name, 0) + array.nbytes
    return {name: count for name, count in found.items() if count}


def test_state_of_float64_without_x64():
    """JAX would have halved it."""
    assert not jax.config.jax_enable_x64
    assert state("adam", jax.ShapeDtypeStruct((3, 4), "float64")).bytes == {"float64": 192, "int32": 4}
    assert estimate(Cruncher(4, 2), 2, setup=Setup(dtype="float64", framework="jax")).memory[0].total == 2 * 640


def test_who_keeps_a_step_in_torch():
    for entry in OPTIMIZERS.values():
        assert entry.torch.has_step == entry.has_step


def test_state_of_any_optax_transform():
    params = {"w": jnp.ones((3, 4)), "b": jnp.ones(5)}
    for tx in (optax.lion(0.1), optax.chain(optax.clip(1.0), optax.adam(0.1)), optax.inject_hyperparams(optax.adamw)(learning_rate=0.1)):
        assert state(tx, params).bytes == by_dtype(jax.tree.leaves(tx.init(params)))
    with pytest.raises(ValueError, match=r"^accounting: PyTorch's layout is known for a name"):
        state(optax.lion(0.1), params, "torch")


# devices and dtypes


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("devices", [1, 4, 64])
def test_zero_and_mixed_precision(optimizer, devices):
    """arXiv 1910.02054: 2P + 2P + KP bytes, K = 12 for Adam: a float32 master copy and the float32 state; each stage divides one more."""
    model = PRESETS["gpt2"]
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
    model = PRESETS[name]
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


def step_in_jax(optimizer, loss):
    tx = OPTIMIZERS[optimizer].jax(0.1)

    def step(params, opt_state, *data):
        updates, opt_state = tx.update(jax.grad(loss)(params, *data), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return tx, step


STEPS = [*((Cruncher(dim, layers), batch, None) for batch, dim, layers in CRUNCHERS[:5]), (transformer(*GPTS[0][0]), *GPTS[0][1])]


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize(("config", "batch", "seq"), STEPS)
def test_memory_of_a_compiled_step(config, batch, seq, donate):
    """Arguments, outputs and aliases: parameters, state and data, to the byte."""
    if isinstance(config, Cruncher):
        optimizer, (params, loss) = "momentum", cruncher_in_jax(config.dim, config.num_layers)
        data = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((batch, config.dim), (batch,))]
    else:
        optimizer, (params, loss) = "adam", gpt_in_jax(*GPTS[0][0])
        data = [jax.ShapeDtypeStruct((batch, seq), jnp.int32)] * 2
    tx, step = step_in_jax(optimizer, loss)
    opt_state = jax.eval_shape(tx.init, params)
    with jax.numpy_dtype_promotion("standard"):  # as users have it; optax promotes
        compiled = jax_memory(step, params, opt_state, *data, donate=(0, 1) if donate else ())
    executed = estimate(config, batch, seq, Setup(optimizer, framework="jax", donate=donate)).memory[1]
    held = executed.totals["parameters"] + executed.totals["optimizer_state"]
    arrays = len(jax.tree.leaves((params, opt_state)))
    assert compiled["argument"] == held + sum(4 * prod(of.shape) for of in data)
    assert compiled["output"] == held + 8 * arrays
    assert compiled["alias"] == (held if donate else 0)
    both = held if donate else 2 * held  # donated, the outputs take the arguments' place; their table of pointers does not
    assert compiled["peak"] == both + sum(4 * prod(of.shape) for of in data) + 8 * arrays + compiled["temp"]
    assert executed.totals["temporaries"] == (0 if donate else held)


@pytest.mark.parametrize(
    ("sizes", "data"),
    [
        ((512, 64, 1, 4, 256), (4, 64)),
        ((300, 32, 2, 2, 256), (8, 32)),
        ((1024, 128, 1, 4, 512), (2, 128)),
        ((4096, 128, 1, 8, 768), (1, 128)),
        ((777, 100, 3, 6, 384), (3, 50)),
    ],
)
def test_flops_of_gpt_in_jax(sizes, data):
    """XLA counts element-wise operations too: above by less than 1 % at widths of 256 and more, where matrices are nearly all."""
    params, loss = gpt_in_jax(*sizes)
    tokens = jax.ShapeDtypeStruct(data, jnp.int32)
    executed = transformer(*sizes).flops(*data)
    assert executed < jax_flops(jax.grad(loss), params, tokens, tokens, compiled=False) < 1.01 * executed


# what is refused


GOOD = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 8}
BAD = [
    ({"num_attention_heads": 3}, "transformer: num_attention_heads divides hidden_size; got 3 and 16."),
    ({"num_key_value_heads": 3}, "transformer: num_key_value_heads divides num_attention_heads; got 3 and 4."),
    ({"hidden_size": -16}, "transformer: hidden_size is an integer >= 1; got -16."),
    ({"hidden_size": 16.0}, "transformer: hidden_size is an integer >= 1; got 16.0."),
    ({"num_hidden_layers": 0}, "transformer: num_hidden_layers is an integer >= 1; got 0."),
    ({"num_key_value_heads": 0}, "transformer: num_key_value_heads is an integer >= 1; got 0."),
    ({"vocab_size": True}, "transformer: vocab_size is an integer >= 1; got True."),
    ({"head_dim": "wide"}, "transformer: head_dim is an integer >= 1; got 'wide'."),
    ({"hidden_act": "tanh"}, "transformer: hidden_act is one of gelu, relu, swiglu; got 'tanh'."),
    ({"positions": "alibi"}, "transformer: positions is one of learned, rotary, relative; got 'alibi'."),
    ({"norm": ["rmsnorm"]}, "transformer: norm is one of layernorm, rmsnorm; got ['rmsnorm']."),
    ({"bias": "no"}, "transformer: bias is true or false; got 'no'."),
    ({"max_position_embeddings": None}, "transformer with learned positions: max_position_embeddings is an integer >= 1; got None."),
    ({"n_head": 4}, "transformer: unknown key 'n_head'; the keys are vocab_size, "),
    ({"model": [1]}, "configuration: model is one of transformer, cruncher; got [1]."),
    ({"model": {}}, "configuration: model is one of transformer, cruncher; got {}."),
    ({"model": "mamba"}, "configuration: model is one of transformer, cruncher; got 'mamba'."),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_configurations(monkeypatch, capsys, tmp_path, changes, message):
    """One line, from the library as from the command."""
    with pytest.raises(ValueError, match=r"^(transformer|configuration)") as raised:
        accounting.from_dict(GOOD | changes)
    assert str(raised.value).startswith(message)
    (tmp_path / "bad.json").write_text(json.dumps(GOOD | changes))
    status, out, err = optparity(monkeypatch, capsys, "cost", tmp_path / "bad.json")
    assert (status, out) == (2, "")
    assert err.startswith(f"optparity: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accounting.from_dict([]), r"^configuration: an object with keys is needed; got \[\]\.$"),
        (lambda: accounting.from_dict({"model": "cruncher", "dim": 4}), r"^cruncher: the key 'num_layers' is needed\.$"),
        (lambda: Cruncher(0, 2), r"^cruncher: dim is an integer >= 1; got 0\.$"),
        (lambda: Cruncher(4, -1), r"^cruncher: num_layers is an integer >= 0; got -1\.$"),
        (lambda: estimate(Cruncher(4, 2), 2, 8), r"^cruncher: seq is for a transformer\.$"),
        (lambda: estimate(Cruncher(4, 2), 2, setup=Setup(tensor_parallel=2)), r"^cruncher: tensor_parallel, "),
        (lambda: estimate(Cruncher(4, 2), 2, conventions=["palm"]), r"^cruncher: convention is one of 6nd, executed; got 'palm'\.$"),
        (lambda: estimate(PRESETS["llama2-7b"], 0), r"^transformer: batch is an integer >= 1; got 0\.$"),
        (lambda: estimate(PRESETS["palm-540b"], 1), r"^transformer: seq is needed, since the configuration has no "),
        (lambda: estimate(PRESETS["gpt2"], 1, 1025), r"^transformer: seq is at most max_position_embeddings, 1024; got 1025\.$"),
        (
            lambda: estimate(PRESETS["gpt2"], 1, setup=Setup(tensor_parallel=5)),
            r"^transformer: tensor_parallel divides num_attention_heads; got 5 and 12\.$",
        ),
        (
            lambda: estimate(PRESETS["gpt2"], 1, 7, Setup(tensor_parallel=2, sequence_parallel=True)),
            r"^transformer with sequence_parallel: tensor_parallel divides the sequence; got 2 and 7\.$",
        ),
        (
            lambda: Transformer(50, 24, 1, 12, 4, max_position_embeddings=8).weights(6),
            r"^transformer: tensor_parallel divides num_key_value_heads, or is a multiple of it; got 6 and 4\.$",
        ),
        (lambda: PRESETS["gpt2"].activations(1, 8, "guess"), r"^transformer: by is one of executed, korthikanti; got 'guess'\.$"),
        (lambda: Setup(framework="mxnet"), r"^setup: framework is one of torch, jax; got 'mxnet'\.$"),
        (lambda: Setup(zero_stage=4), r"^setup: zero_stage is one of 0, 1, 2, 3; got 4\.$"),
        (lambda: Setup(dtype="int8"), r"^setup: dtype is one of float32, float64, bfloat16, float16; got 'int8'\.$"),
        (
            lambda: Setup(dtype="float32", mixed_precision=True),
            r"^setup with mixed_precision: dtype is one of bfloat16, float16; got 'float32'\.$",
        ),
        (lambda: Setup(donate=True), r"^setup: donate is for framework jax; torch steps in place\.$"),
        (lambda: state("adamm", {}), r"^unknown optimizer 'adamm'; one of sgd, momentum, adagrad, rmsprop, adam, adamw is needed\.$"),
        (lambda: state("adam", {}, momentum=0.9), r"^adam: option is one of learning_rate, b1, .*; got 'momentum'\.$"),
        (lambda: state("adam", {}, amsgrad="yes"), r"^adam: amsgrad is true or false; got 'yes'\.$"),
        (lambda: state("adam", {}, eps=True), r"^adam: eps is a number; got True\.$"),
        (lambda: state("adam", {}, b1="0.9"), r"^adam: b1 is a number; got '0\.9'\.$"),
        (lambda: state("adam", {}, b1=None), r"^adam: b1 is a number; got None\.$"),
        (lambda: state("adam", {}, b1=10**400), r"^adam: b1 is a number that float64 has; got one too large\.$"),
        (lambda: state("adam", {}, learning_rate="fast"), r"^adam: learning_rate is a number; got 'fast'\.$"),
        (
            lambda: state("adam", {}, accumulator_dtype=[1]),
            r"^adam: accumulator_dtype \[1\] is not supported; float32 or None is needed\.$",
        ),
        (
            lambda: state("adam", {}, accumulator_dtype=True),
            r"^adam: accumulator_dtype True is not supported; float32 or None is needed\.$",
        ),
        (lambda: accounting.checks.options("adam", [1]), r"^adam: options are a mapping of names to values; got \[1\]\.$"),
        (lambda: accounting.checks.options([1], {}), r"^unknown optimizer \[1\]; one of sgd, "),
        (lambda: state([1], {}), r"^accounting: an optimizer is a name of optparity\.OPTIMIZERS or an optax transform; got \[1\]\.$"),
        (lambda: Setup(options=[1]), r"^setup: options are a mapping of names to values; got \[1\]\.$"),
        (lambda: Setup(dtype=["float32"]), r"^setup: dtype is one of float32, float64, bfloat16, float16; got \['float32'\]\.$"),
        (lambda: Setup(zero_stage=True), r"^setup: zero_stage is one of 0, 1, 2, 3; got True\.$"),
        (lambda: estimate("gpt2", 1), r"^estimate: a Transformer or a Cruncher is needed, as PRESETS\['gpt2'\] is; got 'gpt2'\.$"),
        (lambda: estimate(PRESETS["gpt2"], 1, setup="adam"), r"^estimate: setup is a Setup; got 'adam'\.$"),
        (lambda: estimate(PRESETS["gpt2"], 1, conventions="palm"), r"^estimate: conventions are several names; got 'palm'\.$"),
        (lambda: PRESETS["gpt2"].flops(1, 8, recompute="all"), r"^transformer: recompute is one of none, selective, full; got 'all'\.$"),
        (lambda: PRESETS["gpt2"].flops(1, 8, attention="x"), r"^transformer: attention is one of written-out, sdpa; got 'x'\.$"),
        (
            lambda: PRESETS["gpt2"].activations(1, 8, recompute="all"),
            r"^transformer: recompute is one of none, selective, full; got 'all'\.$",
        ),
        (lambda: PRESETS["gpt2"].activations(1, 8, attention="x"), r"^transformer: attention is one of written-out, sdpa; got 'x'\.$"),
        (lambda: PRESETS["gpt2"].activations(1, 8, dtype="int8"), r"^transformer: dtype is one of float32, .*; got 'int8'\.$"),
        (lambda: PRESETS["gpt2"].temporaries(1, 8, "all"), r"^transformer: recompute is one of none, selective, full; got 'all'\.$"),
        (lambda: PRESETS["gpt2"].temporaries(1, 8, dtype=None), r"^transformer: dtype is one of float32, .*; got None\.$"),
        (lambda: PRESETS["gpt2"].saved(1, 8, sequence_parallel=1), r"^transformer: sequence_parallel is true or false; got 1\.$"),
        (lambda: Cruncher(4, 2).activations(0), r"^cruncher: batch is an integer >= 1; got 0\.$"),
        (lambda: Cruncher(4, 2).activations(2, "guess"), r"^cruncher: by is one of the article, torch, jax; got 'guess'\.$"),
        (lambda: Cruncher(4, 2).activations(2, dtype="f4"), r"^cruncher: dtype is one of float32, .*; got 'f4'\.$"),
        (lambda: Cruncher(4, 2).temporaries(0), r"^cruncher: batch is an integer >= 1; got 0\.$"),
        (lambda: Cruncher(4, 2).temporaries(2, "f4"), r"^cruncher: dtype is one of float32, .*; got 'f4'\.$"),
        (lambda: state(optax.sgd(0.1), {}, nesterov=True), r"^accounting: options are for an optimizer named by its name; "),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# the command


def test_cost_of_the_toy(monkeypatch, capsys, tmp_path):
    (tmp_path / "toy.json").write_text('{"model": "cruncher", "dim": 4, "num_layers": 2}')
    shown = [optparity(monkeypatch, capsys, "cost", model, *TOY) for model in ("cruncher", tmp_path / "toy.json")]
    for status, out, err in shown:
        assert (status, err) == (0, "")
        lines = [" ".join(line.split()) for line in out.splitlines()]
        assert lines[0].endswith(": 36 parameters")
        assert lines[1:] == TOY_LINES


TOY = ("--batch", 2, "--optimizer", "adagrad")
TOY_LINES = [
    "memory of a device dtype the article executed (torch)",
    "parameters float32 144 B 144 B",
    "gradients float32 144 B 144 B",
    "optimizer state float32 144 B 156 B",
    "activations float32 64 B 112 B",
    "temporaries float32 0 B 96 B",
    "total 496 B 652 B",
    "convention FLOPs of a step what is counted",
    "6nd 432 the article's: 6 B P",
    "executed 368 the matrix products done; the inputs need no gradient",
]


@pytest.mark.parametrize(("optimizer", "total"), [("sgd", "352 B"), ("adam", "640 B"), ("adagrad", "496 B")])
def test_cost_of_the_articles_optimizers(monkeypatch, capsys, optimizer, total):
    out = optparity(monkeypatch, capsys, "cost", "cruncher", "--batch", 2, "--optimizer", optimizer)[1]
    assert any(line.split()[:3] == ["total", *total.split()] for line in out.splitlines())


def test_cost_writes_what_it_shows(monkeypatch, capsys, tmp_path):
    json_file, picture = tmp_path / "new" / "cost.json", tmp_path / "cost.png"
    status, out, _ = optparity(
        *(monkeypatch, capsys, "cost", "llama3-70b", "--seq", 4096, "--batch", 2, "--mixed-precision", "--recompute", "selective"),
        *("--tensor-parallel", 8, "--sequence-parallel", "--zero-stage", 3, "--data-parallel", 4, "--option", "amsgrad=true"),
        *("--attention", "sdpa", "--set", "num_hidden_layers=40", "--json", json_file, "--plot", picture),
    )
    assert status == 0
    assert max(map(len, out.splitlines())) <= 100
    assert not any(line.startswith("activations:") for line in out.splitlines())
    document = json.loads(json_file.read_text())
    model = Transformer(**{**vars(PRESETS["llama3-70b"]), "num_hidden_layers": 40})
    setup = Setup(
        *("adam", {"amsgrad": True}, "torch", "bfloat16", "sdpa", "selective", 8, True, 3, 4),
        mixed_precision=True,
    )
    assert {**document, **estimate(model, 2, 4096, setup).to_dict()} == document
    assert document["configuration"]["num_hidden_layers"] == 40
    assert f"{document['parameters']:,} parameters" in out
    for name in CONVENTIONS:
        assert any(line.startswith(name) for line in out.splitlines())
    height, width, _ = matplotlib.image.imread(picture).shape
    assert width > 800
    assert height > 300
    assert [file.name for file in tmp_path.rglob(".*")] == []


def test_cost_in_jax_says_whose_activations(monkeypatch, capsys):
    status, out, _ = optparity(monkeypatch, capsys, "cost", "gpt2", "--framework", "jax", "--donate", "--convention", "palm")
    assert status == 0
    assert "activations: what PyTorch's autograd would keep; XLA decides for itself." in out
    assert "executed (jax)" in out
    assert "chinchilla" not in out


@pytest.mark.parametrize(("limit", "status", "answer"), [(2, 1, "no"), (2.5, 0, "yes")])
def test_cost_says_whether_it_fits(monkeypatch, capsys, limit, status, answer):
    got, out, _ = optparity(monkeypatch, capsys, "cost", "gpt2", "--seq", 64, "--fits", limit)
    assert got == status
    assert out.splitlines()[-1].startswith(f"fits in {limit} GB per device: {answer} (")


def test_cost_needs_no_torch():
    hidden = "import sys; sys.modules['torch'] = None; sys.argv = ['optparity', 'cost', 'gpt2']; from optparity.cli import main; main()"
    run = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stderr
    assert "874,944,921,600" in run.stdout


def test_all_is_what_is_public():
    public = {name for name, value in vars(accounting).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert set(accounting.__all__) - {"estimate", "state"} == public - {"estimate", "state"}
    assert callable(accounting.estimate)
    assert callable(accounting.state)


def test_what_fits():
    memory = estimate(Cruncher(4, 2), 2, setup=Setup("adagrad")).memory[0]
    assert memory.fits(496e-9)
    assert not memory.fits(495.9e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt5"], "unknown preset 'gpt5', and no file of that name; one of cruncher, gpt2, "),
        (["x" * 5000], "x" * 100 + " cannot be read: File name too long."),
        (["/nowhere.json"], "unknown preset '/nowhere.json', and no file of that name"),
        (["gpt2", "--optimizer", "adamm"], "Invalid value for '--optimizer': 'adamm' is not one of 'sgd', 'momentum', "),
        (["gpt2", "--option", "momentum=0.9"], "unknown --option key 'momentum'; one of b1, "),
        (["gpt2", "--option", "amsgrad"], "--option amsgrad: KEY=VALUE is needed."),
        (["gpt2", "--option", "amsgrad=maybe"], "adam: amsgrad is true or false; got 'maybe'."),
        (["gpt2", "--option", "b1=2"], "Invalid beta parameter at index 0: 2.0 (adam: 0 <= b1 < 1)"),
        (["gpt2", "--option", "eps=tiny"], "adam: eps is a number; got 'tiny'."),
        (["gpt2", "--option", "accumulator_dtype=float16"], "adam: accumulator_dtype float16 is not supported; float32 or None is needed."),
        (["gpt2", "--set", "n_head=3"], "unknown --set key 'n_head'; one of model, vocab_size, "),
        (["gpt2", "--set", "num_attention_heads=7"], "transformer: num_attention_heads divides hidden_size; got 7 and 768."),
        (["gpt2", "--set", "hidden_size=-1"], "transformer: hidden_size is an integer >= 1; got -1."),
        (["gpt2", "--batch", "0"], "Invalid value for '--batch'"),
        (["gpt2", "--seq", "2000"], "transformer: seq is at most max_position_embeddings, 1024; got 2000."),
        (["palm-540b"], "transformer: seq is needed, since the configuration has no max_position_embeddings."),
        (["gpt2", "--dtype", "int8"], "Invalid value for '--dtype': 'int8' is not one of '"),
        (["gpt2", "--framework", "mxnet"], "Invalid value for '--framework': 'mxnet' is not one of '"),
        (["gpt2", "--recompute", "some"], "Invalid value for '--recompute': 'some' is not one of '"),
        (["gpt2", "--attention", "flash"], "Invalid value for '--attention': 'flash' is not one of '"),
        (["gpt2", "--tensor-parallel", "5"], "transformer: tensor_parallel divides num_attention_heads; got 5 and 12."),
        (["gpt2", "--zero-stage", "4"], "Invalid value for '--zero-stage'"),
        (["gpt2", "--donate"], "setup: donate is for framework jax; torch steps in place."),
        (["gpt2", "--convention", "8nd"], "Invalid value for '--convention': '8nd' is not one of '"),
        (["cruncher", "--convention", "palm"], "cruncher: convention is one of 6nd, executed; got 'palm'."),
        (["cruncher", "--seq", "8"], "cruncher: seq is for a transformer."),
        (["gpt2", "--fits", "0"], "--fits 0: more than 0 GB is needed."),
        (["gpt2", "--plot", "picture.gif"], "--plot picture.gif: a file name that ends in .png, .svg or .pdf is needed."),
        (["gpt2", "--json", "/proc/no/file.json"], "/proc/no/file.json cannot be written"),
    ],
)
def test_bad_arguments_of_cost(monkeypatch, capsys, arguments, message):
    status, out, err = optparity(monkeypatch, capsys, "cost", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"optparity: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad.json cannot be read as JSON: "),
        ("{", "bad.json cannot be read as JSON: "),
        ("[" * 100_000, "bad.json cannot be read as JSON: it is nested too deep."),
        ("[]", "bad.json: an object with the keys of a configuration is needed."),
        ('"gpt2"', "bad.json: an object with the keys of a configuration is needed."),
        ("{}", "transformer: the key 'vocab_size' is needed."),
        ('{"model": "cruncher"}', "cruncher: the key 'dim' is needed."),
    ],
)
def test_broken_configuration_files(monkeypatch, capsys, tmp_path, text, message):
    (tmp_path / "bad.json").write_text(text)
    status, out, err = optparity(monkeypatch, capsys, "cost", tmp_path / "bad.json")
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"bad\.json cannot be read as JSON: 'utf-8' codec"):
        costing.read(str(tmp_path / "bad.json"))


COST = estimate(Cruncher(4, 2), 2)


def test_no_half_picture(monkeypatch, tmp_path):
    """What cannot be drawn leaves the old picture, and nothing beside it."""
    picture = tmp_path / "cost.png"
    picture.write_text("old")

    def half(self, file, **how):
        Path(file).write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", half)
    with pytest.raises(OSError, match=r"^disk full$"):
        costing.plot(COST, "title", picture)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("cost.png", "old")]


def test_a_picture_goes_where_the_link_points(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "cost.png", tmp_path / "elsewhere" / "real.png"
    link.symlink_to(target)
    for _ in range(2):  # the target is made, then replaced
        costing.plot(COST, "title", link)
        assert link.is_symlink()
        assert matplotlib.image.imread(target).shape[1] > 800
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["cost.png", "elsewhere", "real.png"]


def test_a_picture_replaces_files_only(tmp_path):
    pipe = tmp_path / "cost.png"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match=r"it is no regular file"):
        costing.plot(COST, "title", pipe)
    assert pipe.is_fifo()


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_the_command_replaces_files_only(option, tmp_path, monkeypatch, capsys):
    pipe = tmp_path / "cost.png"
    os.mkfifo(pipe)
    status, _, err = optparity(monkeypatch, capsys, "cost", "cruncher", "--batch", 2, option, pipe)
    assert (status, err) == (2, f"optparity: {pipe} cannot be used: it is no regular file.\n")
    assert pipe.is_fifo()
