"""Files of arrays: a line of JSON, then the leaves of a pytree as arrays of NumPy's format, nothing else.

They come from anywhere. So nothing of a file is believed before it has been compared with what it is read
for: the length of the line, the number of bytes and their SHA-256, and shape and type of every array, of
which none may be a Python object. No code of a file is ever run.
"""

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._blame import told
from bilo_ppl._files import replacing

__all__ = ["read_header", "read_leaves", "write_leaves"]

LONGEST_HEADER = 1 << 26
"""Bytes: collocation points stand in it."""

MOST_BYTES = 1 << 32
"""Of all arrays."""

NPY_HEADER = 10_000
"""Bytes of the header of an array at most, as in NumPy."""


def write_leaves(path: str | os.PathLike, header: Mapping[str, Any], tree: Any) -> None:
    """Write a header with an entry "format", and the arrays of a pytree.

    Number and SHA-256 of the bytes of the arrays are added to the header.
    """
    arrays = io.BytesIO()
    eqx.tree_serialise_leaves(arrays, tree)
    content = arrays.getvalue()
    sums = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write((json.dumps({**header, **sums}) + "\n").encode())
        file.write(content)


def read_header(file: BinaryIO, expected: str, earlier: Sequence[str] = ()) -> dict[str, Any]:
    """The header of a file by `write_leaves`; a ``ValueError`` unless its format is one of these.

    Formats are named "bilo_ppl <kind> <version>"; ``earlier`` ones are read too.
    """
    line = file.readline(LONGEST_HEADER)
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    kind = expected.split()[1]
    found = header.get("format") if isinstance(header, dict) else None
    if found in (expected, *earlier):
        assert isinstance(header, dict)
        return header
    if isinstance(found, str) and found.startswith(f"bilo_ppl {kind} "):
        raise ValueError(
            f"{file.name} is an {kind} file of the format {found[:40]!r}, and this version reads "
            f"{expected!r}{_also(earlier)}: use the version of bilo_ppl that wrote it, or make it anew."
        )
    raise ValueError(
        f"{file.name} is not an {kind} file of this version (expected {expected!r}); give one that "
        f"bilo_ppl has written."
    )


def _also(earlier: Sequence[str]) -> str:
    return f" (and {', '.join(earlier)})" if earlier else ""


def read_leaves(file: BinaryIO, like: Any, header: Mapping[str, Any]) -> Any:
    """The arrays after the header, as a pytree like ``like``, whose arrays may be shapes only.

    Raises a ``ValueError`` for a file with other arrays, more or fewer bytes, another checksum, or
    anything but numbers.
    """
    size = os.fstat(file.fileno()).st_size - file.tell()
    wanted = sum(_least_size(leaf) for leaf in jax.tree.leaves(like))
    if size < wanted or size > MOST_BYTES:
        raise _damaged(file, f"{size} bytes of arrays, where the header asks for {wanted} at least")
    content = file.read(size)
    if "sha256" in header:
        if header.get("bytes") != len(content):
            raise _damaged(
                file, f"{len(content)} bytes of arrays, and {header.get('bytes')} were written"
            )
        if header["sha256"] != hashlib.sha256(content).hexdigest():
            raise _damaged(file, "its checksum is another than when it was written")
    arrays = io.BytesIO(content)
    leaves, structure = jax.tree.flatten(like)
    try:
        found = [_read(arrays, leaf) for leaf in leaves]
    except Exception as error:  # NumPy's reader of headers lets its own parser's errors through.
        raise _damaged(file, f"the arrays do not fit the header: {told(error)}") from error
    if arrays.read(1):
        raise _damaged(file, "there is more in it than its arrays")
    return jax.tree.unflatten(structure, found)


def _damaged(file: BinaryIO, why: str) -> ValueError:
    return ValueError(
        f"{file.name}: {why}; the file is damaged. Take another copy, or make it anew."
    )


def _is_stored(leaf: Any) -> bool:
    """Whether Equinox writes it."""
    return isinstance(leaf, jax.ShapeDtypeStruct) or eqx.is_array_like(leaf)


def _least_size(leaf: Any) -> int:
    if not _is_stored(leaf):
        return 0
    known = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return int(np.prod(known.shape, dtype=object)) * known.dtype.itemsize


def _read(file: io.BytesIO, like: Any) -> Any:
    """The next array, if it has the shape and the type of ``like``: these are looked at first."""
    if not _is_stored(like):
        return like
    known = like if hasattr(like, "dtype") else np.asarray(like)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"an array is of the version {version} of NumPy's format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=NPY_HEADER)
    if shape != tuple(known.shape) or dtype != known.dtype or dtype.hasobject:
        raise ValueError(
            f"an array has shape {shape} and type {dtype}, in the place of {tuple(known.shape)} and "
            f"{known.dtype}"
        )
    size = int(np.prod(shape)) * dtype.itemsize
    content = file.read(size)
    if len(content) < size:
        raise ValueError("the last array is not complete")
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C").copy()
    if isinstance(like, (jax.Array, jax.ShapeDtypeStruct)):
        return jnp.asarray(array)
    return array if isinstance(like, np.ndarray) else type(like)(array.item())
