"""The one loop on the host: blocks of work, a progress bar, Ctrl-C, and a hook that saves.

A signal may arrive inside a compiled call, which cannot be left, or inside a callback (of the garbage
collector, say), where Python swallows exceptions. So a loop only notes it, and looks between blocks.
"""

import contextlib
import dataclasses
import enum
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

from bilo_ppl._checkpoint import Loop, checkpoint_loop
from bilo_ppl._compile import compiler
from bilo_ppl._expected import BlockReport, Forecast, Work
from bilo_ppl._progress import Progress, tell
from bilo_ppl._snapshot import Resumable

__all__ = ["BlockReport", "Ended", "Interrupts", "Lengths", "run_blocks"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAVE_SECONDS = 60.0
"""Time between two calls of the hook that saves what there is."""


class Interrupts:
    """While active, SIGINT (Ctrl-C) and SIGTERM are counted; main thread only, elsewhere nothing happens.

    Outside of a loop a signal raises KeyboardInterrupt at once. In a loop (`deferring`) the first is
    only noted; a second one raises. Entering a second object while one is active gives the active
    one. Handlers that the application has set, or signals that it ignores, stay as they are, unless
    ``own_process``: then all are taken over, also where a shell started the process in the background.
    """

    def __init__(self, *, own_process: bool = False):
        self.count = 0
        self.number: int | None = None
        """The last signal."""
        self._own_process = own_process
        self._loop: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        active = _active()
        if active is not None or threading.current_thread() is not threading.main_thread():
            return active or self
        for number in SIGNALS:
            previous = signal.getsignal(number)
            default = previous in (signal.SIG_DFL, signal.default_int_handler)
            # None: a handler that was not set from Python, and that could not be put back.
            if default or (self._own_process and previous is not None):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc_info) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.number = number
        if self._loop is None or self.count > 1:
            raise KeyboardInterrupt
        if self._loop:
            tell(f"{self._loop}: stopping after this block; Ctrl-C again stops at once.")

    @contextlib.contextmanager
    def deferring(self, label: str) -> Iterator[None]:
        """Only note a first signal; say so to stderr under a label, if it is not empty."""
        outer, self._loop = self._loop, label
        try:
            yield
        finally:
            self._loop = outer

    @property
    def exit_status(self) -> int:
        """128 + the number of the signal, as of a process that was ended by it."""
        return 128 + (signal.SIGINT if self.number is None else self.number)

    def raise_if_any(self) -> None:
        """Raise KeyboardInterrupt if there was a signal that a loop has dealt with."""
        if self.count:
            raise KeyboardInterrupt


def _active() -> Interrupts | None:
    handlers = (getattr(signal.getsignal(number), "__self__", None) for number in SIGNALS)
    return next((owner for owner in handlers if isinstance(owner, Interrupts)), None)


class Ended(enum.Enum):
    """How a loop ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    """Early, by a signal, after a whole block."""


@dataclasses.dataclass(frozen=True)
class Lengths:
    """How many units of work a block does: from one on, as many as take ``seconds``.

    ``seconds`` is what Ctrl-C may have to wait for. A block is at most ``growth`` times as long as the
    one before it.
    """

    largest: int
    growth: int = 2
    seconds: float = 1.0
    fixed: bool = False
    """Every block has ``largest`` units, whatever time that takes."""

    @property
    def first(self) -> int:
        """Length of the first block."""
        return self.largest if self.fixed else 1

    def after(self, length: int, done: int, took: float) -> int:
        """Length of the block after one of ``length``, of which ``done`` units took some seconds."""
        if self.fixed:
            return self.largest
        fitting = self.seconds * done / max(took, 1e-9)
        return int(min(max(fitting, 1), self.growth * length, self.largest))


def run_blocks(
    block: Callable[[int], BlockReport],
    total: int,
    *,
    label: str,
    unit: str,
    lengths: Lengths,
    progress: bool = True,
    save: Callable[[], Any] | None = None,
    save_seconds: float = SAVE_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
    work: Work | None = None,
    at_most: bool = True,
    typical: int | None = None,
    resumable: Resumable | None = None,
    enough: Callable[[], bool] | None = None,
) -> Ended:
    """Do ``total`` units of work, or as many as it takes, by ``block(length)`` of at most ``length``.

    ``label`` names the work and ``unit`` one unit, in the singular. ``progress`` shows a bar on a
    terminal, and elsewhere one line at the end. ``save()`` is called between blocks, about every
    ``save_seconds``, and once more if the loop is interrupted; what it raises ends the loop.

    ``progress`` also says what the loop should take, as soon as that can be known: from blocks that
    compile nothing, or, where other ``work`` of the kind was done, before the first (see
    `bilo_ppl._expected`). ``at_most``: the loop may need fewer units than ``total``, and as a rule needs
    some ``typical`` number of them, if there is one.

    ``enough()`` is asked after each block, and ends the loop where it says so. A loop that has ended in
    that way goes on from its checkpoint unless it says so again.

    What is ``resumable`` goes on from where the checkpoint around the loop has it, if there is one (see
    `bilo_ppl._checkpoint`), and is kept there between blocks.

    SIGINT (Ctrl-C) or SIGTERM ends the loop after the block that is running: at least one is whole.
    A second signal raises KeyboardInterrupt at once. SIGTERM then raises ``SystemExit(143)``, unless
    the loop stands within `Interrupts`, whose owner decides.
    """
    own = Interrupts()
    loop = checkpoint_loop(label, unit, resumable)
    if loop is not None:
        loop.restore()
        finished = loop.finished or (enough is not None and loop.done > 0 and enough())
        if finished or (loop.done >= total > 0):
            return Ended.FINISHED
    with (
        own as interrupts,
        interrupts.deferring(label if progress else ""),
        Progress(total, label, unit, progress) as shown,
    ):
        forecast = Forecast(total, label, unit, work, at_most, typical)
        between = _Between(save, save_seconds, enough, clock)
        ended = _loop(block, total, lengths, interrupts, shown, forecast, loop, between)
    if ended is Ended.INTERRUPTED and own.number == signal.SIGTERM:
        raise SystemExit(own.exit_status)
    return ended


class _Between(NamedTuple):
    """What is done between blocks: see `run_blocks`."""

    save: Callable[[], Any] | None
    save_seconds: float
    enough: Callable[[], bool] | None
    clock: Callable[[], float]


def _loop(
    block, total, lengths, interrupts, shown, forecast, loop: Loop | None, between: _Between
) -> Ended:
    save, save_seconds, enough, clock = between
    done, length, saved = 0, lengths.first, clock()
    if loop is not None and loop.done:
        done = loop.done
        shown.resume(done)
    shown.expect(forecast.before())
    while done < total:
        length, begun, compiled = min(length, total - done), clock(), compiler().seconds
        report = block(length)
        now, compiled = clock(), compiler().seconds - compiled
        done += report.done
        shown.update(done, report.text)
        expected = forecast.after(report, now - begun, compiled)
        finished = report.finished
        if loop is not None:
            ends = finished or done >= total
            loop.note(done, finished=finished, last=ends or interrupts.count > 0)
        if enough is not None and not (finished or interrupts.count):
            finished = enough()
            if finished and loop is not None:
                # That there are enough is not written down: the next process may want more.
                loop.note(done, last=True)
        if interrupts.count:
            shown.interrupted = True
            if loop is not None:
                loop.checkpoint.stopped = True
            if save is not None:
                save()
            return Ended.INTERRUPTED
        if finished:
            break
        shown.expect(expected)
        if save is not None and now - saved >= save_seconds:
            save()
            saved = clock()
        length = lengths.after(length, report.done, now - begun)
    return Ended.FINISHED
