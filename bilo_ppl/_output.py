"""Text for a person who may have stopped listening: a closed pipe ends no run."""

import os
import sys
from typing import Any

__all__ = ["put"]


def put(stream: Any, text: str, end: str = "\n") -> None:
    """Write a text and flush; where the reader has gone, as that of ``| head``, nothing is said any more.

    Results lie in files, and draws are dear.
    """
    if stream is None:
        return
    try:
        stream.write(f"{text}{end}")
        stream.flush()
    except BrokenPipeError:
        _silence(stream)


def _silence(stream: Any) -> None:
    """Let the stream lead nowhere: what is left in its buffer would raise at the end of the process."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        replacement = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (it stays)
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is stream:
                setattr(sys, name, replacement)
