"""Folders that people have from JAX, to torch: every bit of the model and of each moment, at its parameter."""

import pytest
import torch

import torch_ref
from optparity._arrays import to_numpy
from optparity.parity.bits import differing

from ..cli.running import optparity
from . import orbax_folders as folders

pytestmark = pytest.mark.usefixtures("as_users_have_it")


def new(path, saved):
    """A checkpoint of torch that has not begun, of the same model and optimizer; its values are others."""
    model = folders.torch_model()
    kind = getattr(torch.optim, saved.optimizer, None) or getattr(torch_ref, saved.optimizer)
    optimizer = kind(list(model.named_parameters()), **saved.options)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)


def converted(monkeypatch, capsys, saved):
    """What the command makes of it, and what it says."""
    new("like.pt", saved)
    given = ("--optimizer", saved.optimizer, "--like", "like.pt", *saved.arguments)
    status, out, err = optparity(monkeypatch, capsys, "convert", saved.path, "out.pt", *given)
    assert (status, err) == (0, ""), err
    return torch.load("out.pt", weights_only=True), out


def same_by_name(got, expected):
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        assert not differing(got[name], array).any(), name


@pytest.mark.parametrize("label", folders.FOLDERS)
def test_every_moment_is_at_its_parameter(monkeypatch, capsys, tmp_path, label):
    monkeypatch.chdir(tmp_path)
    saved = folders.FOLDERS[label](tmp_path / "in")
    found, out = converted(monkeypatch, capsys, saved)
    optimizer = found.get("optimizer", found)
    if "model" in found:
        same_by_name({name: to_numpy(tensor) for name, tensor in found["model"].items()}, folders.by_name(saved.params))
    (group,) = optimizer["param_groups"]
    name_of = dict(zip(group["params"], group["param_names"], strict=True))
    for field, tree in saved.moments.items():
        held = {name_of[index]: to_numpy(state[field]) for index, state in optimizer["state"].items()}
        same_by_name(held, folders.by_name(tree))
    for state in optimizer["state"].values():
        assert state.keys() - {"step"} == saved.moments.keys()
        assert saved.optimizer in ("SGD",) or state["step"] == saved.step
    assert all(name in out for name in saved.left)
