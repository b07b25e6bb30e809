"""The cost model of a step: what grows with what."""

import pytest

from bilo_ppl.inner.arithmetic import OVERHEAD, step_arithmetic

MEASURED = [
    # rows, trained, parameters, milliseconds of a step on one thread
    (51, 1153, 1153, 4.6), (51, 4353, 4353, 9.7), (201, 4353, 4353, 28.1), (401, 4353, 4353, 97.5),
    (51, 16897, 16897, 23.5), (612, 1409, 4353, 95.2), (765, 1409, 4353, 133.6),
    (384, 4417, 4417, 107.3), (768, 4417, 4417, 213.8), (700, 4417, 4417, 160.7), (384, 1185, 1185, 19.9),
    (384, 17025, 17025, 494.4), (384, 1601, 4417, 41.5), (2599, 1185, 1185, 321.6),
]  # fmt: skip
"""Poisson's and Fisher's equation; widths of 32, 64 and 128; all weights, and increments of rank 8."""


def test_one_timed_step_tells_of_others_within_a_factor_of_two():
    """By the step that comes before, of another size: over all, times vary a hundredfold."""
    rates = [ms / step_arithmetic(*sizes) for *sizes, ms in MEASURED]
    middle = sorted(rates)[len(rates) // 2]
    assert all(0.5 < rate / middle < 2 for rate in rates)
    assert middle * 1e6 == pytest.approx(27, abs=5)


def test_the_normal_matrix_is_the_smaller_one():
    rows = step_arithmetic(1000, 100, 100) - OVERHEAD - 1000 * 100
    weights = step_arithmetic(100, 1000, 1000) - OVERHEAD - 100 * 1000
    assert rows == pytest.approx(weights) == pytest.approx(100**2 * 1000 / 600)
