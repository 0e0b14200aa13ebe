"""The roads of docs/roads that need other frameworks, which `make roads` installs."""

import pytest
import torch
from flax import nnx

from parity_tests.docs.roads import Road, as_torch_has_it, travel


def hugging_face(variables):
    tokens = variables["rows"][:8]
    return variables["model"](torch.from_numpy(tokens)).logits, nnx.merge(variables["graph"], variables["params"])(tokens)


def lightning(variables):
    variables["model"].load_state_dict(variables["back"](variables["params"], variables["state"])["state_dict"])
    return variables["model"](torch.from_numpy(variables["x"])), nnx.merge(variables["graph"], variables["params"])(variables["x"])


def gpt2(path):
    return f"transformer.{as_torch_has_it(path)}"


def as_it_is(path, array):
    """Conv1D of transformers has Flax's layout."""
    return array


ROADS = {
    "hugging_face": Road("hugging_face", lambda found: found["imported"].state, gpt2, hugging_face, as_it_is),
    "lightning_module": Road("lightning", lambda found: found["imported"].state, as_torch_has_it, lightning),
}


@pytest.mark.roads
@pytest.mark.filterwarnings("ignore")  # those of the frameworks about themselves
@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("script", ROADS)
def test_a_run_is_moved_there_and_back(script, monkeypatch, tmp_path, capsys):
    travel(script, ROADS[script], monkeypatch, tmp_path, capsys)
