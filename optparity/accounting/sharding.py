"""What stands beside the parts that a device has of something divided: gathered weights, gradients before they are divided, sequences.

ZeRO's stages 2 and 3, as PyTorch's `fully_shard` does them, one unit a block, and one, the root, of all that is outside the blocks
(embedding, last norm, head):

    gathered     the root from the beginning to the end; the block at work, the one fetched before its turn, and the buffer in which
                 a gathered block arrives before it is cut into its weights
    gradients    the root's, whole until the backward pass ends; a block's, whole; and two buffers of reduce-scatter, of this block
                 and of the one before, in float32 under mixed precision

In a pipeline nothing is gathered again for each microbatch: all of the stage stays whole, and its gradients add up whole, in the dtype
in which they are reduced, until the last microbatch. Read at torchtitan, parallelize_llama.py (`reshard_after_forward` of pipelines),
and pytorch, torch/distributed/fsdp/_fully_shard (`unsharded_accumulated_grad`, `reduce_scatter_state`).
"""

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

from .memory import Bytes, itemsize, plus, total
from .parallel import Setup
from .transformer import Transformer

GATHERED_BLOCKS = 3  # at work, fetched before its turn, arriving
REDUCED_BLOCKS = 2  # this one and the one before


class InTransit(NamedTuple):
    """Bytes by dtype: whole weights and whole gradients beside the shards, and the gradients that are there when the loss is computed."""

    weights: Bytes
    gradients: Bytes
    from_the_start: Bytes


def in_transit(weights: Mapping[str, tuple[int, ...]], setup: Setup) -> InTransit:
    """Of weights by name on one device; nothing where nothing is divided."""
    if setup.sharded("gradients") == 1:
        return InTransit({}, {}, {})
    units: dict[str, int] = {}
    for name, shape in weights.items():
        unit = ".".join(name.split(".")[:2]) if name.startswith("h.") else ""
        units[unit] = units.get(unit, 0) + prod(shape)
    root, block = units.pop("", 0), max(units.values(), default=0)
    reduced_in = "float32" if setup.mixed_precision else setup.dtype
    if setup.pipeline_parallel > 1:
        everything = root + sum(units.values())
        gathered, summed = {setup.dtype: everything}, {reduced_in: everything}
        buffers = _bytes({setup.dtype: block, reduced_in: REDUCED_BLOCKS * block})
        return InTransit(_gathered(gathered, setup), plus(_bytes(summed), buffers), _bytes(summed))
    gathered = {setup.dtype: root + GATHERED_BLOCKS * block}
    gradients = plus(_bytes({setup.dtype: root + block}), _bytes({reduced_in: REDUCED_BLOCKS * block}))
    return InTransit(_gathered(gathered, setup), gradients, {})


def sequences(model: Transformer, rows: int, seq: int, here: int, setup: Setup) -> tuple[Bytes, Bytes]:
    """What one layer has of the whole sequence, and the head, where the sequence is divided into parts of `here` tokens.

    Sequence parallelism gathers the inputs of attention and of the MLP, and the gradient of a result; before they are reduced, the
    gradients of a gathered input are whole: of two matrices, and their sum. Of the head it gathers the input. Context parallelism gathers
    keys and values and has their gradients.
    """
    width, size = model.hidden_size, itemsize(setup.dtype)
    stream = rows * here * width * size if setup.sequence_parallel and setup.tensor_parallel > 1 else 0
    _, k, d, _ = model.sizes
    heads = max(k // setup.tensor_parallel, 1)  # with latent attention all of them
    keys_and_values = rows * seq * heads * (d + model.value_dim) * size if setup.context_parallel > 1 else 0
    return total([(setup.dtype, 6 * stream + 2 * keys_and_values)]), total([(setup.dtype, stream)])


def _gathered(elements: Mapping[str, int], setup: Setup) -> Bytes:
    return _bytes(elements) if setup.sharded("parameters") > 1 else {}


def _bytes(elements: Mapping[str, int]) -> dict[str, int]:
    return total((dtype, count * itemsize(dtype)) for dtype, count in elements.items())
