# ruff: noqa: E501 (the page holds tables)
"""docs/performance.md from a run: `python -m benchmarks.page out/bench.json docs/performance.md`."""

import json
import sys
from pathlib import Path
from typing import Any

from parity_tests.files import replacing

from .__main__ import quartiles

ABOUT = """\
## How to read it

- **least B**: bytes that a step must move for each element: read the gradient, read and write the parameter and each array of state.
- **GB/s** and **of copy**: least bytes over the median time, and its share of what a copy reached in the same rounds. Above 100 % the arrays fit
  into a cache, or a copy, which reads one array and writes another, is slower than work in place.
- **ours / this**: the median over the rounds of our time by this one's within a round (quartiles). Below 1 `jaxopt_impl` is faster.
- **moved**: what XLA's own analysis says that the compiled step reads and writes; **temp**: temporaries of the donated step.
- **bits**: the share of 4,099 parameters whose bits are not the contract's after ten steps, and the largest distance.

## What the limit is

At 32M elements nothing fits into a cache, and time is traffic. XLA on CPU makes one loop for each array that it writes: Adam is three
(m, v, then θ from the two), 40 bytes for each element where 28 would do. torch's fused kernel is one loop and moves the 28, so it is
ahead where a rule keeps state; torch's for-loop and foreach make a pass for each operation. That is XLA's choice and not the fence's: the
unfenced rule and optax move the same.

## What was tried

| tried | found (float32, donated, jax 0.10.2) |
|---|---|
| XLA_FLAGS=--xla_backend_extra_options=xla_cpu_use_multi_output_fusion | m and v in one loop: Adam 36 bytes instead of 40, no faster here within the noise |
| a `fori_loop` over blocks of 2^18 to 2^20 elements, so that the three loops meet in the cache | XLA copies whole arrays in each turn: 268 MB of temporaries at 2^25 elements, 36 to 140 times slower |
| the fence by XOR with a zero from the step counter instead of a signed zero | no faster, and gone where the counter is a constant |
| no fence on inputs, none on the result, neither, no `optimization_barrier` | each within 6 % of the fenced rule over 60 rounds at 32M, to both sides: nothing to gain, so all stay |
| two equal fences of one array in two loops | XLA stores it: Nesterov 40 bytes and 4 of temporaries. Written in two ways (`other_fence`): 28 and 0 |

Temporaries are 0 for every row in float32 but two, `sgd: nesterov, all` and `rmsprop: all` (4 bytes): g + λθ is needed by several loops, one of
which makes another's input, and XLA then stores it, for the unfenced rule and for optax as well. `test_a_donated_step_needs_no_temporaries` holds this. In
bfloat16 and float16 a state's value is needed as stored and as float32, and XLA computes it twice from the old state, which it copies: 2 to 8 bytes.

## Many small leaves

XLA makes its kernels for each leaf, and time is their number: `python -m benchmarks.packing` compares with `jaxopt_impl.pack`, which puts small leaves into one
array. A whole training step of 100 leaves (gradients of an elementwise loss that unpacks them, then Adam), packed over leaf by leaf:

| elements of a leaf | 64 | 1,024 | 4,096 | 16,384 | 65,536 |
|---|---|---|---|---|---|
| a step per call | 0.32 | 0.41 | 0.68 | 1.16 | 5.1 |
| inside one jit | 0.49 | 0.82 | 1.83 | 1.41 | 2.3 |

So `pack` takes leaves below 2,048 elements unless told otherwise. (Medians of 15 rounds, AMD EPYC, 2 cores; a GPU will win further up, which was not run.)

## What was not run

GPU and TPU. `torch.compile` with more than one tensor. For this page: whatever is not in a table above (other sizes, rows and dtypes).
"""


def page(result: dict[str, Any]) -> str:
    """The Markdown page."""
    lines = [
        "# What a step costs",
        "",
        "Written by `python -m benchmarks.page`, from a run of `python -m benchmarks`. Ratios within one run; absolute times are this machine's.",
        "",
        f"- {result['device']}, {result['threads']} threads, load {result['load']:.1f}, {result['when']}, commit {result['commit']}",
        *(f"- {what}: {found}" for what, found in result["versions"].items()),
        "",
        "![GB/s of each implementation](performance.png)",
        "",
    ]
    for case in result["cases"]:
        head = f"## {case['row']}, {case['workload']}, {result['dtype']}"
        rounds = len(next(iter(case["implementations"].values()))["seconds"])
        lines += [head, "", f"least {case['least_bytes']} B, copy {case['copy_bytes_per_s'] / 1e9:.1f} GB/s, {rounds} rounds", ""]
        lines += [
            "| implementation | ms | ours / this | GB/s | of copy | moved | temp | compile, s | bits |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for key, one in case["implementations"].items():
            low, middle, high = quartiles(one["ours_over_this"])
            bits = "" if "ulp" not in one else "same" if not one["ulp"] else f"{one['differing']:.0%}, {one['ulp']:.0e} ulp"
            facts = [f"{one[fact]:.3g}" if fact in one else "" for fact in ("traffic_bytes", "temporary_bytes", "compile_s")]
            cells = [
                f"{1e3 * quartiles(one['seconds'])[1]:.3f}",
                f"{middle:.3f} ({low:.2f} to {high:.2f})",
                f"{one['bytes_per_s'] / 1e9:.1f}",
            ]
            lines.append(f"| {' | '.join([key, *cells, format(one['share_of_copy'], '.0%'), *facts, bits])} |")
        lines.append("")
    return "\n".join([*lines, ABOUT])


if __name__ == "__main__":
    with replacing(Path(sys.argv[2])) as temporary:
        temporary.write_text(page(json.loads(Path(sys.argv[1]).read_text())))
