"""A file of records that only grows: what was written to it survives whatever ends the process.

A record is a key, notes (JSON values) and arrays; of several with one key the last counts. Each has its
length and a checksum, so that one which was cut off is known and left out. Nothing in it is executed.
"""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bilo_ppl._files import replacing

__all__ = ["Log", "Record", "has_log"]

MAGIC = b"bilo_ppl checkpoint 1\n"

_HEAD = struct.Struct("<4sQ16s")
"""Mark, length of what follows, checksum of it."""

_MARK = b"\nREC"

_SIZE = struct.Struct("<I")

SPARE = 32 << 20
"""Bytes of outdated records, beyond as many as there are of others, at which the file is written anew."""


class Record(NamedTuple):
    """What is kept under a key."""

    key: str
    notes: Mapping[str, Any]
    arrays: Sequence[np.ndarray]


class Log:
    """The records of a file; `close` it in the end.

    With ``anew`` an earlier file is replaced. Raises a ``ValueError`` for a file of another kind, an
    ``OSError`` where it cannot be read or written. Threads may use it side by side.
    """

    def __init__(self, path: str | os.PathLike, *, anew: bool = False):
        self.path = pathlib.Path(path)
        self._lock = threading.RLock()
        self._index: dict[str, tuple[int, int]] = {}
        """Where the last record of a key begins, and its length in all."""
        if anew or not has_log(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as temporary:
                temporary.write_bytes(MAGIC)
            sync_folder(self.path.parent)
        self._open()
        self._end = self._scan()

    def _open(self) -> None:
        # Without a buffer: what a full disk has not taken would be written once more from there.
        self._file = self.path.open("r+b", buffering=0)

    def _scan(self) -> int:
        """Fill the index; the end of the last record that is whole."""
        file, end = self._file, len(MAGIC)
        if _read(file, 0, end) != MAGIC:
            file.close()
            raise ValueError(f"{self.path} is no checkpoint of this version.")
        size = os.fstat(file.fileno()).st_size
        while (found := _read_at(file, end, size)) is not None:
            record, length = found
            if record is not None:
                self._index[record.key] = end, length
            end += length
        return end

    def __contains__(self, key: str) -> bool:
        return key in self._index

    def in_order(self) -> list[str]:
        """All keys, in the order of their records."""
        return sorted(self._index, key=lambda key: self._index[key][0])

    def get(self, key: str) -> Record | None:
        """The last record of a key."""
        with self._lock:
            if key not in self._index:
                return None
            begin, length = self._index[key]
            found = _read_at(self._file, begin, begin + length)
        return None if found is None else found[0]

    def put(self, *records: Record) -> int:
        """Append records and wait until the disk has them; the number of bytes.

        After an ``OSError``, as of a full disk, the file is as it was.
        """
        parts = [_packed(record) for record in records]
        with self._lock:
            self._stay_in_place()
            begin = self._end
            try:
                _write(self._file, begin, b"".join(parts))
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(begin)
                raise
            for record, part in zip(records, parts, strict=True):
                self._index[record.key] = self._end, len(part)
                self._end += len(part)
            live = sum(length for _, length in self._index.values())
            if self._end > 2 * live + SPARE:
                # A disk that has no room for both leaves the file as it is.
                with contextlib.suppress(OSError):
                    self._copy(sorted(self._index.values()))
        return sum(map(len, parts))

    def _stay_in_place(self) -> None:
        """Follow a folder that was moved into place; write the file again if it was removed."""
        own = os.fstat(self._file.fileno())
        with contextlib.suppress(OSError):
            there = self.path.stat()
            if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino):
                return
        self._copy(sorted(self._index.values()))

    def _copy(self, pieces: Sequence[tuple[int, int]]) -> None:
        """Write the file anew, of some of its pieces."""
        moved, end = {}, len(MAGIC)
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            file.write(MAGIC)
            for begin, length in pieces:
                file.write(_read(self._file, begin, length))
                moved[begin] = end
                end += length
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.path.parent)
        self._file.close()
        self._open()
        self._end = end
        self._index = {key: (moved[b], length) for key, (b, length) in self._index.items()}

    def moved_to(self, path: pathlib.Path) -> None:
        """The file has another name now."""
        with self._lock:
            self.path = path

    def close(self) -> None:
        """Nothing more is written."""
        with self._lock:
            self._file.close()


def has_log(path: pathlib.Path) -> bool:
    """Whether there is a file of records, of this version."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def sync_folder(folder: pathlib.Path) -> None:
    """Wait until the disk has the names in a folder, where that can be asked for."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _write(file: FileIO, begin: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[_put(file, begin + len(data) - len(rest), rest) :]
    # What lies behind is the rest of a record that was cut off.
    file.truncate(begin + len(data))
    os.fsync(file.fileno())


def _put(file: FileIO, where: int, data: memoryview) -> int:
    """Write some of the data; how much."""
    file.seek(where)
    return file.write(data) or 0


def _read(file: FileIO, begin: int, length: int) -> bytes:
    """As many bytes, or those up to the end of the file."""
    file.seek(begin)
    parts, rest = [], length
    while rest and (part := file.read(rest)):
        parts.append(part)
        rest -= len(part)
    return b"".join(parts)


def _packed(record: Record) -> bytes:
    arrays = [np.asarray(array) for array in record.arrays]
    if any(array.dtype.hasobject for array in arrays):
        raise TypeError(f"{record.key}: an array of objects cannot be kept")
    described = [[array.dtype.name, list(array.shape)] for array in arrays]
    content = {"key": record.key, "notes": record.notes, "arrays": described}
    head = json.dumps(content, default=lambda number: number.item()).encode()
    body = b"".join([_SIZE.pack(len(head)), head, *(array.tobytes() for array in arrays)])
    return _HEAD.pack(_MARK, len(body), _checksum(body)) + body


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()


def _read_at(file: FileIO, begin: int, size: int) -> tuple[Record | None, int] | None:
    """The record at a place and its length; None for a damaged one; nothing where none is whole."""
    head = _read(file, begin, _HEAD.size)
    if len(head) < _HEAD.size:
        return None
    mark, length, checksum = _HEAD.unpack(head)
    if mark != _MARK or begin + _HEAD.size + length > size:
        return None
    body = _read(file, begin + _HEAD.size, length)
    record = _unpacked(body) if _checksum(body) == checksum else None
    return record, _HEAD.size + length


def _unpacked(body: bytes) -> Record:
    (size,) = _SIZE.unpack_from(body)
    begin = _SIZE.size + size
    head = json.loads(body[_SIZE.size : begin])
    return Record(head["key"], head["notes"], list(_arrays(body, begin, head["arrays"])))


def _arrays(body: bytes, begin: int, described: Sequence[Any]) -> Iterator[np.ndarray]:
    for name, shape in described:
        # JAX knows more types than NumPy does by name.
        kind = np.dtype(jnp.dtype(name))
        count = math.prod(shape)
        yield np.frombuffer(body, kind, count, begin).reshape(shape).copy()
        begin += count * kind.itemsize
