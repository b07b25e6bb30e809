"""A fit to many rows: by steps on random parts of them, then on a sample of several rows a weight.

A step on a few hundred rows, others each time, costs little and leads far, until what one part gains
another loses. A sample that stays, of more rows than weights, has no such noise: its steps converge.
Where it no longer leads far, it grows.
"""

import math
from typing import Any

import jax

from bilo_ppl._blocks import BlockReport
from bilo_ppl._compile import jit_once
from bilo_ppl._types import Weights
from bilo_ppl.inner.linearised import is_large_system
from bilo_ppl.inner.sharding import everywhere
from bilo_ppl.inner.stepping import AllRows, PartOfRows, Reached
from bilo_ppl.inner.whole_fit import WholeFit
from bilo_ppl.network.trainable import count_parameters

__all__ = ["FitByParts", "can_be_sampled", "is_large_fit"]

PART = 384
"""Items of the first steps."""

LARGE = 2 * PART
"""A problem with more items is large: its steps take a part of them."""

LARGEST_PART = 2 * PART
"""The parts grow no further: a sample is better, or, of very many weights, steps take seconds."""

ROWS_PER_WEIGHT = 3.5
"""Of a first sample."""

SAMPLE_STEPS = 4
"""Steps on a sample between two looks at other rows."""

WATCHED = 8192
"""Items, drawn once, on which the loss is watched; it is that of all rows in the end."""

JUDGED = 1 << 18
"""Items that stand for all of them in the end: their rows fill a few GB."""

MUCH_WORSE = 4.0
"""A chunk of steps that ends at so many times the best loss is undone."""

PATIENCE = 2
"""Chunks without a gain, where nothing can grow, after which a fit ends."""

SLOW = 0.9
"""Where a chunk of steps leaves more of the loss than this, there should be more rows in a step."""


def is_large_fit(items: int) -> bool:
    """Whether a problem of so many items is solved by parts of its rows."""
    return items > LARGE


def can_be_sampled(weights: Weights) -> bool:
    """Whether a sample of more rows than weights can be had."""
    size = count_parameters(weights)
    return not is_large_system(round(ROWS_PER_WEIGHT * size), size)


class FitByParts(WholeFit):
    """Steps on parts, on a sample, or, where that is no more, on all rows; see the module."""

    count, sampled = PART, False
    """Items that a step sees, and whether they are the same ones each time."""
    stalled = 0
    """Chunks in a row that gained little, where nothing can grow."""
    sample_steps = 0
    """Steps taken on samples."""

    def _stepping(self) -> Any:
        return self.steps_on(self.count, self.sampled)

    def steps_on(self, count: int, sampled: bool) -> Any:
        """Steps on so many items: always the same ones, if they are a sample."""
        made = self.solver, self.rows, self.weights, self.stages[-1], count, WATCHED, self.mesh
        return AllRows(*made) if sampled else PartOfRows(*made)

    @property
    def _items_seen(self) -> int:
        return self.count

    def block(self, length: int) -> BlockReport:
        """See `WholeFit.block`; a step on a sample stands for several on parts."""
        if not self.sampled:
            return super().block(length)
        report = super().block(min(length, SAMPLE_STEPS if self.enough is None else 1))
        self.sample_steps += report.done
        return report._replace(most_left=max(self.solver.max_steps - self.sample_steps, 0))

    def _note(self, new: Reached, loss: float) -> None:
        best = self.reached
        before = self.history[-1][1] if self.history else math.inf
        if best is None or loss < float(best.loss):
            self.reached = new
        elif not loss <= MUCH_WORSE * float(best.loss):
            self.weights, self.state = best.weights, None
        self.history.append((self.taken, loss))
        grown = (loss > SLOW * before or bool(new.over)) and self._grow()
        little = bool(new.over) or loss > (1 - self.least_gain) * before
        self.stalled = self.stalled + 1 if little and not grown else 0

    def _grow(self) -> bool:
        """More rows in a step; whether there are."""
        count = self._next_sample()
        if count:
            if not self.sampled and self.reached is not None:
                self.weights = self.reached.weights
            self.count, self.sampled = count, True
        elif not self.sampled and self.count < LARGEST_PART:
            self.count *= 2
        else:
            return False
        self.state = None
        self.steps = self._stepping()
        return True

    def _next_sample(self) -> int:
        """Items of a sample, larger than the present one if there is one; none if steps were too dear."""
        size = count_parameters(self.weights)
        first = max(math.ceil(ROWS_PER_WEIGHT * size / self._rows_per_item), LARGEST_PART)
        count = min(2 * self.count if self.sampled else first, self.items)
        rows = round(count * self._rows_per_item)
        if (self.sampled and count <= self.count) or is_large_system(rows, size):
            return 0
        return count

    def _gains_little(self, loss: float) -> bool:
        used_up = self.sample_steps >= self.solver.max_steps
        return used_up or (self.stalled >= PATIENCE and self.least_gain > 0)

    def at_the_end(self) -> tuple[Reached, list[tuple[int, float]]]:
        """As of any fit, but the loss is that on all rows; the last entry of the history is the best."""
        reached, history = super().at_the_end()
        if self.items > WATCHED:
            weights = reached.weights
            weights = weights if self.mesh is None else everywhere(weights, self.mesh)
            terms = jit_once(self._terms)(weights)
            reached = reached._replace(terms=terms, loss=sum(terms.values()))
        return reached, [*history[:-1], (history[-1][0], float(reached.loss))]

    def _terms(self, weights: Weights) -> dict[str, Any]:
        return self.rows(self.stages[-1]).part(jax.random.key(2), JUDGED).terms(weights)
