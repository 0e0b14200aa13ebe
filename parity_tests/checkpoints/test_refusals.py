"""What `optparity convert` refuses: in one line, with nothing written, and nothing in the file executed."""

import asyncio
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

import torch_ref
from optparity.checkpoints import convert, orbax_folder
from optparity.checkpoints.checkpoint import Given

from ..cli.running import optparity, subprocess_optparity
from ..interop.states import state_dicts_same
from .examples import ADAM, OUTPUTS, STATE, arrays_and_facts, changed, trained

pytestmark = pytest.mark.usefixtures("as_users_have_it")


class Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def truncated(path, share):
    torch.save(changed(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


DAMAGED = {
    "half of a file": (lambda path: truncated(path, 0.5), ADAM, "it is no torch checkpoint, or a damaged one: File is not a zip file"),
    "all but its end": (lambda path: truncated(path, 0.98), ADAM, "it is no torch checkpoint, or a damaged one: File is not a zip file"),
    "an empty file": (lambda path: path.write_bytes(b""), ADAM, "it is no torch checkpoint, or a damaged one: EOFError"),
    "a text": (lambda path: path.write_text("hello"), ADAM, "it is no torch checkpoint, or a damaged one: KeyError"),
    "no file": (lambda path: None, ADAM, "no such file or folder"),
    "pickled code": (
        changed(model__x=Code()),
        ADAM,
        r"it holds pickled code or objects \(posix.mkdir\), or is damaged; nothing but tensors",
    ),
    "pickled code by itself": (lambda path: path.write_bytes(pickle.dumps(Code())), ADAM, "it holds pickled code or objects"),
    "a list": ([1, 2], ADAM, "it holds no state_dict of an optimizer, which has the keys state and param_groups; got list"),
    "a model alone": (changed(optimizer=None), ADAM, "it holds no state_dict of an optimizer, .*; got model"),
    "a learning rate of two elements": (changed(optimizer__param_groups__0__lr=torch.ones(2)), ADAM, ".*"),
    "a moment of no device": (changed(**{f"{STATE}__exp_avg": torch.ones(4, device="meta")}), ADAM, ".*"),
    "an unnamed tensor": (
        changed(**{"model__": torch.ones(4)}),
        ADAM,
        "parameters and tensors have names, which are strings and not empty",
    ),
    "no class": (changed(), (), "the file does not tell the optimizer's class; --optimizer is needed, one of SGD, "),
    "an unknown class": (changed(), ("--optimizer", "LBFGS"), "unknown optimizer class 'LBFGS'; one of SGD, "),
    "the wrong class": (
        changed(),
        ("--optimizer", "RMSprop"),
        "RMSprop: group 0 has the key 'betas', which is of the rule of Adam, AdamW, Lion",
    ),
    "a key of another class": (
        changed(optimizer__param_groups__0__rho=1),
        ADAM,
        "Adam: group 0 has the key 'rho', which is of the rule of torch.optim's Adadelta",
    ),
    "no hyper-parameter": (changed(optimizer__param_groups__0__eps=None), ADAM, "Adam: group 0 has no 'eps'; "),
    "extra state": (
        changed(**{f"{STATE}__ema": torch.ones(4)}),
        ADAM,
        r"Adam: params\['a.bias'\] has state 'ema'; with these settings it keeps",
    ),
    "a missing moment": (changed(**{f"{STATE}__exp_avg_sq": None}), ADAM, r"Adam: params\['a.bias'\] has no exp_avg_sq; each of step"),
    "no state": (changed(**{STATE: None}), ADAM, r"Adam: params\['a.bias'\] has no state, but others of its group have some; list it in"),
    "steps of two kinds": (
        changed(**{f"{STATE}__step": torch.tensor(7)}),
        ADAM,
        r"Adam: params\['a.weight'\] counts in float32, params\['a.bias'\] in int64; a group counts in one",
    ),
    "half a step": (changed(**{f"{STATE}__step": torch.tensor(2.5)}), ADAM, r"Adam: params\['a.bias'\] has step 2.5; a whole number"),
    "another step": (changed(), (*ADAM, "--step", 9), "Adam: step 9 was given, but the state of group 0 says 3"),
    "a wrong shape": (
        changed(**{f"{STATE}__exp_avg": torch.ones(3)}),
        ADAM,
        r"Adam: exp_avg of params\['a.bias'\] has shape \(3,\); the para",
    ),
    "a wrong dtype": (
        changed(**{f"{STATE}__exp_avg": torch.ones(4).half()}),
        ADAM,
        r"Adam: exp_avg of params\['a.bias'\] has dtype float16",
    ),
    "a sparse moment": (
        changed(**{f"{STATE}__exp_avg": torch.ones(4).to_sparse()}),
        ADAM,
        r"Adam: exp_avg of .*: a dense tensor is needed",
    ),
    "state of no parameter": (changed(optimizer__state__9={}), ADAM, r"Adam: there is state of params\[9\], which is in no group"),
    "more parameters than tensors": (
        {"model": {"w": torch.ones(4)}, "optimizer": trained(torch.optim.Adam)["optimizer"]},
        *(ADAM, "the model has 1 tensors, the optimizer 6 parameters"),
    ),
    "an unknown name": (changed(), (*ADAM, "--missing", "c"), "--missing c: no parameter has this name; one of a.weight, a.bias"),
}


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("label", DAMAGED)
def test_what_is_damaged_is_refused_in_one_line(monkeypatch, capsys, tmp_path, label, out):
    """Exit 2, one line, no output; and nothing in the file was executed."""
    monkeypatch.chdir(tmp_path)
    make, arguments, message = DAMAGED[label]
    if callable(make):
        make(tmp_path / "in.pt")
    else:
        torch.save(make, tmp_path / "in.pt")
    before = sorted(tmp_path.iterdir())
    status, shown, err = optparity(monkeypatch, capsys, "convert", "in.pt", out, *arguments)
    assert (status, shown) == (2, "")
    assert re.match(f"optparity: in.pt: {message}", err), err
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def without(arrays, *names):
    return {name: array for name, array in arrays.items() if name not in names}


WEIGHT = "optimizer.exp_avg.a.weight"
DAMAGED_SAFETENSORS = {
    "half of a file": (
        lambda path, arrays, facts: path.write_bytes(path.read_bytes()[:500]),
        "it is no safetensors file, or a damaged one",
    ),
    "a text": (lambda path, arrays, facts: path.write_text("hello"), "it is no safetensors file, or a damaged one: Error while deser"),
    "no metadata": (
        lambda path, arrays, facts: safetensors.numpy.save_file(arrays, path),
        "it does not hold torch's parameter groups; --like",
    ),
    "versions that are none": (lambda path, arrays, facts: facts.update(versions=5), "its optparity metadata is damaged: ValueError"),
    "a step that is a date": (
        lambda path, arrays, facts: facts["groups"][0].update(step_kind="datetime64[s]"),
        "its optparity metadata is damaged: ValueError: step_kind 'datetime64",
    ),
    "an optimizer that is 7": (
        lambda path, arrays, facts: facts["groups"][0].update(optimizer=7),
        "its optparity metadata is damaged: ValueError: step_kind .* of 7",
    ),
    "groups of nothing": (lambda path, arrays, facts: facts.update(groups=[]), "its optparity metadata is damaged: ValueError: no groups"),
    "nested too deep": (lambda path, arrays, facts: (arrays, "[" * 100_000), "its optparity metadata is damaged: maximum recursion"),
    "no JSON": (lambda path, arrays, facts: (arrays, "{"), "its optparity metadata is damaged: Expecting property name"),
    "a group without options": (
        lambda path, arrays, facts: facts["groups"][0].pop("options"),
        "its optparity metadata is damaged: KeyError",
    ),
    "fewer names": (
        lambda path, arrays, facts: facts["groups"][0]["names"].pop(),
        "its optparity metadata is damaged: ValueError: another",
    ),
    "another version": (
        lambda path, arrays, facts: facts.update(version=3),
        "its optparity metadata is damaged: ValueError: another version",
    ),
    "a missing weight": (
        lambda path, arrays, facts: (without(arrays, "model.a.weight"), facts),
        "the model's tensors are not those .*: a.weight",
    ),
    "an extra weight": (lambda path, arrays, facts: arrays.update({"model.c": arrays[WEIGHT]}), "the model's tensors are not those .*: c"),
    "a missing moment": (lambda path, arrays, facts: (without(arrays, WEIGHT), facts), r"Adam: params\['a.weight'\] has no exp_avg; each"),
    "an extra moment": (
        lambda path, arrays, facts: arrays.update({"optimizer.exp_avg.c": arrays[WEIGHT]}),
        "there is state of c, in no group",
    ),
    "an extra field": (lambda path, arrays, facts: arrays.update({"optimizer.ema.a.weight": arrays[WEIGHT]}), "Adam: .* has state 'ema'"),
    "an extra hyper-parameter": (
        lambda path, arrays, facts: arrays.update({"options.0.lr": np.float32(0.1)}),
        "there are hyper-parameters that no group has: 0.lr",
    ),
    "a lost hyper-parameter": (
        lambda path, arrays, facts: facts["groups"][0]["options"].update(lr={"array": "0.lr"}),
        "its optparity metadata is damaged: KeyError: '0.lr'",
    ),
    "no step": (lambda path, arrays, facts: (without(arrays, "optimizer.step"), facts), "optimizer.step is a count, or one for each group"),
    "a negative step": (
        lambda path, arrays, facts: arrays.update({"optimizer.step": np.int32(-1)}),
        "Adam: 0 <= step <= 2147483647; got -1",
    ),
    "a wrong shape": (lambda path, arrays, facts: arrays.update({WEIGHT: arrays[WEIGHT][:2]}), r"Adam: exp_avg .* has shape \(2, 3\); the"),
    "a name": (lambda path, arrays, facts: arrays.update({"x": arrays[WEIGHT]}), "arrays are named model.NAME, optimizer.step and"),
}


@pytest.mark.parametrize("label", DAMAGED_SAFETENSORS)
def test_damaged_safetensors_are_refused_in_one_line(monkeypatch, capsys, tmp_path, label):
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "in.safetensors", *ADAM)[0] == 0
    path, (damage, message) = Path("in.safetensors"), DAMAGED_SAFETENSORS[label]
    whole = path.read_bytes()
    arrays, facts = arrays_and_facts(path)
    done = damage(path, arrays, facts)
    if path.read_bytes() == whole:
        arrays, facts = done if isinstance(done, tuple) else (arrays, facts)
        metadata = {"optparity": facts if isinstance(facts, str) else json.dumps(facts)}
        safetensors.numpy.save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, path, metadata)
    status, shown, err = optparity(monkeypatch, capsys, "convert", path, "out.pt")
    assert (status, shown) == (2, "")
    assert re.match(f"optparity: in.safetensors: {message}", err), err
    assert err.count("\n") == 1
    assert sorted(os.listdir()) == ["in.pt", "in.safetensors"]


DAMAGED_ORBAX = {
    "an empty folder": (lambda path: (shutil.rmtree(path), path.mkdir()), "it is no Orbax checkpoint, or a damaged one"),
    "no _METADATA": (lambda path: (path / "_METADATA").unlink(), "it is no Orbax checkpoint, or a damaged one"),
    "half of the arrays": (
        lambda path: [os.truncate(file, file.stat().st_size // 2) for file in path.rglob("d/*")],
        "it is no Orbax checkpoint",
    ),
    "no arrays": (lambda path: [file.unlink() for file in path.rglob("d/*")], "it is no Orbax checkpoint, or a damaged one"),
    "no groups": (lambda path: (path / "_CHECKPOINT_METADATA").unlink(), "it does not hold torch's parameter groups; --like"),
}


@pytest.mark.parametrize("label", DAMAGED_ORBAX)
def test_damaged_orbax_folders_are_refused_in_one_line(monkeypatch, capsys, tmp_path, label):
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "in", *ADAM)[0] == 0
    damage, message = DAMAGED_ORBAX[label]
    damage(Path("in"))
    status, shown, err = optparity(monkeypatch, capsys, "convert", "in", "out.pt")
    assert (status, shown) == (2, "")
    assert re.match(f"optparity: in: {message}", err), err
    assert err.count("\n") == 1
    assert sorted(os.listdir()) == ["in", "in.pt"]


def test_reads_that_end_late_are_not_told(tmp_path):
    """In a process of its own: when one array cannot be read, Orbax's other reads end after their event loop, each with a traceback."""
    weights = {f"w{i}": torch.ones(50) for i in range(60)}
    optimizer = torch_ref.AdaGrad(list(weights.values()))
    torch.save({"model": weights, "optimizer": optimizer.state_dict()}, tmp_path / "in.pt")
    convert.write(convert.read(tmp_path / "in.pt", Given("AdaGrad")), tmp_path / "in")
    for file in (tmp_path / "in").rglob("d/*"):
        os.truncate(file, 10)
    run = subprocess_optparity("convert", tmp_path / "in", tmp_path / "out.pt")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"optparity: {tmp_path}/in: it is no Orbax checkpoint, or a damaged one: ")
    assert run.stderr.count("\n") == 1


def test_a_failed_read_is_told_when_all_have_ended():
    """What the test above sees only where a read happens to end late."""
    ended = []

    async def read(i):
        await asyncio.sleep(0.01 * i)
        ended.append(i)
        if i == 0:
            raise ValueError("the first")
        return [i]

    with pytest.raises(ValueError, match="the first"):
        asyncio.run(orbax_folder._all([read(i) for i in range(3)]))
    assert ended == [0, 1, 2]


def test_two_hyper_parameters_of_one_name_are_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    named = changed(optimizer__param_groups__0__name={0: torch.ones(1), "0": torch.zeros(1)})
    torch.save(named, "in.pt")
    for out in OUTPUTS:
        status, _, err = optparity(monkeypatch, capsys, "convert", "in.pt", out, *ADAM)
        assert (status, err) == (2, f"optparity: {out}: two hyper-parameters are options.0.name.0.\n")


def test_what_a_format_does_not_hold(monkeypatch, capsys, tmp_path):
    """Arrays without elements are in safetensors, and not in Orbax, which is said."""
    monkeypatch.chdir(tmp_path)
    empty = torch.nn.Parameter(torch.ones(0, 3))
    torch.save({"model": {"w": empty.data}, "optimizer": torch_ref.AdaGrad([empty]).state_dict()}, "in.pt")
    status, _, err = optparity(monkeypatch, capsys, "convert", "in.pt", "out", "--optimizer", "AdaGrad")
    assert status == 2
    assert err == "optparity: out: model.w has shape (0, 3); Orbax holds no arrays without elements, safetensors does.\n"
    assert os.listdir() == ["in.pt"]
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "out.safetensors", "--optimizer", "AdaGrad")[0] == 0
    assert optparity(monkeypatch, capsys, "convert", "out.safetensors", "back.pt")[0] == 0
    state_dicts_same(*(torch.load(name, weights_only=True) for name in ("in.pt", "back.pt")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["in.pt", "out.npz"],
            "out.npz: a name that ends in .pt, .pth, .ckpt, .bin, .tar, .safetensors is needed, or a folder's; .npz is of",
        ),
        (["in.npz", "out.pt"], "in.npz: a name that ends in .pt, .pth, .ckpt, .bin, .tar, .safetensors is needed, or a folder's"),
        (["in.bin", "out"], "in.bin: no such file or folder."),
        (["in.pt", "out.pth", *ADAM], "in.pt and out.pth have one format, torch; there is nothing to convert."),
        (["in.pt", "/proc/no/out", *ADAM], "/proc/no/out cannot be written: "),
        (["in.pt", "in.pt/out", *ADAM], "in.pt/out cannot be written: "),
        (["in.pt", "out", "--step", "-1"], "Invalid value for '--step'"),
        (["in.pt"], "convert: OUT is needed; without it, --show prints what is in IN."),
    ],
)
def test_bad_arguments(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    status, _, err = optparity(monkeypatch, capsys, "convert", *arguments)
    assert status == 2
    assert err.startswith(f"optparity: {message}"), err
    assert err.count("\n") == 1
    assert os.listdir() == ["in.pt"]
