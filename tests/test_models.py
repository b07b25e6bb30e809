"""The model files: definition, data, reference solution and density of each."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from bilo_ppl.fields import field_weights
from bilo_ppl.pde.calculus import partial
from bilo_ppl.plots import plot_posterior
from bilo_ppl.ppl.look import look_at
from bilo_ppl.run.model_file import load_model
from bilo_ppl.run.sample.table import shown_table
from models import (
    boundary_toy,
    burgers,
    darcy,
    darcy_estimate,
    fisher_kpp,
    gene_expression,
    glioblastoma,
    heat_initial,
    nonlinear_poisson,
    poisson,
    variable_poisson,
)

SMALL = {  # reference operators that compile and run fast
    "boundary_toy": lambda: boundary_toy.reference(),
    "burgers": lambda: burgers.reference(nodes=51),
    "darcy": lambda: darcy.reference(cells=8),
    "darcy_estimate": lambda: darcy_estimate.reference(cells=8),
    "darcy_smooth": lambda: load_model("darcy_smooth").reference(cells=8),
    "fisher_kpp": lambda: fisher_kpp.reference(nodes=21),
    "gene_expression": lambda: gene_expression.reference(nodes=51),
    "glioblastoma": lambda: glioblastoma.reference(steps=8),
    "heat_initial": lambda: heat_initial.reference(nodes=21),
    "nonlinear_poisson": lambda: nonlinear_poisson.reference(),
    "poisson": lambda: poisson.reference(),
    "variable_poisson": lambda: variable_poisson.reference(nodes=51),
}


BESIDES = {"glioblastoma": {"c1", "c2"}}
"""Unknowns that are no parameters of the equation."""

WITH_UNITS = {
    "gene_expression": {"x", "u", "lam", "mu"},
    "glioblastoma": {"x", "y", "t", "rD", "rRHO"},
}

SLOW = ("burgers", "gene_expression", "heat_initial", "nonlinear_poisson", "poisson")


@pytest.fixture(scope="module", params=sorted(SMALL))
def file(request):
    """A model file; loading it checks its problem at the start."""
    return load_model(request.param)


def traced(file):
    """Theta by solution site and values of the latent sites, at the start; nothing is solved."""
    observations = file.observations(0)
    start = {name: jnp.asarray(v) for name, v in file.start.items() if not callable(v)}
    args = (SMALL[file.name](), *observations.model_args)
    look = look_at(file.model, args, values=start, key=jax.random.key(1))
    return look.thetas, {name: jnp.asarray(value) for name, value in look.values.items()}


def test_the_model_has_one_solution_and_a_site_for_each_parameter(file):
    thetas, latent = traced(file)
    (theta,) = thetas.values()
    assert set(latent) == set(file.problem.parameters) | BESIDES.get(file.name, set())
    assert set(theta) == set(file.problem.parameters)


def test_units_stand_where_the_equation_has_them_on_axes_and_in_tables(file):
    """Equations of pure numbers have none."""
    assert set(file.units) == WITH_UNITS.get(file.name, set())
    known = {*file.problem.parameters, *file.problem.domain.coordinates, "u"}
    assert set(file.units) <= known
    table = shown_table(pd.DataFrame({"mean": 1.0}, index=[*file.problem.parameters]), file.units)
    for name in set(file.units) & set(file.problem.parameters):
        ax = plot_posterior(np.arange(40.0).reshape(2, 20), name, units=file.units)
        assert ax.get_xlabel() == f"{name} ({file.units[name]})"
        assert ax.get_xlabel() in table


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in sorted(SMALL)]
)
def test_the_density_has_the_right_gradient(name):
    """At the start, moved a little; along a random direction, against central differences."""
    file = load_model(name)
    args = (SMALL[name](), *file.observations(0).model_args)
    at, unravel = ravel_pytree(traced(file)[1])

    @jax.jit
    @jax.value_and_grad
    def density(z):
        return log_density(file.model, args, {}, unravel(z))[0]

    way = np.random.default_rng(0).normal(size=at.size) * np.asarray(jnp.where(at == 0, 1, at))
    at, step = np.asarray(at) + 1e-3 * way, 1e-6
    value, gradient = density(at)
    numeric = float(density(at + step * way)[0] - density(at - step * way)[0]) / (2 * step)
    assert np.isfinite(value)
    assert float(gradient @ way) == pytest.approx(numeric, rel=1e-5)


def test_data_are_reproducible_and_fit_the_problem(file):
    first, again, other = (file.observations(seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.y, again.y)
    assert not np.array_equal(first.y, other.y)
    assert len(first.x) == len(first.y)
    assert file.problem.domain.contains(first.x).all()


def test_truth_has_the_parameters_of_the_problem(file):
    assert set(file.start) == set(file.problem.parameters)
    assert set(file.truth) == set(file.start) | BESIDES.get(file.name, set())
    assert set(file.reference_grid or file.truth) == set(file.truth)


def largest_error(u, exact, points):
    return np.abs(jax.vmap(u)(points) - exact).max()


@pytest.mark.parametrize(
    ("module", "tolerance"),
    [
        (boundary_toy, 1e-12),
        (variable_poisson, 1e-5),
        pytest.param(heat_initial, 5e-4, marks=pytest.mark.slow),
        (gene_expression, 1e-3),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_reference_at_the_truth_is_the_exact_solution(module, tolerance):
    u, _, info = module.reference().solve(module.truth, ())
    lower, upper = module.problem.domain.lower, module.problem.domain.upper
    points = np.random.default_rng(0).uniform(lower, upper, size=(100, len(lower)))
    if module is heat_initial:
        points[:, 1] = 1.0
    assert info.converged
    assert largest_error(u, jax.vmap(module.exact)(points), points) < tolerance


def test_fisher_kpp_reference_matches_an_ode_solver():
    """Central differences in space with 400 cells, LSODA in time to 1e-8."""
    n, theta = 400, fisher_kpp.truth
    x = np.linspace(0, 1, n + 1)[1:-1]

    def rate(t, u):
        full = np.concatenate([[0.0], u, [0.0]])
        return 0.01 * theta["D"] * n**2 * np.diff(full, 2) + theta["rho"] * u * (1 - u)

    start = np.sin(np.pi * x) ** 2 / 2
    options = {"method": "LSODA", "rtol": 1e-8, "atol": 1e-10, "lband": 1, "uband": 1}
    ode = solve_ivp(rate, (0, 1), start, t_eval=[0.5, 1.0], **options)
    u, _, info = fisher_kpp.reference().solve(theta, ())
    assert info.converged
    for j, t in enumerate((0.5, 1.0)):
        points = np.stack([x, np.full_like(x, t)], axis=1)
        assert largest_error(u, ode.y[:, j], points) < 1e-4


def test_burgers_reference_follows_the_characteristics():
    x = np.linspace(0.02, 0.98, 49)

    def initial(s):
        return 0.5 * np.sin(np.pi * s) + 0.25 * np.sin(2 * np.pi * s)

    exact = [initial(brentq(lambda s, x=x: s + 0.2 * initial(s) - x, 0, 1)) for x in x]
    u, _, info = burgers.reference().solve(burgers.truth, ())
    points = np.stack([x, np.ones_like(x)], axis=1)
    assert info.converged
    assert largest_error(u, np.array(exact), points) < 5e-3


def test_the_standing_layer_solves_the_viscous_burgers_equation():
    """0.2 u u' = nu u'' for u = -a tanh(0.2 a (x - 1/2) / (2 nu)), and only with that viscosity."""
    viscosity, height = 2e-3, 0.7

    def layer(x):
        return -height * jnp.tanh(burgers.SPEED * height * (x[0] - 0.5) / (2 * viscosity))

    def residuals(problem):
        points = jnp.asarray(problem.points)
        return jax.vmap(lambda x: problem.residual(layer, x, burgers.start))(points)

    viscous = burgers.Burgers(41, 3, viscosity=viscosity)
    spacing = np.diff(np.sort(viscous.points[:, 0]))
    # Beside the layers, of width 0.02 / 0.7, the points lie closer than elsewhere.
    assert viscous.points.shape == (41 * 3, 2)
    assert spacing[61] < spacing.max() / 3
    np.testing.assert_allclose(residuals(viscous), 0, atol=1e-5)
    for wrong in (0.0, 2 * viscosity):
        assert np.abs(residuals(burgers.Burgers(41, 3, viscosity=wrong))).max() > 0.1


def test_first_guesses_are_those_that_the_models_state():
    x = np.linspace(0, 1, 41)[:, None]
    guesses = {
        "variable_poisson": (variable_poisson.start["D"], np.ones(41)),
        "heat_initial": (heat_initial.start["f"], np.sin(np.pi * x[:, 0])),
        "burgers": (burgers.start["u0"], np.sin(np.pi * x[:, 0])),
    }
    for field, values in guesses.values():
        np.testing.assert_allclose(jax.vmap(field)(x), values, atol=1e-6)
        assert field_weights(field).size > 4000


def test_boundary_toy_has_a_gaussian_posterior():
    """Least squares for theta, linear in it; the nearly flat prior moves it by 1e-6."""
    observations = load_model("boundary_toy").observations(3)
    design = np.concatenate([1 - observations.x, observations.x], axis=1)
    x = observations.x[:, 0]
    best = np.linalg.lstsq(design, observations.y - x**2 + x, rcond=None)[0]
    operator = boundary_toy.reference()

    @jax.jit
    @jax.grad
    def gradient(theta):
        model = handlers.seed(boundary_toy.model, jax.random.key(0))
        return log_density(model, (operator, *observations.model_args), {}, theta)[0]

    slope = gradient(dict(zip(("theta0", "theta1"), best, strict=True)))
    curvature = np.diag(design.T @ design) / observations.sigma**2
    assert (np.abs(list(slope.values())) < 1e-6 * curvature).all()


def test_gene_expression_closed_form_satisfies_the_equation():
    theta = gene_expression.truth
    problem = gene_expression.problem
    u = gene_expression.exact
    residuals = jax.vmap(lambda x: problem.residual(u, x, theta))(problem.points)
    assert np.abs(residuals).max() < 1e-10
    assert np.abs(problem.conditions(u, theta)["jump"][0]) < 1e-4  # the offset times u''
    nodes, weights = gene_expression.simpson()
    integral = weights @ gene_expression.closed_form(nodes, theta)
    assert float(integral) == pytest.approx(float(gene_expression.total(theta)), rel=1e-6)


def test_gene_expression_data_follow_the_intensity():
    """Kolmogorov-Smirnov against the closed form, and the number of particles."""
    x = np.sort(gene_expression.synthetic_data(5)["x"][:, 0])
    grid = np.linspace(0, 1, 2001)[:, None]
    u = np.asarray(gene_expression.closed_form(grid, gene_expression.truth))
    cdf = np.concatenate([[0.0], np.cumsum((u[1:] + u[:-1]) / 2)])
    distance = np.abs(np.interp(x, grid[:, 0], cdf / cdf[-1]) - np.arange(len(x)) / len(x)).max()
    mean = 100 * float(gene_expression.total(gene_expression.truth))
    assert distance < 1.63 / len(x) ** 0.5  # the 1 % level
    assert abs(len(x) - mean) < 4 * mean**0.5


def test_the_network_of_gene_expression_may_have_the_kink():
    """phi = |x - z| is an input, so that the jump row sees the kink of a smooth U(x, phi)."""
    problem = gene_expression.problem

    def u(x):
        inputs = problem.inputs(x, {})
        return 3.0 + inputs[0] ** 2 - 100 * (inputs[1] + 1) / 4

    row = problem.conditions(u, {"lam": 150.0})["jump"]
    assert float(row[0]) == pytest.approx((150.0 - 200.0) / 200, abs=1e-6)


def test_fisher_kpp_data_may_be_final_and_without_noise():
    final = fisher_kpp.synthetic_data(0, noise=0.0, times=1)
    assert (final["x"][:, 1] == 1).all()
    assert final["x"].shape == (11, 2)
    assert final["sigma"] > 0


@pytest.mark.slow
def test_the_shock_of_burgers_is_odd():
    shock = burgers.synthetic_data(0, noise=0.0, truth="shock", count=11)
    assert shock["x"].shape == (11, 2)
    np.testing.assert_allclose(shock["y"], -shock["y"][::-1], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("truth", ["shock", "rarefaction"])
def test_viscous_burgers_tends_to_the_entropy_solution(truth):
    """In L2 like the square root of the viscosity in layers, like its first power elsewhere."""
    theta = {"u0": burgers.truths[truth]}
    points = jnp.asarray(burgers.problem.domain.grid(401, 51))
    exact = jax.vmap(burgers.reference(1601).solve(theta, ())[0])(points)

    def error(viscosity):
        u, _, info = burgers.reference(401, viscosity=viscosity).solve(theta, ())
        assert info.converged
        return np.linalg.norm(jax.vmap(u)(points) - exact) / np.linalg.norm(exact)

    coarse, fine = error(2e-3), error(5e-4)
    assert fine < 0.05
    assert 2 < coarse / fine < 4  # for a quarter of the viscosity


@pytest.mark.slow
def test_the_bayesian_model_of_the_diffusion_has_a_density():
    operator = variable_poisson.reference(nodes=51)
    data = variable_poisson.synthetic_data(0)

    @jax.jit
    @jax.value_and_grad
    def density(a):
        args = (operator, data["x"], data["y"], data["sigma"])
        return log_density(variable_poisson.bayesian_model, args, {}, {"a": a})[0]

    rng = np.random.default_rng(0)
    at, way = 0.3 * rng.normal(size=(2, 10))
    numeric = float(density(at + 1e-6 * way)[0] - density(at - 1e-6 * way)[0]) / 2e-6
    assert float(density(at)[1] @ way) == pytest.approx(numeric, rel=1e-5)


def test_heat_initial_first_guess_has_all_derivatives():
    """Also at the middle, where its two halves meet, and at the ends."""
    points = heat_initial.SPACE.grid(11)
    curvature = jax.vmap(partial(heat_initial.start["f"], 0, 0))(points)
    np.testing.assert_allclose(curvature, -(np.pi**2) * np.sin(np.pi * points[:, 0]), atol=1e-4)


def test_fisher_kpp_leaves_out_two_corners():
    points = {tuple(p) for p in fisher_kpp.FisherKPP(5, 4).points}
    assert len(points) == 18
    assert not points & {(0.0, 0.0), (1.0, 0.0)}
    assert {(0.0, 1.0), (0.5, 0.0)} <= points
