"""A pipeline's stages, and what the devices of one keep.

A device of stage r of p, whose layers are v chunks, runs so many microbatches ahead of its first backward pass:

    1f1b   p − r microbatches; interleaved (v > 1) 2 (p − r − 1) + (v − 1) p + 1 chunks; at most all
    gpipe  all

The first stage keeps most blocks, the last one the loss: one of the two needs most memory. Layers are divided evenly, rounded up.
Narayanan et al. 2021 (arXiv 2104.04473), section 2.2; on the first stage L (1 + (p − 1) / (p v)) layers, as in Korthikanti et al. 2022.
"""

from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from .memory import Bytes, plus, total
from .parallel import Setup
from .saved import InFlight, Saved
from .transformer import Transformer

LOSS = ("log-softmax", "head of a chunk")  # places that come before any gradient of a weight


@dataclass(frozen=True)
class Stage:
    """What one stage holds: `layers`, and the activations of so many blocks, and of so many microbatches before and after the blocks."""

    first: bool
    last: bool
    layers: int
    blocks: int
    before: int
    after: int


def stages(layers: int, setup: Setup) -> list[Stage]:
    """The first and the last; one that is both without a pipeline."""
    p, v, m = setup.pipeline_parallel, setup.pipeline_chunks, setup.microbatches
    if p == 1:
        return [Stage(True, True, layers, layers, 1, 1)]
    if layers < p * v:
        raise ValueError(f"setup: pipeline_parallel × pipeline_chunks is at most the number of layers; got {p} × {v} and {layers}.")
    chunk = ceil(layers / (p * v))
    found = []
    for rank in (0, p - 1):
        ahead = p - rank if v == 1 else 2 * (p - rank - 1) + (v - 1) * p + 1
        ahead = m * v if setup.schedule == "gpipe" else min(ahead, m * v)
        found.append(Stage(rank == 0, rank == p - 1, v * chunk, ahead * chunk, ceil(ahead / v), m if setup.schedule == "gpipe" else 1))
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
    def part(self) -> Transformer:
        return replace(self.model, num_hidden_layers=self.stage.layers)

    def weights(self, tensor_parallel: int) -> dict[str, tuple[int, ...]]:
        """Of this stage; a tied head is a table of its own where the embedding is elsewhere."""
        kept = {"wte": self.stage.first or (self.stage.last and self.model.tie_word_embeddings), "wpe": self.stage.first}
        kept |= {"h": True, "ln_f": self.stage.last, "head": self.stage.last}
        return {name: shape for name, shape in self.part.weights(tensor_parallel).items() if kept[name.split(".")[0]]}

    def activations(self, by: str) -> Bytes:
        """What all microbatches in flight keep."""
        block = self.part.block_activations(self.rows, self.seq, by, self.recompute, **self.how)
        blocks = total((dtype, self.stage.blocks * count) for dtype, count in block.items())
        before, after = self._outside(by)
        times = lambda of, n: {dtype: n * count for dtype, count in of.items()}  # noqa: E731
        return plus(blocks, times(before, self.stage.before), times(after, self.stage.after))

    def temporaries(self) -> dict[str, Bytes]:
        """By place, what a device holds beyond `activations`."""
        block = self.part.block_activations(self.rows, self.seq, "executed", self.recompute, **self.how)
        before, after = self._outside("executed")
        kept = plus(before, after, {dtype: self.stage.layers * count for dtype, count in block.items()})
        how = self.how if self.stage.last else self.how | {"loss": "as-is"}  # the logits' caller is on the last stage
        away = [] if self.stage.last else [place.name for place in self._saved()[-1] if isinstance(place, InFlight)]
        away += [] if self.stage.first else [place.name for place in self._saved()[0] if isinstance(place, InFlight)]
        held = self.part.places(self.rows, self.seq, self.recompute, **how)
        return {
            name: total((dtype, max(count - kept.get(dtype, 0), 0)) for dtype, count in here.items())
            for name, here in held.items()
            if name not in away
        }

    def _outside(self, by: str) -> tuple[Bytes, Bytes]:
        saved = self._saved()
        before, after = (
            total((one.dtype, one.bytes) for one in of if isinstance(one, Saved) and one.only in (None, by)) for of in (saved[0], saved[-1])
        )
        return before if self.stage.first else {}, after if self.stage.last else {}

    def _saved(self) -> tuple[list[Saved | InFlight], ...]:
        return self.part.saved(self.rows, self.seq, **self.how)
