"""Figures of the residual: of draws their root mean square, of an estimate its own."""

from types import SimpleNamespace
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bilo_ppl as bilo
from bilo_ppl.pde.data import Observations
from bilo_ppl.ppl.look import SolutionSite
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.residuals import draw_residual_of_estimate, draw_residuals, left_over


class Pair(bilo.Problem):
    """u'' = r u and r u = 0: of u = 1 - x the residuals are -r (1 - x) and r (1 - x)."""

    parameters, components = ("r",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(11)

    def residual(self, u, x, theta):
        left = bilo.laplacian(u)(x) - theta["r"] * u(x)
        return jnp.stack([left, theta["r"] * u(x)])


class Plane(Pair):
    domain = bilo.Box((0.0, 0.0), (1.0, 1.0))
    points = domain.grid(5, 5)


class Outflow(Pair):
    """And (u'(1) + 2) r, (u(0) - 1) r = 0: the rows of u = 1 - x are r and 0."""

    def conditions(self, u, theta):
        slope = bilo.partial(u, 0)(jnp.array([1.0]))
        return {"ends": theta["r"] * jnp.stack([slope + 2, u(jnp.array([0.0])) - 1])}


class PlaneOutflow(Plane):
    def conditions(self, u, theta):
        return {"corner": (bilo.partial(u, 0)(jnp.array([1.0, 0.0])) + 2)[None]}


DATA = Observations(np.full((1, 1), 0.5), np.full(1, 0.5), 0.1)


def operator(problem):
    return bilo.ClosedForm(problem, lambda x, theta: 1 - x[0])


def model(of, x, y, sigma):
    r = numpyro.sample("r", dist.LogNormal(0.0, 1.0))
    u = bilo.solution("u", of, {"r": r})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def drawn(problem, numerical=None):
    points = np.full((1, problem.domain.dimension), 0.5)
    data = Observations(points, DATA.y, DATA.sigma)
    plan = Mock(
        spec=Plan,
        file=SimpleNamespace(problem=problem, units={"x": "cm"}),
        observations=data,
        solutions=("u",),
        numerical=numerical,
    )

    def bound(x, y, sigma):
        model(operator(problem), x, y, sigma)

    draws = {"r": np.array([[1.0, 7.0]])}
    return dict(draw_residuals(plan, bound, draws, 1e-4))


def test_the_size_is_the_norm_over_the_equations():
    x = np.array([[0.0], [0.25], [0.9]])
    found, conditions = left_over(SolutionSite(operator(Pair()), {"r": 3.0}), x)
    assert not conditions
    np.testing.assert_allclose(found, 2**0.5 * 3.0 * (1 - x[:, 0]), rtol=1e-6)


def test_on_an_interval_it_is_a_line_beside_the_tolerance():
    ax = drawn(Pair())["residual"]
    assert ax.get_xlabel() == "x (cm)"
    line, level = ax.lines
    x = line.get_xdata()
    assert x.min() > 0
    assert x.max() < 1
    # The mean of r² over the draws is 25.
    np.testing.assert_allclose(line.get_ydata(), 2**0.5 * 5.0 * (1 - x), rtol=1e-5)
    np.testing.assert_allclose(level.get_ydata(), 1e-2)
    assert ax.get_yscale() == "log"


def test_conditions_stand_beside_it():
    ax = drawn(Outflow())["residual"]
    residual, condition, _ = ax.lines
    assert residual.get_label() == "residual, root mean square of 2 draws"
    # Of rows r and 0 the mean square is r²/2, and its mean over the draws 12.5.
    np.testing.assert_allclose(condition.get_ydata(), 12.5**0.5, rtol=1e-5)
    assert condition.get_label() == "condition ends, 3.5e+00"
    assert residual.get_color() != condition.get_color()
    (ax,) = drawn(PlaneOutflow())["residual"]
    assert ax.get_title(loc="left") == "log10 of the residual\ncondition corner, 1.0e+00"


def test_in_a_plane_it_is_an_image_of_the_logarithm():
    (ax,) = drawn(Plane())["residual"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x (cm)", "y")
    (mesh,) = ax.collections
    values = np.asarray(mesh.get_array()).reshape(51, 51)
    x = np.linspace(0, 1, 51)[:-1]
    wanted = np.broadcast_to(np.log10(2**0.5 * 5.0 * (1 - x)), (51, 50))
    np.testing.assert_allclose(values[:, :-1], wanted, atol=1e-5)


def test_of_what_a_grid_interpolates_there_is_none():
    assert not drawn(Pair(), numerical=operator(Pair()))


def test_of_an_estimate_it_is_that_of_its_theta():
    problem = Pair()
    found = bilo.find_map(
        model, jax.random.key(0), operator(problem), *DATA.model_args, progress=False
    )
    file = SimpleNamespace(problem=problem, units={})
    plan = Mock(spec=Plan, file=file, solutions=("u",), numerical=None)
    ((name, ax),) = draw_residual_of_estimate(plan, found)
    assert name == "residual"
    assert ax.lines[0].get_label() == "residual of the estimate"
    line = ax.lines[0]
    wanted = 2**0.5 * float(found.values["r"]) * (1 - line.get_xdata())
    np.testing.assert_allclose(line.get_ydata(), wanted, rtol=1e-5)
    assert float(found.values["r"]) == pytest.approx(np.exp(-1.0), rel=1e-2)  # the prior's mode
