"""A mixture of experts in the place of the MLP: parameters, FLOPs, and what is kept.

E num_experts, k num_experts_per_tok, N tokens, f moe_intermediate_size. A router h × E scores the experts, a token goes to the best k, and
their results are weighed and added. No token is dropped, so that the experts work on N k rows in all, however they are shared out; with a
capacity each expert works on ⌈factor N k / E⌉ rows, some of them padding. Shared experts are one MLP that every token goes to.
"""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

from . import checks
from .kept import InFlight, Kept, Saved

FIELDS = {
    "num_experts_per_tok": None,
    "moe_intermediate_size": None,
    "num_dense_layers": 0,
    "shared_expert_intermediate_size": None,
    "shared_expert_gate": False,
    "router_bias": False,
    "norm_topk_prob": True,
    "capacity_factor": None,
}


def check(model: Any) -> None:
    """Fields of experts go together and with the rest of the model.

    Raises: ValueError where they do not.
    """
    who = "transformer"
    if model.num_experts is None:
        for name, default in FIELDS.items():
            if getattr(model, name) != default:
                raise ValueError(f"{who}: {name} is for a model with num_experts; got {getattr(model, name)!r} and none.")
        return
    checks.size(f"{who} with experts", num_experts_per_tok=model.num_experts_per_tok)
    if model.num_experts_per_tok > model.num_experts:
        raise ValueError(f"{who}: num_experts_per_tok is at most num_experts, {model.num_experts}; got {model.num_experts_per_tok}.")
    if model.num_dense_layers > model.num_hidden_layers:
        raise ValueError(f"{who}: num_dense_layers is at most num_hidden_layers, {model.num_hidden_layers}; got {model.num_dense_layers}.")
    if model.shared_expert_gate and model.shared_expert_intermediate_size is None:
        raise ValueError(f"{who}: shared_expert_gate is for a model with shared_expert_intermediate_size; got True and none.")
    if model.parallel_block:
        raise ValueError(f"{who}: experts and a parallel_block are not known together; got num_experts {model.num_experts} and True.")
    factor = model.capacity_factor
    if factor is not None and (isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < float("inf")):
        raise ValueError(f"{who}: capacity_factor is a number > 0; got {factor!r}.")


def width(model: Any) -> int:
    """f of one expert."""
    return model.moe_intermediate_size or model.sizes[3]


def rows(model: Any, tokens: int) -> int:
    """Rows that all experts together work on."""
    chosen = tokens * model.num_experts_per_tok
    if model.capacity_factor is None:
        return chosen
    return model.num_experts * ceil(model.capacity_factor * chosen / model.num_experts)


def weights(
    model: Any, name: str, found: dict[str, tuple[int, ...]], mlp: Callable[[str, int], None], tensor_parallel: int, expert_parallel: int
) -> None:
    """Put the parameters of one block's experts on one device into `found`; `mlp` puts those of one MLP there."""
    found[f"{name}.router.weight"] = (model.hidden_size, model.num_experts)
    if model.router_bias:
        found[f"{name}.router.bias"] = (model.num_experts,)
    checks.divides("transformer", "expert_parallel", expert_parallel, "num_experts", model.num_experts)
    checks.divides("transformer", "tensor_parallel", tensor_parallel, "moe_intermediate_size", width(model))
    for e in range(model.num_experts // expert_parallel):
        mlp(f"{name}.experts.{e}", width(model) // tensor_parallel)
    if (shared := model.shared_expert_intermediate_size) is not None:
        checks.divides("transformer", "tensor_parallel", tensor_parallel, "shared_expert_intermediate_size", shared)
        mlp(f"{name}.shared", shared // tensor_parallel)
        if model.shared_expert_gate:
            found[f"{name}.shared_gate.weight"] = (model.hidden_size, 1)


def sharded(name: str) -> bool:
    """Whether expert parallelism divides the parameter of that name."""
    return ".experts." in name


def flops(model: Any, tokens: int, products: Sequence[str]) -> dict[str, int]:
    """Forward FLOPs of the router, of each of the products of the experts, and of those of the shared ones."""
    h = model.hidden_size
    shared = 2 * tokens * h * (model.shared_expert_intermediate_size or 0)
    each: int = _product_flops(model, tokens) + shared
    found = {"router": _router_flops(model, tokens), **dict.fromkeys(products, each)}
    return found | ({"shared gate": 2 * tokens * h} if model.shared_expert_gate else {})


def routed_flops(model: Any, tokens: int) -> int:
    """Forward FLOPs of the router and of all products of the experts, but for the shared ones."""
    return _router_flops(model, tokens) + (3 if model.gated else 2) * _product_flops(model, tokens)


def _router_flops(model: Any, tokens: int) -> int:
    return 2 * tokens * model.hidden_size * model.num_experts


def _product_flops(model: Any, tokens: int) -> int:
    return 2 * model.hidden_size * rows(model, tokens) * width(model)


def saved(tensors: Any) -> Kept:
    """What a block's experts keep, as `Tensors.mlp` does for an MLP; at each place one expert may have all tokens, at worst.

    The backward pass may come to an expert of few rows while all that the others keep is there: nothing counts as freed among them.
    """
    model, tokens, dtype, statistic = tensors.model, tensors.tokens, tensors.dtype, tensors.statistic
    h, k, here = model.hidden_size, model.num_experts_per_tok, rows(model, tokens)
    fullest = min(tokens, here) if model.capacity_factor is None else here // model.num_experts
    # The gradients of the rows and of their weights are added up expert by expert, with a sum beside its two terms.
    beside = tensors.beside_mlp + tensors.behind + tokens * h + 2 * tokens * k
    yield Saved("router probabilities", tokens * model.num_experts, statistic, only="executed")
    yield Saved("experts chosen", tokens * k, "int64", only="executed")
    yield InFlight("router", beside + 3 * tokens * model.num_experts + h * model.num_experts)
    if model.norm_topk_prob:
        yield Saved("weights of the chosen", tokens * k, statistic, only="executed")
        yield Saved("their sums", tokens, statistic, only="executed")
    yield from (one for one in _routed(tensors, here, beside) if isinstance(one, Saved))
    yield from (one for one in _routed(tensors, fullest, beside) if isinstance(one, InFlight))
    if (shared := model.shared_expert_intermediate_size) is not None:
        f = shared // tensors.tensor_parallel
        yield from tensors.mlp_of("shared expert", tokens * f, f, beside, tokens * h if model.shared_expert_gate else 0)
        if model.shared_expert_gate:
            yield Saved("shared experts' result", tokens * h, dtype)
            yield Saved("shared experts' gate", tokens, dtype)
            yield InFlight("shared experts' gate", beside + 2 * tokens * h)


def _routed(tensors: Any, some: int, beside: int) -> Kept:
    """What so many rows keep on their way through an expert."""
    model, h, dtype, statistic = tensors.model, tensors.model.hidden_size, tensors.dtype, tensors.statistic
    f = width(model) // tensors.tensor_parallel
    yield Saved("tokens and places of an expert's rows", 2 * some, "int64", only="executed")
    yield Saved("rows of an expert", some * h, dtype)
    yield InFlight("rows of an expert", beside + tensors.tokens * h + 2 * some * h)
    yield from tensors.mlp_of("expert", some * f, f, beside, some * h)
    yield Saved("results of an expert", some * h, dtype)
    yield Saved("results of an expert, weighed", some * h, dtype, only="executed")  # for its shape alone, by index_add
    yield Saved("weights of an expert's rows", some, statistic, only="executed")
    yield InFlight("results of an expert", beside + 3 * some * h)
