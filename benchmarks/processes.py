"""The command line of a benchmark with many cases, one process for each.

So compilation is cold, and peak memory the case's own. A case that fails or takes too long says so, and
the others go on.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

__all__ = ["run_each"]


def run_each(
    script: str,
    description: str | None,
    cases: Callable[[str], Sequence[Any]],
    measured: Callable[[Any], dict],
    head: str,
    lines: Callable[[dict], Iterable[str]],
    time_limit: float | None = None,
) -> None:
    """Measure the cases of a profile, or those that ``--only`` names; print a table, write records.

    ``cases(profile)`` have a ``name``; ``measured(case)`` is a record for JSON, and ``lines(record)``
    are its rows in the table. ``time_limit`` is in seconds for each case.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--profile", choices=("quick", "paper"), default="quick")
    parser.add_argument("--out", default=f"{pathlib.Path(script).stem}.json")
    parser.add_argument("--only", nargs="*", help="parts of names of cases to run")
    parser.add_argument("--index", type=int, help="run one case here and print its record")
    arguments = parser.parse_args()
    chosen = cases(arguments.profile)
    if arguments.index is not None:
        print(json.dumps(measured(chosen[arguments.index])))
        return
    print(head, flush=True)
    records = []
    for index, case in enumerate(chosen):
        if arguments.only and not any(part in case.name for part in arguments.only):
            continue
        command = [sys.executable, script, "--profile", arguments.profile, "--index", str(index)]
        found = _in_a_process(case.name, command, time_limit)
        if found is not None:
            records.append(found)
            print("\n".join(lines(found)), flush=True)
        pathlib.Path(arguments.out).write_text(json.dumps(records, indent=1) + "\n")


def _in_a_process(name: str, command: Sequence[str], time_limit: float | None) -> dict | None:
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=time_limit)
    except subprocess.TimeoutExpired:
        print(f"{name}: given up after {time_limit} s", file=sys.stderr, flush=True)
        return None
    if done.returncode:
        print(f"{name} failed", file=sys.stderr, flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])
