"""How a run ends: finished, interrupted, or failed; run.json says which."""

from collections.abc import Callable

from bilo_ppl._blocks import Interrupts
from bilo_ppl.run.record import Record
from bilo_ppl.run.settings import RunFailedError

__all__ = ["INTERRUPTED", "to_the_end"]

INTERRUPTED = 130
"""Status of stages that kept what there was at an interrupt; the process's is 128 + the signal."""


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
