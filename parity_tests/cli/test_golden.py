"""`optparity golden`: the hashes of every trajectory, written and checked."""

import json
import os

import pytest

from optparity.parity import golden

from ..sampling import DEFAULTS, EXHAUSTIVE
from .running import one_line, optparity, subprocess_optparity

WAYS = {"jax": "flushed", "torch": "flushed and kept"}
SMALL = golden.CONFIGURATION | {"streams": ["subnormal"], "dtypes": ["float32", "bfloat16"], "elements": 5, "steps": 2, "every": 1}


def test_a_broken_golden_file(monkeypatch, capsys, tmp_path):
    whole = golden.read()
    broken = [
        {**whole, "hashes": []},
        {**whole, "configuration": {**whole["configuration"], "streams": ["nope"]}},
        {**whole, "configuration": {**whole["configuration"], "steps": "many"}},
        {**whole, "configuration": {**whole["configuration"], "every": 0}},
        {**whole, "kept": []},
        {**whole, "kept": {"adam: unknown | subnormal | float32": ["0" * 16] * 2}},
        {**whole, "flushes": False},
    ]
    for text in ("", "[]", "{}", '{"configuration": {}, "streams": {}, "hashes": {}}', *map(json.dumps, broken)):
        (tmp_path / "golden.json").write_text(text)
        file = tmp_path / "golden.json"
        one_line(*optparity(monkeypatch, capsys, "golden", "check", file), f"{file} cannot be read as a golden file: ")


@pytest.mark.parametrize(
    ("side", "environment"),
    [
        ("torch", {"ATEN_CPU_CAPABILITY": "default"}),
        pytest.param("torch", {"ATEN_CPU_CAPABILITY": "avx2"}, marks=EXHAUSTIVE),
        pytest.param("jax", {"XLA_FLAGS": "--xla_cpu_max_isa=AVX"}, marks=EXHAUSTIVE),
        pytest.param("jax", {"XLA_FLAGS": ""}, marks=EXHAUSTIVE),  # a compilation for each row; `make newest` has it too
    ],
    ids=lambda value: value if isinstance(value, str) else "=".join(*value.items()),
)
def test_the_committed_hashes(side, environment):
    """Either package, whatever the instruction set, in a process of its own: the trajectories of the packaged file."""
    checked = subprocess_optparity("golden", "check", str(golden.PACKAGED), "--side", side, **{"XLA_FLAGS": "", **environment})
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout == f"Subnormals {WAYS[side]}: {len(golden.read()['hashes'])} trajectories, 0 differences.\n"


@EXHAUSTIVE
@pytest.mark.parametrize("side", WAYS)
def test_without_a_file_both_packaged_ones_are_checked(side):
    checked = subprocess_optparity("golden", "check", "--side", side, XLA_FLAGS="")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    first, second = checked.stdout.splitlines()
    assert first == f"Subnormals {WAYS[side]}: {len(golden.read()['hashes'])} trajectories, 0 differences."
    around = len(golden.read(golden.PACKAGED_AROUND)["hashes"])
    assert second == f"Subnormals {WAYS[side]}: {around} trajectories around the step, 0 differences."


@pytest.mark.parametrize(
    ("packaged", "configuration"), [(golden.PACKAGED, golden.CONFIGURATION), (golden.PACKAGED_AROUND, golden.AROUND)], ids=["", "around"]
)
def test_the_committed_hashes_cover_the_table(packaged, configuration):
    document = golden.read(packaged)
    assert document["configuration"] == configuration
    assert set(document["hashes"]) == {key for key, *_ in golden.keys(configuration)}
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
    assert f"flushed {key}" in out
    assert "3 differences" in out  # the hash is both ways', since no kept one stands in its place


def test_a_backend_that_keeps_subnormals(monkeypatch, capsys, tmp_path):
    """It is checked against the kept hashes. Here none is: torch that keeps them passes for one, and jax that flushes them does not."""
    monkeypatch.setattr(golden, "CONFIGURATION", SMALL)
    monkeypatch.setattr(golden, "ROWS", DEFAULTS)
    file = tmp_path / "golden.json"
    status, out, _ = optparity(monkeypatch, capsys, "golden", "write", file, "--side", "torch")
    count = len(golden.read(file)["hashes"])
    assert (status, out) == (0, f"Subnormals flushed and kept: {count} trajectories written to {file}\n")
    monkeypatch.setattr(golden, "jax_flushes", lambda: False)
    status, out, _ = optparity(monkeypatch, capsys, "golden", "check", file)
    assert (status, out.splitlines()[-1]) == (1, f"Subnormals kept: {count} trajectories, {len(golden.read(file)['kept'])} differences.")
    monkeypatch.setattr(golden, "_walk_jax", lambda _, *row: golden._walk_torch(False, *row))
    status, out, _ = optparity(monkeypatch, capsys, "golden", "check", file)
    assert (status, out) == (0, f"Subnormals kept: {count} trajectories, 0 differences.\n")
    kept = tmp_path / "kept.json"
    status, out, _ = optparity(monkeypatch, capsys, "golden", "write", kept)
    assert (status, out) == (0, f"Subnormals kept: {count} trajectories written to {kept}\n")
    assert golden.hashes(golden.read(kept)) == {"kept": golden.hashes(golden.read(file))["kept"]}


def test_a_tpu_has_no_float64(monkeypatch, capsys, tmp_path):
    """The line says that it is left out; nothing else is. The file that a TPU writes has none."""
    monkeypatch.setattr(golden, "CONFIGURATION", SMALL | {"dtypes": ["float32", "float64"]})
    monkeypatch.setattr(golden, "ROWS", DEFAULTS)
    file, written = tmp_path / "golden.json", tmp_path / "tpu.json"
    assert optparity(monkeypatch, capsys, "golden", "write", file)[0] == 0
    monkeypatch.setattr(golden.jax, "default_backend", lambda: "tpu")
    said = "TPUs have no float64: its trajectories are left out.\nSubnormals flushed: 7 trajectories"
    assert optparity(monkeypatch, capsys, "golden", "check", file) == (0, f"{said}, 0 differences.\n", "")
    assert optparity(monkeypatch, capsys, "golden", "write", written) == (0, f"{said} written to {written}\n", "")
    assert golden.read(written)["configuration"]["dtypes"] == ["float32"]
    assert golden.differences(golden.read(file), golden.read(written)) == []
    document = golden.read(file)
    document["hashes"]["sgd: default | subnormal | float32"] = []
    file.write_text(json.dumps(document))
    status, out, _ = optparity(monkeypatch, capsys, "golden", "check", file)
    assert (status, out.splitlines()[-1]) == (1, "Subnormals flushed: 7 trajectories, 1 differences.")


def test_a_file_without_hashes_for_this_backend(monkeypatch, capsys, tmp_path):
    """What one jax backend wrote, as older versions all did, says nothing about the other; torch checks what there is."""
    monkeypatch.setattr(golden, "CONFIGURATION", SMALL)
    monkeypatch.setattr(golden, "ROWS", DEFAULTS)
    file = tmp_path / "golden.json"
    assert optparity(monkeypatch, capsys, "golden", "write", file)[0] == 0
    status, out, _ = optparity(monkeypatch, capsys, "golden", "check", file, "--side", "torch")
    assert (status, out) == (0, f"Subnormals flushed: {len(golden.read(file)['hashes'])} trajectories, 0 differences.\n")
    monkeypatch.setattr(golden, "jax_flushes", lambda: False)
    message = f"{file} has hashes for subnormals flushed only, and here they are kept: a file written with --side torch has both."
    one_line(*optparity(monkeypatch, capsys, "golden", "check", file), message)


def test_without_a_file_the_packaged_one_is_checked(monkeypatch, capsys):
    """Neither its configuration nor its hashes are this module's."""
    few = [key for key in golden.keys(golden.CONFIGURATION) if key[0].startswith("sgd: default | ") and key[3] == "float32"]
    one = [key for key in golden.keys(golden.AROUND) if key[0].startswith("clip_by_value: default | normal | float32")]
    monkeypatch.setattr(golden, "keys", lambda configuration: iter(one if configuration.get("around") else few))
    status, out, err = optparity(monkeypatch, capsys, "golden", "check")
    packaged, around = (len(golden.read(file)["hashes"]) for file in (golden.PACKAGED, golden.PACKAGED_AROUND))
    assert (status, err) == (1, "")
    assert f"Subnormals flushed: {len(few)} trajectories, {packaged - len(few)} differences." in out.splitlines()
    assert out.splitlines()[-1] == f"Subnormals flushed: 1 trajectories around the step, {around - 1} differences."
    assert ": missing is not [" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "/nowhere.json"], "/nowhere.json cannot be read as a golden file"),
        (["check", "/dev/full"], "/dev/full cannot be read as a golden file: it is no regular file."),
        (["check", "."], ". cannot be read as a golden file: it is no regular file."),
        (["burn", "x.json"], "Invalid value for 'action': 'burn' is not one of 'write', 'check'."),
        (["check", "x.json", "--side", "numpy"], "Invalid value for '--side': 'numpy' is not one of 'jax', 'torch', 'applied'."),
        (["write"], "golden write: the file to write is needed."),
        (["write", "."], ". is a folder; a file name is needed."),
        ([], "Missing argument 'action'"),
    ],
)
def test_bad_arguments_of_golden(monkeypatch, capsys, arguments, message):
    one_line(*optparity(monkeypatch, capsys, "golden", *arguments), message)


def test_a_pipe_is_not_waited_for(monkeypatch, capsys, tmp_path):
    """Nobody may ever write into it."""
    os.mkfifo(tmp_path / "pipe")
    one_line(
        *optparity(monkeypatch, capsys, "golden", "check", tmp_path / "pipe"), "pipe cannot be read as a golden file: it is no regular"
    )


def test_applied_walks_the_optimizers_only(monkeypatch, capsys, tmp_path):
    message = "golden: --side applied walks the optimizers; for what stands around the step jax or torch is needed."
    for arguments in (["check", golden.PACKAGED_AROUND], ["write", tmp_path / "new.json", "--around"]):
        one_line(*optparity(monkeypatch, capsys, "golden", *arguments, "--side", "applied"), message)
    assert not list(tmp_path.iterdir())
