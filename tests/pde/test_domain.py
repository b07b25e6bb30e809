"""Boxes, their coordinates, grids, samples and masks."""

import numpy as np
import pytest
from scipy.stats import qmc

from bilo_ppl.pde.domain import Box, interval, space_time, time_interval
from bilo_ppl.pde.points import graded, hammersley, masked, refined

BOX = Box((0.0, -1.0), (2.0, 3.0))


def test_grid_includes_the_corners_in_row_order():
    points = BOX.grid(3, 2)
    expected = [[0, -1], [0, 3], [1, -1], [1, 3], [2, -1], [2, 3]]
    np.testing.assert_array_equal(points, expected)
    assert points.dtype == np.float64


def test_interior_grid_leaves_the_boundary_out():
    np.testing.assert_allclose(interval(0.0, 1.0).interior_grid(5)[:, 0], [0.25, 0.5, 0.75])
    assert BOX.interior_grid(5, 4).shape == (3 * 2, 2)


def test_grid_takes_coordinates_of_an_axis():
    points = BOX.grid([0.0, 0.1, 2.0], 2)
    np.testing.assert_array_equal(points[::2], [[0, -1], [0.1, -1], [2, -1]])
    np.testing.assert_array_equal(interval(0.0, 2.0).interior_grid([0.0, 0.1, 2.0]), [[0.1]])


def test_graded_points_are_as_dense_as_they_should_be():
    """Spacing times density is the same everywhere, ends and crowded points included."""
    x = graded(interval(0.0, 1.0), 2001, (0.0, 0.5), width=0.05, density=4.0)
    middle = (x[1:] + x[:-1]) / 2
    density = 1 + sum(4 / (1 + ((middle - s) / 0.05) ** 2) for s in (0.0, 0.5))
    assert (x[0], x[-1]) == (0.0, 1.0)
    np.testing.assert_allclose(np.diff(x) * density, np.mean(np.diff(x) * density), rtol=2e-3)
    np.testing.assert_allclose(
        graded(interval(-1.0, 1.0), 5, (), width=1.0, density=1.0), [-1, -0.5, 0, 0.5, 1], atol=1e-9
    )


def test_graded_points_resolve_a_layer_thinner_than_their_mean_distance():
    """Nearly all points lie in the layer: their ranks follow a Cauchy distribution."""
    width, density = 1e-6, 1e8
    x = graded(interval(-1.0, 1.0), 41, 0.0, width=width, density=density)
    ranks = x + density * width * np.arctan(x / width)
    np.testing.assert_allclose(ranks / ranks[-1], np.linspace(-1, 1, 41), atol=1e-9)
    assert np.abs(x[11:30]).max() < 2 * width


def test_hammersley_points_use_every_coordinate_once_and_are_even():
    x, t = np.linspace(0, 1, 256) ** 2, np.linspace(2, 3, 256)
    points = hammersley(x, t[::-1])
    np.testing.assert_array_equal(points[:, 1], t)
    np.testing.assert_array_equal(np.sort(points[:, 0]), x)
    # Every box of 16 x 16 equal parts of both axes has its one point.
    ranks = np.rint(np.stack([np.sqrt(points[:, 0]), points[:, 1] - 2]) * 255)
    assert len(np.unique(ranks // 16, axis=1).T) == 256


@pytest.mark.parametrize(("count", "sides"), [(861, (41, 21)), (1000, (10, 10, 10))])
def test_hammersley_points_of_any_number_are_more_even_than_a_grid(count, sides):
    """By the centred discrepancy in the unit cube."""
    scattered = hammersley(*[np.linspace(0, 1, count)] * len(sides))
    grid = Box((0.0,) * len(sides), (1.0,) * len(sides)).grid(*sides)
    assert qmc.discrepancy(scattered) < 0.5 * qmc.discrepancy(grid)


def test_samples_are_uniform_and_reproducible():
    points = BOX.sample(3, 4000)
    np.testing.assert_array_equal(points, BOX.sample(3, 4000))
    assert not np.array_equal(points, BOX.sample(4, 4000))
    assert BOX.contains(points).all()
    np.testing.assert_allclose(points.mean(axis=0), [1, 1], atol=0.08)
    np.testing.assert_allclose(points.std(axis=0), np.array([2, 4]) / np.sqrt(12), rtol=0.05)


def test_contains_has_a_little_slack_and_refuses_nan():
    points = np.array([[0.0, -1.0], [2 + 1e-10, 0.0], [2.01, 0.0], [1.0, np.nan]])
    np.testing.assert_array_equal(BOX.contains(points), [True, True, False, False])


def test_normalise_maps_to_the_unit_cube_in_the_precision_of_the_point():
    x = np.array([[0.0, -1.0], [1.0, 1.0], [2.0, 3.0]], np.float32)
    normalised = BOX.normalise(x)
    np.testing.assert_array_equal(normalised, [[-1, -1], [0, 0], [1, 1]])
    assert normalised.dtype == np.float32


def test_space_time_appends_time():
    assert space_time(BOX, 5.0, start=1.0) == Box((0.0, -1.0, 1.0), (2.0, 3.0, 5.0), time=2)
    assert space_time(interval(0.0, 1.0), 2.0).lower == (0.0, 0.0)
    assert time_interval(1, 3) == Box((1.0,), (3.0,), time=0)


@pytest.mark.parametrize(
    ("domain", "space", "coordinates"),
    [
        (interval(0, 1), (0,), "x"),
        (time_interval(0, 1), (), "t"),
        (BOX, (0, 1), "xy"),
        (space_time(interval(0, 1), 1), (0,), "xt"),
        (space_time(BOX, 1), (0, 1), "xyt"),
        (Box((0, 0), (1, 1), time=0), (1,), "tx"),
        (Box((0,) * 3, (1,) * 3), (0, 1, 2), "xyz"),
        (space_time(Box((0,) * 4, (1,) * 4), 1), (0, 1, 2, 3), ["x1", "x2", "x3", "x4", "t"]),
    ],
)
def test_time_is_one_of_the_coordinates_and_space_the_rest(domain, space, coordinates):
    assert domain.space == space
    assert domain.coordinates == tuple(coordinates)


def test_one_coordinate_of_a_box_is_an_interval():
    domain = space_time(BOX, 5.0)
    assert domain.along(1) == interval(-1.0, 3.0)
    assert domain.along(2) == time_interval(0.0, 5.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box((0.0,), (1.0, 2.0)), "lower has 1 and upper 2"),
        (lambda: Box((), ()), "at least one"),
        (lambda: Box((0.0, 1.0), (1.0, 1.0)), r"not in \[1\]"),
        (lambda: interval(0.0, float("nan")), "limits must be finite numbers"),
        (lambda: Box((0.0, 0.0), (1.0, 1.0), time=2), "time=2 is none of the coordinates 0 to 1"),
        (lambda: Box((0.0, 0.0), (1.0, 1.0), time=-1), "time=-1 is none"),
        (lambda: space_time(time_interval(0, 1), 1.0), "coordinate 0 of the space is time already"),
        (lambda: BOX.grid(3), "needs 2 counts"),
        (lambda: BOX.grid(3, 1), "at least 2"),
        (lambda: BOX.grid([0.0, 3.0], 2), r"axis 0 has coordinates from 0 to 3, outside \[0, 2\]"),
        (lambda: BOX.grid(2, [1.0, 0.0]), "axis 1 must be one array of increasing numbers"),
        (lambda: BOX.grid([], 2), "axis 0 must be one array of increasing numbers"),
        (lambda: BOX.grid([np.nan], 2), "axis 0 must be one array of increasing numbers"),
        (lambda: graded(BOX, 5, 0.5, width=1.0, density=1.0), "interval, got a box of dimension 2"),
        (lambda: graded(interval(0, 1), 5, 0.5, width=1.0, density=np.inf), "density=inf"),
        (lambda: hammersley(np.ones(3), np.arange(3)), r"axes \[0\] have coordinates that repeat"),
        (lambda: graded(interval(0, 1), 1, (), width=1.0, density=1.0), "at least 2 points"),
        (
            lambda: graded(interval(0, 1), 5, (2.0,), width=1.0, density=1.0),
            r"\[2.0\] in near lie outside",
        ),
        (lambda: hammersley(np.ones(3), np.ones(4)), r"\[\(3,\), \(4,\)\]"),
        (lambda: masked(BOX.grid(2, 2), [True]), r"shape \(1,\), the points need 4"),
        (lambda: masked(BOX.grid(2, 2), [False] * 4), "no point is left"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("how", ["mask", "predicate"])
def test_masked_keeps_the_points_inside(how):
    points = BOX.grid(5, 5)
    disc = np.sum((points - 1) ** 2, axis=1) < 0.5
    mask = disc if how == "mask" else lambda p: np.sum((p - 1) ** 2) < 0.5
    np.testing.assert_array_equal(masked(points, mask), points[disc])
    assert 0 < disc.sum() < 25


SPACE_TIME = space_time(interval(0.0, 2.0), 3.0)
SCATTERED = hammersley(np.linspace(0, 2, 60), np.linspace(0, 3, 60))
CROWDED = graded(interval(0.0, 1.0), 40, 0.5, width=0.05, density=4.0)[:, None]


@pytest.mark.parametrize(
    ("points", "box"),
    [
        (interval(0.0, 1.0).grid(2), interval(0.0, 1.0)),
        (interval(0.0, 1.0).grid(51), interval(0.0, 1.0)),
        (CROWDED, interval(0.0, 1.0)),
        (interval(0.0, 1.0).interior_grid(3), interval(0.0, 1.0)),
        (BOX.grid(41, 7), BOX),
        (SPACE_TIME.grid(5, 31), SPACE_TIME),
        (SCATTERED, SPACE_TIME),
    ],
)
def test_refined_points_are_the_points_and_four_times_as_many_new_ones_all_over(points, box):
    found = refined(points, box)
    n = len(points)
    assert len(found) >= 5 * n
    np.testing.assert_array_equal(found[:n], points)
    new = found[n:]
    assert ((new > box.lower) & (new < box.upper)).all()
    size = np.array(box.upper) - np.array(box.lower)
    assert (np.abs(new[:, None] - points).max(axis=-1) > 0).all()
    for low in np.ndindex(*(4,) * box.dimension):
        corner = np.array(box.lower) + np.array(low) * size / 4
        assert ((new >= corner) & (new <= corner + size / 4)).all(axis=1).any(), (
            "a quarter is empty"
        )


def test_refined_points_stay_inside_a_mask():
    grid = BOX.grid(21, 41)
    points = masked(grid, np.hypot(grid[:, 0] - 1, grid[:, 1] - 1) > 0.7)
    new = refined(points, BOX)[len(points) :]
    assert len(new) >= 4 * len(points)
    assert np.hypot(new[:, 0] - 1, new[:, 1] - 1).min() > 0.7 - 0.15


def test_refined_points_of_one_point_are_all_over():
    assert len(refined(np.array([[0.5]]), interval(0.0, 1.0))) == 5
