"""Files and folders that are whole or not there, whatever moment the process ends at; and nothing else is read, or replaced."""

import ctypes
import errno
import hashlib
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

UNFINISHED = re.compile(r"old|new.*|\.tmp.*")  # the second and third are what the libraries write before they rename it to `new`
LONGEST = 255  # bytes of a name
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # Linux's own numbers


@contextmanager
def replacing(path: Path, *, folder: bool = False, fresh: bool = False) -> Iterator[Path]:
    """A name to write a file to, or a folder: it takes the place of `path` where the block ends well. Links are followed.

    What is written, and for a moment what it replaces, is in a folder of its own beside `path`, which the next call for the same path
    takes away if the process was killed; what had been set aside is put back then.

    Args:
        folder: whether what is there may be a folder. A folder takes the place of a folder only, and a file that of a file.
        fresh: whether nothing may be there, at the end of the block either.

    Raises: OSError as `replaceable`; where another process writes to `path` at this moment; and where nothing can be written.
    """
    target = replaceable(path, folder=folder)
    with _workplace(target) as work:
        new = work / "new"
        yield new
        if replaceable(path, folder=folder) != target:
            raise OSError(errno.EINVAL, "the link has been changed meanwhile", str(path))
        if fresh:
            _place_fresh(new, target)
        elif not (new.is_dir() and target.is_dir()):
            new.replace(target)
        elif not _exchanged(new, target):  # no rename replaces a folder
            target.rename(work / "old")
            new.replace(target)


def replaceable(path: Path, *, folder: bool = False) -> Path:
    """Where `path` leads to: a name that is free, a file, or with `folder` a folder.

    Raises: OSError for a link that leads nowhere; for a device, pipe, socket or mount point; for the file that this process prints to.
    """
    for each in (path, *path.parents):
        if each.is_symlink() and not each.exists():
            raise OSError(errno.EINVAL, f"the link {each} leads nowhere", str(path))
    target = Path(os.path.realpath(path))
    try:
        found = target.stat()
    except FileNotFoundError:
        return target
    if stat.S_ISDIR(found.st_mode) and not folder:
        raise OSError(errno.EISDIR, "it is a folder", str(path))
    if os.path.ismount(target):
        raise OSError(errno.EBUSY, "a file system is mounted there", str(path))
    if not stat.S_ISDIR(found.st_mode) and not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    if any(os.path.samestat(found, printed) for printed in _printed_to()):
        raise OSError(errno.EBUSY, "it is the file that is printed to", str(path))
    return target


def readable(path: Path) -> None:
    """Raise where a read could wait or go on for ever: what is there, or in a folder there, is neither a file nor a folder.

    Raises: OSError, also where nothing is there.
    """
    inside = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    for each in (path, *inside):
        mode = each.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(each))


def is_stream(path: Path) -> bool:
    """Whether what is there takes bytes without being replaced: a pipe, a terminal, /dev/null."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def send(content: bytes, stream: Path) -> None:
    """Write to what `is_stream`, and never wait for somebody to read it.

    Raises: OSError, also for a pipe that no process reads.
    """
    try:
        descriptor = os.open(stream, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        why = "no process reads it" if error.errno == errno.ENXIO else error.strerror
        raise OSError(error.errno, why, str(stream)) from None
    os.set_blocking(descriptor, True)
    with open(descriptor, "wb") as opened:
        opened.write(content)


def recover(path: Path) -> None:
    """Take away what a killed process left of `replacing`, and put back what it had set aside.

    Raises: OSError where another process writes to `path` at this moment, or what is there has another origin.
    """
    target = Path(os.path.realpath(path))
    work = _work(target)
    if not os.path.lexists(work):
        return
    if work.is_symlink() or not work.is_dir():
        raise OSError(errno.EEXIST, f"{work} is in the way", str(path))
    with _locked(work):
        others = sorted(entry.name for entry in work.iterdir() if not UNFINISHED.fullmatch(entry.name))
        if others:
            raise OSError(errno.EEXIST, f"{work} is in the way: it holds {others[0]!r}, which is not of an unfinished file", str(path))
        _clear(work, target)


def _work(target: Path) -> Path:
    name = f".{target.name}.replacing"
    if len(os.fsencode(name)) > LONGEST:
        name = f".{hashlib.sha256(os.fsencode(name)).hexdigest()}.replacing"
    return target.parent / name


@contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, of this process alone; it is gone at the end."""
    recover(target)
    work = _work(target)
    work.mkdir()
    with _locked(work):
        try:
            yield work
        finally:
            _clear(work, target)


def _clear(work: Path, target: Path) -> None:
    if (work / "old").exists() and not os.path.lexists(target):
        (work / "old").rename(target)
    shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Within it, the folder is this process's; the lock goes with the process, however it ends.

    Raises: OSError where it is another's.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(errno.EBUSY, "another process is writing it", str(work)) from None
        except OSError:  # a file system without locks
            pass
        if not os.path.samestat(os.fstat(descriptor), work.stat()):
            raise OSError(errno.EBUSY, "another process is writing it", str(work))
        yield
    finally:
        os.close(descriptor)


def _printed_to() -> Iterator[os.stat_result]:
    for descriptor in (1, 2):
        try:
            yield os.fstat(descriptor)
        except OSError:  # it is closed
            continue


def _place_fresh(new: Path, target: Path) -> None:
    """Give `new` the name of `target`, where nothing has it."""
    if new.is_dir():
        new.rename(target)  # fails where there is a file, or a folder that holds something
        return
    try:
        os.link(new, target)  # fails where there is anything, which a rename does not
    except OSError:
        if os.path.lexists(target):
            raise
        new.rename(target)  # a file system without links


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two names have been exchanged in one step, which only some systems can."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0
