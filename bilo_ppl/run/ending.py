"""How a run ends: finished, interrupted, or failed; run.json says which."""

from collections.abc import Callable

from bilo_ppl.run.interrupts import Interrupts
from bilo_ppl.run.record import Record
from bilo_ppl.run.settings import RunFailedError

__all__ = ["INTERRUPTED", "to_the_end"]

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in a shell."""


def to_the_end(record: Record, stages: Callable[[Interrupts], int]) -> int:
    """The exit status of the stages; what ends them early goes to the record first."""
    with Interrupts() as interrupts:
        try:
            return stages(interrupts)
        except KeyboardInterrupt:
            record.status(f"interrupted {record.content['status']}")
            record.say(f"\nInterrupted; what there is lies in {record.folder}.")
            return INTERRUPTED
        except RunFailedError as error:
            record.status(f"failed: {error}")
            raise
        except Exception as error:
            where = record.content["status"]
            record.status(f"failed {where}: {type(error).__name__}: {error}")
            raise
