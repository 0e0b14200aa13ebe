# ruff: noqa: E501 (the page holds tables)
"""docs/performance.md and its picture, from runs: `python -m benchmarks.page RUN.json --again SECOND.json --more THIRD.json --packing FOURTH.json`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from optparity._files import replacing

from . import packing as packed
from .report import HEADERS, cells, compared, draw, quartiles, spread
from .runs import ABOUT, read

TOP = """\
# What a step costs

Written by `python -m benchmarks.page`, from runs of `python -m benchmarks` and `python -m benchmarks.packing`. Ratios are taken within one run; absolute times are this
machine's.
"""

HOW = """\
## How to read it

- **ours / this**: the median over the rounds of our time by this one's within a round (quartiles). Below 1 `jaxopt_impl` is faster. `unfenced` is the same rule without
  what keeps XLA exact, so ours / unfenced is the price of exactness. `jaxopt_impl`, `unfenced` and `optax` step in turn on the same arrays. The time in a round is the
  least of three takes, of 0.01 s or more each; a step slower than half a second is taken once.
- **least**: bytes that a step must move for each element: read the gradient, read and write the parameter and each array of state.
- **GB/s** and **of copy**: least bytes over the median time, and its share of what a copy reached in the same rounds (bytes read and written; a processor also
  reads the lines that it is about to overwrite, which in place are there already: so a step may pass 100 %). At 1M the arrays fit into a cache.
  The clock is the host's, and is read when all that was asked of the device is done, in both frameworks.
- **B moved**: bytes for each element that the compiled step reads and writes by XLA's own analysis, or torch's operations by theirs. **temp B**: what it takes for a while, for each element:
  by XLA's analysis of the donated step; for torch the peak of the process, rounded down, where the tensors together have 64 MB or more (a few MB do not show). In torch_ref's B moved the roots, which NumPy takes, are missing.
- **kernels**: XLA's fusions, scalar ones too, or torch's operations. **compile s**: torch's with what its cache on disk held.
- **bits**: the share of 4,099 parameters whose bits are not the contract's after ten steps, and the largest distance. For AdaGrad torch.optim is another rule, with ε outside
  of the root; for torch.compile bits were not compared.
- **copy**: XLA's x ← 1.5 y, threads and all.

## What the limit is

At 32M elements nothing fits into a cache, and time is traffic. XLA on CPU makes one loop for each array that it writes: Adam is three
(m, v, then θ from the two), 40 bytes for each element where 28 would do. torch's fused kernel is one loop and moves the 28, so it is
ahead where a rule keeps state, and torch.compile where it makes one loop of the rule; torch's for-loop and foreach make a pass for each operation. That is XLA's choice and
not the fence's: the unfenced rule and optax move the same. At 1M, inside the cache, arithmetic counts as well, and the fences' share of it shows.
"""

TRIED = """\
## What was tried

| tried | found (float32, donated, jax 0.10.2) |
|---|---|
| XLA_FLAGS=--xla_backend_extra_options=xla_cpu_use_multi_output_fusion | m and v in one loop: Adam 36 bytes instead of 40, no faster here within the noise |
| a `fori_loop` over blocks of 2^18 to 2^20 elements, so that the three loops meet in the cache | XLA copies whole arrays in each turn: 268 MB of temporaries at 2^25 elements, 36 to 140 times slower |
| the fence by XOR with a zero from the step counter instead of a signed zero | no faster, and gone where the counter is a constant |
| no fence on inputs, none on the result, neither, no `optimization_barrier` | each within 6 % of the fenced rule over 60 rounds at 32M, to both sides: nothing to gain, so all stay |
| division by a scalar (Adam's √v / c) as a product with its reciprocal in float64 | taken: it rounds to the quotient, and Adam at 1M, in the cache, takes 0.92 of the time |
| no fence on a divisor that is a sum (√v / c + ε), with which XLA merges nothing | taken: with the line above Adam at 1M takes 0.85 to 0.91 of the time |
| two equal fences of one array in two loops | XLA stores it: Nesterov 40 bytes and 4 of temporaries. With one zero for both addends no two are equal: 28 and 0 |
| one zero for both addends of a sum, with the sign of the left one | as fast, but where that one is an array of constants LLVM knows the zero, and drops it from the other |
| one zero for both addends, by both their signs | taken; subtracted before a plus, which saves the operation that would turn its sign |
| a + b as the smaller and the larger of the two, by a comparison and two choices | 0.93 of the time to compile, no faster at 1M; a compiler may drop it by saying no more than that a sum commutes |
| the fence as abs(x) sign(x), which may be contracted without harm | 0.93 of the time to compile, and as fast at 32M, but 1.1 to 1.7 of the time at 1M, and its derivative is lost at 0 |
| the fence by the bits of x and abs(x), without a constant | as many operations, and no less time to compile |
| SGD's b₁ = g₁ as μ b₀ + 1 g₁ with b₀ = −0, instead of a choice between two arrays | taken: LLVM makes two loops of the choice, and at 32M `sgd: all` took 1.04 to 1.07 of optax's time, `sgd: momentum` 1.02; now 1.00 |
| the same by a choice of numbers, μ or −0 | as fast, but XLA makes the choice again in each kernel that takes it: 1,000 leaves compile in 1.9 instead of 1.7 of optax's time, in one process |
| a barrier for each array instead of one for a leaf's | taken: with it, the line above and the subtracted zero 1,000 leaves of SGD with momentum compile in 1.7 to 2.2 of optax's time instead of 2.3 to 2.8 |
| the choice by a condition for each element | one loop, and as fast at 32M, but 1.08 of the time at 1M |
| run-time numbers rounded once a step, not once for each leaf | taken: 1,000 leaves of Adam compile in 1.2 to 1.3 of optax's time instead of 1.4 (2,000: 1.5) |
| arrays of their own for ours, unfenced and optax in the benchmark | quartiles of ours / unfenced twice as wide as on the same arrays in turn |
| as many steps in a take as one step's time says | one step alone is mostly its start, and by its chance takes were short or long: at 1M ours / unfenced was anything from 0.8 to 1.6 |

Temporaries are 0 for every row in float32 but two, `sgd: nesterov, all` and `rmsprop: all` (4 bytes): g + λθ is needed by several loops, one of
which makes another's input, and XLA then stores it, for the unfenced rule and for optax as well. `test_a_donated_step_needs_no_temporaries` holds this. In
bfloat16 and float16 a state's value is needed as stored and as float32, and XLA computes it twice from the old state, which it copies: 2 to 8 bytes.
"""

NOT_RUN = """\
## What was not run

GPU and TPU. `torch.compile` with more than one tensor. For this page: whatever is not in a table above (other sizes, rows and dtypes).
"""

PACKING = """\
## Many small leaves

XLA makes its kernels for each leaf, and time is their number: `jaxopt_impl.pack` puts small leaves into one array. A step per call, and several inside one jit, where dispatch
is apart; milliseconds, and ratios to optax within a round, leaf by leaf. With `loss` it is a whole training step: gradients of an elementwise loss that unpacks its parameters.
`pack` takes leaves below 2,048 elements unless told otherwise: there it won wherever it was run. Inside one jit the copies cost more than the kernels that they save from 16,384
elements on, and on another machine of the same name from 4,096 on (a GPU will win further up, which was not run).

To compile takes as long as there are operations: SGD with momentum has 6 for each leaf in optax and 19 here, and is the one that takes about twice optax's time, leaf by leaf
(1.7 to 2.2 over some ten runs). Packed, it takes a third, and Adam an eighth; with a loss, which is differentiated and unpacks, a hundred leaves take 1.7 to 2.3 of optax's time.
"""


def main(
    run: Annotated[Path, typer.Argument(help="bench.json")],
    again: Annotated[Path, typer.Option(help="bench.json of a second run on the same machine.")],
    more: Annotated[Path, typer.Option(help="bench.json of a run of other workloads.")],
    packing: Annotated[list[Path], typer.Option(help="packing.json; may be repeated.")],
    out: Annotated[Path, typer.Option(help="The page; its picture goes beside it.")] = Path("docs/performance.md"),
) -> None:
    """Write the page and draw its picture."""
    first, second, others = (read(path, (*ABOUT, "cases")) for path in (run, again, more))
    text = page(first, second, others, [read(path, (*ABOUT, "cases")) for path in packing], out.with_suffix(".png").name)
    with replacing(out) as temporary:
        temporary.write_text(text)
    draw(first, out.with_suffix(".png"))


def page(first: dict[str, Any], second: dict[str, Any], others: dict[str, Any], packings: list[dict[str, Any]], picture: str) -> str:
    """The Markdown page."""
    versions = [f"{what} {found}" for what, found in first["versions"].items()]
    parts = [TOP, f"{_made(first)}; {', '.join(versions)}.\n", f"![GB/s of each implementation]({picture})\n"]
    parts += [summary(first, workload) for workload in dict.fromkeys(case["workload"] for case in first["cases"])]
    parts += [HOW, "## Each case\n", f"The last {len(others['cases'])}: {_made(others)}\n"]
    for case in first["cases"] + others["cases"]:
        rounds = len(next(iter(case["implementations"].values()))["seconds"])
        parts.append(f"### {case['row']}, {case['workload']}, {first['dtype']}\n")
        parts.append(f"least {case['least_bytes']} B for each element, copy {case['copy_bytes_per_s'] / 1e9:.1f} GB/s, {rounds} rounds\n")
        parts.append(_table(HEADERS, [cells(key, one) for key, one in case["implementations"].items()]))
    parts += [two_runs(first, second), PACKING]
    for run in packings:
        parts += [_made(run) + "\n", _table(packed.HEADERS, [line for case in run["cases"] for line in packed.lines(case)])]
        if all(case["loss"] for case in run["cases"]):
            parts.append(by_size(run))
    return "\n".join([*parts, TRIED, NOT_RUN])


def summary(run: dict[str, Any], workload: str) -> str:
    """Our ratio to each peer, a line for each row."""
    cases = [case for case in run["cases"] if case["workload"] == workload]
    peers = [key for key in dict.fromkeys(key for case in cases for key in case["implementations"]) if key != "jaxopt_impl"]
    lines = []
    for case in cases:
        found = [case["implementations"].get(peer) for peer in peers]
        lines.append([case["row"], *(f"{quartiles(one['ours_over_this'])[1]:.2f}" if one else "none" for one in found)])
    return f"## Our time by each peer's, {workload}, {run['dtype']}\n\n" + _table(["row", *peers], lines)


def two_runs(first: dict[str, Any], second: dict[str, Any]) -> str:
    """Which ratios two runs agree on within 10 %, and the spread of the others."""
    lines, many = [], 0
    again = {(case["row"], case["workload"]): case["implementations"] for case in second["cases"]}
    for case in first["cases"]:
        for key, one in case["implementations"].items():
            other = again.get((case["row"], case["workload"]), {}).get(key)
            if other is None or key == "jaxopt_impl":
                continue
            a, b = (quartiles(run["ours_over_this"])[1] for run in (one, other))
            many += 1
            if max(a, b) / min(a, b) > 1.1:
                lines.append([f"{case['row']}, {case['workload']}", key, spread(one["ours_over_this"]), spread(other["ours_over_this"])])
    text = f"## Two runs\n\nThe benchmark again, {_made(second)}. Of {many} ratios {many - len(lines)} agree within 10 %."
    if not lines:
        return text + "\n"
    apart = compared(first, second, 1.1)[1] or compared(second, first, 1.1)[1]
    text += f" The others, with their quartiles, which {'do not all' if apart else 'all'} overlap:\n\n"
    return text + _table(["case", "ours / this", "first", "second"], lines)


def by_size(run: dict[str, Any]) -> str:
    """Packed over leaf by leaf, a column for each size of leaf."""
    cases = run["cases"]
    lines = [
        [name, *(f"{quartiles(packed.ratios(case, 'packed', 'jaxopt_impl', which))[1]:.2f}" for case in cases)]
        for name, which in (("a step per call", "per_call"), ("inside one jit", "in_one_jit"))
    ]
    return "Packed over leaf by leaf:\n\n" + _table([f"{cases[0]['leaves']} leaves of", *(f"{case['size']:,}" for case in cases)], lines)


def _made(run: dict[str, Any]) -> str:
    return f"{run['device']}, {run['threads']} threads, load {run['load']:.1f}, {run['when']}, commit {run['commit']}"


def _table(headers: list[str], lines: list[list[str]]) -> str:
    rows = [headers, ["---"] * len(headers), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    typer.run(main)
