"""`python killing.py OUT SIGNAL MOMENT...`: conversions that replace OUT, each ended at a file operation.

In the working folder are `in.pt` at step 3 and `old`, a checkpoint at step 2. A moment is the name of an audit event of Python. For each
one a process is forked, which sends itself the signal there. A line says what became of it: how it ended, what OUT is then (old, new,
nothing or damaged), how the next run ended, what is there beside OUT after it, and what OUT is then.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

# Here, and not in every process.
import orbax.checkpoint  # noqa: F401
import safetensors.numpy  # noqa: F401
import torch  # noqa: F401

from optparity.checkpoints import convert
from optparity.checkpoints.checkpoint import Given


def _write(out: Path) -> None:
    convert.write(convert.read(Path("in.pt"), Given("Adam")), out, force=True)


def _killed(out: Path, number: int, moment: str) -> None:
    """Write, and end where the first operation of this kind is about to happen."""
    over = False

    def hook(event: str, arguments: tuple) -> None:
        nonlocal over
        if event == moment and not over and (".replacing" in str(arguments) or "renameat2" in str(arguments)):
            over = True
            os.kill(os.getpid(), number)

    sys.addaudithook(hook)
    _write(out)


def _in_a_process(what, *arguments) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        what(*arguments)
        status = 0
    except KeyboardInterrupt:
        status = 130
    finally:
        os._exit(status)


def _state(out: Path) -> str:
    """What OUT is: read, so that it is whole."""
    if not out.exists():
        return "nothing"

    def look() -> None:
        os._exit(10 + convert.read(out, Given()).records[0].step)

    return {12: "old", 13: "new"}.get(_in_a_process(look), "damaged")


def main(out: Path, number: int, moments: list[str]) -> None:
    for moment in moments:
        if out.exists():
            shutil.rmtree(out) if out.is_dir() else out.unlink()
        (shutil.copytree if Path("old").is_dir() else shutil.copy)("old", out)
        ended = _in_a_process(_killed, out, number, moment)
        state = _state(out)
        again = _in_a_process(_write, out)
        left = ",".join(sorted(path.name for path in Path().iterdir() if path.name not in ("in.pt", "old", out.name)))
        print(moment, ended, state, again, left or "-", _state(out), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), signal.Signals[sys.argv[2]], sys.argv[3:])
