"""A lock on a folder, held by one process at a time; it ends with the process, however that ends."""

import contextlib
import pathlib
from collections.abc import Iterator

from filelock import FileLock, Timeout

__all__ = ["held", "is_held"]

NAME = ".bilo-ppl.lock"


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
    """Hold the lock of a folder that exists; its file is removed in the end.

    Raises a `filelock.Timeout` if another holds it, an ``OSError`` where no lock can be made.
    """
    path = folder / NAME
    lock = _current(path)
    try:
        yield
    finally:
        # While it is held: afterwards it may be another's. Windows removes it on release.
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()


def is_held(folder: pathlib.Path) -> bool:
    """Whether some process holds the lock of a folder now; nothing is written."""
    path = folder / NAME
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _current(path: pathlib.Path) -> FileLock:
    """A lock on the file that has this name: one opened before its holder removed it locks nothing."""
    lock = FileLock(path)
    lock.acquire(timeout=0)
    while True:
        again = FileLock(path)
        try:
            again.acquire(timeout=0)
        except Timeout:
            return lock
        lock.release()
        lock = again
