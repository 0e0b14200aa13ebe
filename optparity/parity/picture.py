"""The picture: ulp distance from torch_ref over the steps of the digits, one panel per optimizer, one line per implementation."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from .._files import replacing
from ..check import OURS, STOCK, Result

STYLE = {OURS: ("tab:green", "-"), "torch.optim": ("tab:orange", "-"), "optax": ("tab:blue", "--")}


def plot(results: list[Result], path: Path) -> None:
    """Draw the first row and dtype of each optimizer, on the stream on which the stock implementations were measured."""
    chosen: dict[str, Result] = {}
    for result in results:
        if result.trial.with_stock:
            chosen.setdefault(result.trial.row.optimizer, result)
    columns = 1 if len(chosen) < 4 else 2
    rows = -(-len(chosen) // columns)
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=(8 * columns, 1 + 2.6 * rows), layout="constrained")
    for spare in axes.flat[len(chosen) :]:
        spare.set_visible(False)
    for axis, (name, result) in zip(axes.flat, chosen.items(), strict=False):
        trial = result.trial
        for other in (*STOCK, OURS):
            if other not in result.reports:  # torch.optim has no such optimizer
                continue
            report = result.reports[other]
            color, line = STYLE[other]
            end = "0 ulp at every step" if report.identical else f"{100 * report.share:.0f} % differ at the end"
            label = f"{other}: {end}"
            axis.plot(range(1, report.steps + 1), report.ulp, color=color, linestyle=line, label=label, lw=2.5 if other == OURS else 1.2)
        axis.set_yscale("symlog", linthresh=1)
        axis.set_ylim(-0.5, 1e3 * max(1, axis.get_ylim()[1]))
        axis.set_ylabel("largest distance, ulp")
        axis.set_title(f"{name}, {trial.dtype}, gradients: {trial.stream}", loc="left", fontsize=10)
        axis.legend(fontsize=8, loc="upper center", ncols=3)
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    figure.suptitle("Distance from torch_ref when all are fed the same gradients")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format=path.suffix.lstrip("."))
    plt.close(figure)
