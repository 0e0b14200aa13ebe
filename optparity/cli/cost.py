"""`optparity cost`."""

import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from ..accounting import (
    CONVENTIONS,
    PEAKS,
    PRESETS,
    Cruncher,
    Estimate,
    Setup,
    Transformer,
    estimate,
    from_dict,
    low_precision,
    memory,
    mfu,
    parallel,
)
from ..accounting import loss as losses
from ..accounting import search as searching
from ..accounting import show as costing
from ..accounting.hugging_face import Reading
from ..registry import DTYPES
from ._console import console, drawable, refusing, say, table, writable, write
from ._errors import BadInputError
from ._options import ArgumentOption, Dtype, Optimizer, OptimizerOption, arguments_of, assignments, chosen

Framework = StrEnum("Framework", list(parallel.FRAMEWORKS))
Attention = StrEnum("Attention", list(parallel.ATTENTION))
Recompute = StrEnum("Recompute", list(parallel.RECOMPUTE))
Moments = StrEnum("Moments", list(low_precision.MOMENTS))
Schedule = StrEnum("Schedule", list(parallel.SCHEDULES))
Loss = StrEnum("Loss", list(losses.LOSSES))
Convention = StrEnum("Convention", list(CONVENTIONS))
Peak = StrEnum("Peak", list(PEAKS))


def _finite_and_positive(option: typer.CallbackParam, limit: float | None) -> float | None:
    if limit is not None and not 0 < limit < float("inf"):
        raise BadInputError(f"--{option.name} {limit:g}: a finite number > 0 is needed.")
    return limit


def _finite_and_not_negative(option: typer.CallbackParam, percent: float) -> float:
    if not 0 <= percent < float("inf"):
        raise BadInputError(f"--{option.name} {percent:g}: a finite number >= 0 is needed.")
    return percent


Model = Annotated[str, typer.Argument(metavar="CONFIG|PRESET", help=f"A JSON file, or one of {', '.join(PRESETS)}.")]
Setting = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A field of the configuration. May be repeated.")]
ModelType = Annotated[str | None, typer.Option("--model-type", metavar="NAME", help="The family of a config.json that does not say it.")]
Batch = Annotated[int, typer.Option(min=1, help="Sequences on one data-parallel device.")]
Seq = Annotated[int | None, typer.Option(min=1, help="Tokens of a sequence (default: max_position_embeddings).")]
Precision = Annotated[
    Dtype | None, typer.Option(metavar="NAME", help=f"{', '.join(DTYPES)} (default: float32, or with --mixed-precision bfloat16).")
]
InFramework = Annotated[Framework, typer.Option(help="Torch steps in place.")]
WithAttention = Annotated[Attention, typer.Option(help="What of it is kept for the backward pass.")]
WithRecompute = Annotated[Recompute, typer.Option(help="What the backward pass computes again.")]
TensorParallel = Annotated[int, typer.Option(min=1, help="Devices that share heads, MLP and vocabulary.")]
SequenceParallel = Annotated[bool, typer.Option("--sequence-parallel", help="They share the rest along the sequence.")]
ZeroStage = Annotated[int, typer.Option(min=0, max=3, help="What is sharded over --data-parallel.")]
DataParallel = Annotated[int, typer.Option(min=1, help="Devices with batches of their own.")]
MixedPrecision = Annotated[bool, typer.Option("--mixed-precision", help="Half weights, float32 master copy and state.")]
Donate = Annotated[bool, typer.Option("--donate/--no-donate", help="In JAX, outputs take the place of inputs.")]
OfLoss = Annotated[
    Loss | None, typer.Option("--loss", help="How the cross-entropy is computed (default: as-is, or with --mixed-precision float32).")
]
OfMoments = Annotated[Moments | None, typer.Option("--moments", help="Of Adam and AdamW, in few bits, as torchao keeps them.")]
PipelineParallel = Annotated[int, typer.Option(min=1, help="Stages that share the layers; the fullest is counted.")]
Microbatches = Annotated[int, typer.Option(min=1, help="Parts of the batch, one after the other.")]
OfSchedule = Annotated[Schedule, typer.Option("--schedule", help="Of the pipeline.")]
PipelineChunks = Annotated[int, typer.Option(min=1, help="Parts of a stage's layers; more than 1 is interleaved.")]
ContextParallel = Annotated[int, typer.Option(min=1, help="Devices that share the sequence.")]
Search = Annotated[
    float | None,
    typer.Option(
        metavar="GB", callback=_finite_and_positive, help="The largest batch that fits, by ZeRO stage and recomputation; exit 1 if none."
    ),
]
Margin = Annotated[
    float,
    typer.Option(
        metavar="PERCENT", callback=_finite_and_not_negative, help="Of the total, which the allocator reserves beyond it; for --fits."
    ),
]
LossChunk = Annotated[int, typer.Option(min=1, help="Tokens at a time, with --loss chunked.")]
ExpertParallel = Annotated[int, typer.Option(min=1, help="Of --data-parallel, devices that share the experts.")]
Conventions = Annotated[
    list[Convention] | None,
    typer.Option("--convention", metavar="NAME", help=f"{', '.join(CONVENTIONS)}. May be repeated; all by default."),
]
StepTime = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="A measured step: how much of --peak it used, by each convention (MFU)."),
]
OfPeak = Annotated[Peak | None, typer.Option(metavar="NAME", help=f"The device, one of {', '.join(PEAKS)}: its dense 16-bit peak.")]
Fits = Annotated[
    float | None,
    typer.Option(metavar="GB", callback=_finite_and_positive, help="Whether the executed total fits; exit 1 if not."),
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the estimate as JSON.")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", callback=drawable, help="Draw the components.")]


def cost(
    model: Model,
    optimizer: OptimizerOption = Optimizer("adam"),
    option: ArgumentOption = None,
    setting: Setting = None,
    model_type: ModelType = None,
    batch: Batch = 1,
    seq: Seq = None,
    dtype: Precision = None,
    framework: InFramework = Framework("torch"),
    attention: WithAttention = Attention("written-out"),
    recompute: WithRecompute = Recompute("none"),
    tensor_parallel: TensorParallel = 1,
    sequence_parallel: SequenceParallel = False,
    zero_stage: ZeroStage = 0,
    data_parallel: DataParallel = 1,
    mixed_precision: MixedPrecision = False,
    donate: Donate = False,
    loss: OfLoss = None,
    loss_chunk: LossChunk = losses.CHUNK,
    moments: OfMoments = None,
    pipeline_parallel: PipelineParallel = 1,
    microbatches: Microbatches = 1,
    schedule: OfSchedule = Schedule("1f1b"),
    pipeline_chunks: PipelineChunks = 1,
    context_parallel: ContextParallel = 1,
    expert_parallel: ExpertParallel = 1,
    convention: Conventions = None,
    step_time: StepTime = None,
    peak: OfPeak = None,
    fits: Fits = None,
    margin: Margin = 100 * memory.MARGIN,
    search: Search = None,
    json_file: Json = None,
    plot: Plot = None,
) -> None:
    """Count the memory and FLOPs of a training step.

    From the configuration alone: by the textbooks' formulas, and as executed.
    """
    with refusing(ValueError, TypeError):
        setup = Setup(
            optimizer=str(optimizer),
            options=arguments_of(optimizer, option),
            framework=str(framework),
            dtype=str(dtype or ""),
            attention=str(attention),
            recompute=str(recompute),
            tensor_parallel=tensor_parallel,
            sequence_parallel=sequence_parallel,
            zero_stage=zero_stage,
            data_parallel=data_parallel,
            mixed_precision=mixed_precision,
            donate=donate,
            loss=str(loss or ""),
            loss_chunk=loss_chunk,
            moments=str(moments or ""),
            pipeline_parallel=pipeline_parallel,
            microbatches=microbatches,
            schedule=str(schedule),
            pipeline_chunks=pipeline_chunks,
            context_parallel=context_parallel,
            expert_parallel=expert_parallel,
        )
        reading = costing.read(model, model_type)
        asked = _Asked(model, reading.fields | assignments("--set", setting, costing.KEYS), batch, seq, setup)
        if search:
            beside = {"--batch": batch != 1, "--fits": fits, "--json": json_file, "--plot": plot, "--convention": convention}
            _refuse_beside_search(beside | {"--step-time": step_time, "--peak": peak})
            any_fits = _search(asked, search, margin)
            _say_what_is_not_read(reading)
            raise typer.Exit(0 if any_fits else 1)
        estimated = estimate(asked.model, batch, asked.tokens, setup, conventions=chosen(convention, ()) or None)
        used = _used(estimated, setup, step_time, peak)
    writable(json_file, plot)
    _show(asked, estimated)
    if used:
        console.print(used, soft_wrap=True)
    _say_what_is_not_read(reading)
    asked.save(estimated, json_file)
    if plot:
        costing.plot(estimated, asked.title, plot, fits)
    raise typer.Exit(0 if _fits(estimated, fits, margin) else 1)


@dataclass(frozen=True)
class _Asked:
    """Whose cost is asked for: a model by its name and its configuration, a batch, and how it is trained."""

    name: str
    configuration: dict[str, Any]
    batch: int
    seq: int | None
    setup: Setup

    @cached_property
    def model(self) -> Cruncher | Transformer:
        return from_dict(self.configuration)

    @property
    def tokens(self) -> int | None:
        """Of a sequence; a Cruncher has none."""
        return self.seq or vars(self.model).get("max_position_embeddings")

    @property
    def title(self) -> str:
        tokens = f" of {self.tokens:,} tokens" if self.tokens else ""
        return f"Memory of a training step: {Path(self.name).stem}, {self.setup.optimizer}, batch {self.batch}{tokens}"

    def save(self, estimated: Estimate, file: Path | None) -> None:
        """What was asked, and the answer, as JSON, if a file is given."""
        if file:
            asked = {"model": self.name, "configuration": self.configuration, "batch": self.batch, "seq": self.tokens}
            document = {"optparity": version("optparity"), **asked, "setup": vars(self.setup), **estimated.to_dict()}
            write(file, json.dumps(document, indent=1))


def _show(asked: _Asked, estimated: Estimate) -> None:
    active = estimated.active_parameters
    say(f"{asked.name}: {estimated.parameters:,} parameters" + (f", {active:,} active" if active < estimated.parameters else ""))
    for headers, numbers, rows in costing.tables(estimated, asked.model):
        shown = table(*headers, right=numbers)
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
    if asked.setup.framework == "jax" and isinstance(asked.model, Transformer):
        console.print("activations: what PyTorch's autograd would keep; XLA decides for itself.")


def _used(estimated: Estimate, setup: Setup, seconds: float | None, peak: Peak | None) -> str:
    """What part of the devices' peak the step used, by each convention; nothing if that is not asked."""
    if seconds is None and peak is None:
        return ""
    if seconds is None or peak is None:
        raise BadInputError(f"--step-time {seconds} and --peak {peak}: both are needed for the use of the peak.")
    parts = {name: mfu(flops, seconds, setup.devices, str(peak)) for name, flops in estimated.flops.items()}
    shown = ", ".join(f"{name} {100 * part:.1f} %" for name, part in parts.items())
    return f"of {setup.devices:,} × {peak} at {PEAKS[peak]:.4g} FLOPs a second: {shown}"


def _say_what_is_not_read(reading: Reading) -> None:
    for what, keys in {"not counted": reading.left_out, "unknown keys, not read": reading.unknown}.items():
        if keys:
            console.print(f"{what}: {', '.join(keys)}", soft_wrap=True)


def _fits(estimated: Estimate, limit: float | None, margin: float) -> bool:
    """Say whether what is executed fits into so many GB, with a margin of so many per cent, if that is asked."""
    if limit is None:
        return True
    executed = estimated.memory[-1]
    answer = "yes" if executed.fits(limit, margin / 100) else "no"
    with_margin = f", {costing.in_bytes(executed.reserved(margin / 100))} with a margin of {margin:g} %" if margin else ""
    console.print(f"fits in {limit:g} GB per device: {answer} ({costing.in_bytes(executed.total)}, {executed.label}{with_margin})")
    return answer == "yes"


def _refuse_beside_search(options: dict[str, Any]) -> None:
    for name, given in options.items():
        if given:
            raise BadInputError(f"--search: {name} is for one estimate; leave one of the two out.")


def _search(asked: _Asked, limit: float, margin: float) -> bool:
    """Say what fits into so many GB, in order; whether anything does."""
    if not isinstance(asked.model, Transformer) or asked.tokens is None:
        raise BadInputError(f"--search: a transformer and --seq are needed; got {asked.name}.")
    with_margin = f"with {margin:g} %"
    right = ["ZeRO stage", "batch", "total", with_margin, "FLOPs of a token"]
    shown = table("ZeRO stage", "recomputed", "batch", "total", with_margin, "FLOPs of a token", right=right)
    any_fits = False
    for found in searching(asked.model, asked.tokens, asked.setup, limit, margin / 100):
        any_fits = any_fits or found.batch > 0
        totals = costing.in_bytes(found.memory.total), costing.in_bytes(found.memory.reserved(margin / 100))
        shown.add_row(str(found.zero_stage), found.recompute, str(found.batch or "none"), *totals, f"{found.flops:.3e}")
    say(f"{asked.name}: the largest batch of {asked.tokens:,} tokens in {limit:g} GB per device")
    console.print(shown)
    return any_fits
