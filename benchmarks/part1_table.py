"""The table of `README.md` from a file that `part1.py` has written.

    python benchmarks/part1_table.py [FILE.json ...]

Prints Markdown; by default for both stored profiles.
"""

import argparse
import json
import pathlib
from collections.abc import Iterable

import numpy as np

RESULTS = pathlib.Path(__file__).parent / "results"

COLUMNS = (
    *("problem", "points", "tolerance", "data sets", "unknown", "error, %", "of the reference, %"),
    *("between, %", "excess, nats", "u, %", "loss between", "CPU s", "steps", "inner"),
)


def mean_and_sd(values: list[float]) -> str:
    """In percent; the standard deviation in brackets where there is one."""
    text = f"{100 * np.mean(values):.3g}"
    return f"{text} ({100 * np.std(values, ddof=1):.2g})" if len(values) > 1 else text


def largest(values: Iterable[float | None], form: str, unit: float = 1.0) -> str:
    """The largest of values that are there, or nothing."""
    there = [v for v in values if v is not None]
    return format(unit * max(there), form) if there else ""


def compared(record: dict, name: str) -> list[str]:
    """The estimates' distance, the excess and the error of u."""
    runs = record["runs"]
    apart = [run["difference"][name] for run in runs]
    outside = [(run["difference_outside_shock"] or run["difference"])[name] for run in runs]
    between = largest(apart, ".2g", 100)
    if apart != outside:
        between += f" (outside the shock's reach {largest(outside, '.2g', 100)})"
    excess = largest((run["excess_nats"] for run in runs), ".2g")
    u = largest((run["u_relative_error"] for run in runs), ".2g", 100)
    sharp = largest((run.get("u_relative_error_sharp") for run in runs), ".2g", 100)
    return [between, excess, f"{u} ({sharp})" if sharp else u]


def rows(record: dict) -> list[list[str]]:
    """One row for every unknown of a case, and one against the viscous equation's numerical operator."""
    runs = record["runs"]
    found = []
    for name in runs[0]["error"]:
        case = [record["case"], str(record["collocation_points"]), f"{record['tolerance']:.0e}"]
        errors = (mean_and_sd([r[k][name] for r in runs]) for k in ("error", "reference_error"))
        cost = [
            largest((run["fine_grid_loss"] for run in runs), ".0e"),
            f"{record['cpu_seconds_first']:.0f}",
            f"{np.mean([run['steps'] for run in runs]):.0f}",
            f"{np.mean([run['inner_steps'] for run in runs]):.0f}",
        ]
        found.append([*case, str(len(runs)), name, *errors, *compared(record, name), *cost])
        same = [run["same_equation"] for run in runs if run.get("same_equation")]
        if same:
            label = f"{record['case']}: against the same viscosity"
            empty = {"difference_outside_shock": None}
            values = compared({"runs": [{**empty, **each} for each in same]}, name)
            found.append([label, "", "", str(len(same)), name, "", "", *values, "", "", "", ""])
    return found


def table(records: list[dict]) -> str:
    """All cases in Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(row for record in records for row in rows(record))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    stored = [RESULTS / "part1.json", RESULTS / "part1_paper.json"]
    parser.add_argument("files", nargs="*", type=pathlib.Path, default=stored)
    for file in parser.parse_args().files:
        print(f"{file.name}\n\n{table(json.loads(file.read_text()))}\n")
