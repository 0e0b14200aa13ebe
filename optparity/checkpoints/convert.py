"""Checkpoints of a model and its optimizer, from one format to another: what `optparity convert` does.

A format is a module with `read(path, given) -> Checkpoint` and `write(checkpoint, path)`.
"""

import re
from pathlib import Path
from types import ModuleType

from .._files import recover, replacing
from . import orbax_folder, safetensors_file, torch_file
from .checkpoint import Checkpoint, Given, RefusedError

FORMATS: dict[str, ModuleType] = {"torch": torch_file, "orbax": orbax_folder, "safetensors": safetensors_file}
SUFFIXES = {".pt": "torch", ".pth": "torch", ".safetensors": "safetensors", "": "orbax"}
ORBAXS_OWN = re.compile(
    r"_METADATA|_CHECKPOINT_METADATA|_sharding|array_metadatas|commit_success\.txt|d|manifest\.ocdbt|ocdbt\.process_\d+"
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
        _check_replaceable(path, force)
        path.resolve().parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, folder=True) as temporary:
            FORMATS[form(path)].write(checkpoint, temporary)
            _check_replaceable(path, force)
    except RefusedError:
        raise
    except OSError as error:
        raise RefusedError(f"{path} cannot be written: {error.strerror or error}.") from None
    except Exception as error:  # whatever the libraries make of what they cannot hold
        raise RefusedError(f"{path}: {_said(error)}") from None


def _check_replaceable(path: Path, force: bool) -> None:
    """Refuse what is there already and not to be replaced: anything without `force`, and with it what is not a checkpoint's alone."""
    target = path.resolve()  # where a link points to
    if target.exists() and not force:
        raise RefusedError(f"{path} is there already; --force replaces it.")
    if target.is_dir():
        others = sorted(entry.name for entry in target.iterdir() if not ORBAXS_OWN.fullmatch(entry.name))
        if others:
            raise RefusedError(f"{path} is a folder that holds {others[0]!r}, which is not a checkpoint's; it is left as it is.")


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {text}"
