"""A command of the package in a process of its own, as a user types it, and what it wrote."""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = [
    "ONE_THREAD",
    "PROCESSES",
    "ROOT",
    "Kept",
    "Ran",
    "alarms",
    "run_command",
    "write_records",
]

ROOT = pathlib.Path(__file__).resolve().parent.parent

ALARMS = ("ALARM", "UNDECIDED", "WARNING", "not available")
"""How a string in run.json begins that is a reason to doubt the results."""

ONE_THREAD = {
    "JAX_PLATFORMS": "cpu",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}
"""Environment of a command that is timed."""

PROCESSES: set[subprocess.Popen] = set()
"""Commands that are under way, to be ended with the program that started them."""


class Ran(NamedTuple):
    """How a command ended."""

    status: int | None
    """Its exit status; None after the time limit."""
    errors: str
    """What it wrote to stderr, without the names of folders."""
    wall_seconds: float
    written: dict[str, Any]
    """Its run.json, without the names of folders; empty if there is none."""

    @property
    def message(self) -> str:
        """The last line of stderr."""
        lines = [line for line in self.errors.splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def cpu_seconds(self) -> float:
        """Of all stages."""
        return sum(self.written.get("cpu_seconds", {}).values())


def run_command(
    arguments: Sequence[str],
    results: pathlib.Path,
    time_limit: float,
    environment: Mapping[str, str] | None = None,
) -> Ran:
    """``bilo-ppl ARGUMENTS --quiet --out RESULTS``, ended after ``time_limit`` wall seconds."""
    command = [sys.executable, "-m", "bilo_ppl", *arguments, "--quiet", "--out", str(results)]
    pipes: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    began, status = time.perf_counter(), None
    variables = {**os.environ, **(environment or {})}
    with subprocess.Popen(command, cwd=ROOT, env=variables, **pipes) as process:
        PROCESSES.add(process)
        try:
            errors = process.communicate(timeout=time_limit)[1]
            status = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            errors = process.communicate()[1]
        finally:
            PROCESSES.discard(process)
    wall = time.perf_counter() - began
    path = results / "run.json"
    found = path.read_text() if path.is_file() else "{}"
    errors, found = (_without_folders(text, results) for text in (errors, found))
    return Ran(status, errors, wall, json.loads(found))


def _without_folders(text: str, results: pathlib.Path) -> str:
    return text.replace(f"{results.parent}/", "").replace(f"{ROOT}/", "")


def alarms(written: Mapping[str, Any]) -> list[str]:
    """Every reason to doubt the draws that run.json gives; what stderr says of speed is none."""
    certificates = written.get("certificates", {})
    found = [text for text in _strings(written) if text.startswith(ALARMS)]
    found += [f"{name}: not good" for name, value in certificates.items() if not value["good"]]
    return list(dict.fromkeys(found if certificates else [*found, "no certificate"]))


def _strings(value: Any) -> Iterator[str]:
    """All strings in nested JSON values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)


def write_records(path: pathlib.Path, records: Sequence[Mapping[str, Any]]) -> None:
    """The whole file or nothing, so that an interrupt loses no run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(records, indent=1) + "\n")
    os.replace(temporary, path)


class Kept:
    """Records in a file by some of their entries; a later one takes the place of an earlier."""

    def __init__(self, path: str | pathlib.Path, *entries: str):
        self.path, self.entries = pathlib.Path(path), entries
        found = json.loads(self.path.read_text()) if self.path.exists() else []
        self.records = {self.name(record): record for record in found}

    def name(self, record: Mapping[str, Any]) -> tuple:
        """What a record is of; None for an entry that it does not have."""
        return tuple(record.get(entry) for entry in self.entries)

    def __contains__(self, name: tuple) -> bool:
        return name in self.records

    def add(self, *records: Mapping[str, Any]) -> None:
        """Keep records, and write the file."""
        self.records.update({self.name(record): record for record in records})
        write_records(self.path, list(self.records.values()))
