"""Damaged, hostile and odd files: makers of them, each with what `optparity convert` says of it.

A maker works in a folder that holds good.pt, good.safetensors and good (an Orbax folder), which are one checkpoint, and a file `canary`.
"""

import builtins
import copyreg
import gzip
import io
import json
import os
import pickle
import random
import shutil
import socket
import struct
import subprocess
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
import torch

from .examples import ADAM, STATE, arrays_and_facts, changed

TO_TORCH = ("good.pt", "--force")
TO_SAFETENSORS = ("good.safetensors", *ADAM, "--force")
NO_TORCH = "it is no torch checkpoint, or a damaged one|it holds pickled code or objects"
NO_SAFETENSORS = "it is no safetensors file, or a damaged one"
NO_ORBAX = "it is no Orbax checkpoint, or a damaged one"


class Case(NamedTuple):
    """What to make, the arguments of `convert`, and a regular expression of what it says after the file's name.

    Attributes:
        waits: whether a command that did not see it could wait for ever, so that it is run in a process of its own.
        late: whether it is seen only when the file is to be written, and the table is printed.
    """

    make: Callable[[], Any]
    arguments: Sequence[str]
    message: str
    waits: bool = False
    late: bool = False


class Calls:
    """A pickle that calls a function when it is read."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


WRITES = "open('canary', 'w').write('executed')"


# What is no checkpoint of torch's


def cut(keep: float | int, source: str = "good.pt", name: str = "bad.pt") -> Callable[[], Any]:
    """The beginning of a good file: a share of it, a number of bytes, or all but a number of bytes."""

    def make() -> None:
        whole = Path(source).read_bytes()
        Path(name).write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])

    return make


def flipped(entry: str, offset: int = 0) -> Callable[[], Any]:
    """A good file with one bit of an entry flipped."""

    def make() -> None:
        whole = bytearray(Path("good.pt").read_bytes())
        with zipfile.ZipFile("good.pt") as archive:
            info = next(info for info in archive.infolist() if info.filename.endswith(entry))
        start = info.header_offset + 30 + sum(struct.unpack_from("<HH", whole, info.header_offset + 26))
        whole[start + offset] ^= 1
        Path("bad.pt").write_bytes(whole)

    return make


def overwritten(signature: bytes, offset: int, new: bytes) -> Callable[[], Any]:
    """A good file with other bytes after the last of this signature."""

    def make() -> None:
        whole = bytearray(Path("good.pt").read_bytes())
        at = whole.rindex(signature) + offset
        whole[at : at + len(new)] = new
        Path("bad.pt").write_bytes(whole)

    return make


def written(content: bytes, name: str = "bad.pt") -> Callable[[], Any]:
    return lambda: Path(name).write_bytes(content)


def zipped(compression: int = zipfile.ZIP_STORED, **entries: bytes) -> Callable[[], Any]:
    """A zip file with entries whose names have `__` for /."""

    def make() -> None:
        with zipfile.ZipFile("bad.pt", "w", compression) as archive:
            for name, content in entries.items():
                archive.writestr(name.replace("__", "/").replace("_DOT_", "."), content)

    return make


def without_entry(ending: str) -> Callable[[], Any]:
    """A good file that lacks an entry."""

    def make() -> None:
        with zipfile.ZipFile("good.pt") as source, zipfile.ZipFile("bad.pt", "w") as target:
            for info in source.infolist():
                if not info.filename.endswith(ending):
                    target.writestr(info.filename, source.read(info))

    return make


def with_entry(ending: str, content: Callable[[bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Callable[[], Any]:
    """A good file with another content of an entry, with the checksum of that."""

    def make() -> None:
        with zipfile.ZipFile("good.pt") as source, zipfile.ZipFile("bad.pt", "w") as target:
            for info in source.infolist():
                old = source.read(info)
                found = info.filename.endswith(ending)
                target.writestr(info.filename, content(old) if found else old, compression if found else zipfile.ZIP_STORED)

    return make


def claiming(size: int) -> Callable[[], Any]:
    """A good file whose directory says that its pickle has this size."""

    def make() -> None:
        whole = bytearray(Path("good.pt").read_bytes())
        at = whole.index(b"PK\x01\x02")
        whole[at + 20 : at + 28] = struct.pack("<II", size, size)
        Path("bad.pt").write_bytes(whole)

    return make


def saved(value: Callable[[], Any] | Any, **how: Any) -> Callable[[], Any]:
    """What torch.save makes of a value."""

    def make() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(value() if callable(value) else value, "bad.pt", **how)

    return make


def script() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(3, 4)), "bad.pt")


def tarred() -> None:
    """The format before torch 0.1.10."""
    with tarfile.open("bad.pt", "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def raw_deep() -> bytes:
    """A pickle of more nested lists than pickle itself writes."""
    return b"\x80\x02" + b"(" * 200_000 + b"l" * 200_000 + b"."


def laughs() -> Any:
    """A list of 10 lists, each of the same 10 lists, and so on: 10 ** 12 numbers in a few bytes."""
    value: Any = [0.5] * 10
    for _ in range(11):
        value = [value] * 10
    return value


def circular() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


CODE = {
    "os.system": Calls(os.system, "echo executed > canary"),
    "eval": Calls(builtins.eval, WRITES),
    "exec": Calls(builtins.exec, WRITES),
    "open": Calls(open, "canary", "w"),
    "os.remove": Calls(os.remove, "canary"),
    "subprocess": Calls(subprocess.call, ["rm", "canary"]),
    "shutil": Calls(shutil.rmtree, "good"),
    "getattr": Calls(getattr, "text", "upper"),
    "a class": Calls(copyreg._reconstructor, Case, object, None),  # pyright: ignore
    "torch.load": Calls(torch.load, "good.pt"),
    "numpy": Calls(np.fromfile, "canary"),
}

TEXTS = {
    "a text": b"hello",
    "a web page": b"<!DOCTYPE html><html>404: not found</html>",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "noise": random.Random(0).randbytes(5000),
    "zeros": bytes(5000),
    "a gzip file": gzip.compress(b"hello"),
    "the beginning of a zip file": b"PK\x03\x04",
    "two letters": b"PK",
    "a pickle of protocol 0": pickle.dumps({"model": {}, "optimizer": {}}, 0),
    "a pickle of protocol 5": pickle.dumps({"model": {}, "optimizer": {}}, 5),
    "a pickle of a protocol that is none": b"\x80\xff}.",
    "a pickle nested too deep": raw_deep(),
    "a pickle without an end": b"\x80\x02}q\x00",
}

TORCH = {
    **{f"cut after {keep}": (cut(keep), NO_TORCH) for keep in (0, 1, 3, 30, 0.3, 0.5, 0.8, -200, -22, -1)},
    **{label: (written(text), NO_TORCH) for label, text in TEXTS.items()},
    "a flipped bit in a tensor": (flipped("data/0"), NO_TORCH),
    "a flipped bit in the last tensor": (flipped("data/9", 3), NO_TORCH),
    "a flipped bit in the pickle": (flipped("data.pkl", 40), NO_TORCH),
    "a flipped bit of the byte order": (flipped("byteorder"), NO_TORCH),
    "no directory": (overwritten(b"PK\x05\x06", 0, b"xxxx"), NO_TORCH),
    "a directory elsewhere": (overwritten(b"PK\x06\x06", 48, b"\xff\xff\xff\x7f"), NO_TORCH),
    "a wrong checksum": (overwritten(b"PK\x01\x02", 16, b"\x00\x01\x02\x03"), NO_TORCH),
    "a size that is a lie": (claiming(0x7FFFFFFF), NO_TORCH),
    "another zip file": (zipped(readme=b"hello"), NO_TORCH),
    "an empty zip file": (zipped(), NO_TORCH),
    "arrays of NumPy": (lambda: np.savez("bad.npz") or os.rename("bad.npz", "bad.pt"), NO_TORCH),
    "an entry that is a path": (zipped(_DOT__DOT____canary=b"executed"), NO_TORCH),
    "no tensor of several": (without_entry("data/3"), NO_TORCH),
    "no pickle": (without_entry("data.pkl"), NO_TORCH),
    "a tensor of half its size": (with_entry("data/0", lambda old: old[: len(old) // 2]), NO_TORCH),
    "a tensor of twice its size": (with_entry("data/0", lambda old: old + old), NO_TORCH),
    "a pickle that is none": (with_entry("data.pkl", lambda old: b"hello"), NO_TORCH),
    "half a pickle": (with_entry("data.pkl", lambda old: old[: len(old) // 2]), NO_TORCH),
    "an unknown byte order": (with_entry("byteorder", lambda old: b"middle"), NO_TORCH),
    "a zip bomb": (with_entry("data.pkl", lambda old: bytes(100_000_000), zipfile.ZIP_DEFLATED), NO_TORCH),
    "a program of TorchScript": (script, NO_TORCH),
    "a program of torch.export": (zipped(bad__models__model_DOT_json=b"{}", bad__archive_format=b"pt2"), NO_TORCH),
    "a tar file of old torch": (tarred, NO_TORCH),
    "a module": (saved(lambda: torch.nn.Linear(3, 4)), NO_TORCH),
    "a module in the old format": (saved(lambda: torch.nn.Linear(3, 4), _use_new_zipfile_serialization=False), NO_TORCH),
    **{f"code: {label}": (saved(lambda code=code: changed(model__x=code)), NO_TORCH) for label, code in CODE.items()},
    "code in a state": (saved(lambda: changed(**{f"{STATE}__step": CODE["eval"]})), NO_TORCH),
    "code in the old format": (saved(lambda: CODE["exec"], _use_new_zipfile_serialization=False), NO_TORCH),
    **{f"code by itself, protocol {protocol}": (written(pickle.dumps(CODE["os.system"], protocol)), NO_TORCH) for protocol in (0, 2, 5)},
}


# Values in a file of torch's that has no other fault


def moment(value: Any) -> Callable[[], Any]:
    return saved(lambda: changed(**{f"{STATE}__exp_avg": value() if callable(value) else value}))


def group(**changes: Any) -> Callable[[], Any]:
    return saved(lambda: changed(**{f"optimizer__param_groups__0__{key}": value for key, value in changes.items()}))


def quantized() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)


VALUES = {
    "a number": (saved(3), ".*got int"),
    "None": (saved(None), ".*got NoneType"),
    "a tensor": (saved(torch.ones(3)), ".*"),
    "an empty dict": (saved({}), ".*"),
    "a list nested deep": (saved(lambda: {"x": deep(200)}), ".*"),
    "a model alone": (saved(lambda: changed()["model"]), ".*"),
    "groups that are a number": (saved(lambda: changed(optimizer__param_groups=3)), ".*"),
    "groups that are numbers": (saved(lambda: changed(optimizer__param_groups=[3])), ".*"),
    "no groups": (saved(lambda: changed(optimizer__param_groups=[])), ".*"),
    "a state that is a list": (saved(lambda: changed(optimizer__state=[])), ".*"),
    "a state that is numbers": (saved(lambda: changed(optimizer__state={0: 3})), ".*"),
    "parameters that are a number": (group(params=3), ".*"),
    "parameters twice": (group(params=[0, 0, 1, 2, 3, 4]), ".*"),
    "parameters that are tensors": (group(params=[torch.ones(1)] * 6), ".*"),
    "names that are numbers": (group(param_names=[1, 2, 3, 4, 5, 6]), ".*"),
    "fewer names": (group(param_names=["a.weight"]), ".*"),
    "names that are a number": (group(param_names=3), ".*"),
    "betas that are one": (group(betas=0.9), ".*"),
    "three betas": (group(betas=(0.9, 0.99, 0.999)), ".*"),
    "a learning rate that is a text": (group(lr="fast"), ".*"),
    "a learning rate that is a list": (group(lr=[0.1]), ".*"),
    "a complex moment": (moment(lambda: torch.ones(4, dtype=torch.complex64)), ".*"),
    "a moment of float8": (moment(lambda: torch.ones(4).to(torch.float8_e4m3fn)), "(?i:.*float8_e4m3fn)"),
    "a quantized moment": (moment(quantized), f"{NO_TORCH}|(?i:.*qint8)"),
    "a moment that is a number": (moment(0.5), ".*"),
    "a moment that is a text": (moment("much"), ".*"),
    "an empty moment": (moment(lambda: torch.ones(0)), ".*"),
    "a huge moment without memory": (moment(lambda: torch.ones(1).expand(1 << 40)), ".*(claim|shape)"),
    "a step that is NaN": (saved(lambda: changed(**{f"{STATE}__step": torch.tensor(float("nan"))})), ".*step"),
    "a step that is infinite": (saved(lambda: changed(**{f"{STATE}__step": torch.tensor(float("inf"))})), ".*step"),
    "a step that is negative": (saved(lambda: changed(**{f"{STATE}__step": torch.tensor(-3.0)})), ".*step"),
    "a step that is huge": (saved(lambda: changed(**{f"{STATE}__step": torch.tensor(1e30)})), ".*step"),
    "a step that is a text": (saved(lambda: changed(**{f"{STATE}__step": "three"})), ".*step"),
    "a weight of float8": (saved(lambda: changed(**{"model__a.bias": torch.ones(4).to(torch.float8_e5m2)})), "(?i:.*float8_e5m2)"),
    "a complex weight": (saved(lambda: changed(**{"model__a.bias": torch.ones(4, dtype=torch.complex64)})), ".*complex64"),
    "a huge weight without memory": (saved(lambda: changed(**{"model__a.bias": torch.ones(1).expand(1 << 40)})), ".*"),
    "10 ** 12 numbers in a few lists": (group(more=laughs()), ".*"),
    "a list that holds itself": (group(more=circular()), ".*"),
}


# safetensors


def header(change: Callable[[dict], Any]) -> Callable[[], Any]:
    """A good file with a changed header; of a text it is the new header, of a number the header's length."""

    def make() -> None:
        whole = Path("good.safetensors").read_bytes()
        (length,) = struct.unpack_from("<Q", whole)
        document, content = json.loads(whole[8 : 8 + length]), whole[8 + length :]
        new = change(document)
        if isinstance(new, int):
            Path("bad.safetensors").write_bytes(struct.pack("<Q", new) + whole[8:])
            return
        text = new if isinstance(new, bytes) else json.dumps(document).encode()
        Path("bad.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + content)

    return make


WEIGHT = "model.a.weight"


def entry(**changes: Any) -> Callable[[], Any]:
    return header(lambda document: document[WEIGHT].update(changes))


def metadata(text: str) -> Callable[[], Any]:
    """A good file whose facts are this text."""

    def make() -> None:
        arrays, _ = arrays_and_facts("good.safetensors")
        safetensors.numpy.save_file(arrays, "bad.safetensors", {"optparity": text})

    return make


def facts(change: Callable[[dict], Any]) -> Callable[[], Any]:
    """A good file whose facts are changed."""

    def make() -> None:
        known = arrays_and_facts("good.safetensors")[1]
        change(known)
        metadata(json.dumps(known))()

    return make


def first(**changes: Any) -> Callable[[], Any]:
    return facts(lambda known: known["groups"][0].update(changes))


def without_facts(name: str) -> None:
    arrays, _ = arrays_and_facts("good.safetensors")
    safetensors.numpy.save_file(arrays, name)


def arrays(**changes: Any) -> Callable[[], Any]:
    """A good file with other arrays; the names have `__` for dots."""

    def make() -> None:
        found, known = arrays_and_facts("good.safetensors")
        found |= {name.replace("__", "."): value for name, value in changes.items()}
        safetensors.numpy.save_file(found, "bad.safetensors", {"optparity": json.dumps(known)})

    return make


DAMAGED = "its optparity metadata is damaged"
SAFETENSORS = {
    **{f"cut after {keep}": (cut(keep, "good.safetensors", "bad.safetensors"), NO_SAFETENSORS) for keep in (0, 4, 8, 100, 0.7, -1)},
    **{label: (written(text, "bad.safetensors"), NO_SAFETENSORS) for label, text in TEXTS.items() if label in ("a text", "noise", "zeros")},
    "a checkpoint of torch": (lambda: shutil.copy("good.pt", "bad.safetensors"), NO_SAFETENSORS),
    "a header of no length": (header(lambda _: 0), NO_SAFETENSORS),
    "a header longer than the file": (header(lambda _: 1 << 20), NO_SAFETENSORS),
    "a header of 2 ** 63": (header(lambda _: 1 << 63), NO_SAFETENSORS),
    "a header that is no JSON": (header(lambda _: b"{hello"), NO_SAFETENSORS),
    "a header that is a list": (header(lambda _: b"[]"), NO_SAFETENSORS),
    "a header nested deep": (header(lambda _: b"[" * 100_000), NO_SAFETENSORS),
    "a header with NaN": (header(lambda _: b'{"a": NaN}'), NO_SAFETENSORS),
    "a name twice": (
        header(lambda old: json.dumps(old).replace("optimizer.exp_avg.a.weight", WEIGHT).encode()),
        f"{NO_SAFETENSORS}|.*",
    ),
    "overlapping tensors": (entry(data_offsets=[0, 48]), NO_SAFETENSORS),
    "a tensor beyond the end": (entry(data_offsets=[1 << 40, (1 << 40) + 48]), NO_SAFETENSORS),
    "an end before the beginning": (entry(data_offsets=[48, 0]), NO_SAFETENSORS),
    "a negative offset": (entry(data_offsets=[-48, 0]), NO_SAFETENSORS),
    "a wrong shape": (entry(shape=[5, 3]), NO_SAFETENSORS),
    "a negative shape": (entry(shape=[-4, -3]), NO_SAFETENSORS),
    "a huge shape": (entry(shape=[1 << 62, 1 << 62]), NO_SAFETENSORS),
    "a shape that is a text": (entry(shape="4x3"), NO_SAFETENSORS),
    "an unknown dtype": (entry(dtype="F31"), NO_SAFETENSORS),
    "a dtype of 8 bits": (entry(dtype="F8_E4M3", shape=[4, 12]), f"{NO_SAFETENSORS}|.*"),
    "a dtype of 4 bits": (entry(dtype="F4", shape=[8, 12]), f"{NO_SAFETENSORS}|.*"),
    "complex numbers": (entry(dtype="C64", shape=[2, 3]), f"{NO_SAFETENSORS}|.*"),
    "metadata that are numbers": (header(lambda old: old.update(__metadata__={"optparity": 3})), NO_SAFETENSORS),
    "no facts": (metadata(""), DAMAGED),
    "facts that are null": (metadata("null"), f"{DAMAGED}|it does not hold torch's parameter groups"),
    "facts that are a list": (metadata("[]"), DAMAGED),
    "facts with NaN": (first(options={"lr": float("nan")}), ".*"),
    "facts nested deep": (metadata('{"groups":' + "[" * 50_000), DAMAGED),
    "facts nested less deep": (first(options={"x": json.loads("[" * 500 + "]" * 500)}), ".*"),
    "a class that is none": (first(optimizer="LBFGS"), ".*LBFGS"),
    "a class that is code": (first(optimizer="__import__('os').remove('canary')"), "unknown optimizer class|.*"),
    "an option of an unknown kind": (first(options={"lr": {"eval": WRITES}}), DAMAGED),
    "an option that is a weight": (first(options={"lr": {"array": WEIGHT}}), DAMAGED),
    "a huge count of steps": (arrays(optimizer__step=np.array(1 << 40)), ".*step"),
    "steps that are numbers with a point": (arrays(optimizer__step=np.array(3, np.float32)), "optimizer.step is a count"),
    "a name with a line end": (arrays(**{"model__a\nb": np.ones(3, np.float32)}), "the model's tensors are not those"),
    "a name that is only a part": (arrays(model__=np.ones(3, np.float32)), "arrays are named|.*"),
}


# Orbax


def orbax(change: Callable[[Path], Any]) -> Callable[[], Any]:
    """A good folder with a change."""

    def make() -> None:
        shutil.copytree("good", "bad")
        change(Path("bad"))

    return make


def edited(name: str, change: Callable[[dict], Any]) -> Callable[[], Any]:
    """A good folder with a change to one of its files, which is JSON."""

    def edit(path: Path) -> None:
        document = json.loads((path / name).read_text())
        new = change(document)
        (path / name).write_text(json.dumps(document if new is None else new))

    return orbax(edit)


def each(pattern: str, change: Callable[[Path], Any]) -> Callable[[], Any]:
    return orbax(lambda path: [change(file) for file in sorted(path.glob(pattern))])


ORBAX = {
    "an empty folder": (lambda: Path("bad").mkdir(), NO_ORBAX),
    "a folder of other things": (lambda: (Path("bad").mkdir(), Path("bad/thesis.txt").write_text("all of it")), NO_ORBAX),
    "no _METADATA": (orbax(lambda path: (path / "_METADATA").unlink()), NO_ORBAX),
    "no manifest": (orbax(lambda path: (path / "manifest.ocdbt").unlink()), NO_ORBAX),
    "no data": (orbax(lambda path: shutil.rmtree(path / "d")), NO_ORBAX),
    "no _CHECKPOINT_METADATA": (orbax(lambda path: (path / "_CHECKPOINT_METADATA").unlink()), "it does not hold torch's parameter groups"),
    "an empty _METADATA": (each("_METADATA", lambda file: file.write_text("")), NO_ORBAX),
    "half of _METADATA": (each("_METADATA", lambda file: os.truncate(file, 1000)), NO_ORBAX),
    "a _METADATA of noise": (each("_METADATA", lambda file: file.write_bytes(TEXTS["noise"])), NO_ORBAX),
    "a _METADATA that is a list": (edited("_METADATA", lambda old: []), NO_ORBAX),
    "a _METADATA without a tree": (edited("_METADATA", lambda old: {}), NO_ORBAX),
    "a tree that is a number": (edited("_METADATA", lambda old: old.update(tree_metadata=3)), NO_ORBAX),
    "a _METADATA that is a folder": (each("_METADATA", lambda file: (file.unlink(), file.mkdir())), NO_ORBAX),
    "a _CHECKPOINT_METADATA of noise": (
        each("_CHECKPOINT_METADATA", lambda file: file.write_bytes(TEXTS["noise"])),
        f"{NO_ORBAX}|it does not hold torch's parameter groups",
    ),
    "custom metadata that are a number": (edited("_CHECKPOINT_METADATA", lambda old: old.update(custom_metadata=3)), ".*"),
    "facts that are a number": (edited("_CHECKPOINT_METADATA", lambda old: old["custom_metadata"].update(optparity=3)), DAMAGED),
    "a manifest of noise": (each("manifest.ocdbt", lambda file: file.write_bytes(TEXTS["noise"])), NO_ORBAX),
    "half of a manifest": (each("manifest.ocdbt", lambda file: os.truncate(file, 50)), NO_ORBAX),
    "data of noise": (each("**/d/*", lambda file: file.write_bytes(TEXTS["noise"])), NO_ORBAX),
    "half of the data": (each("**/d/*", lambda file: os.truncate(file, file.stat().st_size // 2)), NO_ORBAX),
    "empty data": (each("**/d/*", lambda file: os.truncate(file, 0)), NO_ORBAX),
    "data that are a folder": (each("d/*", lambda file: (file.unlink(), file.mkdir())), NO_ORBAX),
}


# What is no file


def listening(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(name)


def linked(target: str, name: str) -> Callable[[], Any]:
    return lambda: os.symlink(target, name)


NO_FILE = "cannot be read: it is no regular file"
ODD_INPUTS = {
    "a pipe for a file": Case(lambda: os.mkfifo("bad.pt"), ("bad.pt", *TO_SAFETENSORS), f"bad.pt {NO_FILE}", waits=True),
    "a pipe for safetensors": Case(
        lambda: os.mkfifo("bad.safetensors"), ("bad.safetensors", *TO_TORCH), f"bad.safetensors {NO_FILE}", waits=True
    ),
    "a pipe for --like": Case(
        lambda: (os.mkfifo("bad.pt"), without_facts("other.safetensors")),
        ("other.safetensors", *TO_TORCH, *ADAM, "--like", "bad.pt"),
        f"bad.pt {NO_FILE}",
        waits=True,
    ),
    "a pipe for --names": Case(
        lambda: os.mkfifo("bad.json"), ("good.pt", *TO_SAFETENSORS, "--names", "bad.json"), f"bad.json {NO_FILE}", waits=True
    ),
    "a pipe in a folder": Case(
        each("_METADATA", lambda file: (file.unlink(), os.mkfifo(file))), ("bad", *TO_TORCH), f"bad/_METADATA {NO_FILE}", waits=True
    ),
    "a pipe among the data": Case(
        each("d/*", lambda file: (file.unlink(), os.mkfifo(file))), ("bad", *TO_TORCH), f"bad/d/.* {NO_FILE}", waits=True
    ),
    "an endless device": Case(linked("/dev/zero", "bad.pt"), ("bad.pt", *TO_SAFETENSORS), f"bad.pt {NO_FILE}", waits=True),
    "an endless device for safetensors": Case(
        linked("/dev/zero", "bad.safetensors"), ("bad.safetensors", *TO_TORCH), f"bad.safetensors {NO_FILE}", waits=True
    ),
    "an empty device": Case(linked("/dev/null", "bad.pt"), ("bad.pt", *TO_SAFETENSORS), f"bad.pt {NO_FILE}"),
    "a socket": Case(lambda: listening("bad.pt"), ("bad.pt", *TO_SAFETENSORS), f"bad.pt {NO_FILE}"),
    "a link to nothing": Case(linked("nowhere.pt", "bad.pt"), ("bad.pt", *TO_SAFETENSORS), "bad.pt: no such file or folder"),
    "a link to itself": Case(linked("bad.pt", "bad.pt"), ("bad.pt", *TO_SAFETENSORS), "bad.pt cannot be read: Too many levels"),
    "code in --like": Case(
        lambda: (saved(CODE["eval"])(), without_facts("other.safetensors")),
        ("other.safetensors", "new.pt", *ADAM, "--like", "bad.pt"),
        f"other.safetensors: --like bad.pt: ({NO_TORCH})",
    ),
    "no file": Case(lambda: None, ("bad.pt", *TO_SAFETENSORS), "bad.pt: no such file or folder"),
    "a name too long": Case(lambda: None, ("x" * 300 + ".pt", *TO_SAFETENSORS), "x* ?.*File name too long|x*.pt cannot be read: File name"),
    "a file for a folder": Case(lambda: None, ("good.pt/bad.pt", *TO_SAFETENSORS), "good.pt/bad.pt cannot be read: Not a directory"),
    "a folder for a file": Case(lambda: Path("bad.pt").mkdir(), ("bad.pt", *TO_SAFETENSORS[:1], "--force"), f"bad.pt: {NO_ORBAX}"),
    "no memory to read": Case(linked("/proc/self/mem", "bad.pt"), ("bad.pt", *TO_SAFETENSORS), f"bad.pt: ({NO_TORCH}|.*it cannot be read)"),
    "a name with a line end": Case(
        lambda: os.rename("good.pt", "a\nb.pt") or Path("a\nb.pt").write_text("hello"),
        ("a\nb.pt", *TO_SAFETENSORS),
        f"a b.pt: ({NO_TORCH})",
    ),
    "a name that is no UTF-8": Case(
        lambda: Path(os.fsdecode(b"a\xffb.pt")).write_text("hello"),
        (os.fsdecode(b"a\xffb.pt"), *TO_SAFETENSORS),
        f".*: ({NO_TORCH})",
        waits=True,
    ),
}


def to(out: str, *more: str) -> tuple[str, ...]:
    return ("good.pt", out, *ADAM, "--force", *more)


NOT_REPLACED = "cannot be written: it is no regular file"
ODD_OUTPUTS = {
    "a pipe": Case(lambda: os.mkfifo("out"), to("out"), f"out {NOT_REPLACED}", waits=True),
    "a pipe for safetensors": Case(lambda: os.mkfifo("out.safetensors"), to("out.safetensors"), f"out.safetensors {NOT_REPLACED}"),
    "a socket": Case(lambda: listening("out.safetensors"), to("out.safetensors"), f"out.safetensors {NOT_REPLACED}"),
    "a device": Case(linked("/dev/null", "out.safetensors"), to("out.safetensors"), f"out.safetensors {NOT_REPLACED}"),
    "a device for a folder": Case(linked("/dev/null", "out"), to("out"), f"out {NOT_REPLACED}"),
    "a full device": Case(linked("/dev/full", "out.safetensors"), to("out.safetensors"), f"out.safetensors {NOT_REPLACED}"),
    "a link to nothing": Case(linked("nowhere", "out"), to("out"), "out cannot be written: the link out leads nowhere"),
    "a link to itself": Case(linked("out", "out"), to("out"), "out cannot be written: "),
    "in a link to nothing": Case(linked("nowhere", "gone"), to("gone/out"), "gone/out cannot be written: the link gone leads nowhere"),
    "a mount point": Case(lambda: None, to("/proc"), "/proc cannot be written: a file system is mounted there"),
    "a folder of others": Case(
        lambda: (Path("out").mkdir(), Path("out/thesis.txt").write_text("all of it")), to("out"), "out is a folder that holds 'thesis.txt'"
    ),
    "a file deep in a checkpoint": Case(
        lambda: (shutil.copytree("good", "out"), Path("out/d/thesis.txt").write_text("all of it")),
        to("out"),
        "out is a folder that holds 'd/thesis.txt'",
    ),
    "a folder of a checkpoint's name": Case(
        lambda: (Path("out/d").mkdir(parents=True), Path("out/d/thesis.txt").write_text("all of it")),
        to("out"),
        "out is a folder that holds 'd/thesis.txt'",
    ),
    "a link in a checkpoint": Case(
        lambda: (shutil.copytree("good", "out"), shutil.rmtree("out/d"), os.symlink("../good/d", "out/d")),
        to("out"),
        "out is a folder that holds 'd'",
    ),
    "a folder for a file": Case(
        lambda: Path("out.safetensors").mkdir(),
        to("out.safetensors"),
        "out.safetensors is a folder, and a checkpoint of safetensors is a file",
    ),
    "a file for a folder": Case(
        lambda: Path("out").write_text("mine"), to("out"), "out is a file, and a checkpoint of orbax is a folder; it is left as it is"
    ),
    "the input": Case(linked("good.pt", "out.safetensors"), to("out.safetensors"), "good.pt and out.safetensors are the same"),
    "the input's other name": Case(
        lambda: os.link("good.pt", "out.safetensors"), to("out.safetensors"), "good.pt and out.safetensors are the same"
    ),
    "in the input": Case(lambda: None, ("good", "good/out.pt"), "good/out.pt is in good, which is to be left as it is"),
    "in the input, by a link": Case(
        linked("good", "link"), ("good", "link/out.pt"), "link/out.pt is in good, which is to be left as it is"
    ),
    "around the input": Case(
        lambda: shutil.copy("good.pt", "good/in.pt"), ("good/in.pt", "good", *ADAM, "--force"), "good/in.pt is in good"
    ),
    "the working folder": Case(lambda: None, to("."), "good.pt is in ., which would be replaced"),
    "in a file": Case(lambda: None, to("canary/out"), "canary/out cannot be written: Not a directory"),
    "in a folder that is read-only": Case(lambda: None, to("/proc/no/out"), "/proc/no/out cannot be written: ", late=True),
    "a name too long": Case(lambda: None, to("x" * 300), "x* cannot be (written|used): File name too long"),
}


def _cases() -> dict[str, Case]:
    """All of them, by the name of their kind and their own."""
    tables = {"torch": (TORCH, "bad.pt", TO_SAFETENSORS), "a value": (VALUES, "bad.pt", TO_SAFETENSORS)}
    tables |= {"safetensors": (SAFETENSORS, "bad.safetensors", TO_TORCH), "orbax": (ORBAX, "bad", TO_TORCH)}
    found = {
        f"{kind}: {label}": Case(make, (name, *arguments), f"{name}: ({message})")
        for kind, (table, name, arguments) in tables.items()
        for label, (make, message) in table.items()
    }
    odd = {"input": ODD_INPUTS, "output": ODD_OUTPUTS}
    return found | {f"{kind}: {label}": case for kind, table in odd.items() for label, case in table.items()}


CASES = _cases()
