"""Fine-tuning of the output layer: solutions, derivatives, and what is refused."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import potential_energy

import bilo_ppl as bilo
from bilo_ppl.inner.output_level import OutputLevel
from bilo_ppl.inner.ridge_problem import RidgeProblem, _lower_gram
from bilo_ppl.inner.stop_reason import StopReason
from bilo_ppl.network.features import Jets, output_weights, with_more_features
from bilo_ppl.operators.random_features import (
    FeatureTrial,
    add_features,
    choose_random_features,
    random_features,
)
from bilo_ppl.pde.collocation import resized

X = np.linspace(0.05, 0.95, 13)[:, None]


class Diffusion(bilo.Problem):
    """-((1 + a x) u')' = b on [0, 1], u = 0 at both ends: linear in u, and J depends on a."""

    parameters, components = ("a", "b"), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(61)

    def residual(self, u, x, theta):
        flux = bilo.divergence(lambda y: (1 + theta["a"] * y[0]) * bilo.grad(u)(y))(x)
        return flux + theta["b"]

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


def exact(x, theta):
    a, b = theta["a"], theta["b"]
    c = b / a / jnp.log1p(a)
    return c * jnp.log1p(a * x[0]) - b * x[0] / a


class Reaction(Diffusion):
    """-u'' - a u^2 = b: not linear in u."""

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) + theta["a"] * u(x) ** 2 + theta["b"]


class Layered(Diffusion):
    """The same with a layer in the coefficient that three features cannot follow."""

    def residual(self, u, x, theta):
        def flux(y):
            return (1 + theta["a"] * jax.nn.sigmoid(40 * (y[0] - 0.6))) * bilo.grad(u)(y)

        return bilo.divergence(flux)(x) + theta["b"]


class Beam(Diffusion):
    """u'''' = b, clamped: fourth derivatives."""

    def residual(self, u, x, theta):
        return bilo.laplacian(bilo.laplacian(u))(x) - theta["b"] * (1 + theta["a"])

    def lift(self, x, raw, theta):
        return (x[0] * (1 - x[0])) ** 2 * raw


class SoftEnds(Diffusion):
    """Boundary values by conditions."""

    def lift(self, x, raw, theta):
        return raw

    def conditions(self, u, theta):
        return {"ends": jnp.stack([u(jnp.zeros(1)), u(jnp.ones(1))])}


START = {"a": 1.0, "b": 1.0}


@functools.cache
def trained(kind, width, steps):
    return bilo.pretrain(
        kind(),
        START,
        key=jax.random.key(0),
        width=width,
        solver=bilo.LevenbergMarquardt(tolerance=1e-8, max_steps=steps),
        sensitivity=bilo.ImplicitDifferentiation(),
        progress=False,
    )[0]


def made(kind, tolerance=1e-4, width=32, steps=40):
    return bilo.OutputLayer(trained(kind, width, steps), START, tolerance=tolerance)


@pytest.fixture(scope="module")
def linear():
    return made(Diffusion)


def values(operator, a, b, state=None):
    state = operator.init_state() if state is None else state
    field, _, info = operator.solve({"a": a, "b": b}, state)
    return jax.vmap(field)(X), info


def differences(function, *at, h=1e-4):
    """Central differences with respect to every argument."""
    moved = [
        (function(*at[:i], at[i] + h, *at[i + 1 :]) - function(*at[:i], at[i] - h, *at[i + 1 :]))
        for i in range(len(at))
    ]
    return np.stack(moved, axis=1) / (2 * h)


@pytest.mark.parametrize(("a", "b"), [(1.3, 2.0), (2.0, -1.0), (0.3, 10.0)])
def test_a_linear_problem_is_solved_in_one_step(linear, a, b):
    u, info = values(linear, a, b)
    assert linear.linear
    assert info.converged
    assert info.steps == 1
    wanted = jax.vmap(lambda x: exact(x, {"a": a, "b": b}))(X)
    np.testing.assert_allclose(u, wanted, atol=1e-3 * np.abs(wanted).max())


def test_the_solution_does_not_depend_on_the_state_that_a_solve_starts_from(linear):
    u, _ = values(linear, 1.5, 2.0)
    away = linear.init_state() + jax.random.normal(jax.random.key(1), linear.init_state().shape)
    np.testing.assert_allclose(values(linear, 1.5, 2.0, away)[0], u, rtol=1e-5)


@pytest.mark.parametrize("kind", [Diffusion, Layered])
def test_derivatives_are_those_of_the_minimiser(kind):
    operator = made(kind, tolerance=1e3, width=3, steps=3)

    def u(a, b):
        return values(operator, a, b)[0]

    at = (jnp.array(2.5), jnp.array(1.5))
    wanted = differences(u, *at)
    forward = jnp.stack(jax.jacfwd(u, (0, 1))(*at), axis=1)
    reverse = jnp.stack(jax.jacrev(u, (0, 1))(*at), axis=1)
    np.testing.assert_allclose(forward, wanted, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(reverse, forward, atol=1e-9)


def test_the_gauss_newton_form_of_the_derivative_is_off_where_rows_cannot_vanish():
    operator = made(Layered, tolerance=1e3, width=3, steps=3)
    theta = {"a": jnp.array(2.5), "b": jnp.array(1.5)}
    field, state, info = operator.solve(theta, operator.init_state())
    assert info.loss > 1e-3
    flat = state.ravel()
    J = operator.level.jacobian(theta, flat)
    rows_dot = jax.jacfwd(lambda a: operator.level.rows({**theta, "a": a}, flat))(theta["a"])
    gauss_newton = -jnp.linalg.lstsq(J, rows_dot)[0].reshape(state.shape)
    moved = eqx.tree_at(lambda f: f.weights, field, field.weights + 1e-4 * gauss_newton)
    by_gauss_newton = (jax.vmap(moved)(X) - jax.vmap(field)(X)) / 1e-4
    true = jax.jacfwd(lambda a: values(operator, a, 1.5)[0])(theta["a"])
    assert np.abs(by_gauss_newton - true).max() > 0.05 * np.abs(true).max()


def test_a_nonlinear_problem_is_iterated():
    operator = made(Reaction, tolerance=1e-6)
    assert not operator.linear
    numerical = bilo.FiniteDifferences(Reaction(), 801, theta=START)

    def u(a, b):
        return values(operator, a, b)[0]

    at = (jnp.array(2.0), jnp.array(3.0))
    found, info = values(operator, *at)
    assert info.converged
    assert info.steps > 1
    wanted = jax.vmap(numerical.solve({"a": 2.0, "b": 3.0}, ())[0])(X)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    derivative = jnp.stack(jax.jacrev(u, (0, 1))(*at), axis=1)
    wanted = differences(u, *at, h=1e-3)
    np.testing.assert_allclose(derivative, wanted, atol=1e-4 * np.abs(wanted).max())


def test_fourth_derivatives_are_found_to_be_asked_for(linear):
    assert linear.level.axes == ((), (0,), (0, 0))
    beam = made(Beam)
    assert len(beam.level.axes) == 5
    u, _ = values(beam, 0.5, 2.0)
    wanted = 3.0 * (X[:, 0] * (1 - X[:, 0])) ** 2 / 24
    np.testing.assert_allclose(u, wanted, atol=1e-4 * wanted.max())


def test_only_what_the_residual_asks_for_is_kept(linear):
    """(1 + a x) u'' + a u', with u = x (1 - x) N: two combinations of N, N' and N'', others at each x."""
    level, local = linear.level, linear.operator
    assert level.basis.shape == (61, 3, 2)
    whole = OutputLevel.whole(local, Jets.of(local, local.points, 2))
    theta = {"a": jnp.array(3.7), "b": jnp.array(-2.0)}
    flat = jax.random.normal(jax.random.key(0), (whole.shape[1],))
    size = float(jnp.abs(whole.rows(theta, flat)).max())
    np.testing.assert_allclose(level.rows(theta, flat), whole.rows(theta, flat), atol=1e-9 * size)
    J = whole.jacobian(theta, flat)
    np.testing.assert_allclose(level.jacobian(theta, flat), J, atol=1e-9 * float(jnp.abs(J).max()))
    by_jax = jax.jacrev(lambda w: whole.rows(theta, w))(flat)
    np.testing.assert_allclose(J, by_jax, atol=1e-9 * float(jnp.abs(J).max()))
    assert level.knows(theta, flat)


def test_a_theta_that_asks_for_more_is_no_solution():
    class Switched(Diffusion):
        def residual(self, u, x, theta):
            more = jnp.where(theta["a"] > 1e6, theta["a"] * u(x), 0.0)
            return bilo.laplacian(u)(x) + theta["b"] + more

        def lift(self, x, raw, theta):
            return raw

    local = bilo.LocalOperator(Switched(), START, key=jax.random.key(0), width=8)
    operator = bilo.OutputLayer(local, START, tolerance=1e9)
    assert operator.level.basis.shape == (61, 3, 1)
    assert values(operator, 2.0, 1.0)[1].converged
    info = values(operator, 1e7, 1.0)[1]
    assert not info.converged
    assert info.reason == StopReason.INVALID


class Source(Diffusion):
    """-u'' = a + b x, by ends that are conditions: theta has no part in the derivatives of the rows."""

    def residual(self, u, x, theta):
        # Beyond any theta that was looked at.
        jump = jnp.where(theta["a"] > 1e3, 2.0, 1.0)
        return jump * bilo.laplacian(u)(x) + theta["a"] + theta["b"] * x[0]

    def lift(self, x, raw, theta):
        return raw

    def conditions(self, u, theta):
        return {"ends": jnp.stack([u(jnp.zeros(1)), u(jnp.ones(1))])}


class Robin(Source):
    """With b in a condition."""

    def conditions(self, u, theta):
        ends = theta["b"] * u(jnp.zeros(1)) - bilo.grad(u)(jnp.zeros(1))[0], u(jnp.ones(1))
        return {"ends": jnp.stack(ends)}


@pytest.mark.parametrize(("kind", "is_fixed"), [(Source, True), (Robin, False), (Diffusion, False)])
def test_a_factor_that_theta_has_no_part_in_is_computed_once(kind, is_fixed):
    local = random_features(kind(), START, count=24, scale=3.0, key=jax.random.key(0))
    operator = bilo.OutputLayer(local, START, tolerance=1e-6)
    assert (operator.factor is not None) == is_fixed
    other = random_features(kind(), START, count=24, scale=2.0, key=jax.random.key(1))
    renewed = operator.with_features(other, 10.0)
    assert (renewed.factor is not None) == is_fixed
    if not is_fixed:
        return
    again = bilo.OutputLayer(other, START, tolerance=1e-6, ridge=10.0)
    np.testing.assert_allclose(renewed.factor, again.factor, rtol=1e-9, atol=1e-12)
    each_time = eqx.tree_at(lambda o: o.factor, operator, None)

    @eqx.filter_jit
    def value_and_slope(operator, theta):
        def value(theta):
            field, _, info = operator.solve(theta, operator.init_state())
            return field(jnp.array([0.3])), info

        return jax.value_and_grad(value, has_aux=True)(theta)

    theta = {"a": jnp.array(0.7), "b": jnp.array(-0.4)}
    (value, info), slope = value_and_slope(operator, theta)
    (wanted, _), slope_wanted = value_and_slope(each_time, theta)
    # u = a x (1 - x) / 2 + b x (1 - x^2) / 6
    assert info.converged
    assert abs(value - (0.7 * 0.21 / 2 - 0.4 * 0.3 * 0.91 / 6)) < 1e-4
    np.testing.assert_allclose(value, wanted, rtol=1e-8)
    for name in theta:
        np.testing.assert_allclose(slope[name], slope_wanted[name], rtol=1e-7)
    (_, info), _ = value_and_slope(operator, {"a": jnp.array(2e3), "b": jnp.array(1.0)})
    assert not info.converged
    assert info.reason == StopReason.INVALID


class Coefficient(Diffusion):
    """-a(x) u'' = b, with a function for a."""

    def residual(self, u, x, theta):
        return theta["a"](x) * bilo.laplacian(u)(x) + theta["b"]


def test_what_a_function_without_numbers_may_ask_for_is_not_taken_for_constant():
    start = {"a": lambda x: 1.0, "b": 1.0}
    local = random_features(Coefficient(), start, count=24, scale=3.0, key=jax.random.key(0))
    operator = bilo.OutputLayer(local, start, tolerance=1e-6)
    assert operator.factor is None
    theta = {"a": lambda x: 2.0, "b": jnp.array(3.0)}
    field, _, info = operator.solve(theta, operator.init_state())
    assert info.converged
    assert abs(field(jnp.array([0.5])) - 3 / 2 / 8) < 1e-4


def test_a_residual_of_several_rows_has_its_jacobian():
    class First(bilo.Problem):
        """v' = -a w, w' = b v: a system, and two rows at a point."""

        parameters, components = ("a", "b"), 2
        domain = bilo.interval(0.0, 1.0)
        points = domain.grid(9)

        def residual(self, u, x, theta):
            v, w = u(x)
            dv, dw = bilo.partial(u, 0)(x)
            return jnp.stack([dv + theta["a"] * w, dw - theta["b"] * v])

    local = bilo.LocalOperator(First(), START, key=jax.random.key(0), width=4, dtype=float)
    level = bilo.OutputLayer(local, START, tolerance=1.0).level
    assert level.basis.shape == (9, 3, 2)
    theta = {"a": jnp.array(1.5), "b": jnp.array(0.5)}
    flat = jax.random.normal(jax.random.key(1), (10,))
    wanted = jax.jacrev(lambda w: level.rows(theta, w))(flat)
    np.testing.assert_allclose(level.jacobian(theta, flat), wanted, atol=1e-12)
    u = level.solution(theta, flat)
    exact = jax.vmap(lambda x: First().residual(u, x, theta))(jnp.asarray(First.points))
    np.testing.assert_allclose(jnp.sum(level.rows(theta, flat) ** 2), jnp.sum(exact**2) / 9)


class Pendulum(bilo.Problem):
    """Two rows and a condition, none of them linear in u."""

    parameters, components, domain = ("g",), 2, bilo.interval(0.0, 1.0)
    points = domain.grid(9)

    def residual(self, u, x, theta):
        angle, speed = u(x)
        change = bilo.partial(u, 0)(x)
        return jnp.stack([change[0] - speed, change[1] + theta["g"] * jnp.sin(angle) * speed])

    def conditions(self, u, theta):
        return {"energy": u(jnp.array([0.0])) ** 2 - theta["g"]}

    def lift(self, x, raw, theta):
        return raw


def test_rows_bend_as_their_second_derivatives_say():
    home = {"g": jnp.asarray(2.0)}
    local = random_features(Pendulum(), home, count=6, scale=1.5, key=jax.random.key(0))
    level = bilo.OutputLayer(local, home, tolerance=1.0).level
    flat = jax.random.normal(jax.random.key(1), (level.shape[0] * level.shape[1],))
    half = jax.hessian(lambda p: jnp.sum(level.rows(home, p) ** 2) / 2)(flat)
    J = level.jacobian(home, flat)
    np.testing.assert_allclose(level.bend(home, flat), half - J.T @ J, atol=1e-9)


def test_half_of_the_normal_matrix_is_enough():
    J = np.random.default_rng(0).normal(size=(7, 5))
    np.testing.assert_allclose(np.tril(_lower_gram(jnp.asarray(J))), np.tril(J.T @ J))


def test_conditions_are_rows():
    operator = made(SoftEnds)
    u, info = values(operator, 2.0, 3.0)
    assert info.converged
    wanted = jax.vmap(lambda x: exact(x, {"a": 2.0, "b": 3.0}))(X)
    np.testing.assert_allclose(u, wanted, atol=2e-3 * np.abs(wanted).max())


def test_a_loss_above_the_tolerance_is_no_solution():
    operator = made(Diffusion, tolerance=1e-12, width=3, steps=3)
    info = values(operator, 2.0, 3.0)[1]
    assert not info.converged
    assert info.reason == StopReason.STUCK
    assert jax.jit(lambda a: values(operator, a, 1.0)[1])(jnp.nan).reason == StopReason.NOT_FINITE


def test_features_do_not_follow_theta_and_settling_keeps_them(linear):
    theta = {"a": jnp.array(2.0), "b": jnp.array(3.0)}
    field, state, _ = linear.solve(theta, linear.init_state())
    settled = linear.settled(theta, state, key=jax.random.key(0))
    np.testing.assert_allclose(output_weights(settled.operator), state)
    assert float(settled.home["a"]) == 2.0
    # The local operator is now the same function, at any theta.
    np.testing.assert_allclose(
        jax.vmap(settled.operator.field({"a": 5.0, "b": 1.0}))(X), jax.vmap(field)(X), rtol=1e-6
    )
    again, _, same = settled.solve(theta, settled.init_state())
    assert same.converged
    np.testing.assert_allclose(jax.vmap(again)(X), jax.vmap(field)(X), rtol=1e-5)


def test_a_tightened_operator_starts_from_its_state(linear):
    theta = {"a": jnp.array(2.0), "b": jnp.array(3.0)}
    field, state, _ = linear.solve(theta, linear.init_state())
    tight = linear.tightened(10.0, 5)
    assert len(tight.operator.points) > len(linear.operator.points)
    for given in (state, jnp.stack([state, 2 * state])):
        weights = linear.state_for(tight, given)
        weights = weights if given.ndim == 2 else jax.tree.map(lambda leaf: leaf[0], weights)
        started = tight.operator.with_weights(weights).field(theta)
        np.testing.assert_allclose(jax.vmap(started)(X), jax.vmap(field)(X), rtol=1e-6)


def test_features_of_one_layer_are_compared_with_more_of_them():
    local = random_features(Diffusion(), START, count=8, scale=2.0, key=jax.random.key(0))
    operator = bilo.OutputLayer(local, START, tolerance=1e-1)
    theta = {"a": jnp.array(2.0), "b": jnp.array(3.0)}
    wanted = jax.vmap(lambda x: exact(x, theta))(X)
    off = float(jnp.abs(values(operator, 2.0, 3.0)[0] - wanted).max())
    for better in (operator.tightened(100.0, 5), operator.corrected_near(theta, 100.0, 5)):
        assert isinstance(better, bilo.OutputLayer)
        assert better.tolerance == pytest.approx(1e-2)
        assert better.level.shape == (1, 8 + 12 + 1)
        assert len(better.operator.points) == 2 * len(local.points)
        own = better.operator.network.layers[0]
        np.testing.assert_array_equal(own.weight[:8], operator.operator.network.layers[0].weight)
        np.testing.assert_array_equal(own.bias[:8], operator.operator.network.layers[0].bias)
        u, info = values(better, 2.0, 3.0)
        assert info.converged
        assert float(jnp.abs(u - wanted).max()) < 0.1 * off
        states = jnp.stack([operator.init_state()] * 3)
        assert operator.state_for(better, states).shape == (3, 1, 21)


def test_half_of_further_features_pass_where_the_residual_is_large():
    theta = {"a": jnp.array(5.0), "b": jnp.array(3.0)}
    local = random_features(Layered(), theta, count=8, scale=2.0, key=jax.random.key(0))
    operator = bilo.OutputLayer(local, theta, tolerance=1.0)
    shares = operator.shares_of_loss(theta)
    np.testing.assert_allclose(shares.sum(), 1, rtol=1e-6)
    x = operator.level.points[:, 0]
    # The layer is at 0.6.
    assert shares[np.abs(x - 0.6) < 0.2].sum() > 2 * 0.4
    one = jnp.zeros_like(shares).at[20].set(1.0)
    more = with_more_features(operator.operator, 3.0, one, key=jax.random.key(1))
    first = more.network.layers[0]
    at_point = first.weight[8:] @ Layered().domain.normalise(x[20:21]) + first.bias[8:]
    passing = np.abs(at_point) < 1e-9
    assert passing.sum() == 11
    np.testing.assert_array_equal(passing[-11:], True)
    # They are steeper than those that lie anywhere.
    slopes = np.abs(np.asarray(first.weight[8:, 0]))
    assert np.median(slopes[passing]) > 2 * np.median(slopes[~passing])
    thetas = [theta, {"a": jnp.array(3.0), "b": jnp.array(3.0)}]
    like = FeatureTrial(2.0, [], [], (1.0,))
    wider, trial = add_features(local, thetas, like=like, more=2.0, key=jax.random.key(1))
    assert wider.network.layers[0].weight.shape == (24, 1)
    assert trial.stretch == like.stretch
    fewer = [float(values(operator, t["a"], t["b"])[1].loss) for t in thetas]
    assert all(new < 0.1 * old for new, old in zip(trial.losses, fewer, strict=True))
    assert all(np.isfinite(trial.unseen))


class Fading(bilo.Problem):
    """u_t = 0.01 u_xx from sin(5 pi x): five waves in space that fade slowly."""

    parameters, components = ("a",), 1
    domain = bilo.space_time(bilo.interval(0.0, 1.0), 1.0)
    points = domain.grid(31, 21)

    def residual(self, u, x, theta):
        return bilo.partial(u, 1)(x) - 0.01 * bilo.partial(u, 0, 0)(x)

    def lift(self, x, raw, theta):
        return theta["a"] * jnp.sin(5 * jnp.pi * x[0]) + x[0] * (1 - x[0]) * x[1] * raw


def test_more_features_take_more_points_and_a_smaller_ridge():
    """Few features need a large ridge, so as not to swing between the points; enough of them none."""
    thetas = [{"a": jnp.asarray(a)} for a in (1.0, -2.0)]
    local = random_features(
        Fading(), thetas[0], count=40, scale=3.0, stretch=(2.0, 0.5), key=jax.random.key(0)
    )
    points = resized(Fading.points, Fading.domain, 800)
    like = FeatureTrial(3.0, [1.0, 1.0], [1.0, 1.0], (2.0, 0.5), 1e6)
    options = {"like": like, "more": 5.0, "key": jax.random.key(1)}
    more, trial = add_features(local, thetas, points=points, **options)
    np.testing.assert_array_equal(more.points, points)
    assert more.network.layers[0].weight.shape[0] == 240
    assert trial.ridge < like.ridge
    ridges = {"ridge": like.ridge, "tolerance": np.inf}
    loose = bilo.OutputLayer(more, thetas[0], **ridges)
    assert trial.losses[0] < 0.1 * float(loose.solve(thetas[0], loose.init_state())[2].loss)
    same, _ = add_features(local, thetas, **options)
    np.testing.assert_array_equal(same.points, Fading.points)


def test_random_features_are_steeper_along_the_axis_that_asks_for_it():
    thetas = [{"a": jnp.asarray(a)} for a in (1.0, -2.0)]
    local, trials = choose_random_features(Fading(), thetas, count=60, key=jax.random.key(0))
    best = min(trials, key=lambda trial: trial.score)
    assert best.stretch[0] > best.stretch[1]
    alike = min(trial.score for trial in trials if len(set(trial.stretch)) == 1)
    assert best.score < alike - 1  # in the logarithm
    slopes = local.network.layers[0].weight
    sizes = best.scale * np.array(best.stretch)
    np.testing.assert_allclose(np.std(slopes, axis=0), sizes, rtol=0.3)
    # Further ones are as steep along each axis as far as points see that.
    one = jnp.full(len(local.points), 1 / len(local.points))
    operator = bilo.OutputLayer(local, thetas[0], tolerance=1e-2).operator
    more = with_more_features(operator, 1.0, one, key=jax.random.key(1))
    further = np.sqrt(np.mean(np.asarray(more.network.layers[0].weight[60:]) ** 2, axis=0))
    assert further[0] > further[1]
    assert further[0] < 1.5 * len(np.unique(local.points[:, 0])) / 4


def test_random_features_have_the_scale_that_leaves_the_least_between_the_points():
    thetas = [{"a": a, "b": b} for a, b in ((1.0, 1.0), (2.0, -3.0))]
    local, trials = choose_random_features(Diffusion(), thetas, count=20, key=jax.random.key(0))
    scores = [trial.score for trial in trials]
    assert len(set(scores)) == len(trials)
    best = trials[int(np.argmin(scores))]
    slopes = local.network.layers[0].weight
    np.testing.assert_allclose(jnp.std(slopes), best.scale, rtol=0.5)
    assert max(best.unseen) < 1e-3 * max(max(trial.unseen) for trial in trials)
    operator = bilo.OutputLayer(local, thetas[0], tolerance=1e-2)
    u, info = values(operator, 1.5, 2.0)
    assert info.converged
    wanted = jax.vmap(lambda x: exact(x, {"a": 1.5, "b": 2.0}))(X)
    np.testing.assert_allclose(u, wanted, atol=1e-3 * np.abs(wanted).max())


def test_it_stands_behind_solution_in_a_model(linear):
    y = np.array(jax.vmap(lambda x: exact(x, {"a": 2.0, "b": 3.0}))(X))

    def model():
        a = numpyro.sample("a", dist.LogNormal(0.0, 1.0))
        b = numpyro.sample("b", dist.Normal(0.0, 3.0))
        u = bilo.solution("u", linear, {"a": a, "b": b})
        numpyro.sample("y", dist.Normal(jax.vmap(u)(X), 0.01), obs=y)

    def potential(z):
        return potential_energy(model, (), {}, z)

    z = {"a": jnp.array(0.5), "b": jnp.array(2.0)}
    gradient = jax.grad(potential)(z)
    for name, value in z.items():
        moved = [potential({**z, name: value + h}) for h in (1e-4, -1e-4)]
        np.testing.assert_allclose(gradient[name], (moved[0] - moved[1]) / 2e-4, rtol=1e-4)
    many = {"a": jnp.array([0.5, 0.9]), "b": jnp.array([2.0, 1.0])}
    one_by_one = [potential({"a": a, "b": b}) for a, b in zip(*many.values(), strict=True)]
    np.testing.assert_allclose(jax.vmap(potential)(many), one_by_one, rtol=1e-8)


def test_what_cannot_be_meant_is_refused(linear):
    with pytest.raises(ValueError, match="must be positive"):
        bilo.OutputLayer(linear.operator, START, tolerance=0.0)

    class Own(Diffusion):
        def inputs(self, x, theta):
            return x * theta["a"]

    operator = bilo.LocalOperator(Own(), START, key=jax.random.key(0))
    with pytest.raises(ValueError, match="inputs depends on theta"):
        bilo.OutputLayer(operator, START, tolerance=1.0)

    class Shifted(Diffusion):
        def residual(self, u, x, theta):
            return u(x + 0.1) - theta["b"]

    operator = bilo.LocalOperator(Shifted(), START, key=jax.random.key(0))
    with pytest.raises(ValueError, match="derivatives of u at its point"):
        bilo.OutputLayer(operator, START, tolerance=1.0)


class Kinked(Diffusion):
    """u'' = 0 beside z, where u' jumps by -b: u has a kink, and is smooth in x and |x - z|.

    The lift is flat where the raw output is zero.
    """

    z = 0.37
    points = bilo.interval(0.0, 1.0).grid(60)

    def inputs(self, x, theta):
        return jnp.concatenate([2 * x - 1, 2 * jnp.abs(x - self.z) - 0.5])

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x)

    def conditions(self, u, theta):
        after, before = (bilo.partial(u, 0)(jnp.array([self.z + s])) for s in (1e-9, -1e-9))
        return {"jump": jnp.reshape(after - before + theta["b"], (1,))}

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw**2


class Pair(bilo.Problem):
    """Two components, of which the lift squares one; u is seen inside of the square only."""

    parameters, components, domain = ("a",), 2, bilo.Box((0.0, 0.0), (1.0, 1.0))
    points = domain.grid(16, 16)

    def lift(self, x, raw, theta):
        return bilo.bubble(self.domain, x) * jnp.stack([raw[0], raw[1] ** 2])

    def residual(self, u, x, theta):
        return u(x) - theta["a"]


def test_features_begin_where_the_solution_changes_with_each_component():
    local = random_features(Pair(), {"a": 1.0}, count=4, scale=1.0, key=jax.random.key(0))
    np.testing.assert_array_equal(output_weights(local)[:, -1], [0.0, 1.0])


def test_features_see_a_problem_s_own_inputs():
    problem = Kinked()
    thetas = [{"a": 0.0, "b": b} for b in (1.0, 3.0)]
    local, trials = choose_random_features(problem, thetas, count=24, key=jax.random.key(0))
    assert any(len(set(trial.stretch)) > 1 for trial in trials)
    operator = bilo.OutputLayer(local, thetas[0], tolerance=1e-7)
    z = problem.z
    x = jnp.asarray(X)
    for candidate, theta in ((operator, thetas[1]), (operator.richer, {"a": 0.0, "b": 2.0})):
        field, _, info = eqx.filter_jit(candidate.solve)(theta, candidate.init_state())
        assert info.converged
        wanted = theta["b"] * jnp.minimum(x * (1 - z), z * (1 - x))[:, 0]
        np.testing.assert_allclose(jax.vmap(field)(x), wanted, atol=1e-4)


class Outbreak(bilo.Problem):
    """u' = r u (1 - u) from u(0) = 1/500: that nothing ever grows leaves hardly a residual."""

    parameters, components, domain = ("r",), 1, bilo.time_interval(0.0, 10.0)
    points = domain.grid(161)

    def residual(self, u, x, theta):
        return bilo.partial(u, 0)(x) - theta["r"] * u(x) * (1 - u(x))

    def lift(self, x, raw, theta):
        return 0.002 + x[0] * raw


@pytest.mark.parametrize("tolerance", [np.inf, 1e-9])
def test_where_steps_are_stuck_the_solution_is_sought_along_the_time(tolerance):
    local = random_features(Outbreak(), {"r": 1.0}, count=60, scale=4.0, key=jax.random.key(0))
    operator = bilo.OutputLayer(local, {"r": 1.0}, tolerance=tolerance)
    x = np.linspace(0.0, 10.0, 21)[:, None]
    solve = jax.jit(lambda r: operator.solve({"r": r}, operator.init_state()))
    for r in (1.0, 2.0):
        field, _, info = solve(r)
        grown = 0.002 * np.exp(r * x[:, 0])
        wanted = grown / (1 - 0.002 + grown)
        np.testing.assert_allclose(jax.vmap(field)(x), wanted, atol=1e-4)
        assert info.loss < 1e-9
    # Without a window of time, steps end where nothing has grown.
    problem = RidgeProblem(
        *(operator.level, operator.init_state().ravel(), operator.ridge, False, 20)
    )
    stuck = problem.minimum({"r": 1.0}, operator.init_state().ravel())
    field = operator.level.solution({"r": 1.0}, stuck.flat)
    assert abs(float(field(jnp.array([10.0])))) < 0.5
    # The derivative is that of the solution.
    slope = jax.grad(lambda r: jnp.sum(operator.solve({"r": r}, operator.init_state())[0](x[12])))
    grown = 0.002 * np.exp(6.0)
    u = grown / (1 - 0.002 + grown)
    np.testing.assert_allclose(slope(1.0), 6.0 * u * (1 - u), rtol=1e-3)


class Scaled(Diffusion):
    """a (u'' + b) = 0."""

    def residual(self, u, x, theta):
        return theta["a"] * (bilo.laplacian(u)(x) + theta["b"])


def test_where_the_normal_matrix_is_far_larger_a_solve_is_finite():
    home, there = {"a": 1.0, "b": 1.0}, {"a": 1e9, "b": 2.0}
    local = random_features(Scaled(), home, count=40, scale=2.0, key=jax.random.key(0))
    operator = bilo.OutputLayer(local, home, tolerance=1e-6)
    field, _, _ = operator.solve(there, operator.init_state())
    np.testing.assert_allclose(field(jnp.array([0.5])), 0.25, rtol=1e-5)


class Forced(Reaction):
    """With a forcing that is dear to evaluate, and a coefficient that is a function or a number."""

    def residual(self, u, x, theta):
        a = theta["a"](x) if callable(theta["a"]) else theta["a"]
        force = jnp.sum(jnp.sin(x[0] * jnp.arange(1.0, 9.0)))
        return bilo.laplacian(u)(x) + a * force * u(x) ** 2 + theta["b"]


FIRST = {"a": jnp.array(0.5), "b": jnp.array(1.0)}


def known_values(level):
    return level.known.values


def spoil(values):
    return [value + jnp.nan for value in values]


def test_what_is_known_of_the_points_changes_nothing():
    features = random_features(Forced(), FIRST, count=20, scale=2.0, key=jax.random.key(0))
    level = bilo.OutputLayer(features, FIRST, tolerance=1e-6).level
    unknown = eqx.tree_at(lambda one: one.known, level, None)
    assert level.known.values
    flat = jnp.linspace(-1, 1, 21)
    theta = {"a": jnp.array(1.1), "b": jnp.array(0.3)}
    for name in ("rows", "jacobian", "gradient", "bend"):
        found, wanted = (getattr(one, name)(theta, flat) for one in (level, unknown))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    # It is looked up, not computed again.
    spoilt = eqx.tree_at(known_values, level, replace_fn=spoil)
    assert np.isnan(eqx.filter_jit(spoilt.rows)(theta, flat)).all()


def test_what_is_known_for_another_kind_of_theta_is_not_used():
    features = random_features(Forced(), FIRST, count=20, scale=2.0, key=jax.random.key(0))
    level = bilo.OutputLayer(features, FIRST, tolerance=1e-6).level
    spoilt = eqx.tree_at(known_values, level, replace_fn=spoil)
    flat = jnp.linspace(-1, 1, 21)
    field = {"a": bilo.KarhunenLoeve(jnp.zeros(3)), "b": FIRST["b"]}
    number = {"a": jnp.array(1.0), "b": FIRST["b"]}
    np.testing.assert_allclose(
        spoilt.rows(field, flat), level.rows(number, flat), rtol=1e-4, atol=1e-5
    )


def test_other_features_make_the_layer_that_is_made_of_them():
    def local(scale):
        return random_features(Forced(), FIRST, count=20, scale=scale, key=jax.random.key(0))

    first = bilo.OutputLayer(local(2.0), FIRST, tolerance=1e-6)
    anew = bilo.OutputLayer(local(3.0), FIRST, tolerance=1e-6, ridge=100.0)
    found = first.with_features(local(3.0), 100.0)
    assert float(found.ridge) == pytest.approx(float(anew.ridge), rel=1e-4)
    solved = [one.solve(FIRST, one.init_state())[0](X[3]) for one in (found, anew)]
    assert float(solved[0]) == pytest.approx(float(solved[1]), abs=1e-5)
    assert float(found.ridge) > 50 * float(first.ridge)


def test_a_ridge_is_chosen_where_the_residual_leaves_u_open():
    class Sparse(Layered):
        """As many points as features, which meet the equation there and swing between."""

        points = bilo.interval(0.0, 1.0).grid(21)

    thetas = [{"a": 5.0, "b": 1.0}, {"a": 3.0, "b": 2.0}]
    found = []
    for problem in (Sparse(), Diffusion()):
        with jax.enable_x64(True):
            _, trials = choose_random_features(problem, thetas, count=20, key=jax.random.key(0))
        found.append(min(trials, key=lambda trial: trial.score))
    assert found[0].ridge > 1 == found[1].ridge
    features = random_features(Diffusion(), thetas[0], count=5, scale=2.0, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"ridge=0\.5 at least 1"):
        bilo.OutputLayer(features, thetas[0], tolerance=1e-6, ridge=0.5)
