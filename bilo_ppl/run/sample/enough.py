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
    """Whether the draws of a sampler so far have ``least`` effective ones of every unknown.

    In the bulk and in the tails, with R-hat within its limit.
    """

    def __init__(self, sampler: BlockSampler, least: int):
        self.sampler, self.least = sampler, least
        self.at: int | None = None
        """Draws of each chain with which there were enough."""
        self._looked = 0

    def __call__(self) -> bool:
        """Look at what has come since the last call."""
        positions = self.sampler.positions
        count = 0 if positions is None else jax.tree.leaves(positions)[0].shape[1]
        for number in range(max(self._looked + EVERY, FEWEST), count + 1, EVERY):
            self._looked = number
            if self._are_enough(jax.tree.map(lambda array, n=number: array[:, :n], positions)):
                self.at = number
                return True
        return False

    @property
    def report(self) -> str:
        """How sampling ended."""
        wanted = f"{self.least} effective draws of every unknown"
        if self.at is None:
            return f"--ess: {wanted} were not reached; all draws are kept."
        return f"--ess: {wanted} after {self.at} draws of each chain; no more are drawn."

    def _are_enough(self, positions: Any) -> bool:
        for array in jax.tree.leaves(positions):
            for scalar in np.moveaxis(array, (0, 1), (-2, -1)).reshape(-1, *array.shape[:2]):
                found = chain_diagnostics(scalar)
                least = min(found.ess_bulk, found.ess_tail)
                if not (found.r_hat <= R_HAT_LIMIT and least >= self.least):
                    return False
        return True
