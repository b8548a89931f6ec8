"""Files that are written whole or not at all, and locks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two processes from one file there
    fcntl = None  # type: ignore[assignment]  # a module elsewhere

_POINTER = b"version https://git-lfs.github.com/spec/"
_holders: dict[tuple[int, int], int] = {}  # (device, inode) of what this process holds -> the thread that does


def make_folder(folder: Path) -> None:
    """Make a folder that somebody named: below the working directory with all above it, elsewhere it alone.

    ValueError where more is missing, or it would be new at the root of the disk: a slip, more often than a wish.
    """
    whole = folder.absolute()
    slip = not whole.parent.exists() or (whole.parent == Path(whole.anchor) and not whole.exists())
    if slip and not whole.is_relative_to(Path.cwd()):
        raise ValueError(f"{folder} is not there, and would be made outside of the working directory: make it first.")
    folder.mkdir(parents=True, exist_ok=True)


def refuse_pointer(file: Path) -> None:
    """Raise ValueError for a file that Git LFS has left a pointer in place of."""
    with open(file, "rb") as opened:
        if opened.read(len(_POINTER)) == _POINTER:
            raise ValueError(f"{file} is a pointer of Git LFS, not the file itself: run `git lfs pull` where it lies.")


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A temporary name beside the file, renamed to it at the end; gone when something fails on the way."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def keep(file: Path, content: bytes) -> None:
    """Write a file that spares work the next time; where it cannot be kept, nothing is lost but the time."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            temporary.write_bytes(content)


@contextmanager
def locked(path: Path, waiting: str | None = None) -> Iterator[None]:
    """Hold a lock on a folder, or on a file that is made for it, which ends with the process however that ends.

    Another holder is waited for; `waiting` is then printed. Raises RuntimeError where it would wait for itself.
    """
    if not path.is_dir():
        path.touch()
    handle = os.open(path, os.O_RDONLY)
    stat, me = os.fstat(handle), threading.get_ident()
    itself = stat.st_dev, stat.st_ino
    try:
        if fcntl is not None and not _lock(handle):
            if _holders.get(itself) == me:
                raise RuntimeError(
                    f"{path} is held by this very process, which would wait for itself: go through the rows of that "
                    "run, or close() them, first"
                )
            if waiting:
                print(waiting)
            fcntl.flock(handle, fcntl.LOCK_EX)
        _holders[itself] = me
        try:
            yield
        finally:
            del _holders[itself]
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock."""
    if fcntl is None or not path.exists():
        return False
    handle = os.open(path, os.O_RDONLY)
    try:
        return not _lock(handle)
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
