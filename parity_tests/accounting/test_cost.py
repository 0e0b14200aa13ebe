"""`optparity cost`: what it prints, what it writes, how it exits."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import matplotlib.image
import pytest

from optparity.accounting import (
    CONVENTIONS,
    PRESETS,
    Cruncher,
    Setup,
    Transformer,
    estimate,
)

from ..cli.running import optparity


def test_cost_of_the_toy(monkeypatch, capsys, tmp_path):
    (tmp_path / "toy.json").write_text('{"model": "cruncher", "dim": 4, "num_layers": 2}')
    shown = [optparity(monkeypatch, capsys, "cost", model, *TOY) for model in ("cruncher", tmp_path / "toy.json")]
    for status, out, err in shown:
        assert (status, err) == (0, "")
        lines = [" ".join(line.split()) for line in out.splitlines()]
        assert lines[0].endswith(": 36 parameters")
        assert lines[1:] == TOY_LINES


TOY = ("--batch", 2, "--optimizer", "adagrad")


TOY_LINES = [
    "memory of a device dtype the article executed (torch)",
    "parameters float32 144 B 144 B",
    "gradients float32 144 B 144 B",
    "optimizer state float32 144 B 156 B",
    "activations float32 64 B 112 B",
    "temporaries float32 0 B 96 B",
    "total 496 B 652 B",
    "convention FLOPs of a step what is counted",
    "6nd 432 the article's: 6 B P",
    "executed 368 the matrix products done; the inputs need no gradient",
]


@pytest.mark.parametrize(("optimizer", "total"), [("sgd", "352 B"), ("adam", "640 B"), ("adagrad", "496 B")])
def test_cost_of_the_articles_optimizers(monkeypatch, capsys, optimizer, total):
    out = optparity(monkeypatch, capsys, "cost", "cruncher", "--batch", 2, "--optimizer", optimizer)[1]
    assert any(line.split()[:3] == ["total", *total.split()] for line in out.splitlines())


def test_cost_writes_what_it_shows(monkeypatch, capsys, tmp_path):
    json_file, picture = tmp_path / "new" / "cost.json", tmp_path / "cost.png"
    status, out, _ = optparity(
        *(monkeypatch, capsys, "cost", "llama3-70b", "--seq", 4096, "--batch", 2, "--mixed-precision", "--recompute", "selective"),
        *("--tensor-parallel", 8, "--sequence-parallel", "--zero-stage", 3, "--data-parallel", 4, "--option", "amsgrad=true"),
        *("--attention", "sdpa", "--set", "num_hidden_layers=40", "--json", json_file, "--plot", picture),
    )
    assert status == 0
    assert max(map(len, out.splitlines())) <= 100
    assert not any(line.startswith("activations:") for line in out.splitlines())
    document = json.loads(json_file.read_text())
    model = Transformer(**{**vars(PRESETS["llama3-70b"]), "num_hidden_layers": 40})
    setup = Setup(
        *("adam", {"amsgrad": True}, "torch", "bfloat16", "sdpa", "selective", 8, True, 3, 4),
        mixed_precision=True,
    )
    assert {**document, **estimate(model, 2, 4096, setup).to_dict()} == document
    assert document["configuration"]["num_hidden_layers"] == 40
    assert f"{document['parameters']:,} parameters" in out
    for name in CONVENTIONS:
        assert any(line.startswith(name) for line in out.splitlines())
    height, width, _ = matplotlib.image.imread(picture).shape
    assert width > 800
    assert height > 300
    assert [file.name for file in tmp_path.rglob(".*")] == []


def test_cost_in_jax_says_whose_activations(monkeypatch, capsys):
    status, out, _ = optparity(monkeypatch, capsys, "cost", "gpt2", "--framework", "jax", "--donate", "--convention", "palm")
    assert status == 0
    assert "activations: what PyTorch's autograd would keep; XLA decides for itself." in out
    assert "executed (jax)" in out
    assert "chinchilla" not in out


@pytest.mark.parametrize(("limit", "status", "answer"), [(2, 1, "no"), (3, 0, "yes")])
def test_cost_says_whether_it_fits(monkeypatch, capsys, limit, status, answer):
    got, out, _ = optparity(monkeypatch, capsys, "cost", "gpt2", "--seq", 64, "--fits", limit)
    assert got == status
    assert out.splitlines()[-1].startswith(f"fits in {limit} GB per device: {answer} (")


def test_what_fits():
    memory = estimate(Cruncher(4, 2), 2, setup=Setup("adagrad")).memory[0]
    assert memory.fits(496e-9)
    assert not memory.fits(495.9e-9)


def test_cost_needs_no_torch():
    hidden = "import sys; sys.modules['torch'] = None; sys.argv = ['optparity', 'cost', 'gpt2']; from optparity.cli import main; main()"
    run = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stderr
    assert "874,944,921,600" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt5"], "unknown preset 'gpt5', and no file of that name; one of cruncher, gpt2, "),
        (["x" * 5000], "x" * 100 + " cannot be read: File name too long."),
        (["/nowhere.json"], "unknown preset '/nowhere.json', and no file of that name"),
        (["gpt2", "--optimizer", "adamm"], "Invalid value for '--optimizer': 'adamm' is not one of 'sgd', 'momentum', "),
        (["gpt2", "--option", "momentum=0.9"], "unknown --option key 'momentum'; one of b1, "),
        (["gpt2", "--option", "amsgrad"], "--option amsgrad: KEY=VALUE is needed."),
        (["gpt2", "--option", "amsgrad=maybe"], "adam: amsgrad is true or false; got 'maybe'."),
        (["gpt2", "--option", "b1=2"], "Invalid beta parameter at index 0: 2.0 (adam: 0 <= b1 < 1)"),
        (["gpt2", "--option", "eps=tiny"], "adam: eps is a number; got 'tiny'."),
        (["gpt2", "--option", "accumulator_dtype=float16"], "adam: accumulator_dtype float16 is not supported; float32 or None is needed."),
        (["gpt2", "--set", "n_head=3"], "unknown --set key 'n_head'; one of model, vocab_size, "),
        (["gpt2", "--set", "num_attention_heads=7"], "transformer: num_attention_heads divides hidden_size; got 7 and 768."),
        (["gpt2", "--set", "hidden_size=-1"], "transformer: hidden_size is an integer >= 1; got -1."),
        (["gpt2", "--batch", "0"], "Invalid value for '--batch'"),
        (["gpt2", "--seq", "2000"], "transformer: seq is at most max_position_embeddings, 1024; got 2000."),
        (["palm-540b"], "transformer: seq is needed, since the configuration has no max_position_embeddings."),
        (["gpt2", "--dtype", "int8"], "Invalid value for '--dtype': 'int8' is not one of '"),
        (["gpt2", "--framework", "mxnet"], "Invalid value for '--framework': 'mxnet' is not one of '"),
        (["gpt2", "--recompute", "some"], "Invalid value for '--recompute': 'some' is not one of '"),
        (["gpt2", "--attention", "flash"], "Invalid value for '--attention': 'flash' is not one of '"),
        (["gpt2", "--tensor-parallel", "5"], "transformer: tensor_parallel divides num_attention_heads; got 5 and 12."),
        (["gpt2", "--zero-stage", "4"], "Invalid value for '--zero-stage'"),
        (["gpt2", "--donate"], "setup: donate is for framework jax; torch steps in place."),
        (["gpt2", "--convention", "8nd"], "Invalid value for '--convention': '8nd' is not one of '"),
        (["cruncher", "--convention", "palm"], "cruncher: convention is one of 6nd, executed; got 'palm'."),
        (["cruncher", "--seq", "8"], "cruncher: seq is for a transformer."),
        (["gpt2", "--fits", "0"], "--fits 0: a finite number > 0 is needed."),
        (["gpt2", "--fits", "inf"], "--fits inf: a finite number > 0 is needed."),
        (["gpt2", "--step-time", "1"], "--step-time 1.0 and --peak None: both are needed for the use of the peak."),
        (["gpt2", "--peak", "a100"], "--step-time None and --peak a100: both are needed for the use of the peak."),
        (["gpt2", "--peak", "abacus", "--step-time", "1"], "Invalid value for '--peak': 'abacus' is not one of 'v100', "),
        (["gpt2", "--peak", "a100", "--step-time", "0"], "mfu: seconds is a number > 0; got 0.0."),
        (["gpt2", "--plot", "picture.gif"], "--plot picture.gif: a file name that ends in .png, .svg or .pdf is needed."),
        (["gpt2", "--json", "/proc/no/file.json"], "/proc/no/file.json cannot be written"),
    ],
)
def test_bad_arguments_of_cost(monkeypatch, capsys, arguments, message):
    status, out, err = optparity(monkeypatch, capsys, "cost", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"optparity: {message}")
    assert err.count("\n") == 1
