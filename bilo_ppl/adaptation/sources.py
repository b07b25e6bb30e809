"""Where an adaptation takes its thetas from: those to fit, and fresh ones to check."""

from typing import Any

import numpy as np

from bilo_ppl._types import Theta
from bilo_ppl.adaptation.batches import count_of, dimension_of, rows_of, solvable, spread_out
from bilo_ppl.adaptation.exploration import Explorer
from bilo_ppl.operators.base import AbstractSolutionOperator

__all__ = ["FromBatch", "FromChain"]


def _wanted(thetas: Theta, count: int | None) -> int:
    """How many thetas to fit in a round."""
    return count or min(6 + 4 * dimension_of(thetas), 48)


class FromChain:
    """Thetas that a chain visits: fitted at a higher temperature, checked at 1."""

    def __init__(self, explorer: Explorer, spread: float):
        self.explorer, self.temperature = explorer, spread**2
        self.variances: Any = None

    def to_fit(self, operator: AbstractSolutionOperator, count: int | None) -> Theta:
        """Spread-out thetas of the widened posterior."""
        visited = self.explorer.thetas(self.explorer(operator, self.temperature))
        return rows_of(visited, spread_out(visited, _wanted(visited, count)))

    def to_check(self, operator: AbstractSolutionOperator) -> Theta:
        """All thetas that the chain now visits."""
        positions = self.explorer(operator, 1.0)
        self.variances = positions.var(axis=0)
        return self.explorer.thetas(positions)


class FromBatch:
    """Given thetas: a part is fitted, the rest is for the check."""

    variances: Any = None

    def __init__(self, thetas: Theta):
        self.thetas = thetas
        self.left = np.arange(count_of(thetas))

    def to_fit(self, operator: AbstractSolutionOperator, count: int | None) -> Theta:
        """A spread-out part of those that are left, where the PDE could be solved."""
        rest = rows_of(self.thetas, self.left)
        picked = spread_out(rest, min(_wanted(rest, count), max(len(self.left) // 2, 1)))
        self.left = np.delete(self.left, picked)
        if not len(self.left):
            raise ValueError(
                "adapt: all given thetas are used up for the fit and none is left for the check; "
                "give more thetas, or a smaller count."
            )
        return solvable(operator.relaxed(), rows_of(rest, picked))

    def to_check(self, operator: AbstractSolutionOperator) -> Theta:
        """Those that are left."""
        return rows_of(self.thetas, self.left)
