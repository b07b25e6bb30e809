"""The table: one row for each method, means over data sets."""

from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["LEGEND", "shown", "table"]

LEGEND = (
    "Errors of theta (posterior means or estimates) are against the truth, that of u against the",
    "numerical solution at the method's own theta. mean off: from the exact mean, in exact sds;",
    "sd ratio: to the exact sd; TV: total variation distance; of several unknowns the worst.",
    "ESS: the least; evaluations: of U in sampling after warm-up, or steps of a descent.",
)

NOTE = 40
"""Characters of a note in a table on a terminal."""


def table(rows: list[dict[str, Any]]) -> Any:
    """A pandas ``DataFrame`` with a line for each method."""
    import pandas as pd

    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = [_line([row for row in rows if row["method"] == method]) for method in methods]
    return pd.DataFrame(lines, index=pd.Index(methods, name="method"))


def shown(frame: Any) -> str:
    """The table as text: long notes are cut, and columns in which nothing is said are left out."""
    cut = frame["notes"].map(lambda note: f"{note[:NOTE]} ..." if len(note) > NOTE else note)
    said = [name for name in frame if (frame[name].notna() & frame[name].ne("")).any()]
    return frame.assign(notes=cut)[said].to_string(float_format=lambda v: f"{v:.4g}", na_rep="")


def _line(rows: list[dict[str, Any]]) -> dict[str, Any]:
    done = [row for row in rows if "failed" not in row]
    named = list(dict.fromkeys(name for row in done for name in row["relative_error"]))
    line: dict[str, Any] = {
        f"error {name} %": _mean(100 * row["relative_error"][name] for row in done)
        for name in named
    }
    line |= {
        "error u %": _mean(_percent(row.get("u_error")) for row in done),
        "mean off, sd": _mean(_worst(row, "mean_off", abs) for row in done),
        "sd ratio": _mean(_worst(row, "sd_ratio", lambda v: abs(np.log(v))) for row in done),
        "TV": _mean(_worst(row, "total_variation", abs) for row in done),
        "ESS": _mean(row.get("ess") for row in done),
        "R-hat": _mean(row.get("r_hat") for row in done),
        "CPU s": _mean(sum(row["cpu_seconds"].values()) for row in done),
        "compiling, s": _mean(row["compile_seconds"] for row in done),
        "evaluations": _mean(row.get("evaluations") for row in done),
        "MB": _mean(row["peak_megabytes"] for row in done),
        "training set": done[0]["training"] if done else "",
        "notes": _notes(rows, done),
    }
    return line


def _notes(rows: list[dict[str, Any]], done: list[dict[str, Any]]) -> str:
    failed = [row for row in rows if "failed" in row]
    parts = [f"failed: {failed[0]['failed']}"] if failed else []
    if failed and len(rows) > 1:
        parts = [f"{len(failed)} of {len(rows)} {parts[0]}"]
    diverging = sum(row.get("diverging", 0) for row in done)
    if diverging:
        parts.append(f"{diverging} of {sum(row['draws'] for row in done)} diverging")
    if done and done[0]["notes"]:
        parts.append(done[0]["notes"])
    return "; ".join(parts)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _worst(row: dict[str, Any], entry: str, size: Any) -> float | None:
    """The entry of an unknown that is worst, of all unknowns."""
    values = list(row.get(entry, {}).values())
    return max(values, key=size) if values else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
