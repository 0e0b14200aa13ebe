"""Checkpoints of a model and its optimizer, from one format to another: what `optparity convert` does.

A format is a module with `read(path, given) -> Checkpoint` and `write(checkpoint, path)`.
"""

import os
import re
from pathlib import Path
from types import ModuleType

from .._files import recover, replaceable, replacing
from . import orbax_folder, safetensors_file, torch_file
from .checkpoint import Checkpoint, Given, RefusedError

FORMATS: dict[str, ModuleType] = {"torch": torch_file, "orbax": orbax_folder, "safetensors": safetensors_file}
SUFFIXES = {".pt": "torch", ".pth": "torch", ".safetensors": "safetensors", "": "orbax"}
# The names in a folder of Orbax's, with their folders.
ORBAXS_OWN = re.compile(
    r"_METADATA|_CHECKPOINT_METADATA|_sharding|array_metadatas(/process_\d+)?|commit_success\.txt"
    r"|(ocdbt\.process_\d+/)?(manifest\.ocdbt|d(/[0-9a-f]{32})?)|ocdbt\.process_\d+"
)
# What comes of data that no check here has foreseen. A tensor without memory and JSON nested too deep are RuntimeErrors.
UNFORESEEN = (ValueError, TypeError, RuntimeError, AttributeError, LookupError, OverflowError)


def form(path: Path) -> str:
    """torch, orbax or safetensors.

    Raises: RefusedError for any other suffix.
    """
    if path.is_dir():
        return "orbax"
    if path.suffix not in SUFFIXES:
        raise RefusedError(f"{path}: a name that ends in .pt, .pth or .safetensors is needed, or a folder's without a suffix.")
    return SUFFIXES[path.suffix]


def read(path: Path, given: Given) -> Checkpoint:
    """A checkpoint of any format, with everything in it accounted for.

    Raises: RefusedError.
    """
    if not path.exists():
        raise RefusedError(f"{path}: no such file or folder.")
    try:
        return FORMATS[form(path)].read(path, given)
    except UNFORESEEN as error:
        raise RefusedError(f"{path}: {_said(error)}") from None


def write(checkpoint: Checkpoint, path: Path, *, force: bool = False) -> None:
    """Write a checkpoint in the format of its name; it is there whole or not at all.

    Args:
        force: whether what is there already is replaced: a file, or a folder that is a checkpoint of Orbax.

    Raises: RefusedError.
    """
    try:
        recover(path)
        check_target(path, force=force)
        path.resolve().parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, folder=True, fresh=not force) as temporary:
            FORMATS[form(path)].write(checkpoint, temporary)
            check_target(path, force=force)
    except RefusedError:
        raise
    except OSError as error:
        raise RefusedError(f"{path} cannot be written: {error.strerror or error}.") from None
    except Exception as error:  # whatever the libraries make of what they cannot hold
        raise RefusedError(f"{path}: {_said(error)}") from None


def check_target(path: Path, *, force: bool) -> None:
    """Refuse a name that no checkpoint can be written to.

    What is there stays without `force`. With it, a file may be replaced by a file, and by a folder a folder with nothing but Orbax's own.

    Raises: RefusedError.
    """
    try:
        target = replaceable(path, folder=True)  # where a link points to
        if not target.exists():
            return
        if not force:
            raise RefusedError(f"{path} is there already; --force replaces it.")
        is_folder, kind = target.is_dir(), SUFFIXES.get(path.suffix, "orbax")
        if is_folder != (kind == "orbax"):
            kinds = ("folder", "file") if is_folder else ("file", "folder")
            raise RefusedError(f"{path} is a {kinds[0]}, and a checkpoint of {kind} is a {kinds[1]}; it is left as it is.")
        foreign = _foreign(target) if is_folder else None
    except OSError as error:
        raise RefusedError(f"{path} cannot be written: {error.strerror or error}.") from None
    if foreign:
        raise RefusedError(f"{path} is a folder that holds {foreign!r}, which is not a checkpoint's; it is left as it is.")


def _foreign(folder: Path) -> str | None:
    """What is in a folder that Orbax has not written there, if anything is."""
    for where, folders, files in os.walk(folder):
        for path in (Path(where, name) for name in sorted(folders + files)):
            name = path.relative_to(folder).as_posix()
            odd = path.is_symlink() or not (path.is_file() or path.is_dir()) or os.path.ismount(path)
            if odd or not ORBAXS_OWN.fullmatch(name):
                return name
    return None


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {text}"
