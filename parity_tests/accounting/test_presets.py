"""Known models: their parameters and FLOPs as published."""

import pytest

from optparity.accounting import (
    CONVENTIONS,
    PRESETS,
    Transformer,
    torch_flops,
)
from optparity.models import in_torch

from .models import language_loss, on_meta, preset


def test_parameters_of_known_models():
    known = {
        **{"gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200},
        **{"llama2-7b": 6_738_415_616, "llama2-13b": 13_015_864_320, "llama2-70b": 68_976_648_192},
        **{"llama3-8b": 8_030_261_248, "llama3-70b": 70_553_706_496, "llama3-405b": 405_853_388_800},
    }
    assert {name: preset(name).parameters for name in known} == known
    printed = {"small": 125, "medium": 356, "large": 760, "xl": 1320, "2.7b": 2650, "6.7b": 6660, "13b": 12850, "175b": 174600}  # table D.1
    for name, millions in printed.items():
        assert preset(f"gpt3-{name}").parameters / 1e6 == pytest.approx(millions, rel=0.004), name
    assert round(preset("gpt3-175b").parameters / 1e8) == 1746
    assert round(preset("palm-540b").parameters / 1e7) in (54035, 54036)
    assert preset("palm-540b").parameters_by_part()["norms"] == 119 * 18432  # no biases there either
    assert round(preset("chinchilla-70b").parameters / 1e9, 1) == 70.1
    without = Transformer(**{**vars(PRESETS["chinchilla-70b"]), "positions": "rotary"})
    assert round(without.parameters / 1e9, 1) == 64.7


def test_gpt2_small():
    """nanoGPT's transformer_sizing.ipynb, and a module."""
    config, model = preset("gpt2"), on_meta(in_torch.GPT, 50257, 1024, 12, 12, 768)
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
    model = preset(name)
    a, k, d, f = model.sizes
    n, h, layers, vocab, tokens = model.parameters, model.hidden_size, model.num_hidden_layers, model.vocab_size, batch * seq
    assert list(CONVENTIONS) == ["6nd", "kaplan", "chinchilla", "palm", "causal", "executed"]
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
    pairs = 4 if model.positions != "relative" else 6
    assert model.flops(batch, seq, "causal") == 3 * forward - 3 * pairs * layers * seq * tokens * a * d // 2
    if name.startswith("gpt2"):
        assert forward == batch * (2 * seq * (12 * layers * h * h + vocab * h) + 4 * layers * seq * seq * h)


def test_gpt3s_training():
    """300B tokens: 3.14e23 FLOPs, 3640 petaflop/s-days (arXiv 2005.14165, table D.1)."""
    flops = preset("gpt3-175b").flops(1, 2000, "6nd") * 150_000_000
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
