"""safetensors files: the arrays by dotted name, and the rest as JSON in the metadata."""

import json
from pathlib import Path

import numpy as np

from ..interop.leaves import Leaves
from . import arrays
from .checkpoint import Checkpoint, Given


def read(path: Path, given: Given) -> Checkpoint:
    """The checkpoint in a file.

    Raises: ValueError or TypeError for what cannot be read, or has no meaning here.
    """
    found, metadata = tensors(path)
    facts = metadata.get(arrays.KEY)
    try:
        document = None if facts is None else json.loads(facts)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"its {arrays.KEY} metadata is damaged: {error}.") from None
    return arrays.checkpoint(found, document, given)


def tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """What is in a file: its arrays by name, and its metadata.

    Raises: ValueError for a file that is damaged, or has a dtype that NumPy does not know.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return found, file.metadata() or {}
    except (SafetensorError, OSError, TypeError, KeyError) as error:
        raise ValueError(f"it is no safetensors file, or a damaged one: {error}.") from None


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write a file."""
    from safetensors.numpy import save_file

    found = {name: np.asarray(array, order="C") for name, array in Leaves(arrays.tree(checkpoint)).by_path.items()}
    save_file(found, path, {arrays.KEY: json.dumps(arrays.facts(checkpoint))})
