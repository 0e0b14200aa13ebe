"""Where the trees are in a folder of Orbax: in the folder itself, in its items, or in the newest of its steps.

run/                    a CheckpointManager's folder: a folder for each step, as 100, ckpt_100 or 00000100
  100/                  a step: a folder for each item; `default` where the items have no names
    default/_METADATA   a tree of arrays, as StandardCheckpointer and PyTreeCheckpointer write it alone
    metadata/metadata   JSON, which is left behind
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

TREE = "_METADATA"  # is in the folder of a tree
CHECKPOINT = "_CHECKPOINT_METADATA"  # is in the folder that was saved as one
UNFINISHED = ".orbax-checkpoint-tmp"  # is in the name of a folder until all of it is there
COMMITTED = "commit_success.txt"  # is in it then
DEFAULT = "default"  # the item's name where it has none
A_TREE = re.compile("Standard|PyTree")  # in the name of what wrote an item
NO_TREE = re.compile("Array|RandomKey|Json|Proto")
STEP = re.compile(r"(?:(.*)_)?(\d+)")


class Place(NamedTuple):
    """The folder that was saved as one, its trees by their item's name ("" for the folder itself), and what else is there."""

    path: Path
    trees: Mapping[str, Path]
    others: tuple[str, ...]


def locate(path: Path) -> Place:
    """The trees in a folder.

    Raises: ValueError where it is unfinished, or holds none, or more than one could be meant.
    """
    _check_finished(path)
    if (path / TREE).exists():
        return Place(path, {"": path}, ())
    unfinished = tuple(entry.name for entry in sorted(path.iterdir()) if UNFINISHED in entry.name)
    if steps := _steps(path):
        newest = locate(_newest(path, steps))
        return newest._replace(others=(*newest.others, *unfinished))
    handlers = _handlers(path)
    trees = {entry.name: entry for entry in _folders(path) if (entry / TREE).exists() and not NO_TREE.search(handlers.get(entry.name, ""))}
    if not trees:
        raise ValueError("it is no Orbax checkpoint, or a damaged one: neither it nor its steps hold a tree of arrays (_METADATA).")
    for tree in trees.values():
        _check_finished(tree)
    others = [entry.name for entry in _folders(path) if entry.name not in trees]
    return Place(path, {"": trees[DEFAULT]} if list(trees) == [DEFAULT] else trees, (*others, *unfinished))


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and UNFINISHED not in entry.name)


def _steps(path: Path) -> dict[str, dict[int, list[Path]]]:
    """The folders of steps, by their prefix and number. The items of a step may have such names too."""
    found: dict[str, dict[int, list[Path]]] = {}
    for entry in [] if (path / CHECKPOINT).exists() else _folders(path):
        if match := STEP.fullmatch(entry.name):
            found.setdefault(match[1] or "", {}).setdefault(int(match[2]), []).append(entry)
    return found


def _newest(path: Path, steps: Mapping[str, Mapping[int, list[Path]]]) -> Path:
    newest = [entry for numbered in steps.values() for entry in numbered[max(numbered)]]
    if len(newest) > 1:
        named = ", ".join(str(path / entry.name) for entry in newest)
        raise ValueError(f"it has steps of several names, and the newest are {named}; give one of these in its place.")
    return newest[0]


def _check_finished(path: Path) -> None:
    said = _json(path / CHECKPOINT) if (path / CHECKPOINT).exists() else {}
    begun = said.get("init_timestamp_nsecs") is not None and said.get("commit_timestamp_nsecs") is None
    if UNFINISHED in path.absolute().name or (begun and not (path / COMMITTED).exists()):
        raise ValueError(f"{path.name} is unfinished: Orbax was still writing it, or was stopped at it.")


def _handlers(path: Path) -> dict[str, str]:
    """What wrote each item, where that is known; all of them are there."""
    said = _json(path / CHECKPOINT).get("item_handlers") if (path / CHECKPOINT).exists() else None
    known = said if isinstance(said, dict) else {}
    for name, handler in known.items():
        whole = (path / name / TREE).exists() if A_TREE.search(str(handler)) else (path / name).is_dir()
        if not whole:
            raise ValueError(f"it is no Orbax checkpoint, or a damaged one: its item {name} is not there, or not whole.")
    return {name: str(handler) for name, handler in known.items()}


def _json(file: Path) -> Mapping[str, Any]:
    try:
        said = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"it is no Orbax checkpoint, or a damaged one: {file.name}: {error}") from None
    if not isinstance(said, dict):
        raise ValueError(f"it is no Orbax checkpoint, or a damaged one: {file.name} is a {type(said).__name__}.")
    return said
