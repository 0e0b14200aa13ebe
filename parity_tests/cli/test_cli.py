"""The command: what it prints, what it writes, how it exits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import matplotlib.image
import numpy as np
import pytest
import torch

import jaxopt_impl
import torch_ref
from jaxopt_impl import numerics as nx
from optparity.cli import commands as cli
from optparity.parity import golden

GOLDEN = Path(__file__).parents[2] / "optparity" / "parity" / "golden.json"


def optparity(monkeypatch, capsys, *arguments):
    """Run the command here: exit status, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["optparity", *map(str, arguments)])
    with jax.numpy_dtype_promotion("standard"), pytest.raises(SystemExit) as stopped:  # as users have it; optax promotes
        cli.main()
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


def subprocess_optparity(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", "from optparity.cli import main; main()", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def plain_zero(x, *others):
    """In the place of a signed zero: XLA drops the addition of it, and the fences are down."""
    return np.zeros([], x.dtype)


def test_check_says_same_and_writes_files(monkeypatch, capsys, tmp_path):
    json_file, picture = tmp_path / "new" / "parity.json", tmp_path / "parity.png"
    status, out, _ = optparity(
        *(monkeypatch, capsys, "check", "adagrad", "--steps", 20, "--stream", "normal", "--stream", "digits"),
        *("--dtype", "float32", "--json", json_file, "--plot", picture),
    )
    assert status == 0
    assert "2/2 same" in out
    assert "no difference" in out
    assert max(map(len, out.splitlines())) <= 100
    document = json.loads(json_file.read_text())
    assert len(document["results"]) == 2 * 8
    ours = document["results"][0]["against torch_ref"]["jaxopt_impl"]
    assert ours["differing"] == [0] * 20
    assert ours["compared"] == ["params", "step", "sum"] or ours["compared"] == ["params", "sum", "step"]
    assert set(document["results"][0]["against torch_ref"]) == {"jaxopt_impl"}
    assert not document["results"][1]["against torch_ref"]["optax"]["identical"]
    assert not document["results"][1]["against torch_ref"]["torch.optim"]["identical"]
    assert document["machine"]["jax"]
    height, width, _ = matplotlib.image.imread(picture).shape
    assert width > 500
    assert height > 200
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_check_names_the_first_difference(monkeypatch, capsys):
    """With the fence down, the main job goes red."""
    monkeypatch.setattr(nx, "signed_zero", plain_zero)
    from optparity import registry as table
    from optparity.parity import contexts

    contexts._built.cache_clear()
    for row in table.ROWS:
        row.__dict__.pop("tx", None)
    try:
        arguments = ("check", "momentum", "--jobs", 1, "--steps", 3, "--stream", "normal", "--dtype", "float32")
        status, out, _ = optparity(monkeypatch, capsys, *arguments)
    finally:
        jax.clear_caches()
        contexts._built.cache_clear()
        for row in table.ROWS:
            row.__dict__.pop("tx", None)
    assert status == 1
    assert "4 of 4 trials differ" in out
    assert "momentum: default on normal, float32: step 2, params['w'][" in out or "step 1, " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "adamm"], "unknown optimizer 'adamm'; one of sgd, momentum, adagrad, rmsprop, adam, adamw is needed."),
        (["check", "--stream", "nope"], "unknown stream 'nope'; one of normal, wide, "),
        (["check", "--dtype", "int8"], "unknown dtype 'int8'; one of float32, float64, bfloat16, float16 is needed."),
        (["check", "--steps", "0"], "Invalid value for '--steps'"),
        (["check", "--steps", "many"], "Invalid value for '--steps'"),
        (["check", "--seed", "-1"], "Invalid value for '--seed'"),
        (["check", "--plot", "picture.gif"], "--plot picture.gif: a file name that ends in .png, .svg or .pdf is needed."),
        (["check", "--json", "/proc/no/file.json"], "/proc/no/file.json cannot be written"),
        (["check", "--json", "."], ". is a folder; a file name is needed."),
        (["check", "--colour"], "No such option"),
        (["chekc"], "No such command"),
        (["golden", "check", "/nowhere.json"], "/nowhere.json cannot be read as a golden file"),
        (["golden", "burn", "x.json"], "unknown action 'burn'; one of write, check is needed."),
        (["golden", "check", "x.json", "--side", "numpy"], "unknown side 'numpy'; one of jax, torch is needed."),
        (["doctor", "--elements", "3"], "Invalid value for '--elements'"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(monkeypatch, capsys, arguments, message):
    status, out, err = optparity(monkeypatch, capsys, *arguments)
    assert status == 2
    assert out == ""
    assert message in err
    assert err.startswith("optparity: ")
    assert err.count("\n") == 1


def test_an_option_that_is_repeated_counts_once(monkeypatch, capsys):
    arguments = (
        "check",
        "sgd",
        "--jobs",
        1,
        "--stream",
        "normal",
        "--stream",
        "normal",
        "--dtype",
        "float32",
        "--dtype",
        "float32",
        "--steps",
        2,
    )
    status, out, _ = optparity(monkeypatch, capsys, *arguments)
    assert status == 0
    assert "8 trials, no difference" in out


def test_nothing_is_made_for_a_command_that_is_refused(monkeypatch, capsys, tmp_path):
    assert optparity(monkeypatch, capsys, "check", "adamm", "--json", tmp_path / "new" / "file.json")[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_a_broken_golden_file(monkeypatch, capsys, tmp_path):
    whole = json.loads(GOLDEN.read_text())
    broken = [
        {**whole, "hashes": []},
        {**whole, "configuration": {**whole["configuration"], "streams": ["nope"]}},
        {**whole, "configuration": {**whole["configuration"], "steps": "many"}},
        {**whole, "configuration": {**whole["configuration"], "every": 0}},
    ]
    for text in ("", "[]", "{}", '{"configuration": {}, "streams": {}, "hashes": {}}', *map(json.dumps, broken)):
        (tmp_path / "golden.json").write_text(text)
        status, _, err = optparity(monkeypatch, capsys, "golden", "check", tmp_path / "golden.json")
        assert status == 2
        assert err.count("\n") == 1


def test_doctor(monkeypatch, capsys):
    status, out, _ = optparity(monkeypatch, capsys, "doctor", "--elements", 65536)
    assert status == 0
    assert "The contract is kept here." in out
    assert f"{torch.__version__}" in out
    for line in ("a / sqrt(c)", "torch_ref: sqrt(c)", "jax: subnormals", "torch: subnormals within"):
        assert line in out


def test_doctor_sees_a_broken_fence(monkeypatch, capsys):
    monkeypatch.setattr(nx, "signed_zero", plain_zero)
    status, out, _ = optparity(monkeypatch, capsys, "doctor", "--elements", 65536)
    assert status == 1
    assert "THE FENCE DOES NOT HOLD" in out


@pytest.mark.parametrize(
    ("side", "environment"),
    [
        ("torch", {"ATEN_CPU_CAPABILITY": "default"}),
        ("torch", {"ATEN_CPU_CAPABILITY": "avx2"}),
        ("jax", {"XLA_FLAGS": "--xla_cpu_max_isa=AVX"}),
        ("jax", {"XLA_FLAGS": ""}),
    ],
    ids=lambda value: value if isinstance(value, str) else "=".join(*value.items()),
)
def test_the_committed_hashes(side, environment):
    """Either package, whatever the instruction set, in a process of its own: the trajectories of the committed file."""
    checked = subprocess_optparity("golden", "check", GOLDEN, "--side", side, **{"XLA_FLAGS": "", **environment})
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "0 differences" in checked.stdout


def test_the_committed_hashes_cover_the_table():
    document = json.loads(GOLDEN.read_text())
    assert document["configuration"] == golden.CONFIGURATION
    assert set(document["hashes"]) == {key for key, *_ in golden.keys(golden.CONFIGURATION)}
    assert all(len(entry) == 2 for entry in document["hashes"].values())
    assert len({tuple(entry) for entry in document["hashes"].values()}) > 0.7 * len(document["hashes"])  # they tell trajectories apart


def test_golden_sees_a_difference(monkeypatch, capsys, tmp_path):
    small = {**golden.CONFIGURATION, "streams": ["normal"], "dtypes": ["float16"], "steps": 2, "every": 1}
    monkeypatch.setattr(golden, "CONFIGURATION", small)
    file = tmp_path / "golden.json"
    assert optparity(monkeypatch, capsys, "golden", "write", file, "--side", "torch")[0] == 0
    assert optparity(monkeypatch, capsys, "golden", "check", file, "--side", "torch")[0] == 0
    document = json.loads(file.read_text())
    key = next(iter(document["hashes"]))
    document["hashes"][key][-1] = "0" * 16
    document["streams"].popitem()
    file.write_text(json.dumps(document))
    status, out, _ = optparity(monkeypatch, capsys, "golden", "check", file, "--side", "torch")
    assert status == 1
    assert f"hashes {key}" in out
    assert "2 differences" in out


def test_drift(monkeypatch, capsys, tmp_path):
    """The page has a line for each optimizer and dtype, a reason for each optimizer, and figures that are not ours."""
    page = tmp_path / "drift.md"
    status, out, _ = optparity(monkeypatch, capsys, "drift", page, "--steps", 3)
    assert status == 0
    assert "24 lines written" in out
    text = page.read_text()
    committed = (Path(__file__).parents[2] / "docs" / "drift.md").read_text()
    for line in committed.splitlines():
        if line.startswith("| `"):
            assert line.split("|")[1:3] in [other.split("|")[1:3] for other in text.splitlines()]
    assert text.count(" ulp") > 60


def test_without_its_extra_the_command_says_so():
    hidden = "import sys; sys.modules['typer'] = None; import optparity.cli"
    run = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr == "optparity: typer is not installed; the command needs: pip install 'optparity[cli,torch]'\n"


def test_without_torch_the_jax_side_works():
    hidden = (
        "import sys; sys.modules['torch'] = None; import jaxopt_impl, optparity; "
        "from optparity.parity import golden, canaries; from optparity import cli"
    )
    run = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stderr


def test_train_in_jax_needs_no_torch(tmp_path):
    hidden = (  # not found, rather than None in sys.modules, which scikit-learn takes for a torch
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(name, *_):\n"
        "        if name == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden)\n"
        "from optparity.cli import main; main()"
    )
    arguments = ["train", "mlp", "--framework", "jax", "--steps", "2", "--out", str(tmp_path / "run")]
    run = subprocess.run([sys.executable, "-c", hidden, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "run" / "checkpoints" / "step-00000002" / "jax").is_dir()


def test_neither_package_needs_the_other():
    for package, absent in ((jaxopt_impl, "torch"), (torch_ref, "jax")):
        run = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.modules[{absent!r}] = None; import {package.__name__}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
