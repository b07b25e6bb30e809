"""Ranks among posterior draws, and tests of their uniformity: parts of the benchmark."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["binned", "chi_square", "ecdf_band", "rank"]


def rank(truth: Any, draws: Any) -> int:
    """How many of the draws are below the truth: 0 to their number. Ties have probability zero."""
    return int(np.sum(np.asarray(draws) < truth))


def binned(ranks: Sequence[int], kept: int, bins: int) -> np.ndarray:
    """Counts of ranks 0, ..., kept in bins; a ``ValueError`` if the bins cannot be of equal width."""
    if (kept + 1) % bins:
        raise ValueError(f"{kept + 1} possible ranks do not fill {bins} bins equally.")
    return np.bincount(np.asarray(ranks) * bins // (kept + 1), minlength=bins)


def chi_square(ranks: Sequence[int], kept: int, bins: int) -> float:
    """p-value of uniform ranks by their counts in bins."""
    return float(stats.chisquare(binned(ranks, kept, bins)).pvalue)


def ecdf_band(ranks: Sequence[int], kept: int, seed: int = 0, simulated: int = 5000) -> float:
    """p-value of uniform ranks by the simultaneous band of Säilynoja et al. (2022).

    The number of ranks below j is binomial, for every j. The statistic is the smallest of the tail
    probabilities over j, on either side; it is compared with those of ``simulated`` sets of ranks.
    """
    levels = np.arange(1, kept + 1) / (kept + 1)

    def smallest_tail(counts):
        below = np.cumsum(counts, axis=-1)[..., :-1]
        lower = stats.binom.cdf(below, len(ranks), levels)
        upper = stats.binom.sf(below - 1, len(ranks), levels)
        return np.minimum(lower, upper).min(axis=-1)

    found = smallest_tail(np.bincount(ranks, minlength=kept + 1))
    uniform = np.full(kept + 1, 1 / (kept + 1))
    drawn = np.random.default_rng(seed).multinomial(len(ranks), uniform, simulated)
    return float((1 + np.sum(smallest_tail(drawn) <= found)) / (1 + simulated))
