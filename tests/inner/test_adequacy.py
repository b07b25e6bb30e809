"""Points that suffice or not: the loss between them, points added by it, and a start learnt in time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bilo_ppl as bilo
from bilo_ppl.inner.adequacy import Adequate, correction, unseen_points
from bilo_ppl.inner.lower_level import LowerLevel
from bilo_ppl.inner.solvers import solve
from bilo_ppl.network.local_operator import LocalOperator

KEY = jax.random.key(0)


class Logistic(bilo.Problem):
    """u' = r u (1 - u / K), u(0) = 2: u = 0 solves the equation too, but for a jump at the start."""

    parameters, components = ("r", "K"), 1
    domain = bilo.time_interval(0.0, 12.0)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        return bilo.partial(u, 0)(x) - theta["r"] * u(x) * (1 - u(x) / theta["K"])

    def lift(self, x, raw, theta):
        return 2 + x[0] * raw


class Sparse(bilo.Problem):
    """u'' = -pi^2 sin(pi x) / D on a grid of two intervals: nearly everything is between the points."""

    parameters, components = ("D",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(3)

    def residual(self, u, x, theta):
        return theta["D"] * bilo.laplacian(u)(x) + jnp.pi**2 * jnp.sin(jnp.pi * x[0])

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


@pytest.fixture(scope="module")
def sparse():
    return bilo.pretrain(
        Sparse(),
        {"D": 1.0},
        key=KEY,
        solver=bilo.LevenbergMarquardt(tolerance=1e-6, max_steps=150),
        sensitivity=bilo.PartialDerivative(),
        width=16,
        progress=False,
    )


def test_points_are_added_until_the_solution_is_right_between_them(sparse):
    operator, report = sparse
    assert len(operator.points) >= 4 * len(Sparse.points)
    assert report.adequate
    assert report.unseen_loss < 1e-4
    x = np.linspace(0, 1, 101)[:, None]
    u = np.asarray(jax.jit(jax.vmap(operator.field({"D": 1.0})))(x))
    np.testing.assert_allclose(u, np.sin(np.pi * x[:, 0]), atol=2e-3)


def test_the_loss_between_the_points_tells_what_that_at_them_hides(sparse):
    operator, _ = sparse
    level = LowerLevel(operator, bilo.PartialDerivative())
    weights = operator.weights
    batch = {"D": jnp.array([1.0], operator.dtype)}
    good = Adequate(level, 1e-4)(weights, batch, np.asarray(operator.points))
    assert good.suffices
    fresh = LocalOperator(Sparse(), {"D": 1.0}, key=KEY, width=16)
    level = LowerLevel(fresh, bilo.PartialDerivative())
    solver = bilo.LevenbergMarquardt(tolerance=1e-9, max_steps=100)
    found = solve(solver, level.at({"D": jnp.float32(1.0)}), fresh.weights)
    assert found.loss < 1e-6
    bad = Adequate(level, 1e-4)(found.value, batch, np.asarray(Sparse.points))
    assert bad.unseen > 1e-2
    assert not bad.suffices
    assert bad.more is not None
    assert len(bad.more) == 2 * len(Sparse.points)
    np.testing.assert_array_equal(bad.more[:3], Sparse.points)
    assert not set(map(tuple, bad.more[3:])) & set(map(tuple, Sparse.points))


def test_unseen_points_lie_between_those_of_the_fit(sparse):
    operator, _ = sparse
    found = unseen_points(operator, most=20)
    assert found.shape == (20, 1)
    assert ((found > 0) & (found < 1)).all()
    assert not set(found[:, 0]) & set(np.asarray(operator.points)[:, 0])


def test_a_correction_leads_to_the_solution(sparse):
    """To first order: of a slightly wrong network, it undoes the error of u."""
    operator, _ = sparse
    weights = operator.weights
    noise = jax.random.normal(KEY, (2,))
    wrong = jax.tree.map(lambda w: w * (1 + 1e-3 * noise[0]), weights)
    level = LowerLevel(operator, bilo.PartialDerivative())
    step = correction(level, wrong, {"D": jnp.float32(1.0)}, unseen_points(operator, 60))
    x = jnp.linspace(0.1, 0.9, 9)[:, None]

    def u(weights):
        return jax.vmap(operator.with_weights(weights).field({"D": 1.0}))(x)

    exact = jnp.sin(jnp.pi * x[:, 0])
    before = u(wrong) - exact
    _, change = jax.jvp(u, (wrong,), (step,))
    assert np.abs(before).max() > 3e-4
    assert np.abs(before + change).max() < 0.1 * np.abs(before).max()


def test_an_evolution_does_not_end_in_a_steady_state_hidden_from_its_points():
    theta = {"r": 1.6, "K": 120.0}
    operator, report = bilo.pretrain(
        Logistic(),
        theta,
        key=KEY,
        solver=bilo.LevenbergMarquardt(tolerance=5e-7, max_steps=300),
        sensitivity=bilo.PartialDerivative(),
        progress=False,
    )
    assert report.adequate
    t = np.linspace(0, 12, 200)
    exact = 120 / (1 + 59 * np.exp(-1.6 * t))
    u = np.asarray(jax.jit(jax.vmap(operator.field(theta)))(t[:, None]))
    np.testing.assert_allclose(u, exact, atol=0.1)
