"""The console command `optparity`: one file for each command.

Exit status: 0 if all is well, 1 if a check found a difference, 2 for bad input, 70 for an error that nobody foresaw, 130 after Ctrl-C, and
141 if nobody reads the output any more.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point: whatever goes wrong, an import included, is said in one line."""
    from ._errors import importing, interrupts_come_again, prepare_streams, report

    try:
        prepare_streams()
        with importing():
            from ._app import app

        with interrupts_come_again():
            status = report(app(standalone_mode=False) or 0)
    except BaseException as error:
        status = report(error)
    sys.exit(status)
