"""Experts over several devices, and what of them goes together."""

from math import prod

import pytest

from optparity.accounting import Setup, estimate, from_dict

from .models import read

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 8}
ROUTED = {**SIZES, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "num_dense_layers": 1}
MODEL = read(ROUTED)
EXPERTS = 2 * 8 * (2 * 16 * 12 + 12 + 16)  # two layers, two matrices with biases


def test_expert_parallelism_divides_the_experts():
    assert MODEL.parameters_by_part()["experts"] == EXPERTS
    assert MODEL.active_parameters == MODEL.parameters - EXPERTS * 6 // 8
    for e in (1, 2, 4, 8):
        here = sum(map(prod, MODEL.weights(expert_parallel=e).values()))
        assert here == MODEL.parameters - EXPERTS + EXPERTS // e
        textbook, executed = estimate(MODEL, 2, setup=Setup(data_parallel=8, expert_parallel=e)).memory
        assert textbook.totals["parameters"] == textbook.totals["gradients"] == executed.totals["gradients"] == 4 * here
        assert textbook.totals["optimizer_state"] == 8 * here


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_zero_divides_over_all_devices_is_the_same_whoever_has_which_experts(stage):
    """Dense parameters over N devices, each device's experts over the N / e that have the same."""
    totals = [estimate(MODEL, 2, setup=Setup(data_parallel=8, zero_stage=stage, expert_parallel=e)).memory[0].totals for e in (1, 4)]
    names = ("optimizer_state", "gradients", "parameters")
    assert all(totals[0][name] == totals[1][name] for name in names[:stage])
    assert all(totals[0][name] > totals[1][name] for name in names[stage:])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (SIZES | {"num_experts_per_tok": 2}, r"^transformer: num_experts_per_tok is for a model with num_experts; got 2 and none\.$"),
        (SIZES | {"router_bias": True}, r"^transformer: router_bias is for a model with num_experts; got True and none\.$"),
        (SIZES | {"num_experts": 4}, r"^transformer with experts: num_experts_per_tok is an integer >= 1; got None\.$"),
        (ROUTED | {"num_experts_per_tok": 9}, r"^transformer: num_experts_per_tok is at most num_experts, 8; got 9\.$"),
        (ROUTED | {"num_dense_layers": 4}, r"^transformer: num_dense_layers is at most num_hidden_layers, 3; got 4\.$"),
        (ROUTED | {"capacity_factor": 0}, r"^transformer: capacity_factor is a number > 0; got 0\.$"),
        (ROUTED | {"capacity_factor": "1"}, r"^transformer: capacity_factor is a number > 0; got '1'\.$"),
        (ROUTED | {"shared_expert_gate": True}, r"^transformer: shared_expert_gate is for a model with shared_expert_intermediate_size; "),
        (
            ROUTED | {"parallel_block": True},
            r"^transformer: experts and a parallel_block are not known together; got num_experts 8 and True",
        ),
        (SIZES | {"q_lora_rank": 4}, r"^transformer: q_lora_rank is for a model with kv_lora_rank; got 4 and none\.$"),
        (SIZES | {"kv_lora_rank": 4}, r"^transformer with latent attention: qk_nope_head_dim is an integer >= 1; got None\.$"),
        (SIZES | {"full_attention_every": 2}, r"^transformer: full_attention_every is for a sliding_window; got 2 and none\.$"),
        (SIZES | {"block_norms": 3}, r"^transformer: block_norms is one of 2, 4; got 3\.$"),
        (SIZES | {"rotary_dim": 4}, r"^transformer with rotary_dim: positions is one of rotary; got 'learned'\.$"),
        (SIZES | {"rotary_dim": 6, "positions": "rotary"}, r"^transformer: rotary_dim is at most head_dim, 4; got 6\.$"),
        (SIZES | {"qkv_bias": 1}, r"^transformer: qkv_bias is true or false; got 1\.$"),
    ],
)
def test_what_goes_together(fields, message):
    with pytest.raises(ValueError, match=message):
        from_dict(fields)


def test_devices_that_share_experts():
    with pytest.raises(ValueError, match=r"^setup: expert_parallel divides data_parallel × context_parallel; got 3 and 8\.$"):
        Setup(data_parallel=8, expert_parallel=3)
    with pytest.raises(ValueError, match=r"^transformer: expert_parallel divides num_experts; got 16 and 8\.$"):
        estimate(MODEL, 1, setup=Setup(data_parallel=16, expert_parallel=16))
    with pytest.raises(ValueError, match=r"^transformer: expert_parallel is for a model with num_experts; got 2 and none\.$"):
        estimate(from_dict(SIZES), 1, setup=Setup(data_parallel=2, expert_parallel=2))
