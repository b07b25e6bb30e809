"""What every solution operator, inner solver, sensitivity and field must do, whoever wrote it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer.util import potential_energy

import bilo_ppl as bilo
from bilo_ppl.inner.least_squares import LeastSquares, RowFamily
from bilo_ppl.inner.solvers import solve
from models import burgers, fisher_kpp

# ---------------------------------------------------------------------------- solution operators


def exact_poisson(x, theta):
    return jnp.sin(jnp.pi * x[0]) / theta["D"]


def constant(x):
    """A speed of constant sign, that Godunov's method carries to the right."""
    return jnp.sin(jnp.pi * x[0])


class Plane(bilo.Problem):
    """-div(D grad u) = 1 on the unit square, u = 0 on its boundary."""

    parameters = ("D",)
    components = 1
    domain = bilo.Box((0.0, 0.0), (1.0, 1.0))
    points = domain.grid(5, 5)

    def residual(self, u, x, theta):
        return theta["D"] * bilo.laplacian(u)(x) + 1

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * x[1] * (1 - x[1]) * raw


class Image(bilo.Problem):
    """u_t = D laplace u + rho u (1 - u) on an image."""

    parameters = ("D", "rho")
    components = 1
    domain = bilo.space_time(bilo.image_domain(np.ones((6, 5))), 1.0)
    points = domain.scatter(5)


def image_operator():
    return bilo.ReactionDiffusion(
        Image(),
        theta={"D": 1.0, "rho": 1.0},
        diffusivity=lambda theta: theta["D"],
        initial=lambda theta: np.linspace(0.1, 0.4, 30).reshape(6, 5),
        flow=bilo.logistic_flow(lambda theta: theta["rho"]),
        steps=8,
    )


@pytest.fixture(scope="session")
def operators(small_problem, small_operator):
    """By name: an operator, and two thetas that it can solve."""
    tuned = bilo.FineTuned(
        small_operator, bilo.LevenbergMarquardt(1e-9, 30), bilo.ImplicitDifferentiation()
    )
    small = fisher_kpp.FisherKPP(nx=5, nt=5)
    ones, twos = {"D": 1.0, "rho": 1.0}, {"D": 1.2, "rho": 1.1}
    poissons = {"D": 1.0}, {"D": 1.1}
    fields = {"u0": burgers.truths["smooth"]}, {"u0": constant}
    return {
        "closed form": (bilo.ClosedForm(small_problem, exact_poisson), *poissons),
        "fine-tuned": (tuned, *poissons),
        "one step": (tuned.in_steps({"D": 1.0}, 2), *poissons),
        "finite differences": (
            bilo.FiniteDifferences(small_problem, 41, theta={"D": 1.0}),
            *poissons,
        ),
        "method of lines": (bilo.MethodOfLines(small, 11, 11, theta=ones), ones, twos),
        "finite volumes": (
            bilo.FiniteVolumes(
                Plane(),
                (8, 8),
                theta={"D": 1.0},
                coefficient=lambda theta: theta["D"],
                source=lambda theta: 1.0,
            ),
            *poissons,
        ),
        "reaction and diffusion": (image_operator(), ones, twos),
        "Godunov": (burgers.reference(nodes=21), *fields),
    }


NAMES = [
    "closed form",
    "fine-tuned",
    "one step",
    "finite differences",
    "method of lines",
    "finite volumes",
    "reaction and diffusion",
    "Godunov",
]
ADJUSTABLE = [name for name in NAMES if name != "Godunov"]
"""Those whose theta here is a set of numbers."""

DIFFERENTIABLE = [name for name in ADJUSTABLE if name != "one step"]
"""Those that solve to the end."""


def middle(operator):
    lower, upper = (
        np.array(side) for side in (operator.problem.domain.lower, operator.problem.domain.upper)
    )
    return jnp.asarray(lower + np.array([0.4, 0.7, 0.6])[: len(lower)] * (upper - lower))


def value(operator, theta):
    field, _, info = operator.solve(theta, operator.init_state())
    return field(middle(operator)), info


@pytest.mark.parametrize("name", NAMES)
def test_an_operator_gives_a_field_a_state_like_the_first_and_a_report(operators, name):
    operator, theta, _ = operators[name]
    first = operator.init_state()
    field, state, info = operator.solve(theta, first)
    assert jax.tree.structure(state) == jax.tree.structure(first)
    for new, old in zip(jax.tree.leaves(state), jax.tree.leaves(first), strict=True):
        assert np.shape(new) == np.shape(old)
    assert all(np.shape(leaf) == () for leaf in info)
    assert np.isfinite(info.loss)
    assert info.steps >= 0
    reason = bilo.StopReason(int(info.reason))
    assert bool(info.converged) == (reason == bilo.StopReason.CONVERGED)
    u = field(middle(operator))
    assert np.shape(u) == ()
    assert np.isfinite(u)
    gradient = bilo.grad(field)(middle(operator))
    assert gradient.shape == middle(operator).shape
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_an_operator_solves_at_the_thetas_it_is_made_for(operators, name):
    operator, *thetas = operators[name]
    if name == "one step":
        pytest.skip("it takes steps, and need not converge")
    for theta in thetas:
        assert value(operator, theta)[1].converged


@pytest.mark.parametrize("name", ADJUSTABLE)
def test_an_operator_may_be_compiled_and_mapped_over_thetas(operators, name):
    operator, *thetas = operators[name]
    batch = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(v) for v in leaves]), *thetas)
    many, infos = jax.jit(jax.vmap(lambda theta: value(operator, theta)))(batch)
    for i, theta in enumerate(thetas):
        one, info = value(operator, theta)
        np.testing.assert_allclose(many[i], one, rtol=1e-5)
        assert infos.converged[i] == info.converged


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_an_operator_is_differentiable_in_theta(operators, name):
    operator, theta, _ = operators[name]
    at = {key: jnp.asarray(v, float) for key, v in theta.items()}
    gradient, _ = jax.grad(lambda t: value(operator, t), has_aux=True)(at)
    for key in at:
        h = 1e-4 if name != "fine-tuned" else 1e-2
        ends = [value(operator, {**at, key: at[key] + s * h})[0] for s in (1, -1)]
        np.testing.assert_allclose(gradient[key], (ends[0] - ends[1]) / (2 * h), rtol=5e-3)


@pytest.mark.parametrize("name", ADJUSTABLE)
def test_state_and_report_carry_no_derivative(operators, name):
    operator, theta, _ = operators[name]

    def carried(t):
        _, state, info = operator.solve(t, operator.init_state())
        leaves = [leaf for leaf in jax.tree.leaves(state) if eqx.is_inexact_array(leaf)]
        return info.loss + sum((jnp.sum(leaf) for leaf in leaves), jnp.zeros(()))

    at = {key: jnp.asarray(v, float) for key, v in theta.items()}
    for derivative in jax.tree.leaves(jax.grad(carried)(at)):
        np.testing.assert_array_equal(derivative, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_an_operator_refuses_other_names_and_values_that_are_not_finite(operators, name):
    operator, theta, _ = operators[name]
    with pytest.raises(ValueError, match="unknown"):
        operator.solve({**theta, "other": 1.0}, operator.init_state())
    if name in ADJUSTABLE:
        key = next(iter(theta))
        with pytest.raises(ValueError, match=rf"theta\['{key}'\] = nan is not finite"):
            operator.solve({**theta, key: np.nan}, operator.init_state())


@pytest.mark.parametrize("name", NAMES)
def test_an_operator_answers_or_says_that_it_cannot(operators, name):
    operator, theta, _ = operators[name]
    assert set(operator.home) <= set(operator.problem.parameters)
    assert operator.loss_tolerance is None or operator.loss_tolerance > 0
    assert isinstance(operator.relaxed(), bilo.AbstractSolutionOperator)
    for ask in (
        lambda: operator.tightened(10.0, 5),
        lambda: operator.in_steps(theta, 1),
        lambda: operator.loss_of_home_state(theta),
    ):
        try:
            ask()
        except NotImplementedError as error:
            assert type(operator).__name__ in str(error)  # noqa: PT017


@pytest.mark.parametrize("name", ADJUSTABLE)
def test_an_operator_serves_a_model(operators, name):
    operator, theta, _ = operators[name]
    x = middle(operator)[None]

    def model():
        values = {key: numpyro.sample(key, dist.LogNormal(0.0, 1.0)) for key in theta}
        u = bilo.solution("u", operator, values)
        numpyro.sample("y", dist.Normal(jax.vmap(u)(x), 0.1), obs=jnp.ones(1))

    z = {key: jnp.log(jnp.asarray(v)) for key, v in theta.items()}
    with bilo.warm_start(accept_unconverged=True):
        energy, slope = jax.value_and_grad(lambda z: potential_energy(model, (), {}, z))(z)
    assert np.isfinite(energy)
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(slope))


# --------------------------------------------------------------------------------- inner solvers

SOLVERS = {
    "Levenberg-Marquardt": lambda tol, steps: bilo.LevenbergMarquardt(tol, steps),
    "Adam": lambda tol, steps: bilo.OptaxSolver(optax.adam(0.05), tolerance=tol, max_steps=steps),
}


def rosenbrock(shift: Any = 0.0):
    """Two rows whose zero is (1 + shift, (1 + shift)^2)."""

    def rows(w, item):
        return {"valley": jnp.stack([w["a"] - 1 - shift, 3 * (w["b"] - w["a"] ** 2)]) * item}

    return LeastSquares((RowFamily(rows, jnp.ones(1), {}),))


START = {"a": jnp.array(0.4), "b": jnp.array(0.2)}


@pytest.fixture(params=list(SOLVERS))
def solver_kind(request):
    return SOLVERS[request.param]


def test_a_solver_reaches_its_tolerance_and_reports_the_loss_of_its_weights(solver_kind):
    found = jax.jit(lambda w: solve(solver_kind(1e-6, 2000), rosenbrock(), w))(START)
    assert found.converged
    assert found.loss <= 1e-6
    np.testing.assert_allclose(found.loss, rosenbrock().loss(found.value), rtol=1e-6)
    assert 0 < found.steps <= 2000


def test_a_solver_takes_no_step_where_none_is_needed(solver_kind):
    there = {"a": jnp.array(1.0), "b": jnp.array(1.0)}
    found = solve(solver_kind(1e-6, 10), rosenbrock(), there)
    assert found.steps == 0
    assert found.reason == bilo.StopReason.CONVERGED
    assert found.value["a"] == 1.0


def test_a_solver_says_why_it_stops(solver_kind):
    few = jax.jit(lambda w: solve(solver_kind(1e-12, 1), rosenbrock(), w))(START)
    assert few.reason == bilo.StopReason.STEP_LIMIT
    assert few.steps == 1
    lost = solve(solver_kind(1e-6, 5), rosenbrock(jnp.nan), START)
    assert lost.reason == bilo.StopReason.NOT_FINITE
    assert not lost.converged


def test_a_batch_of_solves_stops_one_by_one(solver_kind):
    starts = {"a": jnp.array([1.0, 0.4]), "b": jnp.array([1.0, 0.2])}
    found = jax.jit(jax.vmap(lambda w: solve(solver_kind(1e-6, 2000), rosenbrock(), w)))(starts)
    assert found.steps[0] == 0
    assert found.converged.all()
    alone = solve(solver_kind(1e-6, 2000), rosenbrock(), START)
    assert found.steps[1] == alone.steps


def test_following_another_problem_gives_its_loss_and_counts_afresh(solver_kind):
    solver = solver_kind(1e-9, 50)
    state = solver.step(rosenbrock(), solver.step(rosenbrock(), solver.init(rosenbrock(), START)))
    moved = rosenbrock(0.3)
    after = solver.follow(moved, state)
    np.testing.assert_allclose(after.loss, moved.loss(after.weights), rtol=1e-6)
    assert after.steps <= 1


@pytest.mark.parametrize(("tolerance", "steps"), [(0.0, 5), (-1.0, 5), (1e-6, -1)])
def test_limits_that_cannot_be_meant_are_refused(solver_kind, tolerance, steps):
    with pytest.raises(
        ValueError, match=r"tolerance must be positive|max_steps must be at least 0"
    ):
        solver_kind(tolerance, steps)


# --------------------------------------------------------------------------------- sensitivities

SENSITIVITIES = {
    "residual gradient": bilo.ResidualGradient(),
    "implicit": bilo.ImplicitDifferentiation(),
    "partial": bilo.PartialDerivative(),
}


@pytest.fixture(params=list(SENSITIVITIES))
def sensitivity(request):
    return SENSITIVITIES[request.param]


def test_a_sensitivity_gives_the_same_weights_back(small_operator, sensitivity):
    level = bilo.LowerLevel(small_operator, sensitivity)
    weights = small_operator.weights
    attached = sensitivity.attach(level, weights, {"D": jnp.array(1.1)})
    assert jax.tree.structure(attached) == jax.tree.structure(weights)
    for new, old in zip(jax.tree.leaves(attached), jax.tree.leaves(weights), strict=True):
        np.testing.assert_array_equal(new, old)


def test_the_rows_of_a_sensitivity_have_weights(small_operator, sensitivity):
    level = bilo.LowerLevel(small_operator, sensitivity)
    named = level.at({"D": jnp.array(1.1)}).named(small_operator.weights)
    added = sensitivity.row_weights({"residual": 1.0})
    assert set(named) == {"residual", *added}
    assert all(weight > 0 for weight in added.values())


def test_a_sensitivity_gives_the_derivative_of_the_solution(small_operator, sensitivity):
    """At home, where the pretrained operator (by residual gradient) serves all of them."""
    operator = bilo.FineTuned(small_operator, bilo.LevenbergMarquardt(1e-7, 30), sensitivity)
    x = jnp.array([0.3])
    slope = jax.grad(lambda D: operator.solve({"D": D}, operator.init_state())[0](x))(1.0)
    np.testing.assert_allclose(slope, -np.sin(0.3 * np.pi), rtol=2e-2)


# ---------------------------------------------------------------------------------------- fields

SPACE = bilo.interval(0.0, 1.0)
FIELDS = {
    "Karhunen-Loeve": bilo.KarhunenLoeve(np.array([0.3, -0.2, 0.1])),
    "network": bilo.NetworkField(
        SPACE, width=5, key=jax.random.key(0), lift=lambda x, r: 1 + 0.1 * r
    ),
    "network with Fourier features": bilo.NetworkField(
        SPACE, width=5, fourier=2, key=jax.random.key(0), lift=lambda x, r: 1 + 0.1 * r
    ),
}


@pytest.fixture(params=list(FIELDS))
def field(request):
    return FIELDS[request.param]


def test_a_field_is_a_smooth_function_of_a_point(field):
    x = jnp.array([0.3])
    assert np.shape(field(x)) == ()
    np.testing.assert_allclose(field(x), field(jnp.array(0.3)), rtol=1e-6)
    h = 1e-3
    difference = (field(x + h) - field(x - h)) / (2 * h)
    np.testing.assert_allclose(bilo.grad(field)(x)[0], difference, rtol=1e-2, atol=1e-4)


def test_the_weights_of_a_field_stand_for_it(field):
    from bilo_ppl.fields import with_field_weights

    weights = bilo.field_weights(field)
    assert weights.ndim == 1
    x = jnp.array([0.6])
    np.testing.assert_allclose(with_field_weights(field, weights)(x), field(x), rtol=1e-6)
    moved = with_field_weights(field, weights + 0.1)
    np.testing.assert_allclose(bilo.field_weights(moved), weights + 0.1, rtol=1e-6)
    assert moved(x) != field(x)
    with pytest.raises(ValueError, match="trainable numbers"):
        with_field_weights(field, weights[:-1])


def test_a_field_is_an_entry_of_theta_and_a_latent_site(field):
    from models.variable_poisson import problem

    operator = bilo.FiniteDifferences(problem, 41, theta={"D": field})

    def model():
        D = bilo.unknown_function("D", field, prior_sd=1.0)
        u = bilo.solution("u", operator, {"D": D})
        numpyro.sample("y", dist.Normal(u(jnp.array([0.5])), 0.1), obs=1.0)

    z = {"D": bilo.field_weights(field)}
    energy, slope = jax.value_and_grad(lambda z: potential_energy(model, (), {}, z))(z)
    assert np.isfinite(energy)
    direction = jnp.ones_like(z["D"]) / z["D"].size
    h = 1e-4
    ends = [potential_energy(model, (), {}, {"D": z["D"] + s * h * direction}) for s in (1, -1)]
    np.testing.assert_allclose(slope["D"] @ direction, (ends[0] - ends[1]) / (2 * h), rtol=1e-3)
