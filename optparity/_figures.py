"""Pictures: drawn without a display, and written whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._files import replacing


@contextmanager
def drawing(
    path: Path, rows: int = 1, columns: int = 1, *, figsize: tuple[float, float] | None = None, style: Any = (), sharex: bool = False
) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes [rows, columns] to draw on; written where the block ends well, in the format of the suffix.

    Args:
        style: a style of matplotlib's, or the path of one.
        sharex: whether all panels have one x axis.

    Raises: OSError where `path` cannot be written, or is there and no regular file.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(style):
        figure = Figure(figsize=figsize, layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False, sharex=sharex)
        metadata = {"Date": None} if path.suffix == ".svg" else None  # the same picture is the same file
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=120, format=path.suffix.lstrip("."), metadata=metadata)
