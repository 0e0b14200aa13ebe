"""The command as a whole: its help, what it loads, and that whatever goes wrong is one line and a status."""

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

import jaxopt_impl
import torch_ref
from optparity import check as checking
from optparity.cli import _app, _errors, train
from optparity.cli._app import COMMANDS
from optparity.training import run as training

from .running import hiding, one_line, optparity, started, subprocess_optparity


def fails(error):
    def failing(*_, **__):
        raise error

    return failing


@pytest.fixture
def in_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def squeezed(text):
    """Without the spaces and line ends that a help text gets when it is laid out."""
    return "".join(text.split())


@pytest.mark.usefixtures("in_80_columns")
def test_the_help_lists_every_command_whole(monkeypatch, capsys):
    status, out, err = optparity(monkeypatch, capsys, "--help")
    assert (status, err) == (0, "")
    for name, summary in COMMANDS.items():
        assert f"  {name:9s}{summary}" in out.splitlines()
    assert max(map(len, out.splitlines())) <= 80
    assert optparity(monkeypatch, capsys) == (0, out, "")  # without arguments as well


@pytest.mark.usefixtures("in_80_columns")
@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_is_whole_in_80_columns(name, monkeypatch, capsys):
    """Every word of its docstring and of its arguments' help; the first line is what the list of commands says."""
    command = _app._load(name)
    status, out, err = optparity(monkeypatch, capsys, name, "--help")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert command.help.splitlines()[0] == COMMANDS[name]
    for text in (command.help, *(parameter.help for parameter in command.params)):
        assert text
        assert squeezed(text) in squeezed(out)
    for parameter in command.params:
        assert all(option in out for option in parameter.opts if option.startswith("-"))


def test_each_command_has_a_file():
    assert {path.stem for path in Path(_app.__file__).parent.glob("[!_]*.py")} == COMMANDS.keys()


def test_version(monkeypatch, capsys):
    assert optparity(monkeypatch, capsys, "--version") == (0, f"optparity {version('optparity')}\n", "")


def test_python_m():
    run = subprocess.run([sys.executable, "-m", "optparity", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"optparity {version('optparity')}\n"


@pytest.mark.parametrize("arguments", ["--help", "--version", "completion"])
def test_help_version_and_completion_load_no_framework(arguments):
    """They answer in a tenth of a second: jax alone takes half of one."""
    hidden = hiding("jax", "numpy", "optax", "torch", "flax", "orbax", "sklearn", "matplotlib")
    if arguments == "completion":
        asked = {"_OPTPARITY_COMPLETE": "complete_bash", "COMP_WORDS": "optparity c", "COMP_CWORD": "1"}
        run = subprocess_optparity(before=f"{hidden}; sys.argv[0] = 'optparity'", **asked)
        assert run.stdout.split() == ["check", "cost", "convert"]
    else:
        run = subprocess_optparity(arguments, before=hidden)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_needs_jax_only(name):
    run = subprocess_optparity(name, "--help", before=hiding("torch", "flax", "orbax", "sklearn", "matplotlib", "safetensors"))
    assert (run.returncode, run.stderr) == (0, "")


def test_completion_knows_the_choices():
    asked = {"_OPTPARITY_COMPLETE": "complete_bash", "COMP_WORDS": "optparity cost gpt2 --optimizer ada", "COMP_CWORD": "4"}
    run = subprocess_optparity(before="import sys; sys.argv[0] = 'optparity'", **asked)
    assert (run.returncode, run.stdout.split(), run.stderr) == (0, ["adagrad", "adam", "adamw"], "")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_its_extra_the_command_says_so(missing):
    run = subprocess_optparity("doctor", before=hiding(missing))
    line = f"optparity: {missing} is not installed; the command needs: pip install 'optparity[cli,torch]'\n"
    assert (run.returncode, run.stderr) == (2, line)


@pytest.mark.parametrize(
    ("arguments", "missing", "extras"),
    [
        (["check"], "torch", "cli,torch"),
        (["check"], "sklearn", "cli,torch"),
        (["golden", "check", "--side", "torch"], "torch", "cli,torch"),
        (["drift", "drift.md"], "torch", "cli,torch"),
        (["cost", "gpt2", "--plot", "x.png"], "matplotlib", "cli,torch"),
        (["train", "mlp"], "flax", "cli,torch,train"),
        (["train", "mlp"], "torch", "cli,torch,train"),
        (["convert", "in.pt", "out"], "torch", "cli,torch,convert"),
        (["convert", "in.pt", "out"], "orbax", "cli,torch,convert"),
        (["convert", "in.pt", "out.safetensors"], "safetensors", "cli,torch,convert"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_package_that_a_command_needs_is_named(arguments, missing, extras, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr(checking, "run", fails(AssertionError("the check has begun")))
    message = f"{missing} is not installed; this command needs: pip install 'optparity[{extras}]'"
    one_line(*optparity(monkeypatch, capsys, *arguments), message)


def test_golden_and_doctor_work_without_torch(tmp_path):
    """In a process for each; `doctor` says what it has not tried."""
    few = "from optparity import doctor; doctor.DTYPES = ('float32',)"
    run = subprocess_optparity("doctor", "--elements", 1024, before=f"{hiding('torch')}\n{few}")
    assert "torch is not installed: its operations were not tried." in run.stdout
    assert run.returncode in (0, 1)
    assert run.stderr == ""
    few = "from optparity.parity import golden; golden.ROWS = golden.ROWS[:2]; golden.CONFIGURATION |= dict(steps=1, every=1)"
    file = tmp_path / "golden.json"
    run = subprocess_optparity("golden", "write", file, before=f"{hiding('torch', 'flax', 'orbax', 'sklearn')}\n{few}")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.endswith(f" trajectories written to {file}\n")


def test_train_in_jax_needs_no_torch(tmp_path):
    hidden = (  # not found, rather than None in sys.modules, which scikit-learn takes for a torch
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(name, *_):\n"
        "        if name == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden)"
    )
    run = subprocess_optparity("train", "mlp", "--framework", "jax", "--steps", 2, "--out", tmp_path / "run", before=hidden)
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


def test_the_choices_are_those_of_what_is_chosen():
    """Those that the command writes down itself, so that --help needs no flax."""
    assert [str(choice) for choice in train.Framework] == list(training.FRAMEWORKS)
    assert [str(choice) for choice in train.Gradients] == list(training.GRADIENTS)


# how it ends


def test_an_unknown_command(monkeypatch, capsys):
    one_line(*optparity(monkeypatch, capsys, "doktor"), "No such command 'doktor'. Did you mean 'doctor'?")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyError("x"), 70, "unexpected KeyError: 'x' (python -X dev -m optparity ... shows where)"),
        (MemoryError(), 70, "unexpected MemoryError: (python -X dev -m optparity ... shows where)"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
        (PermissionError(13, "Permission denied", "a.json"), 2, "a.json cannot be used: Permission denied."),
        (ModuleNotFoundError("no", name="ml"), 2, "ml is not installed; the command needs: pip install 'optparity[cli,torch]'"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(32, "Broken pipe"), 141, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_goes_wrong_is_one_line_and_never_1(error, status, line, monkeypatch, capsys):
    monkeypatch.setattr(checking, "trials", fails(error))
    found, out, err = optparity(monkeypatch, capsys, "check", "--dtype", "float32")
    assert (found, out) == (status, "")
    assert err == ("" if line is None else f"optparity: {line}\n")


def test_what_is_unexpected_shows_where_in_development_mode():
    broken = "from optparity import check; check.trials = lambda *_, **__: {}['x']"
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", f"{broken}\nfrom optparity.cli import main; main()", "check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 70
    assert "optparity: unexpected KeyError: 'x'" in run.stderr
    assert "Traceback" in run.stderr


def shell(command, **environment):
    """A line of bash, in which OPTPARITY is the command."""
    command = command.replace("OPTPARITY", f"{sys.executable} -m optparity")
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize("arguments", ["--version", "check --help", "cost gpt2"])
def test_output_that_nobody_reads(arguments):
    run = shell(f"OPTPARITY {arguments} | true; echo ${{PIPESTATUS[0]}}")
    assert (run.stdout, run.stderr) == ("141\n", "")


@pytest.mark.parametrize(
    ("command", "status", "line"),
    [
        ("OPTPARITY cost gpt2 >&-", 0, ""),
        ("OPTPARITY cost gpt2 2>&-", 0, ""),
        ("(OPTPARITY cost nothing 2>&-) >&2", 2, ""),
        ("OPTPARITY cost nothing >&- 2>&-", 2, ""),
        ("OPTPARITY cost gpt2 >/dev/full", 2, "optparity: No space left on device\n"),
        ("OPTPARITY --version >/dev/full", 2, "optparity: No space left on device\n"),
        ("OPTPARITY cost gpt2 2>/dev/full", 0, ""),
        ("OPTPARITY cost nothing 2>/dev/full", 2, ""),
        ("OPTPARITY cost gpt2 >/dev/full 2>/dev/full", 2, ""),
    ],
)
def test_streams_that_are_closed_or_full(command, status, line):
    run = shell(command)
    assert (run.returncode, run.stderr) == (status, line)


def test_an_interrupt_that_the_garbage_collector_loses_comes_again():
    class Lost:
        def __del__(self):
            raise KeyboardInterrupt

    def lose():
        Lost()
        time.sleep(10)

    with _errors.interrupts_come_again(), pytest.raises(KeyboardInterrupt):
        lose()


@pytest.mark.parametrize("name", ["check", "cost"])
def test_a_refusal_in_an_encoding_without_its_characters(name):
    run = subprocess_optparity(name, "é-∈.json", PYTHONIOENCODING="ascii:strict")
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert "'\\xe9-\\u2208.json'" in run.stderr


def test_output_that_has_no_utf_8(tmp_path):
    """And names that look like Rich's markup or its emoji are shown as they are."""
    toy = tmp_path / "é [red] :smile:.json"
    toy.write_text('{"model": "cruncher", "dim": 4, "num_layers": 2}')
    for encoding, shown in (("ascii", "\\xe9 [red] :smile:.json"), ("utf-8", "é [red] :smile:.json")):
        run = subprocess_optparity("cost", toy, PYTHONIOENCODING=encoding)
        assert (run.returncode, run.stderr) == (0, "")
        assert run.stdout.splitlines()[0] == f"{tmp_path}/{shown}: 36 parameters"


@pytest.mark.parametrize("after", [0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
def test_ctrl_c_while_packages_are_imported(after):
    """numpy would make an ImportError of it, jax lose it or crash."""
    begin = "import sys; print('begun', flush=True)"
    run = started(sys.executable, "-c", f"{begin}\nfrom optparity.cli import main; main()", "check")
    assert run.stdout.readline() == "begun\n"
    time.sleep(after)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (130, "", "optparity: interrupted\n")


def test_ctrl_c_that_is_ignored_stays_so():
    """As in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _errors.importing():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
