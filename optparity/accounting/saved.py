"""What the forward pass of a Transformer keeps, and what the backward pass holds at each place on its way back, in order.

The names of the sizes are those of transformer.py: b s tokens, h hidden_size, a heads, k key-value heads, d head_dim, f intermediate_size,
V vocab_size, all on one device.
"""

from dataclasses import dataclass
from typing import Any

from . import experts, latent
from .kept import InFlight, Kept, Layer, Saved
from .memory import itemsize


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """The tensors of one training step: before the blocks and in one block (its input first); `loss.after` has the rest. See
    `Transformer.saved`.

    Attributes:
        model: the `Transformer`.
        layer: the kind of block.
        along: over how many devices sequence parallelism divides the sequence.
        tokens, seq, square: b s, s, b a s².
    """

    model: Any
    layer: Layer
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
    def values(self) -> int:
        """Values of all key-value heads."""
        return self.tokens * self.key_value_heads * self.model.value_dim

    @property
    def summed(self) -> int:
        """What attention gives its projection, b s a d, with the values' d."""
        return self.tokens * self.heads * self.model.value_dim

    @property
    def repeats(self) -> bool:
        """Whether the model lays grouped keys and values out anew, where that makes a difference."""
        return self.attention != "sdpa" if self.model.repeat_kv is None else self.model.repeat_kv

    @property
    def repeated(self) -> bool:
        """Whether keys and values are laid out anew for each query head; those of one head only once they are a product of batches."""
        one = self.key_value_heads == 1
        in_place = one and (self.attention == "sdpa" or self.tokens == self.seq)
        return self.repeats and self.heads > self.key_value_heads and not in_place

    @property
    def values_stay_views(self) -> bool:
        """Whether the attention core takes keys and values as they were cut from a larger tensor.

        The fused kernel does; a product of batches needs rows at one distance from the other, as a single sequence or a single head has.
        """
        return not self.repeated and (self.attention == "sdpa" or self.tokens == self.seq or self.key_value_heads == 1)

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
    def behind(self) -> int:
        """The gradient that a norm behind attention or the MLP hands on: beside the stream's own, which it is not."""
        return self.stream if self.model.norms == 4 else 0

    def of_bias(self, own: bool | None, width: int) -> int:
        """The gradient of a bias, which stands beside its matrix's; `own` as the fields say it."""
        return width if (self.model.bias if own is None else own) else 0

    @property
    def statistic(self) -> str:
        return self.dtype if itemsize(self.dtype) > 4 else "float32"

    def norm(self, name: str, beside: int) -> Kept:
        if self.model.norm == "rmsnorm":
            yield from self.rms(name, self.stream, self.tokens // self.along, beside)
            return
        yield Saved(f"{name} input", self.stream, self.dtype)
        yield Saved(f"{name} statistics", 2 * self.tokens // self.along, self.statistic, only="executed")
        yield InFlight(f"{name}", beside + 2 * self.stream + 2 * self.model.hidden_size)

    def rms(self, name: str, elements: int, rows: int, beside: int, whole: int | None = None) -> Kept:
        """An RMSNorm, written out; `whole` where its input is a view of so many elements, 0 where that is counted elsewhere."""
        if whole != 0:
            yield Saved(f"{name} input", elements if whole is None else whole, self.dtype)
        yield Saved(f"{name} statistics", rows, self.statistic, only="executed")
        yield InFlight(name, beside + 5 * elements + 2 * elements // rows)
        yield Saved(f"{name} normalised", elements, self.dtype, only="executed")

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
            yield Saved("cosines and sines", 2 * self.seq * self.turned, self.dtype, only="executed")
        if self.model.positions == "relative":
            yield Saved("position encodings", self.seq * h, self.dtype, only="executed")
        yield _dropped("embedding", stream)

    @property
    def turned(self) -> int:
        """Of a head, by rotary positions."""
        return self.model.qk_rope_head_dim or self.model.rotary_dim or self.head_dim  # less than d only with rotary positions

    def block(self) -> Kept:
        """One block, its input first."""
        yield from self.norm("ln_1", self.beside)
        yield Saved("ln_1 output", self.stream, self.dtype)
        yield from latent.saved(self) if self.model.kv_lora_rank is not None else self.queries_keys_values()
        yield from self.attention_core()
        yield from self.attention_projection()
        if self.model.norms == 4:
            yield from self.norm("norm behind attention", self.beside)
        if not self.model.parallel_block:
            yield from self.norm("ln_2", self.beside)
        elif self.model.norms == 2:  # of the same input as ln_1
            yield Saved("ln_2 statistics", (1 if self.model.norm == "rmsnorm" else 2) * self.tokens, self.statistic, only="executed")
            yield InFlight("ln_2", self.beside + 5 * self.stream)
            if self.model.norm == "rmsnorm":
                yield Saved("ln_2 normalised", self.stream, self.dtype, only="executed")
        if self.model.norms > 1:
            yield Saved("ln_2 output", self.stream, self.dtype)
        yield from experts.saved(self) if self.layer.experts else self.mlp()
        if self.model.norms == 4:
            yield from self.norm("norm behind the MLP", self.beside)

    def queries_keys_values(self) -> Kept:
        model, wide, keys, dtype = self.model, self.wide, self.keys, self.dtype
        columns = self.heads + 2 * self.key_value_heads if model.fused_qkv else self.heads
        columns *= self.head_dim
        largest = model.hidden_size * columns + self.of_bias(model.qkv_bias, columns)  # of the matrices of queries, keys and values
        yield InFlight("queries, keys, values put together", self.beside + wide + 2 * keys + max(wide + 2 * keys, 3 * wide))
        yield InFlight("queries, keys, values projection", self.beside + wide + 2 * keys + 2 * self.stream + largest)
        queries_view, keys_view, values_view = self._views() if model.fused_qkv else (False, False, False)
        if model.fused_qkv and (model.qk_norm or queries_view or values_view):
            yield Saved("queries, keys and values", wide + 2 * keys, dtype, only="executed")
        if model.qk_norm:
            for name, of in {"query": wide, "key": keys}.items():
                yield from self.rms(
                    f"{name} norm", of, of // self.head_dim, self.beside + wide + 2 * keys, whole=0 if model.fused_qkv else of
                )
        for name, of, is_view in (("queries", wide, queries_view), ("keys", keys, keys_view), ("values", keys, values_view)):
            yield Saved(name, of, dtype, only="korthikanti" if is_view else None)
            if name != "queries" and self.repeated:
                yield Saved(f"{name} repeated", wide - of, dtype, only="executed")
        if model.positions == "relative":
            yield Saved("queries for positions", wide, dtype)
            yield Saved("projected positions", self.seq * self.heads * self.head_dim, dtype)

    def _views(self) -> tuple[bool, bool, bool]:
        """Whether the attention core takes queries, keys and values as they lie in the fused tensor.

        What is turned or normalised is a tensor of its own. Heads that share keys are laid out side by side, but in the fused kernel.
        """
        turned = self.model.positions == "rotary" or self.model.qk_norm
        fused, views, grouped = self.attention == "sdpa", self.values_stay_views, self.heads > self.key_value_heads
        shared = views and (fused or not grouped or self.seq == 1)
        as_they_lie = (fused or self.tokens == self.seq) if self.repeats and grouped else shared
        return as_they_lie and not turned and self.model.positions != "relative", views and not turned, views

    def attention_core(self) -> Kept:
        beside, wide, keys, square = self.beside, self.wide, self.keys, self.square
        if self.attention == "sdpa":
            yield Saved("log-sum-exp", self.tokens * self.heads, self.statistic, only="executed")
            if self.layer.window is not None and self.layer.window < self.seq:  # the kernel takes the mask as numbers to add
                yield Saved("window's mask", self.seq * self.seq, self.dtype, only="executed")
            return
        if self.model.attention_softcap:
            yield Saved("capped scores", square, self.dtype, core=True, only="executed")
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
        yield Saved("attention output", self.summed, self.dtype)
        if fused and self.turned < self.head_dim and self.heads > 1 and self.seq > 1:
            # The kernel lays its result out as the queries, which `cat` has put together head by head; the projection needs token by token.
            yield Saved("attention output by heads", self.summed, self.dtype, only="executed")
        if not fused:  # in the forward pass: scores, queries, keys, values and the result, by name until it returns
            yield InFlight("attention, going forward", self.square + 2 * wide + 2 * keys, core=True)
        h = self.model.hidden_size
        matrix = self.heads * self.model.value_dim * h + self.of_bias(self.model.proj_bias, h)
        of_kernel = 2 * (wide if self.repeated else keys) if fused else 0  # gradients of keys and values, as the kernel took them
        yield InFlight("attention projection", self.beside + self.behind + wide + max(wide + of_kernel, matrix))
        yield _dropped("attention", self.stream)

    def mlp(self) -> Kept:
        yield from self.mlp_of("mlp", self.inner, self.intermediate_size, self.beside_mlp, self.behind)
        yield _dropped("mlp", self.stream)

    def mlp_of(self, name: str, inner: int, width: int, beside: int, of_result: int) -> Kept:
        """An MLP of that width with so many elements within; `of_result` is the gradient of its result, where that is not the stream's."""
        act, gated, matrix = self.model.hidden_act, self.model.gated, self.model.hidden_size * width
        of_up, of_down = (self.of_bias(self.model.mlp_bias, columns) for columns in (width, self.model.hidden_size))
        if gated:
            yield Saved(f"{name} gate input", inner, self.dtype)
        yield InFlight(f"{name} up", beside + (2 if gated else 1) * inner + self.stream + matrix + of_up)
        for of in ["gate output", "up output"] if gated else {"gelu": ["gelu input"], "relu": []}[act]:
            yield Saved(f"{name} {of}", inner, self.dtype)
        if act != "relu":
            yield InFlight(f"{name} activation", beside + (3 if gated else 2) * inner)
        yield Saved(f"{name} down input", inner, self.dtype)
        if act == "relu":
            yield InFlight(f"{name} activation", beside + 2 * inner)
        yield InFlight(f"{name} down", beside + of_result + inner + matrix + of_down)


def _dropped(name: str, elements: int, core: bool = False) -> Saved:
    return Saved(f"{name} dropout mask", elements, "bool", core, only="korthikanti")
