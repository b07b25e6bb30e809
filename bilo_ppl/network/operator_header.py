"""The header of a file of an operator, looked at before anything is made of what it says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["check_header"]

SIZES = {"width": 1, "depth": 1, "fourier": 0}
"""The least of each."""


def check_header(header: Mapping[str, Any], size: int, path: str | Path) -> None:
    """Raise a ``ValueError`` unless the entries are what they must be, for a file of ``size`` bytes."""
    network = header.get("network")
    if not isinstance(network, Mapping) or not isinstance(network.get("class"), str):
        raise _wrong(path, "network", network)
    wanted = dict(header) | (
        dict(network) if network["class"] == "MLP" else {"depth": 1, "fourier": 0}
    )
    for name, least in SIZES.items():
        value = wanted.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise _wrong(path, name, value)
    if not isinstance(wanted.get("residual", False), bool):
        raise _wrong(path, "residual", wanted["residual"])
    if header.get("dtype") not in ("float32", "float64"):
        raise _wrong(path, "dtype", header.get("dtype"))
    numbers = 0
    for name in ("embedded", "home"):
        entries = header.get(name)
        if not isinstance(entries, Mapping) or not all(map(_is_shape, entries.values())):
            raise _wrong(path, name, entries)
        if unknown := [n for n in entries if n not in header["parameters"]]:
            raise _wrong(path, name, unknown)
        numbers += sum(int(np.prod(shape, dtype=object)) for shape in entries.values())
    width, depth = wanted["width"], wanted["depth"]
    numbers += width * (1 + (depth - 1) * width) + wanted["fourier"]
    if numbers * np.dtype(header["dtype"]).itemsize > size:
        raise ValueError(
            f"{path}: a network of width {width} and depth {depth} would have more numbers than the file "
            "has room for; the file is damaged."
        )


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value
    )


def _wrong(path: str | Path, name: str, value: Any) -> ValueError:
    return ValueError(
        f"{path}: the entry {name!r} of its header is {value!r:.60}, which it cannot be; the file is "
        "damaged, or no operator of bilo_ppl."
    )
