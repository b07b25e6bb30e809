"""When sampling may end: every unknown has enough effective draws, and its chains agree."""

from typing import Any

import jax
import numpy as np

from bilo_ppl.diagnostics.report import R_HAT_LIMIT
from bilo_ppl.diagnostics.results import chain_diagnostics
from bilo_ppl.mcmc import BlockSampler

__all__ = ["EnoughDraws"]

EVERY = 50
"""Draws of a chain between two looks; so that a run ends where it ends, however fast the machine is."""

FEWEST = 2 * EVERY
"""Of a chain: from fewer, effective numbers are hardly known."""


class EnoughDraws:
    """Whether the draws of a sampler so far have ``least`` effective ones of every sampled unknown.

    In the bulk and in the tails, with R-hat within its limit; after at most ``most`` draws of a chain.
    """

    def __init__(self, sampler: BlockSampler, least: int, most: int):
        self.sampler, self.least, self.most = sampler, least, most
        self.at: int | None = None
        """Draws of each chain with which there were enough."""
        self.lacking = ""
        """What there was too little of at the last look, in words."""
        self._looked, self._slowest = 0, 0

    def __call__(self) -> bool:
        """Look at what has come since the last call."""
        count = min(self.sampler.count, self.most)
        due = [n for n in range(FEWEST, count + 1, EVERY) if n > self._looked]
        if count == self.most and count > max(self._looked, *due, 0):
            due.append(count)
        if not due:
            return False
        scalars = _scalars(self.sampler.positions)
        for number in due:
            self._looked = number
            if self._are_enough([scalar[:, :number] for scalar in scalars]):
                self.at = number
                return True
        return False

    @property
    def report(self) -> str:
        """How sampling ended."""
        wanted = f"{self.least} effective draws of every unknown"
        if self.at is None:
            return f"--ess: {wanted} were not reached{self.lacking}."
        return f"--ess: {wanted} after {self.at} draws of each chain; no more are drawn."

    def _are_enough(self, scalars: list[np.ndarray]) -> bool:
        """The one that was not enough before comes first: most likely it is not yet."""
        order = range(self._slowest, self._slowest + len(scalars))
        for i in (number % len(scalars) for number in order):
            found = chain_diagnostics(scalars[i])
            least = min(found.ess_bulk, found.ess_tail)
            if not (found.r_hat <= R_HAT_LIMIT and least >= self.least):
                self._slowest = i
                few = (
                    f"{least:.0f} of one"
                    if least < self.least
                    else f"R-hat {found.r_hat:.3f} of one"
                )
                self.lacking = f": {few}"
                return False
        return True


def _scalars(positions: Any) -> list[np.ndarray]:
    """Every scalar in unconstrained space, ``(chains, draws)``."""
    return [
        scalar
        for array in jax.tree.leaves(positions)
        for scalar in np.moveaxis(array, (0, 1), (-2, -1)).reshape(-1, *array.shape[:2])
    ]
