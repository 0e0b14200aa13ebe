"""Recomputation "alternate": of a block are kept its input, the fused attention's result, and that of every second matrix product.

It is torchtitan's selective recomputation by operator (distributed/activation_checkpoint.py of 2025: the first product is kept, the second
is not, and so on). The products of a block in order: queries, keys, values, or all three of them fused, or those of latent attention; the
projection; gate and up; down. Of experts, the router and the products of groups of rows are not kept and not counted among these; those of
shared experts are.
"""

from collections.abc import Sequence
from typing import Any

from . import experts, latent
from .kept import InFlight, Layer, Saved
from .memory import Bytes, itemsize, plus, total


def kept(model: Any, block: Sequence[Saved | InFlight], layer: Layer, tokens: int) -> Bytes:
    """Bytes of one block of that kind, of the list of all that it has."""
    stream = next(one for one in block if isinstance(one, Saved))
    attention = [one for one in block if isinstance(one, Saved) and one.name in ("attention output", "log-sum-exp")]
    columns = sum(columns for _, columns in products(model, layer)[::2])
    return plus(total((one.dtype, one.bytes) for one in [stream, *attention]), {stream.dtype: tokens * columns * itemsize(stream.dtype)})


def again(model: Any, tokens: int, layer: Layer) -> int:
    """FLOPs that are done again in one block of that kind."""
    remade = products(model, layer)[1::2]
    mlp_is_last = _mlp_width(model, layer) is not None and not (layer.experts and model.shared_expert_gate)
    if mlp_is_last and len(products(model, layer)) % 2 == 0 and model.norms < 4:
        remade = remade[:-1]  # nothing needs the result
    routed = experts.routed_flops(model, tokens) if layer.experts else 0
    return sum(2 * tokens * rows * columns for rows, columns in remade) + routed


def products(model: Any, layer: Layer) -> list[tuple[int, int]]:
    """Rows and columns of the matrices, in the order in which they are multiplied with."""
    h, (a, k, d, _) = model.hidden_size, model.sizes
    if model.kv_lora_rank is not None:
        found = latent.matrices(model)
    else:
        found = [(h, (a + 2 * k) * d)] if model.fused_qkv else [(h, a * d), (h, k * d), (h, k * d)]
    found = [*found, (a * model.value_dim, h)]
    if (width := _mlp_width(model, layer)) is not None:
        found += [(h, width), (h, width), (width, h)] if model.gated else [(h, width), (width, h)]
    return [*found, (h, 1)] if layer.experts and model.shared_expert_gate else found


def _mlp_width(model: Any, layer: Layer) -> int | None:
    return model.shared_expert_intermediate_size if layer.experts else model.sizes[3]
