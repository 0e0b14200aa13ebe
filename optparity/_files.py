"""Files and folders that are whole or not there, whatever moment the process ends at."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """A name to write a file to, or a folder: it takes the place of `path` where the block ends well. Links are followed.

    What is written, and for a moment what it replaces, is in a folder of its own beside `path`, which the next call for the same path
    takes away if the process was killed; what had been set aside is put back then.

    Args:
        folder: whether what is there may be a folder.

    Raises: OSError where what is there is neither a regular file nor, with `folder`, a folder; and where nothing can be written.
    """
    target = path.resolve()
    if target.exists() and not target.is_file() and not (folder and target.is_dir()):
        raise OSError(errno.EINVAL, "it is no regular file", str(target))
    work = target.parent / f".{target.name}.replacing"
    _recover(work, target)
    work.mkdir()
    new, old = work / "new", work / "old"
    try:
        yield new
        if target.is_dir() or (new.is_dir() and target.exists()):  # no rename replaces a folder, nor a file by one
            target.rename(old)
        new.replace(target)
    finally:
        _recover(work, target)


def recover(path: Path) -> None:
    """Take away what a killed process left of `replacing`, and put back what it had set aside."""
    target = path.resolve()
    _recover(target.parent / f".{target.name}.replacing", target)


def _recover(work: Path, target: Path) -> None:
    if (work / "old").exists() and not target.exists():
        (work / "old").rename(target)
    shutil.rmtree(work, ignore_errors=True)
