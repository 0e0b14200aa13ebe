"""Files of torch that are damaged, hostile or odd: one line, exit 2, nothing written, and no code run."""

import copy
import io
import json
import os
import pickle
import re
import socket
import struct
import time
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from optparity.checkpoints import arrays, torch_archive, torch_file
from optparity.checkpoints.checkpoint import Given
from optparity.interop.leaves import Leaves

from ..cli.running import one_line, optparity, subprocess_optparity
from .layouts import DISTINCT, NAMED, PLAIN, SHARD_INDEX, SHARDED, Made, adamw, gan, ordered, weights

pytestmark = pytest.mark.usefixtures("as_users_have_it")
ADAMW = ("--optimizer", "AdamW")
DAMAGED = "in.pt: it is no torch checkpoint, or a damaged one: "
BIG = 10**12


def saved(**changes):
    return {"model": weights(), "optimizer": copy.deepcopy(NAMED), **changes}


def of_model(**changes):
    return saved(model={**weights(), **changes})


def of_state(**changes):
    found = saved()
    found["optimizer"]["state"][1] |= changes
    return found


def of_group(**changes):
    found = saved()
    found["optimizer"]["param_groups"][0] |= changes
    return found


def archive(content, **changes):
    """The bytes of a file of torch, with its members changed: a function of a member's bytes by its name."""
    whole, out = io.BytesIO(), io.BytesIO()
    torch.save(content, whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(out, "w", changes.pop("compression", zipfile.ZIP_STORED)) as new:
        for name in old.namelist():
            data = old.read(name)
            for key, change in changes.items():
                data = change(data) if name.endswith(f"/{key}") else data
            new.writestr(name, data)
    return out.getvalue()


def flipped(content, member):
    """One bit of a member, as a disk or a wire does it: the checksum stays."""
    whole = io.BytesIO()
    torch.save(content, whole)
    data = bytearray(whole.getvalue())
    with zipfile.ZipFile(whole) as file:
        info = next(info for info in file.infolist() if info.filename.endswith(member))
    name, extra = struct.unpack("<HH", data[info.header_offset + 26 : info.header_offset + 30])
    data[info.header_offset + 30 + name + extra + info.file_size // 2] ^= 4
    return bytes(data)


def header_gone(content):
    """The first member is not where the directory says."""
    whole = io.BytesIO()
    torch.save(content, whole)
    return b"PK\x05\x05" + whole.getvalue()[4:]


def longer_shape(data):
    """A tensor of 100 elements says that it has 10^9."""
    assert b"Kd\x85" in data
    return data.replace(b"Kd\x85", b"J" + struct.pack("<i", 10**9) + b"\x85")


def legacy(content):
    whole = io.BytesIO()
    torch.save(content, whole, _use_new_zipfile_serialization=False)
    return whole.getvalue()


def in_itself():
    found = saved()
    found["again"] = found
    return found


def laughs():
    """Ten lists of the same list, thirty times: 10^30 numbers."""
    found: list = [1]
    for _ in range(30):
        found = [found] * 10
    return saved(beside=found)


def deeper(data):
    """A list in a list, 5,000 times, in the place of a text."""
    text = b"X\x04\x00\x00\x00DEEP"
    assert text in data
    return data.replace(text, b"]" * 5_001 + b"a" * 5_000)


def script():
    whole = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), whole)
    return whole.getvalue()


def quantized(shape):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.quantize_per_tensor(torch.ones(shape), 0.1, 0, torch.qint8)


def npz():
    whole = io.BytesIO()
    np.savez(whole, a=np.ones(3))
    return whole.getvalue()


def bad_versions():
    model = ordered(weights())
    model._metadata = 5
    return saved(model=model)


class Shadowed:
    """A pickle may say that an OrderedDict has an `items` of its own."""

    def __reduce__(self):
        return OrderedDict, (list(weights().items()),), {"items": 5}


class Numpy:
    """A number of NumPy's as a crafted pickle has it."""

    def __init__(self, dtype, data):
        self.dtype, self.data = dtype, data

    def __reduce__(self):
        return np.float64(1).__reduce__()[0], (Crafted(self.dtype), self.data)


class Crafted:
    def __init__(self, arguments):
        self.arguments = arguments

    def __reduce__(self):
        return np.dtype, self.arguments


class Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


EXPANDED = torch.ones(1).expand(BIG)
FILES = {
    "a bit of a tensor": (flipped(saved(), "data/5"), DAMAGED + "the checksum of its member .*data/5 does not hold"),
    "a bit of the pickle": (flipped(saved(), "data.pkl"), DAMAGED + "the checksum of its member .*data.pkl does not hold"),
    "a member that is not there": (header_gone(saved()), DAMAGED + ".* is not where it should be"),
    "a compressed file": (archive(saved(), compression=zipfile.ZIP_DEFLATED), DAMAGED + "its member .*data.pkl is compressed"),
    "an expanded weight": (
        of_model(x=EXPANDED),
        "in.pt: its tensors claim 4,000,000,00.,... bytes, but the file has .*: they are expanded",
    ),
    "an expanded moment": (of_state(exp_avg=EXPANDED), "in.pt: its tensors claim 4,000,000,00.,... bytes, but the file has "),
    "an expanded tensor beside": (saved(mask=torch.ones(1, 1).expand(10**6, 10**6)), "in.pt: its tensors claim 4,000,000,0"),
    "an expanded tensor, before torch 1.6": (legacy(of_model(x=EXPANDED)), "in.pt: its tensors claim 4,000,000,0"),
    "a shape beyond its bytes": (
        archive(saved(x=torch.ones(100)), **{"data.pkl": longer_shape}),
        DAMAGED + "RuntimeError: Trying to resize storage",
    ),
    "a dict in itself": (in_itself(), "in.pt: it holds more than 10,000,000 objects, or some that are in themselves"),
    "lists of the same lists": (laughs(), "in.pt: it holds more than 10,000,000 objects"),
    "nested too deep": (archive(saved(beside="DEEP"), **{"data.pkl": deeper}), "in.pt: RecursionError: "),
    "a float8 weight": (of_model(x=torch.ones(3).to(torch.float8_e4m3fn)), "in.pt: x of the model is a tensor of float8_e4m3fn; dense"),
    "a complex weight": (
        of_model(x=torch.ones(3) * 1j),
        "in.pt: x of the model is a tensor of complex64; dense tensors are carried, of bool",
    ),
    "a sparse weight": (of_model(x=torch.eye(3).to_sparse()), "in.pt: x of the model is a tensor of sparse_coo; dense"),
    "a quantized weight": (of_model(x=quantized(3)), "in.pt: x of the model is .* of qint8"),
    "a weight of no device": (of_model(x=torch.ones(3, device="meta")), "in.pt: x of the model is a tensor of device meta"),
    "a float8 moment": (of_state(exp_avg=torch.ones(4, 4).to(torch.float8_e5m2)), r"in.pt: AdamW: exp_avg of params\[.*Float8_e5m2"),
    "a complex moment": (
        of_state(exp_avg=torch.ones(4, 4) * 1j),
        r"in.pt: AdamW: exp_avg of params\[.* has dtype complex64; the parameter",
    ),
    "a quantized moment": (of_state(exp_avg=quantized((4, 4))), r"in.pt: AdamW: exp_avg of .*QInt8"),
    "a moment of integers": (
        of_state(exp_avg=torch.ones(4, 4).int()),
        r"in.pt: AdamW: exp_avg of params\[.* has dtype int32; the parameter",
    ),
    "a step in uint8": (
        of_state(step=torch.tensor(3, dtype=torch.uint8)),
        "in.pt: AdamW: .* has step 3 of dtype uint8; a number is needed",
    ),
    "a step in float8": (of_state(step=torch.tensor(3.0).to(torch.float8_e5m2)), "in.pt: AdamW: .* has a step that is no number: .*e5m2"),
    "versions that are a number": (bad_versions(), "in.pt: the versions of the model's modules are none"),
    "a dict without its methods": (saved(model=Shadowed()), DAMAGED + "an OrderedDict has attributes of its own"),
    "a list of groups that is a dict": (
        saved(optimizer={"state": {}, "param_groups": {}}),
        "in.pt: AdamW: a state_dict has a dict of state and",
    ),
    "state that is a list": (saved(optimizer={"state": [], "param_groups": []}), "in.pt: AdamW: a state_dict has a dict of state and"),
    "a group that is a number": (
        saved(optimizer={"state": {}, "param_groups": [7]}),
        "in.pt: AdamW: group 0 is a dict with a list of params",
    ),
    "no groups": (saved(optimizer={"state": {}, "param_groups": []}), "in.pt: its optimizer has no groups."),
    "parameters that are lists": (of_group(params=[[1], [2]]), "in.pt: AdamW: .*params"),
    "names that are a number": (of_group(param_names=7), "in.pt: AdamW: group 0 has param_names that are no list of names"),
    "names that are numbers": (of_group(param_names=[7] * 38), "in.pt: AdamW: group 0 has param_names that are no list of names"),
    "betas of the same": (of_group(betas=0.9), "in.pt: AdamW: group 0 has betas 0.9; two numbers are needed"),
    "a learning rate that is a text": (of_group(lr="0.1"), "in.pt: .*a number is needed"),
    "a learning rate that is none": (of_group(lr=None), "in.pt: .*"),
    "a NumPy object": (saved(x=Numpy(("O", False, True), b"x")), DAMAGED + "ValueError: a NumPy dtype 'O'"),
    "a NumPy number of other bytes": (saved(x=Numpy(("f8", False, True), b"x")), DAMAGED + "ValueError: a NumPy number of 1 bytes in f8"),
    "a NumPy array": (saved(x=np.ones(3)), r"in.pt: it holds pickled code or objects \(numpy._core.multiarray._reconstruct\)"),
    "a script": (script(), DAMAGED + "its member .* is compressed; torch.save compresses nothing"),
    "an npz": (npz(), DAMAGED + "RuntimeError: "),
    "flat keys without a name": (
        saved(optimizer={"state.exp_avg": torch.ones(3)}),
        "in.pt: keys are state.NAME.FIELD and param_groups.NAME.KEY",
    ),
    "flat keys without groups": (
        saved(optimizer={"state.a.exp_avg": torch.ones(3)}),
        "in.pt: its optimizer has keys as state.NAME.exp_avg and no hyper-parameters; --like FILE.pt is needed",
    ),
    "two optimizers": (gan(), "in.pt: it holds 2 optimizers; --optimizer-key is needed, one of opt_g, opt_d."),
    "two models": (
        {"generator": weights(), "discriminator": weights(), "optimizer": NAMED},
        "in.pt: it holds 2 models; --model-key is needed, one of generator, discriminator.",
    ),
    "two models of known names": (
        {"model": weights(), "net": weights(), "optimizer": NAMED},
        "in.pt: it holds 2 models; --model-key is needed, one of model, net.",
    ),
    "no optimizer": (weights(), "in.pt: it holds no state_dict of an optimizer, .*; got embed.weight, "),
}


def refused(monkeypatch, capsys, source, message, *arguments):
    before = sorted(Path().rglob("*"))
    began = time.monotonic()
    status, out, err = optparity(monkeypatch, capsys, "convert", source, "out.safetensors", *ADAMW, *arguments)
    one_line(status, out, err, "")
    assert re.match(f"optparity: {message}", err), err
    assert sorted(Path().rglob("*")) == before
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("label", FILES)
def test_a_file_is_refused_in_one_line(monkeypatch, capsys, tmp_path, label):
    monkeypatch.chdir(tmp_path)
    content, message = FILES[label]
    if isinstance(content, bytes):
        Path("in.pt").write_bytes(content)
    else:
        torch.save(content, "in.pt")
    refused(monkeypatch, capsys, "in.pt", message)


def test_huge_claims_take_no_memory(tmp_path):
    """In a process of its own: its peak stays that of its imports."""
    torch.save(of_model(x=torch.ones(1).expand(10**9)), tmp_path / "in.pt")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))"
    run = subprocess_optparity("convert", tmp_path / "in.pt", tmp_path / "out.safetensors", *ADAMW, before=limit)
    one_line(run.returncode, run.stdout, run.stderr, "its tensors claim 4,000,00")


def test_expanded_tensors_of_some_bytes_are_carried(monkeypatch, capsys, tmp_path):
    """A mask that repeats a row, as people save it: several times the bytes of the file."""
    monkeypatch.chdir(tmp_path)
    mask = torch.arange(64.0).expand(2048, 64)
    torch.save(saved(mask=mask), "in.pt")
    assert mask.nbytes > Path("in.pt").stat().st_size
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "out.safetensors", *ADAMW)[0] == 0
    assert optparity(monkeypatch, capsys, "convert", "out.safetensors", "back.pt")[0] == 0
    assert torch.equal(torch.load("back.pt", weights_only=True)["mask"], mask)


def test_a_file_without_checksums_is_read_and_said(monkeypatch, capsys, tmp_path):
    """As torch writes it where it is told to compute none: zeros are in their place."""
    monkeypatch.chdir(tmp_path)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(saved(), "in.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    for source, said in [("in.pt", True), ("old.pt", True), ("new.pt", False)]:
        if source != "in.pt":
            torch.save(saved(), source, _use_new_zipfile_serialization=source == "new.pt")
        status, out, _ = optparity(monkeypatch, capsys, "convert", source, f"{source}.safetensors", *ADAMW)
        assert status == 0
        assert (torch_file.UNCHECKED in out) == said


@pytest.mark.parametrize("kind", ["FIFO", "socket"])
def test_what_is_no_file_is_not_opened(monkeypatch, capsys, tmp_path, kind):
    monkeypatch.chdir(tmp_path)
    if kind == "FIFO":
        os.mkfifo("in.pt")
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("in.pt")
    refused(monkeypatch, capsys, "in.pt", "in.pt cannot be read: it is no regular file.")


def model_and(**files):
    return {"model.safetensors": weights(), "optimizer.pt": PLAIN, **files}


FOLDERS = {
    "no optimizer": (
        {"model.safetensors": weights()},
        "in: it holds no optimizer: optimizer.pt or optimizer.bin is needed beside the model.",
    ),
    "code in the optimizer": (model_and(**{"optimizer.pt": Code()}), r"in: optimizer.pt: it holds pickled code or objects \(posix.mkdir\)"),
    "two formats of the model": (
        model_and(**{"pytorch_model.bin": weights()}),
        "in: it holds 2 models; --model-key is needed, one of model, pytorch_model.",
    ),
    "two optimizers": (
        model_and(**{"optimizer_1.pt": PLAIN}),
        "in: it holds 2 optimizers; --optimizer-key is needed, one of optimizer, opti",
    ),
    "half a model": (model_and(**{"model.safetensors": b"\x00" * 64}), "in: it is no safetensors file, or a damaged one: "),
    "a shard is missing": (
        {**SHARD_INDEX, **dict(list(SHARDED.items())[1:]), "optimizer.pt": PLAIN},
        "in: model-00001-of-00003.safetensors is not there, which model.safetensors.index.json names.",
    ),
    "a shard holds less": (
        {**SHARD_INDEX, **SHARDED, "model-00001-of-00003.safetensors": weights(DISTINCT), "optimizer.pt": PLAIN},
        "in: model-00001-of-00003.safetensors and model.safetensors.index.json do not agree on ",
    ),
    "an index that is a list": (
        model_and(**{"model.safetensors.index.json": [1]}),
        "in: model.safetensors.index.json is damaged: TypeError",
    ),
    "an index that is no JSON": (model_and(**{"model.safetensors.index.json": b"{"}), "in: model.safetensors.index.json is damaged: JSON"),
    "an index that is a pickle": (
        model_and(**{"model.safetensors.index.json": pickle.dumps(Code())}),
        "in: model.safetensors.index.json is damaged: UnicodeDecodeError",
    ),
    "an index of files elsewhere": (
        model_and(**{"model.safetensors.index.json": {"weight_map": {"a": "../model-00001-of-00001.safetensors"}}}),
        "in: model.safetensors.index.json is damaged: its weight_map names the file of each tensor",
    ),
    "an index of nothing": (
        model_and(**{"model.safetensors.index.json": {"weight_map": {}}}),
        "in: model.safetensors.index.json is damaged",
    ),
    "an index of numbers": (
        model_and(**{"model.safetensors.index.json": {"weight_map": {"a": 7}}}),
        "in: model.safetensors.index.json is da",
    ),
    "of torch.distributed.checkpoint": (
        {".metadata": b"\x80\x04", "__0_0.distcp": b"x"},
        "in: a folder of torch.distributed.checkpoint holds pickled objects and is not read. If you trust it: python -m torch.dist",
    ),
}


@pytest.mark.parametrize("label", FOLDERS)
def test_a_folder_is_refused_in_one_line(monkeypatch, capsys, tmp_path, label):
    monkeypatch.chdir(tmp_path)
    files, message = FOLDERS[label]
    Made(files, None).write(tmp_path / "in")
    refused(monkeypatch, capsys, "in", message)


def test_a_scheduler_with_code_is_left_behind(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    Made(model_and(**{"scheduler.pt": Code()}), None).write(tmp_path / "in")
    status, out, _ = optparity(monkeypatch, capsys, "convert", "in", "out.safetensors", *ADAMW)
    assert status == 0
    assert "Left behind: scheduler.pt (pickled objects)." in out
    assert not Path("executed").exists()


WRONG = (None, True, 7, -1, float("nan"), "x", [], {}, [1], {"list": [1]}, {"array": "0.lr"}, {"slot": ["model", ""]}, {"slot": 3})
WRONG += ({"dict": [[1]]}, {"dict": [[{"list": []}, 1]]}, {"empty": ["object", [0]]}, {"empty": ["float32", [3]]}, [[["x"]]])


def places(document, *path):
    """The paths of all that is in JSON."""
    yield path
    for key, item in document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ():
        yield from places(item, *path, key)


def attempted(make):
    """What was made, or what was said against it."""
    try:
        return make(), None
    except (ValueError, TypeError) as error:
        return None, str(error)


def test_metadata_of_wrong_types_is_refused(tmp_path):
    """Each item of the facts in turn is something else: it is refused in words of ours, or what is written can be read again."""
    small = {"a": (2,), "b": (3,)}
    content = {"epoch": 3, "model": ordered({**weights(small), "x._extra_state": {"a": torch.ones(2)}}), "t": (1, [torch.ones(0, 2)])}
    content["optimizer"] = adamw(small, named=True, lr=torch.tensor(0.1))
    checkpoint = torch_file.checkpoint(content, Given("AdamW"))
    facts, found, seen = json.loads(json.dumps(arrays.facts(checkpoint))), Leaves(arrays.tree(checkpoint)).by_path, {True: 0, False: 0}
    for path in list(places(facts))[1:]:
        for wrong in WRONG:
            document = copy.deepcopy(facts)
            at = document
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = wrong
            read, error = attempted(lambda document=document: arrays.checkpoint(dict(found), document, Given()))
            seen[error is None] += 1
            if read is not None:
                torch_file.write(read, tmp_path / "out.pt")
                torch_file.checkpoint(torch_archive.load(tmp_path / "out.pt")[0], Given("AdamW"))
            else:
                assert "\n" not in (error or "\n")
    assert min(seen.values()) > 100
