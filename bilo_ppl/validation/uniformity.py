"""Ranks of true values among posterior draws, ``(n,)`` whole numbers, and tests of their uniformity."""

import functools
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["binned", "chi_square", "ecdf_band", "ecdf_limits", "even_bins", "rank"]

MOST_BINS = 20
PER_BIN = 5
"""Ranks that a bin should have: Pearson's approximation is poor for fewer."""


def rank(truth: Any, draws: Any) -> int:
    """How many of the draws are below the truth: 0 to their number. Ties have probability zero."""
    return int(np.sum(np.asarray(draws) < truth))


def even_bins(count: int, kept: int) -> int:
    """As many bins of equal width for ``count`` ranks 0, ..., kept as make sense: 2 to 20.

    Raises a ``ValueError`` where kept + 1 has no divisor up to 20.
    """
    divisors = [n for n in range(2, MOST_BINS + 1) if (kept + 1) % n == 0]
    if not divisors:
        raise ValueError(
            f"{kept + 1} possible ranks fill no 2 to {MOST_BINS} bins equally; keep 99 or 127 draws."
        )
    return max([n for n in divisors if n * PER_BIN <= count], default=divisors[0])


def binned(ranks: Any, kept: int, bins: int) -> np.ndarray:
    """Counts of ranks 0, ..., kept in bins; a ``ValueError`` if the bins cannot be of equal width."""
    if (kept + 1) % bins:
        raise ValueError(f"{kept + 1} possible ranks do not fill {bins} bins equally.")
    return np.bincount(np.asarray(ranks) * bins // (kept + 1), minlength=bins)


def chi_square(ranks: Any, kept: int, bins: int | None = None) -> float:
    """p-value of uniform ranks by their counts in bins, by default `even_bins` of them."""
    bins = even_bins(len(ranks), kept) if bins is None else bins
    return float(stats.chisquare(binned(ranks, kept, bins)).pvalue)


def ecdf_band(ranks: Any, kept: int, simulated: int = 5000) -> float:
    """p-value of uniform ranks by the simultaneous band of Säilynoja et al. (2022).

    The number of ranks below j is binomial, for every j. The statistic is the smallest of the tail
    probabilities over j, on either side; it is compared with those of ``simulated`` sets of ranks.
    """
    found = _smallest_tail(np.bincount(ranks, minlength=kept + 1), len(ranks))
    drawn = _smallest_by_chance(len(ranks), kept, simulated)
    return float((1 + np.sum(drawn <= found)) / (1 + simulated))


def ecdf_limits(
    count: int, kept: int, probability: float = 0.99, simulated: int = 5000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The band itself: levels, and the lowest and highest share of ``count`` ranks below, (kept,) each.

    Uniform ranks stay within it at all levels at once with the given probability.
    """
    tail = np.quantile(_smallest_by_chance(count, kept, simulated), 1 - probability)
    levels = _levels(kept)
    # The least count whose tail below, and the largest whose tail above, is not smaller.
    low = stats.binom.ppf(tail, count, levels)
    high = stats.binom.isf(tail, count, levels)
    return levels, low / count, high / count


def _levels(kept: int) -> np.ndarray:
    return np.arange(1, kept + 1) / (kept + 1)


def _smallest_tail(counts: np.ndarray, number: int) -> Any:
    """Of counts ``(..., kept + 1)`` of ``number`` ranks: ``(...)``."""
    levels = _levels(counts.shape[-1] - 1)
    below = np.cumsum(counts, axis=-1)[..., :-1]
    lower = stats.binom.cdf(below, number, levels)
    upper = stats.binom.sf(below - 1, number, levels)
    return np.minimum(lower, upper).min(axis=-1)


@functools.lru_cache(maxsize=8)
def _smallest_by_chance(count: int, kept: int, simulated: int) -> np.ndarray:
    """The statistic of uniform ranks, simulated with a fixed seed: (simulated,)."""
    uniform = np.full(kept + 1, 1 / (kept + 1))
    drawn = np.random.default_rng(0).multinomial(count, uniform, simulated)
    return _smallest_tail(drawn, count)
