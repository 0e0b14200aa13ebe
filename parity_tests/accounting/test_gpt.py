"""A GPT against autograd, to the byte and the FLOP."""

import math
from math import prod

import jax
import jax.numpy as jnp
import pytest
import torch
from torch.nn import functional as F
from torch.utils import flop_counter
from torch.utils.checkpoint import checkpoint

from optparity.accounting import (
    Setup,
    estimate,
    jax_flops,
    measure_torch,
    torch_flops,
    torch_peak,
)
from optparity.models import in_torch

from .models import GPTS, assert_is_the_peak, gpt_in_jax, held, language_loss, on_meta, peaks, transformer


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
    executed = estimate(transformer(*sizes), *data, setup=Setup(dtype="bfloat16")).memory[1]
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
    executed = estimate(config, *data, setup=Setup(recompute=recompute)).memory[1]
    assert measure_torch(model, loss).activations == executed.activations
    assert torch_flops(loss) == config.flops(*data, recompute=recompute)
    in_jax = estimate(config, *data, setup=Setup(recompute=recompute, framework="jax", donate=True)).memory[1]
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
    counted = jax_flops(jax.grad(loss), params, tokens, tokens, compiled=False)
    assert counted is not None
    assert executed < counted < 1.01 * executed
