"""The pictures of docs/how_it_works.md, measured when they are drawn: `python -m tools.how_it_works docs`.

`rewrites.svg`: what XLA makes of each small expression of `optparity.parity.canaries`, plain and fenced.
`distances.svg`: how far torch.optim's and optax's AdamW are from `torch_ref`'s over 1,000 steps, and `jaxopt_impl`'s.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from optparity._figures import drawing
from optparity.parity import canaries
from optparity.parity.compare import compare_all
from optparity.parity.streams import gradients, parameters
from optparity.registry import Row

STYLE = Path(__file__).with_name("pictures.mplstyle")
ELEMENTS, STEPS = 1003, 1000
LINES = {"torch.optim": ("tab:orange", "-"), "optax": ("tab:blue", "-"), "jaxopt_impl": ("tab:green", "--")}


def rewritten() -> dict[str, tuple[float, float]]:
    """The shares of results that differ, plain and fenced, of one expression for each rewrite that XLA makes here."""
    as_they_come = [canary for canary in canaries.CANARIES if canary.prepare is canaries.Canary.prepare]
    one_of_each = {canary.becomes: canary for canary in reversed(as_they_come)}.values()
    found = {f"{canary.name}   becomes   {canary.becomes}": canaries.plain_and_fenced(canary) for canary in one_of_each}
    return {name: shares for name, shares in sorted(found.items(), key=lambda item: item[1]) if any(shares)}


def distances() -> dict[str, list[float]]:
    """The share of parameters whose bits are not those of torch_ref after each step."""
    row = Row("adamw", "default")
    assert row.stock_torch  # torch.optim has it
    params = parameters({"w": (ELEMENTS,)}, "float32")
    reports = compare_all(
        {"jaxopt_impl": row.tx, "optax": row.stock_tx},
        {"torch_ref": row.torch, "torch.optim": row.stock_torch},
        params,
        gradients("normal", params),
        steps=STEPS,
        state_map={},
    )
    return {name: [differing / ELEMENTS for differing in report.differing] for name, report in reports.items()}


def draw_rewritten(shares: Mapping[str, tuple[float, float]], path: Path) -> None:
    """Two bars for each expression, under its name."""
    with drawing(path, figsize=(6, 0.9 + 0.55 * len(shares)), style=STYLE) as (_, axes):
        axis = axes[0, 0]
        for shift, side, color, label in ((0, 0, "tab:red", "plain, under jit"), (-0.25, 1, "tab:green", "fenced")):
            percent = [100 * both[side] for both in shares.values()]
            bars = axis.barh([i + shift for i in range(len(shares))], percent, 0.25, color=color, label=label)
            axis.bar_label(bars, [f"{share:.2g} %" for share in percent], padding=3)
        for i, name in enumerate(shares):
            axis.text(0, i + 0.17, name, va="bottom")
        axis.set_yticks([])
        axis.set_xlim(right=50)
        axis.set_xlabel("results that are not the ones rounded once, %")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.08), ncols=2)


def draw_distances(shares: Mapping[str, Sequence[float]], path: Path) -> None:
    """A line for each implementation."""
    with drawing(path, figsize=(6, 3.2), style=STYLE) as (_, axes):
        axis = axes[0, 0]
        for name, (color, dash) in LINES.items():
            percent = [100 * share for share in shares[name]]
            axis.plot(range(1, STEPS + 1), percent, dash, color=color, label=f"{name}: {percent[-1]:.0f} %")
        axis.set(xlabel="step", ylabel="parameters that differ, %", xscale="log")
        axis.grid()
        axis.legend(loc="center right")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    draw_rewritten(rewritten(), folder / "rewrites.svg")
    draw_distances(distances(), folder / "distances.svg")
    print(f"drawn with jax {jax.__version__}")
