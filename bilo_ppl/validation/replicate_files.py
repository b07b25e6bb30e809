"""The folder of a calibration: what it is of, and a small file for each replicate."""

import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from bilo_ppl._files import replacing
from bilo_ppl._snapshot import flat
from bilo_ppl.mcmc.origin import differences
from bilo_ppl.validation.replicate import Setting

__all__ = ["add_record", "claim", "origin_of_setting", "records"]

ORIGIN = "calibration.json"
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""In the name of a function: another one in every process."""


def origin_of_setting(setting: Setting) -> dict[str, Any]:
    """Numbers and names, and a checksum of the model's arguments and of the reference.

    Of functions in them only the names can be compared.
    """
    parts = setting.args, dict(setting.kwargs), dict(setting.reference)
    names = ADDRESS.sub("", str(jax.tree.structure(parts)))
    found = hashlib.sha256(names.encode())
    for leaf in jax.tree.leaves(parts):
        if isinstance(leaf, (jax.Array, np.ndarray, float, int)):
            (array,) = flat([leaf])
            found.update(str((array.dtype, array.shape)).encode() + array.tobytes())
    return {
        "kernel": type(setting.kernel).__name__,
        "model": _name(setting.kernel.model),
        "generator": _name(setting.generator),
        "data": list(setting.data),
        "warmup": setting.warmup,
        "kept": setting.kept,
        "thin": setting.thin,
        "key": list(setting.key),
        "double precision": setting.double,
        "arguments of the model, and the reference": found.hexdigest(),
    }


def claim(folder: pathlib.Path, origin: Mapping[str, Any]) -> None:
    """Make the folder one of this calibration, or see that it is.

    Raises a ``ValueError`` for one of another calibration, or with replicates of an unknown one.
    """
    path = folder / ORIGIN
    if path.exists():
        if differing := differences(_read(path), origin):
            raise ValueError(
                f"calibrate: {folder} has replicates of another calibration: {'; '.join(differing)}. "
                "Only replicates, executor, per_job and progress may differ; give another folder."
            )
        return
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"calibrate: {folder} is no folder.")
    if any(folder.glob("replicate-*.json")):
        raise ValueError(
            f"calibrate: {folder} has replicates, but no {ORIGIN} says what they are of."
        )
    _write(path, origin)


def records(folder: pathlib.Path, count: int) -> dict[int, dict[str, Any]]:
    """The replicates below ``count`` that are done, by index."""
    paths = {index: _path(folder, index) for index in range(count)}
    return {index: _read(path) for index, path in paths.items() if path.exists()}


def add_record(folder: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Write the file of a replicate, whole or not at all."""
    _write(_path(folder, record["index"]), record)


def _path(folder: pathlib.Path, index: int) -> pathlib.Path:
    return folder / f"replicate-{index:05d}.json"


def _write(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values) + "\n")


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"calibrate: {path} cannot be read ({error}); delete it.") from error


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
