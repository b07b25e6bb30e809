"""An output layer that looks between known solutions first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bilo_ppl as bilo
from models import nonlinear_poisson


class Transport(bilo.Problem):
    """D u'' + c u' = -1 with u = 0 at both ends."""

    parameters, components, domain = ("c", "D"), 1, bilo.interval(0.0, 1.0)
    points = domain.grid(61)

    def residual(self, u, x, theta):
        diffusion = theta["D"] * bilo.laplacian(u)(x)
        return diffusion + theta["c"] * bilo.partial(u, 0)(x) + 1.0

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


class Chain(bilo.Problem):
    """a' = -k a, b' = k a - m b, from (1, 0), with a row at the end that holds for nothing else."""

    parameters, components, domain = ("k", "m"), 2, bilo.interval(0.0, 1.0)
    points = domain.grid(61)

    def residual(self, u, x, theta):
        a, b = u(x)
        da, db = bilo.partial(u, 0)(x)
        return jnp.stack([da + theta["k"] * a, db - theta["k"] * a + theta["m"] * b])

    def conditions(self, u, theta):
        return {"start": u(jnp.array([0.0]))[1:]}

    def lift(self, x, raw, theta):
        return jnp.stack([1 + x[0] * raw[0], raw[1]])


def exact_transport(x, c, D):
    return (1 - jnp.exp(-c * x / D)) / (1 - jnp.exp(-c / D)) / c - x / c


def exact_chain(x, k, m):
    a = jnp.exp(-k * x)
    return jnp.stack([a, k / (m - k) * (a - jnp.exp(-m * x))])


CASES = {
    "transport": (Transport(), {"c": 1.0, "D": 0.5}, exact_transport),
    "chain": (Chain(), {"k": 1.0, "m": 2.5}, exact_chain),
}
TOLERANCE = 1e-8


def spread(home, count, seed=0):
    rng = np.random.default_rng(seed)
    return {n: v * jnp.exp(0.2 * jnp.asarray(rng.normal(size=count))) for n, v in home.items()}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    problem, home, exact = CASES[request.param]
    key = jax.random.key(0)
    local, _ = bilo.choose_random_features(problem, [home], count=30, key=key)
    whole = bilo.OutputLayer(local, home, tolerance=TOLERANCE)
    fitted, report = whole.fitted_to(spread(home, 40), rank=8, steps=10, key=key, progress=False)
    assert report.converged
    return whole, fitted, home, exact


def solve(operator, theta):
    return operator.solve(theta, operator.init_state())


def test_few_directions_are_enough_near_the_solutions_that_are_known(case):
    whole, fitted, home, exact = case
    size = whole.init_state().size
    assert 2 < len(fitted.reduced.directions) < size / 2
    x = np.linspace(0, 1, 17)[:, None]
    for seed in range(5):
        theta = {n: v[0] for n, v in spread(home, 1, 100 + seed).items()}
        field, state, info = solve(fitted, theta)
        _, _, other = solve(whole, theta)
        assert info.converged
        assert info.steps == 1
        # No better than the best, and hardly worse.
        assert other.loss <= info.loss * (1 + 1e-9) + 1e-20
        assert info.loss <= other.loss + 0.1 * TOLERANCE
        wanted = jax.vmap(lambda p, theta=theta: exact(p[0], *theta.values()))(x)
        np.testing.assert_allclose(jax.vmap(field)(x), wanted, atol=1e-4)
        assert state.shape == whole.init_state().shape


def test_the_derivative_is_that_of_the_reduced_solution(case):
    _, fitted, home, _ = case
    x = jnp.array([0.7])

    def value(theta):
        return jnp.sum(solve(fitted, theta)[0](x))

    theta = {n: jnp.asarray(1.1 * v) for n, v in home.items()}
    found = jax.jit(jax.grad(value))(theta)
    for name in home:
        step = 1e-4
        up, down = ({**theta, name: theta[name] + s * step} for s in (1, -1))
        difference = (value(up) - value(down)) / (2 * step)
        np.testing.assert_allclose(found[name], difference, rtol=1e-5, atol=1e-7)


def test_what_known_solutions_do_not_tell_is_solved_by_all_weights(case):
    whole, fitted, home, _ = case
    theta = {n: jnp.asarray(4.0 * v) for n, v in home.items()}
    theta[next(iter(home))] = jnp.asarray(0.3)
    field, state, info = solve(fitted, theta)
    wanted, weights, other = solve(whole, theta)
    assert info.steps == other.steps + 1
    assert info.loss < 1e-3 * TOLERANCE
    assert other.loss < 1e-3 * TOLERANCE
    assert state.shape == weights.shape
    x = jnp.array([0.4])
    np.testing.assert_allclose(field(x), wanted(x), rtol=1e-6)
    slope = jax.grad(lambda v: jnp.sum(solve(fitted, {**theta, "k": v})[0](x)))
    if "k" in home:
        same = jax.grad(lambda v: jnp.sum(solve(whole, {**theta, "k": v})[0](x)))
        np.testing.assert_allclose(slope(theta["k"]), same(theta["k"]), rtol=1e-4)


def test_an_operator_that_is_settled_anew_forgets_them(case):
    whole, fitted, home, _ = case
    state = solve(whole, home)[1]
    assert fitted.settled(home, state, key=jax.random.key(0)).reduced is None
    assert fitted.to_tolerance(1e-3).reduced is not None


def test_where_directions_would_be_as_many_as_weights_there_are_none(case):
    whole, _, home, _ = case
    rough = whole.to_tolerance(1e-30)
    thetas = spread(home, 40)
    # Nothing meets that tolerance: nothing is known.
    assert (
        rough.fitted_to(thetas, rank=8, steps=1, key=jax.random.key(0), progress=False)[0].reduced
        is None
    )


def test_nothing_is_reduced_where_the_equation_is_not_linear():
    key, home = jax.random.key(0), nonlinear_poisson.start
    local, _ = bilo.choose_random_features(nonlinear_poisson.problem, [home], count=20, key=key)
    operator = bilo.OutputLayer(local, home, tolerance=1e-2)
    thetas = {"k": jnp.linspace(0.5, 0.7, 5)}
    fitted, _ = operator.fitted_to(thetas, rank=8, steps=1, key=key, progress=False)
    assert fitted.reduced is None
