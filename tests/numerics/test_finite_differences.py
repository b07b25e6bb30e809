"""The finite-difference reference solver against closed forms, and its derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bilo_ppl.fields import NetworkField, PiecewiseLinear, field_weights, with_field_weights
from bilo_ppl.numerics import FiniteDifferences, GridField
from bilo_ppl.pde.calculus import divergence, grad, laplacian, partial
from bilo_ppl.pde.domain import Box, interval
from bilo_ppl.pde.problem import Problem
from models import nonlinear_poisson, poisson, variable_poisson

SAMPLES = np.linspace(0.0, 1.0, 317)


def slope(nodes, errors):
    """Order of convergence: minus the slope of log error against log nodes."""
    return -np.polyfit(np.log(nodes), np.log(errors), 1)[0]


@eqx.filter_jit
def evaluate(u, points):
    return jax.vmap(u)(points)


def value(operator, name, where):
    """u at a point as a function of the parameter ``name``."""
    return lambda k: operator.solve({name: k}, ())[0](jnp.asarray([where]))


def by_differences(function, x, step=1e-4):
    return (function(x + step) - function(x - step)) / (2 * step)


@pytest.fixture(scope="module")
def branch():
    return FiniteDifferences(
        nonlinear_poisson.problem, theta={"k": 0.7}, guess=nonlinear_poisson.exact
    )


class Toy(Problem):
    """u'' = 2 with unknown boundary values (PROBLEMS.md, 9)."""

    parameters = ("theta",)
    components = 1
    domain = interval(0.0, 1.0)
    points = domain.grid(64)

    def residual(self, u, x, theta):
        return laplacian(u)(x) - 2.0

    def lift(self, x, raw, theta):
        a, b = theta["theta"]
        return a + (b - a) * x[0] + x[0] * (1 - x[0]) * raw


class CosineDiffusion(eqx.Module):
    """log D = sum_i a_i sqrt(l_i) cos(i pi x), l_i = 1 / (pi^2 i^2 + 9)."""

    coefficients: jax.Array

    def __call__(self, x):
        i = jnp.arange(1, self.coefficients.shape[0] + 1)
        scales = (jnp.pi**2 * i**2 + 9.0) ** -0.5
        return jnp.exp(jnp.sum(self.coefficients * scales * jnp.cos(i * jnp.pi * x[0])))


class VariableDiffusion(Problem):
    """(D u')' = -pi^2 sin(pi x), u = 0 at both ends."""

    parameters = ("D",)
    components = 1
    domain = interval(0.0, 1.0)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        flux = divergence(lambda y: theta["D"](y) * grad(u)(y))(x)
        return flux + jnp.pi**2 * jnp.sin(jnp.pi * x[0])

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


def test_poisson_converges_at_second_order():
    counts, errors = [51, 126, 401], []
    for n in counts:
        operator = FiniteDifferences(poisson.problem, n, theta={"D": 1.0})
        u, state, info = operator.solve({"D": 2.0}, operator.init_state())
        exact = np.sin(np.pi * SAMPLES) / 2
        errors.append(np.abs(evaluate(u, SAMPLES[:, None]) - exact).max())
        assert state == ()
        assert info.converged
        assert info.loss < 1e-16
    assert errors[-1] < 3e-6
    assert 1.95 < slope(counts, errors) < 2.05


def test_nonlinear_poisson_converges_at_second_order():
    counts, errors = [101, 251, 801], []
    points = nonlinear_poisson.problem.domain.grid(317)
    exact = jax.vmap(nonlinear_poisson.exact)(points)
    for n in counts:
        operator = FiniteDifferences(
            nonlinear_poisson.problem, n, theta={"k": 0.7}, guess=nonlinear_poisson.exact
        )
        u, _, info = operator.solve({"k": 0.7}, ())
        assert info.converged
        errors.append(np.abs(evaluate(u, points) - exact).max())
    assert errors[-1] < 4e-5
    assert 1.95 < slope(counts, errors) < 2.05


def test_the_refined_operator_is_that_of_half_the_distances():
    theta = {"k": 1.4}
    operator = FiniteDifferences(
        nonlinear_poisson.problem, 101, theta={"k": 0.7}, guess=nonlinear_poisson.exact
    ).refined()
    twice = FiniteDifferences(
        nonlinear_poisson.problem, 201, theta={"k": 0.7}, guess=nonlinear_poisson.exact
    )
    np.testing.assert_array_equal(operator.nodes, twice.nodes)
    np.testing.assert_allclose(
        operator.solve(theta, ())[0].values, twice.solve(theta, ())[0].values, atol=1e-12
    )


def test_the_refined_operator_has_the_jumps_where_they_were():
    theta = {"lam": 5.0, "mu": 10.0}
    operator = FiniteDifferences(
        PointSource(0.3183), 101, theta=theta, jumps={0.3183: lambda theta: -theta["lam"]}
    ).refined()
    ((node, _),) = operator.jumps
    assert operator.nodes[node] == pytest.approx(0.3183, abs=1e-15)
    assert len(operator.nodes) == 201
    assert operator.solve({"lam": 6.0, "mu": 10.0}, ())[2].converged


def test_gradient_in_theta_matches_the_closed_form():
    function = value(FiniteDifferences(poisson.problem, theta={"D": 1.0}), "D", 0.3)
    exact = -np.sin(0.3 * np.pi) / 1.7**2
    assert jax.jit(jax.grad(function))(1.7) == pytest.approx(exact, rel=1e-5)
    assert jax.jacfwd(function)(1.7) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("k", [0.52, 0.7, 0.8])
def test_gradient_in_theta_matches_central_differences(branch, k):
    function = jax.jit(value(branch, "k", 0.1))
    reverse, forward = jax.grad(function)(k), jax.jacfwd(function)(k)
    np.testing.assert_allclose(reverse, forward, rtol=1e-9)
    np.testing.assert_allclose(reverse, by_differences(function, k, 1e-5), rtol=1e-5)


def test_a_gradient_costs_one_more_tridiagonal_solve(branch):
    function = value(branch, "k", 0.1)
    plain = str(jax.make_jaxpr(function)(0.75)).count("tridiagonal_solve[")
    assert str(jax.make_jaxpr(jax.grad(function))(0.75)).count("tridiagonal_solve[") == plain + 1


def test_boundary_values_may_depend_on_a_vector_theta():
    operator = FiniteDifferences(Toy(), 21, theta={"theta": np.array([1.0, 2.0])})

    def at(theta, where):
        return operator.solve({"theta": theta}, ())[0](jnp.asarray([where]))

    theta, x = jnp.array([0.3, -0.4]), 0.37
    a, b = theta
    assert at(theta, x) == pytest.approx(float(x**2 + (b - a - 1) * x + a), abs=1e-12)
    np.testing.assert_allclose(jax.grad(at)(theta, x), [1 - x, x], atol=1e-12)
    np.testing.assert_allclose(jax.grad(at)(theta, 1.0), [0.0, 1.0], atol=1e-12)


def test_a_field_in_theta_is_differentiated():
    origin = {"D": CosineDiffusion(jnp.zeros(10))}
    operator = FiniteDifferences(VariableDiffusion(), 201, theta=origin)
    weights = jnp.cos(jnp.arange(201.0))

    @jax.jit
    def misfit(coefficients):
        u, _, info = operator.solve({"D": CosineDiffusion(coefficients)}, ())
        return jnp.sum(weights * u.values**2), info.converged

    at = jnp.asarray(np.random.default_rng(0).normal(size=10))
    assert misfit(at)[1]
    gradient = jax.grad(misfit, has_aux=True)(at)[0]
    numeric = [by_differences(lambda t, e=e: misfit(at + t * e)[0], 0.0) for e in jnp.eye(10)]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-7)


def test_a_variable_diffusion_matches_quadrature():
    """The flux D u' = pi cos(pi x) + c, with c such that u(1) = 0."""
    D = CosineDiffusion(jnp.asarray(np.random.default_rng(1).normal(size=10)))
    operator = FiniteDifferences(
        VariableDiffusion(), 801, theta={"D": CosineDiffusion(jnp.zeros(10))}
    )
    u, _, info = operator.solve({"D": D}, ())
    x = np.linspace(0, 1, 8001)
    inverse = 1 / np.asarray(jax.vmap(D)(x[:, None]))
    flux = np.pi * np.cos(np.pi * x)
    c = -np.trapezoid(inverse * flux, x) / np.trapezoid(inverse, x)
    du = inverse * (flux + c)
    exact = np.concatenate([[0.0], np.cumsum((du[1:] + du[:-1]) / 2 * np.diff(x))])
    assert info.converged
    np.testing.assert_allclose(u.values, exact[::10], atol=2e-5)


class Hat(eqx.Module):
    """D = 1 + min(x / kink, (1 - x) / (1 - kink))."""

    kink: jax.Array

    def __call__(self, x):
        return 1 + jnp.minimum(x[0] / self.kink, (1 - x[0]) / (1 - self.kink))


def by_quadrature(D, x):
    """The solution of `VariableDiffusion` at x: D u' = pi cos(pi x) + c, by the midpoint rule."""
    ends = np.linspace(0, 1, 200001)
    middle = (ends[1:] + ends[:-1]) / 2
    inverse = 1 / np.asarray(jax.vmap(D)(middle[:, None]))
    flux = np.pi * np.cos(np.pi * middle)
    du = inverse * (flux - np.sum(inverse * flux) / np.sum(inverse))
    return np.interp(x, ends, np.concatenate([[0.0], np.cumsum(du) * ends[1]]))


def test_a_kink_of_the_diffusion_keeps_the_second_order():
    """On a node, and between nodes; the fields need not be of the kind of the base field."""
    counts, errors = [51, 201], []
    for n in counts:
        operator = FiniteDifferences(VariableDiffusion(), n, theta={"D": lambda x: jnp.ones(())})
        found = [operator.solve({"D": Hat(jnp.array(k))}, ()) for k in (0.5, 0.3183)]
        assert all(info.converged for _, _, info in found)
        errors.append(
            [
                np.abs(u.values - by_quadrature(Hat(k), operator.nodes)).max()
                for k, (u, _, _) in zip((0.5, 0.3183), found, strict=True)
            ]
        )
    for per_kink in np.transpose(errors):
        assert per_kink[-1] < 3e-5
        assert 1.9 < slope(counts, per_kink) < 2.2


def test_a_network_field_in_theta_is_differentiated():
    field = NetworkField(
        interval(0.0, 1.0), width=8, lift=lambda x, raw: jnp.exp(raw), key=jax.random.key(0)
    )
    operator = FiniteDifferences(VariableDiffusion(), 51, theta={"D": field})
    weights = np.cos(np.arange(51.0))

    @jax.jit
    @jax.value_and_grad
    def misfit(flat):
        u = operator.solve({"D": with_field_weights(field, flat)}, ())[0]
        return weights @ u.values**2

    at = np.asarray(field_weights(field))
    way = np.random.default_rng(0).normal(size=at.shape)
    numeric = float(misfit(at + 1e-5 * way)[0] - misfit(at - 1e-5 * way)[0]) / 2e-5
    assert float(misfit(at)[1] @ way) == pytest.approx(numeric, rel=1e-6)


class PointSource(Toy):
    """u'' - mu u + lam delta(x - z) = 0 with u = 0 at both ends."""

    z: float = 0.5
    parameters = ("lam", "mu")

    def residual(self, u, x, theta):
        return laplacian(u)(x) - theta["mu"] * u(x)

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw

    def conditions(self, u, theta):
        after, before = (partial(u, 0)(jnp.array([self.z + s])) for s in (1e-7, -1e-7))
        return {"jump": jnp.reshape(after - before + theta["lam"], (1,))}

    def exact(self, x, lam, mu):
        root = np.sqrt(mu)
        low, high = np.minimum(x, self.z), np.maximum(x, self.z)
        return lam * np.sinh(root * low) * np.sinh(root * (1 - high)) / (root * np.sinh(root))


def test_a_point_source_is_a_jump_of_the_derivative():
    z = 0.3183
    problem, counts, errors = PointSource(z), [51, 201], []
    for n in counts:
        operator = FiniteDifferences(
            problem, n, theta={"lam": 5.0, "mu": 10.0}, jumps={z: lambda theta: -theta["lam"]}
        )
        u, _, info = operator.solve({"lam": 4.0, "mu": 15.0}, ())
        assert info.converged
        errors.append(np.abs(evaluate(u, SAMPLES[:, None]) - problem.exact(SAMPLES, 4, 15)).max())
        np.testing.assert_allclose(evaluate(u, u.nodes[:, None]), u.values, atol=1e-12)
    assert errors[-1] < 5e-5
    assert 1.9 < slope(counts, errors) < 2.1


def test_the_gradient_of_a_point_source_matches_the_closed_form():
    problem = PointSource(0.4)
    operator = FiniteDifferences(
        problem, 101, theta={"lam": 5.0, "mu": 10.0}, jumps={0.4: lambda theta: -theta["lam"]}
    )

    @jax.jit
    @jax.grad
    def gradient(theta):
        return operator.solve(theta, ())[0](jnp.asarray([0.4]))

    found = gradient({"lam": 4.0, "mu": 15.0})
    by_mu = by_differences(lambda mu: problem.exact(0.4, 4.0, mu), 15.0)
    assert float(found["mu"]) == pytest.approx(by_mu, rel=1e-3)
    assert float(found["lam"]) == pytest.approx(problem.exact(0.4, 1.0, 15.0), rel=1e-3)


def test_jumps_must_be_those_of_the_problem():
    theta = {"lam": 5.0, "mu": 10.0}
    with pytest.raises(ValueError, match="further conditions"):
        FiniteDifferences(PointSource(0.5), 21, theta=theta)
    with pytest.raises(ValueError, match="lie inside"):
        FiniteDifferences(PointSource(0.5), 21, theta=theta, jumps={1.0: lambda t: -t["lam"]})
    with pytest.raises(ValueError, match="at least 5 nodes"):
        FiniteDifferences(PointSource(0.1), 21, theta=theta, jumps={0.1: lambda t: -t["lam"]})


def test_solves_are_batched_by_vmap(branch):
    ks = jnp.array([0.55, 0.7, 0.9, 0.45])
    batched = jax.jit(jax.vmap(lambda k: branch.solve({"k": k}, ())[::2]))(ks)
    assert batched[1].converged.tolist() == [True, True, True, False]
    for i, k in enumerate(ks):
        u = branch.solve({"k": k}, ())[0]
        np.testing.assert_allclose(batched[0].values[i], u.values, atol=1e-10)


def test_below_the_fold_nothing_converges(branch):
    solve = jax.jit(lambda k: branch.solve({"k": k}, ()))
    derivative = jax.jit(jax.grad(value(branch, "k", 0.1)))
    for k in [-1.0, 0.1, 0.3, 0.45, 0.505]:
        u, _, info = solve(k)
        assert not info.converged
        assert info.loss > 1e-8
        assert np.isfinite(u.values).all()
        assert derivative(k) == 0
    assert solve(0.51)[2].converged


@pytest.mark.parametrize("k", [np.nan, np.inf])
def test_an_absurd_theta_is_not_converged(branch, k):
    assert not jax.jit(lambda k: branch.solve({"k": k}, ())[2].converged)(k)


def test_the_branch_is_followed(branch):
    ks = jnp.linspace(0.55, 2.5, 79)
    u, info = jax.lax.map(lambda k: branch.solve({"k": k}, ())[::2], ks)
    assert info.converged.all()
    jumps = jnp.abs(jnp.diff(u.values, axis=0)).max(axis=1)
    assert jumps.max() < 0.15  # |du/dk| is at most 4 there
    assert float(jnp.abs(u.values[18]).max()) == pytest.approx(1.59, abs=0.02)


def test_more_stops_give_the_same_solution(branch):
    other = FiniteDifferences(
        nonlinear_poisson.problem,
        theta={"k": 0.7},
        guess=nonlinear_poisson.exact,
        continuation_steps=8,
    )
    near, far = (o.solve({"k": 0.8}, ()) for o in (branch, other))
    np.testing.assert_allclose(near[0].values, far[0].values, atol=1e-10)
    assert far[2].converged


def test_too_few_newton_steps_are_reported():
    operator = FiniteDifferences(
        nonlinear_poisson.problem,
        theta={"k": 0.7},
        guess=nonlinear_poisson.exact,
        max_steps=4,
    )
    assert not operator.solve({"k": 1.0}, ())[2].converged


def test_grid_field_interpolates_at_fourth_order():
    counts, errors = [21, 41, 81, 161], []
    points = SAMPLES[:, None]
    for n in counts:
        x = np.linspace(0, 1, n)
        u = GridField(x, np.sin(3 * x))
        errors.append(np.abs(evaluate(u, points) - np.sin(3 * SAMPLES)).max())
        np.testing.assert_allclose(evaluate(u, x[:, None]), u.values, atol=1e-14)
    assert slope(counts, errors) == pytest.approx(4, abs=0.15)
    first = evaluate(partial(u, 0), points) - 3 * np.cos(3 * SAMPLES)
    second = evaluate(laplacian(u), points) + 9 * np.sin(3 * SAMPLES)
    assert np.abs(first).max() < 1e-5
    assert np.abs(second).max() < 5e-3
    assert u(jnp.asarray(0.4)) == u(jnp.asarray([0.4]))


def test_it_works_in_single_precision():
    with jax.enable_x64(False):
        operator = FiniteDifferences(
            nonlinear_poisson.problem, theta={"k": 0.7}, guess=nonlinear_poisson.exact
        )
        u, _, info = operator.solve({"k": 0.8}, ())
        assert u.values.dtype == jnp.float32
        assert info.converged
        assert u(jnp.asarray([0.1])) == pytest.approx(0.329089, abs=1e-4)


class TwoComponents(Toy):
    components = 2


class Plane(Toy):
    domain = Box((0.0, 0.0), (1.0, 1.0))
    points = domain.grid(5, 5)


class VectorResidual(Toy):
    def residual(self, u, x, theta):
        return jnp.stack([laplacian(u)(x), u(x)])


class WithConditions(Toy):
    def conditions(self, u, theta):
        return {"mean": jnp.reshape(u(jnp.asarray([0.5])), (1,))}


class ThirdOrder(Toy):
    def residual(self, u, x, theta):
        return laplacian(u)(x) - partial(u, 0, 0, 0)(x)


class NoSolution(Toy):
    def residual(self, u, x, theta):
        return laplacian(u)(x) + 100 * jnp.exp(u(x))  # Bratu: none above 3.51


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (TwoComponents(), "2 components"),
        (Plane(), "2 dimensions"),
        (VectorResidual(), "must be a scalar"),
        (WithConditions(), "further conditions"),
        (ThirdOrder(), "depends on something else"),
        (NoSolution(), "did not converge"),
    ],
)
def test_unsuitable_problems_are_refused(problem, message):
    with pytest.raises(ValueError, match=message):
        FiniteDifferences(problem, 21, theta={"theta": np.zeros(2)})


def test_unsuitable_arguments_are_refused():
    theta = {"theta": np.zeros(2)}
    with pytest.raises(ValueError, match="at least 5 nodes"):
        FiniteDifferences(Toy(), 4, theta=theta)
    with pytest.raises(ValueError, match="unknown"):
        FiniteDifferences(Toy(), theta={"k": 1.0})
    with pytest.raises(ValueError, match="not finite"):
        FiniteDifferences(Toy(), theta={"theta": np.array([0.0, np.nan])})
    with pytest.raises(ValueError, match="guess must give"):
        FiniteDifferences(Toy(), theta=theta, guess=lambda x: x)
    operator = FiniteDifferences(Toy(), theta=theta)
    with pytest.raises(ValueError, match="shapes"):
        operator.solve({"theta": np.zeros(3)}, ())
    with pytest.raises(ValueError, match=r"missing \['theta'\], unknown \['other'\]"):
        operator.solve({"other": np.zeros(2)}, ())


def test_with_a_coefficient_linear_between_its_nodes_it_is_the_method_of_linear_elements():
    nodes, h = np.linspace(0.0, 1.0, 21), 0.05
    D = 1 + np.random.default_rng(0).uniform(size=21)
    # Integrals of D phi_i' phi_j' are means over a cell, and a lumped load is h f(x_i).
    cells = (D[1:] + D[:-1]) / 2 / h
    stiffness = np.diag(cells[1:] + cells[:-1]) - np.diag(cells[1:-1], 1) - np.diag(cells[1:-1], -1)
    u = np.linalg.solve(stiffness, h * np.pi**2 * np.sin(np.pi * nodes[1:-1]))
    field = variable_poisson.reference(21).solve({"D": PiecewiseLinear(D)}, ())[0]
    np.testing.assert_allclose(field.values[1:-1], u, rtol=1e-10)
