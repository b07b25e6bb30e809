"""A solver on one large problem, by chunks of steps: pretraining and consolidation are such fits."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bilo_ppl._blocks import BlockReport, Lengths, run_blocks
from bilo_ppl._types import Weights
from bilo_ppl.inner.least_squares import LeastSquares
from bilo_ppl.inner.linearised import is_large
from bilo_ppl.inner.solvers import AbstractInnerSolver
from bilo_ppl.inner.stepping import AllRows, PartOfRows, Reached

__all__ = ["FitReport", "fit", "is_large_fit"]

PART = 384
"""Items of the first steps of a large fit."""

LARGE = 2 * PART
"""A problem with more items is large: its steps take a part of them."""

LARGEST_PART = 2 * PART
"""The part grows no further: a step on so many rows takes seconds."""

PART_STEPS = 8
"""Steps on parts in the place of one on all rows, at most."""

LEAST_PARTS = 15
"""Steps on parts in a chunk, at least: a chunk ends with an evaluation of all rows."""

MUCH_WORSE = 4.0
"""A chunk of steps on parts that ends at so many times the best loss is undone."""

PATIENCE = 2
"""Chunks without a gain, on the largest parts, after which a fit ends."""

SLOW = 0.9
"""Where a chunk of steps on parts leaves more of the loss than this, their noise is in the way: the parts
double."""


class FitReport(NamedTuple):
    """How a fit went: final loss, its terms, steps, whether the tolerance was reached, CPU seconds."""

    loss: float
    terms: dict[str, float]
    steps: int
    converged: bool
    tolerance: float
    cpu_seconds: float
    history: list[tuple[int, float]]
    """Steps and loss along the way."""
    unseen_loss: float | None = None
    """Loss at points that no fit has seen; None where that was not looked at."""
    adequate: bool = True
    """Whether the points suffice, as far as that was looked at."""

    def __str__(self) -> str:
        terms = ", ".join(f"{name} {value:.2e}" for name, value in self.terms.items())
        reached = "reached" if self.converged else "NOT reached"
        unseen = "" if self.unseen_loss is None else f"; at unseen points {self.unseen_loss:.2e}"
        unseen += "" if self.adequate else ": the points do NOT suffice"
        return (
            f"loss {self.loss:.2e} ({terms}) after {self.steps} steps, {self.cpu_seconds:.1f} CPU s; "
            f"tolerance {self.tolerance:.0e} {reached}{unseen}"
        )


def is_large_fit(items: int) -> bool:
    """Whether a problem of so many items is solved by parts of its rows."""
    return items > LARGE


def fit(
    solver: AbstractInnerSolver,
    rows: Callable[[Any], LeastSquares],
    weights: Weights,
    *,
    progress: bool,
    label: str,
    stages: Sequence[Any] = (None,),
    chunks: int = 20,
    least_gain: float = 0.0,
    enough: Callable[[Weights, float], bool] | None = None,
) -> tuple[Weights, FitReport]:
    """Run a solver in chunks with a progress bar; the best weights survive Ctrl-C.

    ``rows(stage)`` makes the `LeastSquares` problem (inside a compiled function, so that the problem's
    arrays are not copied between chunks). The last of ``stages`` is the problem to solve; those before
    it, of the same structure, lead there and get a chunk of steps each. In the last one a chunk that
    lowers the loss by a smaller part than ``least_gain`` is the last.

    ``enough(weights, loss)``, asked after every chunk of the last stage, may end it too.

    A large problem is solved by steps on random parts of its rows, up to eight in the place of one. Where
    the loss, which is always that on all rows, no longer falls fast, the parts double; with ``enough``,
    which the noise of parts would upset, the steps are on all rows from then on, if they can be had.
    """
    start = time.process_time()
    large = is_large_fit(rows(stages[-1]).count)
    limit = solver.max_steps * (PART_STEPS if large else 1)
    chunk = max(1, -(-solver.max_steps // chunks), LEAST_PARTS if large else 0)
    kind = _FitByParts if large else _Fit
    fitting = kind(solver, rows, weights, stages, least_gain, enough)
    run_blocks(
        fitting.block,
        max(1, limit + (len(stages) - 1) * chunk),
        label=label,
        unit="step",
        # What `least_gain` means, and so the result, depends on the chunks: not on the time they take.
        lengths=Lengths(chunk, fixed=True),
        progress=progress,
    )
    reached, history = fitting.at_the_end()
    loss = float(reached.loss)
    report = FitReport(
        loss=loss,
        terms={name: float(value) for name, value in reached.terms.items()},
        steps=history[-1][0],
        converged=loss <= solver.tolerance,
        tolerance=solver.tolerance,
        cpu_seconds=time.process_time() - start,
        history=history,
    )
    return reached.weights, report


class _Fit:
    """A fit in blocks: the first of a stage evaluates where the stage starts, the others take steps."""

    def __init__(
        self,
        solver: AbstractInnerSolver,
        rows: Callable[[Any], LeastSquares],
        weights: Weights,
        stages: Sequence[Any],
        least_gain: float,
        enough: Callable[[Weights, float], bool] | None,
    ):
        self.solver, self.rows, self.enough = solver, rows, enough
        self.weights, self.stages, self.least_gain = weights, list(stages), least_gain
        self.state: Any = None
        """The solver's in the first of ``stages``, those that are not done; None before it starts."""
        self.reached: Reached | None = None
        """The best of the last stage."""
        self.taken = 0
        self.history: list[tuple[int, float]] = []
        """Steps and loss in the last stage."""
        self.items = rows(stages[-1]).count
        self._steps: Any = self._stepping()

    def _stepping(self) -> Any:
        return AllRows(self.solver, self.rows, self.weights, self.stages[-1])

    def block(self, length: int) -> BlockReport:
        """At most ``length`` steps of the present stage; none, but an evaluation, at its start."""
        starts, last = self.state is None, len(self.stages) == 1
        new = self._steps(self.weights, self.state, self.stages[0], length)
        steps, loss = int(new.steps), float(new.loss)
        self.taken += steps
        self.weights, self.state = new.weights, new.state
        finished = False
        if last:
            suffices = self._is_enough(new, loss)
            finished = bool(new.done) or self._gains_little(loss) or suffices
            self._note(new, loss)
            # Another loss may be less, but it is these weights that are enough.
            if suffices:
                self.reached = new
        elif not starts or bool(new.done):
            self.stages, self.state = self.stages[1:], None
        return BlockReport(steps, f"loss {loss:.1e}", finished=finished)

    def _is_enough(self, new: Reached, loss: float) -> bool:
        return self.enough is not None and self.enough(new.weights, loss)

    def _note(self, new: Reached, loss: float) -> None:
        self.reached = new
        self.history.append((self.taken, loss))

    def _gains_little(self, loss: float) -> bool:
        return bool(self.history) and loss > (1 - self.least_gain) * self.history[-1][1]

    def at_the_end(self) -> tuple[Reached, list[tuple[int, float]]]:
        """The best of the last stage, and the history; a fit interrupted before it is evaluated there."""
        if self.reached is None:
            self.stages, self.state = self.stages[-1:], None
            self.block(0)
        assert self.reached is not None
        return self.reached, self.history


class _FitByParts(_Fit):
    """A fit by steps on parts of the rows, which grow; a chunk that has made it much worse is undone."""

    count = PART
    """Items of a part; all of them in the end, where a step on all can be had."""
    stalled = 0
    """Chunks in a row, on the largest parts, that gained little."""

    def _stepping(self) -> Any:
        return PartOfRows(self.solver, self.rows, self.weights, self.stages[-1], self.count)

    def block(self, length: int) -> BlockReport:
        """See `_Fit.block`; a step on all rows stands for several on parts."""
        return super().block(max(1, length // PART_STEPS) if self.count >= self.items else length)

    def _note(self, new: Reached, loss: float) -> None:
        best = self.reached
        before = self.history[-1][1] if self.history else math.inf
        if best is None or loss < float(best.loss):
            self.reached = new
        elif not loss <= MUCH_WORSE * float(best.loss):
            self.weights, self.state = best.weights, None
        self.history.append((self.taken, loss))
        if loss > SLOW * before:
            self._grow()
        self.stalled = self.stalled + 1 if loss > (1 - self.least_gain) * before else 0

    def _grow(self) -> None:
        if self.count >= self.items:
            return
        asked = self.enough is not None
        whole = asked and not is_large(self.rows(self.stages[-1]), self.weights)
        if whole or self.count < LARGEST_PART:
            self.count = self.items if whole else 2 * self.count
            self.state, self.stalled = None, 0
            self._steps = super()._stepping() if whole else self._stepping()

    def _gains_little(self, loss: float) -> bool:
        return self.stalled >= PATIENCE and self.least_gain > 0

    def at_the_end(self) -> tuple[Reached, list[tuple[int, float]]]:
        """As of any fit; the last entry of the history is the best."""
        reached, history = super().at_the_end()
        return reached, [*history[:-1], (history[-1][0], float(reached.loss))]
