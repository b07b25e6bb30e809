"""How a run ends: finished, interrupted, or failed, and with which verdict; run.json says so."""

import dataclasses
import shlex
import sys
from collections.abc import Callable
from functools import partial

from bilo_ppl._blocks import Interrupts
from bilo_ppl._checkpoint import Checkpoint, current_checkpoint
from bilo_ppl._output import put
from bilo_ppl.diagnostics.verdict import State, Verdict
from bilo_ppl.run.deadline import with_last_words
from bilo_ppl.run.options import arguments_for
from bilo_ppl.run.record import Record, warn
from bilo_ppl.run.report import write_report
from bilo_ppl.run.settings import RunFailedError

__all__ = ["DOUBTFUL", "FAILED", "INTERRUPTED", "conclude", "to_the_end"]

FAILED, DOUBTFUL = 1, 3
"""Statuses of a run with such a verdict; of the second only where that was asked for."""

INTERRUPTED = 130
"""Status of stages that kept what there was at an interrupt; the process's is 128 + the signal."""


def conclude(record: Record, verdict: Verdict, interrupted: str | None) -> int:
    """Say the verdict, as the last line, write it down, and give the exit status.

    ``interrupted`` says where, if the run was. What is not right is said on stderr too, in quiet runs as
    well.
    """
    record["verdict"] = verdict.as_dict()
    failed = verdict.state is State.FAILED
    record.status(interrupted or (f"failed: {verdict}" if failed else "finished"))
    write_report(record)
    if verdict.advice:
        record.say("", "What to do:", *(f"  {text}." for text in verdict.advice))
    record.say("", str(verdict))
    if verdict.state is not State.RIGHT:
        warn(str(verdict))
    if interrupted:
        return INTERRUPTED
    strict = record.settings.strict and verdict.state is State.DOUBTFUL
    return FAILED if failed else DOUBTFUL if strict else 0


def to_the_end(record: Record, stages: Callable[[Interrupts], int]) -> int:
    """The exit status of the stages: 130 after Ctrl-C, 143 after SIGTERM.

    What ends them early goes to the record first, and how to go on is said.
    """
    checkpoint = current_checkpoint()
    last_words = partial(_end_early, record, checkpoint)
    with Interrupts(own_process=True) as interrupts, with_last_words(last_words):
        try:
            status = stages(interrupts)
        except KeyboardInterrupt:
            status = _interrupted(record)
        except RunFailedError as error:
            record.status(f"failed: {error}")
            raise
        except Exception as error:
            if not interrupts.count:
                where = record.content["status"]
                record.status(f"failed {where}: {type(error).__name__}: {error}")
                raise
            # An interrupt in a callback comes as an error of what has called it.
            status = _interrupted(record)
        if status != INTERRUPTED:
            return status
        if checkpoint is not None:
            checkpoint.flush()
        _say_how_to_go_on(record, checkpoint)
        return interrupts.exit_status


def _interrupted(record: Record) -> int:
    record.status(f"interrupted {record.content['status']}")
    record.say(f"\nInterrupted; what there is lies in {record.folder}.")
    return INTERRUPTED


def _end_early(record: Record, checkpoint: Checkpoint | None, number: int) -> None:
    """All that is left to do in a thread of its own, where the main thread does not end."""
    if checkpoint is not None:
        checkpoint.flush()
    status = record.content["status"]
    record.status(status if status.startswith("interrupted") else f"interrupted {status}")
    put(sys.stderr, f"\nbilo-ppl: ended by signal {number}.")
    _say_how_to_go_on(record, checkpoint)


def _say_how_to_go_on(record: Record, checkpoint: Checkpoint | None) -> None:
    if checkpoint is None:
        return
    settings = dataclasses.replace(
        record.settings, out=record.folder.path, resume=True, overwrite=False
    )
    command = shlex.join(["bilo-ppl", settings.COMMAND, *arguments_for(settings)])
    text = f"Kept: {checkpoint.kept()}. Go on with:\n  {command}"
    # Quiet runs say nothing of how they are, but this is needed.
    put(sys.stderr if settings.quiet else sys.stdout, text)
