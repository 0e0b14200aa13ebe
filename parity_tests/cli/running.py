"""How tests run the command: in this process, or as users do."""

import os
import subprocess
import sys

import jax
import pytest

from optparity.cli import main


def optparity(monkeypatch, capsys, *arguments):
    """Run the command here: exit status, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["optparity", *map(str, arguments)])
    with jax.numpy_dtype_promotion("standard"), pytest.raises(SystemExit) as stopped:  # as users have it; optax promotes
        main()
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


def subprocess_optparity(*arguments, before="", **environment):
    """Run it in a process of its own, after a line of Python."""
    return subprocess.run(
        [sys.executable, "-c", f"{before}\nfrom optparity.cli import main; main()", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def hiding(*names: str) -> str:
    """The line of Python after which these packages cannot be imported."""
    return f"import sys; sys.modules.update(dict.fromkeys({names}))"


def one_line(status, out, err, message):
    """The command has refused: one line on standard error, with this in it, nothing else, and status 2."""
    assert (status, out) == (2, "")
    assert err.startswith("optparity: ")
    assert message in err
    assert err.count("\n") == 1


def started(*command, **how):
    """A process with pipes that hears Ctrl-C, which a job in a shell's background does not."""
    hears = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", hears, *command]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)
