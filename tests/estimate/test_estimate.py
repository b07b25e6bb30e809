"""Point estimates against closed forms, by-hand iterations, and what can go wrong."""

import signal
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro import handlers

import bilo_ppl as bilo
from bilo_ppl.estimate import (
    descent,
    find_map,
    laplace,
    laplace_approximation,
    line_search,
    save_estimate,
)
from bilo_ppl.estimate.line_search import backtracking_lbfgs, gauss_newton
from bilo_ppl.fields import KarhunenLoeve, field_weights
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.ppl.unknowns import squared_penalty, unknown_function
from models import poisson

DATA = poisson.synthetic_data(1)
X, Y, SIGMA = DATA["x"], DATA["y"], DATA["sigma"]
KEY = jax.random.key(0)
ADAM, SGD = optax.adam(0.1), optax.sgd(0.01)
TRACED = []


class ClosedForm(AbstractSolutionOperator):
    """u = sin(pi x) / D; the state counts solves; unsolved where D > bound, failing where D > wall."""

    problem: Any = poisson.problem
    bound: float = np.inf
    wall: float = np.inf

    def init_state(self):
        return jnp.array(0)

    def solve(self, theta, state):
        TRACED.append(theta)
        D = theta["D"]
        fixed = jax.lax.stop_gradient(D)
        loss = jnp.where(fixed > self.wall, 1e9, 1e-7)
        info = SolveInfo.of(jnp.array(2), loss, fixed <= self.bound)
        return (lambda x: jnp.sin(jnp.pi * x[0]) / D), state + 1, info


CLOSED = ClosedForm()
QUIET = {"progress": False}
POINT = np.array([[0.5]])
REAL = dist.constraints.real


def estimate(operator: Any = CLOSED, data: Any = (X, Y, SIGMA), **options: Any):
    settings = {"optimizer": ADAM, "init": {"D": 2.0}, "patience": 1000, "progress": False}
    settings |= options
    return find_map(poisson.model, KEY, operator, *data, **settings)


def density(D, y=Y):
    """-log p(D, y) up to a constant."""
    misfit = y - np.sin(np.pi * X[:, 0]) / np.asarray(D)[:, None]
    return np.asarray(D) - np.log(D) + 0.5 * np.sum(misfit**2, axis=1) / SIGMA**2


def mode(energy):
    D = np.linspace(0.5, 2.0, 150001)
    return D[np.argmin(energy(D))]


def posterior_sd(energy):
    """From the curvature at the mode."""
    h = 1e-3
    low, middle, high = energy(mode(energy) + h * np.array([-1, 0, 1]))
    return h / np.sqrt(low - 2 * middle + high)


def lognormal(operator):
    """A prior alone: its density has the mode exp(-1), that of log D the mode 0."""
    D = numpyro.sample("D", dist.LogNormal(0.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.factor("nothing", 0.0 * u(jnp.array([0.5])))


# Where the minimum is.


def test_the_density_is_that_of_the_model_and_not_of_the_transformed_site():
    settings = {
        "optimizer": ADAM,
        "gradient_tolerance": 1e-6,
        "patience": 1000,
        "progress": False,
        "init": {"D": 2.0},
    }
    found = find_map(lognormal, KEY, CLOSED, **settings)
    np.testing.assert_allclose(found.values["D"], np.exp(-1), rtol=1e-5)
    np.testing.assert_allclose(found.energy, -dist.LogNormal(0, 1).log_prob(np.exp(-1)), rtol=1e-8)
    transformed = find_map(lognormal, KEY, CLOSED, jacobian=True, **settings)
    np.testing.assert_allclose(transformed.values["D"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(transformed.energy, -dist.Normal(0, 1).log_prob(0.0), rtol=1e-8)


@pytest.mark.parametrize("optimizer", [ADAM, None])
def test_an_optimiser_finds_the_mode(optimizer):
    found = estimate(optimizer=optimizer)
    assert found.status == "converged"
    assert found.converged
    # Gauss-Newton steps, the default here, end where they promise 1e-4 nats.
    within = 2e-5 if optimizer is not None else 0.02 * posterior_sd(density)
    np.testing.assert_allclose(found.values["D"], mode(density), atol=within)
    np.testing.assert_allclose(found.z["D"], np.log(found.values["D"]))


def test_what_an_estimate_says():
    found = estimate()
    D = float(found.values["D"])
    data_loss = -np.sum(dist.Normal(np.sin(np.pi * X[:, 0]) / D, SIGMA).log_prob(Y))
    np.testing.assert_allclose(found.data_loss, data_loss)
    np.testing.assert_allclose(found.terms["D"], -dist.Gamma(2.0, 1.0).log_prob(D))
    np.testing.assert_allclose(found.energy, sum(found.terms.values()))
    np.testing.assert_allclose(found.theta()["D"], D)
    np.testing.assert_allclose(found.solution(X), np.sin(np.pi * X[:, 0]) / D, atol=1e-12)
    assert f"D = {D:.6g}" in str(found)
    assert found.operator_states["u"] > 1
    with pytest.raises(ValueError, match=r"'v' is no solution site; give one of \['u'\]"):
        found.theta("v")


def test_the_history_is_the_descent():
    history = estimate(steps=40, gradient_tolerance=0.0, patience=1000).history
    assert history.steps == 40
    D = history.values["D"]
    assert D[0] == pytest.approx(2.0)
    np.testing.assert_allclose(np.diff(history.energy), np.diff(density(D)), atol=1e-9)
    slope = -D * (density(D + 1e-5) - density(D - 1e-5)) / 2e-5
    np.testing.assert_allclose(history.gradient, np.abs(slope), atol=1e-5)
    np.testing.assert_array_equal(history.inner_steps, 2)
    np.testing.assert_allclose(history.inner_loss, 1e-7)
    assert np.all(np.diff(history.cpu_seconds) >= 0)


def test_an_unknown_function_starts_at_its_guess_and_is_estimated():
    guess = KarhunenLoeve(np.array([0.3, -0.2]))

    def model(operator):
        field = unknown_function("f", guess, prior_sd=1.0)
        u = bilo.solution("u", operator, {"D": field(0.25)})
        numpyro.sample("y", dist.Normal(u(jnp.array([0.5])), 0.01), obs=0.8)

    settings = {"optimizer": ADAM, "progress": False, "patience": 20}
    found = find_map(model, KEY, CLOSED, **settings)
    np.testing.assert_allclose(found.history.values["f"][0], field_weights(guess))
    np.testing.assert_allclose(found.solution(np.array([[0.5]])), 0.8, atol=2e-3)
    again = find_map(model, KEY, CLOSED, init={"f": KarhunenLoeve(np.zeros(2))}, **settings)
    np.testing.assert_array_equal(again.history.values["f"][0], 0.0)


def test_the_first_block_compiles_once_and_other_data_of_the_same_shape_nothing():
    sigma = 0.17  # its like has not been compiled yet
    TRACED.clear()
    estimate(steps=1, data=(X, Y, sigma))
    traced = len(TRACED)
    estimate(steps=30, data=(X, Y, sigma))
    assert len(TRACED) == traced
    estimate()
    traced = len(TRACED)
    other = poisson.synthetic_data(5)["y"]
    found = estimate(data=(X, other, SIGMA))
    assert len(TRACED) == traced
    np.testing.assert_allclose(found.values["D"], mode(lambda D: density(D, other)), atol=2e-5)


# The default optimiser.


def minimised(function, z, steps, **options):
    """Values along the way, and the end."""
    optimiser = backtracking_lbfgs(**options)
    state, values = optimiser.init(z), []

    @jax.jit
    def step(z, state):
        value, slope = jax.value_and_grad(function)(z)
        update, state = optimiser.update(slope, state, z, value=value)
        return optax.apply_updates(z, update), state, value

    for _ in range(steps):
        z, state, value = step(z, state)
        values.append(float(value))
    return values, z


def test_lbfgs_with_backtracking_minimises_rosenbrocks_function():
    def rosenbrock(z):
        return (1 - z[0]) ** 2 + 100 * (z[1] - z[0] ** 2) ** 2

    values, z = minimised(rosenbrock, jnp.array([-1.2, 1.0]), 60)
    np.testing.assert_allclose(z, 1.0, atol=1e-6)
    assert values[0] == pytest.approx(24.2)


def test_gauss_newton_solves_a_linear_problem_in_a_few_steps_and_says_so():
    found = find_map(conjugate, KEY, CLOSED, 2.0, optimizer=gauss_newton(1e-9), **QUIET)
    np.testing.assert_allclose(found.values["m"], 1.8, atol=1e-5)
    # LogNormal(0.5, 0.3) has its mode at exp(0.5 - 0.3^2): a term without rows.
    np.testing.assert_allclose(found.values["c"], np.exp(0.5 - 0.09), atol=2e-3)
    assert found.status in {"stalled", "converged"}
    assert found.history.steps <= 6


def test_gauss_newton_finds_the_mode_and_needs_fewer_steps():
    newton = estimate(optimizer=gauss_newton(tolerance=1e-8))
    np.testing.assert_allclose(newton.values["D"], mode(density), atol=1e-4)
    assert newton.history.steps <= 12
    far = estimate(optimizer=gauss_newton(tolerance=1e-8), init={"D": 30.0})
    np.testing.assert_allclose(far.values["D"], mode(density), atol=1e-4)


def squared(operator, weight, scale=1.0):
    """``scale weight`` (p^2 + 4 q^2) / 2 + |(p, q) - (1, 1)|^2 / 2; the penalty knows its rows."""
    p, q = (numpyro.sample(name, dist.ImproperUniform(REAL, (), ())) for name in "pq")
    ends = jnp.array([[0.0], [1.0]])
    with handlers.scale(scale=scale):
        squared_penalty("penalty", weight, lambda x: p * (1 - x[0]) + 2 * q * x[0], ends)
    bilo.solution("u", operator, {"D": 1.0})
    numpyro.sample("y", dist.Normal(jnp.stack([p, q]), 1.0), obs=jnp.ones(2))


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_squared_penalty_is_the_penalty_and_gauss_newton_sees_its_curvature(scale):
    init = {"p": 0.8, "q": 0.9}
    options = {"init": init, "optimizer": gauss_newton(1e-9), **QUIET}
    found = find_map(squared, KEY, CLOSED, 1.0, scale, **options)
    p, q = found.values["p"], found.values["q"]
    np.testing.assert_allclose([p, q], [1 / (1 + scale), 1 / (1 + 4 * scale)], atol=1e-5)
    assert found.history.steps <= 6
    np.testing.assert_allclose(found.terms["penalty"], scale * (p**2 + 4 * q**2) / 2, rtol=1e-6)
    with pytest.raises(ValueError, match=r"penalty.'penalty'.: the weight must be at least 0"):
        find_map(squared, KEY, CLOSED, -1.0, init=init, **QUIET)


def test_a_squared_penalty_may_be_of_the_solution():
    """Two rows, u and 2 u, where u = 1 / D: the least of 5 / 2 u^2 + (D - 1)^2 / 2."""

    def model(operator):
        D = numpyro.sample("D", dist.ImproperUniform(dist.constraints.positive, (), ()))
        u = bilo.solution("u", operator, {"D": D})
        squared_penalty("maximum", 2.5, lambda x: jnp.stack([u(x), 2 * u(x)]) / 5**0.5, POINT)
        numpyro.sample("y", dist.Normal(D, 1.0), obs=1.0)

    found = find_map(model, KEY, CLOSED, optimizer=gauss_newton(tolerance=1e-9), **QUIET)
    D = found.values["D"]
    np.testing.assert_allclose(D - 1, 5 / D**3, atol=1e-3)
    np.testing.assert_allclose(found.terms["maximum"], 2.5 / D**2, rtol=1e-6)


def test_singular_vectors_of_wide_jacobians_are_those_of_tall_ones():
    J = np.random.default_rng(0).normal(size=(5, 9)) * np.logspace(0, -3, 5)[:, None]
    values, right = line_search._right_singular(jnp.asarray(J))
    np.testing.assert_allclose(values, np.linalg.svd(J)[1], rtol=1e-10)
    np.testing.assert_allclose((right.T * values[None] ** 2) @ right, J.T @ J, atol=1e-12)
    tall, _ = line_search._right_singular(jnp.asarray(J.T))
    np.testing.assert_allclose(tall, values, rtol=1e-10)


def test_gauss_newton_is_refused_where_it_has_nothing_to_work_on():
    newton = gauss_newton()
    with pytest.raises(ValueError, match="gauss_newton needs data with a normal"):
        find_map(lognormal, KEY, CLOSED, optimizer=newton, **QUIET)
    with pytest.raises(ValueError, match="backtracking compares U at solved points"):
        estimate(optimizer=newton, method="simultaneous")


def test_lbfgs_comes_back_from_where_there_is_no_value_and_keeps_its_steps_short():
    values, z = minimised(lambda z: 10 * z - jnp.log(z), jnp.array(0.9), 30, first_step=5.0)
    assert np.isnan(values[1])
    np.testing.assert_allclose(z, 0.1, atol=1e-6)
    _, once = minimised(lambda z: 100 * z**2, jnp.array(1.5), 1)
    np.testing.assert_allclose(once, 1.4)
    with pytest.raises(ValueError, match="needs the parameters and the value"):
        backtracking_lbfgs().update(1.0, backtracking_lbfgs().init(jnp.array(1.0)))


@pytest.mark.parametrize("value", [jnp.inf, -jnp.inf, jnp.nan])
def test_a_value_that_is_not_finite_is_refused(value):
    optimiser, z, slope = backtracking_lbfgs(), jnp.array(1.0), jnp.array(2.0)
    ahead, state = optimiser.update(slope, optimiser.init(z), z, value=jnp.array(3.0))
    back, after = optimiser.update(slope, state, z + ahead, value=jnp.array(value))
    assert ahead < 0 < back < -ahead
    assert after.anchor == z
    assert after.value == 3.0
    nowhere, first = optimiser.update(slope, optimiser.init(z), z, value=jnp.array(value))
    assert nowhere == 0
    assert first.value == jnp.inf


# Stopping.


def test_a_coarser_gradient_tolerance_stops_earlier_and_the_step_limit_is_kept():
    fine, coarse = estimate(), estimate(gradient_tolerance=0.5)
    assert coarse.history.steps < fine.history.steps
    assert coarse.history.gradient[-1] <= 0.5 < coarse.history.gradient[:-1].min()
    limited = estimate(steps=3)
    assert limited.status == "steps"
    assert not limited.converged
    assert limited.history.steps == 3


def test_patience_ends_a_descent_without_progress_and_the_best_point_is_kept():
    found = estimate(gradient_tolerance=0.0, patience=15)
    assert found.status == "no_progress"
    assert "U no longer falls" in found.message
    np.testing.assert_allclose(found.energy, found.history.energy.min())


def test_divergence_stops_points_to_the_documentation_and_keeps_the_last_good_point():
    found = estimate(optimizer=optax.sgd(1.0))
    assert found.status == "diverged"
    assert "far too large. See" in found.message
    assert np.isfinite(found.energy)
    assert found.history.steps < 50


def test_growth_of_the_lower_level_loss_is_divergence_too():
    found = estimate(ClosedForm(wall=2.1), optimizer=optax.sgd(-0.05))
    assert found.status == "inner_diverged"
    assert "lower-level loss diverged at step" in found.message
    assert found.values["D"] <= 2.1


def test_unsolved_points_do_not_count_and_too_many_end_the_descent():
    found = estimate(ClosedForm(bound=1.5))
    assert found.history.inner_converged[0] == False  # noqa: E712
    assert found.status == "converged"
    found = estimate(ClosedForm(bound=0.1))
    assert found.status == "unsolved"
    assert "missed its tolerance" in found.message
    assert "not to its tolerance" in found.message
    assert found.history.steps == 10
    assert not found.converged


@pytest.mark.parametrize("optimizer", [ADAM, None], ids=["adam", "backtracking"])
def test_the_best_point_is_one_that_is_solved_though_u_is_less_beyond(optimizer):
    """The mode, near 0.97, lies where the PDE is not solved."""
    found = estimate(ClosedForm(bound=0.8), init={"D": 0.5}, optimizer=optimizer, steps=40)
    assert found.values["D"] <= 0.8
    assert found.inner.converged
    solved = found.history.inner_converged
    np.testing.assert_allclose(found.energy, found.history.energy[solved].min())
    assert not solved.all()
    if optimizer is None:
        # Trials come back from there, up to the edge.
        assert found.values["D"] > 0.79
        assert solved[np.argmin(solved) :].any()


def test_a_line_search_of_optax_knows_where_the_pde_is_not_solved():
    """It tries its steps itself, where there are no more than the value and its gradient."""
    found = estimate(
        ClosedForm(bound=0.8), init={"D": 0.5}, optimizer=optax.lbfgs(), steps=40, improvement=0.0
    )
    assert found.history.inner_converged.all()
    assert 0.79 < found.values["D"] <= 0.8


def test_ctrl_c_keeps_the_best_point(monkeypatch):
    blocks, descend = [], descent.descend

    def interrupted(*args):
        blocks.append(None)
        if len(blocks) == 2:
            signal.raise_signal(signal.SIGINT)
        return descend(*args)

    monkeypatch.setattr(descent, "descend", interrupted)
    # However many steps a block has, that is not the end.
    found = estimate(steps=100_000, gradient_tolerance=0.0, patience=100_000)
    assert found.status == "interrupted"
    assert len(blocks) == 2
    assert found.history.steps > 1
    assert found.energy == pytest.approx(found.history.energy.min())


# Going on.


def test_resuming_is_as_if_there_had_been_no_interruption(tmp_path):
    options = {"gradient_tolerance": 0.0, "patience": 1000}
    whole = estimate(steps=20, **options).history
    first = estimate(steps=8, **options)
    path = tmp_path / "estimate.eqx"
    save_estimate(path, first)
    for resume in (first, path, str(path)):
        found = estimate(steps=12, resume=resume, **options)
        assert found.history.steps == 20
        np.testing.assert_allclose(found.history.energy, whole.energy, rtol=1e-12)
        np.testing.assert_allclose(found.history.values["D"], whole.values["D"], rtol=1e-12)
        assert np.all(np.diff(found.history.cpu_seconds) >= 0)


def test_another_run_or_another_file_is_refused(tmp_path):
    path = tmp_path / "estimate.eqx"
    first = estimate(steps=2)
    save_estimate(path, first)
    for resume in (first, path):
        with pytest.raises(ValueError, match=r"belongs to another run.*same model, operator"):
            estimate(optimizer=SGD, resume=resume)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(ValueError, match="the file is damaged"):
        estimate(resume=path)
    path.write_text("D,2.0\n")
    with pytest.raises(ValueError, match="is not an estimate file"):
        estimate(resume=path)


# Bad input.


def without_solution():
    numpyro.sample("D", dist.Normal())


def without_latent(operator):
    numpyro.sample("y", dist.Normal(bilo.solution("u", operator, {"D": 1.0})(X[0]), 1), obs=1.0)


def discrete(operator):
    D = numpyro.sample("D", dist.Poisson(3.0))
    numpyro.factor("y", bilo.solution("u", operator, {"D": 1.0 + D})(X[0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": {"k": 1.0}}, r"init names \['k'\]; the latent sites are \['D'\]"),
        ({"init": {"D": -1.0}}, r"first guess D = -1.0 lies outside the support"),
        ({"init": {"D": np.nan}}, "D.* = nan is not finite"),
        ({"init": {"D": 0.0}}, "outside the support|edge of its support"),
        ({"init": {"D": [1.0, 2.0]}}, r"has shape \(2,\); the site has shape \(\)"),
        ({"data": (X, Y, -0.1)}, r"Normal of 'y' has scale = -0.1; it must be positive"),
        ({"data": (X, np.where(Y > 0.5, np.nan, Y), SIGMA)}, "data of 'y' are NaN or infinite"),
        ({"method": "newton"}, "method is 'newton'"),
        ({"method": "simultaneous"}, "no weights to descend on; use method='nested'"),
        ({"steps": 0}, "steps is 0; the least is 1"),
        ({"gradient_tolerance": -1.0}, "gradient_tolerance is -1.0; the least is 0"),
        ({"patience": 0}, "patience is 0"),
    ],
)
def test_bad_input_is_refused_before_any_solve(options, message):
    before = len(TRACED)
    with pytest.raises(ValueError, match=message):
        estimate(**options)
    assert len(TRACED) == before


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        (without_solution, (), "no solution"),
        (without_latent, (CLOSED,), "nothing to estimate"),
        (discrete, (CLOSED,), "'D' is discrete"),
    ],
)
def test_models_that_cannot_be_estimated(model, args, message):
    with pytest.raises(ValueError, match=message):
        find_map(model, KEY, *args, progress=False)


def test_a_first_guess_without_density_names_the_term():
    def model(operator):
        D = numpyro.sample("D", dist.Normal(0.0, 1.0))
        bilo.solution("u", operator, {"D": D})
        numpyro.factor("root", jnp.sqrt(D))

    with pytest.raises(ValueError, match=r"not finite at the first guess.*'root': nan"):
        find_map(model, KEY, CLOSED, init={"D": -1.0}, optimizer=SGD, progress=False)


# Simultaneous descent: Algorithm 1, by hand.


class Algebraic(poisson.Poisson):
    points = bilo.interval(0.0, 1.0).grid(4)

    def residual(self, u, x, theta):
        return theta["D"] * u(x) - jnp.sin(jnp.pi * x[0])


def test_simultaneous_descent_is_algorithm_1():
    local = bilo.LocalOperator(Algebraic(), {"D": 2.0}, key=KEY, width=4, depth=1, dtype=np.float64)
    weights_rate, theta_rate = optax.adam(0.02), optax.adam(0.05)
    solver = bilo.OptaxSolver(weights_rate, tolerance=1e-6, max_steps=0)
    operator = bilo.FineTuned(local, solver, bilo.ResidualGradient())
    found = estimate(operator, optimizer=theta_rate, method="simultaneous", steps=4)

    def energy(z, W):
        D = jnp.exp(z)
        u = jax.vmap(local.with_weights(W).field({"D": D}))(X)
        return -dist.Gamma(2.0, 1.0).log_prob(D) - jnp.sum(dist.Normal(u, SIGMA).log_prob(Y))

    @jax.jit
    def both(z, W):
        lower = jax.value_and_grad(operator.lower_level.at({"D": jnp.exp(z)}).loss)(W)
        return jax.value_and_grad(energy)(z, W), lower

    z, W = jnp.log(2.0), local.weights
    of_z, of_W = theta_rate.init(z), weights_rate.init(W)
    for step in range(4):
        (U, slope), (loss, gradient) = both(z, W)
        np.testing.assert_allclose(found.history.energy[step], U, rtol=1e-10)
        np.testing.assert_allclose(found.history.inner_loss[step], loss, rtol=1e-10)
        np.testing.assert_allclose(found.history.gradient[step], abs(slope), rtol=1e-8)
        update, of_z = theta_rate.update(slope, of_z)
        z = jnp.asarray(z) + jnp.asarray(update)
        update, of_W = weights_rate.update(gradient, of_W)
        W = eqx.apply_updates(W, update)
    np.testing.assert_allclose(found.state.z["D"], z, rtol=1e-10)
    assert not found.inner.converged
    assert "Stopped at the limit of 4 steps. The weights lag behind theta" in found.message
    assert f"loss {loss:.1e} at the last step" in found.message
    assert "(tolerance 1e-06)" in found.message


@pytest.mark.parametrize("tolerance", [1e-3, 1e3], ids=["lagging", "following"])
def test_a_simultaneous_descent_is_judged_by_the_weights_that_it_went_with(tolerance):
    """A solve at its end does not make an estimate of where it happened to be."""
    local = bilo.LocalOperator(Algebraic(), {"D": 2.0}, key=KEY, width=4, depth=1, dtype=np.float64)
    solver = bilo.OptaxSolver(optax.adam(0.02), tolerance=tolerance, max_steps=5000)
    operator = bilo.FineTuned(local, solver, bilo.ResidualGradient())
    stop = {"steps": 4, "patience": 1, "improvement": 1e9}
    found = estimate(operator, optimizer=optax.adam(0.05), method="simultaneous", **stop)
    assert found.status == "no_progress"
    assert found.inner.converged
    assert found.converged == (tolerance == 1e3)
    assert ("The weights lag behind theta" in found.message) == (tolerance == 1e-3)
    if tolerance == 1e-3:
        assert f"{float(found.inner.loss):.1e} after a solve there" in found.message


# Laplace's approximation.


def conjugate(operator, y):
    """y ~ N(1 / D, 0.5^2) with 1 / D = m, m ~ N(1, 1): a Gaussian posterior."""
    m = numpyro.sample("m", dist.Normal(1.0, 1.0))
    c = numpyro.sample("c", dist.LogNormal(0.5, 0.3))
    u = bilo.solution("u", operator, {"D": 1 / m})
    numpyro.factor("c only by its prior", 0.0 * c)
    numpyro.sample("y", dist.Normal(u(jnp.array([0.5])), 0.5), obs=y)


@pytest.fixture(scope="module")
def gaussian():
    found = find_map(conjugate, KEY, CLOSED, 2.0, optimizer=ADAM, progress=False)
    return laplace(found)


def test_laplace_is_exact_for_a_gaussian(gaussian):
    # Sites in sorted order: log c, then m.
    np.testing.assert_allclose(gaussian.mean, [0.5, 1.8], atol=1e-4)
    np.testing.assert_allclose(gaussian.covariance, np.diag([0.09, 0.2]), atol=1e-5)
    np.testing.assert_allclose(
        gaussian.log_evidence, dist.Normal(1.0, np.sqrt(1.25)).log_prob(2.0), atol=1e-5
    )
    assert gaussian.decrement < 1e-2


def test_laplace_draws_are_those_of_the_gaussian_and_go_to_arviz(gaussian):
    draws = gaussian.sample(jax.random.key(1), 2000, chains=2)
    posterior = bilo.to_arviz(draws)["posterior"]
    assert posterior["m"].shape == (2, 2000)
    np.testing.assert_allclose(posterior["m"].mean(), 1.8, atol=4 * 0.45 / 63)
    np.testing.assert_allclose(np.log(posterior["c"]).std(), 0.3, atol=4 * 0.3 / 89)


def test_laplace_refuses_what_is_no_minimum():
    def flat(operator):
        D = numpyro.sample("D", dist.ImproperUniform(dist.constraints.real, (), ()))
        numpyro.factor("y", 0.0 * bilo.solution("u", operator, {"D": D})(X[0]))

    found = find_map(flat, KEY, CLOSED, init={"D": 1.0}, optimizer=ADAM, progress=False)
    with pytest.raises(ValueError, match=r"not convex at the estimate along \['D'\]"):
        laplace(found)
    with pytest.raises(ValueError, match=r"1 unknowns are more than max_dimension .0.*2 gradients"):
        laplace(found, max_dimension=0)


def quartic(operator):
    """U = a^4 / 4 + a - log D, D near 1: Newton's full steps from a = 0.1 overshoot the mode -1."""
    a = numpyro.sample("a", dist.ImproperUniform(REAL, (), ()))
    bilo.solution("u", operator, {"D": 1.0 + 0 * a})
    numpyro.factor("well", -(a**4 / 4 + a) * 100)


def short_of_the_mode(model, z, *args, operator=CLOSED):
    """An estimate that did not move."""
    return find_map(model, KEY, operator, *args, init=z, steps=1, optimizer=optax.sgd(0.0), **QUIET)


def test_laplace_finds_the_mode_by_shortened_steps_and_mean_and_covariance_belong_together():
    found = laplace(short_of_the_mode(quartic, {"a": 0.1}))
    np.testing.assert_allclose(found.mean, [-1.0], atol=1e-3)
    a = found.mean[0]
    np.testing.assert_allclose(found.covariance, [[1 / (300 * a**2)]], rtol=1e-3)
    np.testing.assert_allclose(found.energy, 100 * (a**4 / 4 + a), rtol=1e-12)
    slope, curvature = 100 * (a**3 + 1), 300 * a**2
    np.testing.assert_allclose(found.decrement, abs(slope) / curvature**0.5, rtol=1e-2, atol=1e-6)


def test_laplace_shortens_a_step_that_leads_to_where_the_pde_is_not_solved():
    """The first step that lowers U ends at a = -0.84, in a gap before the mode."""

    def with_gap(operator):
        a = numpyro.sample("a", dist.ImproperUniform(REAL, (), ()))
        bilo.solution("u", operator, {"D": 2.0 + a})
        numpyro.factor("well", -(a**4 / 4 + a) * 100)

    gap = bilo.ClosedForm(
        poisson.problem, lambda x, theta: x[0], valid=lambda theta: abs(theta["D"] - 1.16) > 0.06
    )
    found = laplace(short_of_the_mode(with_gap, {"a": 0.1}, operator=gap))
    np.testing.assert_allclose(found.mean, [-1.0], atol=1e-3)


def test_laplace_that_does_not_reach_the_mode_is_refused(monkeypatch):
    monkeypatch.setattr(laplace_approximation, "NEWTON_STEPS", 2)
    with pytest.raises(ValueError, match=r"mode was not found.*standard deviations away"):
        laplace(short_of_the_mode(quartic, {"a": 0.1}))


def test_laplace_refuses_differences_of_failed_solves():
    found = estimate()
    edge = ClosedForm(bound=float(found.values["D"]) * 1.0001)
    with pytest.raises(ValueError, match="not solved at 1 of the 3 points"):
        laplace(estimate(edge, init={"D": found.values["D"]}, steps=1, optimizer=optax.sgd(0.0)))


# With networks.


class Frozen(ClosedForm):
    """Differentiates to a part of the true derivative; made for searching, it is exact."""

    part: float = 1.0

    @property
    def differentiates_exactly(self):
        return False

    def searching(self):
        return CLOSED

    def solve(self, theta, state):
        D = theta["D"]
        blunt = self.part * D + jax.lax.stop_gradient((1 - self.part) * D)
        return super().solve({"D": blunt}, state)


def test_an_operator_with_a_wrong_gradient_is_refused():
    with pytest.raises(ValueError, match=r"gradient of U at the first guess is wrong by"):
        estimate(Frozen(part=0.5))
    np.testing.assert_allclose(estimate(Frozen(part=0.95)).values["D"], mode(density), atol=1e-2)
    estimate(Frozen(part=0.5, bound=0.1), steps=1)


def test_the_partial_derivative_of_an_operator_that_is_not_adapted_is_refused(small_problem):
    network, _ = bilo.pretrain(
        small_problem,
        {"D": 1.0},
        key=jax.random.key(3),
        solver=bilo.LevenbergMarquardt(tolerance=1e-8, max_steps=200),
        sensitivity=bilo.PartialDerivative(),
        width=8,
        dtype=np.float64,
        progress=False,
    )
    solver = bilo.LevenbergMarquardt(tolerance=1e-7, max_steps=30)
    operator = bilo.FineTuned(network, solver, bilo.PartialDerivative())
    with pytest.raises(ValueError, match=r"operators of \['u'\] differentiate at fixed weights"):
        estimate(operator, init={"D": 1.5})


@pytest.mark.slow
@pytest.mark.parametrize("sensitivity", [bilo.ImplicitDifferentiation(), bilo.ResidualGradient()])
def test_a_fine_tuned_network_finds_the_mode(small_operator, sensitivity):
    solver = bilo.LevenbergMarquardt(tolerance=1e-8, max_steps=30)
    operator = bilo.FineTuned(small_operator, solver, sensitivity)
    found = estimate(operator, optimizer=None, patience=None)
    assert found.converged
    assert found.history.steps < 40
    np.testing.assert_allclose(found.values["D"], mode(density), atol=2e-3)
    approximation = laplace(found)
    D = np.linspace(0.4, 3.0, 4001)
    weight = np.exp(-density(D))
    mean = np.sum(D * weight) / np.sum(weight)
    sd = np.sqrt(np.sum((D - mean) ** 2 * weight) / np.sum(weight))
    np.testing.assert_allclose(standard_deviation(approximation), sd, rtol=0.05)


def standard_deviation(approximation):
    return float(approximation.covariance[0, 0] ** 0.5 * np.exp(approximation.mean[0]))


@pytest.mark.slow
def test_simultaneous_descent_of_a_network_finds_the_mode(small_operator):
    solver = bilo.OptaxSolver(optax.adam(1e-2), tolerance=1e-4, max_steps=3000)
    operator = bilo.FineTuned(small_operator, solver, bilo.ResidualGradient())
    found = estimate(operator, method="simultaneous", optimizer=optax.adam(1e-2), steps=3000)
    np.testing.assert_allclose(found.values["D"], mode(density), atol=2e-2)
    assert found.inner.converged
