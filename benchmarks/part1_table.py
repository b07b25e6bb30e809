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


def rows(record: dict) -> list[list[str]]:
    """One row for every unknown of a case."""
    runs = record["runs"]
    found = []
    for name in runs[0]["error"]:
        apart, outside = (
            [run[key][name] for run in runs] for key in ("difference", "difference_outside_shock")
        )
        between = largest(apart, ".2g", 100)
        if apart != outside:
            between += f" (outside the shock's reach {largest(outside, '.2g', 100)})"
        found.append(
            [
                record["case"],
                str(record["collocation_points"]),
                f"{record['tolerance']:.0e}",
                str(len(runs)),
                name,
                mean_and_sd([run["error"][name] for run in runs]),
                mean_and_sd([run["reference_error"][name] for run in runs]),
                between,
                largest((run["excess_nats"] for run in runs), ".2g"),
                largest((run["u_relative_error"] for run in runs), ".2g", 100),
                largest((run["fine_grid_loss"] for run in runs), ".0e"),
                f"{record['cpu_seconds_first']:.0f}",
                f"{np.mean([run['steps'] for run in runs]):.0f}",
                f"{np.mean([run['inner_steps'] for run in runs]):.0f}",
            ]
        )
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
