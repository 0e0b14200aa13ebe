"""How a model is trained: optimizer, dtype, what is recomputed, and over how many devices it is spread."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optax

from jaxopt_impl import numerics as nx

from . import checks
from .loss import CHUNK, LOSSES

FRAMEWORKS = ("torch", "jax")
RECOMPUTE = ("none", "selective", "full")
ATTENTION = ("written-out", "sdpa")


@dataclass(frozen=True)
class Setup:
    """How a model is trained, on each of `tensor_parallel` × `data_parallel` devices.

    Attributes:
        optimizer, options: a name of `optparity.OPTIMIZERS` and its arguments, or (in JAX) an optax transform.
        framework: "torch" (steps in place) or "jax".
        dtype: of parameters, gradients and activations; by default float32, or bfloat16 with `mixed_precision`.
        attention: "written-out", or "sdpa", whose fused kernel keeps a number for each row in the place of the s × s matrix.
        recompute: "none"; "selective", the attention core again; "full", each block again from its input (Korthikanti et al. 2022).
        tensor_parallel: t; attention heads, the MLP and the vocabulary are divided by it, norms are not.
        sequence_parallel: what tensor parallelism does not divide is divided by t along the sequence.
        zero_stage: 1 divides the optimizer's state by `data_parallel`, 2 the gradients as well, 3 the parameters as well (ZeRO,
            arXiv 1910.02054), elements rounded up. What stage 3 gathers for the layer at work is not counted.
        data_parallel: N.
        mixed_precision: parameters and gradients in a half dtype, float32 master copy and state: Adam's 2 + 2 + 12 bytes.
        loss: "as-is" in the logits' dtype; "float32", cast first, as trainers do; "chunked", `loss_chunk` tokens at a time (see loss.py).
            By default float32 with `mixed_precision`, else as-is.
        donate: in JAX, the step's outputs take the place of its inputs; without it both exist ("temporaries").
    Raises: ValueError where one of them is not what is said here.
    """

    optimizer: str | optax.GradientTransformation = "adam"
    options: Mapping[str, Any] = field(default_factory=dict)
    framework: str = "torch"
    dtype: str = ""
    attention: str = "written-out"
    recompute: str = "none"
    tensor_parallel: int = 1
    sequence_parallel: bool = False
    zero_stage: int = 0
    data_parallel: int = 1
    mixed_precision: bool = False
    donate: bool = False
    loss: str = ""
    loss_chunk: int = CHUNK

    def __post_init__(self) -> None:
        if not isinstance(self.options, Mapping):
            raise ValueError(f"setup: options are a mapping of names to values; got {self.options!r}.")
        checks.one_of("setup", FRAMEWORKS, framework=self.framework)
        checks.one_of("setup", ATTENTION, attention=self.attention)
        checks.one_of("setup", RECOMPUTE, recompute=self.recompute)
        checks.one_of("setup", range(4), zero_stage=self.zero_stage)
        checks.size("setup", tensor_parallel=self.tensor_parallel, data_parallel=self.data_parallel)
        checks.flag("setup", sequence_parallel=self.sequence_parallel, mixed_precision=self.mixed_precision, donate=self.donate)
        if not self.dtype:
            object.__setattr__(self, "dtype", "bfloat16" if self.mixed_precision else "float32")
        if not self.loss:
            object.__setattr__(self, "loss", "float32" if self.mixed_precision else "as-is")
        checks.one_of("setup", LOSSES, loss=self.loss)
        checks.size("setup", loss_chunk=self.loss_chunk)
        who, dtypes = ("setup with mixed_precision", nx.HALVES) if self.mixed_precision else ("setup", nx.DTYPES)
        checks.one_of(who, dtypes, dtype=self.dtype)
        if self.donate and self.framework == "torch":
            raise ValueError("setup: donate is for framework jax; torch steps in place.")

    def sharded(self, component: str) -> int:
        """By how much ZeRO divides a component."""
        stages = {"optimizer_state": 1, "gradients": 2, "parameters": 3}
        return self.data_parallel if self.zero_stage >= stages[component] else 1
