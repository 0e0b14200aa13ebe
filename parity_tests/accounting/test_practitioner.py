"""config.json files of eleven families, against modules by another hand: autograd's bytes, torch's FLOPs, and the measured peak."""

import random
from collections import Counter
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from optparity.accounting import Setup, estimate, from_dict

from ..sampling import EXHAUSTIVE
from .models import assert_is_enough
from .practitioner import build

FAMILIES = ["gpt2", "llama", "mistral", "phi3", "qwen2", "qwen3", "mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3"]
IN_MAKE_TEST, ALL = [*range(29), 116], 220  # 116: an expert of few rows, while the others' are there


def configuration(seed) -> tuple[dict[str, Any], int, int, bool]:
    """A config.json, a batch, a sequence, and whether attention is the fused kernel; each family in turn."""
    draw = random.Random(seed)
    family, fused = FAMILIES[seed % len(FAMILIES)], draw.random() < 0.4
    heads, dim, seq, batch = draw.choice([2, 4, 6]), draw.choice([4, 8]), draw.choice([5, 8, 12, 16]), draw.choice([1, 1, 2, 3])
    config: dict[str, Any] = {"model_type": family, "vocab_size": draw.randint(11, 60), "tie_word_embeddings": draw.random() < 0.4}
    if family == "gpt2":
        config |= {"n_embd": heads * dim, "n_layer": draw.randint(1, 3), "n_head": heads, "n_positions": seq + draw.choice([0, 3])}
        return config | {"n_inner": draw.choice([None, 24, 40])}, batch, seq, fused
    config |= {"hidden_size": heads * dim, "num_hidden_layers": draw.randint(1, 3), "num_attention_heads": heads, "hidden_act": "silu"}
    config |= {"num_key_value_heads": draw.choice([k for k in (1, 2, 3, heads) if heads % k == 0]), "max_position_embeddings": 64}
    config |= {"intermediate_size": draw.choice([12, 24, 40])}
    expert = {
        "num_experts_per_tok": draw.choice([1, 1, 2]),
        "moe_intermediate_size": draw.choice([6, 10]),
        "norm_topk_prob": draw.random() < 0.5,
    }
    count = draw.choice([2, 4, 5])
    if family in ("mistral", "phi3"):
        config["sliding_window"] = draw.choice([None, 1, 3, 4, 8, 100])
    if family in ("qwen3", "qwen3_moe"):
        config["head_dim"] = draw.choice([4, 8])
    if family == "mixtral":
        config |= {"num_local_experts": count, "num_experts_per_tok": expert["num_experts_per_tok"]}
    if family in ("qwen2_moe", "qwen3_moe"):
        config |= {**expert, "num_experts": count, "decoder_sparse_step": 1}
    if family == "qwen2_moe":
        config["shared_expert_intermediate_size"] = draw.choice([6, 14])
    if family.startswith("deepseek"):
        nope, rope = draw.choice([3, 4]), draw.choice([2, 4])
        value = nope + rope if fused else draw.choice([3, 5])  # with others torch has no fused kernel on CPU
        config |= {"num_key_value_heads": heads, "q_lora_rank": draw.choice([None, 6]), "kv_lora_rank": draw.choice([5, 8])}
        config |= {"qk_nope_head_dim": nope, "qk_rope_head_dim": rope, "v_head_dim": value, "n_group": 1, "topk_group": 1}
        config |= {
            **expert,
            "n_routed_experts": count,
            "n_shared_experts": draw.choice([1, 2]),
            "first_k_dense_replace": draw.choice([0, 1]),
        }
        config["routed_scaling_factor"] = 1.0 if family == "deepseek_v2" else 2.5
    return config, batch, seq, fused


def grouped(q, k, v):
    """Shapes as if keys and values were laid out for each query head."""
    return q, (k[0], q[1], *k[2:]), (v[0], q[1], *v[2:])


CPU_KERNEL = {  # torch's counter does not know the fused kernel on CPU (pytorch#195460)
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(*grouped(q, k, v)),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(
        g, *grouped(q, k, v)
    ),
}


def kept(model, loss):
    """Bytes by dtype of the storages that autograd keeps, parameters excluded."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            found.setdefault(storage.data_ptr(), (tensor, str(tensor.dtype).removeprefix("torch."), storage.nbytes()))  # held: no reuse
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        graph = loss()
    total = Counter()
    for _, dtype, count in found.values():
        total[dtype] += count
    del graph
    return dict(total)


def executed_flops(loss):
    with FlopCounterMode(display=False, custom_mapping=CPU_KERNEL) as counter:
        loss().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=() if seed in IN_MAKE_TEST else EXHAUSTIVE) for seed in range(ALL)])
def test_a_config_json_to_the_byte_and_the_flop(seed):
    config, batch, seq, fused = configuration(seed)
    torch.manual_seed(seed)
    model = build(config, fused)
    tokens, targets = (torch.randint(config["vocab_size"], (batch, seq)) for _ in range(2))
    cost = estimate(from_dict(config), batch, seq, Setup("sgd", attention="sdpa" if fused else "written-out"))
    assert cost.parameters == sum(p.numel() for p in model.parameters())

    def loss():
        return F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())

    executed = cost.memory[1]
    assert kept(model, loss) == {dtype: count for dtype, count in executed.activations.items() if count}
    assert executed_flops(loss) == cost.flops["executed"]
    assert_is_enough(model, loss, tokens.nbytes + targets.nbytes, executed)
