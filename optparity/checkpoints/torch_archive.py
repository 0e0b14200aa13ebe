"""What is in a file of `torch.save`: nothing in it is executed, its checksums hold, and it is no larger than it claims to be.

torch itself checks no checksum when it loads, and a tensor in a file may claim any shape over a few bytes.
"""

import mmap
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._arrays import is_tensor
from . import torch_storages

MOST_OBJECTS = 10_000_000  # in a file: a dict that is in itself, or lists of the same lists again, have no end
MOST_CLAIMED = 16  # bytes of tensors for each byte of the file: tied tensors and expanded masks take less
FEW_BYTES = 2**20
LOCAL_HEADER = 30  # bytes before the name of a member of a zip file


def load(path: Path) -> tuple[Any, bool]:
    """What is in the file, in its own memory where it can be; and whether checksums showed it to be whole.

    Raises: ValueError for a file that is damaged or no torch checkpoint, or holds code.
    """
    import torch

    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"  # the format before torch 1.6 is another, without checksums
        checked = zipped and _checked(path)
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickles than torch's, which are refused anyhow
            saved = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        if zipped:
            torch_storages.check(path)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise ValueError(f"it holds pickled code or objects{what}, or is damaged; nothing but tensors and plain data is read.") from None
    except Exception as error:  # whatever else torch makes of a damaged file
        raise _damaged(f"{type(error).__name__}: {str(error)[:200]}") from None
    _check_claims(saved, path.stat().st_size)
    return saved, checked


def _damaged(what: str) -> ValueError:
    return ValueError(f"it is no torch checkpoint, or a damaged one: {what}")


def _checked(path: Path) -> bool:
    """Whether the members of a zip file have checksums, all of which hold. torch can be told to write zeros in their place.

    Raises: ValueError where one does not hold, or a member is compressed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise _damaged(f"{error}.") from None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED:
                raise _damaged(f"its member {member.filename} is compressed; torch compresses nothing.")
        if not any(member.CRC for member in members):
            return False
        for member in members:
            begin = _begin(view, member)
            if zlib.crc32(view[begin : begin + member.file_size]) != member.CRC:
                raise _damaged(f"the checksum of its member {member.filename} does not hold.")
    return True


def _begin(view: memoryview, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: after a header, which has the lengths of its last two fields."""
    header = bytes(view[member.header_offset : member.header_offset + LOCAL_HEADER])
    if len(header) < LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise _damaged(f"its member {member.filename} is not where it should be.")
    lengths = header[26:28], header[28:30]
    return member.header_offset + LOCAL_HEADER + sum(int.from_bytes(length, "little") for length in lengths)


def _check_claims(saved: Any, size: int) -> None:
    """Raise where tensors would take far more memory than the file has bytes, and where there are objects without end."""
    claimed, seen, rest, count = 0, set(), [saved], 0
    while rest:
        value = rest.pop()
        count += 1
        if count > MOST_OBJECTS:
            raise ValueError(f"it holds more than {MOST_OBJECTS:,} objects, or some that are in themselves.")
        if isinstance(value, Mapping):
            rest.extend(value.values())
        elif isinstance(value, list | tuple):
            rest.extend(value)
        elif is_tensor(value) and not getattr(value, "is_meta", False) and "strided" in str(value.layout):
            place = value.data_ptr(), value.shape, value.stride(), value.dtype
            claimed += 0 if place in seen else value.numel() * value.element_size()
            seen.add(place)
    if claimed > MOST_CLAIMED * size + FEW_BYTES:
        raise ValueError(f"its tensors claim {claimed:,} bytes, but the file has {size:,}: they are expanded, or it is damaged.")
