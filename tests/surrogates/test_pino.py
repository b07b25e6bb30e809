"""PINO: what the equation says of values on a grid, and what is learnt from that alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import bilo_ppl as bilo
from bilo_ppl.baselines import fit_pino
from bilo_ppl.surrogates import (
    DeepONet,
    equation_error,
    on_grid,
    relative_errors,
    solve_all,
    train_pino,
)

NOISE = 1e-4


class Darcy(bilo.Problem):
    """-div(A grad u) = 1 on a rectangle, A = a (1 + x y), u = 0 on the boundary."""

    parameters, components = ("a",), 1
    domain = bilo.Box((0.0, 0.0), (1.0, 1.5))
    points = domain.grid(5, 5)

    def residual(self, u, x, theta):
        return bilo.divergence(lambda y: permeability(theta)(y) * bilo.grad(u)(y))(x) + 1

    def lift(self, x, raw, theta):
        return bilo.bubble(self.domain, x) * raw


def permeability(theta):
    return lambda x: theta["a"] * (1 + x[0] * x[1])


def scheme_of(n, m):
    return bilo.FiniteVolumes(
        Darcy(), (n, m), theta={"a": 1.0}, coefficient=permeability, source=lambda theta: 1.0
    )


@pytest.fixture(scope="module")
def scheme():
    return scheme_of(8, 10)


@pytest.fixture(scope="module")
def data(scheme):
    return solve_all(scheme, {"a": np.linspace(1.0, 2.0, 20)}, Darcy.domain.grid(9, 11))


@pytest.fixture(scope="module")
def by_the_equation(scheme, data):
    """Trained on no solution."""
    return train_pino(
        scheme,
        data,
        key=jax.random.key(0),
        steps=2500,
        data_weight=0,
        progress=False,
        channels=8,
        modes=3,
        depth=1,
    )


def model(operator, x, y=None):
    a = numpyro.sample("a", dist.LogNormal(0.4, 0.5))
    u = bilo.solution("u", operator, {"a": a})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), NOISE), obs=y)


def test_the_residual_vanishes_at_the_solution_and_nowhere_else(scheme):
    u, _, _ = scheme.solve({"a": 1.3}, ())
    assert jnp.abs(scheme.residual({"a": 1.3}, u.values)).max() < 1e-8
    # With twice the permeability the flux out of a cell is 2 and not 1.
    np.testing.assert_allclose(scheme.residual({"a": 2.6}, u.values), 1.0, rtol=1e-8)
    np.testing.assert_allclose(scheme.residual({"a": 1.3}, 0 * u.values), -1.0, rtol=1e-12)


def test_at_a_smooth_function_the_residual_is_the_equation_to_second_order():
    """For u = sin(2 x) cos(y), which is not 0 on the boundary."""

    def u(x):
        return jnp.sin(2 * x[0]) * jnp.cos(x[1])

    theta, schemes = {"a": 1.3}, {n: scheme_of(n, n) for n in (8, 16)}

    def off(n):
        points = jnp.asarray(Darcy.domain.grid(n + 1, n + 1))
        inner = jnp.asarray(Darcy.domain.interior_grid(n + 1, n + 1))
        found = schemes[n].residual(theta, jax.vmap(u)(points).reshape(n + 1, n + 1))
        exact = -jax.vmap(lambda x: Darcy().residual(u, x, theta))(inner)
        return jnp.abs(found.ravel() - exact).max()

    coarse, fine = jax.jit(lambda: (off(8), off(16)))()
    assert coarse < 0.1
    assert float(coarse / fine) == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("smoothed", [True, False])
def test_the_error_by_the_equation_is_relative_and_squared(scheme, smoothed):
    u, _, _ = scheme.solve({"a": 1.3}, ())
    assert equation_error(scheme, {"a": 1.3}, u.values, smoothed=smoothed) < 1e-14
    for factor in (0.0, 1.2):
        found = equation_error(scheme, {"a": 1.3}, factor * u.values, smoothed=smoothed)
        assert float(found) == pytest.approx((1 - factor) ** 2, rel=1e-6)


def test_smoothed_it_is_the_error_of_u_whatever_its_frequency():
    """Where A is constant. Of two errors of one size the paper's residual sees one 100 times larger."""
    scheme = bilo.FiniteVolumes(
        Flat(), (16, 16), theta={"a": 2.0}, coefficient=lambda t: t["a"], source=lambda t: 1.0
    )
    u = scheme.solve({"a": 2.0}, ())[0].values
    x, y = np.meshgrid(*scheme.nodes, indexing="ij")
    seen = []
    for k in (1, 7):
        wave = jnp.asarray(np.sin(k * np.pi * x) * np.sin(k * np.pi * y)) * 1e-3
        wanted = float(jnp.sum(wave**2) / jnp.sum(u**2))
        found = equation_error(scheme, {"a": 2.0}, u + wave)
        assert float(found) == pytest.approx(wanted, rel=1e-6)
        seen.append(float(equation_error(scheme, {"a": 2.0}, u + wave, smoothed=False)))
    assert seen[1] > 100 * seen[0]


class Flat(Darcy):
    """The same with A = a on the unit square."""

    domain = bilo.Box((0.0, 0.0), (1.0, 1.0))

    def residual(self, u, x, theta):
        return theta["a"] * bilo.laplacian(u)(x) + 1


def test_the_equation_alone_teaches_the_solutions(data, by_the_equation):
    assert by_the_equation.errors.max() < 0.05
    # Not only those of the test, which is two of twenty.
    assert relative_errors(by_the_equation.surrogate, data).max() < 0.05


def test_on_the_grid_u_is_what_it_is_at_points(data, by_the_equation):
    surrogate, theta = by_the_equation.surrogate, {"a": jnp.array(1.4)}
    at_points = jax.vmap(surrogate.field(theta))(jnp.asarray(data.points))
    np.testing.assert_allclose(on_grid(surrogate, theta).ravel(), at_points, atol=1e-6)


def test_an_instance_is_tuned_by_data_and_equation(scheme, by_the_equation):
    """Outside of what was trained on, where the operator is wrong until it is tuned."""
    theta = {"a": 2.5}
    u, _, _ = scheme.solve(theta, ())
    x = Darcy.domain.interior_grid(6, 6)
    y = np.asarray(jax.vmap(u)(jnp.asarray(x)))
    surrogate = by_the_equation.surrogate
    found = fit_pino(
        model,
        jax.random.key(0),
        surrogate,
        x,
        y,
        scheme=scheme,
        steps=1500,
        optimizer=optax.adam(2e-3),
        progress=False,
    )
    assert found.values["a"] == pytest.approx(2.5, rel=0.02)
    before = equation_error(scheme, found.theta, on_grid(surrogate, found.theta))
    assert found.equation_error < 0.1 * before
    np.testing.assert_allclose(found.solution(x), y, rtol=0.05)
    frozen = jax.vmap(surrogate.field(theta))(jnp.asarray(x))
    assert np.linalg.norm(frozen - y) > 0.05 * np.linalg.norm(y)


def test_what_does_not_fit_is_refused(scheme, data, by_the_equation):
    options = {"key": jax.random.key(0), "steps": 2, "progress": False}
    other = data._replace(points=data.points[::-1])
    with pytest.raises(ValueError, match=r"not the 9 x 11 nodes of the scheme"):
        train_pino(scheme, other, **options)
    with pytest.raises(ValueError, match=r"not the 9 x 9 nodes"):
        train_pino(scheme_of(8, 8), data, **options)
    with pytest.raises(ValueError, match="neither can be negative"):
        train_pino(scheme, data, data_weight=0, equation_weight=0, **options)
    with pytest.raises(ValueError, match=r"8 x 10 cells have 9 x 11 nodes"):
        scheme.residual({"a": 1.0}, jnp.zeros((9, 10)))

    surrogate, key = by_the_equation.surrogate, jax.random.key(0)
    network = DeepONet(2, 1, 1, width=2, depth=1, terms=1, key=key)
    with pytest.raises(ValueError, match="needs an FNO"):
        on_grid(eqx.tree_at(lambda s: s.network, surrogate, network), {"a": 1.0})
    x = Darcy.domain.interior_grid(3, 3)
    fit = {"steps": 2, "progress": False}
    with pytest.raises(ValueError, match="is a FiniteVolumes; give the surrogate"):
        fit_pino(model, key, scheme, x, np.ones(1), scheme=scheme, **fit)
    with pytest.raises(ValueError, match=r"\(9, 11\) points and the scheme \(9, 9\)"):
        fit_pino(model, key, surrogate, x, np.ones(1), scheme=scheme_of(8, 8), **fit)
    with pytest.raises(ValueError, match="give a positive weight"):
        fit_pino(model, key, surrogate, x, np.ones(1), scheme=scheme, data_weight=0, **fit)
