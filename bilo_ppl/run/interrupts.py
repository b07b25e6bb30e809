"""Ctrl-C: remembered, since a stage that keeps what it has so far ends as if it had finished."""

import signal
import threading
from types import FrameType

__all__ = ["Interrupts"]


class Interrupts:
    """While active, SIGINT raises KeyboardInterrupt as ever, and is counted."""

    def __init__(self):
        self.count = 0
        self._previous = None

    def __enter__(self) -> "Interrupts":
        # Only the main thread may set handlers; elsewhere Ctrl-C does not arrive anyway.
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exc_info) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        raise KeyboardInterrupt

    def raise_if_any(self) -> None:
        """Raise KeyboardInterrupt if there was one that a stage has dealt with."""
        if self.count:
            raise KeyboardInterrupt
