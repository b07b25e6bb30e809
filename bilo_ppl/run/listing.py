"""Which files of a folder are results of this program: run.json lists them."""

import contextlib
import fnmatch
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable

__all__ = ["CHECKPOINT", "RESULTS", "listed", "present", "remove"]

RESULTS = ("posterior.nc", "map.json", "compare.json")
"""Files that hold draws or estimates: a folder with one of them has results."""

CHECKPOINT = "checkpoint.bin"
"""What a run has done so far: see `bilo_ppl.run.checkpoint`."""

_KNOWN = (
    "run.json", CHECKPOINT, "operator.eqx", "operator-adapted.eqx", "posterior.nc", "summary.csv",
    "map.json", "map.csv", "report.html", "estimate-*.eqx", "figures/*.png",
    "compare.json", "compare.csv", "draws.npz",
)  # fmt: skip
"""Patterns of everything that any command writes."""

_TEMPORARY = re.compile(r"\.(?P<stem>.+)-[0-9a-f]{12}(?P<suffix>\.\w+)")
"""Names under which `bilo_ppl._files.replacing` writes; a process that is killed leaves them behind."""


def listed(folder: pathlib.Path) -> frozenset[str] | None:
    """Names of the files that a run has written there, or None if none has left a run.json.

    Names that no command writes are left out, wherever run.json has them from. A run.json of a
    version without a list stands for everything there that has a known name.
    """
    try:
        content = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError, RecursionError):
        return None
    versions = content.get("versions") if isinstance(content, dict) else None
    if not isinstance(versions, dict) or "bilo-ppl" not in versions:
        return None
    files = content.get("files")
    if not isinstance(files, list):
        return frozenset(present(folder, _KNOWN))
    return frozenset(name for name in files if _matches(name, _KNOWN)) | {"run.json"}


def present(folder: pathlib.Path, patterns: Iterable[str]) -> list[str]:
    """Names in a folder that fit patterns such as ``figures/*.png``; links and folders count too."""
    patterns = tuple(patterns)
    names = [name for pattern in patterns for name in _beside(folder, pattern)]
    found = {name for name in names if _matches(name, patterns) and not _temporary(name)}
    return sorted(found)


def remove(
    folder: pathlib.Path, names: Iterable[str], keep: Callable[[pathlib.Path], bool]
) -> None:
    """Delete files of this program, those it was killed over, and folders that are empty then."""
    unfinished = [n for pattern in _KNOWN for n in _beside(folder, pattern) if _temporary(n)]
    for name in {*names, *unfinished}:
        path = folder / name
        if os.path.lexists(path) and not path.is_dir() and not keep(path):
            path.unlink()
            if path.parent != folder:
                # It may hold other files, or be a link.
                with contextlib.suppress(OSError):
                    path.parent.rmdir()


def _beside(folder: pathlib.Path, pattern: str) -> list[str]:
    """Names of all that lies in the subfolder of a pattern."""
    above, slash, _ = pattern.rpartition("/")
    try:
        return [f"{above}{slash}{name}" for name in os.listdir(folder / above)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _temporary(name: str) -> bool:
    above, slash, last = name.rpartition("/")
    found = _TEMPORARY.fullmatch(last)
    return bool(found) and _matches(f"{above}{slash}{found['stem']}{found['suffix']}", _KNOWN)


def _matches(name: object, patterns: Iterable[str]) -> bool:
    """Whether a name fits part by part: ``*`` does not reach into other folders."""
    parts = name.split("/") if isinstance(name, str) else []
    wanted = [pattern.split("/") for pattern in patterns]
    return any(
        len(parts) == len(pattern) and all(map(fnmatch.fnmatchcase, parts, pattern))
        for pattern in wanted
    )
