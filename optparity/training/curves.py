"""The picture of a run: the loss of each side over the steps, and how far apart the two are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._figures import drawing
from .run import Line

STYLE = {"torch": ("tab:orange", "-", "o", "PyTorch"), "jax": ("tab:blue", "--", "x", "JAX")}


def draw(lines: Sequence[Line], result: dict[str, Any], path: Path) -> None:
    """Draw the lines of a log. With both sides, a second panel has the distance of their parameters."""
    run, both = result["run"], "differing" in result
    with drawing(path, 1 + both, figsize=(9, 4.5 + 2.5 * both), sharex=True) as (_, axes):
        losses, *others = axes[:, 0]
        _losses(losses, lines, result)
        gradients = f", gradients {run['gradients']}" if both else ""
        losses.set_title(f"{run['task']}, {run['optimizer']}{gradients}", loc="left", fontsize=11)
        for axis in others:
            _distance(axis, lines, result)
        axes[-1, 0].set_xlabel("step")


def _losses(axis: Any, lines: Sequence[Line], result: dict[str, Any]) -> None:
    """The loss of each side, of the batches and held out."""
    for side, (color, dash, marker, name) in STYLE.items():
        batch = [(line.step, line.loss[side]) for line in lines if side in line.loss]
        held_out = [(line.step, line.held_out[side]) for line in lines if side in line.held_out]
        if batch:
            axis.plot(*zip(*batch, strict=True), color=color, linestyle=dash, lw=0.8, alpha=0.6, label=f"{name}, batch")
        if held_out:
            end = f"{name}, held out: {held_out[-1][1]:.4f} at the end"
            axis.plot(*zip(*held_out, strict=True), color=color, linestyle=dash, marker=marker, ms=5, label=end)
    if "unigram_entropy" in result:
        entropy = result["unigram_entropy"]
        axis.axhline(entropy, color="gray", linestyle=":", label=f"unigram entropy: {entropy:.4f}")
    axis.set_ylabel("loss, nats" if "accuracy" in result else "loss, variance of the targets")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)


def _distance(axis: Any, lines: Sequence[Line], result: dict[str, Any]) -> None:
    """How far apart the parameters of the two sides are."""
    differing, elements = result["differing"], result["elements"]
    said = f"{differing:,} differing elements" if differing else f"every bit of {elements:,} elements is the same at every step"
    axis.plot([line.step for line in lines], [line.distance for line in lines], color="tab:green", lw=1.5, label=said)
    if any(line.distance for line in lines):
        axis.set_yscale("log")
    axis.set_ylabel("|θ JAX − θ PyTorch| / |θ|")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
