"""An output layer that looks between known solutions first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bilo_ppl as bilo
from bilo_ppl.operators.known_solutions import level_between
from bilo_ppl.operators.random_features import random_features


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


class Ends(bilo.Problem):
    """u'' = 2 with u(0) = a and u(1) = b: the lift has all of theta, and the same weights solve."""

    parameters, components, domain = ("a", "b"), 1, bilo.interval(0.0, 1.0)
    points = domain.grid(33)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) - 2.0

    def lift(self, x, raw, theta):
        return theta["a"] * (1 - x[0]) + theta["b"] * x[0] + x[0] * (1 - x[0]) * raw


def test_where_the_same_weights_solve_at_all_thetas_a_direction_is_kept():
    home, key = {"a": 1.0, "b": 2.0}, jax.random.key(0)
    local = random_features(Ends(), home, count=15, scale=1.5, key=key)
    whole = bilo.OutputLayer(local, home, tolerance=TOLERANCE)
    fitted, _ = whole.fitted_to(spread(home, 20), rank=8, steps=1, key=key, progress=False)
    theta = {"a": jnp.asarray(-1.0), "b": jnp.asarray(0.5)}
    field, _, info = solve(fitted, theta)
    assert info.converged
    assert (len(fitted.reduced.directions), int(info.steps)) == (1, 1)
    x = jnp.array([0.25])
    np.testing.assert_allclose(field(x), 0.25**2 - 1 + 0.25 * (0.5 - 1 + 1), atol=1e-4)
    slope = jax.grad(lambda a: jnp.sum(solve(fitted, {**theta, "a": a})[0](x)))(theta["a"])
    np.testing.assert_allclose(slope, 0.75, atol=1e-6)


class Growth(bilo.Problem):
    """u_t = a u_xx + b u (1 - u), which is not linear in u, on more points than a reduced level needs."""

    parameters, components = ("a", "b"), 1
    domain = bilo.space_time(bilo.interval(0.0, 1.0), 1.0)
    points = domain.grid(25, 24)

    def residual(self, u, x, theta):
        growth = theta["b"] * u(x) * (1 - u(x))
        return bilo.partial(u, 1)(x) - theta["a"] * bilo.partial(u, 0, 0)(x) - growth

    def lift(self, x, raw, theta):
        return jnp.sin(jnp.pi * x[0]) ** 2 / 2 + x[0] * (1 - x[0]) * x[1] * raw


@pytest.fixture(scope="module")
def growth():
    home, key = {"a": 0.05, "b": 1.5}, jax.random.key(0)
    local = random_features(Growth(), home, count=80, scale=1.5, key=key)
    whole = bilo.OutputLayer(local, home, tolerance=1e-2)
    fitted, report = whole.fitted_to(spread(home, 60), rank=8, steps=1, key=key, progress=False)
    assert report.converged
    return whole, fitted, home


def values_of(operator):
    x = Growth().domain.grid(6, 6)

    def found(theta):
        field, _, info = operator.solve(theta, operator.init_state())
        return jax.vmap(field)(x), info

    return jax.jit(found)


def test_few_points_stand_for_all_where_the_equation_is_not_linear(growth):
    whole, fitted, home = growth
    directions, points = fitted.reduced_sizes
    assert directions < 20
    assert points < len(Growth().points) / 3
    few, every, all_weights = map(values_of, (fitted, fitted.checked_at_all(), whole))
    for seed in range(5):
        theta = {n: v[0] for n, v in spread(home, 1, 100 + seed).items()}
        (u, info), (at_all, seen), (wanted, best) = few(theta), every(theta), all_weights(theta)
        assert info.converged & seen.converged & best.converged
        # Points with weights see the loss that all of them have, and lead to the same solution.
        np.testing.assert_allclose(info.loss, seen.loss, rtol=0.05)
        np.testing.assert_allclose(seen.loss, best.loss, rtol=0.05)
        np.testing.assert_allclose(u, at_all, atol=2e-4)
        np.testing.assert_allclose(at_all, wanted, atol=2e-4)
        loss = fitted.loss_of_home_state(theta)
        np.testing.assert_allclose(loss, seen.loss, rtol=0.05)


def test_the_derivative_is_that_of_the_solution_that_is_returned(growth):
    whole, fitted, home = growth
    x = jnp.array([0.4, 0.7])

    def value(operator, theta):
        return operator.solve(theta, operator.init_state())[0](x)

    near = {n: jnp.asarray(1.1 * v) for n, v in home.items()}
    far = {n: jnp.asarray(3.0 * v) for n, v in home.items()}
    for theta, stray in ((near, False), (far, True)):
        info = fitted.solve(theta, fitted.init_state())[2]
        # Far away all weights are looked at after the reduced level: a step more than without it.
        steps = whole.solve(theta, whole.init_state())[2].steps
        assert bool(info.steps == steps + 1) == stray
        slope = jax.jit(jax.grad(lambda t: value(fitted, t)))(theta)
        at = jax.jit(lambda t: value(fitted, t))
        for name in home:
            step = 1e-4 * theta[name]
            up, down = ({**theta, name: theta[name] + s * step} for s in (1, -1))
            difference = (at(up) - at(down)) / (2 * step)
            np.testing.assert_allclose(slope[name], difference, rtol=1e-3, atol=1e-7)


def test_a_level_of_few_points_has_a_structure_to_be_read_into(growth):
    whole, fitted, _ = growth
    empty = whole.with_room_for(fitted.reduced_sizes)
    assert jax.tree.map(jnp.shape, empty) == jax.tree.map(jnp.shape, fitted)
    assert whole.with_room_for(None).reduced is None
    assert whole.reduced_sizes is None


def test_no_more_thetas_are_solved_than_directions_need(growth):
    whole, _, home = growth
    thetas = spread(home, 200)
    _, losses = level_between(whole, whole.level, thetas, 1e-4 * whole.tolerance)
    assert len(losses) < 200
    # Asked for much, all of them are solved.
    _, losses = level_between(whole, whole.level, spread(home, 50), 1e-30)
    assert len(losses) == 50
