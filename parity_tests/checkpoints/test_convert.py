"""`optparity convert`: every bit there and back, what is damaged refused in one line, and nothing left behind."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
import torch

import torch_ref
from optparity.checkpoints import convert, safetensors_file
from optparity.checkpoints.checkpoint import Given
from optparity.registry import OPTIMIZERS

from ..cli.running import optparity, subprocess_optparity
from ..interop.states import altered, state_dicts_same

pytestmark = pytest.mark.usefixtures("as_users_have_it")

OUTPUTS = ("out", "out.safetensors")


def trained(make, *, dtype=torch.float32, steps=3, groups=lambda model: model.parameters()):
    """A model with buffers and its optimizer, after some steps."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(OrderedDict(a=torch.nn.Linear(3, 4), norm=torch.nn.BatchNorm1d(4), b=torch.nn.Linear(4, 4))).to(dtype)
    optimizer = make(groups(model))
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 3, dtype=dtype)).square().sum().backward()
        optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def two_groups(model):
    decayed = [(name, p) for name, p in model.named_parameters() if p.ndim > 1]
    rest = [(name, p) for name, p in model.named_parameters() if p.ndim == 1]
    return [{"params": decayed, "weight_decay": 0.1, "lr": torch.tensor(0.1)}, {"params": rest, "betas": (0.8, 0.9), "initial_lr": 0.5}]


CHECKPOINTS = {
    "Adam": lambda: trained(torch.optim.Adam),
    "AdamW, named, amsgrad": lambda: trained(lambda p: torch.optim.AdamW(p, amsgrad=True), groups=lambda m: m.named_parameters()),
    "AdamW, two groups": lambda: trained(torch.optim.AdamW, groups=two_groups),
    "Adam, bfloat16": lambda: trained(torch.optim.Adam, dtype=torch.bfloat16),
    "Adam, float64": lambda: trained(torch.optim.Adam, dtype=torch.float64),
    "Adam, accumulators": lambda: trained(lambda p: torch_ref.Adam(p, accumulator_dtype="float32"), dtype=torch.bfloat16),
    "Adagrad": lambda: trained(torch.optim.Adagrad),
    "AdaGrad": lambda: trained(torch_ref.AdaGrad),
    "RMSprop, all": lambda: trained(lambda p: torch.optim.RMSprop(p, momentum=0.9, centered=True)),
    "SGD": lambda: trained(torch.optim.SGD),
    "SGD, momentum": lambda: trained(lambda p: torch.optim.SGD(p, momentum=0.9)),
    "Momentum": lambda: trained(torch_ref.Momentum),
    "Adam, not begun": lambda: trained(torch.optim.Adam, steps=0),
    "Adam, alone": lambda: trained(torch.optim.Adam)["optimizer"],
}


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("label", CHECKPOINTS)
def test_there_and_back_is_every_bit(monkeypatch, capsys, tmp_path, label, out):
    saved = CHECKPOINTS[label]()
    torch.save(saved, tmp_path / "in.pt")
    status, shown, err = optparity(
        *(monkeypatch, capsys, "convert", tmp_path / "in.pt", tmp_path / out, "--optimizer", label.split(",")[0]),
        *(("--step", 3) if label in ("SGD", "SGD, momentum", "Momentum") else ()),
    )
    assert (status, err) == (0, "")
    assert "group 0" in shown
    assert optparity(monkeypatch, capsys, "convert", tmp_path / out, tmp_path / "back.pt")[0] == 0
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    state_dicts_same(back, saved)
    if "model" in saved:
        assert list(back["model"]) == list(saved["model"])
        assert back["model"]._metadata == saved["model"]._metadata
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.pt", out, "back.pt"])


def test_orbax_to_safetensors_and_round(monkeypatch, capsys, tmp_path):
    """All three formats in a ring; the step of SGD, which torch does not hold, is told where it is left."""
    torch.save(CHECKPOINTS["SGD, momentum"](), tmp_path / "a.pt")
    assert optparity(monkeypatch, capsys, "convert", tmp_path / "a.pt", tmp_path / "b", "--optimizer", "sgd", "--step", 3)[0] == 0
    assert optparity(monkeypatch, capsys, "convert", tmp_path / "b", tmp_path / "c.safetensors")[0] == 0
    assert safetensors.numpy.load_file(tmp_path / "c.safetensors")["optimizer.step"] == 3
    assert optparity(monkeypatch, capsys, "convert", tmp_path / "c.safetensors", tmp_path / "d")[0] == 0
    status, out, _ = optparity(monkeypatch, capsys, "convert", tmp_path / "d", tmp_path / "e.pth")
    assert status == 0
    assert "torch's SGD holds no step: give --step 3 on the way back." in out
    state_dicts_same(*(torch.load(tmp_path / name, weights_only=True) for name in ("a.pt", "e.pth")))


def test_names_are_the_models_or_the_groups_or_indices(monkeypatch, capsys, tmp_path):
    linear = torch.nn.Linear(2, 2)
    apart = torch_ref.AdaGrad([{"params": [linear.bias]}, {"params": [linear.weight]}])
    for saved, name, by_index in [
        (trained(torch.optim.Adam), "2", True),  # the model has buffers
        (trained(torch.optim.Adam, groups=lambda model: model.named_parameters()), "norm.weight", False),
        ({"model": linear.state_dict(), "optimizer": torch_ref.AdaGrad(linear.parameters()).state_dict()}, "weight", False),
        ({"model": linear.state_dict(), "optimizer": apart.state_dict()}, "0", True),  # in another order than the model
    ]:
        torch.save(saved, tmp_path / "a.pt")
        kind = "AdaGrad" if "weight" in saved["model"] else "Adam"
        given = ("convert", tmp_path / "a.pt", tmp_path / "b.safetensors", "--optimizer", kind, "--force")
        status, out, _ = optparity(monkeypatch, capsys, *given)
        assert status == 0
        assert ("named by their index" in out) == by_index
        field = "sum" if kind == "AdaGrad" else "exp_avg"
        assert f"optimizer.{field}.{name}" in safetensors.numpy.load_file(tmp_path / "b.safetensors")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_optparity_train_writes_is_read_and_read_again_by_it(monkeypatch, capsys, tmp_path, optimizer):
    """The torch side of a run becomes its JAX side and the other way round, bit for bit, and the run goes on from them."""
    from optparity.training.run import Run, Training

    training = Training(Run("cruncher", optimizer=optimizer), tmp_path / "run")
    for _ in training.go(3, checkpoint_every=3):
        pass
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    new_jax, new_torch = tmp_path / "new" / "jax", tmp_path / "new" / "torch.pt"
    name = type(training.trainers[0].optimizer).__name__
    status, _, err = optparity(monkeypatch, capsys, "convert", folder / "torch.pt", new_jax, "--optimizer", name, "--step", 3)
    assert (status, err) == (0, "")
    given = ("--like", folder / "torch.pt", "--optimizer", optimizer)
    status, _, err = optparity(monkeypatch, capsys, "convert", folder / "jax", new_torch, *given)
    assert (status, err) == (0, "")
    state_dicts_same(*(torch.load(path, weights_only=True) for path in (new_torch, folder / "torch.pt")))
    again = Training(Run("cruncher", optimizer=optimizer), tmp_path / "again")
    for trainer in again.trainers:
        trainer.load(tmp_path / "new")
    for old, new in zip(training.trainers, again.trainers, strict=True):
        for key, array in old.arrays().items():
            np.testing.assert_array_equal(
                array.view(np.uint8) if array.ndim else array, new.arrays()[key].view(np.uint8) if array.ndim else new.arrays()[key]
            )


class Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def changed(**changes):
    """A good checkpoint of Adam with changes; a change to None removes."""
    return altered(trained(torch.optim.Adam, groups=lambda model: model.named_parameters()), changes)


def truncated(path, share):
    torch.save(changed(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


ADAM = ("--optimizer", "Adam")
STATE = "optimizer__state__1"
DAMAGED = {
    "half of a file": (lambda path: truncated(path, 0.5), ADAM, "it is no torch checkpoint, or a damaged one: RuntimeError"),
    "all but its end": (lambda path: truncated(path, 0.98), ADAM, "it is no torch checkpoint, or a damaged one: OSError"),
    "an empty file": (lambda path: path.write_bytes(b""), ADAM, "it is no torch checkpoint, or a damaged one: EOFError"),
    "a text": (lambda path: path.write_text("hello"), ADAM, "it is no torch checkpoint, or a damaged one: KeyError"),
    "no file": (lambda path: None, ADAM, "no such file or folder"),
    "pickled code": (
        changed(model__x=Code()),
        ADAM,
        r"it holds pickled code or objects \(posix.mkdir\), or is damaged; nothing but tensors",
    ),
    "pickled code by itself": (lambda path: path.write_bytes(pickle.dumps(Code())), ADAM, "it holds pickled code or objects"),
    "a list": ([1, 2], ADAM, 'a dict of "model" and "optimizer" is needed, or the state_dict of an optimizer; got list'),
    "another key": (changed(epoch=3), ADAM, 'a dict of "model" and "optimizer" is needed, .*; got model, optimizer, epoch'),
    "no tensor": (changed(model__x=[1.0]), ADAM, "\"model\" has 'x', which is no tensor; got list"),
    "a learning rate of two elements": (changed(optimizer__param_groups__0__lr=torch.ones(2)), ADAM, ".*"),
    "a moment of no device": (changed(**{f"{STATE}__exp_avg": torch.ones(4, device="meta")}), ADAM, ".*"),
    "an unnamed tensor": (
        changed(**{"model__": torch.ones(4)}),
        ADAM,
        "parameters and tensors have names, which are strings and not empty",
    ),
    "no class": (changed(), (), "the file does not tell the optimizer's class; --optimizer is needed, one of SGD, "),
    "an unknown class": (changed(), ("--optimizer", "LBFGS"), "unknown optimizer class 'LBFGS'; one of SGD, "),
    "the wrong class": (changed(), ("--optimizer", "RMSprop"), "RMSprop: group 0 has the unknown key 'betas'; "),
    "an unknown key of a group": (changed(optimizer__param_groups__0__trust=1), ADAM, "Adam: group 0 has the unknown key 'trust'; "),
    "no hyper-parameter": (changed(optimizer__param_groups__0__eps=None), ADAM, "Adam: group 0 has no 'eps'; "),
    "extra state": (
        changed(**{f"{STATE}__ema": torch.ones(4)}),
        ADAM,
        r"Adam: params\['a.bias'\] has state 'ema'; with these settings it keeps",
    ),
    "a missing moment": (changed(**{f"{STATE}__exp_avg_sq": None}), ADAM, r"Adam: params\['a.bias'\] has no exp_avg_sq; each of step"),
    "no state": (changed(**{STATE: None}), ADAM, r"Adam: params\['a.bias'\] has no state, but others of its group have some; list it in"),
    "unequal steps": (
        changed(**{f"{STATE}__step": torch.tensor(7.0)}),
        ADAM,
        r"Adam: params\['a.bias'\] is at step 7 .*; a group has one step",
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


def arrays_and_facts(path):
    arrays = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        return arrays, json.loads(file.metadata()["optparity"])


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
        lambda path, arrays, facts: facts.update(version=2),
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


def test_what_is_there_is_replaced_only_with_force(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    for out in (*OUTPUTS, "other.pt"):
        source = "out" if out == "other.pt" else "in.pt"
        given = ("convert", source, out, *(ADAM if source == "in.pt" else ()))
        assert optparity(monkeypatch, capsys, *given)[0] == 0
        before = {file: file.read_bytes() for file in sorted(Path().rglob("*")) if file.is_file()}
        status, shown, err = optparity(monkeypatch, capsys, *given)
        assert (status, shown, err) == (2, "", f"optparity: {out} is there already; --force replaces it.\n")
        assert before == {file: file.read_bytes() for file in sorted(Path().rglob("*")) if file.is_file()}
        assert optparity(monkeypatch, capsys, *given, "--force")[0] == 0
    assert sorted(os.listdir()) == ["in.pt", "other.pt", *OUTPUTS]


def test_a_folder_that_is_no_checkpoint_is_not_replaced(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("all of it")
    status, _, err = optparity(monkeypatch, capsys, "convert", "in.pt", "mine", *ADAM, "--force")
    assert (status, err) == (2, "optparity: mine is a folder that holds 'thesis.txt', which is not a checkpoint's; it is left as it is.\n")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "run", *ADAM)[0] == 0
    Path("mine/thesis.txt").rename("run/thesis.txt")
    status, _, err = optparity(monkeypatch, capsys, "convert", "in.pt", "run", *ADAM, "--force")
    assert (status, err) == (2, "optparity: run is a folder that holds 'thesis.txt', which is not a checkpoint's; it is left as it is.\n")
    Path("in.pt").rename("run/in.pt")
    status, _, err = optparity(monkeypatch, capsys, "convert", "run/in.pt", "run", *ADAM, "--force")
    assert (status, err) == (2, "optparity: run/in.pt is in run, which would be replaced.\n")
    assert Path("run/thesis.txt").read_text() == "all of it"


def test_a_link_is_followed(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    Path("elsewhere").mkdir()
    Path("out.safetensors").symlink_to("elsewhere/real.safetensors")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "out.safetensors", *ADAM)[0] == 0
    assert Path("out.safetensors").is_symlink()
    assert os.listdir("elsewhere") == ["real.safetensors"]


@pytest.mark.parametrize("out", OUTPUTS)
def test_names_that_two_models_share_lose_nothing(monkeypatch, capsys, tmp_path, out):
    """Two groups, each with a parameter named w: by index, and every moment comes back."""
    monkeypatch.chdir(tmp_path)
    generator, discriminator = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    groups = [{"params": [("w", generator)]}, {"params": [("w", discriminator)]}]
    optimizer = torch.optim.Adam(groups)
    generator.grad, discriminator.grad = torch.full((3,), 2.0), torch.full((3,), 3.0)
    optimizer.step()
    torch.save(optimizer.state_dict(), "in.pt")
    status, shown, _ = optparity(monkeypatch, capsys, "convert", "in.pt", out, *ADAM)
    assert status == 0
    assert "Parameters are named by their index" in shown
    assert optparity(monkeypatch, capsys, "convert", out, "back.pt")[0] == 0
    back = torch.load("back.pt", weights_only=True)["state"]
    for index, expected in optimizer.state_dict()["state"].items():
        for field, tensor in expected.items():
            assert torch.equal(back[index][field], tensor)


def test_a_model_whose_names_are_numbers(monkeypatch, capsys, tmp_path):
    """Names that look like the indices of other parameters."""
    monkeypatch.chdir(tmp_path)
    parameters = {"1": torch.nn.Parameter(torch.ones(4)), "0": torch.nn.Parameter(torch.ones(3))}
    optimizer = torch.optim.Adam(list(parameters.values()))
    for p in parameters.values():
        p.grad = torch.ones_like(p)
    optimizer.step()
    model = {**{name: p.detach() for name, p in parameters.items()}, "buffer": torch.ones(2)}
    torch.save({"model": model, "optimizer": optimizer.state_dict()}, "in.pt")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "out.safetensors", *ADAM)[0] == 0
    assert optparity(monkeypatch, capsys, "convert", "out.safetensors", "back.pt")[0] == 0
    assert torch.load("back.pt", weights_only=True)["optimizer"]["state"][0]["exp_avg"].shape == (4,)


def test_like_a_scheduled_run(monkeypatch, capsys, tmp_path):
    """A checkpoint without groups takes those of a run that a scheduler drove; and it is said which file is wrong."""
    monkeypatch.chdir(tmp_path)
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([("w", p)], lr=0.1, momentum=0.9)
    torch.optim.lr_scheduler.StepLR(optimizer, 5)
    p.grad = torch.ones(3)
    optimizer.step()
    torch.save({"model": {"w": p.detach()}, "optimizer": optimizer.state_dict()}, "in.pt")
    sgd = ("--optimizer", "SGD")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "whole.safetensors", *sgd, "--step", 1)[0] == 0
    arrays, _ = arrays_and_facts("whole.safetensors")
    safetensors.numpy.save_file(arrays, "bare.safetensors")
    assert optparity(monkeypatch, capsys, "convert", "bare.safetensors", "back.pt", *sgd, "--like", "in.pt")[0] == 0
    back = torch.load("back.pt", weights_only=True)["optimizer"]
    assert torch.equal(back["state"][0]["momentum_buffer"], torch.ones(3))
    assert back["param_groups"] == optimizer.state_dict()["param_groups"]
    for arguments, message in [
        (("bare.safetensors", "other.pt", *sgd, "--like", "none.pt"), "bare.safetensors: --like none.pt: it cannot be read: No such file"),
        (("in.pt", "other", *sgd, "--step", 1, "--like", "in.pt"), "in.pt: --like is for a checkpoint without torch's groups"),
        (("whole.safetensors", "other.pt", "--missing", "x"), "whole.safetensors: --missing x: no parameter has this name."),
    ]:
        status, _, err = optparity(monkeypatch, capsys, "convert", *arguments)
        assert status == 2
        assert err.startswith(f"optparity: {message}")
        assert err.count("\n") == 1


@pytest.mark.parametrize("step", [3, np.int32(3), np.asarray(3), jnp.asarray(3)], ids=lambda step: type(step).__name__)
def test_orbax_folders_of_other_programs_are_read(monkeypatch, capsys, tmp_path, step):
    """They hold jax.Array, and numbers; what is no number is refused in one line."""
    monkeypatch.chdir(tmp_path)
    linear = torch.nn.Linear(3, 2)
    torch.save({"model": linear.state_dict(), "optimizer": torch.optim.Adam(linear.parameters()).state_dict()}, "new.pt")
    model = {"weight": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(2)}
    tree = {"model": model, "optimizer": {"step": step, "exp_avg": model, "exp_avg_sq": model}}
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "in", tree)
        checkpointer.save(tmp_path / "noted", {**tree, "note": "mine"})
    like = (*ADAM, "--like", "new.pt")
    assert optparity(monkeypatch, capsys, "convert", "in", "out.pt", *like)[0] == 0
    back = torch.load("out.pt", weights_only=True)["optimizer"]["state"]
    assert torch.equal(back[0]["exp_avg"], torch.arange(6.0).reshape(2, 3))
    assert back[1]["step"] == 3
    run = subprocess_optparity("convert", "noted", "other.pt", *like)
    assert run.returncode == 2
    assert run.stderr.startswith("optparity: noted: it is no Orbax checkpoint, or a damaged one: ")
    assert run.stderr.count("\n") == 1


def test_two_hyper_parameters_of_one_name_are_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    named = changed(optimizer__param_groups__0__name={0: torch.ones(1), "0": torch.zeros(1)})
    torch.save(named, "in.pt")
    for out in OUTPUTS:
        status, _, err = optparity(monkeypatch, capsys, "convert", "in.pt", out, *ADAM)
        assert (status, err) == (2, f"optparity: {out}: two hyper-parameters are options.0.name.0.\n")


def test_a_frozen_group_of_sgd_comes_back(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    a, b = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([{"params": [("a", a)]}, {"params": [("b", b)]}], lr=0.1, momentum=0.9)
    a.grad = torch.ones(3)
    optimizer.step()
    torch.save(optimizer.state_dict(), "in.pt")
    given = ("--optimizer", "SGD", "--step", 3, "--missing", "b")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "out.safetensors", *given)[0] == 0
    assert optparity(monkeypatch, capsys, "convert", "out.safetensors", "back.pt")[0] == 0
    assert torch.equal(torch.load("back.pt", weights_only=True)["state"][0]["momentum_buffer"], torch.ones(3))


def test_what_is_replaced_comes_back_where_its_successor_does_not_arrive(monkeypatch, capsys, tmp_path):
    """The last rename fails, or the run is killed just before it."""
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")
    arguments = ("convert", "in.pt", "out", *ADAM)
    assert optparity(monkeypatch, capsys, *arguments)[0] == 0
    before = {file: file.read_bytes() for file in sorted(Path("out").rglob("*")) if file.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        assert optparity(patch, capsys, *arguments, "--force")[0] == 2
    assert before == {file: file.read_bytes() for file in sorted(Path("out").rglob("*")) if file.is_file()}
    Path(".out.replacing").mkdir()
    Path("out").rename(".out.replacing/old")
    status, _, err = optparity(monkeypatch, capsys, *arguments)
    assert (status, err) == (2, "optparity: out is there already; --force replaces it.\n")
    assert before == {file: file.read_bytes() for file in sorted(Path("out").rglob("*")) if file.is_file()}
    assert sorted(os.listdir()) == ["in.pt", "out"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.pt", "out.bin"], "out.bin: a name that ends in .pt, .pth or .safetensors is needed, or a folder's without a suffix."),
        (["in.bin", "out.pt"], "in.bin: a name that ends in .pt, .pth or .safetensors is needed"),
        (["in.pt", "out.pth", *ADAM], "in.pt and out.pth have one format, torch; there is nothing to convert."),
        (["in.pt", "/proc/no/out", *ADAM], "/proc/no/out cannot be written: "),
        (["in.pt", "in.pt/out", *ADAM], "in.pt/out cannot be written: "),
        (["in.pt", "out", "--step", "-1"], "Invalid value for '--step'"),
        (["in.pt"], "Missing argument 'OUT'."),
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


def test_a_parameter_without_state_is_carried_where_it_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    saved = changed(**{STATE: None})
    torch.save(saved, "in.pt")
    for out in OUTPUTS:
        assert optparity(monkeypatch, capsys, "convert", "in.pt", out, *ADAM, "--missing", "a.bias")[0] == 0
        assert optparity(monkeypatch, capsys, "convert", out, "back.pt", "--force")[0] == 0
        state_dicts_same(torch.load("back.pt", weights_only=True), saved)


def test_a_full_disk_leaves_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.save(changed(), "in.pt")

    def full(checkpoint, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors_file, "write", full)
    status, _, err = optparity(monkeypatch, capsys, "convert", "in.pt", "out.safetensors", *ADAM)
    assert (status, err) == (2, "optparity: out.safetensors cannot be written: No space left on device.\n")
    assert os.listdir() == ["in.pt"]


def test_a_killed_run_leaves_no_half_file(tmp_path):
    """SIGKILL while it writes: no OUT; the next run takes away what was begun, and is whole."""
    weights = {f"w{i}": torch.randn(256, 1024) for i in range(32)}
    optimizer = torch_ref.AdaGrad(torch.nn.ParameterList(weights.values()).parameters())
    torch.save({"model": weights, "optimizer": optimizer.state_dict()}, tmp_path / "in.pt")
    for out in OUTPUTS:
        program = (
            "import sys, pathlib; from optparity.checkpoints import checkpoint, convert; source, out = map(pathlib.Path, sys.argv[1:])\n"
            "read = convert.read(source, checkpoint.Given('AdaGrad')); print('writing', flush=True); convert.write(read, out)"
        )
        run = subprocess.Popen([sys.executable, "-c", program, tmp_path / "in.pt", tmp_path / out], stdout=subprocess.PIPE, text=True)
        assert run.stdout.readline() == "writing\n"
        work, deadline = tmp_path / f".{out}.replacing", time.monotonic() + 60
        while not work.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
        assert work.exists()
        assert not (tmp_path / out).exists()
        convert.write(convert.read(tmp_path / "in.pt", Given("AdaGrad")), tmp_path / out)
        assert not work.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pt", *OUTPUTS]
