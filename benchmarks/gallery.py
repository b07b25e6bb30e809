"""The default command line on problems it was not made for, against posteriors computed without it.

    python benchmarks/gallery.py [--problems NAME ...] [--seeds 6] [--jobs 1] [--out FILE.json] [--again]

Each problem of the folder gallery/ and each seed of data is one run of ``bilo-ppl run`` without options,
in a process of its own. Every scalar unknown is compared with gallery/_references.py: right if the mean
is within 4 Monte Carlo standard errors plus 0.1 posterior sd, and the sd within 15 % plus twice its own
Monte Carlo error. Prints a table, problem by seed, and writes a record for each run as it ends; what the
file has already is not run again without --again.

Verdicts: "right"; "wrong and GOOD", where every certificate says good and nothing warned; "wrong but
alarmed"; "stopped", with a message; "timeout". A run that is right and was alarmed all the same is marked
with an exclamation mark.
"""

import argparse
import csv
import json
import math
import pathlib
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = HERE / "gallery"
sys.path.append(str(FOLDER))

from _references import reference_moments  # noqa: E402
from commands import (  # noqa: E402
    PROCESSES,
    ROOT,
    alarms,
    run_command,
    write_records,
)

VERDICTS = ("right", "wrong but alarmed", "wrong and GOOD", "stopped", "timeout")


def main() -> None:
    arguments = _arguments()
    out = pathlib.Path(arguments.out)
    records = json.loads(out.read_text()) if out.exists() else []
    known = {(record["problem"], record["seed"]): record for record in records}
    wanted = [(name, seed) for seed in range(arguments.seeds) for name in arguments.problems]
    todo = [case for case in wanted if arguments.again or case not in known]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        running = [pool.submit(run, *case, arguments.time_limit) for case in todo]
        try:
            for done in as_completed(running):
                record = compared(done.result())
                known[record["problem"], record["seed"]] = record
                write_records(out, [known[case] for case in sorted(known)])
                print(f"{record['problem']} {record['seed']}: {_line(record)}", flush=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(PROCESSES):
                process.kill()
    print("\n" + table([known[case] for case in wanted]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
    parser.add_argument("--problems", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=6, help="number of seeds, from 0 on")
    parser.add_argument("--out", default=str(HERE / "results" / "gallery.json"))
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--time-limit", type=float, default=1200.0, help="wall seconds of one run")
    parser.add_argument("--again", action="store_true", help="also what the file has already")
    return parser.parse_args()


def run(name: str, seed: int, time_limit: float, models: pathlib.Path = FOLDER) -> dict[str, Any]:
    """One run of the command line: what it wrote, and how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        results = pathlib.Path(folder) / "run"
        file = models / f"{name}.py"
        file = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
        arguments = ["run", str(file), "--seed", str(seed), "--data-seed", str(seed)]
        ran = run_command(arguments, results, time_limit)
        known = ran.written.get("versions", {})
        certificates = ran.written.get("certificates", {})
        return {
            "problem": name,
            "seed": seed,
            "status": ran.status,
            "stage": ran.written.get("status", "not started"),
            "versions": {name: known.get(name) for name in ("python", "jax")},
            "cpu_seconds": round(ran.cpu_seconds(), 1),
            "wall_seconds": round(ran.wall_seconds, 1),
            "message": ran.message if ran.status else "",
            "alarms": alarms(ran.written),
            "stderr": ran.errors.splitlines()[-20:],
            "certificates": {key: value["good"] for key, value in certificates.items()},
            "summary": _read_summary(results),
        }


def compared(
    record: dict[str, Any], reference: Mapping[str, tuple[float, float]] | None = None
) -> dict[str, Any]:
    """The record of a run with the comparison and the verdict in the place of its table.

    ``reference`` are mean and sd by unknown, by default those of gallery/_references.py.
    """
    summary = record.pop("summary")
    if record["status"] != 0:
        return record | {"verdict": "timeout" if record["status"] is None else "stopped"}
    if reference is None:
        reference = reference_moments(record["problem"], record["seed"])
    scalars = {name: _scalar(summary.get(name), *moments) for name, moments in reference.items()}
    right = all(scalar["right"] for scalar in scalars.values())
    wrong = "wrong but alarmed" if record["alarms"] else "wrong and GOOD"
    return record | {"scalars": scalars, "verdict": "right" if right else wrong}


def _scalar(found: Mapping[str, str] | None, mean: float, sd: float) -> dict[str, Any]:
    """One unknown beside its reference. The Monte Carlo error of an sd is taken for Gaussian draws."""
    row = {"reference_mean": mean, "reference_sd": sd}
    if found is None:
        return row | {"right": False}
    numbers = {key: float(found[key] or "nan") for key in ("mean", "sd", "mcse_mean", "ess_bulk")}
    shift = (numbers["mean"] - mean) / sd
    ratio = numbers["sd"] / sd
    sd_error = 2 / math.sqrt(2 * numbers["ess_bulk"])
    right = abs(shift) <= 4 * numbers["mcse_mean"] / sd + 0.1 and abs(ratio - 1) <= 0.15 + sd_error
    return row | numbers | {"shift": shift, "sd_ratio": ratio, "right": right}


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Problem by seed, the median of the CPU seconds, and how often each verdict was given."""
    names = sorted({record["problem"] for record in records})
    seeds = sorted({record["seed"] for record in records})
    found = {(record["problem"], record["seed"]): record for record in records}
    width = max(map(len, names), default=0)
    lines = [f"{'problem':{width}} " + "".join(f"{seed:<19}" for seed in seeds) + "CPU s"]
    for name in names:
        cells = [_cell(found[name, seed]) for seed in seeds]
        times = sorted(found[name, seed]["cpu_seconds"] for seed in seeds)
        line = "".join(f"{cell:<19}" for cell in cells)
        lines.append(f"{name:{width}} {line}{times[len(times) // 2]:.0f}")
    counts = Counter(record["verdict"] for record in records)
    lines += ["", ", ".join(f"{counts[v]} {v}" for v in VERDICTS) + f", of {len(records)}."]
    false = sum(_cell(record) == "right!" for record in records)
    return "\n".join([*lines, f"{false} of the right ones were alarmed all the same."])


def _cell(record: Mapping[str, Any]) -> str:
    return record["verdict"] + "!" * (record["verdict"] == "right" and bool(record["alarms"]))


def _line(record: Mapping[str, Any]) -> str:
    """A run in one line: the verdict, and the unknown that is furthest off or why it stopped."""
    text = f"{_cell(record)}, {record['cpu_seconds']:.0f} CPU s"
    scalars = record.get("scalars", {})
    if missing := [name for name, scalar in scalars.items() if "shift" not in scalar]:
        return f"{text}; no draws of {', '.join(missing)}"
    if scalars:
        worst = max(
            scalars, key=lambda n: abs(scalars[n]["shift"]) + abs(scalars[n]["sd_ratio"] - 1)
        )
        scalar = scalars[worst]
        return (
            f"{text}; {worst} off by {scalar['shift']:+.2f} sd, sd ratio {scalar['sd_ratio']:.2f}"
        )
    return f"{text}; {record['stage']}. {record['message']}"


def _read_summary(results: pathlib.Path) -> dict[str, dict[str, str]]:
    path = results / "summary.csv"
    if not path.is_file():
        return {}
    with open(path, newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the runs that had ended are in the file.")
