"""Recomputation "alternate": of a block are kept its input, the fused attention's result, and that of every second matrix product.

It is torchtitan's selective recomputation by operator (parallelize_llama.py: the first product is kept, the second is not, and so on).
The products of a block in order: queries, keys, values, or all three of them fused; the projection; gate and up; down.
"""

from collections.abc import Sequence
from typing import Any

from .memory import Bytes, total
from .saved import InFlight, Saved


def kept(model: Any, block: Sequence[Saved | InFlight]) -> Bytes:
    """Bytes of one block, of the list of all that it has."""
    sizes = {one.name: one for one in block if isinstance(one, Saved)}
    stream = next(one for one in block if isinstance(one, Saved))
    of = {"q": sizes["queries"], "k": sizes["keys"], "v": sizes["values"], "proj": stream, "ffw2": stream}
    of |= dict.fromkeys(("ffw1", "gate"), sizes["mlp down input"])
    names = [name for product in products(model)[::2] for name in (("q", "k", "v") if product == "kqv" else (product,))]
    found = [stream, sizes["attention output"], sizes.get("log-sum-exp"), *(of[name] for name in names)]
    return total((one.dtype, one.bytes) for one in found if one)


def again(model: Any, batch: int, seq: int, block: dict[str, int]) -> int:
    """FLOPs that are done again, `block` being those of the block; the last product's result is not needed."""
    a, k, d, _ = model.sizes
    head = 2 * batch * seq * model.hidden_size * d
    flops = block | {"q": a * head, "k": k * head, "v": k * head}
    return sum(flops[name] for name in products(model)[1::2] if name != "ffw2")


def products(model: Any) -> list[str]:
    """In the order in which they are done."""
    queries = ["kqv"] if model.fused_qkv else ["q", "k", "v"]
    return [*queries, "proj", *(["gate"] if model.hidden_act == "swiglu" else []), "ffw1", "ffw2"]
