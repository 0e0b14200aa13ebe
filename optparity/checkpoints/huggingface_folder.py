"""Folders that Hugging Face's Trainer and accelerate write: model.safetensors or pytorch_model.bin, whole or in shards, and optimizer.pt.

They are read as one torch checkpoint would be that holds "model", "optimizer", "scheduler" and so on: each under its file's name.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import safetensors_file, torch_archive, torch_file
from .checkpoint import Checkpoint, Given

INDEX = ".index.json"
MODEL = re.compile(r"(model(?:_\d+)?)\.safetensors|(pytorch_model(?:_\d+)?)\.bin")
OPTIMIZER = re.compile(r"(optimizer(?:_\d+)?)\.(?:pt|bin)")
BESIDE = re.compile(r"(scheduler(?:_\d+)?|scaler)\.(?:pt|bin)")
SHARD = re.compile(r".*-\d+-of-\d+\.(safetensors|bin)")
SHOWN = 12


def is_one(path: Path) -> bool:
    """Whether a folder is one of these, by what it holds."""
    return any(re.fullmatch(rf"{MODEL.pattern}|{OPTIMIZER.pattern}|.*{re.escape(INDEX)}", name) for name in _names(path))


def read(path: Path, given: Given) -> Checkpoint:
    """The checkpoint in a folder.

    Raises: ValueError or TypeError for what cannot be read, or has no meaning here.
    """
    names = _names(path)
    models = [name for name in names if MODEL.fullmatch(name) or name.endswith(INDEX)]
    optimizers = [name for name in names if OPTIMIZER.fullmatch(name)]
    if not optimizers:
        raise ValueError("it holds no optimizer: optimizer.pt or optimizer.bin is needed beside the model.")
    saved = {_key(name, models): _model(path, name) for name in models}
    saved |= {name.partition(".")[0]: _loaded(path / name) for name in optimizers}
    left = []
    for name in names:
        if BESIDE.fullmatch(name):
            try:
                saved[name.partition(".")[0]] = _loaded(path / name)
            except ValueError:
                left.append(f"{name} (pickled objects)")
        elif name not in (*models, *optimizers) and not SHARD.fullmatch(name):
            left.append(name)
    notes = [f"Left behind: {', '.join(left[:SHOWN])}{' and so on' if len(left) > SHOWN else ''}."] if left else []
    ordered = not any(".safetensors" in name for name in models)  # they have their names sorted
    return torch_file.checkpoint(saved, given, ordered=ordered, notes=notes)


def _key(name: str, models: list[str]) -> str:
    """Under which a model goes: as in model.safetensors, if there is no such file beside pytorch_model.bin."""
    key = name.partition(".")[0]
    return key.removeprefix("pytorch_") if all(other.startswith("pytorch_") for other in models) else key


def _names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def _loaded(path: Path) -> Any:
    """What is in a file of torch, whose name is said where it cannot be read."""
    try:
        return torch_archive.load(path)[0]
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _model(path: Path, name: str) -> dict[str, Any]:
    """A model's tensors, from one file or from those that an index names."""
    if not name.endswith(INDEX):
        return _tensors(path / name)
    found: dict[str, Any] = {}
    for shard, names in _shards(path / name):
        if not (path / shard).is_file():
            raise ValueError(f"{shard} is not there, which {name} names.")
        tensors = _tensors(path / shard)
        if set(tensors) != names:
            raise ValueError(f"{shard} and {name} do not agree on {', '.join(sorted(set(tensors) ^ names)[:5])}.")
        found |= tensors
    return found


def _shards(index: Path) -> Iterator[tuple[str, set[str]]]:
    """The files that an index names, and the tensors that each holds."""
    try:
        shard_of = json.loads(index.read_text())["weight_map"]
        pairs = [(name, shard) for name, shard in shard_of.items() if SHARD.fullmatch(shard) and "/" not in shard and "\\" not in shard]
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{index.name} is damaged: {type(error).__name__}: {error}.") from None
    if len(pairs) < len(shard_of) or not pairs:
        raise ValueError(f"{index.name} is damaged: its weight_map names the file of each tensor, as model-00001-of-00002.safetensors.")
    for shard in dict.fromkeys(shard for _, shard in pairs):
        yield shard, {name for name, own in pairs if own == shard}


def _tensors(path: Path) -> dict[str, Any]:
    return safetensors_file.tensors(path)[0] if path.suffix == ".safetensors" else _loaded(path)
