# ruff: noqa: E501 (the page holds tables)
"""docs/performance.md and its picture, from runs of the benchmarks: `python -m benchmarks.page docs/results/STEM`."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from optparity._figures import drawing
from optparity._files import replacing
from optparity.accelerators.targets import TARGETS

from . import packing as packed
from .measure import OURS
from .one_pass import ROWS as TORCH_PEERS
from .report import quartiles
from .runs import ABOUT, read
from .steps import MANY, OPERATIONS, WORKLOADS

ROOT = Path(__file__).parent.parent
STEM = ROOT / "docs" / "results" / "cpu_amd_epyc_2_cores"
COMPILED = ROOT / "docs" / "results" / "compiled_for_gpu_and_tpu.json"
STYLE = ROOT / "tools" / "pictures.mplstyle"
LARGE, SMALL = "32M", "1M"  # elements of one array, in no cache and in one
NAMES = {"unfenced": "without fences"}
MARKS = {OURS: "o", "torch_ref": "X", "torch for-loop": "s", "torch foreach": "D", "torch fused": "^", "torch compiled": "v"}

TOP = """\
# Performance

What does exactness cost? On a CPU, with arrays too large for the cache, nothing: {unfenced} of the time of the same rule without
[fences](how_it_works.md#the-fence), and {optax} of optax's. In the cache it was {small} of the time without fences. These are the lowest and the highest of
all optimizers in two runs; differences of a few percent are noise.

That is without a compiler. With one, a step goes through [compiled loops](one_pass.md), and is faster than that.

![Time of a step of each optimizer in each implementation, relative to optax](performance.svg)
"""

ONE_PASS = """\
## With compiled loops

Each number is the time of the form that the column names, divided by the time of a peer. The peer "torch" is PyTorch's fused kernel; RMSProp has none, so it
is the `foreach` form there. `update` means `tx.update` and `optax.apply_updates` in one `jit`, where the gradient is given.

{tables}
`update_and_apply` and `torch_ref` read and write each array once, as PyTorch's fused kernels do. `update` returns an array of its own, which has to be
written and read again. For a large array whose gradient is given, XLA's loops need no memory for it and are faster, so the rule is used there. At {small} a step of
`torch_ref` is short enough that its checks in Python show.

Everything below was measured without the compiled loops. `torch_ref` is slow then, because each of its operations is a pass over memory.
"""

HOW_TO_READ = """\
Each number is the time of `jaxopt_impl`, divided by the time of the implementation that the column names. Below 1, `jaxopt_impl` is faster.
"Without fences" is the same rule, but XLA may rewrite it. "torch" is torch.optim: as a loop over parameters, with `foreach`, with `fused`, and under
`torch.compile`.
"""

LIMIT = """\
## What limits a step

An optimizer does little arithmetic with much data. Arrays of 32 million elements fit into no cache, so the time is the time to read and write them. XLA on
CPU makes one loop for each array that it writes. For Adam that is three loops, and 40 bytes are moved for each element. One loop would need 28. PyTorch's fused kernels are one
loop, so they are ahead where a rule keeps state. The unfenced rule and optax move the same 40 bytes as `jaxopt_impl`.

A million elements fit into the cache. Then arithmetic counts as well, and the fences show.

## Many small arrays

For each array XLA starts kernels of its own. With hundreds of small arrays that takes most of the time. [Packing](packing.md) puts them into one.

Fences are operations too, and have to be compiled. For 1,000 arrays, SGD with momentum compiles in about twice optax's time, and Adam in 1.3 times.
Packed, both compile faster than optax.
"""

ACCELERATORS = """\
## On GPUs and TPUs

Nothing here was run on a device. [GPU and TPU](gpu_and_tpu.md) says how jax compiles without one. The programs for the training step of Adam in float32, with donated
arrays, were read. Each element needs 28 bytes at least: four arrays are read and three written.

For a single array all of them move just that, for each target. One kernel writes all three arrays, as in optax's program. With 400 arrays each has
a kernel of its own. [Packed](packing.md), they have one together.

{steps}
"Kernels over arrays" are CUDA's kernels or the TPU's fusions. The other kernels compute single numbers, once for each step; a TPU computes those without fusions, and they are not counted.
Bytes are those of the operands and results of the kernels over arrays.{cost}{many}

"By integers" and "without fences" are `jaxopt_impl` as well: with the TPU's way to divide on a GPU, and with nothing that keeps XLA from rewriting.

### What exact division costs on a TPU

A TPU has no float64, so quotients and roots are corrected by integers. XLA estimates how many cycles a program takes. For 32M elements, those of
`jaxopt_impl` are {cycles} times those of optax. So the corrections do not hide behind the memory there. They are estimates by the compiler, and nothing was timed.

### Why a GPU divides through float64

PTX instructions for each element, in the program for the H100:

{operations}
A thread handles four elements in these programs. What the processor executes is not PTX but SASS, into which ptxas 12 translates it, for `sm_90a`. Counted once by hand, with `nvdisasm`, the
kernel of `jaxopt_impl` has 144 instructions for each element, of which 42 are for the float64 units. By integers it would have 254. Without fences it has 34, and optax's 36.

At 3.35 TB/s, an H100 can issue about 240 instructions in the time that 28 bytes take, of which about 120 may be of float64. So float64 hides behind memory, and integers would
take a little longer than it.
GeForce cards compute float64 at 1/64 of the rate of float32. There a step through float64 takes about twice the time of its memory. All this is computed from
published rates and from the length of the code, whatever of it is executed.
"""

METHOD = """\
## How it was measured

`make bench` measures on your machine. These numbers are from {device}, {threads} threads, with {versions}.

- All implementations take turns in each round. Ratios are taken within a round, and the numbers are medians over the rounds.
- `jaxopt_impl`, the unfenced rule and optax step the same arrays, in place.
- A round takes the least of three times, each of at least 0.01 s.
- A second run repeated everything. Of {many} ratios, {agree} agree within 10 %. The others are mostly of PyTorch at 1M.

[What was tried](what_was_tried.md) lists the ideas behind the present code, and those that failed. Not run: anything on a GPU or TPU, and `torch.compile` with more than one tensor.

## All numbers

The files hold every round of every case, with bandwidth, bytes moved, temporaries, kernels, compile times and bits.

| file | content |
|---|---|
"""

FILES = {
    "": "the tables above",
    "_again": "the second run",
    "_more": "Adam on 2,000 small arrays, and on the shapes of GPT-2",
    "_packing": "packing, 2,000 arrays of 256 elements",
    "_packing_1000": "packing, 1,000 arrays of 256 elements",
    "_packing_loss": "packing in a whole training step, 100 arrays of several sizes",
}


IN_ONE_PASS = {"_one_pass": "the compiled loops, 32M", "_one_pass_1M": "the compiled loops, 1M"}


class Runs(NamedTuple):
    """What the files hold."""

    first: dict[str, Any]
    again: dict[str, Any]
    more: dict[str, Any]
    packing: dict[str, Any]
    packing_1000: dict[str, Any]
    packing_loss: dict[str, Any]
    compiled: dict[str, Any]
    one_pass: list[dict[str, Any]]


def load(stem: Path = STEM) -> Runs:
    """The runs whose names begin so, and what was compiled."""
    paths = [*(stem.with_name(f"{stem.name}{part}.json") for part in FILES), COMPILED]
    paths += [stem.with_name(f"{stem.name}{part}.json") for part in IN_ONE_PASS]
    runs = [read(path, (*ABOUT, "cases")) for path in paths]
    return Runs(*runs[: -len(IN_ONE_PASS)], one_pass=runs[-len(IN_ONE_PASS) :])


def main(
    stem: Annotated[Path, typer.Argument(help="What the names of the files begin with.")] = STEM,
    out: Annotated[Path, typer.Option(help="The page; its picture goes beside it.")] = ROOT / "docs" / "performance.md",
) -> None:
    """Write the page and draw its picture."""
    runs = load(stem)
    with replacing(out) as temporary:
        temporary.write_text(page(runs, stem.name))
    draw(runs.first, out.with_suffix(".svg"))


def page(runs: Runs, stem: str = STEM.name) -> str:
    """The Markdown page."""
    ranges = {"unfenced": (LARGE, "unfenced"), "optax": (LARGE, "optax"), "small": (SMALL, "unfenced")}
    parts = [TOP.format(**{name: _range(runs, *which) for name, which in ranges.items()})]
    parts += [ONE_PASS.format(tables="\n".join(map(in_one_pass, runs.one_pass)), small=SMALL), "## Compared with others\n", HOW_TO_READ]
    parts += [f"One array of {workload} elements, {runs.first['dtype']}:\n\n{summary(runs.first, workload)}" for workload in (LARGE, SMALL)]
    versions = ", ".join(f"{what} {runs.first['versions'][what]}" for what in ("jax", "optax", "torch"))
    many, agree = agreement(runs.first, runs.again)
    about = {"device": runs.first["device"], "threads": runs.first["threads"], "versions": versions, "many": many, "agree": agree}
    files = "".join(f"| [{stem}{part}.json](results/{stem}{part}.json) | {what} |\n" for part, what in {**FILES, **IN_ONE_PASS}.items())
    files += f"| [{COMPILED.name}](results/{COMPILED.name}) | Adam, compiled for GPUs and TPUs |\n"
    return "\n".join([*parts, LIMIT, accelerators(runs.compiled["cases"]), METHOD.format(**about)]) + files


def in_one_pass(run: dict[str, Any]) -> str:
    """A table with a line for each rule, of one workload."""
    columns = (("update_and_apply", 0), ("torch_ref", 0), (OURS, 0), ("update_and_apply", 1), (OURS, 1))
    lines = []
    for case in run["cases"]:
        peers = (TORCH_PEERS[case["row"]], "optax")
        pairs = ((case["seconds"][ours], case["seconds"][peers[peer]]) for ours, peer in columns)
        ratios = [quartiles([a / b for a, b in zip(*pair, strict=True)])[1] for pair in pairs]
        lines.append([_name(case["row"]), *(f"{ratio:.2f}" for ratio in ratios)])
    headers = ["optimizer"] + [f"{'update' if ours == OURS else f'`{ours}`'} / {('torch', 'optax')[peer]}" for ours, peer in columns]
    workload = run["cases"][0]["workload"]
    return f"One array of {workload} elements, {run['dtype']}:\n\n{table(headers, lines)}"


def accelerators(cases: list[dict[str, Any]]) -> str:
    """What was compiled for GPUs and TPUs."""
    steps = [case for case in cases if case["program"] not in OPERATIONS]
    alone = [case for case in steps if case["program"] == LARGE and case["cost_analysis"]]
    cost = (
        f" XLA's own count, which it has for TPUs only, is at most {max(case['cost_analysis'] for case in alone):.1f} for a single array."
    )
    compiled_for = list(dict.fromkeys(case["target"] for case in steps if case["program"] == MANY))
    many = f" The 400 arrays, not packed, were compiled for {' and '.join(compiled_for)} only."
    return ACCELERATORS.format(steps=of_steps(steps), cost=cost, many=many, cycles=of_cycles(steps), operations=of_operations(cases))


def of_cycles(cases: list[dict[str, Any]]) -> str:
    """XLA's estimate for a large array, relative to optax's, on each target that it estimates."""
    found = {(case["target"], case["implementation"]): case["estimated_cycles"] for case in cases if case["program"] == LARGE}
    ratios = {target: found[target, OURS] / found[target, "optax"] for target, _ in found if found[target, "optax"]}
    listed = [f"{ratio:.2f} on the {target}" for target, ratio in ratios.items()]
    return f"{', '.join(listed[:-1])} and {listed[-1]}"


def of_steps(cases: list[dict[str, Any]]) -> str:
    """A table with a line for each program of an implementation; targets for which all numbers are the same share it."""
    lines: dict[tuple[Any, ...], list[str]] = {}
    for case in cases:
        numbers = (f"{case['array_kernels']}", f"{case.get('scalar_kernels', '')}", f"{case['bytes']:.0f}", f"{case['temporary_bytes']:,}")
        lines.setdefault((case["program"], NAMES.get(case["implementation"], case["implementation"]), *numbers), []).append(case["target"])
    headers = [
        "arrays",
        "program",
        "kernels over arrays",
        "other kernels",
        "bytes per element",
        "temporaries, bytes in all",
        "compiled for",
    ]
    order = [*WORKLOADS]
    found = sorted(lines.items(), key=lambda line: (order.index(line[0][0]), TARGETS[line[1][0]].platform))
    return table(headers, [[*numbers, ", ".join(targets)] for numbers, targets in found])


def of_operations(cases: list[dict[str, Any]], target: str = "h100") -> str:
    """A table of the PTX instructions of a division, a root, and a step, computed in each way."""
    ways = {"unfenced": "the GPU's own, approximate", "jaxopt_impl": "through float64", "by integers": "by integers"}
    found = {(case["program"], case["implementation"]): case["ptx"] for case in cases if case["target"] == target}
    names = {**{name: f"`{name}`" for name in OPERATIONS}, LARGE: "a step of Adam"}
    return table(["", *ways.values()], [[name, *(f"{found[program, way]:.0f}" for way in ways)] for program, name in names.items()])


def summary(run: dict[str, Any], workload: str) -> str:
    """Our ratio to each peer, a line for each row."""
    cases = [case for case in run["cases"] if case["workload"] == workload]
    peers: list[str] = [key for key in dict.fromkeys(key for case in cases for key in case["implementations"]) if key != OURS]
    lines = []
    for case in cases:
        found = [case["implementations"].get(peer) for peer in peers]
        lines.append([_name(case["row"]), *(f"{_median(one):.2f}" if one else "none" for one in found)])
    return table(["optimizer", *(NAMES.get(peer, peer) for peer in peers)], lines)


def _name(row: str) -> str:
    return row.removesuffix(": default").replace(": all", ", all options")


def _median(implementation: dict[str, Any]) -> float:
    return quartiles(implementation["ours_over_this"])[1]


def _range(runs: Runs, workload: str, peer: str) -> str:
    """The lowest and the highest ratio to a peer, of all rows and both runs."""
    cases = [case for run in (runs.first, runs.again) for case in run["cases"] if case["workload"] == workload]
    found = [_median(case["implementations"][peer]) for case in cases]
    return f"{min(found):.2f} to {max(found):.2f}"


def agreement(first: dict[str, Any], second: dict[str, Any]) -> tuple[int, int]:
    """How many ratios both runs have, and how many of these agree within 10 %."""
    found = [_ratios(run) for run in (first, second)]
    apart = [max(a, b) / min(a, b) for key, a in found[0].items() if (b := found[1].get(key))]
    return len(apart), sum(ratio <= 1.1 for ratio in apart)


def _ratios(run: dict[str, Any]) -> dict[tuple[str, ...], float]:
    return {
        (case["row"], case["workload"], key): _median(one)
        for case in run["cases"]
        for key, one in case["implementations"].items()
        if key != OURS
    }


def draw(run: dict[str, Any], path: Path) -> None:
    """A line of marks for each row at 32M: each implementation's time relative to optax's."""
    cases = [case for case in run["cases"] if case["workload"] == LARGE]
    with drawing(path, figsize=(6, 4), style=STYLE) as (figure, axes):
        axis = axes[0, 0]
        for name, mark in MARKS.items():
            times = {i: case["implementations"] for i, case in enumerate(cases) if name in case["implementations"]}
            ratios = [_against_optax(implementations, name) for implementations in times.values()]
            axis.scatter(ratios, times.keys(), marker=mark, label=name, zorder=3 if name == OURS else 2, alpha=0.9)
        axis.axvline(1, color="gray", linewidth=0.8)
        axis.set_yticks(range(len(cases)), [_name(case["row"]) for case in cases])
        axis.invert_yaxis()
        axis.set(xscale="log", xlabel=f"time of a step at {LARGE}, relative to optax (further left is faster)")
        axis.set_xticks(ticks := [0.5, 1, 2, 5, 10, 20, 50], [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.grid(axis="x")
        figure.legend(loc="outside lower center", ncols=3)


def _against_optax(implementations: dict[str, Any], name: str) -> float:
    pairs = zip(implementations[name]["seconds"], implementations["optax"]["seconds"], strict=True)
    return quartiles([a / b for a, b in pairs])[1]


def small_leaves(runs: Runs, row: str = "adam: default") -> str:
    """A table for docs/packing.md: packed, relative to optax, leaf by leaf."""
    (case,) = [case for case in runs.packing["cases"] if case["row"] == row]
    what = {"per_call": "a step, called from Python", "in_one_jit": "a step inside one `jit`", "compile_s": "compiling"}
    lines = [[name, f"{quartiles(packed.ratios(case, 'packed', 'optax', which))[1]:.2f}"] for which, name in what.items()]
    return table([f"Adam, {case['leaves']:,} arrays of {case['size']} elements", "time relative to optax"], lines)


def by_size(runs: Runs) -> str:
    """A table for docs/packing.md: packed, relative to leaf by leaf, a line for each size of leaf, in a whole training step."""
    cases = runs.packing_loss["cases"]
    which = ("per_call", "in_one_jit")
    ratios = [[quartiles(packed.ratios(case, "packed", OURS, each))[1] for each in which] for case in cases]
    lines = [[f"{case['size']:,}", *(f"{ratio:.2f}" for ratio in found)] for case, found in zip(cases, ratios, strict=True)]
    return table([f"{cases[0]['leaves']} arrays of", "a step, called from Python", "a step inside one `jit`"], lines)


def table(headers: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    rows = [headers, ["---"] * len(headers), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    typer.run(main)
