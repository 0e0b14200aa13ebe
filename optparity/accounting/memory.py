"""Bytes: of which component, in which dtype, and by whose count."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import ceil, prod
from typing import Any

import jax.numpy as jnp

Bytes = Mapping[str, int]  # dtype -> bytes

# What PyTorch's caching allocator reserves beyond what tensors take, as published for training: 2.4 % (vllm-project/compressed-tensors
# pull 587: 75.31 of 77.14 GiB), 5.0 and 10.4 % (pytorch pull 89457: 17.87 of 18.77 GB, compiled 15.43 of 17.03), 8.9 % (Megatron-LM
# pull 6885: 203,504 of 221,706 MiB). With FSDP 1, which this does not cover, 26 to 35 % (meta-llama/llama-cookbook pull 41). The largest
# that any row of docs/cost_measured.md needs is 13.8 %, torchtitan's 70B with tensor parallelism: it is chosen so that none is below.
MARGIN = 0.15


@dataclass(frozen=True)
class Memory:
    """The memory of one device where a step holds most, in bytes per component and dtype: an upper bound, since not all of it need
    exist at once (gradients that are not there yet when the backward pass begins).

    Attributes:
        label: who counts: "the article", "korthikanti", "executed (torch)", "measured (jax)", ...
        parameters, gradients, optimizer_state: what their names say; a float32 master copy is optimizer state.
        activations: what the forward pass keeps for the backward pass, parameters excluded.
        temporaries: what else the step holds: by the executed count in PyTorch the gradients in flight in the backward pass, and what
            recomputation makes anew; in JAX outputs that stand beside their inputs.
    """

    label: str
    parameters: Bytes
    gradients: Bytes
    optimizer_state: Bytes
    activations: Bytes
    temporaries: Bytes

    @property
    def components(self) -> dict[str, Bytes]:
        return {name: getattr(self, name) for name in COMPONENTS}

    @property
    def totals(self) -> dict[str, int]:
        """Bytes of each component."""
        return {name: sum(of.values()) for name, of in self.components.items()}

    @property
    def total(self) -> int:
        return sum(self.totals.values())

    def fits(self, gigabytes: float, margin: float = 0.0) -> bool:
        """Whether the total is at most so many GB of 1e9 bytes, and the margin for what the allocator reserves: a share of the total.

        Not in the total: what the allocator rounds up and cannot use; the frameworks' own (the CUDA context, workspaces of cuBLAS and
        other kernels, profilers); DDP's buckets; the optimizer's temporaries, made when activations are gone (torch's `foreach` may need
        P numbers or more); what the caller holds on to; data beyond the batch at work; evaluation. In JAX also gradients of activations,
        XLA's to arrange.
        """
        return self.reserved(margin) <= gigabytes * 1e9

    def reserved(self, margin: float) -> int:
        """The total and the margin, rounded up."""
        return self.total + ceil(margin * self.total)

    def to_dict(self) -> dict[str, Any]:
        return {"label": self.label, **{name: dict(of) for name, of in self.components.items()}, "total": self.total}


COMPONENTS = tuple(field.name for field in fields(Memory) if field.name != "label")


def itemsize(dtype: str) -> int:
    """Bytes of an element."""
    return jnp.dtype(dtype).itemsize


def nbytes(leaves: Iterable[Any]) -> dict[str, int]:
    """Bytes by dtype of anything that has a shape and a dtype."""
    return total((leaf.dtype.name, prod(leaf.shape) * leaf.dtype.itemsize) for leaf in leaves)


def total(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The sum by dtype; a dtype without bytes is left out."""
    found: dict[str, int] = {}
    for dtype, count in pairs:
        if count:
            found[dtype] = found.get(dtype, 0) + count
    return found


def plus(*several: Bytes) -> dict[str, int]:
    return total(pair for one in several for pair in one.items())
