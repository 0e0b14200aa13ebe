"""The console command `optparity`: one file for each command."""

from .commands import main

__all__ = ["main"]
