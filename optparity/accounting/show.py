"""What `optparity cost` shows: an estimate as table rows, as JSON and as a picture."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from .._figures import drawing
from . import COMPONENTS, CONVENTIONS, PRESETS, Cruncher, Estimate, Memory, Transformer
from .hugging_face import FAMILIES, HARMLESS, Reading
from .hugging_face import read as read_hugging_face

COLORS = dict(zip(COMPONENTS, ("#77aadd", "#99ddff", "#44bb99", "#eedd88", "#ee8866"), strict=True))
KEYS = ["model", *(field.name for model in (Transformer, Cruncher) for field in fields(model))]
TITLES = {name: name.replace("_", " ") for name in COMPONENTS}
Rows = Iterator[tuple[str, ...]]


def read(name: str, model_type: str | None = None) -> Reading:
    """The fields of the preset, or of the configuration in the JSON file (Hugging Face's too), of that name.

    `model_type` is the family of a file that does not say it.

    Raises: ValueError with one line that says what is wrong.
    """
    if name in PRESETS:
        if model_type is not None:
            raise ValueError(f"--model-type {model_type}: it is for a file; {name} is a preset.")
        return Reading({"model": type(PRESETS[name]).__name__.lower(), **vars(PRESETS[name])})
    try:
        if not Path(name).is_file():
            raise ValueError(f"unknown preset {name!r}, and no file of that name; one of {', '.join(PRESETS)} is needed.")
        text = Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{name[:100]} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} cannot be read as JSON: {error}") from None
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} cannot be read as JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{name} cannot be read as JSON: it is nested too deep.") from None
    if not isinstance(document, dict):
        raise ValueError(f"{name}: an object with the keys of a configuration is needed.")
    if model_type is not None:
        if document.get("model_type", model_type) != model_type:
            raise ValueError(f"{name}: model_type is {document['model_type']!r}, and --model-type {model_type}; one of them is needed.")
        document = {"model_type": model_type, **document}
    if "model_type" in document:
        return read_hugging_face(document)
    theirs = [key for key in document if key in HARMLESS or document[key] in ("silu", "swish", "gelu_new")]
    if theirs and "model" not in document:
        got, families = f"{theirs[0]} {document[theirs[0]]!r:.60}", ", ".join(FAMILIES)
        raise ValueError(f"{name}: with {got}, a model_type is needed, in the file or by --model-type; one of {families}.")
    return Reading(document)


def tables(cost: Estimate, model: Cruncher | Transformer) -> Iterator[tuple[list[str], list[str], Rows]]:
    """Headers, which of them are over numbers, and rows: of memory, then of FLOPs."""
    labels = [memory.label for memory in cost.memory]
    yield ["memory of a device", "dtype", *labels], labels, _memory(cost)
    yield ["convention", "FLOPs of a step", "what is counted"], ["FLOPs of a step"], _flops(cost, model)


def _memory(cost: Estimate) -> Rows:
    for name in COMPONENTS:
        for dtype in dict.fromkeys(dtype for memory in cost.memory for dtype in memory.components[name]) or [""]:
            yield TITLES[name], dtype, *(in_bytes(memory.components[name].get(dtype, 0)) for memory in cost.memory)
    yield "total", "", *(in_bytes(memory.total) for memory in cost.memory)


def _flops(cost: Estimate, model: Cruncher | Transformer) -> Rows:
    article = {"6nd": "the article's: 6 B P", "executed": "the matrix products done; the inputs need no gradient"}
    for name, flops in cost.flops.items():
        yield name, f"{flops:,}" if flops < 1e15 else f"{flops:.4e}", (article if isinstance(model, Cruncher) else CONVENTIONS)[name]


def in_bytes(count: int) -> str:
    """Exact below a GB of 1e9 bytes."""
    return f"{count:,} B" if count < 1e9 else f"{count / 1e9:,.3f} GB"


def plot(cost: Estimate, title: str, path: Path, fits: float | None = None) -> None:
    """Draw the components as stacked bars, one for each count, and the limit.

    The picture is there whole or not at all; a symbolic link stays, and what it points to is replaced.

    Raises: OSError where `path` cannot be written, or is there and no regular file.
    """
    largest = max(memory.total for memory in cost.memory)
    unit, scale = next((unit, scale) for unit, scale in (("GB", 1e9), ("MB", 1e6), ("bytes", 1)) if largest >= scale)
    with drawing(path, figsize=(9, 1.9 + 0.8 * len(cost.memory))) as (figure, axes):
        axis = axes[0, 0]
        _bars(axis, cost.memory, scale, largest)
        if fits is not None:
            axis.axvline(fits * 1e9 / scale, color="black", linestyle="--", label=f"limit, {fits:g} GB")
        axis.set_xlim(0, 1.18 * max(largest, (fits or 0) * 1e9) / scale)
        axis.set_xlabel(f"{unit} per device" + (" (1 GB = 1e9 bytes)" if unit == "GB" else ""))
        axis.set_title(title, loc="left", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=6, fontsize=9, frameon=False)


def _bars(axis: Any, memories: Sequence[Memory], scale: float, largest: int) -> None:
    labels = [memory.label for memory in memories]
    start = [0.0] * len(memories)
    for name in COMPONENTS:
        widths = [memory.totals[name] / scale for memory in memories]
        bars = axis.barh(labels, widths, left=start, height=0.6, color=COLORS[name], label=TITLES[name])
        shown = [f"{width:,.3f}".rstrip("0").rstrip(".") if width * scale > 0.08 * largest else "" for width in widths]
        axis.bar_label(bars, shown, label_type="center", fontsize=9)
        start = [a + b for a, b in zip(start, widths, strict=True)]
    for label, end in zip(labels, start, strict=True):
        axis.text(end, label, "  " + f"{end:,.3f}".rstrip("0").rstrip("."), va="center", fontsize=10, fontweight="bold")
    axis.invert_yaxis()
