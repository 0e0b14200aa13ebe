"""How a model is trained: optimizer, dtype, what is recomputed, and over how many devices it is spread."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optax

from jaxopt_impl import numerics as nx

from . import checks
from .loss import CHUNK, LOSSES
from .low_precision import MOMENTS

FRAMEWORKS = ("torch", "jax")
RECOMPUTE = ("none", "selective", "alternate", "full")
ATTENTION = ("written-out", "sdpa")
SCHEDULES = ("1f1b", "gpipe")


@dataclass(frozen=True)
class Setup:
    """How a model is trained, on each of `tensor_parallel` × `data_parallel` × `pipeline_parallel` × `context_parallel` devices.

    Attributes:
        optimizer, options: a name of `optparity.OPTIMIZERS` and its arguments, or (in JAX) an optax transform.
        framework: "torch" (steps in place) or "jax".
        dtype: of parameters, gradients and activations; by default float32, or bfloat16 with `mixed_precision`.
        attention: "written-out", or "sdpa", whose fused kernel keeps a number for each row in the place of the s × s matrix.
        recompute: "none"; "selective", the attention core again; "full", each block again from its input (Korthikanti et al. 2022);
            "alternate", all but the fused attention and every second matrix product (torchtitan's selective "op").
        tensor_parallel: t; attention heads, the MLP and the vocabulary are divided by it, norms are not.
        sequence_parallel: what tensor parallelism does not divide is divided by t along the sequence.
        zero_stage: 1 divides the optimizer's state by `data_parallel`, 2 the gradients as well, 3 the parameters as well (ZeRO,
            arXiv 1910.02054), elements rounded up. What is gathered and not yet reduced is in the temporaries (see sharding.py).
        data_parallel: N.
        pipeline_parallel: p; layers are divided over so many stages. The device that needs most is counted (see stages.py).
        microbatches: m; the batch is divided into so many, one after the other: in a pipeline, or to accumulate gradients.
        schedule: of the pipeline: "1f1b", or "gpipe", which keeps all microbatches.
        pipeline_chunks: v; with more than 1 the schedule is interleaved.
        context_parallel: c; the sequence is divided by it, keys and values are gathered for a layer at a time. ZeRO divides by N c then.
        expert_parallel: e; of the N c devices with data of their own so many share the experts, each with its part of them.
            Tokens are taken to be spread evenly over them, and what is sent from one to another is not counted.
        mixed_precision: parameters and gradients in a half dtype, float32 master copy and state: Adam's 2 + 2 + 12 bytes.
        loss: "as-is" in the logits' dtype; "float32", cast first, as trainers do; "chunked", `loss_chunk` tokens at a time (see loss.py).
            By default float32 with `mixed_precision`, else as-is.
        moments: of Adam and AdamW in torch, "8-bit", "4-bit" or "fp8" as in torchao (see low_precision.py); by default the optimizer's own.
            A first moment in bfloat16 is an argument of the optimizer: `options={"mu_dtype": "bfloat16"}`. Without a master copy of the
            weights all is in `dtype`: that is `mixed_precision=False`.
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
    pipeline_parallel: int = 1
    microbatches: int = 1
    schedule: str = "1f1b"
    pipeline_chunks: int = 1
    context_parallel: int = 1
    expert_parallel: int = 1
    moments: str = ""

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
        checks.size("setup", loss_chunk=self.loss_chunk, pipeline_parallel=self.pipeline_parallel, microbatches=self.microbatches)
        checks.size("setup", pipeline_chunks=self.pipeline_chunks, context_parallel=self.context_parallel)
        checks.size("setup", expert_parallel=self.expert_parallel)
        checks.divides("setup", "expert_parallel", self.expert_parallel, "data_parallel × context_parallel", self.replicas)
        checks.one_of("setup", SCHEDULES, schedule=self.schedule)
        if self.pipeline_parallel == 1 and (self.pipeline_chunks, self.schedule) != (1, "1f1b"):
            raise ValueError("setup: schedule and pipeline_chunks are for pipeline_parallel of 2 and more; got 1.")
        if self.pipeline_chunks > 1 and self.microbatches % self.pipeline_parallel:
            raise ValueError(
                f"setup with pipeline_chunks: pipeline_parallel divides microbatches; got {self.pipeline_parallel} and {self.microbatches}."
            )
        if self.recompute == "alternate" and (self.attention != "sdpa" or self.tensor_parallel > 1):
            got = f"{self.attention!r} and {self.tensor_parallel}"
            raise ValueError(f"setup with recompute alternate: attention is sdpa and tensor_parallel is 1; got {got}.")
        if self.context_parallel > 1 and self.attention != "sdpa":
            raise ValueError(f"setup with context_parallel: attention is sdpa; got {self.attention!r}.")
        who, dtypes = ("setup with mixed_precision", nx.HALVES) if self.mixed_precision else ("setup", nx.DTYPES)
        checks.one_of(who, dtypes, dtype=self.dtype)
        if self.moments:
            checks.one_of("setup", MOMENTS, moments=self.moments)
            checks.one_of("setup with moments", ("adam", "adamw"), optimizer=self.optimizer)
            checks.one_of("setup with moments", ("torch",), framework=self.framework)
            if self.options.get("mu_dtype"):
                raise ValueError(f"setup with moments: mu_dtype is None; got {self.options['mu_dtype']!r}.")
        if self.donate and self.framework == "torch":
            raise ValueError("setup: donate is for framework jax; torch steps in place.")

    @property
    def replicas(self) -> int:
        """Devices with the same weights, but for what ZeRO and expert parallelism divide."""
        return self.data_parallel * self.context_parallel

    @property
    def devices(self) -> int:
        """All that train together."""
        return self.replicas * self.tensor_parallel * self.pipeline_parallel

    def sharded(self, component: str) -> int:
        """By how much ZeRO divides a component."""
        stages = {"optimizer_state": 1, "gradients": 2, "parameters": 3}
        return self.replicas if self.zero_stage >= stages[component] else 1
