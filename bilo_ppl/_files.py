"""Files that are written whole or not at all."""

import os
import pathlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["is_file", "replacing"]


def is_file(path: str | os.PathLike) -> bool:
    """Whether there is such a file; a name that no file can have is that of none."""
    try:
        return pathlib.Path(path).is_file()
    except (OSError, ValueError):
        return False


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A new name beside ``path``; the file written there replaces ``path`` if all goes well.

    Missing folders are made. After an exception the old file is as it was.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers choose the format by it.
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:12]}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
