"""config.json as it is published: what is read, what is said of the rest, what is refused."""

import json

import pytest

from optparity.accounting import from_dict
from optparity.accounting.hugging_face import FAMILIES, read

from ..cli.running import optparity
from .public import DEEPSEEK_V3, GEMMA2_2B, GPT2, LLAMA_3_8B, MISTRAL_7B, PUBLIC, QWEN3_30B, QWEN15_MOE, QWEN25_7B


@pytest.mark.parametrize("name", PUBLIC)
def test_parameters_are_the_published_integers(name):
    public = PUBLIC[name]
    model = from_dict(public.config)
    assert model.parameters == public.parameters
    if public.active is not None:
        assert model.active_parameters == public.active < model.parameters
    assert sum(model.parameters_by_part().values()) == model.parameters
    assert read(public.config).unknown == ()


def test_each_family_is_tried():
    assert {public.config["model_type"] for public in PUBLIC.values()} == set(FAMILIES)


def test_published_to_a_tenth_of_a_billion():
    """Mixtral's card, arXiv 2412.19437's and Qwen's: 46.7 and 12.9, 671 and 37, 30.5 and 3.3, 235 and 22, 14.3 and 2.7 billion."""
    printed = {
        **{"Mixtral 8x7B": (46.7, 12.9), "DeepSeek-V3": (671, 37), "Qwen 3 30B A3B": (30.5, 3.3), "Qwen 3 235B A22B": (235, 22)},
        **{"Qwen 1.5 MoE A2.7B": (14.3, 2.7), "DeepSeek-V2 Lite": (15.7, 2.4)},
    }
    for name, (total, active) in printed.items():
        model = from_dict(PUBLIC[name].config)
        assert model.parameters / 1e9 == pytest.approx(total, rel=0.005), name
        embedding = model.parameters_by_part()["embedding"] if name == "DeepSeek-V2 Lite" else 0  # 2.4 is without it
        assert (model.active_parameters - embedding) / 1e9 == pytest.approx(active, rel=0.025), name


def test_the_command_reads_it_and_says_what_it_passed_over(monkeypatch, capsys, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(DEEPSEEK_V3 | {"num_hidden_layers": 5, "brand_new": [1]}))
    status, out, err = optparity(monkeypatch, capsys, "cost", file, "--seq", 64, "--convention", "6nd", "--set", "num_hidden_layers=4")
    assert (status, err) == (0, "")
    model = from_dict(DEEPSEEK_V3 | {"num_hidden_layers": 4})
    assert f"{model.parameters:,} parameters, {model.active_parameters:,} active\n" in out
    assert "not counted: num_nextn_predict_layers=1, quantization_config={...}\n" in out
    assert "unknown keys, not read: brand_new\n" in out
    assert f"{6 * 64 * model.active_parameters:,}" in out
    file.write_text(json.dumps(LLAMA_3_8B | {"num_hidden_layers": 1}))
    out = optparity(monkeypatch, capsys, "cost", file, "--seq", 64)[1]
    assert out.splitlines()[0].endswith(" parameters")
    assert "unknown" not in out
    assert "not counted" not in out


def test_windows():
    sliding = lambda config: [layer.window for layer in from_dict(config).layers]  # noqa: E731
    assert set(sliding(MISTRAL_7B)) == {4096}
    assert set(sliding(QWEN25_7B)) == {None}
    assert set(sliding(QWEN25_7B | {"use_sliding_window": True, "max_window_layers": 0})) == {131072}
    assert set(sliding(QWEN25_7B | {"use_sliding_window": True})) == {None}
    assert sliding(GEMMA2_2B)[:4] == [4096, None, 4096, None]
    assert sliding(PUBLIC["Gemma 3 1B"].config)[:7] == [512] * 5 + [None, 512]
    said = ["sliding_attention", "full_attention"] * 13
    assert from_dict(GEMMA2_2B | {"layer_types": said}) == from_dict(GEMMA2_2B)


BAD = [
    ({"model_type": "bert"}, r"^configuration: model_type is one of llama, .*; got 'bert'\.$"),
    ({"model_type": None}, r"^configuration: model_type is one of llama, .*; got None\.$"),
    ({"model_type": ["llama"]}, r"^configuration: model_type is one of llama, .*; got \['llama'\]\.$"),
    ({"model_type": "llama"}, r"^llama: the key 'vocab_size' is needed\.$"),
    (LLAMA_3_8B | {"hidden_size": "big"}, r"^llama: hidden_size is an integer >= 1; got 'big'\.$"),
    (LLAMA_3_8B | {"intermediate_size": None}, r"^llama: intermediate_size is an integer >= 1; got None\.$"),
    (LLAMA_3_8B | {"tie_word_embeddings": "no"}, r"^llama: tie_word_embeddings is true or false; got 'no'\.$"),
    (LLAMA_3_8B | {"attention_bias": 1}, r"^llama: attention_bias is true or false; got 1\.$"),
    (LLAMA_3_8B | {"hidden_act": "relu2"}, r"^llama: hidden_act is one of silu, swish; got 'relu2'\.$"),
    (LLAMA_3_8B | {"num_key_value_heads": 5}, r"^transformer: num_key_value_heads divides num_attention_heads; got 5 and 32\.$"),
    (LLAMA_3_8B | {"is_encoder_decoder": True}, r"^configuration: is_encoder_decoder is known as False or None only, .*; got True\.$"),
    (LLAMA_3_8B | {"vision_config": {}}, r"^configuration: vision_config is known as None only, and changes the count; got \{\}\.$"),
    (LLAMA_3_8B | {"layer_types": ["linear"]}, r"^configuration: layer_types is known as \[.*; got \['linear'\]\.$"),
    (MISTRAL_7B | {"sliding_window": 0}, r"^transformer: sliding_window is an integer >= 1; got 0\.$"),
    ({key: value for key, value in MISTRAL_7B.items() if key != "sliding_window"}, r"^mistral: the key 'sliding_window' is needed\.$"),
    (
        QWEN25_7B | {"use_sliding_window": True, "max_window_layers": 14},
        r"^configuration: max_window_layers is known as 0 or num_hidden_layers .* only, and changes the count; got 14\.$",
    ),
    (QWEN15_MOE | {"use_sliding_window": True}, r"^configuration: use_sliding_window is known as false for qwen2_moe only, "),
    (QWEN15_MOE | {"decoder_sparse_step": 2}, r"^configuration: decoder_sparse_step is known as 1 only, .*; got 2\.$"),
    (QWEN3_30B | {"mlp_only_layers": [3]}, r"^configuration: mlp_only_layers is known as the first layers only, .*; got \[3\]\.$"),
    (QWEN3_30B | {"mlp_only_layers": 5}, r"^configuration: mlp_only_layers is known as the first layers only, .*; got 5\.$"),
    (QWEN3_30B | {"num_hidden_layers": 10**9}, r"^transformer: num_hidden_layers is at most 100000; got 1000000000\.$"),
    (QWEN3_30B | {"num_experts_per_tok": 129}, r"^transformer: num_experts_per_tok is at most num_experts, 128; got 129\.$"),
    (DEEPSEEK_V3 | {"first_k_dense_replace": 62}, r"^transformer: num_dense_layers is at most num_hidden_layers, 61; got 62\.$"),
    (DEEPSEEK_V3 | {"n_shared_experts": -1}, r"^deepseek_v3: n_shared_experts is an integer >= 0; got -1\.$"),
    (DEEPSEEK_V3 | {"kv_lora_rank": None}, r"^deepseek_v3: kv_lora_rank is an integer >= 1; got None\.$"),
    (GPT2 | {"n_head": 7}, r"^transformer: num_attention_heads divides hidden_size; got 7 and 768\.$"),
    (PUBLIC["GPT-NeoX 20B"].config | {"rotary_pct": 2}, r"^configuration: rotary_pct is known as more than 0 and at most 1 only, "),
    (PUBLIC["Phi 2"].config | {"qk_layernorm": True}, r"^configuration: qk_layernorm is known as False or None only, .*; got True\.$"),
    (PUBLIC["Phi 3 mini"].config | {"attention_bias": True}, r"^configuration: attention_bias is known as false for phi3 only, "),
]


@pytest.mark.parametrize(("config", "message"), BAD)
def test_what_is_refused(monkeypatch, capsys, tmp_path, config, message):
    """One line, from the library as from the command."""
    with pytest.raises(ValueError, match=message):
        from_dict(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    status, out, err = optparity(monkeypatch, capsys, "cost", tmp_path / "config.json")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
