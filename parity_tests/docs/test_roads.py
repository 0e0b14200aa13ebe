"""The roads of docs/roads that need only what every test needs; parity_tests/roads has the others."""

import pytest
import torch
from flax import nnx

from .roads import Road, as_torch_has_it, travel


def nanogpt(variables):
    tokens, targets = map(torch.from_numpy, variables["batch"](7))
    return variables["model"](tokens, targets)[0], nnx.merge(variables["graph"], variables["params"])(tokens.numpy())


def flax_nnx(variables):
    x, _ = variables["batch"](7)
    variables["back"]()  # the script's last loss changed the running statistics
    model = nnx.view(variables["model"], use_running_average=True)
    return variables["net"].eval()(torch.from_numpy(x)), model(x)


def linen(variables):
    x, _ = variables["batch"](7)
    return variables["net"](torch.from_numpy(x)), variables["model"].apply({"params": variables["train_state"].params}, x)


def flattened(path, array):
    """Of a convolution, and of the layer behind 8 channels of 4 x 4."""
    if path == "conv.kernel":
        return array.transpose(2, 3, 1, 0)
    return array.reshape(2, 8, 4, 4).transpose(2, 3, 1, 0).reshape(128, 2) if path == "out.kernel" else array


def in_sequence(path):
    return as_torch_has_it(path).replace("Dense_1", "2").replace("Dense_2", "4").replace("Dense_0", "0")


ROADS = {
    "nanogpt": Road("nanogpt", lambda found: found["imported"].state, lambda path: f"transformer.{as_torch_has_it(path)}", nanogpt),
    "flax_nnx": Road("flax_nnx", lambda found: found["nnx_optimizer"].opt_state[1], as_torch_has_it, flax_nnx, flattened),
    "linen": Road("linen", lambda found: found["train_state"].opt_state[1], in_sequence, linen),
}


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("script", ROADS)
def test_a_run_is_moved_there_and_back(script, monkeypatch, tmp_path, capsys):
    travel(script, ROADS[script], monkeypatch, tmp_path, capsys)
