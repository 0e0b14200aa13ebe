"""Layers of several kinds (experts, windows, latent attention) through stages, losses, recomputation and what is divided."""

from collections import Counter
from dataclasses import replace
from functools import partial
from math import prod

import pytest
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from optparity.accounting import Setup, Transformer, estimate, measure_torch, torch_flops
from optparity.accounting.stages import OnStage, stages

from ..sampling import EXHAUSTIVE
from .models import assert_is_the_peak, held, language_loss
from .plain import Block, Model
from .test_alternate import MM, SDPA, Living

PLAIN = Transformer(
    70, 12, 4, 2, intermediate_size=20, positions="rotary", norm="rmsnorm", bias=False, hidden_act="swiglu", fused_qkv=False
)
EXPERTS = replace(PLAIN, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=10, num_dense_layers=1)
LATENT = {"kv_lora_rank": 7, "q_lora_rank": 5, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 10}
MODELS = {
    "experts": EXPERTS,
    "shared experts": replace(EXPERTS, shared_expert_intermediate_size=12),
    "shared experts, weighed": replace(EXPERTS, shared_expert_intermediate_size=12, shared_expert_gate=True),
    "relu": replace(EXPERTS, hidden_act="relu"),
    "latent": replace(EXPERTS, **LATENT),
    "latent, one matrix for queries": replace(PLAIN, **LATENT | {"q_lora_rank": None}),
    "four norms": replace(EXPERTS, block_norms=4),
    "four norms, fused": replace(PLAIN, block_norms=4, fused_qkv=True),
    "four norms, relu": replace(PLAIN, block_norms=4, hidden_act="relu"),
    "windows": replace(PLAIN, sliding_window=3, full_attention_every=2, fused_qkv=True),
    "parallel": replace(PLAIN, parallel_block=True),
}
IN_MAKE_TEST = ("shared experts, weighed", "latent, one matrix for queries", "four norms, relu", "windows")


class Alternating(Block):
    """As torchtitan checkpoints it: neither the router nor the experts' products are kept or counted."""

    inside = 0  # of a router or an expert

    def forward(self, x, positions):
        contexts = partial(create_selective_checkpoint_contexts, partial(self.policy, Counter()))
        return checkpoint(super().forward, x, positions, use_reentrant=False, context_fn=contexts)

    def policy(self, counted, context, func, *_, **__):
        if func == MM and not self.inside:
            counted[context.is_recompute] += 1
        kept = func == SDPA or (func == MM and not self.inside and counted[context.is_recompute] % 2)
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def watch(block):
    """Tell the block when it is inside its router or an expert."""

    def step(by, *_):
        block.inside += by

    for name, module in block.named_modules():
        if name == "mlp.router" or (name.startswith("mlp.experts.") and name.count(".") == 2):
            module.register_forward_pre_hook(partial(step, 1))
            module.register_forward_hook(partial(step, -1), always_call=True)


def alternating(config, batch, seq):
    model = Model(config, fused=True)
    for block in model.blocks:
        block.__class__ = Alternating
        watch(block)
    return language_loss(model, batch, seq)


def alive(config, batch, seq):
    loss = alternating(config, batch, seq)
    with Living() as living:
        graph = loss()
        found = living.bytes
    del graph
    return found


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in IN_MAKE_TEST else EXHAUSTIVE) for name in MODELS])
def test_every_second_product(name):
    """Bytes of one block more, and FLOPs of all."""
    config, data = MODELS[name], (2, 5)
    one_more = alive(replace(config, num_hidden_layers=5), *data) - alive(config, *data)
    assert one_more == sum(config.block_activations(*data, recompute="alternate", attention="sdpa").values())
    again = config.flops(*data, recompute="alternate", attention="sdpa") - config.flops(*data, attention="sdpa")
    products = config._products(*data)
    matrices = 3 * (config.forward_flops(*data) - products["scores"] - products["reduce"])  # the CPU's counter has none of the kernel's
    assert torch_flops(alternating(config, *data)) == matrices + again


SETUPS = [
    *(Setup(recompute=recompute) for recompute in ("none", "selective", "full")),
    Setup(recompute="alternate", attention="sdpa", framework="jax"),
    *(Setup(mixed_precision=True, loss=loss, loss_chunk=8, attention="sdpa", recompute="alternate") for loss in ("float32", "chunked")),
    Setup(mixed_precision=True, zero_stage=3, data_parallel=4, recompute="full"),
    Setup(pipeline_parallel=2, microbatches=4, loss="float32", zero_stage=2, data_parallel=2),
    Setup(pipeline_parallel=2, microbatches=4, pipeline_chunks=2, tensor_parallel=2, sequence_parallel=True),
    Setup(pipeline_parallel=3, microbatches=4, schedule="gpipe", recompute="selective"),
    Setup(context_parallel=2, attention="sdpa", zero_stage=3, data_parallel=2, loss="chunked"),
]


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("name", ["windows", "four norms"])
def test_kinds_that_differ_in_name_only(name, setup):
    """Windows as long as the sequence are none."""
    one = replace(MODELS[name], sliding_window=None, full_attention_every=None, num_dense_layers=0)
    two = replace(one, sliding_window=64, full_attention_every=3)
    assert len(set(two.layers)) == 2 > len(set(one.layers))
    assert estimate(two, 4, 8, setup).memory == estimate(one, 4, 8, setup).memory


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in ("experts", "windows") else EXHAUSTIVE) for name in MODELS])
def test_each_goes_through_each(name, setup):
    """Or is refused by name; and with layers of the largest kind only it needs no less."""
    config = MODELS[name]
    if name == "windows" and setup.context_parallel > 1:
        with pytest.raises(
            ValueError, match=r"^transformer with context_parallel: sliding_window is at least the sequence; got 3 and 8\.$"
        ):
            estimate(config, 4, 8, setup)
        return
    one = estimate(config, 4, 8, setup).memory[1]
    assert all(count > 0 for count in one.totals.values())
    if config.num_experts:
        assert one.total <= estimate(replace(config, num_dense_layers=0), 4, 8, setup).memory[1].total


@pytest.mark.parametrize("layers", range(6, 17))
@pytest.mark.parametrize(("p", "v"), [(1, 1), (2, 1), (3, 1), (6, 1), (2, 3), (3, 2)])
def test_stages_have_all_layers(layers, p, v):
    config = replace(EXPERTS, num_hidden_layers=layers)
    found = stages(config.layers, Setup(pipeline_parallel=p, pipeline_chunks=v, microbatches=6))
    assert len(found) == p
    chunks = [chunk for stage in found for chunk in stage.chunks]
    assert {i for chunk in chunks for i in chunk} == set(range(layers))
    assert {len(chunk) for chunk in chunks} == {-(-layers // (p * v))}


def test_the_fullest_stage_may_be_between():
    """Of 6 layers the first 2 are dense: the second of three stages has experts, as the last, and more microbatches than it."""
    config = replace(EXPERTS, num_hidden_layers=6, num_dense_layers=2, vocab_size=2)
    found = estimate(config, 8, 8, Setup(pipeline_parallel=3, microbatches=8, recompute="none")).memory[1]
    block = sum(prod(shape) for name, shape in config.weights().items() if name.startswith("h.3."))
    assert found.parameters == {"float32": 4 * 2 * block}
    kept = config.block_activations(1, 8)
    assert found.activations == {dtype: 2 * 2 * count for dtype, count in kept.items()}


class CappedInChunks(torch.autograd.Function):
    """Head, tanh and cross-entropy for some rows at a time, with their gradients."""

    @staticmethod
    def forward(ctx, x, targets, rows, *leaves):
        of_x, of_leaves, total = torch.empty_like(x), [torch.zeros_like(leaf) for leaf in leaves], 0.0
        for start in range(0, len(x), rows):
            some = slice(start, start + rows)
            own = torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)  # gone before the backward pass
            with torch.enable_grad(), own:
                part, *own_leaves = (of.detach().requires_grad_() for of in (x[some], *leaves))
                logits = torch.tanh(F.linear(part, *own_leaves)) * 30
                loss = F.cross_entropy(logits.float(), targets[some], reduction="sum") / len(x)
            of_x[some], *others = torch.autograd.grad(loss, (part, *own_leaves))
            for sum_of, other in zip(of_leaves, others, strict=True):
                sum_of += other
            total = total + loss.detach()
            del logits, loss, others, other, part, own_leaves
        ctx.save_for_backward(of_x, *of_leaves)
        return total

    @staticmethod
    def backward(ctx, *of_loss):
        of_x, *of_leaves = (of * of_loss[0] for of in ctx.saved_tensors)
        return of_x, None, None, *of_leaves


def test_chunks_that_differ_are_in_flight_as_they_keep_most():
    """On the first of two stages, chunks of layer 0, dense, and layer 2: of 5 passes at most 4 are of experts."""
    setup = Setup(pipeline_parallel=2, pipeline_chunks=2, microbatches=4)
    stage = stages(EXPERTS.layers, setup)[0]
    assert (stage.passes, stage.chunks) == (5, (range(1), range(2, 3)))
    found = OnStage(replace(EXPERTS, positions="learned", max_position_embeddings=8), stage, 1, 8, "none", {}).activations("executed")
    dense, routed = (EXPERTS.block_activations(1, 8, layer=EXPERTS.layers[i])["float32"] for i in (0, 2))
    assert found["float32"] == dense + 4 * routed


@pytest.mark.parametrize("kind", ["as-is", "float32", "chunked"])
@pytest.mark.parametrize("bias", [False, True])
def test_capped_logits_and_a_biased_head(kind, bias):
    """The tanh of the logits is kept beside the loss's own; in chunks it is gone with the chunk."""
    config = Transformer(1500, 24, 1, 2, max_position_embeddings=40, logit_softcap=True, head_bias=bias)
    batch, seq, rows = 2, 40, 16
    with torch.device("meta"):
        model = Model(config).to(torch.bfloat16)
        tokens, targets = (torch.zeros(batch, seq, dtype=torch.int64) for _ in range(2))
    keep = []

    def loss():
        keep.clear()
        if kind == "chunked":
            with torch.device("meta"):
                x = model.norm(model.blocks[0](model.wte(tokens) + model.wpe(torch.arange(seq)), ()))
            return CappedInChunks.apply(x.view(-1, 24), targets.view(-1), rows, *model.head.parameters())
        logits = model(tokens)
        if kind == "float32":
            keep.append(logits)
            logits = logits.float()
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    executed = estimate(config, batch, seq, setup=Setup(dtype="bfloat16", loss=kind, loss_chunk=rows)).memory[1]
    assert held(measure_torch(model, loss)) == held(executed)
    keep.clear()
    assert_is_the_peak(model, loss, 2 * 8 * batch * seq, executed)
