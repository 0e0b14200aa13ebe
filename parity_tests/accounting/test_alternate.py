"""Recomputation of every second product against torch's selective checkpointing, to the byte and the FLOP."""

import weakref
from collections import Counter
from functools import partial

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from optparity.accounting import Setup, Transformer, torch_flops

from .test_llama import LLAMAS, Llama, LlamaBlock, language_loss, llama

MM, SDPA = torch.ops.aten.mm.default, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


class Living(TorchDispatchMode):
    """Bytes of the storages that operations made and that are still there."""

    def __init__(self):
        super().__init__()
        self.made = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in given:
                self.made.add(leaf.untyped_storage())
        return out

    @property
    def bytes(self):
        return sum(storage.nbytes() for storage in self.made)


class FusedBlock(LlamaBlock):
    """The block of test_llama.py with the fused attention, checkpointed as torchtitan does it."""

    def attention(self, z, cos, sin):
        batch, seq, _ = z.shape
        q, k, v = (of(z).view(batch, seq, -1, self.head_dim).transpose(1, 2) for of in (self.q, self.k, self.v))
        half = self.head_dim // 2
        q, k = (t * cos + torch.cat([-t[..., half:], t[..., :half]], -1) * sin for t in (q, k))
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, 1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(batch, seq, -1))

    def forward(self, x, cos, sin):
        return checkpoint(super().forward, x, cos, sin, use_reentrant=False, context_fn=partial(_contexts, Counter()))


def _contexts(counted):
    def policy(context, func, *_, **__):
        counted[func, context.is_recompute] += 1
        kept = func == SDPA or (func == MM and counted[func, context.is_recompute] % 2)
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


def _alive_after_forward(sizes, data):
    model = Llama(*sizes)
    for block in model.h:
        block.__class__ = FusedBlock
    loss = language_loss(model, *data)
    with Living() as living:
        graph = loss()
        found = living.bytes
    del graph
    return found, model, loss


@pytest.mark.parametrize(("sizes", "data"), LLAMAS)
def test_every_second_product(sizes, data):
    """Of one block more."""
    deeper = (*sizes[:2], sizes[2] + 1, *sizes[3:])
    config = llama(*sizes)
    one_more = _alive_after_forward(deeper, data)[0] - _alive_after_forward(sizes, data)[0]
    assert one_more == sum(config.block_activations(*data, recompute="alternate", attention="sdpa").values())


@pytest.mark.parametrize(("sizes", "data"), LLAMAS)
def test_flops_of_every_second_product(sizes, data):
    """The CPU's counter has none of the fused kernel: matrices only."""
    _, _, loss = _alive_after_forward(sizes, data)
    config = llama(*sizes)
    again = config.flops(*data, recompute="alternate", attention="sdpa") - config.flops(*data, attention="sdpa")
    block = config.block_flops(*data)
    matrices = 3 * (config.forward_flops(*data) - sizes[2] * (block["scores"] + block["reduce"]))
    assert torch_flops(loss) == matrices + again


def test_the_last_products_result_is_not_needed():
    """Of queries, keys, values, projection, up and down: keys and the projection again, and not down, whose turn it were."""
    config = Transformer(50, 16, 1, 4, max_position_embeddings=8, fused_qkv=False)
    again = config.flops(3, 8, recompute="alternate", attention="sdpa") - config.flops(3, 8, attention="sdpa")
    assert again == 2 * (2 * 3 * 8 * 16 * 16)


def test_it_is_for_the_fused_kernel():
    with pytest.raises(
        ValueError, match=r"^setup with recompute alternate: attention is sdpa and tensor_parallel is 1; got 'written-out' and 1\.$"
    ):
        Setup(recompute="alternate")
