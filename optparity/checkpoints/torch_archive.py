"""What is in a file of `torch.save`: nothing in it is executed, its checksums hold, and it is no larger than it claims to be.

torch itself checks no checksum when it loads, and a tensor in a file may claim any shape over a few bytes.
"""

import mmap
import os
import pickle
import re
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays import is_tensor
from . import numpy_scalars, torch_storages

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
        with warnings.catch_warnings(), numpy_scalars.allowed():
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
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise _damaged(f"its member {member.filename} is compressed; torch.save compresses nothing.")
    if not any(member.CRC for member in members):
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        found = _checksums(view, members)
    for member, checksum in zip(members, found, strict=True):
        if checksum != member.CRC:
            raise _damaged(f"the checksum of its member {member.filename} does not hold.")
    return True


def _checksums(view: memoryview, members: Sequence[zipfile.ZipInfo]) -> list[int]:
    """Of each member, computed by all processors: zlib lets other threads run."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda member: _checksum(view, member), members))


def _checksum(view: memoryview, member: zipfile.ZipInfo) -> int:
    begin = _begin(view, member)
    with view[begin : begin + member.file_size] as own:
        return zlib.crc32(own)


def _begin(view: memoryview, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: after a header, which has the lengths of its last two fields."""
    header = bytes(view[member.header_offset : member.header_offset + LOCAL_HEADER])
    if len(header) < LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise _damaged(f"its member {member.filename} is not where it should be.")
    lengths = header[26:28], header[28:30]
    return member.header_offset + LOCAL_HEADER + sum(int.from_bytes(length, "little") for length in lengths)


def _check_claims(saved: Any, size: int) -> None:
    """Raise where tensors would take far more memory than the file has bytes, and where there are objects without end."""
    tensors: list[Any] = []
    if _counted(saved, {}, tensors) > MOST_OBJECTS:
        raise ValueError(f"it holds more than {MOST_OBJECTS:,} objects, or some that are in themselves.")
    places = {(t.data_ptr(), t.shape, t.stride(), t.dtype): t.numel() * t.element_size() for t in tensors}
    claimed = sum(places.values())
    if claimed > MOST_CLAIMED * size + FEW_BYTES:
        raise ValueError(f"its tensors claim {claimed:,} bytes, but the file has {size:,}: they are expanded, or it is damaged.")


def _counted(value: Any, counts: dict[int, int], tensors: list[Any]) -> int:
    """How many objects are in a value; those of the same list count each time, though they are looked at once."""
    if not isinstance(value, Mapping | list | tuple):
        if is_tensor(value) and not isinstance(value, np.generic) and not value.is_meta and "strided" in str(value.layout):
            tensors.append(value)
        return 1
    if isinstance(value, OrderedDict) and vars(value).keys() - {"_metadata"}:  # a pickle may put anything in the place of its methods
        raise _damaged("an OrderedDict has attributes of its own.")
    if id(value) not in counts:
        counts[id(value)] = MOST_OBJECTS + 1  # of what is in itself
        items = value.values() if isinstance(value, Mapping) else value
        counts[id(value)] = 1 + sum(_counted(item, counts, tensors) for item in items)
    return counts[id(value)]
