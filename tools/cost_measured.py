"""Published measurements beside the estimates: `python -m tools.pages` writes them into docs/cost_measured.md, a test reads them there.

Nothing here was measured by us. A row is what its source says, what had to be assumed, and what the estimate gives.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from optparity.accounting import PRESETS, Cruncher, Memory, Setup, Transformer, estimate
from optparity.accounting.memory import MARGIN

GIB = 2**30
A100 = 312e12  # bfloat16 FLOPs in a second, NVIDIA's data sheet
H100 = 989e12

TITAN_H100 = "https://github.com/pytorch/torchtitan/blob/main/benchmarks/llama3_h100_202412_torchtitan.md"
TITAN_H200 = "https://github.com/pytorch/torchtitan/blob/main/benchmarks/llama3-8b_h200_202506_trainy-whitefiber.md"
TITAN_A100 = "https://github.com/pytorch/torchtitan/blob/041336434916bdc0f88c1f89fda176fd3c2092e4/docs/performance.md"
TORCHAO = "https://github.com/pytorch/ao/blob/main/torchao/optim/README.md"
ZERO = "https://arxiv.org/abs/1910.02054"
KORTHIKANTI = "https://arxiv.org/abs/2205.05198"
LLAMA3 = "https://arxiv.org/abs/2407.21783"

FLOAT8 = "compiled, with float8 matrix products: other tensors, and fewer; counted as written, in bfloat16"
COMPILED = "compiled: kernels are fused, and fewer tensors exist; counted as written"


@dataclass(frozen=True)
class Run:
    """A training run whose memory was published.

    Attributes:
        measured: GiB of a device; None where the source says only whether it ran.
        reserved: by the allocator, so that the margin belongs to the estimate; otherwise allocated.
        assumed: what the source does not say, or what is counted otherwise.
        below: why the estimate may be below.
    """

    source: str
    table: str
    name: str
    model: str
    batch: int
    seq: int
    setup: dict[str, Any]
    measured: float
    reserved: bool = True
    assumed: str = ""
    below: str = ""

    @cached_property
    def memory(self) -> Memory:
        model = PRESETS[self.model]
        assert isinstance(model, Transformer)
        return estimate(model, self.batch, self.seq, Setup("adamw", attention="sdpa", **self.setup)).memory[1]

    @property
    def margin(self) -> float:
        return MARGIN if self.reserved else 0.0

    @property
    def gib(self) -> tuple[float, float]:
        """The estimate, and with the margin."""
        return self.memory.total / GIB, self.memory.reserved(self.margin) / GIB


def _fsdp(devices: int, recompute: str, **more: Any) -> dict[str, Any]:
    return {"mixed_precision": True, "zero_stage": 3, "data_parallel": devices, "recompute": recompute, **more}


_8K = "sequence 8,192, as torchtitan's configuration"
_TP = {"tensor_parallel": 8, "sequence_parallel": True}
_PP = {**_TP, "pipeline_parallel": 8, "microbatches": 8}
_INTERLEAVED = {**_TP, "pipeline_parallel": 8, "microbatches": 16, "pipeline_chunks": 2}
_BF16 = {"dtype": "bfloat16", "recompute": "full", "loss": "float32"}
_TUNED = "batch 2, as torchtune's configuration; pairs of 512 tokens, full recomputation, loss in float32"
_OF_PAIRS = "torchtune does not cut the pairs, and the longest of Alpaca have more tokens than were assumed"
_STAGES = "8 microbatches, as many as stages, torchtitan's default at that commit; layers divided evenly"

RUNS = [
    Run(TITAN_H100, "1", "FSDP 8", "llama3-8b", 2, 8192, _fsdp(8, "alternate"), 82.4),
    Run(TITAN_H100, "1", "FSDP 8, compiled", "llama3-8b", 2, 8192, _fsdp(8, "alternate"), 77.0, assumed=COMPILED),
    Run(TITAN_H100, "1", "FSDP 8, compiled, float8", "llama3-8b", 2, 8192, _fsdp(8, "alternate"), 76.8, assumed=FLOAT8),
    Run(TITAN_H100, "2", "FSDP 8", "llama3-8b", 1, 32768, _fsdp(8, "full"), 83.9, assumed=FLOAT8),
    Run(TITAN_H100, "2", "FSDP 4, CP 2", "llama3-8b", 1, 65536, _fsdp(4, "full", context_parallel=2), 84.2, assumed=FLOAT8),
    Run(TITAN_H100, "2", "FSDP 2, CP 4", "llama3-8b", 1, 131072, _fsdp(2, "full", context_parallel=4), 84.0, assumed=FLOAT8),
    Run(TITAN_H100, "2", "FSDP 1, CP 8", "llama3-8b", 1, 262144, _fsdp(1, "full", context_parallel=8), 84.5, assumed=FLOAT8),
    Run(TITAN_H100, "3", "FSDP 128", "llama3-8b", 2, 8192, _fsdp(128, "alternate"), 67.0),
    Run(TITAN_H100, "3", "FSDP 128, compiled", "llama3-8b", 2, 8192, _fsdp(128, "alternate"), 62.0, assumed=COMPILED),
    Run(TITAN_H100, "3", "FSDP 128, compiled, float8", "llama3-8b", 2, 8192, _fsdp(128, "alternate"), 61.8, assumed=FLOAT8),
    Run(
        *(TITAN_H100, "4", "FSDP 32, TP 8", "llama3-70b", 16, 8192, _fsdp(32, "full", **_TP), 71.9),
        assumed=f"{FLOAT8}; sequence 8,192",
    ),
    Run(
        TITAN_H100, "4", "FSDP 32, async TP 8", "llama3-70b", 16, 8192, _fsdp(32, "full", **_TP), 67.6, assumed=f"{FLOAT8}; sequence 8,192"
    ),
    Run(TITAN_H100, "5", "FSDP 8, TP 8, PP 8, 1F1B", "llama3-405b", 32, 8192, _fsdp(8, "full", **_PP), 82.5, assumed=_STAGES),
    Run(
        *(TITAN_H100, "5", "FSDP 8, TP 8, PP 8, interleaved", "llama3-405b", 32, 8192, _fsdp(8, "full", **_INTERLEAVED), 72.7),
        assumed="2 chunks, 16 microbatches",
    ),
    Run(TITAN_H100, "6", "FSDP 8, CP 1, TP 8, PP 8", "llama3-405b", 8, 32768, _fsdp(8, "full", **_PP), 75.3, assumed=_STAGES),
    Run(
        *(TITAN_H100, "6", "FSDP 4, CP 2, TP 8, PP 8", "llama3-405b", 8, 65536, _fsdp(4, "full", context_parallel=2, **_PP), 75.9),
        assumed=_STAGES,
    ),
    Run(
        *(TITAN_H100, "6", "FSDP 2, CP 4, TP 8, PP 8", "llama3-405b", 8, 131072, _fsdp(2, "full", context_parallel=4, **_PP), 77.1),
        assumed=_STAGES,
    ),
    Run(
        *(TITAN_H100, "6", "FSDP 1, CP 8, TP 8, PP 8", "llama3-405b", 8, 262144, _fsdp(1, "full", context_parallel=8, **_PP), 84.9),
        assumed=_STAGES,
    ),
    Run(
        *(TITAN_H200, "", "FSDP 32, compiled, float8", "llama3-8b", 2, 8192, _fsdp(32, "alternate"), 47.96),
        assumed="the loss was compiled too, and fused: its float32 copies did not exist; weights gathered in float8",
    ),
    Run(
        *(TITAN_H200, "", "FSDP 64, compiled, float8", "llama3-8b", 2, 8192, _fsdp(64, "alternate"), 46.97),
        assumed="as above",
    ),
    Run(TORCHAO, "", "AdamW, bfloat16", "llama2-7b", 2, 512, _BF16, 51.6, False, _TUNED, _OF_PAIRS),
    Run(TORCHAO, "", "AdamW, 8-bit moments", "llama2-7b", 2, 512, _BF16 | {"moments": "8-bit"}, 39.1, False, _TUNED, _OF_PAIRS),
    Run(TORCHAO, "", "AdamW, 4-bit moments", "llama2-7b", 2, 512, _BF16 | {"moments": "4-bit"}, 33.2, False, _TUNED, _OF_PAIRS),
]


@dataclass(frozen=True)
class Ran:
    """A run on 64 A100 of 80 GB of which the source says that it ran, or that it ran out of memory."""

    name: str
    model: str
    batch: int
    seq: int
    recompute: str
    ran: bool
    why: str = ""

    @cached_property
    def memory(self) -> Memory:
        run = Run(TITAN_A100, "", self.name, self.model, self.batch, self.seq, _fsdp(64, self.recompute), 80e9 / GIB)
        return run.memory


RAN = [
    Ran("Llama 3 8B, batch 1", "llama3-8b", 1, 8192, "alternate", True),
    Ran("Llama 3 70B, batch 1", "llama3-70b", 1, 8192, "full", True),
    Ran(
        *("Llama 2 13B, batch 2", "llama2-13b", 2, 4096, "none", True),
        why="the estimate is above by its margin and by RMSNorm, which is counted as written out",
    ),
    Ran("Llama 2 13B, batch 2", "llama2-13b", 2, 4096, "alternate", True),
    Ran(
        *("Llama 2 70B, batch 1", "llama2-70b", 1, 4096, "alternate", True),
        why="the estimate without its margin fits",
    ),
    Ran("Llama 2 70B, batch 2", "llama2-70b", 2, 4096, "alternate", False),
    Ran("Llama 2 70B, batch 2", "llama2-70b", 2, 4096, "full", True),
]


@dataclass(frozen=True)
class Saving:
    """GiB that fewer bits save, between two rows of torchao's table."""

    name: str
    moments: str
    published: float
    gib: float = field(init=False)

    def __post_init__(self) -> None:
        of = {run.name: run.memory.total / GIB for run in RUNS if run.source == TORCHAO}
        object.__setattr__(self, "gib", of["AdamW, bfloat16"] - of[f"AdamW, {self.moments} moments"])


def savings() -> list[Saving]:
    return [Saving("8-bit instead of bfloat16", "8-bit", 12.5), Saving("4-bit instead of bfloat16", "4-bit", 18.4)]


ZERO_TABLE = [  # model, devices, GB with stages 1, 2, 3: table 1 of the paper
    ("7.5B", Cruncher(25_000, 12), 64, (31.4, 16.6, 1.88)),
    ("7.5B", Cruncher(25_000, 12), 1024, (30.1, 15.1, 0.12)),
    ("128B", Cruncher(20_000, 320), 64, (536, 284, 32)),
    ("128B", Cruncher(20_000, 320), 1024, (513, 257, 2)),
    ("1T", Cruncher(100_000, 100), 64, (4187, 2218, 250)),
    ("1T", Cruncher(100_000, 100), 1024, (4011, 2013, 15.6)),
]


def zero_states(model: Cruncher, devices: int, stage: int) -> float:
    """GB of parameters, gradients and Adam's state."""
    setup = Setup(mixed_precision=True, zero_stage=stage, data_parallel=devices)
    totals = estimate(model, 1, setup=setup).memory[0].totals
    return sum(totals[name] for name in ("parameters", "gradients", "optimizer_state")) / 1e9


@dataclass(frozen=True)
class Utilization:
    """Of the peak, in per cent: published, and from the published time or rate by one of our counts of FLOPs."""

    source: str
    name: str
    counted: str
    published: float
    ours: float
    why: str = ""


def _of_rate(name: str, model: str, seq: int, tokens_per_second: float, published: float) -> Utilization:
    config = PRESETS[model]
    assert isinstance(config, Transformer)
    ours = 100 * config.flops(1, seq, "palm") / seq * tokens_per_second / A100
    return Utilization(TITAN_A100, f"{name}, {tokens_per_second:,} tokens/s", "palm", published, ours)


def _of_time(
    name: str, width: int, heads: int, layers: int, batch: int, devices: int, seconds: float, mfu: float, hfu: float
) -> list[Utilization]:
    model = Transformer(51200, width, layers, heads, max_position_embeddings=2048)
    counted = {"executed, nothing again": model.flops(batch, 2048), "executed, selective": model.flops(batch, 2048, recompute="selective")}
    why = "the paper counts the attention core twice for all three passes, 1 + s/3h; only its forward pass is done again"
    return [
        Utilization(KORTHIKANTI, f"GPT {name}, {what}, {seconds} s", by, published, 100 * flops / (seconds * devices * A100), because)
        for (by, flops), what, published, because in zip(counted.items(), ("MFU", "HFU"), (mfu, hfu), ("", why), strict=True)
    ]


def utilizations() -> list[Utilization]:
    return [
        _of_rate("Llama 3 8B, selective by layer", "llama3-8b", 8192, 2904, 56.8),
        _of_rate("Llama 3 8B, selective by operator", "llama3-8b", 8192, 2973, 58.2),
        _of_rate("Llama 3 70B, full", "llama3-70b", 8192, 331, 51.7),
        _of_rate("Llama 2 13B, none", "llama2-13b", 4096, 2162, 61.1),
        _of_rate("Llama 2 13B, selective by layer", "llama2-13b", 4096, 1914, 54.1),
        _of_rate("Llama 2 13B, selective by operator", "llama2-13b", 4096, 1904, 53.8),
        _of_rate("Llama 2 70B, selective by operator", "llama2-70b", 4096, 355, 50.8),
        _of_rate("Llama 2 70B, full", "llama2-70b", 4096, 353, 50.5),
        *_of_time("22B", 6144, 64, 48, 4, 8, 1.10, 41.5, 43.7),
        *_of_time("175B", 12288, 96, 96, 64, 64, 13.75, 51.4, 52.8),
        *_of_time("530B", 20480, 128, 105, 280, 280, 37.83, 56.0, 57.0),
        *_of_time("1T", 25600, 160, 128, 512, 512, 71.49, 56.3, 57.0),
        *(
            Utilization(LLAMA3, f"Llama 3 405B, {teraflops} TFLOPs/s of each GPU", "their own", published, 100e12 * teraflops / H100, why)
            for teraflops, published, why in ((430, 43, LLAMA3_WHY), (400, 41, LLAMA3_WHY), (380, 38, LLAMA3_WHY))
        ),
    ]


LLAMA3_WHY = "no time of a step is published: this is their rate over 989 TFLOPs/s, and holds no count of ours"


def runs() -> str:
    lines = ["| source | run | measured | estimate | with margin | difference | assumed, and why below |", "|---|---|---|---|---|---|---|"]
    for run in RUNS:
        bare, full = run.gib
        name = f"{run.name}, {run.model}, {run.batch} × {run.seq:,}"
        note = "; ".join(part for part in (run.assumed, f"**below:** {run.below}" if full < run.measured else "") if part)
        shown = f"{full:.1f}" if run.reserved else "allocated"
        lines.append(
            f"| {_link(run.source, run.table)} | {name} | {run.measured} | {bare:.1f} | {shown} | {_percent(full, run.measured)} | {note} |"
        )
    return "\n".join(lines)


def ran() -> str:
    lines = ["| run | recomputed | on 80 GB | estimate, GB | with margin | fits | note |", "|---|---|---|---|---|---|---|"]
    for run in RAN:
        memory = run.memory
        total, reserved = memory.total / 1e9, memory.reserved(MARGIN) / 1e9
        happened, fits = "ran" if run.ran else "out of memory", "yes" if memory.fits(80, MARGIN) else "no"
        lines.append(f"| {run.name} | {run.recompute} | {happened} | {total:.1f} | {reserved:.1f} | {fits} | {run.why} |")
    return "\n".join(lines)


def states() -> str:
    lines = ["| source | what | published | ours | difference |", "|---|---|---|---|---|"]
    for saving in savings():
        shown = f"{saving.published} GiB | {saving.gib:.2f} GiB | {_percent(saving.gib, saving.published)}"
        lines.append(f"| {_link(TORCHAO)} | saved by {saving.name} | {shown} |")
    for name, model, devices, published in ZERO_TABLE:
        for stage, gigabytes in enumerate(published, 1):
            ours = zero_states(model, devices, stage)
            shown = f"{gigabytes} GB | {ours:.4g} GB | {_percent(ours, gigabytes)}"
            lines.append(f"| {_link(ZERO, '1')} | {name}, {devices} devices, stage {stage} | {shown} |")
    return "\n".join(lines)


def utilization() -> str:
    lines = ["| source | run | FLOPs counted | published | ours | difference | note |", "|---|---|---|---|---|---|---|"]
    for one in utilizations():
        shown = f"{one.published} % | {one.ours:.1f} % | {_percent(one.ours, one.published)} | {one.why} |"
        lines.append(f"| {_link(one.source)} | {one.name} | {one.counted} | {shown}")
    return "\n".join(lines)


NAMES = {
    TITAN_H100: "torchtitan, H100",
    TITAN_H200: "torchtitan, H200",
    TITAN_A100: "torchtitan, A100",
    TORCHAO: "torchao",
    ZERO: "ZeRO",
    KORTHIKANTI: "Korthikanti et al.",
    LLAMA3: "Llama 3",
}


def _link(source: str, table: str = "") -> str:
    return f"[{NAMES[source]}]({source}){f', table {table}' if table else ''}"


def _percent(ours: float, published: float) -> str:
    return f"{100 * (ours / published - 1):+.1f} %"
