"""Known models, entered as configurations; and a configuration from a file's keys."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from . import checks, hugging_face
from .cruncher import Cruncher
from .transformer import Transformer


def from_dict(document: Mapping[str, Any]) -> Cruncher | Transformer:
    """A configuration from its fields; "model" says which: "transformer" (the default) or "cruncher".

    With a "model_type" it is Hugging Face's config.json of that family; keys that are not known are passed over (`hugging_face.read`
    names them).

    Raises: ValueError for an unknown or a missing key, or a value out of range.
    """
    if not isinstance(document, Mapping):
        raise ValueError(f"configuration: an object with keys is needed; got {document!r}.")
    if "model_type" in document:
        return Transformer(**hugging_face.read(document).fields)
    given = dict(document)
    models = {"transformer": Transformer, "cruncher": Cruncher}
    name = given.pop("model", "transformer")
    checks.one_of("configuration", models, model=name)
    known = fields(models[name])
    for key in given:
        if key not in [field.name for field in known]:
            raise ValueError(f"{name}: unknown key {key!r}; the keys are {', '.join(field.name for field in known)}.")
    for field in known:
        if field.default is MISSING and field.name not in given:
            raise ValueError(f"{name}: the key {field.name!r} is needed.")
    return models[name](**given)


def _gpt2(layers: int, width: int, heads: int) -> Transformer:
    """Radford et al. 2019; biases, tied head, learned positions."""
    return Transformer(50257, width, layers, heads, max_position_embeddings=1024)


def _gpt3(layers: int, width: int, heads: int, head_dim: int) -> Transformer:
    """Brown et al. 2020 (arXiv 2005.14165), table 2.1."""
    return Transformer(50257, width, layers, heads, head_dim=head_dim, max_position_embeddings=2048)


def _llama(vocab: int, width: int, layers: int, heads: int, kv_heads: int, intermediate: int, positions: int) -> Transformer:
    """Touvron et al. 2023 (arXiv 2307.09288); Llama 3, 2024 (arXiv 2407.21783)."""
    return Transformer(
        *(vocab, width, layers, heads),
        num_key_value_heads=kv_heads,
        intermediate_size=intermediate,
        max_position_embeddings=positions,
        hidden_act="swiglu",
        positions="rotary",
        norm="rmsnorm",
        bias=False,
        tie_word_embeddings=False,
        fused_qkv=False,
    )


PRESETS: dict[str, Cruncher | Transformer] = {
    "cruncher": Cruncher(dim=4, num_layers=2),  # the article's toy
    "gpt2": _gpt2(12, 768, 12),
    "gpt2-medium": _gpt2(24, 1024, 16),
    "gpt2-large": _gpt2(36, 1280, 20),
    "gpt2-xl": _gpt2(48, 1600, 25),
    "gpt3-small": _gpt3(12, 768, 12, 64),
    "gpt3-medium": _gpt3(24, 1024, 16, 64),
    "gpt3-large": _gpt3(24, 1536, 16, 96),
    "gpt3-xl": _gpt3(24, 2048, 16, 128),  # the table prints 24 heads, and 24 × 128 is not 2048
    "gpt3-2.7b": _gpt3(32, 2560, 32, 80),
    "gpt3-6.7b": _gpt3(32, 4096, 32, 128),
    "gpt3-13b": _gpt3(40, 5120, 40, 128),  # the table prints a width of 5140, and 40 × 128 is 5120
    "gpt3-175b": _gpt3(96, 12288, 96, 128),
    "llama2-7b": _llama(32000, 4096, 32, 32, 32, 11008, 4096),
    "llama2-13b": _llama(32000, 5120, 40, 40, 40, 13824, 4096),
    "llama2-70b": _llama(32000, 8192, 80, 64, 8, 28672, 4096),
    "llama3-8b": _llama(128256, 4096, 32, 32, 8, 14336, 8192),
    "llama3-70b": _llama(128256, 8192, 80, 64, 8, 28672, 8192),
    "llama3-405b": _llama(128256, 16384, 126, 128, 8, 53248, 8192),
    "palm-540b": Transformer(  # Chowdhery et al. 2022 (arXiv 2204.02311), section 2
        *(256000, 18432, 118, 48),
        num_key_value_heads=1,
        head_dim=256,
        intermediate_size=73728,
        hidden_act="swiglu",
        positions="rotary",
        bias=False,
        parallel_block=True,
        fused_qkv=False,
    ),
    "chinchilla-70b": Transformer(  # Hoffmann et al. 2022 (arXiv 2203.15556), table 4; built as Gopher (arXiv 2112.11446)
        *(32000, 8192, 80, 64),
        head_dim=128,
        intermediate_size=32768,
        positions="relative",
        norm="rmsnorm",
        bias=False,
    ),
}
