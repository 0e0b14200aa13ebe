"""One call: a configuration and how it is trained, to bytes and FLOPs, by the textbooks' count and as executed."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax

from .cruncher import Cruncher
from .memory import Bytes, Memory, itemsize, nbytes, plus, total
from .parallel import Setup
from .state import state
from .transformer import CONVENTIONS, Transformer


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
    how = {"dtype": setup.dtype, "tensor_parallel": setup.tensor_parallel, "sequence_parallel": setup.sequence_parallel}
    textbook = model.activations(batch, seq, "korthikanti", setup.recompute, **how)
    how["attention"] = setup.attention
    executed = model.activations(batch, seq, "executed", setup.recompute, **how)
    if setup.framework == "torch":
        temporaries = _largest(model.temporaries(batch, seq, setup.recompute, **how))
    else:
        whole, kept = (model.block_activations(batch, seq, "executed", recompute, **how) for recompute in ("none", setup.recompute))
        temporaries = {dtype: count - kept.get(dtype, 0) for dtype, count in whole.items()}
    weights = model.weights(setup.tensor_parallel)
    memory = _counts(weights, setup, ("korthikanti", f"executed ({setup.framework})"), (textbook, executed), temporaries)
    executed_as = {"recompute": setup.recompute, "attention": setup.attention}
    replicas = setup.data_parallel
    flops = {name: replicas * model.flops(batch, seq, name, **executed_as) for name in conventions or CONVENTIONS}
    return Estimate(model.parameters, model.active_parameters, model.parameters_by_part(), memory, flops)


def _cruncher(model: Cruncher, batch: int, setup: Setup, conventions: Sequence[str] | None) -> Estimate:
    if (setup.tensor_parallel, setup.sequence_parallel, setup.recompute, setup.attention) != (1, False, "none", "written-out"):
        raise ValueError("cruncher: tensor_parallel, sequence_parallel, recompute and attention are for a transformer.")
    labels = "the article", f"executed ({setup.framework})"
    activations = [model.activations(batch, by, setup.dtype) for by in ("the article", setup.framework)]
    temporaries = _largest(model.temporaries(batch, setup.dtype)) if setup.framework == "torch" else {}
    memory = _counts(model.weights(), setup, labels, activations, temporaries)
    flops = {name: setup.data_parallel * model.flops(batch, name) for name in conventions or model.conventions}
    return Estimate(model.parameters, model.parameters, {"layers": model.parameters - model.dim, "final": model.dim}, memory, flops)


def _counts(
    weights: dict[str, tuple[int, ...]], setup: Setup, labels: Sequence[str], activations: Sequence[Bytes], temporaries: Bytes
) -> tuple[Memory, ...]:
    """Both counts of the same weights: what ZeRO divides, what a master copy and donation add."""
    dtype, master = setup.dtype, "float32" if setup.mixed_precision else setup.dtype
    held = {name: jax.ShapeDtypeStruct(shape, master) for name, shape in weights.items()}
    parameters = total([(dtype, itemsize(dtype) * sum(map(prod, weights.values())))])
    copy = nbytes(held.values()) if setup.mixed_precision else {}
    found = state(setup.optimizer, held, setup.framework, **setup.options)

    def sharded(component: str, whole: Bytes) -> dict[str, int]:
        return {dtype: -(-count // itemsize(dtype) // setup.sharded(component)) * itemsize(dtype) for dtype, count in whole.items()}

    p, g = sharded("parameters", parameters), sharded("gradients", parameters)
    arrays = sharded("optimizer_state", plus(copy, found.arrays))
    s = plus(arrays, found.scalars)
    outputs = plus(p, s) if setup.framework == "jax" and not setup.donate else {}
    textbook = Memory(labels[0], p, g, arrays, activations[0], {})
    return textbook, Memory(labels[1], p, g, s, activations[1], plus(temporaries, outputs))


def _largest(places: dict[str, Bytes]) -> Bytes:
    return max(places.values(), key=lambda found: sum(found.values()))
