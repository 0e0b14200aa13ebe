"""Checkpoints of a model and its optimizer, from one format to another: what `optparity convert` does.

A format is a module with `read(path, given) -> Checkpoint` and `write(checkpoint, path)`; huggingface is only read.
"""

import os
import re
from pathlib import Path
from types import ModuleType

from .._files import recover, replaceable, replacing
from . import huggingface_folder, orbax_folder, safetensors_file, torch_file
from .checkpoint import Checkpoint, Given, RefusedError

FORMATS: dict[str, ModuleType] = {
    "torch": torch_file,
    "orbax": orbax_folder,
    "safetensors": safetensors_file,
    "huggingface": huggingface_folder,
}
PACKAGES = {"torch": ("torch",), "orbax": ("orbax",), "safetensors": ("safetensors",), "huggingface": ("torch", "safetensors")}
SUFFIXES = {**dict.fromkeys((".pt", ".pth", ".ckpt", ".bin", ".tar"), "torch"), ".safetensors": "safetensors"}
# What is no folder's name, though nothing here reads it: other formats, and slips. Any other name is a folder's, as `run-v1.5`.
OTHERS = (".npz", ".npy", ".pkl", ".pickle", ".h5", ".hdf5", ".keras", ".onnx", ".gguf", ".msgpack", ".pb", ".tflite", ".distcp", ".index")
OTHERS += (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".json", ".yaml", ".yml", ".toml", ".txt", ".csv", ".md", ".log", ".py")
OTHERS += (".safetensor", ".safetensors_", ".ptc", ".ptt", ".ph", ".chkpt", ".cpkt", ".model", ".weights", ".torch", ".tmp", ".bak")
# The names in a folder of Orbax's, with their folders.
ORBAXS_OWN = re.compile(
    r"_METADATA|_CHECKPOINT_METADATA|_sharding|array_metadatas(/process_\d+)?|commit_success\.txt"
    r"|(ocdbt\.process_\d+/)?(manifest\.ocdbt|d(/[0-9a-f]{32})?)|ocdbt\.process_\d+"
)
# What comes of data that no check here has foreseen. A tensor without memory and JSON nested too deep are RuntimeErrors.
UNFORESEEN = (ValueError, TypeError, RuntimeError, AttributeError, LookupError, OverflowError)


def form(path: Path) -> str:
    """Of what is to be read: torch, orbax, safetensors or huggingface. A folder is told by what is in it.

    Raises: RefusedError for a suffix of anything else, and for a folder of torch.distributed.checkpoint, which is read by unpickling.
    """
    if not path.is_dir():
        return _form_of_file(path) if path.is_file() else target_form(path)
    if (path / ".metadata").exists():
        raise RefusedError(
            f"{path}: a folder of torch.distributed.checkpoint holds pickled objects and is not read. If you trust it: "
            f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} {path}.pt"
        )
    return "huggingface" if huggingface_folder.is_one(path) else "orbax"


def target_form(path: Path) -> str:
    """Of what is to be written, by its name: torch, orbax or safetensors.

    Raises: RefusedError for a suffix of anything else.
    """
    suffix = path.suffix.lower()
    if suffix in OTHERS:
        raise RefusedError(
            f"{path}: a name that ends in {', '.join(SUFFIXES)} is needed, or a folder's; {path.suffix} is of something else."
        )
    return SUFFIXES.get(suffix, "orbax")


def _form_of_file(path: Path) -> str:
    """By its name, or by how it begins: many checkpoints of torch have no suffix."""
    if path.suffix.lower() in SUFFIXES:
        return SUFFIXES[path.suffix.lower()]
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            return "torch"
    raise RefusedError(f"{path}: it is neither a folder nor a file that ends in {', '.join(SUFFIXES)}.")


def read(path: Path, given: Given) -> Checkpoint:
    """A checkpoint of any format, with everything in it accounted for.

    Raises: RefusedError.
    """
    if not path.exists():
        raise RefusedError(f"{path}: no such file or folder.")
    if not path.is_file() and not path.is_dir():
        raise RefusedError(f"{path}: it is neither a regular file nor a folder.")
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
            FORMATS[target_form(path)].write(checkpoint, temporary)
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
        is_folder, kind = target.is_dir(), target_form(path)
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
