"""`optparity train` with arguments that it refuses."""

import pytest

from ..cli.running import optparity

pytestmark = pytest.mark.usefixtures("as_users_have_it")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tree"], "Invalid value for 'task': 'tree' is not one of 'cruncher', 'mlp', 'gpt'."),
        (["gpt", "--set", "n_head=3"], "GPT: n_head divides n_embd; got n_head 3, n_embd 64."),
        (["gpt", "--set", "n_embd=-4"], "GPT: n_embd is a positive integer; got -4."),
        (["gpt", "--set", "n_layer=1.5"], "GPT: n_layer is a positive integer; got 1.5."),
        (["gpt", "--set", "block_size=100000"], "gpt: block_size < 4306, the length of the text held out; got 100000."),
        (["mlp", "--set", "n_layer=2"], "unknown --set key 'n_layer'; one of hidden_features is needed."),
        (["mlp", "--set", "hidden_features"], "--set hidden_features: KEY=VALUE is needed."),
        (["mlp", "--optimizer", "lyon"], "Invalid value for '--optimizer': 'lyon' is not one of 'sgd', 'momentum', "),
        (["mlp", "--option", "beta=1"], "unknown --option key 'beta'; one of b1, b2, eps, weight_decay, amsgrad, maximize, "),
        (["mlp", "--option", "amsgrad=1"], "adam: amsgrad is true or false; got 1."),
        (["mlp", "--option", "b1=high"], "adam: b1 is a number; got 'high'."),
        (["mlp", "--option", "b1=2"], "Invalid beta parameter at index 0: 2.0 (adam: 0 <= b1 < 1)"),
        (["mlp", "--recipe", "--optimizer", "lion"], "--recipe has its own optimizer, AdamW; got --optimizer lion."),
        (["mlp", "--recipe", "--option", "beta=1"], "unknown --option key 'beta'; one of decay_steps, warmup_steps, end_value, b1, b2, "),
        (["mlp", "--recipe", "--option", "every=0"], "Invalid every value: 0 (accumulate: every >= 1)"),
        (["mlp", "--recipe", "--option", "every=two"], "Invalid every: 'two' (accumulate: every is a whole number)"),
        (["mlp", "--recipe", "--option", "max_norm=-1"], "Invalid max_norm value: -1"),
        (["mlp", "--lr", "-1"], "Invalid learning rate: -1.0 (adam: lr >= 0)"),
        (["mlp", "--batch-size", "5000"], "train: batch_size <= 1347, the number of examples; got 5000."),
        (["mlp", "--steps", "0"], "Invalid value for '--steps': "),
        (["mlp", "--framework", "keras"], "Invalid value for '--framework': 'keras' is not one of 'torch', 'jax', 'both'."),
        (["mlp", "--framework", "jax", "--gradients", "shared"], "--gradients shared: PyTorch's gradients need --framework both."),
        (["mlp", "--framework", "torch", "--gradients", "shared"], "--gradients shared: PyTorch's gradients need --framework both."),
        (["mlp", "--seed", "4294967296"], "Invalid value for '--seed': "),
        (["mlp", "--set", "hidden_features=99999999999999"], ""),
        (["mlp", "--gradients", "no"], "Invalid value for '--gradients': 'no' is not one of 'shared', 'own'."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments_are_said_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    status, out, err = optparity(monkeypatch, capsys, "train", *arguments, "--out", tmp_path / "run")
    assert status == 2
    assert out == ""
    assert err.startswith(f"optparity: {message}")
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
