"""What fits: for each ZeRO stage and each kind of recomputation the largest batch, by trying estimates."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from .estimate import estimate
from .memory import MARGIN, Memory
from .parallel import RECOMPUTE, Setup
from .transformer import Transformer

MOST = 2**20  # sequences; a larger batch is not looked for


class Fitting(NamedTuple):
    """The largest batch that fits, 0 where none does; its memory, or that of the smallest batch; and FLOPs executed for each token."""

    zero_stage: int
    recompute: str
    batch: int
    memory: Memory
    flops: float


def search(model: Transformer, seq: int, setup: Setup, gigabytes: float, margin: float = MARGIN) -> Iterator[Fitting]:
    """A line for each stage of ZeRO and each recomputation; `setup` says all else. Stages need several devices."""
    if not isinstance(model, Transformer):
        raise ValueError(f"search: a Transformer is needed; got {model!r}.")
    for stage in range(4) if setup.data_parallel * setup.context_parallel > 1 else (0,):
        for recompute in RECOMPUTE:
            if recompute == "alternate" and (setup.attention != "sdpa" or setup.tensor_parallel > 1):
                continue
            yield _largest(model, seq, replace(setup, zero_stage=stage, recompute=recompute), gigabytes, margin)


def _largest(model: Transformer, seq: int, setup: Setup, gigabytes: float, margin: float) -> Fitting:
    def memory(parts: int) -> Memory:
        return estimate(model, parts * setup.microbatches, seq, setup, conventions=["executed"]).memory[-1]

    def fits(parts: int) -> bool:
        return memory(parts).fits(gigabytes, margin)

    low, high = 0, 1  # low fits, high does not
    while high * setup.microbatches <= MOST and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    flops = model.flops(1, seq, recompute=setup.recompute, attention=setup.attention) / seq
    return Fitting(setup.zero_stage, setup.recompute, low * setup.microbatches, memory(max(low, 1)), flops)
