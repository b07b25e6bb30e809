"""Rank plots: what is drawn are the counts and the ECDF, beside the bands of uniform ranks."""

import numpy as np
import pytest
from scipy import stats

from bilo_ppl.plots import plot_ranks
from bilo_ppl.validation.uniformity import ecdf_limits

KEPT = 19


def test_bars_and_line_are_the_counts_and_the_ecdf():
    ranks = np.repeat([0, 5, 12], [50, 20, 30])
    top, bottom = plot_ranks(ranks, "k", KEPT)
    assert [bar.get_height() for bar in top.patches[-20:]] == list(np.bincount(ranks, minlength=20))
    line = bottom.lines[0]
    expected = [np.mean(ranks < j) - j / 20 for j in range(1, 20)]
    np.testing.assert_allclose(line.get_ydata(), expected)
    assert "k" in bottom.get_xlabel()


def test_bands_are_those_of_uniform_ranks():
    top, bottom = plot_ranks(np.arange(200) % 20, "k", KEPT)
    low, high = stats.binom.interval(0.99, 200, 1 / 20)
    box = top.patches[0].get_extents().transformed(top.transData.inverted())
    np.testing.assert_allclose([box.ymin, box.ymax], [low, high])
    levels, lowest, highest = ecdf_limits(200, KEPT)
    edges = bottom.collections[0].get_paths()[0].vertices[:, 1]
    assert edges.min() == pytest.approx((lowest - levels).min())
    assert edges.max() == pytest.approx((highest - levels).max())


def test_ranks_that_are_none_are_refused():
    for ranks in ([], [20], [-1], [[1]]):
        with pytest.raises(ValueError, match="ranks of k must be 0 to 19"):
            plot_ranks(ranks, "k", KEPT)
