"""What is refused, in one line that names it."""

# pyright: reportArgumentType=false, reportCallIssue=false
# What is refused here is what the types forbid.

import inspect
import json

import optax
import pytest

from optparity import accounting
from optparity.accounting import (
    PRESETS,
    Cruncher,
    Setup,
    Transformer,
    estimate,
)
from optparity.accounting import show as costing
from optparity.accounting.state import state

from ..cli.running import optparity
from .models import preset

GOOD = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 8}


BAD = [
    ({"num_attention_heads": 3}, "transformer: num_attention_heads divides hidden_size; got 3 and 16."),
    ({"num_key_value_heads": 3}, "transformer: num_key_value_heads divides num_attention_heads; got 3 and 4."),
    ({"hidden_size": -16}, "transformer: hidden_size is an integer >= 1; got -16."),
    ({"hidden_size": 16.0}, "transformer: hidden_size is an integer >= 1; got 16.0."),
    ({"num_hidden_layers": 0}, "transformer: num_hidden_layers is an integer >= 1; got 0."),
    ({"num_key_value_heads": 0}, "transformer: num_key_value_heads is an integer >= 1; got 0."),
    ({"vocab_size": True}, "transformer: vocab_size is an integer >= 1; got True."),
    ({"head_dim": "wide"}, "transformer: head_dim is an integer >= 1; got 'wide'."),
    ({"hidden_act": "tanh"}, "transformer: hidden_act is one of gelu, relu, swiglu, geglu; got 'tanh'."),
    ({"positions": "alibi"}, "transformer: positions is one of learned, rotary, relative; got 'alibi'."),
    ({"norm": ["rmsnorm"]}, "transformer: norm is one of layernorm, rmsnorm; got ['rmsnorm']."),
    ({"bias": "no"}, "transformer: bias is true or false; got 'no'."),
    ({"max_position_embeddings": None}, "transformer with learned positions: max_position_embeddings is an integer >= 1; got None."),
    ({"n_head": 4}, "transformer: unknown key 'n_head'; the keys are vocab_size, "),
    ({"model": [1]}, "configuration: model is one of transformer, cruncher; got [1]."),
    ({"model": {}}, "configuration: model is one of transformer, cruncher; got {}."),
    ({"model": "mamba"}, "configuration: model is one of transformer, cruncher; got 'mamba'."),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_configurations(monkeypatch, capsys, tmp_path, changes, message):
    """One line, from the library as from the command."""
    with pytest.raises(ValueError, match=r"^(transformer|configuration)") as raised:
        accounting.from_dict(GOOD | changes)
    assert str(raised.value).startswith(message)
    (tmp_path / "bad.json").write_text(json.dumps(GOOD | changes))
    status, out, err = optparity(monkeypatch, capsys, "cost", tmp_path / "bad.json")
    assert (status, out) == (2, "")
    assert err.startswith(f"optparity: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accounting.from_dict([]), r"^configuration: an object with keys is needed; got \[\]\.$"),
        (lambda: accounting.from_dict({"model": "cruncher", "dim": 4}), r"^cruncher: the key 'num_layers' is needed\.$"),
        (lambda: Cruncher(0, 2), r"^cruncher: dim is an integer >= 1; got 0\.$"),
        (lambda: Cruncher(4, -1), r"^cruncher: num_layers is an integer >= 0; got -1\.$"),
        (lambda: estimate(Cruncher(4, 2), 2, 8), r"^cruncher: seq is for a transformer\.$"),
        (lambda: estimate(Cruncher(4, 2), 2, setup=Setup(tensor_parallel=2)), r"^cruncher: tensor_parallel is for a transformer; got 2\.$"),
        (lambda: estimate(Cruncher(4, 2), 2, conventions=["palm"]), r"^cruncher: convention is one of 6nd, executed; got 'palm'\.$"),
        (lambda: estimate(PRESETS["llama2-7b"], 0), r"^transformer: batch is an integer >= 1; got 0\.$"),
        (lambda: estimate(PRESETS["palm-540b"], 1), r"^transformer: seq is needed, since the configuration has no "),
        (lambda: estimate(PRESETS["gpt2"], 1, 1025), r"^transformer: seq is at most max_position_embeddings, 1024; got 1025\.$"),
        (
            lambda: estimate(PRESETS["gpt2"], 1, setup=Setup(tensor_parallel=5)),
            r"^transformer: tensor_parallel divides num_attention_heads; got 5 and 12\.$",
        ),
        (
            lambda: estimate(PRESETS["gpt2"], 1, 7, Setup(tensor_parallel=2, sequence_parallel=True)),
            r"^transformer with sequence_parallel: tensor_parallel divides the sequence; got 2 and 7\.$",
        ),
        (
            lambda: Transformer(50, 24, 1, 12, 4, max_position_embeddings=8).weights(6),
            r"^transformer: tensor_parallel divides num_key_value_heads, or is a multiple of it; got 6 and 4\.$",
        ),
        (lambda: preset("gpt2").activations(1, 8, "guess"), r"^transformer: by is one of executed, korthikanti; got 'guess'\.$"),
        (lambda: Setup(framework="mxnet"), r"^setup: framework is one of torch, jax; got 'mxnet'\.$"),
        (lambda: Setup(zero_stage=4), r"^setup: zero_stage is one of 0, 1, 2, 3; got 4\.$"),
        (lambda: Setup(dtype="int8"), r"^setup: dtype is one of float32, float64, bfloat16, float16; got 'int8'\.$"),
        (
            lambda: Setup(dtype="float32", mixed_precision=True),
            r"^setup with mixed_precision: dtype is one of bfloat16, float16; got 'float32'\.$",
        ),
        (lambda: Setup(donate=True), r"^setup: donate is for framework jax; torch steps in place\.$"),
        (lambda: state("adamm", {}), r"^unknown optimizer 'adamm'; one of sgd, momentum, .* is needed\.$"),
        (lambda: state("adam", {}, momentum=0.9), r"^adam: option is one of learning_rate, b1, .*; got 'momentum'\.$"),
        (lambda: state("adam", {}, amsgrad="yes"), r"^adam: amsgrad is true or false; got 'yes'\.$"),
        (lambda: state("adam", {}, eps=True), r"^adam: eps is a number; got True\.$"),
        (lambda: state("adam", {}, b1="0.9"), r"^adam: b1 is a number; got '0\.9'\.$"),
        (lambda: state("adam", {}, b1=None), r"^adam: b1 is a number; got None\.$"),
        (lambda: state("adam", {}, b1=10**400), r"^adam: b1 is a number that float64 has; got one too large\.$"),
        (lambda: state("adam", {}, learning_rate="fast"), r"^adam: learning_rate is a number; got 'fast'\.$"),
        (
            lambda: state("adam", {}, accumulator_dtype=[1]),
            r"^adam: accumulator_dtype \[1\] is not supported; float32 or None is needed\.$",
        ),
        (
            lambda: state("adam", {}, accumulator_dtype=True),
            r"^adam: accumulator_dtype True is not supported; float32 or None is needed\.$",
        ),
        (lambda: accounting.checks.options("adam", [1]), r"^adam: options are a mapping of names to values; got \[1\]\.$"),
        (lambda: accounting.checks.options([1], {}), r"^unknown optimizer \[1\]; one of sgd, "),
        (lambda: state([1], {}), r"^accounting: an optimizer is a name of optparity\.OPTIMIZERS or an optax transform; got \[1\]\.$"),
        (lambda: Setup(options=[1]), r"^setup: options are a mapping of names to values; got \[1\]\.$"),
        (lambda: Setup(dtype=["float32"]), r"^setup: dtype is one of float32, float64, bfloat16, float16; got \['float32'\]\.$"),
        (lambda: Setup(zero_stage=True), r"^setup: zero_stage is one of 0, 1, 2, 3; got True\.$"),
        (lambda: estimate("gpt2", 1), r"^estimate: a Transformer or a Cruncher is needed, as PRESETS\['gpt2'\] is; got 'gpt2'\.$"),
        (lambda: estimate(PRESETS["gpt2"], 1, setup="adam"), r"^estimate: setup is a Setup; got 'adam'\.$"),
        (lambda: estimate(PRESETS["gpt2"], 1, conventions="palm"), r"^estimate: conventions are several names; got 'palm'\.$"),
        (
            lambda: preset("gpt2").flops(1, 8, recompute="all"),
            r"^transformer: recompute is one of none, selective, alternate, full; got 'all'\.$",
        ),
        (lambda: preset("gpt2").flops(1, 8, attention="x"), r"^transformer: attention is one of written-out, sdpa; got 'x'\.$"),
        (
            lambda: preset("gpt2").activations(1, 8, recompute="all"),
            r"^transformer: recompute is one of none, selective, alternate, full; got 'all'\.$",
        ),
        (lambda: preset("gpt2").activations(1, 8, attention="x"), r"^transformer: attention is one of written-out, sdpa; got 'x'\.$"),
        (lambda: preset("gpt2").activations(1, 8, dtype="int8"), r"^transformer: dtype is one of float32, .*; got 'int8'\.$"),
        (
            lambda: preset("gpt2").temporaries(1, 8, "all"),
            r"^transformer: recompute is one of none, selective, alternate, full; got 'all'\.$",
        ),
        (lambda: preset("gpt2").temporaries(1, 8, dtype=None), r"^transformer: dtype is one of float32, .*; got None\.$"),
        (lambda: preset("gpt2").saved(1, 8, sequence_parallel=1), r"^transformer: sequence_parallel is true or false; got 1\.$"),
        (lambda: Cruncher(4, 2).activations(0), r"^cruncher: batch is an integer >= 1; got 0\.$"),
        (lambda: Cruncher(4, 2).activations(2, "guess"), r"^cruncher: by is one of the article, torch, jax; got 'guess'\.$"),
        (lambda: Cruncher(4, 2).activations(2, dtype="f4"), r"^cruncher: dtype is one of float32, .*; got 'f4'\.$"),
        (lambda: Cruncher(4, 2).temporaries(0), r"^cruncher: batch is an integer >= 1; got 0\.$"),
        (lambda: Cruncher(4, 2).temporaries(2, "f4"), r"^cruncher: dtype is one of float32, .*; got 'f4'\.$"),
        (lambda: state(optax.sgd(0.1), {}, nesterov=True), r"^accounting: options are for an optimizer named by its name; "),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad.json cannot be read as JSON: "),
        ("{", "bad.json cannot be read as JSON: "),
        ("[" * 100_000, "bad.json cannot be read as JSON: it is nested too deep."),
        ("[]", "bad.json: an object with the keys of a configuration is needed."),
        ('"gpt2"', "bad.json: an object with the keys of a configuration is needed."),
        ("{}", "transformer: the key 'vocab_size' is needed."),
        ('{"model": "cruncher"}', "cruncher: the key 'dim' is needed."),
    ],
)
def test_broken_configuration_files(monkeypatch, capsys, tmp_path, text, message):
    (tmp_path / "bad.json").write_text(text)
    status, out, err = optparity(monkeypatch, capsys, "cost", tmp_path / "bad.json")
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"bad\.json cannot be read as JSON: 'utf-8' codec"):
        costing.read(str(tmp_path / "bad.json"))


def test_all_is_what_is_public():
    public = {name for name, value in vars(accounting).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert set(accounting.__all__) - {"estimate", "state"} == public - {"estimate", "state"}
    assert callable(accounting.estimate)
    assert callable(accounting.state)


def test_a_file_without_model_type(monkeypatch, capsys, tmp_path):
    """Is refused with what is needed and how to give it; and then read as if it said it."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(GOOD | {"hidden_act": "silu", "intermediate_size": 32}))
    status, out, err = optparity(monkeypatch, capsys, "cost", file)
    assert (status, out) == (2, "")
    start = f"optparity: {file}: with hidden_act 'silu', a model_type is needed, in the file or by --model-type; one of llama, "
    assert err.startswith(start)
    assert err.count("\n") == 1
    status, out, _ = optparity(monkeypatch, capsys, "cost", file, "--model-type", "llama")
    assert status == 0
    assert "parameters" in out
    file.write_text(json.dumps(GOOD | {"model_type": "gpt2"}))
    status, _, err = optparity(monkeypatch, capsys, "cost", file, "--model-type", "llama")
    assert (status, err) == (2, f"optparity: {file}: model_type is 'gpt2', and --model-type llama; one of them is needed.\n")
    status, _, err = optparity(monkeypatch, capsys, "cost", "gpt2", "--model-type", "llama")
    assert (status, err) == (2, "optparity: --model-type llama: it is for a file; gpt2 is a preset.\n")


@pytest.mark.parametrize("percent", ["nan", "inf", "-1"])
def test_a_margin_is_a_number(monkeypatch, capsys, percent):
    status, out, err = optparity(monkeypatch, capsys, "cost", "gpt2", "--margin", percent, "--fits", "80")
    assert (status, out, err) == (2, "", f"optparity: --margin {percent}: a finite number >= 0 is needed.\n")
