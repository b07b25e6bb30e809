"""How a run ends: finished, interrupted, or failed, and with which verdict; run.json says so."""

from collections.abc import Callable

from bilo_ppl._blocks import Interrupts
from bilo_ppl.diagnostics.verdict import State, Verdict
from bilo_ppl.run.record import Record, warn
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
    record.say("", str(verdict))
    if verdict.state is not State.RIGHT:
        warn(str(verdict))
    if interrupted:
        return INTERRUPTED
    strict = record.settings.strict and verdict.state is State.DOUBTFUL
    return FAILED if failed else DOUBTFUL if strict else 0


def to_the_end(record: Record, stages: Callable[[Interrupts], int]) -> int:
    """The exit status of the stages: 130 after Ctrl-C, 143 after SIGTERM.

    What ends them early goes to the record first.
    """
    with Interrupts(own_process=True) as interrupts:
        try:
            status = stages(interrupts)
        except KeyboardInterrupt:
            record.status(f"interrupted {record.content['status']}")
            record.say(f"\nInterrupted; what there is lies in {record.folder}.")
            status = INTERRUPTED
        except RunFailedError as error:
            record.status(f"failed: {error}")
            raise
        except Exception as error:
            where = record.content["status"]
            record.status(f"failed {where}: {type(error).__name__}: {error}")
            raise
        return interrupts.exit_status if status == INTERRUPTED else status
