"""A netCDF (HDF5) file of results, looked at before it is read: it may come from anywhere.

HDF5 runs no code, but a file may point to others, whose content would then be read as its own, and may
promise more numbers than memory holds.
"""

import os

__all__ = ["check_results_file"]

MOST_BYTES = 1 << 34
"""Of all arrays, as they would lie in memory: twice as much as a run may write."""


def check_results_file(path: str | os.PathLike, *, whole: bool = True) -> None:
    """Raise a ``ValueError`` for a file that points to others, or is too large to be read ``whole``.

    An ``OSError`` if it is no HDF5.
    """
    import h5py

    with h5py.File(path, "r") as file:
        if (size := _checked(file, os.fspath(path))) > MOST_BYTES and whole:
            raise ValueError(
                f"load: {path} would take {size / 2**30:.0f} GiB of memory, more than any results of a "
                "run; it is damaged, or made to fill the memory."
            )


def _checked(group, path: str) -> int:
    """Bytes of the arrays of a group, all of which must lie in the file itself."""
    import h5py

    size = 0
    for name in group:
        link = group.get(name, getlink=True)
        item = group[name] if isinstance(link, h5py.HardLink) else None
        outside = item is None or (
            isinstance(item, h5py.Dataset) and (item.external is not None or item.is_virtual)
        )
        if outside:
            raise ValueError(
                f"load: {path}: {name!r} lies in another file or place, to which it is a link; results "
                "of a run have none. Do not use the file."
            )
        if isinstance(item, h5py.Group):
            size += _checked(item, path)
        elif isinstance(item, h5py.Dataset):
            size += item.nbytes
    return size
