"""What a comparison says of its methods beside the table: what each was done with, and its times."""

from typing import Any

import numpy as np

from bilo_ppl.run.compare.methods import METHODS

__all__ = ["settings_of", "times_of"]

Rows = list[dict[str, Any]]


def settings_of(rows: Rows) -> dict[str, dict[str, Any]]:
    """By method what it is, and the settings with which it has come to an end, of its first data."""
    told: dict[str, dict[str, Any]] = {}
    for name, ended in _by_method(rows).items():
        first = ended[0] if ended else {}
        shape = dict(zip(("chains", "draws"), first.get("shape", ()), strict=False))
        told[name] = {"what": METHODS[name].help, "settings": shape | first.get("settings", {})}
    return told


def times_of(rows: Rows) -> dict[str, dict[str, Any]]:
    """By method CPU seconds of every stage, and wall seconds of compilation and in all: means."""
    times = {}
    for name, ended in _by_method(rows).items():
        if not ended:
            continue
        stages = dict.fromkeys(stage for row in ended for stage in row["cpu_seconds"])
        times[name] = {
            "cpu_seconds": {
                stage: _mean([row["cpu_seconds"].get(stage, 0.0) for row in ended])
                for stage in stages
            },
            "compile_seconds": _mean([row["compile_seconds"] for row in ended]),
            "wall_seconds": _mean([row["wall_seconds"] for row in ended]),
        }
    return times


def _by_method(rows: Rows) -> dict[str, Rows]:
    """Rows that have come to an end; of a method that has none, none."""
    found: dict[str, Rows] = {row["method"]: [] for row in rows}
    for row in rows:
        if "failed" not in row:
            found[row["method"]].append(row)
    return found


def _mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 3)
