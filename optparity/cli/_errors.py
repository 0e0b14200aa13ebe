"""How the command ends: whatever goes wrong is one line on standard error and an exit status. Standard library only."""

import _thread
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

INTERRUPTED = 130
OUTPUT_CLOSED = 141
UNFORESEEN = 70


class BadInputError(Exception):
    """What was asked for cannot be done; the message says why."""


def prepare_streams() -> None:
    """Let nothing that is printed fail: where a stream is closed, or its encoding lacks a character."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def importing() -> Iterator[None]:
    """Within it, Ctrl-C ends the process there and then.

    As an exception it would come in the middle of an extension module's import: numpy makes an ImportError of it, jax crashes, and
    what is called by the garbage collector loses it.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # it is another one where interrupts are ignored, as in `nohup`
        signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def interrupts_come_again() -> Iterator[None]:
    """Within it, a Ctrl-C that comes while the garbage collector calls something is not lost: it comes again a moment later."""
    before = sys.unraisablehook

    def again(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            timer = threading.Timer(0.01, _thread.interrupt_main)
            timer.daemon = True
            timer.start()
        else:
            before(lost)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _stop(*_: object) -> NoReturn:
    os.write(2, b"optparity: interrupted\n")
    os._exit(INTERRUPTED)


def report(ended: BaseException | int) -> int:
    """Say in one line how it ended, if not well; the exit status."""
    status, line = _explain(ended)
    if line:
        _say(f"optparity: {' '.join(line.split())}")
    if isinstance(ended, Exception) and status == UNFORESEEN and sys.flags.dev_mode:
        traceback.print_exception(ended)
    return status


def _say(line: str) -> None:
    """On standard error; where that takes nothing, as on a full disk, nobody hears of it, and the status is all there is."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (Python would try again at the end, and leave with a status of its own)


def _explain(ended) -> tuple[int, str]:
    if isinstance(ended, KeyboardInterrupt) or ended == INTERRUPTED:  # typer makes 130 of it
        return INTERRUPTED, "interrupted"
    if isinstance(ended, int):
        return ended, ""
    if isinstance(ended, SystemExit):  # typer and rich leave with 1 where standard output is closed
        return OUTPUT_CLOSED if ended.code == 1 else int(ended.code or 0), ""
    if isinstance(ended, BadInputError):
        return 2, str(ended)
    if hasattr(ended, "format_message"):  # typer's own, for a wrong argument
        return 2, ended.format_message().replace("Value error, ", "")  # pydantic's, before a choice that is none
    if isinstance(ended, ModuleNotFoundError):
        return 2, f"{str(ended.name).partition('.')[0]} is not installed; the command needs: pip install 'optparity[cli,torch]'"
    if isinstance(ended, OSError):
        return 2, f"{ended.filename} cannot be used: {ended.strerror}." if ended.filename else ended.strerror or str(ended)
    return UNFORESEEN, f"unexpected {type(ended).__name__}: {ended} (python -X dev -m optparity ... shows where)"
