"""The model file of the tumour: initial values, equation, numerical solution, likelihoods."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

import bilo_ppl as bilo
from bilo_ppl.anatomy import TissueMaps
from bilo_ppl.pde.data import Observations
from bilo_ppl.run.model_file import load_model
from models import glioblastoma as tumour

THETA = {"rD": 0.9, "rRHO": 1.2}


@pytest.fixture(scope="module")
def solution():
    """n of the numerical solution on voxels of a millimetre."""
    n, _, info = tumour.reference(steps=64).solve(THETA, ())
    assert info.converged
    return n


def logit(p):
    return np.log(p) - np.log1p(-p)


def initial(x):
    """Logit of 0.1 exp(-0.1 r^2), r in millimetres."""
    return logit(0.1 * np.exp(-0.1 * np.sum((10 * x[:, :2]) ** 2, axis=1)))


def test_the_lift_is_nothing_at_first_and_the_network_later():
    problem = tumour.problem
    x = problem.domain.sample(0, 50)
    late, early = jnp.asarray(x), jnp.asarray(x).at[:, 2].set(0.0)
    lift = jax.jit(jax.vmap(lambda x, raw: problem.lift(x, raw, THETA), in_axes=(0, None)))
    for raw in (-1.3, 0.0, 2.0):
        np.testing.assert_array_equal(lift(early, raw), 0.0)
        np.testing.assert_allclose(lift(late, raw), x[:, 2] * raw, rtol=1e-9)


def test_it_begins_as_stated():
    x = tumour.problem.domain.sample(0, 200)
    x = np.where([True, True, False], x, 0.0)[np.hypot(x[:, 0], x[:, 1]) < 1.0]
    begun = jax.vmap(lambda x: tumour.problem.logit(0.0, x, THETA))(jnp.asarray(x))
    np.testing.assert_allclose(begun, initial(x), atol=0.01)


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


def test_in_white_matter_it_spreads_like_a_gaussian_and_grows():
    problem = tumour.growth(white_brain(), 50)
    radius = np.array([0.0, 0.6, 1.2])
    x = np.stack([radius, 0 * radius, np.full(3, 0.5)], axis=1)
    # Next to nothing else the share of white matter is 1 / 1.02.
    D, rho = 0.13 * 240 / 100 * THETA["rD"] * (0.1 + 0.9 / 1.02), 0.025 * 240 * THETA["rRHO"]
    wider = 0.1 + 4 * D * 0.5
    w = 0.1 * 0.1 / wider * np.exp(-(radius**2) / wider)
    found = jax.vmap(lambda x: problem.logit(0.0, x, THETA))(jnp.asarray(x))
    np.testing.assert_allclose(found, logit(w) + 0.5 * rho, atol=0.02)


def test_without_a_deficit_the_residual_is_positive_and_what_saturation_takes():
    problem = tumour.problem
    x = jnp.asarray(problem.points[::97])

    def parts(x):
        D = tumour.DIFFUSION * THETA["rD"]
        m, slope = jax.value_and_grad(lambda y: problem.spread(y, D * x[2]))(x)
        u, w = jax.nn.sigmoid(problem.logit(0.0, x, THETA)), jax.nn.sigmoid(m)
        conductance = problem.tissue(x) * problem.phase(x)
        front = jnp.minimum(0.0, (problem.logit(0.0, x, tumour.start) + 3) / 2)
        wanted = 2 * D * (u - w) * conductance * (slope[0] ** 2 + slope[1] ** 2) * jnp.exp(front)
        return problem.residual(lambda y: 0.0 * y[0], x, THETA), wanted

    found, wanted = jax.jit(jax.vmap(parts))(x)
    assert (found >= 0).all()
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)


def test_the_numerical_solution_satisfies_the_equation():
    """But for what voxels of a millimetre leave: away from the edges of tissues and the beginning."""
    problem = tumour.problem
    x = np.asarray(problem.points)
    x = jnp.asarray(x[(x[:, 2] > 0.3) & (np.hypot(x[:, 0], x[:, 1]) < 1.0)][:200])
    solution = tumour.reference(steps=400).solve(THETA, ())[0]

    @jax.jit
    def residuals(theta):
        return jax.vmap(lambda x: problem.residual(solution, x, theta))(x)

    sizes = [
        float(jnp.median(jnp.abs(residuals(theta))))
        for theta in (THETA, {"rD": 1.2, "rRHO": 1.2}, {"rD": 0.9, "rRHO": 1.5})
    ]
    assert sizes[0] < 0.03
    assert min(sizes[1:]) > 3 * sizes[0], sizes


def test_the_reference_gives_what_is_missing(solution):
    centres = tumour.problem.domain.centres
    x = np.concatenate([centres, np.zeros((len(centres), 1))], axis=1)
    near = np.hypot(*centres.T) < 1.0
    n = np.asarray(jax.vmap(solution)(jnp.asarray(x)))
    np.testing.assert_allclose(n[near], 0.0, atol=1e-6)
    x[:, 2] = 1.0
    n = np.asarray(jax.vmap(solution)(jnp.asarray(x)))
    free = jax.vmap(lambda x: tumour.problem.logit(0.0, x, THETA))(jnp.asarray(x))
    assert (n[free > -6] < 0).all()
    assert n[free > -6].min() > -1.5


def test_points_lie_in_a_disk_that_widens():
    points = tumour.problem.points
    r, t = np.hypot(points[:, 0], points[:, 1]), points[:, 2]
    assert len(points) == 4000
    assert r[t < 0.02].max() < 1.5
    assert r[t > 0.9].max() > 3.0
    assert (t < 0.1).mean() > 0.03
    assert tumour.problem.domain.contains(points).all()


def probability(u, c):
    """a(u, c), with k = 10 and s = 0.05."""
    d = u - c
    return 0.5 + 0.5 * np.tanh(10 * d) * (1 - np.exp(-(d**2) / 0.05**2))


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
    free = jax.vmap(lambda x: tumour.problem.logit(0.0, x, THETA))(jnp.asarray(POINTS))
    u = 1 / (1 + np.exp(-(np.asarray(free)[:, None] + 0.9 * POINTS[:, :1] + 0.2)))
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


@pytest.mark.parametrize(("draws", "panels"), [(1, 2), (3, 3)])
def test_figures_show_the_mean_of_u_and_with_draws_its_sd(draws, panels):
    data = Observations(**tumour.synthetic_data(0))
    values = {name: np.full(draws, value) for name, value in tumour.truth.items()}
    asked = []

    def solutions(x):
        asked.append(x)
        return -0.3 * np.ones((draws, len(x)))

    ((name, axes),) = tumour.figures(solutions, values, data)
    assert name == "tumour"
    titles = [ax.get_title(loc="left") for ax in axes]
    assert len(titles) == panels
    assert all(titles)
    assert axes[0].get_xlabel() == "x (cm)"
    assert all(x[:, 2].min() == 1.0 for x in asked)
    shown = axes[0].images[-1].get_array()
    free = tumour.density(tumour.problem, lambda x: -0.3, np.array([[0.0, 0.0, 1.0]]), tumour.truth)
    np.testing.assert_allclose(shown[41, 41], free[0, 0], rtol=1e-3)
    assert len(axes[1].collections) == 2, "the outlines of both masks"


def test_masks_come_from_a_file_with_their_names(tmp_path):
    file = load_model(pathlib.Path(__file__).parents[1] / "models" / "glioblastoma.py")
    data = tumour.synthetic_data(0)
    path = tmp_path / "masks.csv"
    table = np.concatenate([data["x"], data["y"]], axis=1)
    np.savetxt(path, table, delimiter=",", header="x,y,t,whole,core", comments="")
    read = file.read_data(path)
    np.testing.assert_allclose(read.x, data["x"], atol=1e-12)
    np.testing.assert_array_equal(read.y, data["y"])
    np.savetxt(path, table[:, :3], delimiter=",", header="x,y,t", comments="")
    with pytest.raises(ValueError, match="2 coordinate columns"):
        file.read_data(path)
    far = np.array([[4.9, 0.0, 1.0, 1.0, 0.0]])
    np.savetxt(path, far, delimiter=",", header="x,y,t,whole,core", comments="")
    with pytest.raises(ValueError, match="lies outside the domain"):
        file.read_data(path)


def test_labels_that_are_no_masks_are_refused():
    data = tumour.synthetic_data(0)
    for y, message in ((2 * data["y"], "such as 2"), (0 * data["y"], "whole is empty")):
        with pytest.raises(ValueError, match=message):
            bilo.check_model(tumour.model, closed_form(), data["x"], y)
