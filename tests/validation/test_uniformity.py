"""Ranks among draws, and tests that tell uniform ones from others."""

import numpy as np
import pytest
from scipy import stats

from bilo_ppl.validation.uniformity import (
    binned,
    chi_square,
    ecdf_band,
    ecdf_limits,
    even_bins,
    rank,
)

KEPT, BINS = 127, 16


def ranks(truths, draws_sd=1.0, seed=0):
    """Ranks of 300 truths among Gaussian draws that should have their law, N(0, 1)."""
    draws = draws_sd * np.random.default_rng(seed).normal(size=(300, KEPT))
    return [rank(truth, row) for truth, row in zip(truths, draws, strict=True)]


@pytest.fixture
def truths():
    """As evenly spread as can be, so that no test hangs on a lucky seed."""
    return stats.norm.ppf((np.arange(300) + 0.5) / 300)


def p_values(found):
    return chi_square(found, KEPT, BINS), ecdf_band(found, KEPT, simulated=1000)


def test_rank_counts_the_draws_below():
    assert [rank(truth, [1.0, 3.0, 2.0]) for truth in (0.5, 1.5, 9.0)] == [0, 1, 3]


def test_bins_are_of_equal_width():
    assert list(binned(range(KEPT + 1), KEPT, BINS)) == [8] * BINS
    with pytest.raises(ValueError, match="do not fill 16 bins"):
        binned([0], 99, BINS)


def test_ranks_among_draws_of_the_right_law_pass(truths):
    assert min(p_values(ranks(truths))) > 0.05


@pytest.mark.parametrize(("shift", "sd"), [(0.5, 1.0), (0.0, 0.6), (0.0, 1.7)])
def test_ranks_among_shifted_narrow_or_wide_draws_fail(truths, shift, sd):
    assert max(p_values(ranks(truths + shift, sd))) < 0.01


def test_band_has_its_level():
    """Of uniform ranks a tenth are below 0.1, up to chance."""
    drawn = np.random.default_rng(2).integers(KEPT + 1, size=(200, 100))
    found = np.array([ecdf_band(row, KEPT, simulated=500) for row in drawn])
    assert 0.04 < np.mean(found < 0.1) < 0.17


def test_the_band_and_its_p_value_agree():
    """A set of ranks leaves the band of 95 % just where its p-value is below 5 %."""
    rng = np.random.default_rng(3)
    levels, low, high = ecdf_limits(100, 19, probability=0.95, simulated=1000)
    outside, p_values = [], []
    for _ in range(60):
        found = rng.binomial(19, rng.beta(0.8, 1.0, size=100))
        below = np.cumsum(np.bincount(found, minlength=20))[:-1] / 100
        outside.append(bool(np.any((below < low) | (below > high))))
        p_values.append(ecdf_band(found, 19, simulated=1000))
    assert levels.shape == low.shape == (19,)
    assert 10 < sum(outside) < 50
    assert outside == [p < 0.05 for p in p_values]


def test_bins_are_as_many_as_ranks_fill():
    assert [even_bins(count, 127) for count in (10, 40, 300)] == [2, 8, 16]
    with pytest.raises(ValueError, match="keep 99 or 127"):
        even_bins(300, 100)
