"""Checkpoints of loops: what a run has done so far, so that another process goes on from there.

A run is a deterministic sequence of loops and computations. Done again, it meets the same loops in the
same order: one that has ended takes its end from the checkpoint, the one that was interrupted goes on
from its last block, and all that follows is as if nothing had happened.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from bilo_ppl._log import Log, Record
from bilo_ppl._snapshot import Resumable, Saved, Snapshot, flat

__all__ = [
    "Checkpoint",
    "Loop",
    "checkpoint_loop",
    "checkpoint_stage",
    "current_checkpoint",
    "keeping",
    "kept_by",
]

LEAST_SECONDS, MOST_SECONDS = 1.0, 60.0
"""Between two writings, at least and at most."""

RARELY = 50.0
"""So many times as long as a writing takes is waited before the next: it costs 2 %."""


class Checkpoint:
    """What is known of a run, in a file, and what is still to be written there.

    ``warn`` is told once that a disk takes no more, and what cannot be read. The run goes on.
    """

    def __init__(self, log: Log, warn: Callable[[str], None]):
        self.log, self.warn = log, warn
        self.stopped = False
        """After an interrupt: what follows it is no part of the run."""
        self.seconds, self.writes, self.bytes = 0.0, 0, 0
        """Spent in writing, and how often, and how much."""
        self._pending: dict[str, Callable[[], list[Record]]] = {}
        self._written, self._took = time.monotonic(), 0.0
        self._stage, self._loops = "", 0
        self._stages: dict[str, int] = {}
        self._lock = threading.RLock()
        self._complained = False

    def enter(self, stage: str) -> None:
        """A stage begins, perhaps one of a name that there was before."""
        number = self._stages[stage] = self._stages.get(stage, 0) + 1
        self._stage, self._loops = f"{stage} ({number})", 0

    @property
    def stage(self) -> str:
        """The stage that runs, and how many of its name there have been."""
        return self._stage

    def loop(self, label: str, unit: str, resumable: Resumable) -> "Loop":
        """The next loop of the stage."""
        self._loops += 1
        return Loop(self, f"{self._stage} loop {self._loops}: {label}", unit, resumable)

    def kept(self) -> str:
        """The loop in which the run stands in the file, for a person."""
        loops = [key for key in self.log.in_order() if " loop " in key and " part " not in key]
        record = self.log.get(loops[-1]) if loops else None
        if record is None:
            return "nothing yet"
        done, unit = record.notes["done"], record.notes["unit"]
        return (
            f"{record.key.split(': ', 1)[1]}, {done} {unit}{'s' * (done != 1)}, and all before it"
        )

    def remember(self, name: str, notes: Mapping[str, Any], tree: Any = ()) -> None:
        """Keep a result under a name, at once."""
        if not self.stopped:
            record = Record(name, notes, flat(tree))
            self.hold(name, lambda: [record])
            self.flush()

    def recall(self, name: str) -> Saved | None:
        """A result that was kept."""
        record = self.log.get(name)
        return None if record is None else Saved(record)

    def hold(self, key: str, records: Callable[[], list[Record]]) -> None:
        """Let records be written when it is time, unless others of the key come before."""
        with self._lock:
            self._pending[key] = records

    @property
    def cost(self) -> dict[str, Any]:
        """Wall seconds spent in writing so far, how often, and how many bytes."""
        return {"seconds": round(self.seconds, 4), "writes": self.writes, "bytes": self.bytes}

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        wait = min(max(RARELY * self._took, LEAST_SECONDS), MOST_SECONDS)
        return time.monotonic() - self._written >= wait

    def flush(self) -> bool:
        """Write what is there to write; whether the disk has taken it. Another thread may ask too."""
        with self._lock:
            begun = time.monotonic()
            try:
                records = [record for make in self._pending.values() for record in make()]
                if records:
                    self.bytes += self.log.put(*records)
                    self.writes += 1
                self._pending.clear()
                self._complained = False
            except OSError as error:
                self._complain(error)
                return False
            finally:
                self._written = time.monotonic()
                self._took = self._written - begun
                self.seconds += self._took
        return True

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self.warn(
                f"the checkpoint {self.log.path} cannot be written ({error.strerror or error}). The run "
                "goes on and tries again; what it does until then would be lost with it."
            )
        self._complained = True

    def close(self) -> None:
        """Write what is left, and nothing more."""
        self.flush()
        self._pending.clear()
        self.log.close()


class Loop:
    """One loop of a run in its checkpoint."""

    def __init__(self, checkpoint: Checkpoint, key: str, unit: str, resumable: Resumable):
        self.checkpoint, self.key, self.unit, self.resumable = checkpoint, key, unit, resumable
        self.done, self.finished = 0, False
        """Units of work that were done before, and whether no more are needed."""
        self._parts = 0

    def restore(self) -> None:
        """Go on from where the loop was interrupted, if it was."""
        log = self.checkpoint.log
        record = log.get(self.key)
        if record is None:
            return
        count = record.notes["parts"]
        found = [log.get(f"{self.key} part {number}") for number in range(count)]
        parts = [part for part in found if part is not None]
        try:
            if len(parts) < count:
                raise ValueError("a part of it is damaged")
            self.resumable.restore(Saved(record._replace(notes=record.notes["own"]), parts))
        except (ValueError, KeyError, IndexError, TypeError) as error:
            self.checkpoint.warn(
                f"{self.key} cannot go on from its checkpoint ({error}): it begins anew."
            )
            return
        self._parts = count
        self.done, self.finished = record.notes["done"], record.notes["finished"]

    def note(self, done: int, *, finished: bool = False, last: bool = False) -> None:
        """A block has ended after ``done`` units in all; write that if it is time, or the ``last``."""
        if self.checkpoint.stopped:
            return
        snapshot = self.resumable.snapshot()
        self.checkpoint.hold(self.key, lambda: self._records(snapshot, done, finished))
        if (last or finished or self.checkpoint.due) and self.checkpoint.flush():
            self._parts = len(snapshot.parts)

    def _records(self, snapshot: Snapshot, done: int, finished: bool) -> list[Record]:
        """The parts that are new come first: without them, the state would be worth nothing."""
        new = list(enumerate(snapshot.parts))[self._parts :]
        notes = {
            "done": done,
            "unit": self.unit,
            "finished": finished,
            "parts": len(snapshot.parts),
            "own": dict(snapshot.notes),
        }
        parts = [Record(f"{self.key} part {n}", {}, flat(part)) for n, part in new]
        return [*parts, Record(self.key, notes, flat(snapshot.tree))]


_CURRENT: ContextVar[Checkpoint | None] = ContextVar("bilo_ppl_checkpoint", default=None)


@contextlib.contextmanager
def keeping(checkpoint: Checkpoint | None) -> Iterator[None]:
    """Let the loops within go on from a checkpoint, and write to it."""
    token = _CURRENT.set(checkpoint)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_checkpoint() -> Checkpoint | None:
    """That of the run which this is a part of, if it has one."""
    return _CURRENT.get()


def checkpoint_stage(name: str) -> None:
    """Tell the checkpoint, if there is one, that a stage begins."""
    current = _CURRENT.get()
    if current is not None:
        current.enter(name)


def checkpoint_loop(label: str, unit: str, resumable: Resumable | None) -> Loop | None:
    """The loop that begins now in the checkpoint; None without one."""
    current = _CURRENT.get()
    return None if current is None or resumable is None else current.loop(label, unit, resumable)


@contextlib.contextmanager
def kept_by(path: str | os.PathLike, warn: Callable[[str], None]) -> Iterator[Checkpoint]:
    """A checkpoint in a file, for the loops within."""
    checkpoint = Checkpoint(Log(path), warn)
    try:
        with keeping(checkpoint):
            yield checkpoint
    finally:
        checkpoint.close()
