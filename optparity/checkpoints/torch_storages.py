"""The sizes that the pickle in a torch file gives to its tensors, against those that the file has.

torch maps the file into memory, where it reads on into what follows, if a member is shorter than its tensor. No checksum shows that.
"""

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

WIDTHS = {  # bytes of an element in a storage of this class
    **dict.fromkeys(("UntypedStorage", "ByteStorage", "CharStorage", "BoolStorage", "QInt8Storage", "QUInt8Storage"), 1),
    **dict.fromkeys(("QUInt4x2Storage", "QUInt2x4Storage"), 1),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    **dict.fromkeys(("FloatStorage", "IntStorage", "QInt32Storage"), 4),
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage"), 8),
    "ComplexDoubleStorage": 16,
}


class Inert:
    """What stands for everything that a pickle names: it takes any arguments, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any):
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def nothing(self, *_: Any) -> None:
        pass

    __setstate__ = append = extend = add = nothing


class Storages(pickle.Unpickler):
    """Reads a pickle without calling what it names, and notes in `sizes` how many bytes each storage has, by its key."""

    def __init__(self, file: Any):
        super().__init__(file)
        self.sizes: dict[Any, int] = {}

    def find_class(self, module: str, name: str) -> type:
        return type(name, (Inert,), {})

    def persistent_load(self, pid: Any) -> Inert:
        _, kind, key, _, count = pid
        self.sizes[key] = WIDTHS[kind.__name__] * count
        return Inert()


def check(path: Path) -> None:
    """Raise for a tensor whose member of the file has another size.

    Raises: ValueError; whatever a pickle raises that torch has not read before.
    """
    with zipfile.ZipFile(path) as archive:
        held = {member.filename: member.file_size for member in archive.infolist()}
        folder = next(iter(held)).partition("/")[0]  # as torch finds it
        member = archive.getinfo(f"{folder}/data.pkl")
    with path.open("rb") as file:  # `archive.open` refuses what torch has written without checksums
        file.seek(member.header_offset + 26)
        file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
        storages = Storages(io.BytesIO(file.read(member.file_size)))
    storages.load()
    for key, size in storages.sizes.items():
        name = f"{folder}/data/{key}"
        if held[name] != size:
            raise ValueError(f"its member {name} has {held[name]:,} bytes, but its tensor {size:,}.")
