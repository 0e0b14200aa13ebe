"""Hugging Face's config.json of public models, as published, with the integers that are published for their parameters.

Integers: the metadata of the model's own repository on huggingface.co (`safetensors.total`, or `total_size` of
model.safetensors.index.json over the bytes of its dtype), unless said otherwise; DeepSeek-V3's is that of the main model with the
balancing biases, without the multi-token module and the scales of FP8. Active: the embeddings and the head are in it.
"""

from typing import Any, NamedTuple


class Public(NamedTuple):
    config: dict[str, Any]
    parameters: int
    active: int | None = None  # the parameters that work for a token, where experts are chosen


LLAMA_3_8B = {
    **{"architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000},
    **{"eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336},
    **{"max_position_embeddings": 8192, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32},
    **{"num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 500000.0},
    **{"tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.40.0.dev0", "use_cache": True},
    "vocab_size": 128256,
}
LLAMA_32_1B = {
    **LLAMA_3_8B,
    **{"head_dim": 64, "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": False},
    **{"num_hidden_layers": 16, "tie_word_embeddings": True},
    "rope_scaling": {"factor": 32.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
}
MISTRAL_7B = {
    **{"architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096},
    **{"initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral"},
    **{"num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0},
    **{"sliding_window": 4096, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.34.0.dev0"},
    **{"use_cache": True, "vocab_size": 32000},
}
MIXTRAL_8X7B = {
    **MISTRAL_7B,
    **{"architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "model_type": "mixtral", "num_experts_per_tok": 2},
    **{"num_local_experts": 8, "output_router_logits": False, "rope_theta": 1e6, "router_aux_loss_coef": 0.02, "sliding_window": None},
}
QWEN25_7B = {
    **{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643},
    **{"hidden_act": "silu", "hidden_size": 3584, "initializer_range": 0.02, "intermediate_size": 18944, "max_window_layers": 28},
    **{"max_position_embeddings": 131072, "model_type": "qwen2", "num_attention_heads": 28, "num_hidden_layers": 28},
    **{"num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072},
    **{"tie_word_embeddings": False, "use_cache": True, "use_mrope": False, "use_sliding_window": False, "vocab_size": 152064},
}
QWEN15_MOE = {
    **{"architectures": ["Qwen2MoeForCausalLM"], "attention_dropout": 0.0, "decoder_sparse_step": 1, "hidden_act": "silu"},
    **{"hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 5632, "max_position_embeddings": 8192},
    **{"max_window_layers": 21, "model_type": "qwen2_moe", "moe_intermediate_size": 1408, "norm_topk_prob": False},
    **{"num_attention_heads": 16, "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16},
    **{"output_router_logits": False, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001},
    **{"shared_expert_intermediate_size": 5632, "sliding_window": 32768, "tie_word_embeddings": False, "use_cache": True},
    **{"use_sliding_window": False, "vocab_size": 151936},
}
QWEN3_06B = {
    **{"architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "head_dim": 128, "hidden_act": "silu"},
    **{"hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 40960},
    **{"max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8},
    **{"rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True},
    **{"use_cache": True, "use_sliding_window": False, "vocab_size": 151936},
}
QWEN3_30B = {
    **QWEN3_06B,
    **{"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "decoder_sparse_step": 1, "hidden_size": 2048},
    **{"intermediate_size": 6144, "max_window_layers": 48, "mlp_only_layers": [], "moe_intermediate_size": 768, "norm_topk_prob": True},
    **{"num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4},
    **{"output_router_logits": False, "router_aux_loss_coef": 0.001, "tie_word_embeddings": False},
}
QWEN3_235B = {
    **QWEN3_30B,
    **{"hidden_size": 4096, "intermediate_size": 12288, "max_window_layers": 94, "moe_intermediate_size": 1536},
    **{"num_attention_heads": 64, "num_hidden_layers": 94},
}
GEMMA_2B = {
    **{"architectures": ["GemmaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "head_dim": 256},
    **{"hidden_act": "gelu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 16384, "model_type": "gemma"},
    **{"max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 18, "num_key_value_heads": 1},
    **{"rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 10000.0, "use_cache": True, "vocab_size": 256000},
}
GEMMA2_2B = {
    **GEMMA_2B,
    **{"architectures": ["Gemma2ForCausalLM"], "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid"},
    **{"final_logit_softcapping": 30.0, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"},
    **{"hidden_size": 2304, "intermediate_size": 9216, "model_type": "gemma2", "num_hidden_layers": 26, "num_key_value_heads": 4},
    **{"query_pre_attn_scalar": 256, "sliding_window": 4096},
}
GEMMA3_1B = {
    **GEMMA2_2B,
    **{"architectures": ["Gemma3ForCausalLM"], "attn_logit_softcapping": None, "final_logit_softcapping": None, "hidden_size": 1152},
    **{"intermediate_size": 6912, "max_position_embeddings": 32768, "model_type": "gemma3_text", "num_attention_heads": 4},
    **{"num_key_value_heads": 1, "rope_local_base_freq": 10000, "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262144},
}
GPT2 = {
    **{"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": 50256},
    **{"embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2"},
    **{"n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1},
    **{"summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type": "cls_index"},
    **{"summary_use_proj": True, "task_specific_params": {"text-generation": {"do_sample": True}}, "vocab_size": 50257},
}
GPT_NEOX_20B = {
    **{"architectures": ["GPTNeoXForCausalLM"], "attention_probs_dropout_prob": 0, "bos_token_id": 0, "eos_token_id": 0},
    **{"hidden_act": "gelu_fast", "hidden_dropout_prob": 0, "hidden_size": 6144, "initializer_range": 0.02},
    **{"intermediate_size": 24576, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "gpt_neox"},
    **{"num_attention_heads": 64, "num_hidden_layers": 44, "rotary_emb_base": 10000, "rotary_pct": 0.25},
    **{"tie_word_embeddings": False, "torch_dtype": "float16", "use_cache": True, "vocab_size": 50432},
}
PHI_2 = {
    **{"architectures": ["PhiForCausalLM"], "attention_dropout": 0.0, "embd_pdrop": 0.0, "hidden_act": "gelu_new"},
    **{"hidden_size": 2560, "initializer_range": 0.02, "intermediate_size": 10240, "layer_norm_eps": 1e-05},
    **{"max_position_embeddings": 2048, "model_type": "phi", "num_attention_heads": 32, "num_hidden_layers": 32},
    **{"num_key_value_heads": 32, "partial_rotary_factor": 0.4, "qk_layernorm": False, "resid_pdrop": 0.1},
    **{"rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False, "use_cache": True, "vocab_size": 51200},
}
PHI_3_MINI = {
    **{"architectures": ["Phi3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "embd_pdrop": 0.0},
    **{"hidden_act": "silu", "hidden_size": 3072, "initializer_range": 0.02, "intermediate_size": 8192, "model_type": "phi3"},
    **{"max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32},
    **{"original_max_position_embeddings": 4096, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05, "rope_theta": 10000.0},
    **{"sliding_window": 2047, "tie_word_embeddings": False, "use_cache": True, "vocab_size": 32064},
}
DEEPSEEK_V2_LITE = {
    **{"architectures": ["DeepseekV2ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "aux_loss_alpha": 0.001},
    **{"first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 10944, "kv_lora_rank": 512},
    **{"max_position_embeddings": 163840, "model_type": "deepseek_v2", "moe_intermediate_size": 1408, "moe_layer_freq": 1},
    **{"n_group": 1, "n_routed_experts": 64, "n_shared_experts": 2, "norm_topk_prob": False, "num_attention_heads": 16},
    **{"num_experts_per_tok": 6, "num_hidden_layers": 27, "num_key_value_heads": 16, "pretraining_tp": 1, "q_lora_rank": None},
    **{"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06, "routed_scaling_factor": 1.0, "rope_theta": 10000},
    **{"scoring_func": "softmax", "seq_aux": True, "tie_word_embeddings": False, "topk_group": 1, "topk_method": "greedy"},
    **{"v_head_dim": 128, "vocab_size": 102400},
}
DEEPSEEK_V3 = {
    **DEEPSEEK_V2_LITE,
    **{"architectures": ["DeepseekV3ForCausalLM"], "ep_size": 1, "first_k_dense_replace": 3, "hidden_size": 7168},
    **{"intermediate_size": 18432, "model_type": "deepseek_v3", "moe_intermediate_size": 2048, "n_group": 8, "n_routed_experts": 256},
    **{"n_shared_experts": 1, "norm_topk_prob": True, "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61},
    **{"num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "routed_scaling_factor": 2.5},
    **{"scoring_func": "sigmoid", "topk_group": 4, "topk_method": "noaux_tc", "vocab_size": 129280},
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]},
}

PUBLIC = {
    "Llama 3 8B": Public(LLAMA_3_8B, 8_030_261_248),
    "Llama 3.2 1B": Public(LLAMA_32_1B, 1_235_814_400),
    "Mistral 7B v0.1": Public(MISTRAL_7B, 7_241_732_096),
    "Mixtral 8x7B": Public(MIXTRAL_8X7B, 46_702_792_704, 12_879_925_248),
    "Qwen 2.5 7B": Public(QWEN25_7B, 7_615_616_512),
    "Qwen 1.5 MoE A2.7B": Public(QWEN15_MOE, 14_315_784_192),
    "Qwen 3 0.6B": Public(QWEN3_06B, 596_049_920),
    "Qwen 3 30B A3B": Public(QWEN3_30B, 30_532_122_624, 3_353_032_704),
    "Qwen 3 235B A22B": Public(QWEN3_235B, 235_093_634_560, 22_190_763_520),
    "Gemma 2B": Public(GEMMA_2B, 2_506_172_416),
    "Gemma 2 2B": Public(GEMMA2_2B, 2_614_341_888),
    "Gemma 3 1B": Public(GEMMA3_1B, 999_885_952),
    "GPT-2": Public(GPT2, 124_439_808),
    "GPT-NeoX 20B": Public(GPT_NEOX_20B, 20_554_567_680),
    "Phi 2": Public(PHI_2, 2_779_683_840),
    "Phi 3 mini": Public(PHI_3_MINI, 3_821_079_552),
    "DeepSeek-V2 Lite": Public(DEEPSEEK_V2_LITE, 15_706_484_224),
    "DeepSeek-V3": Public(DEEPSEEK_V3, 671_026_419_200, 37_552_297_472),
}
