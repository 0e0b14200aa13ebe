"""What people see of a run: a table, a picture, and how it compares with an older one."""

import math
import statistics
from pathlib import Path
from typing import Any

from rich.table import Table

from optparity._figures import drawing

from .measure import OURS

HEADERS = ["implementation", "ms a step", "ours / this", "GB/s", "of copy", "B moved", "temp B", "kernels", "compile s", "bits"]


def cells(key: str, one: dict[str, Any]) -> list[str]:
    """A line of the table, under `HEADERS`."""
    bits = "" if "ulp" not in one else "same" if not one["ulp"] else f"{one['differing']:.0%}, {one['ulp']:.0e} ulp"
    return [
        key,
        spread(one["seconds"], 1e3),
        spread(one["ours_over_this"]),
        f"{one['bytes_per_s'] / 1e9:.1f}",
        f"{one['share_of_copy']:.0%}",
        *(f"{one[fact]:{form}}" if fact in one else "" for fact, form in FACTS.items()),
        bits,
    ]


FACTS = {"traffic_bytes": ".3g", "temporary_bytes": ".3g", "kernels": "d", "compile_s": ".2g"}


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def spread(values: list[float], unit: float = 1.0) -> str:
    """The median and, in brackets, the quartiles."""
    low, middle, high = (unit * value for value in quartiles(values))
    power = math.floor(math.log10(middle))
    digits = max(0, 2 - power if power >= 0 else 1 - power)  # two or three that count
    return f"{middle:.{digits + 1}f} ({low:.{digits}f} to {high:.{digits}f})"


def table(case: dict[str, Any]) -> Table:
    """A line for each implementation."""
    title = f"{case['row']}, {case['workload']}: least {case['least_bytes']} B/element, copy {case['copy_bytes_per_s'] / 1e9:.1f} GB/s"
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for header in HEADERS:
        shown.add_column(header, justify="left" if header == "implementation" else "right")
    for key, one in case["implementations"].items():
        shown.add_row(*cells(key, one))
    return shown


def draw(result: dict[str, Any], path: Path) -> None:
    """A panel for each case, a bar for each implementation: GB/s of the least traffic, and the copy bandwidth as a line."""
    cases = result["cases"]
    columns = min(4, len(cases))
    rows = -(-len(cases) // columns)
    with drawing(path, rows, columns, figsize=(4.2 * columns, 0.6 + 2.6 * rows)) as (figure, axes):
        for spare in axes.flat[len(cases) :]:
            spare.set_visible(False)
        for axis, case in zip(axes.flat, cases, strict=False):
            _panel(axis, case)
        figure.suptitle(f"{result['device']}, {result['threads']} threads, {result['dtype']}; longer is faster, the line is a copy")


def _panel(axis: Any, case: dict[str, Any]) -> None:
    names = list(case["implementations"])
    speeds = [case["implementations"][name]["bytes_per_s"] / 1e9 for name in names]
    colors = ["tab:green" if name == OURS else "tab:orange" if name.startswith("torch") else "tab:blue" for name in names]
    axis.barh(names, speeds, color=colors)
    axis.axvline(case["copy_bytes_per_s"] / 1e9, color="black", linewidth=1)
    axis.invert_yaxis()
    axis.set_title(f"{case['row']}, {case['workload']}", loc="left", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.set_xlabel("GB/s of the least traffic", fontsize=8)


def compared(old: dict[str, Any], new: dict[str, Any], threshold: float) -> tuple[Table, bool]:
    """Our ratio to each peer then and now, with the quartiles; and whether one has grown past the threshold.

    A ratio is worse if its median is more than `threshold` times what it was and the quartiles of the two runs do not overlap: by less
    than that two runs of one program differ.
    """
    before = {(case["row"], case["workload"]): case["implementations"] for case in old["cases"]}
    shown = Table(title="ours / this, median (quartiles)", title_justify="left", box=None, pad_edge=False)
    for header in ("case", "implementation", "then", "now", "now / then", ""):
        shown.add_column(header, justify="left" if header in ("case", "implementation", "") else "right")
    found = False
    for case in new["cases"]:
        for key, one in case["implementations"].items():
            then = before.get((case["row"], case["workload"]), {}).get(key)
            if then is None or key == OURS:
                continue
            was, now = (run["ours_over_this"] for run in (then, one))
            ratio = quartiles(now)[1] / quartiles(was)[1]
            apart = quartiles(now)[0] > quartiles(was)[2]
            worse = ratio > threshold and apart
            found |= worse
            verdict = "WORSE" if worse else "within the spread" if ratio > threshold else ""
            shown.add_row(f"{case['row']}, {case['workload']}", key, spread(was), spread(now), f"{ratio:.2f}", verdict)
    return shown, found
