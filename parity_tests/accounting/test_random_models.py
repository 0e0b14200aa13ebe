"""Random configurations of all that a `Transformer` may be, against autograd's bytes, torch's FLOPs, and the measured peak."""

import random

import pytest
import torch

from optparity.accounting import Setup, Transformer, estimate, measure_torch, torch_flops

from ..sampling import EXHAUSTIVE
from .models import assert_is_enough, language_loss
from .plain import Model

# 12: four norms; 43 and 56: the fused kernel with a window; 126: experts whose gradients are the peak
IN_MAKE_TEST, ALL = [*range(6), 12, 43, 56, 126], 200


def configuration(seed):
    """A configuration, a batch and a sequence, and how attention is written: each kind of model, and each corner (one sequence, one token,
    one key-value head, one expert for each token) often enough.
    """
    draw = random.Random(seed)
    groups, shared, dim = draw.choice([1, 1, 2, 3]), draw.choice([1, 2, 4]), 2 * draw.randint(1, 5)
    heads, gated = groups * shared, draw.random() < 0.6
    seq = draw.choice([1, 2, 5, 8, 13])
    fields: dict = {
        **{"vocab_size": draw.randint(10, 70), "num_hidden_layers": draw.randint(1, 3), "num_attention_heads": heads},
        **{"intermediate_size": draw.randint(3, 40), "max_position_embeddings": 16, "tie_word_embeddings": draw.random() < 0.5},
        **{"hidden_act": draw.choice(["swiglu", "geglu"] if gated else ["gelu", "relu"]), "bias": draw.random() < 0.4},
        **{"positions": draw.choice(["learned", "rotary", "rotary"]), "norm": draw.choice(["layernorm", "rmsnorm"])},
        **{"hidden_size": draw.randint(2, 30), "vocab_multiple": draw.choice([1, 1, 8]), "head_bias": draw.random() < 0.2},
    }
    latent = draw.random() < 0.25
    if latent:
        fields |= {"positions": "rotary", "kv_lora_rank": draw.randint(2, 12), "q_lora_rank": draw.choice([None, draw.randint(2, 12)])}
        fields |= {"qk_nope_head_dim": draw.randint(1, 9), "qk_rope_head_dim": 2 * draw.randint(1, 3), "v_head_dim": draw.randint(1, 9)}
    else:
        fields |= {"num_key_value_heads": groups, "head_dim": dim, "fused_qkv": draw.random() < 0.6, "qk_norm": draw.random() < 0.3}
        if fields["positions"] == "rotary" and dim > 2 and draw.random() < 0.3:
            fields["rotary_dim"] = 2 * draw.randint(1, dim // 2)
    if draw.random() < 0.4:
        fields |= {"sliding_window": draw.randint(1, 10), "full_attention_every": draw.choice([None, 2, 3])}
    fused = not latent and draw.random() < 0.4
    fields["repeat_kv"] = not latent and shared > 1 and (fused or draw.random() < 0.4)  # the CPU's kernel repeats them by itself
    if not fused:
        fields["attention_softcap"] = draw.random() < 0.15
    fields["logit_softcap"] = draw.random() < 0.15
    if draw.random() < 0.5:
        experts = draw.randint(1, 6)
        fields |= {"num_experts": experts, "num_experts_per_tok": draw.choice([1, draw.randint(1, experts)])}
        fields |= {"moe_intermediate_size": draw.choice([None, draw.randint(2, 20)]), "norm_topk_prob": draw.random() < 0.5}
        fields |= {"num_dense_layers": draw.randint(0, 1), "router_bias": draw.random() < 0.3}
        fields |= {"capacity_factor": draw.choice([None, None, 0.7, 1, 1.25])}
        if draw.random() < 0.4:
            fields |= {"shared_expert_intermediate_size": draw.randint(2, 20), "shared_expert_gate": draw.random() < 0.5}
        fields["block_norms"] = draw.choice([None, None, 4])
    else:
        fields["parallel_block"] = not latent and draw.random() < 0.3
        fields["block_norms"] = draw.choice([None, 2] if fields["parallel_block"] else [None, None, 4])
    return Transformer(**fields), draw.choice([1, 1, 2, 4]), seq, "sdpa" if fused else "written-out"


SEEDS = [pytest.param(seed, marks=() if seed in IN_MAKE_TEST else EXHAUSTIVE) for seed in range(ALL)]


@pytest.mark.parametrize("seed", SEEDS)
def test_to_the_byte_and_the_flop_and_never_below_the_peak(seed):
    config, batch, seq, attention = configuration(seed)
    torch.manual_seed(seed)
    model = Model(config, fused=attention == "sdpa")
    loss = language_loss(model, batch, seq)
    shapes = sorted(tuple(sorted(shape)) for shape in config.weights().values())
    assert sorted(tuple(sorted(p.shape)) for p in model.parameters()) == shapes
    assert measure_torch(model, loss, "sgd").activations == config.activations(batch, seq, attention=attention)
    if attention == "written-out":  # the CPU's fused kernel counts no FLOPs (pytorch#195460)
        assert torch_flops(loss) == config.flops(batch, seq)
    assert_is_enough(model, loss, 2 * 8 * batch * seq, estimate(config, batch, seq, Setup("sgd", attention=attention)).memory[1])
