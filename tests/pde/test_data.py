"""Observations given as arrays."""

import numpy as np
import pytest

from bilo_ppl.pde.data import Observations, check
from bilo_ppl.pde.domain import interval

LINE = interval(0.0, 1.0)


@pytest.mark.parametrize(
    ("x", "y", "sigma", "message"),
    [
        (np.zeros(3), np.zeros(3), 0.1, r"x must be \(n, 1\)"),
        (np.zeros((3, 1)), np.zeros(2), 0.1, "as many entries"),
        (np.zeros((0, 1)), np.zeros(0), 0.1, "no observations"),
        (np.zeros((2, 1)), np.zeros(2), [0.1, 0.1, 0.1], "one for each of the 2"),
        (np.zeros((2, 1)), np.zeros(2), -0.1, "row 0: sigma is -0.1"),
        ([["a"]], [1.0], 0.1, "x is not an array of numbers"),
        (np.array([[0.2], [-3.0]]), np.zeros(2), 0.1, "row 1: x = -3 lies outside"),
        (np.zeros((2, 1)), np.array([0.0, np.nan]), 0.1, "row 1: y is nan"),
        (
            np.zeros((2, 1)),
            np.array([[0.0, 1.0], [np.nan, np.nan]]),
            0.1,
            "row 1: there is no value",
        ),
        (np.zeros((2, 1)), np.array([[0.0, 1.0], [np.nan, np.inf]]), 0.1, "row 1: y2 is inf"),
        (np.zeros((2, 1)), np.zeros((2, 3)), [0.1, 0.1, 0.0], "row 0: sigma3 is 0; it must"),
        (
            np.zeros((2, 1)),
            np.zeros((2, 3)),
            np.ones((2, 1)),
            r"\(2, 1\).* each of the 3 components",
        ),
        (
            np.zeros((2, 1)),
            np.zeros((2, 2)),
            [0.1, 0.2],
            "each of the 2 rows or of the 2 components",
        ),
        (np.zeros((2, 1)), np.zeros((2, 2, 2)), 0.1, r"\(n, components\) of a system"),
    ],
)
def test_arrays_are_checked_alike(x, y, sigma, message):
    with pytest.raises(ValueError, match=message):
        check(Observations(x, y, sigma), LINE)


def test_good_arrays_come_back_in_double_precision():
    given = Observations(np.zeros((2, 1), np.float32), [1, 2], np.float32(0.5))
    found = check(given, LINE)
    assert found.x.dtype == found.y.dtype == np.float64
    assert found.model_args[2] == 0.5


def test_missing_values_and_the_noise_of_components_are_kept():
    y = np.array([[1.0, np.nan], [2.0, 3.0], [4.0, 5.0]])
    found = check(Observations(np.zeros((3, 1)), y, [0.1, 0.2]), LINE)
    np.testing.assert_array_equal(found.y, y)
    np.testing.assert_array_equal(found.sigma, [0.1, 0.2])
    rows = check(Observations(np.zeros((3, 1)), y, [0.1, 0.2, 0.3]), LINE)
    np.testing.assert_array_equal(rows.sigma, np.outer([0.1, 0.2, 0.3], np.ones(2)))
    each = np.array([[0.1, np.nan], [0.1, 0.2], [0.1, 0.2]])
    found = check(Observations(np.zeros((3, 1)), y, each), LINE)
    np.testing.assert_array_equal(found.sigma, np.nan_to_num(each, nan=1.0))


def test_labels_of_experiments_become_codes_once():
    given = Observations(np.zeros((3, 1)), np.zeros(3), 0.1, ["b", "a", "b"])
    found = check(check(given, LINE), LINE)
    np.testing.assert_array_equal(found.experiment, [1, 0, 1])
    assert found.experiment_names == ("a", "b")


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([1, 2], (), r"experiment has shape \(2,\).* each of the 3 observations"),
        ([1, 2, np.nan], (), "row 2: experiment is 'nan'"),
        ([0, 1, 2], ("a", "b"), "whole numbers from 0 to 1"),
        ([0.0, 1.0, 1.0], ("a", "b"), "whole numbers from 0 to 1"),
    ],
)
def test_labels_of_experiments_are_checked(labels, names, message):
    with pytest.raises(ValueError, match=message):
        check(Observations(np.zeros((3, 1)), np.zeros(3), 0.1, labels, names), LINE)
