"""What the default command line costs: ``bilo-ppl run NAME`` and ``bilo-ppl map NAME`` of every model.

    python benchmarks/defaults.py [--models NAME ...] [--commands run map] [--warm] [--again] [--out FILE]

Each is a process of its own on one thread, without any option, with an empty folder of compiled
programs; ``--warm`` runs it a second time, which finds what the first has compiled. `fisher_kpp-exact`
is ``map fisher_kpp --noise 0 --seeds 1``. Prints CPU seconds by stage, of which how many are
compilation, and what checks the result: the certificates of ``run``; for ``map`` that of the estimate,
and how far its u is from the numerical solution at the same theta. A record is written for each run as
it ends; what the file has already is not run again without ``--again``.
"""

import argparse
import json
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from commands import ONE_THREAD, ROOT, Ran, alarms, run_command, write_records

HERE = pathlib.Path(__file__).resolve().parent
MODELS = sorted(path.stem for path in (ROOT / "models").glob("[!_]*.py"))
WITH_OPTIONS = {"fisher_kpp-exact": ["fisher_kpp", "--noise", "0", "--seeds", "1"]}
"""Cases of ``map`` whose command line says more than the model."""

STAGES = ("pretrain", "adapt", "warmup", "sampling", "estimate", "certify")
"""In the table; what else there is counts as "other"."""

HEAD = f"{'command':28} {'CPU s':>6} {'comp.':>6} " + " ".join(f"{s[:9]:>9}" for s in STAGES)


def main() -> None:
    arguments = _arguments()
    out = pathlib.Path(arguments.out)
    records = json.loads(out.read_text()) if out.exists() else []
    known = {(record["command"], record["cache"]): record for record in records}
    print(f"{HEAD} {'other':>7}  result", flush=True)
    for command in _commands(arguments):
        caches = ("empty", "filled") if arguments.warm else ("empty",)
        if arguments.again or any((" ".join(command), cache) not in known for cache in caches):
            for record in measured(command, caches, arguments.time_limit):
                known[record["command"], record["cache"]] = record
            write_records(out, [known[case] for case in sorted(known)])
        for cache in caches:
            print(line(known[" ".join(command), cache]), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [*MODELS, *WITH_OPTIONS]
    parser.add_argument("--models", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--commands", nargs="+", choices=("run", "map"), default=["map", "run"])
    parser.add_argument("--warm", action="store_true", help="a second time, with a filled cache")
    parser.add_argument("--again", action="store_true", help="also what the file has already")
    parser.add_argument("--time-limit", type=float, default=1800.0, help="wall seconds of one run")
    parser.add_argument("--out", default=str(HERE / "results" / "defaults.json"))
    return parser.parse_args()


def _commands(arguments: argparse.Namespace) -> list[list[str]]:
    """Arguments of the command lines."""
    return [
        [command, *WITH_OPTIONS.get(name, [name])]
        for command in arguments.commands
        for name in arguments.models
        if command == "map" or name not in WITH_OPTIONS
    ]


def measured(
    command: Sequence[str], caches: Sequence[str], time_limit: float
) -> list[dict[str, Any]]:
    """A record for each run of the same command, all with one cache that is empty at first."""
    with tempfile.TemporaryDirectory() as folder:
        cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        records = []
        for cached in caches:
            results = pathlib.Path(folder) / cached
            ran = run_command(command, results, time_limit, ONE_THREAD | cache)
            scores = results / "map.json"
            found = json.loads(scores.read_text()) if scores.is_file() else {}
            records.append(_record(command, cached, ran, found))
        return records


def _record(command: Sequence[str], cache: str, ran: Ran, scores: dict[str, Any]) -> dict[str, Any]:
    written = ran.written
    known, inner = written.get("versions", {}), written.get("certificate", {})
    certificates = {"estimate": inner} if inner else written.get("certificates", {})
    return {
        "command": " ".join(command),
        "cache": cache,
        "status": ran.status,
        "stage": written.get("status", "not started"),
        "versions": {name: known.get(name) for name in ("python", "jax")},
        "cpu_seconds": written.get("cpu_seconds", {}),
        "compile_seconds": written.get("compile_seconds", {}),
        "certificates": {name: found["good"] for name, found in certificates.items()},
        "alarms": [text for text in alarms(written) if text != "no certificate"],
        "u_error": (scores.get("u_relative_error") or {}).get("values"),
        "parameter_errors": {
            name: errors["values"] for name, errors in scores.get("relative_error", {}).items()
        },
        "ess_bulk": _least_ess(written),
        "message": ran.message if ran.status else "",
    }


def _least_ess(written: dict[str, Any]) -> float | None:
    found = [row["ess_bulk"] for row in written.get("summary", {}).values()]
    return min(found) if found else None


def line(record: dict[str, Any]) -> str:
    """A row of the table."""
    stages = {name.split()[0]: 0.0 for name in record["cpu_seconds"]}
    for name, seconds in record["cpu_seconds"].items():
        stages[name.split()[0]] += seconds
    total = sum(stages.values())
    shown = " ".join(f"{stages.pop(name, 0.0):9.1f}" for name in STAGES)
    name = record["command"] + (", warm" if record["cache"] == "filled" else "")
    compiled = sum(record["compile_seconds"].values())
    times = f"{total:6.0f} {compiled:6.0f} {shown} {sum(stages.values()):7.1f}"
    return f"{name:28} {times}  {_result(record)}"


def _result(record: dict[str, Any]) -> str:
    if record["status"] is None:
        return f"not ended in time, {record['stage']}"
    if record["status"]:
        return f"stopped: {record['message'][:150]}"
    parts = [
        f"{name} {'GOOD' if good else 'not good'}" for name, good in record["certificates"].items()
    ]
    if record["u_error"] is not None:
        parts.append("u off by " + ", ".join(f"{error:.1e}" for error in record["u_error"]))
    for name, errors in record["parameter_errors"].items():
        parts.append(f"{name} off by " + ", ".join(f"{100 * error:.2g} %" for error in errors))
    if record["ess_bulk"] is not None:
        seconds = sum(record["cpu_seconds"].values()), record["cpu_seconds"]["sampling"]
        in_all, sampling = (record["ess_bulk"] / s for s in seconds)
        parts.append(f"{in_all:.0f} ESS per CPU s, {sampling:.0f} in sampling")
    return "; ".join([*parts, *(["alarmed"] if record["alarms"] else [])])


if __name__ == "__main__":
    main()
