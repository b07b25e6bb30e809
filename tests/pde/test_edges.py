"""What vanishes on the boundary of a box, and where its edges are."""

import jax
import numpy as np
import pytest

import bilo_ppl as bilo

BRICK = bilo.Box((0.0, 1.0), (2.0, 4.0))


def test_a_bubble_is_zero_on_the_boundary_only():
    points = BRICK.grid(5, 7)
    values = np.array([bilo.bubble(BRICK, x) for x in points])
    inside = (points[:, 0] % 2 > 0) & (points[:, 1] > 1) & (points[:, 1] < 4)
    np.testing.assert_array_equal(values > 0, inside)
    assert not values[~inside].any()
    # x (2 - x) (y - 1) (4 - y) at (1/2, 2).
    at = np.array([0.5, 2.0])
    assert bilo.bubble(BRICK, at) == pytest.approx(1.5)
    np.testing.assert_allclose(jax.grad(lambda x: bilo.bubble(BRICK, x))(at), [2, 0.75])


def test_a_bubble_leaves_time_alone():
    cylinder = bilo.space_time(bilo.interval(0.0, 1.0), 3.0)
    assert bilo.bubble(cylinder, np.array([0.5, 0.0])) == 0.25
    assert bilo.bubble(cylinder, np.array([1.0, 2.0])) == 0


def test_points_without_those_where_faces_meet():
    kept = {tuple(p) for p in bilo.without_corners(BRICK, BRICK.grid(3, 3))}
    corners = {(0.0, 1.0), (0.0, 4.0), (2.0, 1.0), (2.0, 4.0)}
    assert len(kept) == 5
    assert not kept & corners
    cube = bilo.Box((0.0,) * 3, (1.0,) * 3)
    # Of 27 points, 8 are corners and 12 lie on edges.
    assert len(bilo.without_corners(cube, cube.grid(3, 3, 3))) == 7
    cylinder = bilo.space_time(bilo.interval(0.0, 1.0), 3.0)
    assert len(bilo.without_corners(cylinder, cylinder.grid(3, 3))) == 9
    with pytest.raises(ValueError, match="all 4 points lie on edges"):
        bilo.without_corners(BRICK, BRICK.grid(2, 2))


def test_points_of_the_boundary():
    found = bilo.edge_points(BRICK, 4)
    assert len(found) == 12
    assert all(bilo.bubble(BRICK, x) == 0 for x in found)
