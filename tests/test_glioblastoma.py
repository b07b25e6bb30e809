"""The model file of the tumour: initial values, equation, numerical solution, likelihoods."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

import bilo_ppl as bilo
from bilo_ppl.anatomy import TissueMaps
from models import glioblastoma as tumour

THETA = {"rD": 0.9, "rRHO": 1.2}


@pytest.fixture(scope="module")
def solution():
    """v of the numerical solution on voxels of a millimetre."""
    v, _, info = tumour.reference(steps=64).solve(THETA, ())
    assert info.converged
    return v


def initial(x):
    """Logit of 0.1 exp(-0.1 r^2), r in millimetres."""
    log_u = np.log(0.1) - 0.1 * np.sum((10 * x[:, :2]) ** 2, axis=1)
    return log_u - np.log1p(-np.exp(log_u))


def test_the_lift_has_the_initial_value_and_the_network_everything_later():
    problem = tumour.problem
    x = problem.domain.sample(0, 50)
    late, early = jnp.asarray(x), jnp.asarray(x).at[:, 2].set(0.0)
    lift = jax.jit(jax.vmap(lambda x, raw: problem.lift(x, raw, THETA), in_axes=(0, None)))
    for raw in (-1.3, 0.0, 2.0):
        np.testing.assert_allclose(lift(early, raw), initial(x), rtol=1e-12)
    np.testing.assert_allclose(lift(late, 1.0) - lift(late, 0.0), x[:, 2], rtol=1e-9)


def test_units_are_those_of_the_paper():
    """0.13 mm^2 and 0.025 a day for 240 days, in centimetres."""
    np.testing.assert_allclose(tumour.DIFFUSION, 0.13 * 240 / 100)
    np.testing.assert_allclose(tumour.GROWTH, 0.025 * 240)
    extent = np.array(tumour.problem.domain.upper) - np.array(tumour.problem.domain.lower)
    np.testing.assert_allclose(extent, [8.3, 8.3, 1.0])


def white_brain():
    """Nothing but white matter."""
    shape = (85, 85)
    return TissueMaps(np.ones(shape), np.zeros(shape), (1.0, 1.0), (-42.0, -42.0))


def test_in_white_matter_the_lift_solves_the_equation_where_cells_are_few():
    problem = tumour.growth(white_brain(), 50)
    problem = eqx.tree_at(lambda p: p.tissue.coefficients, problem, np.ones((89, 89)))
    problem = eqx.tree_at(lambda p: p.ways.coefficients, problem, np.ones((89, 89)))
    radius = jnp.array([1.6, 1.8, 2.0])
    x = jnp.stack([radius, 0 * radius, jnp.full(3, 0.5)], axis=1)

    def v(y):
        return problem.lift(y, 0.0, THETA)

    residuals = jax.jit(lambda theta: jax.vmap(lambda x: problem.residual(v, x, theta))(x))
    size = jax.vmap(lambda x: jnp.exp(problem.spread_out(x, THETA)))(x)
    assert 1e-4 < size.min() < size.max() < 0.03
    assert (np.abs(residuals(THETA)) < 4 * size).all()
    for name in THETA:
        assert np.abs(residuals({**THETA, name: 1.4})).min() > 0.05


def test_the_numerical_solution_satisfies_the_equation(solution):
    """But for what voxels of a millimetre leave: away from the edges of tissues and the beginning."""
    problem = tumour.problem
    x = np.asarray(problem.points)
    x = jnp.asarray(x[(x[:, 2] > 0.3) & (np.hypot(x[:, 0], x[:, 1]) < 1.0)][:200])

    @jax.jit
    def residuals(theta):
        return jax.vmap(lambda x: problem.residual(solution, x, theta))(x)

    right = np.sqrt(np.mean(residuals(THETA) ** 2))
    assert right < 0.02
    for other in ({"rD": 1.2, "rRHO": 1.2}, {"rD": 0.9, "rRHO": 1.5}):
        assert np.sqrt(np.mean(residuals(other) ** 2)) > 3 * right


def test_the_reference_gives_v_and_floors_it(solution):
    centres = tumour.problem.domain.centres
    x = np.concatenate([centres, np.zeros((len(centres), 1))], axis=1)
    near = np.hypot(*centres.T) < 1.0
    v = np.asarray(jax.vmap(solution)(x))
    np.testing.assert_allclose(v[near], initial(x)[near], rtol=1e-6)
    assert v.min() == pytest.approx(np.log(1e-12))


def test_points_lie_in_a_disk_that_widens():
    points = tumour.problem.points
    r, t = np.hypot(points[:, 0], points[:, 1]), points[:, 2]
    assert points.shape == (4000, 3)
    assert r[t < 0.02].max() < 1.5
    assert r[t > 0.9].max() > 3.5
    assert (t < 0.1).mean() > 0.15
    assert tumour.problem.domain.contains(points).all()


def probability(u, c):
    """a(u, c), with k = 10 and s = 0.05."""
    d = u - c
    return 0.5 + 0.5 * np.tanh(10 * d) * (1 - np.exp(-(d**2) / 0.05**2))


def test_log_odds_are_those_of_the_formula():
    u = np.linspace(0.0, 1.0, 41)
    c = 0.35
    a = probability(u, c)
    np.testing.assert_allclose(tumour.log_odds(u, c), np.log(a / (1 - a)), rtol=1e-6, atol=1e-12)
    assert float(tumour.log_odds(0.35, 0.35)) == 0
    slope = jax.vmap(jax.grad(tumour.log_odds))(jnp.array([0.35, 0.4, 0.9]), jnp.full(3, 0.35))
    step = 1e-6
    ends = [tumour.log_odds(jnp.array([0.35, 0.4, 0.9]) + s, 0.35) for s in (step, -step)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-6)
    with jax.enable_x64(False):
        single = tumour.log_odds(jnp.float32(1.0), jnp.float32(0.0))
        np.testing.assert_allclose(single, 20.0, rtol=1e-5)


def closed_form():
    return bilo.ClosedForm(tumour.problem, lambda x, theta: theta["rD"] * x[0] + theta["rRHO"] - 1)


POINTS = np.array([[-1.0, 0.2, 1.0], [0.3, 0.0, 1.0], [1.0, -0.5, 1.0]])
LABELS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
AT = {**THETA, "c1": 0.3, "c2": 0.65}


def conditional(model, *args):
    """Log density of the labels alone, at AT."""
    conditioned = handlers.block(handlers.substitute(model, AT), hide=list(AT))
    return float(log_density(conditioned, (closed_form(), *args), {}, AT)[0])


def test_both_likelihoods_are_those_of_the_formulas():
    u = 1 / (1 + np.exp(-(0.9 * POINTS[:, :1] + 0.2)))
    c = np.array([AT["c1"], AT["c2"]])
    a = probability(u, c)
    wanted = np.sum(np.log(np.where(LABELS == 1, a, 1 - a)))
    assert conditional(tumour.model, POINTS, LABELS, 1.0) == pytest.approx(wanted)
    error = 1 / (1 + np.exp(-20 * (u - c))) - LABELS
    relative = np.sum(error**2, axis=0) / np.sum(LABELS**2, axis=0)

    def squares(sigma):
        constant = -np.sum(np.log(sigma * np.linalg.norm(LABELS, axis=0) * np.sqrt(2 * np.pi)))
        return conditional(tumour.squares_model, POINTS, LABELS, sigma) - 3 * constant

    assert squares(0.1) == pytest.approx(-np.sum(relative) / (2 * 0.1**2))


def test_labels_are_wrong_near_the_thresholds_only():
    data = tumour.synthetic_data(3)
    odds = np.asarray(tumour._true_log_odds())
    wrong = (data["y"] > 0.5) != (odds > 0)
    assert 0.01 < wrong.mean() < 0.06
    assert not wrong[np.abs(odds) > 12].any()
    assert set(np.unique(data["y"])) == {0.0, 1.0}


def test_dice():
    first, second = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])
    assert tumour.dice(first, second) == 0.5
    assert tumour.dice(first, first) == 1.0
