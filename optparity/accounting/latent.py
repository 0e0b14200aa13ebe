"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): parameters, FLOPs, and what is kept.

r kv_lora_rank, q q_lora_rank, n qk_nope_head_dim, o qk_rope_head_dim, v v_head_dim, a heads. Keys and values of all heads come of r numbers
for each token; each head's queries and keys have n numbers without positions and o rotary ones, the key's o shared by all heads.
"""

from typing import Any

from . import checks
from .kept import InFlight, Kept, Saved

NEEDED = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")


def check(model: Any) -> None:
    """Fields of latent attention go together and with the rest of the model.

    Raises: ValueError where they do not.
    """
    who = "transformer"
    if model.kv_lora_rank is None:
        for name in ("q_lora_rank", *NEEDED):
            if getattr(model, name) is not None:
                raise ValueError(f"{who}: {name} is for a model with kv_lora_rank; got {getattr(model, name)!r} and none.")
        return
    checks.size(f"{who} with latent attention", **{name: getattr(model, name) for name in NEEDED})
    checks.one_of(f"{who} with latent attention", ("rotary",), positions=model.positions)
    checks.one_of(f"{who} with latent attention", (False,), qk_norm=model.qk_norm, parallel_block=model.parallel_block)
    heads = model.num_attention_heads
    checks.one_of(f"{who} with latent attention", (None, heads), num_key_value_heads=model.num_key_value_heads)
    checks.one_of(f"{who} with latent attention", (None, query_dim(model)), head_dim=model.head_dim)


def query_dim(model: Any) -> int:
    """Of a head's queries and keys, n + o."""
    return model.qk_nope_head_dim + model.qk_rope_head_dim


def weights(model: Any, name: str, heads: int) -> dict[str, tuple[int, ...]]:
    """The parameters of one block's attention but for its last matrix, with so many of its heads."""
    h, r, q = model.hidden_size, model.kv_lora_rank, model.q_lora_rank
    found: dict[str, tuple[int, ...]] = {}

    def down(of: str, columns: int, rank: int) -> None:
        found[f"{name}.{of}_a.weight"] = (h, columns)
        if model.bias if model.qkv_bias is None else model.qkv_bias:
            found[f"{name}.{of}_a.bias"] = (columns,)
        found[f"{name}.{of}_norm.weight"] = (rank,)

    if q is not None:
        down("q", q, q)
    found[f"{name}.q_b.weight"] = (h if q is None else q, heads * query_dim(model))
    down("kv", r + model.qk_rope_head_dim, r)
    found[f"{name}.kv_b.weight"] = (r, heads * (model.qk_nope_head_dim + model.v_head_dim))
    return found


def flops(model: Any, tokens: int) -> dict[str, int]:
    """Forward FLOPs of the products before the attention core."""
    return {name: 2 * tokens * rows * columns for name, (rows, columns) in _matrices(model).items()}


def matrices(model: Any) -> list[tuple[int, int]]:
    """Rows and columns of the matrices before the attention core, in the order of their products."""
    return list(_matrices(model).values())


def _matrices(model: Any) -> dict[str, tuple[int, int]]:
    shapes = weights(model, "", model.num_attention_heads)
    return {name.removeprefix(".").removesuffix(".weight"): (shape[0], shape[1]) for name, shape in shapes.items() if len(shape) == 2}


def saved(tensors: Any) -> Kept:
    """What is kept between the block's first norm and the attention core. Values stay a view where nothing lays them out anew."""
    model, dtype, tokens, heads = tensors.model, tensors.dtype, tensors.tokens, tensors.heads
    h, r, q, o = model.hidden_size, model.kv_lora_rank, model.q_lora_rank, model.qk_rope_head_dim
    wide, values, unrotated = tensors.wide, tensors.values, tokens * heads * model.qk_nope_head_dim
    beside = tensors.beside + 2 * wide + values
    if q is not None:
        yield from tensors.rms("query latents", tokens * q, tokens, beside)
        yield Saved("query latents' norm output", tokens * q, dtype)
    yield Saved("queries", wide, dtype)
    yield InFlight("queries projection", beside + wide + (q or h) * heads * query_dim(model))
    yield from tensors.rms("latents", tokens * r, tokens, beside, whole=tokens * (r + o))
    yield Saved("latents' norm output", tokens * r, dtype)
    yield InFlight("keys and values projection", beside + values + unrotated + tokens * (r + o) + r * (values + unrotated) // tokens)
    yield Saved("keys", wide, dtype)
    viewed = tensors.values_stay_views or tensors.seq == 1
    yield Saved("values, and keys without positions" if viewed else "values", values + (unrotated if viewed else 0), dtype)
