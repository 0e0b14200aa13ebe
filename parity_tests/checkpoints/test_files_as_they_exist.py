"""Checkpoints in the layouts that people have: there and back with every bit and key, and each moment at its parameter."""

from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy

from optparity.checkpoints import torch_archive

from ..cli.running import optparity
from ..interop.states import state_dicts_same
from .layouts import CASES

pytestmark = pytest.mark.usefixtures("as_users_have_it")
ADAMW = ("--optimizer", "AdamW")


def converted(monkeypatch, capsys, *arguments):
    status, out, err = optparity(monkeypatch, capsys, "convert", *arguments)
    assert (status, err) == (0, ""), err
    return " ".join(out.split())


@pytest.mark.parametrize("label", CASES)
def test_there_and_back(monkeypatch, capsys, tmp_path, label):
    monkeypatch.chdir(tmp_path)
    made = CASES[label]
    source = made.write(tmp_path)
    said = converted(monkeypatch, capsys, source, "out.safetensors", *ADAMW, *made.arguments)
    for note in made.notes:
        assert note in said
    assert ("named by their index" in said) == (made.names is None)
    at_its_parameter(made, safetensors.numpy.load_file("out.safetensors"))
    converted(monkeypatch, capsys, "out.safetensors", "back.pt")
    converted(monkeypatch, capsys, source, "run-v1.5", *ADAMW, *made.arguments)
    at_its_parameter(
        made,
        {".".join(str(key) for key in keys): array for keys, array in flattened(ocp.PyTreeCheckpointer().restore(tmp_path / "run-v1.5"))},
    )
    converted(monkeypatch, capsys, "run-v1.5", "again.pth.tar")
    for back in ("back.pt", "again.pth.tar"):
        found = torch_archive.load(Path(back))[0]
        state_dicts_same(found, made.back)
        assert list(found) == list(made.back)


def flattened(tree, *path):
    if not isinstance(tree, dict):
        return [(path, np.asarray(tree))]
    return [item for key, value in tree.items() for item in flattened(value, *path, key)]


def at_its_parameter(made, arrays):
    """The first elements of a weight and its moments are its number: -n, n, 1000 + n."""
    number = {name: n for n, name in enumerate(made.shapes, 1)}
    order = [*(made.names or made.order or made.shapes)]
    for position, name in enumerate(order):
        n = number[name] if name in number else number[name.removeprefix("model.").removeprefix("module.")]
        key = name if made.names else str(position)
        assert arrays[f"optimizer.exp_avg.{key}"].flat[0] == n
        assert arrays[f"optimizer.exp_avg_sq.{key}"].flat[0] == 1000 + n
        assert name not in arrays or arrays[f"model.{name}"].flat[0] == -n
    moments = [key for key in arrays if key.startswith("optimizer.exp_avg.")]
    assert len(moments) == len(order)
