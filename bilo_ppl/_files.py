"""Files that are written whole or not at all, and files of arrays: a line of JSON, then the leaves."""

import json
import os
import pathlib
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import equinox as eqx

__all__ = ["read_header", "read_leaves", "replacing", "write_leaves"]


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


def write_leaves(path: str | os.PathLike, header: Mapping[str, Any], tree: Any) -> None:
    """Write a header with an entry "format", and the arrays of a pytree."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write((json.dumps(header) + "\n").encode())
        eqx.tree_serialise_leaves(file, tree)


def read_header(file: BinaryIO, expected: str) -> dict[str, Any]:
    """The header of a file by `write_leaves`; a ``ValueError`` unless its format is ``expected``.

    Formats are named "bilo_ppl <kind> <version>".
    """
    try:
        header = json.loads(file.readline())
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != expected:
        kind = expected.split()[1]
        raise ValueError(
            f"{file.name} is not an {kind} file of this version (expected {expected!r})."
        )
    return header


def read_leaves(file: BinaryIO, like: Any) -> Any:
    """The arrays after the header, as a pytree like ``like``."""
    try:
        return eqx.tree_deserialise_leaves(file, like)
    except Exception as error:  # Equinox raises several kinds, with internal messages.
        raise ValueError(
            f"{file.name}: the arrays do not fit the header ({error}); the file is damaged."
        ) from error
