"""Methods in processes of their own: a limit in seconds, and a failure is told, not raised."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import jax

from bilo_ppl.run.compare.outcome import Outcome
from bilo_ppl.run.compare.task import Task

__all__ = ["Ran", "run_apart"]

LONGEST = 200
"""Characters of a reason."""


class Ran(NamedTuple):
    """What a process has done."""

    task: Task
    wall_seconds: float
    outcome: Outcome | None
    costs: dict[str, Any]
    reason: str
    """Why there is no outcome."""


def run_apart(task: Task, limit: float) -> Ran:
    """Do a task in a process of its own, for at most ``limit`` seconds."""
    task.write()
    environment = dict(os.environ)
    if not jax.config.values["jax_enable_compilation_cache"]:
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    command = [sys.executable, "-m", "bilo_ppl.run.compare.worker", task.folder]
    began = time.perf_counter()
    # A session of its own: Ctrl-C is for this process, which then ends that one.
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            _, said = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            _end(process)
            return Ran(task, time.perf_counter() - began, None, {}, f"over {limit:g} s")
        except BaseException:
            _end(process)
            raise
    wall = time.perf_counter() - began
    if process.returncode:
        return Ran(task, wall, None, {}, _reason(said, process.returncode))
    outcome, costs = Outcome.read(task.folder)
    return Ran(task, wall, outcome, costs, "")


def _end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _reason(said: str, status: int) -> str:
    """The last line that a process has written to stderr."""
    lines = [line for line in said.strip().splitlines() if line and not line.startswith(" ")]
    return lines[-1][:LONGEST] if lines else f"ended with status {status}"
