"""Hugging Face's config.json, by each family's own names.

A key is read, or has no part in the count (`HARMLESS`), or changes it in a way that is not counted and is refused where it is not off
(`ONLY`), or is counted as if it were off and said so (`LEFT_OUT`), or is unknown and said so.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from . import checks
from .transformer import Transformer


class Reading(NamedTuple):
    """A configuration's fields, and what of the file is not in them.

    Attributes:
        unknown: keys that are not known.
        left_out: keys, with their values, that would change the count and are not counted.
    """

    fields: dict[str, Any]
    unknown: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


SIZES = {
    **{"vocab_size": "vocab_size", "hidden_size": "hidden_size", "num_hidden_layers": "num_hidden_layers"},
    **{"num_attention_heads": "num_attention_heads", "num_key_value_heads": "num_key_value_heads", "head_dim": "head_dim"},
    **{"intermediate_size": "intermediate_size", "max_position_embeddings": "max_position_embeddings"},
    "tie_word_embeddings": "tie_word_embeddings",
}
GPT2 = {
    **{"vocab_size": "vocab_size", "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads"},
    **{"n_inner": "intermediate_size", "n_positions": "max_position_embeddings", "tie_word_embeddings": "tie_word_embeddings"},
}
ROUTED = {"num_experts_per_tok": "num_experts_per_tok", "moe_intermediate_size": "moe_intermediate_size"}
LATENT = {name: name for name in ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")}

LLAMA = {
    **{"hidden_act": "swiglu", "positions": "rotary", "norm": "rmsnorm", "bias": False},
    **{"tie_word_embeddings": False, "fused_qkv": False},
}
GEMMA = LLAMA | {"hidden_act": "geglu", "tie_word_embeddings": True}

HARMLESS = {  # names, single tokens, scales, and settings of training and generation
    *("architectures", "model_type", "auto_map", "torch_dtype", "dtype", "transformers_version", "_name_or_path", "name_or_path"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "cls_token_id", "decoder_start_token_id"),
    *("use_cache", "cache_implementation", "initializer_range", "return_dict", "output_attentions", "output_hidden_states"),
    *("id2label", "label2id", "num_labels", "pretraining_tp", "attn_implementation", "_attn_implementation", "classifier_dropout"),
    *("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rope_theta", "rope_scaling", "rope_parameters", "is_decoder"),
    *("rope_local_base_freq", "rotary_emb_base", "original_max_position_embeddings", "rope_interleave", "query_pre_attn_scalar"),
    *("n_ctx", "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj"),
    *("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "gradient_checkpointing"),
    *("task_specific_params", "router_aux_loss_coef", "router_jitter_noise", "output_router_logits", "aux_loss_alpha", "seq_aux"),
    *("routed_scaling_factor", "n_group", "topk_group", "topk_method", "scoring_func", "ep_size", "use_mrope"),
}
LEFT_OUT = {  # key -> the values with which it changes nothing
    **dict.fromkeys(("attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "hidden_dropout"), (0, None)),
    **dict.fromkeys(("attention_probs_dropout_prob", "hidden_dropout_prob"), (0, None)),
    **{"num_nextn_predict_layers": (0, None), "quantization_config": (None,)},
}
ONLY = {  # key -> the values that are known; with others the count is another
    **dict.fromkeys(("is_encoder_decoder", "add_cross_attention", "qk_layernorm", "use_qk_norm"), (False, None)),
    **dict.fromkeys(("vision_config", "text_config", "audio_config"), (None,)),
    **{"moe_layer_freq": (1,), "decoder_sparse_step": (1,), "use_bidirectional_attention": (False, None)},
}


Take = Callable[..., Any]  # the value of a key, or a default where it is missing or null


def _refused(key: str, rule: str, got: Any) -> ValueError:
    return ValueError(f"configuration: {key} is known as {rule} only, and changes the count; got {_short(got)}.")


def _llama(found: dict[str, Any], take: Take) -> None:
    found["qkv_bias"] = found["proj_bias"] = take("attention_bias", False)
    found["mlp_bias"] = take("mlp_bias", False)


def _windowed(found: dict[str, Any], take: Take) -> None:
    found["sliding_window"] = take("sliding_window")


def _qwen2(found: dict[str, Any], take: Take) -> None:
    found["qkv_bias"] = take("qkv_bias", True)
    _qwen_window(found, take)


def _qwen3(found: dict[str, Any], take: Take) -> None:
    found["qkv_bias"] = found["proj_bias"] = take("attention_bias", False)
    found["qk_norm"] = True
    _qwen_window(found, take)


def _qwen_window(found: dict[str, Any], take: Take) -> None:
    """With `use_sliding_window` the layers from max_window_layers on have the window: known where these are all of them or none."""
    window, first = take("sliding_window"), take("max_window_layers", 0)
    if take("use_sliding_window", False):
        if 0 < first < found["num_hidden_layers"]:
            raise _refused("max_window_layers", "0 or num_hidden_layers with use_sliding_window", first)
        found["sliding_window"] = window if first == 0 else None


def _qwen2_moe(found: dict[str, Any], take: Take) -> None:
    found["qkv_bias"] = take("qkv_bias", True)
    take("sliding_window")
    if take("use_sliding_window", False):
        raise _refused("use_sliding_window", "false for qwen2_moe", True)
    found["shared_expert_intermediate_size"] = take("shared_expert_intermediate_size")
    found["shared_expert_gate"] = True
    _qwen_experts(found, take)


def _qwen3_moe(found: dict[str, Any], take: Take) -> None:
    found["qkv_bias"] = found["proj_bias"] = take("attention_bias", False)
    found["qk_norm"] = True
    window = take("sliding_window")
    found["sliding_window"] = window if take("use_sliding_window", False) else None
    _qwen_experts(found, take)


def _qwen_experts(found: dict[str, Any], take: Take) -> None:
    found["num_experts"] = take("num_experts") or take("num_local_experts")
    found["norm_topk_prob"] = take("norm_topk_prob", False)
    take("max_window_layers")  # of no use without the window
    dense = take("mlp_only_layers") or []
    if not isinstance(dense, list) or dense != list(range(len(dense))):
        raise _refused("mlp_only_layers", "the first layers", dense)
    found["num_dense_layers"] = len(dense)


def _mixtral(found: dict[str, Any], take: Take) -> None:
    _windowed(found, take)
    found["num_experts"] = take("num_local_experts")


def _gemma(found: dict[str, Any], take: Take) -> None:
    found["qkv_bias"] = found["proj_bias"] = take("attention_bias", False)


def _gemma2(found: dict[str, Any], take: Take) -> None:
    _gemma(found, take)
    found |= {"block_norms": 4, "sliding_window": take("sliding_window"), "full_attention_every": 2}
    found["attention_softcap"] = take("attn_logit_softcapping") is not None
    found["logit_softcap"] = take("final_logit_softcapping") is not None


def _gemma3(found: dict[str, Any], take: Take) -> None:
    _gemma2(found, take)
    found |= {"qk_norm": True, "full_attention_every": take("sliding_window_pattern", 6)}


def _gpt2(found: dict[str, Any], take: Take) -> None:
    del found, take


def _gpt_neox(found: dict[str, Any], take: Take) -> None:
    found |= {"parallel_block": take("use_parallel_residual", True), "block_norms": 2}
    found["qkv_bias"] = found["proj_bias"] = take("attention_bias", True)
    _turned(found, take, "rotary_pct", 0.25)


def _phi(found: dict[str, Any], take: Take) -> None:
    _turned(found, take, "partial_rotary_factor", 0.5)


def _phi3(found: dict[str, Any], take: Take) -> None:
    _windowed(found, take)
    _turned(found, take, "partial_rotary_factor", 1.0)
    if take("attention_bias", False):
        raise _refused("attention_bias", "false for phi3", True)


def _turned(found: dict[str, Any], take: Take, key: str, default: float) -> None:
    """The part of a head that rotary positions turn."""
    parameters = take("rope_parameters")
    part = take(key) or (parameters.get("partial_rotary_factor") if isinstance(parameters, dict) else None) or default
    if isinstance(part, bool) or not isinstance(part, int | float) or not 0 < part <= 1:
        raise _refused(key, "more than 0 and at most 1", part)
    head = found.get("head_dim") or found["hidden_size"] // found["num_attention_heads"]
    found["rotary_dim"] = max(int(part * head), 1)


def _deepseek_v2(found: dict[str, Any], take: Take) -> None:
    found["qkv_bias"] = found["proj_bias"] = take("attention_bias", False)
    found["mlp_bias"] = take("mlp_bias", False)
    found["head_dim"] = None  # DeepSeek's is that of the rotary part
    found["num_experts"] = take("n_routed_experts")
    found["norm_topk_prob"] = take("norm_topk_prob", False)
    found["num_dense_layers"] = take("first_k_dense_replace", 0)
    if shared := take("n_shared_experts", 0):
        found["shared_expert_intermediate_size"] = shared * found["moe_intermediate_size"]


def _deepseek_v3(found: dict[str, Any], take: Take) -> None:
    _deepseek_v2(found, take)
    found["norm_topk_prob"] = take("norm_topk_prob", True)
    found["router_bias"] = True


class Family(NamedTuple):
    """How a family's keys are read.

    Attributes:
        keys: its names of our fields.
        needed: keys that have to be there, if only as null: without them the family's own class puts a size in.
        fixed: fields that no key says, and defaults.
        acts: its activations, with ours.
        more: puts other fields into the found ones.
    """

    keys: Mapping[str, str]
    needed: tuple[str, ...]
    fixed: Mapping[str, Any]
    acts: Mapping[str, str]
    more: Callable[[dict[str, Any], Take], None]


SILU = {"silu": "swiglu", "swish": "swiglu"}
GELU = {**dict.fromkeys(("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"), "gelu"), "relu": "relu"}
GEGLU = {"gelu": "geglu", "gelu_pytorch_tanh": "geglu"}
PLAIN = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
GROUPED = (*PLAIN, "num_key_value_heads")
CHOSEN = ("num_experts_per_tok", "moe_intermediate_size")
NEOX = {"positions": "rotary", "tie_word_embeddings": False}
PHI = {"positions": "rotary", "parallel_block": True, "head_bias": True, "fused_qkv": False, "tie_word_embeddings": False}
GEMMAS = (*GROUPED, "head_dim")
DEEPSEEK = (*PLAIN, *CHOSEN, *LATENT, "n_routed_experts", "n_shared_experts", "first_k_dense_replace")
FAMILIES = {
    "llama": Family(SIZES, PLAIN, LLAMA, SILU, _llama),
    "mistral": Family(SIZES, (*GROUPED, "sliding_window"), LLAMA, SILU, _windowed),
    "mixtral": Family({**SIZES, "num_experts_per_tok": "num_experts_per_tok"}, (*GROUPED, "num_local_experts"), LLAMA, SILU, _mixtral),
    "qwen2": Family(SIZES, GROUPED, LLAMA, SILU, _qwen2),
    "qwen2_moe": Family(
        {**SIZES, **ROUTED}, (*GROUPED, *CHOSEN, "num_experts", "shared_expert_intermediate_size"), LLAMA, SILU, _qwen2_moe
    ),
    "qwen3": Family(SIZES, (*GROUPED, "head_dim"), LLAMA, SILU, _qwen3),
    "qwen3_moe": Family({**SIZES, **ROUTED}, (*GROUPED, *CHOSEN), LLAMA, SILU, _qwen3_moe),
    "gemma": Family(SIZES, GEMMAS, GEMMA, GEGLU, _gemma),
    "gemma2": Family(SIZES, (*GEMMAS, "sliding_window"), GEMMA, GEGLU, _gemma2),
    "gemma3_text": Family(SIZES, (*GEMMAS, "sliding_window"), GEMMA, GEGLU, _gemma3),
    "gpt2": Family(GPT2, ("vocab_size", "n_embd", "n_layer", "n_head", "n_positions"), {}, GELU, _gpt2),
    "gpt_neox": Family(SIZES, PLAIN, NEOX, GELU, _gpt_neox),
    "phi": Family(SIZES, PLAIN, PHI, GELU, _phi),
    "phi3": Family(SIZES, PLAIN, {**LLAMA, "fused_qkv": True}, SILU, _phi3),
    "deepseek_v2": Family({**SIZES, **ROUTED, **LATENT}, DEEPSEEK, LLAMA, SILU, _deepseek_v2),
    "deepseek_v3": Family({**SIZES, **ROUTED, **LATENT}, DEEPSEEK, LLAMA, SILU, _deepseek_v3),
}
ACTS = ("hidden_activation", "hidden_act", "activation_function")  # the first that is there and not null


def read(document: Mapping[str, Any]) -> Reading:
    """The fields of a `Transformer` that a config.json describes, by its model_type.

    Raises: ValueError, one line with key and value, for an unknown model_type, a missing key, or what changes the count and is not known.
    """
    name = document.get("model_type")
    checks.one_of("configuration", FAMILIES, model_type=name)
    family, given = FAMILIES[str(name)], dict(document)
    for key in family.needed:
        if key not in given:
            raise ValueError(f"{name}: the key {key!r} is needed.")
    for key, known in ONLY.items():
        if key in given and given[key] not in known:
            raise _refused(key, " or ".join(map(repr, known)), given[key])
    taken = {"layer_types", *ACTS}

    def take(key: str, default: Any = None) -> Any:
        taken.add(key)
        value = given.get(key)
        if value is None:
            return default
        if isinstance(default, bool):
            checks.flag(str(name), **{key: value})
        elif isinstance(default, int):
            checks.size(str(name), 0, **{key: value})
        return value

    found = dict(family.fixed)
    for key, field in family.keys.items():
        value = take(key, False if key == "tie_word_embeddings" else None)
        if key in given and given[key] is not None:
            if key != "tie_word_embeddings":
                checks.size(str(name), **{key: value})
            found[field] = value
        elif key in family.needed and key != "q_lora_rank":
            checks.size(str(name), **{key: value})
    if act := next((key for key in ACTS if given.get(key) is not None), None):
        checks.one_of(str(name), family.acts, **{act: given[act]})
        found["hidden_act"] = family.acts[given[act]]
    family.more(found, take)
    _layers_as_said(given, found)
    left_out = tuple(f"{key}={_short(given[key])}" for key, off in LEFT_OUT.items() if key in given and given[key] not in off)
    known = {*taken, *HARMLESS, *LEFT_OUT, *ONLY}
    return Reading(found, tuple(key for key in given if key not in known), left_out)


def _layers_as_said(given: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Newer files say of each layer whether it has a window."""
    said = given.get("layer_types")
    if said is not None:
        kinds = ["full_attention" if layer.window is None else "sliding_attention" for layer in Transformer(**found).layers]
        if said != kinds:
            raise _refused("layer_types", f"{_short(kinds)} for these other keys", said)


def _short(value: Any) -> str:
    text = "{...}" if value and isinstance(value, dict) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
