"""The time-stepping reference solvers against exact solutions, and their derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from bilo_ppl.fields import KarhunenLoeve
from bilo_ppl.numerics import Godunov, GridField2D, MethodOfLines
from bilo_ppl.pde.calculus import divergence, grad, partial
from bilo_ppl.pde.domain import Box, interval, space_time
from bilo_ppl.pde.problem import Problem

SAMPLES = np.random.default_rng(0).uniform(size=(200, 2))


def slope(nodes, errors):
    """Order of convergence: minus the slope of log error against log nodes."""
    return -np.polyfit(np.log(nodes), np.log(errors), 1)[0]


@eqx.filter_jit
def evaluate(u, points):
    return jax.vmap(u)(points)


def assert_slope(value_and_gradient, at, way, step, tolerance):
    """The gradient along a direction, against central differences."""
    after, before = (float(value_and_gradient(at + s * way)[0]) for s in (step, -step))
    slope = float(value_and_gradient(at)[1] @ way)
    assert slope == pytest.approx((after - before) / (2 * step), rel=tolerance)


class Sines(eqx.Module):
    """sum_i a_i sin(i pi x)."""

    coefficients: jax.Array

    def __call__(self, x):
        a = jnp.asarray(self.coefficients)
        return jnp.sum(a * jnp.sin(jnp.arange(1, a.size + 1) * jnp.pi * x[0]))


class Evolution(Problem):
    parameters = ("D",)
    components = 1
    domain = space_time(interval(0.0, 1.0), 1.0)
    points = domain.grid(5, 5)

    def residual(self, u, x, theta):
        return partial(u, 1)(x) - theta["D"] * partial(u, 0, 0)(x)

    def lift(self, x, raw, theta):
        return jnp.sin(jnp.pi * x[0]) + x[0] * (1 - x[0]) * x[1] * raw


def decay(x, D):
    return np.exp(-D * np.pi**2 * x[:, 1]) * np.sin(np.pi * x[:, 0])


class Wave(Evolution):
    """Fisher's equation with the travelling wave of Ablowitz and Zeppetella (1979)."""

    parameters = ("D", "rho")

    def residual(self, u, x, theta):
        return super().residual(u, x, theta) - theta["rho"] * u(x) * (1 - u(x))

    def exact(self, x, theta):
        root = jnp.sqrt(theta["rho"] / (6 * theta["D"]))
        return (1 + jnp.exp(root * (x[0] - 0.3) - 5 / 6 * theta["rho"] * x[1])) ** -2

    def lift(self, x, raw, theta):
        def since_start(y):
            place = jnp.full_like(x, y)
            return self.exact(place.at[1].set(x[1]), theta) - self.exact(place.at[1].set(0), theta)

        start = self.exact(x.at[1].set(0), theta)
        ends = (1 - x[0]) * since_start(0.0) + x[0] * since_start(1.0)
        return start + ends + x[0] * (1 - x[0]) * x[1] * raw


class Variable(Evolution):
    """u_t = (D(x) u_x)_x with unknown D and initial value f."""

    parameters = ("D", "f")

    def residual(self, u, x, theta):
        flux = divergence(lambda y: theta["D"](y[:1]) * grad(u)(y)[:1], axes=(0,))
        return partial(u, 1)(x) - flux(x)

    def lift(self, x, raw, theta):
        return theta["f"](x) + x[0] * (1 - x[0]) * x[1] * raw


class Burgers(Evolution):
    parameters = ("u0",)

    def residual(self, u, x, theta):
        return 2 * partial(u, 1)(x) + 0.4 * u(x) * partial(u, 0)(x)

    def lift(self, x, raw, theta):
        return theta["u0"](x) + x[0] * (1 - x[0]) * x[1] * raw


def burgers_flux(u):
    return 0.1 * u**2


def along_characteristics(coefficients, x, t):
    """u0 where the characteristic through (x, t) starts."""

    def initial(s):
        return sum(a * np.sin(i * np.pi * s) for i, a in enumerate(coefficients, 1))

    starts = [brentq(lambda s, x=x: s + 0.2 * t * initial(s) - x, 0, 1) for x in x]
    return np.array([initial(s) for s in starts])


def test_heat_converges_at_second_order_in_time():
    counts, errors = [11, 41], []
    for n in counts:
        operator = MethodOfLines(Evolution(), 401, n, theta={"D": 1.0})
        u, state, info = operator.solve({"D": 0.3}, operator.init_state())
        errors.append(np.abs(evaluate(u, SAMPLES) - decay(SAMPLES, 0.3)).max())
        assert state == ()
        assert info.converged
        assert info.loss < 1e-20
    assert errors[-1] < 1e-4
    assert 1.9 < slope(counts, errors) < 2.3


def test_a_travelling_wave_converges_at_second_order_with_its_boundary_values():
    theta = {"D": 0.01, "rho": 4.0}
    counts, errors = [51, 151], []
    exact = evaluate(lambda x: Wave().exact(x, theta), SAMPLES)
    for n in counts:
        u, _, info = MethodOfLines(Wave(), n, n, theta=theta).solve(theta, ())
        errors.append(np.abs(evaluate(u, SAMPLES) - exact).max())
        assert info.converged
        assert info.loss < 1e-9
    assert errors[-1] < 5e-5
    assert 1.95 < slope(counts, errors) < 2.05


def test_refined_operators_are_those_of_half_the_distances():
    theta = {"D": 0.01, "rho": 4.0}
    twice = MethodOfLines(Wave(), 41, 61, theta=theta)
    found = MethodOfLines(Wave(), 21, 31, theta=theta).refined()
    np.testing.assert_allclose(found.solve(theta, ())[0].values, twice.solve(theta, ())[0].values)
    theta = {"u0": Sines(jnp.array([0.5, 0.25]))}
    coarse = Godunov(Burgers(), burgers_flux, 51, theta=theta, max_speed=0.2)
    found = coarse.refined()
    assert (len(found.nodes), len(found.times)) == (101, 2 * len(coarse.times) - 1)
    x = np.linspace(0.01, 0.99, 99)
    points = np.stack([x, np.full_like(x, 0.9)], axis=1)
    exact = along_characteristics([0.5, 0.25], x, 0.9)
    errors = [
        np.abs(evaluate(op.solve(theta, ())[0], points) - exact).mean() for op in (coarse, found)
    ]
    assert errors[1] < 0.6 * errors[0]


def test_gradient_in_scalars_matches_central_differences():
    operator = MethodOfLines(Wave(), 31, 31, theta={"D": 0.01, "rho": 4.0})
    weights = np.cos(np.arange(len(SAMPLES)))

    @jax.jit
    @jax.value_and_grad
    def misfit(point):
        u = operator.solve({"D": point[0], "rho": point[1]}, ())[0]
        return weights @ jax.vmap(u)(SAMPLES) ** 2

    at = np.array([0.02, 3.0])
    for e, step in zip(np.eye(2), (1e-6, 1e-4), strict=True):
        assert_slope(misfit, at, e, step, 1e-6)


def test_gradient_in_fields_matches_central_differences():
    base = {"D": KarhunenLoeve(jnp.zeros(4)), "f": Sines(jnp.ones(3))}
    operator = MethodOfLines(Variable(), 21, 21, theta=base)

    @jax.jit
    @jax.value_and_grad
    def misfit(a):
        u = operator.solve({"D": KarhunenLoeve(a[:4]), "f": Sines(a[4:])}, ())[0]
        return jnp.sum(u.values**2)

    rng = np.random.default_rng(1)
    assert_slope(misfit, rng.normal(size=7), rng.normal(size=7), 1e-5, 1e-7)


def test_where_newton_fails_it_is_reported_and_the_values_stay_finite():
    operator = MethodOfLines(Wave(), 31, 11, theta={"D": 0.01, "rho": 4.0}, max_newton_steps=2)

    def solve(D, rho):
        u, _, info = operator.solve({"D": D, "rho": rho}, ())
        return jnp.sum(u.values), (u.values, info)

    Ds, rhos = jnp.array([0.01, 1.0, jnp.nan]), jnp.array([60.0, 0.01, 1.0])
    gradients, (values, info) = jax.jit(jax.vmap(jax.grad(solve, (0, 1), has_aux=True)))(Ds, rhos)
    assert info.converged.tolist() == [False, True, False]
    assert np.isfinite(values[:2]).all()
    assert all(np.isfinite(g[:2]).all() for g in gradients)
    x, t = np.meshgrid(operator.nodes, operator.times, indexing="ij")
    points = np.stack([x.ravel(), t.ravel()], axis=1)
    exact = evaluate(lambda x: Wave().exact(x, {"D": 1.0, "rho": 0.01}), points)
    np.testing.assert_allclose(values[1].ravel(), exact, atol=1e-6)


def test_it_works_in_single_precision():
    with jax.enable_x64(False):
        operator = MethodOfLines(Evolution(), 41, 41, theta={"D": 1.0})
        u, _, info = operator.solve({"D": 0.1}, ())
        assert u.values.dtype == jnp.float32
        assert info.converged
        points = SAMPLES.astype(np.float32)
        np.testing.assert_allclose(jax.vmap(u)(points), decay(points, 0.1), atol=1e-3)


def test_smooth_burgers_converges_at_first_order():
    theta = {"u0": Sines(jnp.array([0.5, 0.25]))}
    x = np.linspace(0.01, 0.99, 99)
    points = np.stack([x, np.full_like(x, 0.9)], axis=1)
    exact = along_characteristics([0.5, 0.25], x, 0.9)
    counts, errors = [101, 201, 401], []
    for n in counts:
        operator = Godunov(Burgers(), burgers_flux, n, theta=theta, max_speed=0.2)
        u, _, info = operator.solve(theta, operator.init_state())
        errors.append(np.abs(evaluate(u, points) - exact).mean())
        assert info.converged
    assert errors[-1] < 7e-4
    assert 0.95 < slope(counts, errors) < 1.1


@pytest.fixture(scope="module")
def burgers():
    theta = {"u0": Sines(jnp.zeros(3))}
    return Godunov(Burgers(), burgers_flux, 201, theta=theta, max_speed=0.2)


def test_a_shock_stands_where_it_should(burgers):
    """sin(2 pi x) steepens into a shock at x = 1/2, odd about it."""
    u = burgers.solve({"u0": Sines(jnp.array([0.0, 1.0, 0.0]))}, ())[0]
    x = np.linspace(0.01, 0.49, 49)
    # Left of the shock the characteristic comes from the left: the smallest root.
    roots = [brentq(lambda s, x=x: s + 0.2 * np.sin(2 * np.pi * s) - x, 0, x) for x in x]
    exact = np.sin(2 * np.pi * np.array(roots))
    left = evaluate(u, np.stack([x, np.ones_like(x)], axis=1))
    right = evaluate(u, np.stack([1 - x, np.ones_like(x)], axis=1))
    assert np.abs(left - exact).mean() < 5e-3
    assert left[-1] > 0.6
    np.testing.assert_allclose(right, -left, atol=1e-12)


def test_a_rarefaction_is_the_entropy_solution(burgers):
    u = burgers.solve({"u0": Sines(jnp.array([0.0, -1.0, 0.0]))}, ())[0]
    x = np.linspace(0.2, 0.8, 61)
    exact = along_characteristics([0.0, -1.0], x, 0.6)
    found = evaluate(u, np.stack([x, np.full_like(x, 0.6)], axis=1))
    assert np.abs(found - exact).max() < 0.02


def test_godunov_conserves_and_diminishes_variation(burgers):
    values = burgers.solve({"u0": Sines(jnp.array([0.0, 0.7, 0.2]))}, ())[0].values
    sizes = np.abs(np.diff(values, axis=0)).sum(axis=0)
    assert (np.diff(sizes) < 1e-12).all()
    assert sizes[-1] < sizes[0] - 0.01
    # The ends are at rest, with the flow away from the left one and f(u) through the right one.
    mass, ratio = values[1:-1].sum(axis=0), burgers.times[1] * 200
    outflow = 0.1 * np.maximum(values[-2, :-1], 0) ** 2 - 0.1 * np.minimum(values[1, :-1], 0) ** 2
    np.testing.assert_allclose(np.diff(mass), -ratio * outflow, atol=1e-12)


def test_gradient_through_a_shock_matches_central_differences(burgers):
    weights = np.cos(np.arange(len(SAMPLES)))

    @jax.jit
    @jax.value_and_grad
    def misfit(a):
        return weights @ jax.vmap(burgers.solve({"u0": Sines(a)}, ())[0])(SAMPLES) ** 2

    way = np.array([0.3, -0.5, 0.2])
    for at in (np.array([0.5, 0.25, 0.1]), np.array([0.1, 0.8, -0.05])):
        assert_slope(misfit, at, way, 1e-6, 1e-6)


def test_a_solution_that_is_too_fast_is_not_converged(burgers):
    u, _, info = burgers.solve({"u0": Sines(jnp.array([3.0, 0.0, 0.0]))}, ())
    assert not info.converged
    assert np.isfinite(u.values).all()


def test_grid_field_2d_interpolates_at_fourth_and_second_order():
    def f(x):
        return np.sin(3 * x[:, 0]) * np.exp(x[:, 1])

    for degree, order in ((3, 4), (1, 2)):
        counts, errors = [11, 21, 41], []
        for n in counts:
            x, y = np.linspace(0, 1, n), np.linspace(0, 1, n + 2)
            nodes = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
            u = GridField2D(x, y, jnp.asarray(f(nodes).reshape(n, n + 2)), degree=degree)
            errors.append(np.abs(evaluate(u, SAMPLES) - f(SAMPLES)).max())
            np.testing.assert_allclose(evaluate(u, nodes), f(nodes), atol=1e-13)
        assert slope(counts, errors) == pytest.approx(order, abs=0.25)


def test_grid_field_2d_checks_its_values():
    x = np.linspace(0, 1, 5)
    with pytest.raises(ValueError, match="degree"):
        GridField2D(x, x, jnp.zeros((5, 5)), degree=2)
    with pytest.raises(ValueError, match="must agree"):
        GridField2D(x, x[:3], jnp.zeros((5, 3)))


class Interval(Evolution):
    domain = interval(0.0, 1.0)
    points = domain.grid(5)


class Square(Evolution):
    domain = Box((0.0, 0.0), (1.0, 1.0))


class TimeFirst(Evolution):
    domain = Box((0.0, 0.0), (1.0, 1.0), time=0)


class Steady(Evolution):
    def residual(self, u, x, theta):
        return partial(u, 0, 0)(x) - theta["D"]


class Vibration(Evolution):
    def residual(self, u, x, theta):
        return partial(u, 1)(x) + partial(u, 1, 1)(x) - theta["D"] * partial(u, 0, 0)(x)


class NoInitialValue(Evolution):
    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


class NoBoundaryValue(Evolution):
    def lift(self, x, raw, theta):
        return jnp.sin(jnp.pi * x[0]) + x[0] * x[1] * raw


class WithConditions(Evolution):
    def conditions(self, u, theta):
        return {"mean": jnp.reshape(u(jnp.array([0.5, 0.5])), (1,))}


class VectorResidual(Evolution):
    def residual(self, u, x, theta):
        return jnp.stack([super().residual(u, x, theta), u(x)])


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (Interval(), "1 dimensions"),
        (Square(), r"Square.domain has no time; make it by space_time\(interval"),
        (TimeFirst(), "TimeFirst.domain has time first"),
        (Steady(), "does not depend on u_t"),
        (Vibration(), "depends on something else"),
        (NoInitialValue(), "initial values"),
        (NoBoundaryValue(), "boundary values"),
        (WithConditions(), "further conditions"),
        (VectorResidual(), "must be a scalar"),
    ],
)
def test_unsuitable_problems_are_refused(problem, message):
    with pytest.raises(ValueError, match=message):
        MethodOfLines(problem, 11, 11, theta={"D": 1.0})


def test_unsuitable_arguments_are_refused():
    theta = {"D": 1.0}
    with pytest.raises(ValueError, match="at least 5 nodes"):
        MethodOfLines(Evolution(), 4, 11, theta=theta)
    with pytest.raises(ValueError, match="at least 5 nodes"):
        Godunov(Burgers(), burgers_flux, 3, theta={"u0": Sines(jnp.ones(1))}, max_speed=1.0)
    with pytest.raises(ValueError, match="positive speed"):
        Godunov(Burgers(), burgers_flux, theta={"u0": Sines(jnp.ones(1))}, max_speed=0.0)
    with pytest.raises(ValueError, match="unknown"):
        MethodOfLines(Evolution(), theta={"k": 1.0})


@pytest.mark.parametrize(
    ("flux", "message"),
    [
        (lambda u: 0.2 * u**2, "it has the speed"),
        (lambda u: -0.1 * u**2, "convex"),
        (lambda u: 0.1 * (u - 1) ** 2, "minimum at sonic"),
    ],
)
def test_a_flux_that_does_not_fit_is_refused(flux, message):
    with pytest.raises(ValueError, match=message):
        Godunov(Burgers(), flux, theta={"u0": Sines(jnp.ones(1))}, max_speed=1.0)
