"""`optparity cost`."""

import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from ..accounting import CONVENTIONS, PRESETS, Cruncher, Estimate, Setup, Transformer, estimate, from_dict, parallel
from ..accounting import show as costing
from ..registry import DTYPES
from ._console import console, drawable, refusing, say, table, writable, write
from ._errors import BadInputError
from ._options import ArgumentOption, Dtype, Optimizer, OptimizerOption, arguments_of, assignments, chosen

Framework = StrEnum("Framework", list(parallel.FRAMEWORKS))
Attention = StrEnum("Attention", list(parallel.ATTENTION))
Recompute = StrEnum("Recompute", list(parallel.RECOMPUTE))
Convention = StrEnum("Convention", list(CONVENTIONS))


def _more_than_nothing(limit: float | None) -> float | None:
    if limit is not None and not limit > 0:
        raise BadInputError(f"--fits {limit:g}: more than 0 GB is needed.")
    return limit


Model = Annotated[str, typer.Argument(metavar="CONFIG|PRESET", help=f"A JSON file, or one of {', '.join(PRESETS)}.")]
Setting = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A field of the configuration. May be repeated.")]
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
Conventions = Annotated[
    list[Convention] | None,
    typer.Option("--convention", metavar="NAME", help=f"{', '.join(CONVENTIONS)}. May be repeated; all by default."),
]
Fits = Annotated[
    float | None,
    typer.Option(metavar="GB", callback=_more_than_nothing, help="Whether the executed total fits; exit 1 if not."),
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the estimate as JSON.")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", callback=drawable, help="Draw the components.")]


def cost(
    model: Model,
    optimizer: OptimizerOption = Optimizer("adam"),
    option: ArgumentOption = None,
    setting: Setting = None,
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
    convention: Conventions = None,
    fits: Fits = None,
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
        )
        reading = costing.read(model)
        asked = _Asked(model, reading.fields | assignments("--set", setting, costing.KEYS), batch, seq, setup)
        estimated = estimate(asked.model, batch, asked.tokens, setup, conventions=chosen(convention, ()) or None)
    writable(json_file, plot)
    _show(asked, estimated)
    for what, keys in {"not counted": reading.left_out, "unknown keys, not read": reading.unknown}.items():
        if keys:
            console.print(f"{what}: {', '.join(keys)}", soft_wrap=True)
    asked.save(estimated, json_file)
    if plot:
        costing.plot(estimated, asked.title, plot, fits)
    raise typer.Exit(0 if _fits(estimated, fits) else 1)


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


def _fits(estimated: Estimate, limit: float | None) -> bool:
    """Say whether what is executed fits into so many GB, if that is asked."""
    if limit is None:
        return True
    executed = estimated.memory[-1]
    answer = "yes" if executed.fits(limit) else "no"
    console.print(f"fits in {limit:g} GB per device: {answer} ({costing.in_bytes(executed.total)}, {executed.label})")
    return answer == "yes"
