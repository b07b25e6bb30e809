"""Why an inner solve stopped: an enumeration whose members are integers, so that it survives jit."""

import enum
from typing import Any

__all__ = ["StopReason"]


class StopReason(enum.IntEnum):
    """Why a solve stopped.

    Compiled code carries the members as integer arrays: ``StopReason(int(reason))`` gives the name
    back, and ``str`` of it a phrase for a person.

    Examples:
        >>> str(bilo.StopReason(2))
        'all steps used up'
        >>> bilo.StopReason.count(np.array([1, 1, 3]))
        {'converged': 2, 'no step lowers the loss': 1}
    """

    RUNNING = 0
    """It has not: neither the tolerance nor a limit is reached."""
    CONVERGED = 1
    """The loss is at most the tolerance."""
    STEP_LIMIT = 2
    """All steps are used up."""
    STUCK = 3
    """No step lowers the loss any more."""
    NOT_FINITE = 4
    """The loss, or the solution, is NaN or infinite."""
    INVALID = 5
    """The operator does not know this theta: it lies outside the region where it holds."""

    def __str__(self) -> str:
        return _PHRASES[self]

    @classmethod
    def count(cls, reasons: Any) -> dict[str, int]:
        """How often each reason occurs in an array of them, by phrase; those that do not are left out."""
        found = [int((reasons == reason).sum()) for reason in cls]
        return {str(reason): n for reason, n in zip(cls, found, strict=True) if n}


_PHRASES = {
    StopReason.RUNNING: "not stopped",
    StopReason.CONVERGED: "converged",
    StopReason.STEP_LIMIT: "all steps used up",
    StopReason.STUCK: "no step lowers the loss",
    StopReason.NOT_FINITE: "not finite",
    StopReason.INVALID: "outside the operator's region",
}
