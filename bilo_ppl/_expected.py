"""Seconds that a loop of like steps will take, from those that it has timed and from what they cost.

Compilation is left out: a block that compiles tells nothing of the others.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple

__all__ = ["BlockReport", "Costs", "Expected", "Forecast", "Work", "costing"]

EVIDENCE = 0.25
"""Seconds of steps after which there is something to say."""

DEAR = 60.0
"""Seconds of a block, without compilation, beside which the tracing of a program is nothing."""

LONG = 1800.0
"""Seconds beyond which a loop is worth a thought before it goes on."""

OFF = 2.0
"""A forecast that turns out to be wrong by this factor is made anew."""


class Work(NamedTuple):
    """What a unit of work costs, next to others of its kind."""

    kind: str
    amount: float
    """Arithmetic, in units that only their ratios matter of."""


class BlockReport(NamedTuple):
    """What a block has done."""

    done: int
    """Units of work, as many as asked for or fewer."""
    text: str
    """How things stand, for a person."""
    finished: bool = False
    """Whether no further block is needed."""
    most_left: int | None = None
    """Units that can still follow, where they are fewer than the total has room for."""
    at_work: float | None = None
    """Seconds of the units alone, where a block does more."""


class Expected(NamedTuple):
    """Seconds that a loop should take in all."""

    label: str
    unit: str
    units: int
    """As many as it should need."""
    total: int
    """As many as it may need."""
    at_most: bool
    """Whether it may need fewer than ``units``."""
    seconds: float
    """Of those that it should need, compilation not included."""
    left: float
    """Of these, seconds still to come."""

    @property
    def is_long(self) -> bool:
        """Whether it would take more than half an hour from now."""
        return self.left > LONG

    def __str__(self) -> str:
        units = f"{self.units} {self.unit}{'s' * (self.units != 1)}"
        each = self.seconds / max(self.units, 1)
        limit = f" at most ({units}" if self.at_most else f" ({units}"
        more = "" if self.at_most or self.units == self.total else f", at most {self.total}"
        return f"{self.label}: about {duration(self.seconds)}{limit} of {each:.2g} s{more})"


def duration(seconds: float) -> str:
    """In words: seconds, or minutes where they are many."""
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} minutes"


class Costs:
    """What work has cost in a run so far, by its kind; ``hear`` is told what loops will take."""

    def __init__(self, hear: Callable[[Expected], None]):
        self.hear = hear
        self.rates: dict[str, float] = {}
        """Seconds a unit of `Work.amount`."""


_COSTS: ContextVar[Costs | None] = ContextVar("bilo_ppl_costs", default=None)


@contextlib.contextmanager
def costing(costs: Costs) -> Iterator[None]:
    """Let the loops within know, and tell, what work costs."""
    token = _COSTS.set(costs)
    try:
        yield
    finally:
        _COSTS.reset(token)


class Forecast:
    """Of one loop: what `before` and `after` return is worth saying, None is not."""

    def __init__(
        self,
        total: int,
        label: str,
        unit: str,
        work: Work | None = None,
        at_most: bool = True,
        typical: int | None = None,
    ):
        self.total, self.label, self.unit = total, label, unit
        self.work, self.at_most, self.typical = work, at_most, typical
        self.costs = _COSTS.get()
        self.done, self.spent, self.timed = 0, 0.0, 0.0
        self._recent = 0.0, 0
        self.said: Expected | None = None
        self._told_long = False

    def before(self) -> Expected | None:
        """From what work of this kind has cost before, if there was any."""
        if self.costs is None or self.work is None or self.work.kind not in self.costs.rates:
            return None
        each = self.costs.rates[self.work.kind] * self.work.amount
        return self._say(self._expected(each, None))

    def after(self, report: BlockReport, seconds: float, compiled: float = 0.0) -> Expected | None:
        """From a block, which took some seconds, ``compiled`` of them to compile."""
        seconds = max(seconds - compiled, 0.0)
        self.done += report.done
        self.spent += seconds
        if not report.done or (compiled and seconds < DEAR):
            return None
        self._learn(report, seconds)
        if report.finished or self.timed < EVIDENCE:
            return None
        return self._say(self._expected(seconds / report.done, report.most_left))

    def _learn(self, report: BlockReport, seconds: float) -> None:
        """What a unit has cost last: first steps of a chain, say, are dearer."""
        self.timed += seconds
        at_work = seconds if report.at_work is None else min(report.at_work, seconds)
        self._recent = self._recent[0] + at_work, self._recent[1] + report.done
        # With so few units left as only the loop knows of, their work may be another.
        if self.costs is None or self.work is None or report.most_left is not None:
            return
        each = self._recent[0] / self._recent[1] / self.work.amount
        if self._recent[0] >= EVIDENCE:
            self._recent = 0.0, 0
            self.costs.rates[self.work.kind] = each
        else:
            self.costs.rates.setdefault(self.work.kind, each)

    @property
    def _horizon(self) -> int:
        """Units that the loop should need: the typical number, or twice that where it was not enough."""
        units = self.total if self.typical is None else self.typical
        while 0 < units <= self.done:
            units *= 2
        return min(units, self.total)

    def _expected(self, each: float, most_left: int | None) -> Expected:
        left = self._horizon - self.done
        left = left if most_left is None else min(most_left, left)
        units, seconds = self.done + left, self.spent + each * left
        at_most = self.at_most and self._horizon == self.total
        return Expected(self.label, self.unit, units, self.total, at_most, seconds, each * left)

    def _say(self, found: Expected) -> Expected | None:
        long = found.is_long and not self._told_long
        self._told_long = self._told_long or found.is_long
        # Less than was said needs no correction.
        if self.said is not None and found.seconds <= OFF * self.said.seconds and not long:
            return None
        self.said = found
        if self.costs is not None:
            self.costs.hear(found)
        return found
