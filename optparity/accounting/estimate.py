"""One call: a configuration and how it is trained, to bytes and FLOPs, by the textbooks' count and as executed."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import Any

import jax

from . import checks
from .cruncher import Cruncher
from .low_precision import quantized
from .memory import Bytes, Memory, itemsize, nbytes, plus, total
from .parallel import Setup
from .sharding import in_transit, sequences
from .stages import LOSS, OnStage, Stage, stages
from .state import state
from .transformer import CONVENTIONS, Transformer

Weights = dict[str, tuple[int, ...]]  # name -> shape
FOR_TRANSFORMERS = (
    *("tensor_parallel", "sequence_parallel", "recompute", "attention"),
    *("pipeline_parallel", "microbatches", "context_parallel", "expert_parallel"),
)


@dataclass(frozen=True)
class Estimate:
    """What a training step costs.

    Attributes:
        parameters: of the whole model.
        active_parameters: of them those that work for a token, of experts the chosen and the shared.
        parts: parameters by part; one part where the model has no parts.
        memory: of one device, by each count; the textbooks' first.
        flops: of the step over all data-parallel replicas, by convention: the model's own, as if tensor parallelism did nothing twice.
    """

    parameters: int
    active_parameters: int
    parts: dict[str, int]
    memory: tuple[Memory, ...]
    flops: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        memory = [memory.to_dict() for memory in self.memory]
        counts = {"parameters": self.parameters, "active_parameters": self.active_parameters, "parts": self.parts}
        return {**counts, "memory": memory, "flops": self.flops}


def estimate(
    model: Cruncher | Transformer,
    batch: int,
    seq: int | None = None,
    setup: Setup | None = None,
    *,
    conventions: Sequence[str] | None = None,
) -> Estimate:
    """The cost of a training step, by formula from configurations alone; nothing is allocated or run.

    Two counts. The textbooks': P parameters and gradients, a whole number of accumulators, the article's or Korthikanti's activations.
    The executed: the state with its step counters, what autograd keeps to the byte (for a Transformer in JAX still PyTorch's list,
    where XLA decides for itself), and as temporaries what is recomputed, in PyTorch the backward pass's gradients in flight
    (`Transformer.temporaries`, an upper bound) and, in JAX without donation, the step's outputs. `Memory.fits` says what is not counted.

    Args:
        batch: sequences (rows, for a Cruncher) on one data-parallel device.
        seq: tokens of each; max_position_embeddings by default. Not for a Cruncher.
        conventions: names of FLOP counts; all of the model's by default.
    Raises: ValueError where an argument is out of range.
    Example:
        >>> cost = estimate(Cruncher(4, 2), batch=2, setup=Setup("adagrad"))
        >>> [(memory.label, memory.total) for memory in cost.memory]
        [('the article', 496), ('executed (torch)', 652)]
        >>> cost.flops
        {'6nd': 432, 'executed': 368}
    """
    setup = Setup() if setup is None else setup
    if not isinstance(setup, Setup):
        raise ValueError(f"estimate: setup is a Setup; got {setup!r}.")
    if isinstance(conventions, str):
        raise ValueError(f"estimate: conventions are several names; got {conventions!r}.")
    if not isinstance(model, Cruncher | Transformer):
        raise ValueError(f"estimate: a Transformer or a Cruncher is needed, as PRESETS['gpt2'] is; got {model!r}.")
    if isinstance(model, Cruncher):
        if seq is not None:
            raise ValueError("cruncher: seq is for a transformer.")
        return _cruncher(model, batch, setup, conventions)
    seq = model.max_position_embeddings if seq is None else seq
    if seq is None:
        raise ValueError("transformer: seq is needed, since the configuration has no max_position_embeddings.")
    _together(model, batch, seq, setup)
    flops = _flops(model, batch, seq, setup, conventions)
    weights = model.weights(setup.tensor_parallel)
    own = weights if setup.expert_parallel == 1 else model.weights(setup.tensor_parallel, setup.expert_parallel)
    memory = max((_on_device(model, weights, own, batch, seq, setup, stage) for stage in stages(model.layers, setup)), key=_executed)
    return Estimate(model.parameters, model.active_parameters, model.parameters_by_part(), memory, flops)


def _together(model: Transformer, batch: int, seq: int, setup: Setup) -> None:
    """What of a model, its data and its setup is counted together.

    Raises: ValueError where it is not.
    """
    checks.divides("transformer", "microbatches", setup.microbatches, "the batch", batch)
    checks.divides("transformer", "context_parallel", setup.context_parallel, "the sequence", seq)
    if setup.expert_parallel > 1 and model.num_experts is None:
        raise ValueError(f"transformer: expert_parallel is for a model with num_experts; got {setup.expert_parallel} and none.")
    window = min((layer.window for layer in model.layers if layer.window), default=seq)
    if setup.context_parallel > 1 and window < seq:
        raise ValueError(f"transformer with context_parallel: sliding_window is at least the sequence; got {window} and {seq}.")


def _executed(memory: tuple[Memory, Memory]) -> int:
    return memory[1].total


def _flops(model: Transformer, batch: int, seq: int, setup: Setup, conventions: Sequence[str] | None) -> dict[str, int]:
    executed_as = {"recompute": setup.recompute, "attention": setup.attention}
    return {name: setup.data_parallel * model.flops(batch, seq, name, **executed_as) for name in conventions or CONVENTIONS}


def _on_device(
    model: Transformer, weights: Weights, own: Weights, batch: int, seq: int, setup: Setup, stage: Stage
) -> tuple[Memory, Memory]:
    """Both counts of a device of one stage of the pipeline."""
    rows, here = batch // setup.microbatches, seq // setup.context_parallel
    how: dict[str, Any] = {"dtype": setup.dtype, "tensor_parallel": setup.tensor_parallel, "sequence_parallel": setup.sequence_parallel}
    textbook = OnStage(model, stage, rows, here, setup.recompute, how).activations("korthikanti")
    how |= {"attention": setup.attention, "loss": setup.loss, "loss_chunk": setup.loss_chunk}
    device = OnStage(model, stage, rows, here, setup.recompute, how)
    weights, own = device.weights(weights), device.weights(own)
    transit = in_transit(own, setup)
    places = device.temporaries() if setup.framework == "torch" else device.remade()
    of_a_layer, of_the_head = sequences(model, rows, seq, here, setup)
    beside = {
        name: plus(transit.weights, *((transit.from_the_start, of_the_head) if name in LOSS else (transit.gradients, of_a_layer)))
        for name in places
    }
    temporaries = _largest({name: plus(of, beside[name]) for name, of in places.items()})
    labels = "korthikanti", f"executed ({setup.framework})"
    return _counts(weights, own, setup, labels, (textbook, device.activations("executed")), temporaries)


def _cruncher(model: Cruncher, batch: int, setup: Setup, conventions: Sequence[str] | None) -> Estimate:
    for name in FOR_TRANSFORMERS:
        default = next(field.default for field in fields(Setup) if field.name == name)
        if getattr(setup, name) != default:
            raise ValueError(f"cruncher: {name} is for a transformer; got {getattr(setup, name)!r}.")
    labels = "the article", f"executed ({setup.framework})"
    activations = [model.activations(batch, by, setup.dtype) for by in ("the article", setup.framework)]
    temporaries = _largest(model.temporaries(batch, setup.dtype)) if setup.framework == "torch" else {}
    memory = _counts(model.weights(), model.weights(), setup, labels, activations, temporaries)
    flops = {name: setup.data_parallel * model.flops(batch, name) for name in conventions or model.conventions}
    return Estimate(model.parameters, model.parameters, {"layers": model.parameters - model.dim, "final": model.dim}, memory, flops)


def _counts(
    weights: Weights, own: Weights, setup: Setup, labels: Sequence[str], activations: Sequence[Bytes], temporaries: Bytes
) -> tuple[Memory, Memory]:
    """Both counts of the same weights: what ZeRO divides, what a master copy and donation add.

    `own` are those of one device under expert parallelism. What ZeRO divides over all devices does not depend on who has which experts.
    """
    dtype, master = setup.dtype, "float32" if setup.mixed_precision else setup.dtype

    def divided(component: str) -> Weights:
        return weights if setup.sharded(component) > 1 else own

    held = {name: jax.ShapeDtypeStruct(shape, master) for name, shape in divided("optimizer_state").items()}
    copy = nbytes(held.values()) if setup.mixed_precision else {}
    found = state(setup.optimizer, held, setup.framework, **setup.options)
    if setup.moments:
        found = quantized(divided("optimizer_state").values(), master, setup.moments, 3 if setup.options.get("amsgrad") else 2)

    def sharded(component: str, whole: Bytes) -> dict[str, int]:
        return {dtype: -(-count // itemsize(dtype) // setup.sharded(component)) * itemsize(dtype) for dtype, count in whole.items()}

    def alike(component: str) -> dict[str, int]:
        return sharded(component, total([(dtype, itemsize(dtype) * sum(map(prod, divided(component).values())))]))

    p, g = alike("parameters"), alike("gradients")
    arrays = sharded("optimizer_state", plus(copy, found.arrays))
    s = plus(arrays, found.scalars)
    outputs = plus(p, s) if setup.framework == "jax" and not setup.donate else {}
    textbook = Memory(labels[0], p, g, arrays, activations[0], {})
    return textbook, Memory(labels[1], p, g, s, activations[1], plus(temporaries, outputs))


def _largest(places: dict[str, Bytes]) -> Bytes:
    return max(places.values(), key=lambda found: sum(found.values()))
