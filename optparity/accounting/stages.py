"""A pipeline's stages, and what the devices of one keep.

A device of stage r of p, whose layers are v chunks, runs so many microbatches ahead of its first backward pass:

    1f1b   p − r microbatches; interleaved (v > 1) 2 (p − r − 1) + (v − 1) p + 1 chunks; at most all
    gpipe  all

The first stage keeps most blocks, the last one the loss: one of the two needs most memory. Layers are divided evenly, rounded up.
Narayanan et al. 2021 (arXiv 2104.04473), section 2.2; on the first stage L (1 + (p − 1) / (p v)) layers, as in Korthikanti et al. 2022.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil
from typing import Any

from .kept import InFlight, Layer
from .memory import Bytes, plus
from .parallel import Setup
from .transformer import Transformer, beyond

LOSS = ("log-softmax", "head of a chunk")  # places that come before any gradient of a weight


@dataclass(frozen=True)
class Stage:
    """What one stage holds.

    Attributes:
        chunks: the numbers of the layers of each chunk.
        passes: how many chunks' activations there are, `microbatches` of one chunk at most.
        before, after: of how many microbatches there are activations before and after the blocks.
    """

    first: bool
    last: bool
    chunks: tuple[range, ...]
    passes: int
    microbatches: int
    before: int
    after: int


def stages(layers: Sequence[Layer], setup: Setup) -> list[Stage]:
    """The first and the last, and those between where layers are of several kinds; one that is both without a pipeline."""
    p, v, m, count = setup.pipeline_parallel, setup.pipeline_chunks, setup.microbatches, len(layers)
    if p == 1:
        return [Stage(True, True, (range(count),), 1, 1, 1, 1)]
    if count < p * v:
        raise ValueError(f"setup: pipeline_parallel × pipeline_chunks is at most the number of layers; got {p} × {v} and {count}.")
    size = ceil(count / (p * v))
    found = []
    for rank in (0, p - 1) if len(set(layers)) == 1 else range(p):
        chunks = tuple(range(start, start + size) for start in (chunk * count // (p * v) for chunk in range(rank, p * v, p)))
        ahead = p - rank if v == 1 else 2 * (p - rank - 1) + (v - 1) * p + 1
        ahead = m * v if setup.schedule == "gpipe" else min(ahead, m * v)
        found.append(Stage(rank == 0, rank == p - 1, chunks, ahead, m, ceil(ahead / v), m if setup.schedule == "gpipe" else 1))
    return found


@dataclass(frozen=True)
class OnStage:
    """A model's part on one stage, for one microbatch of `rows` sequences of `seq` tokens on a device; `how` as for `Transformer.saved`."""

    model: Transformer
    stage: Stage
    rows: int
    seq: int
    recompute: str
    how: dict[str, Any]

    @property
    def layers(self) -> list[Layer]:
        """The kinds of the stage's blocks, in order."""
        return [self.model.layers[i] for i in chain(*self.stage.chunks)]

    def weights(self, whole: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """This stage's of the whole model's; a tied head is a table of its own where the embedding is elsewhere."""
        kept = {"wte": self.stage.first or (self.stage.last and self.model.tie_word_embeddings), "wpe": self.stage.first}
        kept |= {"ln_f": self.stage.last, "head": self.stage.last}
        own = {str(i) for i in chain(*self.stage.chunks)}
        parts = {name: name.split(".", 2) for name in whole}
        return {name: whole[name] for name, (part, i, *_) in parts.items() if (i in own if part == "h" else kept[part])}

    def activations(self, by: str) -> Bytes:
        """What all microbatches in flight keep; where chunks differ, as many as can be are of those that keep most."""
        chunks = [self._blocks([self.model.layers[i] for i in chunk], by) for chunk in self.stage.chunks]
        found, left = [], self.stage.passes
        for chunk in sorted(chunks, key=lambda of: sum(of.values()), reverse=True):
            found.append(_times(min(left, self.stage.microbatches), chunk))
            left -= min(left, self.stage.microbatches)
        before, after = self._outside(by)
        return plus(*found, _times(self.stage.before, before), _times(self.stage.after, after))

    def temporaries(self) -> dict[str, Bytes]:
        """By place, what a device holds beyond `activations`."""
        kept = plus(*self._outside("executed"), self._blocks(self.layers, "executed"))
        how = self.how if self.stage.last else self.how | {"loss": "as-is"}  # the logits' caller is on the last stage
        before, _, after = self.model.saved(self.rows, self.seq, **self.how)
        elsewhere = [] if self.stage.last else after
        elsewhere = elsewhere if self.stage.first else [*elsewhere, *before]
        away = {place.name for place in elsewhere if isinstance(place, InFlight)}
        held = self.model.places(self.rows, self.seq, self.layers, self.recompute, **how)
        return beyond(((name, here) for name, here in held if name not in away), kept)

    def remade(self) -> dict[str, Bytes]:
        """By kind of block, what recomputation makes anew."""
        found = {}
        for layer in dict.fromkeys(self.layers):
            how = self.how | {"layer": layer}
            whole, kept = (self.model.block_activations(self.rows, self.seq, "executed", by, **how) for by in ("none", self.recompute))
            found[f"block of {layer}"] = {dtype: count - kept.get(dtype, 0) for dtype, count in whole.items()}
        return found

    def _blocks(self, layers: Sequence[Layer], by: str) -> Bytes:
        return self.model.blocks(self.rows, self.seq, layers, by, self.recompute, **self.how)

    def _outside(self, by: str) -> tuple[Bytes, Bytes]:
        before, after = self.model.outside(self.rows, self.seq, by, **self.how)
        return before if self.stage.first else {}, after if self.stage.last else {}


def _times(n: int, of: Bytes) -> Bytes:
    return {dtype: n * count for dtype, count in of.items()}
