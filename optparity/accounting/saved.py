"""What the forward pass of a Transformer keeps, and what the backward pass holds at each place on its way back, in order.

The names of the sizes are those of transformer.py: b s tokens, h hidden_size, a heads, k key-value heads, d head_dim, f intermediate_size,
V vocab_size, all on one device.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from .memory import itemsize


class Saved(NamedTuple):
    """A tensor that the forward pass keeps, on one device."""

    name: str
    elements: int
    dtype: str
    core: bool = False  # inside the attention core, which selective recomputation makes again
    only: str | None = None  # counted "executed" only, or "korthikanti" only; "held": by the caller, until the backward pass is done

    @property
    def bytes(self) -> int:
        return self.elements * itemsize(self.dtype)


class InFlight(NamedTuple):
    """What the backward pass holds at one place, beside what the forward pass kept up to there: gradients on their way, on one device."""

    name: str
    elements: int
    core: bool = False
    remade: int = 0  # elements more where the core is recomputed by itself: its inputs laid out anew, its output, that one's gradient
    float32: int = 0  # elements more, in float32 whatever the dtype


Kept = Iterator[Saved | InFlight]


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """The tensors of one training step: before the blocks and in one block (its input first); `loss.after` has the rest. See
    `Transformer.saved`.

    Attributes:
        model: the `Transformer`.
        along: over how many devices sequence parallelism divides the sequence.
        tokens, seq, square: b s, s, b a s².
    """

    model: Any
    dtype: str
    attention: str
    along: int
    tokens: int
    seq: int
    square: int
    heads: int
    key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tensor_parallel: int

    @property
    def stream(self) -> int:
        """The residual stream, b s h."""
        return self.tokens * self.model.hidden_size // self.along

    @property
    def wide(self) -> int:
        """Queries of all heads, b s a d."""
        return self.tokens * self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Keys, or values, of all key-value heads, b s k d."""
        return self.tokens * self.key_value_heads * self.head_dim

    @property
    def inner(self) -> int:
        """Within the MLP, b s f."""
        return self.tokens * self.intermediate_size

    @property
    def table(self) -> int:
        """The token embedding, V h."""
        return self.vocab_size * self.model.hidden_size

    @property
    def waiting(self) -> int:
        """The head's share of the embedding's gradient, which waits for the embedding's own where the two are tied."""
        return self.table if self.model.tie_word_embeddings else 0

    @property
    def beside_mlp(self) -> int:
        """What is in flight beside every place of the MLP."""
        return self.waiting + self.stream

    @property
    def beside(self) -> int:
        """What is in flight beside every place of attention: in a parallel block the MLP's share of the gradient of ln_1's output too."""
        return self.beside_mlp + (self.stream if self.model.parallel_block else 0)

    @property
    def statistic(self) -> str:
        return self.dtype if itemsize(self.dtype) > 4 else "float32"

    def norm(self, name: str, beside: int) -> Kept:
        rms, h = self.model.norm == "rmsnorm", self.model.hidden_size
        yield Saved(f"{name} input", self.stream, self.dtype)
        yield Saved(f"{name} statistics", (1 if rms else 2) * self.tokens // self.along, self.statistic, only="executed")
        yield InFlight(f"{name}", beside + (5 if rms else 2) * self.stream + 2 * h)  # RMSNorm's is written out
        if rms:
            yield Saved(f"{name} normalised", self.stream, self.dtype, only="executed")

    def before(self) -> Kept:
        """The embeddings."""
        stream, table, h = self.stream, self.table, self.model.hidden_size
        yield Saved("token indices", self.tokens, "int64", only="executed")
        tied = max(3 * table, stream + 2 * table)  # head's + embedding's = sum
        yield InFlight("embedding", tied if self.waiting else stream + table)
        if self.model.positions == "learned":
            yield Saved("position indices", self.seq, "int64", only="executed")
            yield InFlight("positions", self.beside_mlp + self.seq * h + (self.model.max_position_embeddings or 0) * h)
        if self.model.positions == "rotary":
            yield Saved("cosines and sines", 2 * self.seq * self.head_dim, self.dtype, only="executed")
        if self.model.positions == "relative":
            yield Saved("position encodings", self.seq * h, self.dtype, only="executed")
        yield _dropped("embedding", stream)

    def block(self) -> Kept:
        """One block, its input first."""
        yield from self.norm("ln_1", self.beside)
        yield Saved("ln_1 output", self.stream, self.dtype)
        yield from self.queries_keys_values()
        yield from self.attention_core()
        yield from self.attention_projection()
        if not self.model.parallel_block:
            yield from self.norm("ln_2", self.beside)
            yield Saved("ln_2 output", self.stream, self.dtype)
        yield from self.mlp()

    def queries_keys_values(self) -> Kept:
        wide, keys = self.wide, self.keys
        columns = self.heads + 2 * self.key_value_heads if self.model.fused_qkv else self.heads
        largest = self.model.hidden_size * columns * self.head_dim  # of the matrices of queries, keys and values
        yield InFlight("queries, keys, values put together", self.beside + wide + 2 * keys + max(wide + 2 * keys, 3 * wide))
        yield InFlight("queries, keys, values projection", self.beside + wide + 2 * keys + 2 * self.stream + largest)
        yield Saved("queries", wide, self.dtype)
        yield Saved("keys", keys, self.dtype)
        yield Saved("values", keys, self.dtype)
        if self.model.positions == "relative":
            yield Saved("queries for positions", wide, self.dtype)
            yield Saved("projected positions", self.seq * self.heads * self.head_dim, self.dtype)

    def attention_core(self) -> Kept:
        beside, wide, keys, square = self.beside, self.wide, self.keys, self.square
        if self.attention == "sdpa":
            yield Saved("log-sum-exp", self.tokens * self.heads, self.statistic, only="executed")
            return
        yield Saved("causal mask", self.seq * self.seq, "bool", core=True, only="executed")
        yield Saved("softmax output", square, self.dtype, core=True)
        yield _dropped("softmax", square, core=True)
        yield Saved("softmax dropout output", square, self.dtype, core=True, only="korthikanti")
        yield InFlight("reduce", beside + wide + keys + square, core=True, remade=2 * wide + 2 * keys)
        # Two gradients, that of the values in the place of the values; or in the forward pass the scores, and masked, and what queries,
        # keys and values are cut from.
        squares = (3 if self.model.positions == "relative" else 2) * square
        remade = max(beside + 3 * wide + 2 * keys - max(beside, wide + 2 * keys), 0)
        yield InFlight("softmax", max(beside, wide + 2 * keys) + squares, core=True, remade=remade)

    def attention_projection(self) -> Kept:
        wide, keys, fused = self.wide, self.keys, self.attention == "sdpa"
        yield Saved("attention output", wide, self.dtype)
        if not fused:  # in the forward pass: scores, queries, keys, values and the result, by name until it returns
            yield InFlight("attention, going forward", self.square + 2 * wide + 2 * keys, core=True)
        matrix = self.heads * self.head_dim * self.model.hidden_size
        yield InFlight("attention projection", self.beside + wide + max(wide + (2 * keys if fused else 0), matrix))
        yield _dropped("attention", self.stream)

    def mlp(self) -> Kept:
        act, inner, beside = self.model.hidden_act, self.inner, self.beside_mlp
        matrix, swiglu = self.model.hidden_size * self.intermediate_size, act == "swiglu"
        if swiglu:
            yield Saved("silu input", inner, self.dtype)
        yield InFlight("mlp up", beside + (2 if swiglu else 1) * inner + self.stream + matrix)
        for name in {"gelu": ["gelu input"], "relu": [], "swiglu": ["silu output", "up output"]}[act]:
            yield Saved(name, inner, self.dtype)
        if act != "relu":
            yield InFlight("mlp activation", beside + (3 if swiglu else 2) * inner)
        yield Saved("mlp down input", inner, self.dtype)
        if act == "relu":
            yield InFlight("mlp activation", beside + 2 * inner)
        yield InFlight("mlp down", beside + inner + matrix)
        yield _dropped("mlp", self.stream)


def _dropped(name: str, elements: int, core: bool = False) -> Saved:
    return Saved(f"{name} dropout mask", elements, "bool", core, only="korthikanti")
