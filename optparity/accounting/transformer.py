"""A decoder-only Transformer described by its configuration: parameters, FLOPs, activations.

b batch, s sequence, h hidden_size, a heads, k key-value heads, d head_dim, f intermediate_size, L layers, V vocab_size,
t tensor-parallel degree. What tensor parallelism divides, it divides by whole heads; a device has one key-value head at least.
"""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from math import prod

from . import alternate, checks
from . import loss as losses
from .memory import Bytes, itemsize, plus, total
from .parallel import ATTENTION, RECOMPUTE
from .saved import InFlight, Saved, Tensors

CONVENTIONS = {
    "6nd": "6 N per token, N all parameters",
    "kaplan": "6 N + 6 L s a d per token, N the blocks' matrices",  # arXiv 2001.08361, table 1
    "chinchilla": "3 × the forward terms of its appendix F",  # arXiv 2203.15556, appendix F
    "palm": "6 N + 12 L s a d per token, N all parameters",  # arXiv 2204.02311, appendix B
    "executed": "the matrix products done: 3 × forward, and recomputation",
}


@dataclass(frozen=True)
class Transformer:
    """A decoder-only Transformer with pre-norm blocks; names as in Hugging Face's configurations, defaults as in GPT-2.

    Attributes:
        num_key_value_heads: grouped-query attention; num_attention_heads by default.
        head_dim: d; hidden_size / num_attention_heads by default.
        intermediate_size: f; 4 hidden_size by default.
        max_position_embeddings: needed for learned positions, and the longest sequence then.
        hidden_act: "gelu" or "relu", or "swiglu" with its third matrix.
        positions: "learned", "rotary" (no parameters), or "relative" (Transformer-XL's: a projection h × ad and two vectors ad per layer).
        norm: "layernorm" or "rmsnorm", the latter without bias.
        bias: whether matrices and LayerNorms have biases; the head has none.
        tie_word_embeddings: whether the head is the token embedding.
        parallel_block: attention and MLP side by side behind one norm (PaLM).
        fused_qkv: one tensor for queries, keys and values, as in GPT-2; only how many tensors there are depends on it.
    Exactness: parameters and executed FLOPs exact. Activations exact to the byte for PyTorch on CPU in float32, trained by
        cross-entropy, for learned positions and LayerNorm; and for rotary positions and RMSNorm as the tests write them (a
        fused RMSNorm does not keep the normalised input). With what is in flight in the backward pass, the total is an upper bound for
        these, a few per cent above the measured peak where gradients stand already (heads together at most 2 hidden_size wide).
        Relative positions are counted by formula, never measured.
    Raises: ValueError where a field is not what is said here.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    intermediate_size: int | None = None
    max_position_embeddings: int | None = None
    hidden_act: str = "gelu"
    positions: str = "learned"
    norm: str = "layernorm"
    bias: bool = True
    tie_word_embeddings: bool = True
    parallel_block: bool = False
    fused_qkv: bool = True

    def __post_init__(self) -> None:
        who = "transformer"
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is bool:
                checks.flag(who, **{field.name: value})
            elif field.type is not str and (field.default is MISSING or value is not None):
                checks.size(who, **{field.name: value})
        if self.head_dim is None:
            checks.divides(who, "num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        a, k, _, _ = self.sizes
        checks.divides(who, "num_key_value_heads", k, "num_attention_heads", a)
        checks.one_of(who, ("gelu", "relu", "swiglu"), hidden_act=self.hidden_act)
        checks.one_of(who, ("learned", "rotary", "relative"), positions=self.positions)
        checks.one_of(who, ("layernorm", "rmsnorm"), norm=self.norm)
        if self.positions == "learned":
            checks.size(f"{who} with learned positions", max_position_embeddings=self.max_position_embeddings)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """(a, k, d, f), the defaults filled in."""
        h, a = self.hidden_size, self.num_attention_heads
        return a, self.num_key_value_heads or a, self.head_dim or h // a, self.intermediate_size or 4 * h

    # parameters

    def weights(self, tensor_parallel: int = 1) -> dict[str, tuple[int, ...]]:
        """Name -> shape, on one of t devices."""
        a, k, d, f, v = self._on_one_of(tensor_parallel)
        h, ad = self.hidden_size, a * d
        found: dict[str, tuple[int, ...]] = {}

        def linear(name: str, rows: int, columns: int) -> None:
            found[f"{name}.weight"] = (rows, columns)
            if self.bias:
                found[f"{name}.bias"] = (columns,)

        def norm(name: str) -> None:
            found[f"{name}.weight"] = (h,)
            if self.bias and self.norm == "layernorm":
                found[f"{name}.bias"] = (h,)

        found["wte.weight"] = (v, h)
        if self.positions == "learned":
            found["wpe.weight"] = (self.max_position_embeddings or 0, h)
        for i in range(self.num_hidden_layers):
            norm(f"h.{i}.ln_1")
            if self.fused_qkv:
                linear(f"h.{i}.attn.c_attn", h, (a + 2 * k) * d)
            else:
                for name, heads in {"q": a, "k": k, "v": k}.items():
                    linear(f"h.{i}.attn.{name}", h, heads * d)
            if self.positions == "relative":
                found |= {f"h.{i}.attn.r": (h, ad), f"h.{i}.attn.r_w_bias": (ad,), f"h.{i}.attn.r_r_bias": (ad,)}
            linear(f"h.{i}.attn.c_proj", ad, h)
            if not self.parallel_block:
                norm(f"h.{i}.ln_2")
            if self.hidden_act == "swiglu":
                linear(f"h.{i}.mlp.gate", h, f)
            linear(f"h.{i}.mlp.c_fc", h, f)
            linear(f"h.{i}.mlp.c_proj", f, h)
        norm("ln_f")
        if not self.tie_word_embeddings:
            found["head.weight"] = (v, h)
        return found

    def parameters_by_part(self) -> dict[str, int]:
        """Parameters of embedding, positions, attention, mlp, norms and head; a tied head has none."""
        found: dict[str, int] = dict.fromkeys(("embedding", "positions", "attention", "mlp", "norms", "head"), 0)
        known = {"wte": "embedding", "wpe": "positions", "attn": "attention", "mlp": "mlp", "head": "head"}
        for name, shape in self.weights().items():
            found[next((known[word] for word in name.split(".") if word in known), "norms")] += prod(shape)
        return found

    @property
    def parameters(self) -> int:
        return sum(self.parameters_by_part().values())

    @property
    def non_embedding_parameters(self) -> int:
        """All but token embedding, learned positions and an untied head."""
        parts = self.parameters_by_part()
        return parts["attention"] + parts["mlp"] + parts["norms"]

    # FLOPs

    def block_flops(self, batch: int, seq: int) -> dict[str, int]:
        """Forward FLOPs of each product in one block: 2 m n k each; no causal halving."""
        h, (a, k, d, f) = self.hidden_size, self.sizes
        tokens, square = batch * seq, 2 * batch * seq * seq * a * d
        found = {"kqv": 2 * tokens * h * (a + 2 * k) * d, "scores": square, "reduce": square, "proj": 2 * tokens * a * d * h}
        if self.positions == "relative":
            found |= {"relative projection": 2 * seq * h * a * d, "relative scores": square}
        ups = ("ffw1", "gate") if self.hidden_act == "swiglu" else ("ffw1",)
        return found | dict.fromkeys((*ups, "ffw2"), 2 * tokens * h * f)

    def head_flops(self, batch: int, seq: int) -> int:
        return 2 * batch * seq * self.hidden_size * self.vocab_size

    def forward_flops(self, batch: int, seq: int) -> int:
        """The forward pass: L blocks and the head."""
        return self.num_hidden_layers * sum(self.block_flops(batch, seq).values()) + self.head_flops(batch, seq)

    def flops(self, batch: int, seq: int, convention: str = "executed", *, recompute: str = "none", attention: str = "written-out") -> int:
        """FLOPs of a training step, by one of `CONVENTIONS`; only `executed` heeds what is recomputed.

        They are the model's own, as if one device did them all: what tensor parallelism does on every device (key-value heads fewer than
        devices) or for nothing (the vocabulary's padding) is not counted again.

        The appendix of `chinchilla` lists embeddings, QKV, scores, softmax, reduce, projection, dense layers and logits; Transformer-XL's
        products for relative positions are not among them.

        The backward pass is two products for each of the forward pass. "selective" does scores and reduce once more, "full" the whole
        block; `sdpa`'s backward does the scores once more. Exact for matrices; element-wise work and the optimizer's is not counted.
        """
        self._check(batch, seq)
        checks.one_of("transformer", CONVENTIONS, convention=convention)
        checks.one_of("transformer", RECOMPUTE, recompute=recompute)
        checks.one_of("transformer", ATTENTION, attention=attention)
        h, layers, tokens = self.hidden_size, self.num_hidden_layers, batch * seq
        (a, _, d, _), block = self.sizes, self.block_flops(batch, seq)
        if convention == "6nd":
            return 6 * self.parameters * tokens
        if convention == "kaplan":
            matrices = sum(of for name, of in block.items() if name in ("kqv", "proj", "ffw1", "gate", "ffw2"))
            return 3 * layers * (matrices + 2 * tokens * seq * a * d)
        if convention == "chinchilla":
            embeddings, softmax = 2 * tokens * self.vocab_size * h, 3 * a * tokens * seq
            listed = softmax + sum(of for name, of in block.items() if not name.startswith("relative"))
            return 3 * (embeddings + layers * listed + self.head_flops(batch, seq))
        if convention == "palm":
            return 6 * self.parameters * tokens + 12 * layers * a * d * seq * tokens
        core = [of for name, of in block.items() if name in ("scores", "reduce", "relative scores")]
        fused = attention == "sdpa"  # keeps nothing of the core that could be dropped
        again = {"none": 0, "selective": 0 if fused else sum(core), "full": sum(block.values()), "alternate": 0}[recompute]
        if recompute == "alternate":
            again = alternate.again(self, batch, seq, block)
        return 3 * self.forward_flops(batch, seq) + layers * (again + (block["scores"] if fused else 0))

    # activations

    def saved(
        self,
        batch: int,
        seq: int,
        *,
        dtype: str = "float32",
        attention: str = "written-out",
        tensor_parallel: int = 1,
        sequence_parallel: bool = False,
        loss: str = "as-is",
        loss_chunk: int = losses.CHUNK,
    ) -> tuple[list[Saved | InFlight], list[Saved | InFlight], list[Saved | InFlight]]:
        """What the forward pass keeps before the blocks, in one block (its input first) and after them, in order; on one device.

        Two counts come of the one list. `executed`: each storage that autograd keeps, no dropout. `korthikanti` (arXiv 2205.05198,
        section 4): dropout's masks and results and float32 logits as well, but no mask, no statistics and no indices; its 34 sbh + 5 as²b
        bytes in 16 bit are the block of GPT-2. Element sizes follow `dtype`; statistics are float32 at least, as on GPUs.

        The backward pass goes the same way back and frees what it passes. `InFlight` stands behind the last tensor that is still kept
        when it has its gradients in flight: always the gradient of the residual stream and, with a tied head, the head's share of the
        gradient of the embedding, which waits for the embedding's own; and where weights are used, a gradient of them before it is added.
        """
        self._check(batch, seq)
        checks.dtype("transformer", dtype)
        checks.one_of("transformer", ATTENTION, attention=attention)
        checks.flag("transformer", sequence_parallel=sequence_parallel)
        checks.one_of("transformer", losses.LOSSES, loss=loss)
        checks.size("transformer", loss_chunk=loss_chunk)
        a, k, d, f, v = self._on_one_of(tensor_parallel)
        along = tensor_parallel if sequence_parallel else 1
        checks.divides("transformer with sequence_parallel", "tensor_parallel", along, "the sequence", seq)
        tensors = Tensors(
            model=self,
            dtype=dtype,
            attention=attention,
            along=along,
            tokens=batch * seq,
            seq=seq,
            square=batch * a * seq * seq,
            heads=a,
            key_value_heads=k,
            head_dim=d,
            intermediate_size=f,
            vocab_size=v,
            tensor_parallel=tensor_parallel,
        )
        return list(tensors.before()), list(tensors.block()), list(losses.after(tensors, loss, loss_chunk))

    def block_activations(self, batch: int, seq: int, by: str = "executed", recompute: str = "none", **how) -> Bytes:
        """Bytes that one block keeps; `how` as for `saved`. With "full" its input only, with "selective" all but the attention core."""
        checks.one_of("transformer", RECOMPUTE, recompute=recompute)
        saved = self.saved(batch, seq, **how)[1]
        if recompute == "alternate":
            return alternate.kept(self, saved)
        block = self._counted(saved, by)
        kept = {"none": block, "selective": [one for one in block if not one.core], "full": block[:1]}[recompute]
        return total((one.dtype, one.bytes) for one in kept)

    def activations(self, batch: int, seq: int, by: str = "executed", recompute: str = "none", **how) -> Bytes:
        """Bytes that all blocks and what is outside them keep."""
        block = self.block_activations(batch, seq, by, recompute, **how)
        before, _, after = self.saved(batch, seq, **how)
        blocks = [(dtype, self.num_hidden_layers * count) for dtype, count in block.items()]
        return total([*blocks, *((one.dtype, one.bytes) for one in self._counted([*before, *after], by))])

    def temporaries(self, batch: int, seq: int, recompute: str = "none", **how) -> dict[str, Bytes]:
        """What PyTorch's backward pass holds beyond `activations`, bytes at each of its places, in the last block for places in blocks.

        The step needs the largest of them: with a large vocabulary "log-softmax", two tensors b s V while all else is still kept.
        Counted are gradients on their way, gradients of weights before they are added to those that stand already (as when they
        accumulate, or where ZeRO divides them: a step that starts without gradients needs less), and what is recomputed. Freed is what
        the backward pass has gone by. `how` as for `saved`.
        """
        kept = self.activations(batch, seq, "executed", recompute, **how)
        held = self.places(batch, seq, recompute, **how)
        return {name: total((dtype, max(n - kept.get(dtype, 0), 0)) for dtype, n in here.items()) for name, here in held.items()}

    def places(self, batch: int, seq: int, recompute: str = "none", **how) -> dict[str, Bytes]:
        """All that stands at each place of PyTorch's backward pass, of `activations` and `temporaries`."""
        before, block, after = self.saved(batch, seq, **how)
        dtype = how.get("dtype", "float32")
        of_block = self.block_activations(batch, seq, "executed", recompute, **how)
        scalar = losses.scalar_dtype(how.get("loss", "as-is"), dtype)
        below = {scalar: 2 * itemsize(scalar)}  # the loss and its gradient
        below = plus(below, total((one.dtype, one.bytes) for one in after if isinstance(one, Saved) and one.only == "held"))
        found: dict[str, Bytes] = {}

        def back(places: list[Saved | InFlight], below: Bytes, core: bool = True, extra: Callable[[InFlight], int] = lambda _: 0) -> None:
            alive = [one for one in places if isinstance(one, InFlight) or (one.only in (None, "executed") and (core or not one.core))]
            for i, place in enumerate(alive):
                if isinstance(place, InFlight) and (core or not place.core):
                    kept_here = [(one.dtype, one.bytes) for one in alive[:i] if isinstance(one, Saved)]
                    found[place.name] = plus(
                        below, total(kept_here), {dtype: (place.elements + extra(place)) * itemsize(dtype)}, {"float32": 4 * place.float32}
                    )

        back(before, below)
        below = plus(below, total((one.dtype, one.bytes) for one in self._counted(before, "executed")))
        others = plus(below, {name: (self.num_hidden_layers - 1) * count for name, count in of_block.items()})
        if recompute == "selective":  # the core is made again when the backward pass comes to it
            back([one for one in block if isinstance(one, Saved) or one.core], others, extra=lambda place: place.remade)
            back(block, others, core=False)
        elif recompute in ("full", "alternate"):  # the block's output, made again, and its gradient stay until the block is done
            back(block, others, extra=lambda _: 2 * block[0].elements)
        else:
            back(block, others)
        back(after, plus(below, {name: self.num_hidden_layers * count for name, count in of_block.items()}))
        return found

    def _counted(self, saved: list[Saved | InFlight], by: str) -> list[Saved]:
        checks.one_of("transformer", ("executed", "korthikanti"), by=by)
        return [one for one in saved if isinstance(one, Saved) and one.only in (None, by)]

    def _on_one_of(self, t: int) -> tuple[int, int, int, int, int]:
        """(a, k, d, f, V) on one of t devices: key-value heads fewer than t are replicated, the vocabulary is padded."""
        checks.size("transformer", tensor_parallel=t)
        a, k, d, f = self.sizes
        checks.divides("transformer", "tensor_parallel", t, "num_attention_heads", a)
        checks.divides("transformer", "tensor_parallel", t, "intermediate_size", f)
        if k % t and t % k:
            raise ValueError(f"transformer: tensor_parallel divides num_key_value_heads, or is a multiple of it; got {t} and {k}.")
        return a // t, max(k // t, 1), d, f // t, -(-self.vocab_size // t)

    def _check(self, batch: int, seq: int) -> None:
        checks.size("transformer", batch=batch, seq=seq)
        if self.positions == "learned" and seq > (self.max_position_embeddings or 0):
            raise ValueError(f"transformer: seq is at most max_position_embeddings, {self.max_position_embeddings}; got {seq}.")
