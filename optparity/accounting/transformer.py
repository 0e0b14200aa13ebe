"""A decoder-only Transformer described by its configuration: parameters, FLOPs, activations.

b batch, s sequence, h hidden_size, a heads, k key-value heads, d head_dim, f intermediate_size, L layers, V vocab_size,
t tensor-parallel degree. What tensor parallelism divides, it divides by whole heads; a device has one key-value head at least.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from math import prod

from . import alternate, checks, experts, latent
from . import loss as losses
from .kept import InFlight, Layer, Saved
from .memory import Bytes, itemsize, plus, total
from .parallel import ATTENTION, RECOMPUTE
from .saved import Tensors

CONVENTIONS = {
    "6nd": "6 N per token, N the active parameters",
    "kaplan": "6 N + 6 L s a d per token, N the blocks' matrices",  # arXiv 2001.08361, table 1
    "chinchilla": "3 × the forward terms of its appendix F",  # arXiv 2203.15556, appendix F
    "palm": "6 N + 12 L s a d per token, N the active parameters",  # arXiv 2204.02311, appendix B
    "causal": "3 × forward, attention to what comes before only",
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
        hidden_act: "gelu" or "relu", or "swiglu" or "geglu" with their third matrix.
        positions: "learned", "rotary" (no parameters), or "relative" (Transformer-XL's: a projection h × ad and two vectors ad per layer).
        norm: "layernorm" or "rmsnorm", the latter without bias.
        bias: whether matrices and LayerNorms have biases; the head has none.
        tie_word_embeddings: whether the head is the token embedding.
        parallel_block: attention and MLP side by side behind one norm (PaLM).
        fused_qkv: one tensor for queries, keys and values, as in GPT-2. Where one of them stays a view, the whole is kept.
        repeat_kv: keys and values of grouped queries are laid out anew for each query head, as transformers' eager attention and torchtitan
            do; by default where attention is written out. The fused kernel shares them (`enable_gqa`).
        qkv_bias, proj_bias, mlp_bias: biases of queries, keys and values, of the attention's projection, of the MLP; as `bias` by default.
        head_bias: whether the head has a bias.
        block_norms: norms of a block: 2, or 1 in a parallel block, by default; 2 in a parallel block (GPT-NeoX); 4, two of them behind
            attention and MLP (Gemma 2).
        qk_norm: RMSNorm over each head's queries and keys (Qwen 3).
        rotary_dim: of each head, turned by rotary positions; d by default.
        attention_softcap, logit_softcap: tanh of the scores, of the logits (Gemma 2).
        vocab_multiple: the vocabulary is padded to a multiple of it; the rows are parameters.
        sliding_window: a token attends to so many, itself among them; to all before it by default.
        full_attention_every: each so-many-th layer has no window (Gemma 3's 6).
        num_experts, num_experts_per_tok: E experts in the place of the MLP, and how many a token is sent to.
        moe_intermediate_size: f of an expert; intermediate_size by default.
        num_dense_layers: so many first layers have an MLP and no experts (DeepSeek).
        shared_expert_intermediate_size: f of all shared experts together, which every token goes to.
        shared_expert_gate: a matrix h × 1 whose sigmoid weighs the shared experts (Qwen 2 MoE).
        router_bias: E numbers that balance the load (DeepSeek-V3).
        norm_topk_prob: whether the weights of a token's experts are divided by their sum.
        capacity_factor: each expert takes ⌈factor · tokens · k / E⌉ rows, padded; by default as many as come, none is dropped.
        kv_lora_rank, q_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim: multi-head latent attention (DeepSeek-V2); without
            q_lora_rank queries come of one matrix.
    Exactness: parameters and executed FLOPs exact. Activations exact to the byte for PyTorch on CPU in float32, trained by
        cross-entropy, for learned positions and LayerNorm; and for rotary positions, RMSNorm, experts, windows and latent attention as
        the tests write them (a fused RMSNorm does not keep the normalised input). With what is in
        flight in the backward pass, the total is an upper bound for these, a few per cent above the measured peak where gradients stand
        already (heads together at most 2 hidden_size wide). Relative positions are counted by formula, never measured.
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
    repeat_kv: bool | None = None
    qkv_bias: bool | None = None
    proj_bias: bool | None = None
    mlp_bias: bool | None = None
    head_bias: bool = False
    block_norms: int | None = None
    qk_norm: bool = False
    rotary_dim: int | None = None
    attention_softcap: bool = False
    logit_softcap: bool = False
    vocab_multiple: int = 1
    sliding_window: int | None = None
    full_attention_every: int | None = None
    num_experts: int | None = None
    num_experts_per_tok: int | None = None
    moe_intermediate_size: int | None = None
    num_dense_layers: int = 0
    shared_expert_intermediate_size: int | None = None
    shared_expert_gate: bool = False
    router_bias: bool = False
    norm_topk_prob: bool = True
    capacity_factor: float | None = None
    kv_lora_rank: int | None = None
    q_lora_rank: int | None = None
    qk_nope_head_dim: int | None = None
    qk_rope_head_dim: int | None = None
    v_head_dim: int | None = None

    def __post_init__(self) -> None:
        who = "transformer"
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is bool or (field.type == bool | None and value is not None):
                checks.flag(who, **{field.name: value})
            elif field.type in (int, int | None) and (field.default is MISSING or value is not None):
                checks.size(who, 0 if field.name == "num_dense_layers" else 1, **{field.name: value})
        checks.at_most(who, 100_000, num_hidden_layers=self.num_hidden_layers, num_experts=self.num_experts or 0)  # counted one by one
        checks.one_of(who, ("gelu", "relu", "swiglu", "geglu"), hidden_act=self.hidden_act)
        checks.one_of(who, ("learned", "rotary", "relative"), positions=self.positions)
        checks.one_of(who, ("layernorm", "rmsnorm"), norm=self.norm)
        if self.positions == "learned":
            checks.size(f"{who} with learned positions", max_position_embeddings=self.max_position_embeddings)
        if self.block_norms is not None:
            checks.one_of(f"{who} with a parallel block" if self.parallel_block else who, self._norms_known, block_norms=self.block_norms)
        latent.check(self)
        if self.head_dim is None and self.kv_lora_rank is None:
            checks.divides(who, "num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        a, k, d, _ = self.sizes
        checks.divides(who, "num_key_value_heads", k, "num_attention_heads", a)
        if self.rotary_dim is not None:
            checks.one_of(f"{who} with rotary_dim", ("rotary",), positions=self.positions)
            if self.rotary_dim > d:
                raise ValueError(f"{who}: rotary_dim is at most head_dim, {d}; got {self.rotary_dim}.")
        if self.full_attention_every is not None and self.sliding_window is None:
            raise ValueError(f"{who}: full_attention_every is for a sliding_window; got {self.full_attention_every} and none.")
        experts.check(self)

    @property
    def _norms_known(self) -> tuple[int, ...]:
        return (1, 2) if self.parallel_block else (2, 4)

    @property
    def norms(self) -> int:
        """Norms of a block."""
        return self.block_norms or self._norms_known[0]

    @property
    def gated(self) -> bool:
        """Whether the MLP has a third matrix."""
        return self.hidden_act in ("swiglu", "geglu")

    @property
    def layers(self) -> list[Layer]:
        """The kind of each block, the first one first."""
        every = self.full_attention_every
        return [
            Layer(
                experts=self.num_experts is not None and i >= self.num_dense_layers,
                window=None if every and (i + 1) % every == 0 else self.sliding_window,
            )
            for i in range(self.num_hidden_layers)
        ]

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """(a, k, d, f), the defaults filled in."""
        h, a = self.hidden_size, self.num_attention_heads
        if self.kv_lora_rank is not None:
            return a, a, latent.query_dim(self), self.intermediate_size or 4 * h
        return a, self.num_key_value_heads or a, self.head_dim or h // a, self.intermediate_size or 4 * h

    @property
    def value_dim(self) -> int:
        """Of a head's values: d, but for latent attention."""
        return self.v_head_dim or self.sizes[2]

    # parameters

    def weights(self, tensor_parallel: int = 1, expert_parallel: int = 1) -> dict[str, tuple[int, ...]]:
        """Name -> shape, on one of t devices, with one of so many shares of the experts."""
        a, k, d, f, v = self._on_one_of(tensor_parallel)
        h = self.hidden_size
        found: dict[str, tuple[int, ...]] = {}

        def linear(name: str, rows: int, columns: int, bias: bool | None = None) -> None:
            found[f"{name}.weight"] = (rows, columns)
            if self.bias if bias is None else bias:
                found[f"{name}.bias"] = (columns,)

        def norm(name: str, width: int = h) -> None:
            found[f"{name}.weight"] = (width,)
            if self.bias and self.norm == "layernorm":
                found[f"{name}.bias"] = (width,)

        def mlp(name: str, width: int) -> None:
            if self.gated:
                linear(f"{name}.gate", h, width, self.mlp_bias)
            linear(f"{name}.c_fc", h, width, self.mlp_bias)
            linear(f"{name}.c_proj", width, h, self.mlp_bias)

        found["wte.weight"] = (v, h)
        if self.positions == "learned":
            found["wpe.weight"] = (self.max_position_embeddings or 0, h)
        for i, layer in enumerate(self.layers):
            norm(f"h.{i}.ln_1")
            if self.kv_lora_rank is not None:
                found |= latent.weights(self, f"h.{i}.attn", a)
            elif self.fused_qkv:
                linear(f"h.{i}.attn.c_attn", h, (a + 2 * k) * d, self.qkv_bias)
            else:
                for name, heads in {"q": a, "k": k, "v": k}.items():
                    linear(f"h.{i}.attn.{name}", h, heads * d, self.qkv_bias)
            if self.positions == "relative":
                found |= {f"h.{i}.attn.r": (h, a * d), f"h.{i}.attn.r_w_bias": (a * d,), f"h.{i}.attn.r_r_bias": (a * d,)}
            if self.qk_norm:
                found |= {f"h.{i}.attn.q_norm.weight": (d,), f"h.{i}.attn.k_norm.weight": (d,)}
            linear(f"h.{i}.attn.c_proj", a * self.value_dim, h, self.proj_bias)
            for n in range(2, self.norms + 1):
                norm(f"h.{i}.ln_{n}")
            if layer.experts:
                experts.weights(self, f"h.{i}.mlp", found, mlp, tensor_parallel, expert_parallel)
            else:
                mlp(f"h.{i}.mlp", f)
        norm("ln_f")
        if not self.tie_word_embeddings:
            found["head.weight"] = (v, h)
        if self.head_bias:
            found["head.bias"] = (v,)
        return found

    def parameters_by_part(self) -> dict[str, int]:
        """Parameters of embedding, positions, attention, mlp (router and shared experts in it), norms and head, and of experts if any.

        A tied head has none.
        """
        return dict(_by_part(self))

    @property
    def parameters(self) -> int:
        return sum(self.parameters_by_part().values())

    @property
    def active_parameters(self) -> int:
        """Those that work for a token: of the experts only the chosen and the shared."""
        own = self.parameters_by_part().get("experts", 0)
        return self.parameters - own + own * (self.num_experts_per_tok or 0) // (self.num_experts or 1)

    @property
    def non_embedding_parameters(self) -> int:
        """All but token embedding, learned positions and an untied head."""
        parts = self.parameters_by_part()
        return parts["attention"] + parts["mlp"] + parts["norms"] + parts.get("experts", 0)

    # FLOPs

    def block_flops(self, batch: int, seq: int, layer: Layer | None = None) -> dict[str, int]:
        """Forward FLOPs of each product in one block (the last kind by default): 2 m n k each; no causal halving, no window."""
        layer = self.layers[-1] if layer is None else layer
        h, (a, k, d, f) = self.hidden_size, self.sizes
        tokens, pairs = batch * seq, 2 * batch * seq * seq * a
        found = latent.flops(self, tokens) if self.kv_lora_rank is not None else {"kqv": 2 * tokens * h * (a + 2 * k) * d}
        found |= {"scores": pairs * d, "reduce": pairs * self.value_dim, "proj": 2 * tokens * a * self.value_dim * h}
        if self.positions == "relative":
            found |= {"relative projection": 2 * seq * h * a * d, "relative scores": pairs * d}
        ups = ("ffw1", "gate") if self.gated else ("ffw1",)
        if layer.experts:
            return found | experts.flops(self, tokens, (*ups, "ffw2"))
        return found | dict.fromkeys((*ups, "ffw2"), 2 * tokens * h * f)

    def head_flops(self, batch: int, seq: int) -> int:
        return 2 * batch * seq * self.hidden_size * self.padded_vocab_size

    def forward_flops(self, batch: int, seq: int) -> int:
        """The forward pass: L blocks and the head."""
        return sum(self._products(batch, seq).values()) + self.head_flops(batch, seq)

    def _products(self, batch: int, seq: int) -> dict[str, int]:
        """Forward FLOPs of each product in all blocks together."""
        found: Counter[str] = Counter()
        for layer, count in Counter(self.layers).items():
            found.update({name: count * of for name, of in self.block_flops(batch, seq, layer).items()})
        return found

    @property
    def padded_vocab_size(self) -> int:
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

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
        layers, tokens, products = self.num_hidden_layers, batch * seq, self._products(batch, seq)
        core = {name: of for name, of in products.items() if name in ("scores", "reduce", "relative scores")}
        if convention == "6nd":
            return 6 * self.active_parameters * tokens
        if convention == "kaplan":
            matrices = sum(of for name, of in products.items() if name not in core and not name.startswith("relative"))
            return 3 * (matrices + products["scores"])
        if convention == "chinchilla":
            embeddings, softmax = self.head_flops(batch, seq), 3 * self.num_attention_heads * tokens * seq
            listed = layers * softmax + sum(of for name, of in products.items() if not name.startswith("relative"))
            return 3 * (embeddings + listed + self.head_flops(batch, seq))
        if convention == "palm":
            return 6 * self.active_parameters * tokens + 3 * (products["scores"] + products["reduce"])
        if convention == "causal":
            return 3 * (self.forward_flops(batch, seq) - sum(core.values()) + self._causal(batch, seq, core))
        fused = attention == "sdpa"  # keeps nothing of the core that could be dropped
        scores = products["scores"] if fused else 0
        if recompute == "alternate":
            again = sum(count * alternate.again(self, tokens, layer) for layer, count in Counter(self.layers).items())
        else:
            again = {"none": 0, "selective": 0 if fused else sum(core.values()), "full": sum(products.values())}[recompute]
        return 3 * self.forward_flops(batch, seq) + again + scores

    def _causal(self, batch: int, seq: int, core: dict[str, int]) -> int:
        """The attention core with each token's own past only: s²/2 pairs, with a window w of fewer tokens s w − w²/2."""
        per_pair = sum(core.values()) // (self.num_hidden_layers * seq * seq)
        twice = (2 * seq * window - window * window for window in (min(layer.window or seq, seq) for layer in self.layers))
        return per_pair * sum(twice) // 2

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
        layer: Layer | None = None,
    ) -> tuple[list[Saved | InFlight], list[Saved | InFlight], list[Saved | InFlight]]:
        """What the forward pass keeps before the blocks, in one block (its input first) and after them, in order; on one device. Of
        the last block, or of one of that kind.

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
            layer=self.layers[-1] if layer is None else layer,
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
            return alternate.kept(self, saved, how.get("layer") or self.layers[-1], batch * seq)
        block = self._counted(saved, by)
        kept = {"none": block, "selective": [one for one in block if not one.core], "full": block[:1]}[recompute]
        return total((one.dtype, one.bytes) for one in kept)

    def activations(self, batch: int, seq: int, by: str = "executed", recompute: str = "none", **how) -> Bytes:
        """Bytes that all blocks and what is outside them keep."""
        return plus(self.blocks(batch, seq, self.layers, by, recompute, **how), *self.outside(batch, seq, by, **how))

    def blocks(self, batch: int, seq: int, layers: Sequence[Layer], by: str, recompute: str, **how) -> Bytes:
        """Bytes that blocks of these kinds keep."""
        kinds = Counter(layers)
        kept = {layer: self.block_activations(batch, seq, by, recompute, **how, layer=layer) for layer in kinds}
        return total((dtype, kinds[layer] * found) for layer, of in kept.items() for dtype, found in of.items())

    def outside(self, batch: int, seq: int, by: str, **how) -> tuple[Bytes, Bytes]:
        """Bytes that are kept before the blocks, and after them."""
        before, _, after = (total((one.dtype, one.bytes) for one in self._counted(part, by)) for part in self.saved(batch, seq, **how))
        return before, after

    def temporaries(self, batch: int, seq: int, recompute: str = "none", **how) -> dict[str, Bytes]:
        """What PyTorch's backward pass holds beyond `activations`, bytes at each of its places, in the last block of each kind.

        The step needs the largest of them: with a large vocabulary "log-softmax", two tensors b s V while all else is still kept.
        Counted are gradients on their way, gradients of weights before they are added to those that stand already (as when they
        accumulate, or where ZeRO divides them: a step that starts without gradients needs less), and what is recomputed. Freed is what
        the backward pass has gone by. `how` as for `saved`.
        """
        kept = self.activations(batch, seq, "executed", recompute, **how)
        return beyond(self.places(batch, seq, self.layers, recompute, **how), kept)

    def places(self, batch: int, seq: int, layers: Sequence[Layer], recompute: str = "none", **how) -> Iterator[tuple[str, Bytes]]:
        """All that stands at each place of PyTorch's backward pass through so many blocks, of `activations` and `temporaries`."""
        before, _, after = self.saved(batch, seq, **how)
        dtype = how.get("dtype", "float32")
        scalar = losses.scalar_dtype(how.get("loss", "as-is"), dtype)
        below = {scalar: 2 * itemsize(scalar)}  # the loss and its gradient
        below = plus(below, total((one.dtype, one.bytes) for one in after if isinstance(one, Saved) and one.only == "held"))

        def back(
            places: list[Saved | InFlight], below: Bytes, core: bool = True, extra: Callable[[InFlight], int] = lambda _: 0
        ) -> Iterator[tuple[str, Bytes]]:
            alive = [one for one in places if isinstance(one, InFlight) or (one.only in (None, "executed") and (core or not one.core))]
            for i, place in enumerate(alive):
                if isinstance(place, InFlight) and (core or not place.core):
                    kept_here = [(one.dtype, one.bytes) for one in alive[:i] if isinstance(one, Saved)]
                    in_flight = {dtype: (place.elements + extra(place)) * itemsize(dtype)}
                    yield place.name, plus(below, total(kept_here), in_flight, {"float32": 4 * place.float32})

        yield from back(before, below)
        below = plus(below, total((one.dtype, one.bytes) for one in self._counted(before, "executed")))
        for layer, i in {layer: i for i, layer in enumerate(layers)}.items():
            block = self.saved(batch, seq, **how, layer=layer)[1]
            others = plus(below, self.blocks(batch, seq, layers[:i], "executed", recompute, **how))
            if recompute == "selective":  # the core is made again when the backward pass comes to it
                core = [one for one in block if isinstance(one, Saved) or one.core]
                yield from back(core, others, extra=lambda place: place.remade)
                yield from back(block, others, core=False)
            elif recompute in ("full", "alternate"):  # the block's output, made again, and its gradient stay until the block is done
                yield from back(block, others, extra=lambda _, block=block: 2 * block[0].elements)
            else:
                yield from back(block, others)
        yield from back(after, plus(below, self.blocks(batch, seq, layers, "executed", recompute, **how)))

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
        return a // t, max(k // t, 1), d, f // t, -(-self.padded_vocab_size // t)

    def _check(self, batch: int, seq: int) -> None:
        checks.size("transformer", batch=batch, seq=seq)
        if self.positions == "learned" and seq > (self.max_position_embeddings or 0):
            raise ValueError(f"transformer: seq is at most max_position_embeddings, {self.max_position_embeddings}; got {seq}.")


def beyond(places: Iterable[tuple[str, Bytes]], kept: Bytes) -> dict[str, Bytes]:
    """What there is at each place beyond what is kept; at places of one name, of blocks of several kinds, the most."""
    found: dict[str, Bytes] = {}
    for name, here in places:
        more = total((dtype, max(count - kept.get(dtype, 0), 0)) for dtype, count in here.items())
        found[name] = max(more, found.get(name, {}), key=lambda of: sum(of.values()))
    return found


@lru_cache(maxsize=64)  # a model of many experts has many weights
def _by_part(model: Transformer) -> tuple[tuple[str, int], ...]:
    names = ("embedding", "positions", "attention", "mlp", "norms", "head", *(["experts"] if model.num_experts else []))
    found: dict[str, int] = dict.fromkeys(names, 0)
    known = {"wte": "embedding", "wpe": "positions", "experts": "experts", "attn": "attention", "mlp": "mlp", "head": "head"}
    for name, shape in model.weights().items():
        words = name.split(".")
        found[next((part for word, part in known.items() if word in words), "norms")] += prod(shape)
    return tuple(found.items())
