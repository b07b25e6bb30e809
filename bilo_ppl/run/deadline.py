"""The end of a process some seconds after a signal, whatever its main thread is busy with.

Python calls a handler between two of its own instructions: not while a program is compiled or a
compiled one runs. A callback, of the garbage collector say, swallows what a handler raises. But the
number of a signal is written to a pipe at once, and a thread that reads there ends the process.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from bilo_ppl._blocks import SIGNALS

__all__ = ["Deadline", "end_at_once", "ending_in_time", "with_last_words"]

PATIENCE, HASTE = 8.0, 0.5
"""Seconds for the main thread to end by itself, after a first signal and after a second one."""

LAST_WORDS = 1.5
"""Seconds for what is to be written and said."""


class Deadline:
    """Within, a signal ends the process with status 128 + its number, at the latest after some seconds.

    ``last_words(number)`` is called before. Only for a process that is the program's own.
    """

    def __init__(self, end: Callable[[int], None] = os._exit):
        self.last_words: Callable[[int], None] = lambda number: None
        self._end = end
        self._numbers: list[int] = []

    def __enter__(self) -> "Deadline":
        self._reader, self._told = socket.socketpair()
        self._told.setblocking(False)
        self._before = signal.set_wakeup_fd(self._told.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(self._reader,), daemon=True).start()
        return self

    def __exit__(self, *exc_info) -> None:
        signal.set_wakeup_fd(self._before)
        # The thread reads nothing from there, and ends.
        self._told.close()

    @property
    def heard(self) -> bool:
        """Whether there was a signal."""
        return bool(self._numbers)

    def _watch(self, heard: socket.socket) -> None:
        until = None
        with heard:
            while True:
                wait = None if until is None else max(until - time.monotonic(), 0.0)
                if not select.select([heard], [], [], wait)[0]:
                    self._end_now()
                    return
                numbers = heard.recv(16)
                if not numbers:
                    return
                for number in filter(SIGNALS.__contains__, numbers):
                    self._numbers.append(number)
                    left = PATIENCE if len(self._numbers) == 1 else HASTE
                    until = min(until or float("inf"), time.monotonic() + left)

    def _end_now(self) -> None:
        number = self._numbers[-1]
        speaking = threading.Thread(target=self.last_words, args=(number,), daemon=True)
        speaking.start()
        speaking.join(LAST_WORDS)
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        self._end(128 + number)


_current: Deadline | None = None


@contextlib.contextmanager
def ending_in_time() -> Iterator[None]:
    """A `Deadline` for the process, which is the program's own and, after a signal, about to end."""
    global _current
    with Deadline() as deadline:
        _current = deadline
        try:
            yield
        finally:
            _current = None
            if deadline.heard:
                # It has done all there is to do, and ends with the status of the first signal.
                for number in SIGNALS:
                    signal.signal(number, signal.SIG_IGN)


def end_at_once(status: int) -> None:
    """End the process, for which all is done: what libraries clear away may take seconds."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


@contextlib.contextmanager
def with_last_words(last_words: Callable[[int], None]) -> Iterator[None]:
    """Say what is to be done before the deadline of the process ends it, if it has one."""
    if _current is None:
        yield
        return
    before, _current.last_words = _current.last_words, last_words
    try:
        yield
    finally:
        if _current is not None:
            _current.last_words = before
