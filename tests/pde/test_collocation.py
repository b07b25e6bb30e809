"""Collocation points that a problem does not state, and others in the place of those that it does."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import qmc

import bilo_ppl as bilo
from bilo_ppl.pde.checks import check_problem
from bilo_ppl.pde.collocation import completed, resized, scattered, with_points
from bilo_ppl.pde.points import even_part
from bilo_ppl.pde.sizes import unknowns_in, usual_sizes
from models import burgers, gene_expression

LINE = bilo.interval(-1.0, 3.0)
PLANE = bilo.space_time(bilo.interval(0.0, 2.0), 5.0)


class Stateless(bilo.Problem):
    """States no points."""

    parameters, components = ("a", "b"), 1
    domain = PLANE
    scale: float = 2.0

    def residual(self, u, x, theta):
        flux = theta["a"] * bilo.partial(u, 0, 0)(x)
        return self.scale * bilo.partial(u, 1)(x) - flux - jnp.sum(theta["b"])


# How many.


@pytest.mark.parametrize(
    ("domain", "unknowns", "points", "depth"),
    [
        (LINE, 2, 51, 2),
        (LINE, 12, 51, 2),
        (LINE, 20, 80, 2),
        (bilo.time_interval(0.0, 1.0), 2, 81, 2),
        (PLANE, 2, 1000, 2),
        (PLANE, 400, 1600, 2),
        (bilo.Box((0, 0, 0), (1, 1, 1)), 2, 3000, 3),
        (bilo.Box((0,) * 4, (1,) * 4, time=3), 2, 5000, 3),
    ],
)
def test_sizes_follow_from_dimension_and_unknowns(domain, unknowns, points, depth):
    assert usual_sizes(domain, unknowns) == (points, 64, depth, 0)


def test_unknowns_are_scalars_and_functions():
    theta = {"k": 1.0, "a": np.zeros((2, 3)), "f": eqx.nn.MLP(1, 1, 8, 1, key=jax.random.key(0))}
    assert unknowns_in(theta) == 1 + 6 + 1


# Where they lie.


def test_scattered_points_are_a_grid_on_an_interval():
    np.testing.assert_array_equal(scattered(LINE, 5), LINE.grid(5))


def test_scattered_points_in_a_box_are_even_and_leave_its_corners_out():
    points = scattered(PLANE, 200)
    unit = points / [2.0, 5.0]
    assert PLANE.contains(points, slack=0.0).all()
    for column in unit.T:
        np.testing.assert_allclose(np.sort(column), (np.arange(200) + 0.5) / 200)
    grid = PLANE.grid(14, 14) / [2.0, 5.0]
    assert qmc.discrepancy(unit) < qmc.discrepancy(grid) / 10


def test_fewer_points_on_an_interval_keep_ends_and_crowding():
    own = bilo.graded(LINE, 201, 0.0, width=0.1, density=20.0)[:, None]
    few = resized(own[::-1], LINE, 51)
    assert len(np.unique(few)) == 51
    assert {-1.0, 3.0} < set(few[:, 0])
    # A quarter of those about the centre, and a quarter of the others.
    near = [np.mean(np.abs(x) < 0.2) for x in (own, few)]
    assert near[0] == pytest.approx(near[1], abs=0.02)
    assert np.isin(few, own).all()


def test_fewer_points_in_a_box_are_an_even_part_of_them():
    problem = burgers.Burgers(viscosity=0.002)
    few = resized(problem.points, problem.domain, 400)
    assert len(np.unique(few, axis=0)) == 400
    # Quarters in time, and the crowded parts of space, keep their shares.
    for part in (lambda p: p[:, 1] < 0.25, lambda p: np.abs(p[:, 0] - 0.5) < 0.05):
        assert part(few).mean() == pytest.approx(part(problem.points).mean(), abs=0.02)
    quarter = even_part(PLANE.grid(16, 16), 64)
    assert (np.histogram2d(*quarter.T, bins=8, range=[[0, 2], [0, 5]])[0] == 1).all()


def test_more_points_are_the_stated_ones_and_others_where_these_are():
    disk = bilo.masked(
        bilo.Box((-1.0, -1.0), (1.0, 1.0)).grid(21, 21), lambda p: 0.3 < np.hypot(*p) < 0.9
    )
    many = resized(disk, bilo.Box((-1.0, -1.0), (1.0, 1.0)), 1000)
    np.testing.assert_array_equal(many[: len(disk)], disk)
    assert len(np.unique(many, axis=0)) == 1000
    radius = np.hypot(*many[len(disk) :].T)
    assert radius.min() > 0.15
    assert radius.max() < 1.05
    # A point source that the model file leaves out is not met.
    line = resized(gene_expression.problem.points, gene_expression.problem.domain, 53)
    assert np.abs(line - gene_expression.Z).min() > 1e-3


def test_points_for_which_there_is_no_room_are_refused():
    corner = 1e-3 * bilo.Box((0.0, 0.0), (1.0, 1.0)).grid(3, 3)
    with pytest.raises(ValueError, match=r"room for \d+ points between the 9 .* not for 5000"):
        resized(corner, bilo.Box((0.0, 0.0), (1.0, 1.0)), 5000)
    with pytest.raises(ValueError, match="even_part: 10 of 9 points"):
        even_part(corner, 10)


# In the place of a problem's.


def test_a_problem_with_other_points_is_the_same_otherwise():
    points = PLANE.grid(3, 4)
    other = with_points(Stateless(scale=3.0), points)
    np.testing.assert_array_equal(other.points, points)
    assert (type(other).__name__, other.scale) == ("Stateless", 3.0)
    assert isinstance(other, Stateless)
    assert not hasattr(Stateless(), "points")
    # The points survive what JAX does to a module, and equal ones make no new class.
    leaves, structure = jax.tree.flatten(other)
    np.testing.assert_array_equal(jax.tree.unflatten(structure, leaves).points, points)
    assert structure == jax.tree.structure(with_points(Stateless(scale=3.0), points.copy()))
    assert structure != jax.tree.structure(with_points(Stateless(scale=3.0), points[1:]))


def test_points_that_are_a_field_or_a_property_can_be_replaced():
    class WithField(Stateless):
        points: Any = eqx.field(kw_only=True)

    other = with_points(WithField(points=PLANE.grid(2, 2)), PLANE.grid(3, 3))
    assert type(other) is WithField
    assert len(other.points) == 9
    few = with_points(burgers.Burgers(nx=7, viscosity=0.1), PLANE.grid(2, 2) / 10)
    assert (few.nx, few.viscosity, len(few.points)) == (7, 0.1, 4)


def test_stated_points_stay_what_they_are():
    problem = burgers.Burgers()
    assert completed(problem, {"u0": jnp.sin}) is problem


def test_a_problem_without_points_can_be_checked_and_pretrained():
    theta = {"a": 1.0, "b": np.ones(3)}
    check_problem(Stateless(), theta)
    operator = bilo.LocalOperator(Stateless(), theta, key=jax.random.key(0))
    np.testing.assert_allclose(operator.points, scattered(PLANE, 1000), rtol=1e-6)
    assert operator.network.layers[0].weight.shape[0] == 64
