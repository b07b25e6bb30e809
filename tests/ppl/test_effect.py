"""``solution`` in a model, and the handlers that act on it, with a closed form as operator."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, init_to_value
from numpyro.infer.util import potential_energy

import bilo_ppl as bilo
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.ppl.handlers import replace_operator, warm_start, without_solving
from models import poisson

POINT = jnp.array([0.5])


class Scaled(AbstractSolutionOperator):
    """u = scale sin(pi x) / D; the state counts the solves; D > bound does not converge."""

    problem: Any = poisson.problem
    scale: float = 1.0
    bound: float = 10.0

    def init_state(self):
        return jnp.array(0)

    def solve(self, theta, state):
        D = theta["D"]
        converged = jnp.asarray(self.bound >= D)
        info = SolveInfo.of(state + 3, jnp.abs(jax.lax.stop_gradient(D)), converged)
        return (lambda x: self.scale * jnp.sin(jnp.pi * x[0]) / D), state + 1, info


class Forbidden(Scaled):
    def solve(self, theta, state):
        raise AssertionError("solved")


def model(operator, D=None):
    D = numpyro.sample("D", dist.Gamma(2.0, 1.0)) if D is None else D
    u = bilo.solution("u", operator, {"D": D})
    return u(POINT)


def twice(operator, second="v"):
    u = bilo.solution("u", operator, {"D": 1.0})
    v = bilo.solution(second, operator, {"D": 4.0})
    return u(POINT), v(POINT)


def test_without_handlers_solution_is_a_pure_function_of_theta():
    assert model(Scaled(), 2.0) == model(Scaled(), 2.0) == 0.5
    np.testing.assert_allclose(jax.grad(lambda D: model(Scaled(), D))(2.0), -0.25)
    np.testing.assert_allclose(
        jax.vmap(lambda D: model(Scaled(), D))(jnp.array([1.0, 4.0])), [1, 0.25]
    )


def test_effect_leaves_the_other_sites_alone():
    trace = handlers.trace(handlers.seed(model, 0)).get_trace(Scaled())
    assert trace["D"]["type"] == "sample"
    assert [name for name, site in trace.items() if site["type"] == "sample"] == ["D"]


def test_unconverged_solve_gives_nan_and_a_finite_derivative():
    value, slope = jax.value_and_grad(lambda D: model(Scaled(bound=1.0), D))(2.0)
    assert np.isnan(value)
    assert np.isfinite(slope)
    assert model(Scaled(bound=1.0), 0.5) == 2.0


def test_unconverged_fine_tuning_gives_nan_and_a_finite_derivative(small_operator):
    solver = bilo.LevenbergMarquardt(tolerance=1e-9, max_steps=0)
    operator = bilo.FineTuned(small_operator, solver, bilo.ResidualGradient())
    value, slope = jax.jit(jax.value_and_grad(lambda D: model(operator, D)))(2.0)
    assert np.isnan(value)
    assert np.isfinite(slope)


@pytest.mark.parametrize(
    "of",
    [
        lambda u: bilo.grad(u)(POINT)[0],
        lambda u: bilo.partial(u, 0)(POINT),
        lambda u: bilo.laplacian(u)(POINT),
        lambda u: jax.grad(u)(POINT)[0],
        lambda u: jax.hessian(u)(POINT)[0, 0],
    ],
)
def test_derivatives_along_x_of_an_unconverged_solve_are_nan(of):
    def derivative(D, bound):
        return of(bilo.solution("u", Scaled(bound=bound), {"D": D}))

    value, slope = jax.value_and_grad(derivative)(2.0, 1.0)
    assert np.isnan(value)
    assert np.isfinite(slope)
    plain = of(lambda x: jnp.sin(jnp.pi * x[0]) / 2.0)
    assert derivative(2.0, 10.0) == plain


def of_the_slope(operator):
    """Only the derivative of u meets the data."""
    D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(bilo.grad(u)(jnp.array([0.2]))[0], 0.1), obs=1.3)


def test_a_model_of_derivatives_has_no_energy_where_the_solve_fails():
    unsolved, solved = (
        jax.jit(
            jax.value_and_grad(
                lambda z, bound=bound: potential_energy(
                    of_the_slope, (Scaled(bound=bound),), {}, {"D": z}
                )
            )
        )(jnp.log(2.0))
        for bound in (1.0, 10.0)
    )
    assert np.isnan(unsolved[0])
    assert np.isfinite(solved[0])
    assert np.isfinite(solved[1])


def test_a_chain_on_derivatives_stays_where_the_pde_is_solved():
    """The data pull D to 2, where the solve fails."""
    mcmc = MCMC(
        NUTS(of_the_slope, init_strategy=init_to_value(values={"D": 0.9})),
        num_warmup=60,
        num_samples=60,
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), Scaled(bound=1.0))
    assert mcmc.get_samples()["D"].max() <= 1.0
    assert mcmc.get_extra_fields()["diverging"].any()


def test_warm_start_accepts_an_unconverged_solve_on_request():
    handler = warm_start(model, accept_unconverged=True)
    assert handler(Scaled(bound=1.0), 2.0) == 0.5
    assert not handler.infos["u"].converged
    assert np.isnan(warm_start(model)(Scaled(bound=1.0), 2.0))


def test_warm_start_gives_states_and_collects_states_and_reports():
    handler = warm_start(twice, states={"v": jnp.array(7)})
    assert handler(Scaled()) == (1.0, 0.25)
    assert handler.states == {"u": 1, "v": 8}
    assert handler.infos["u"] == SolveInfo.of(3, 1.0, True)
    assert handler.infos["v"] == SolveInfo.of(10, 4.0, True)


def test_warm_start_of_fine_tuning_saves_the_steps(tuned):
    @jax.jit
    def two(D):
        first = warm_start(model)
        u = first(tuned, D)
        second = warm_start(model, states=first.states)
        v = second(tuned, D)
        return u, v, first.infos["u"].steps, second.infos["u"].steps

    u, v, first, second = two(1.5)
    assert first > 0
    assert second == 0
    np.testing.assert_allclose(u, v, rtol=1e-12)
    np.testing.assert_allclose(u, 1 / 1.5, atol=1e-3)


def test_collected_states_carry_no_derivative():
    def of_state(D):
        handler = warm_start(model)
        handler(Scaled(), D)
        return handler.infos["u"].loss + handler.states["u"]

    assert jax.grad(of_state)(2.0) == 0.0


def test_replace_operator_changes_the_named_sites_only():
    assert replace_operator(model, {"u": Scaled(scale=3.0)})(Forbidden(), 2.0) == 1.5
    assert replace_operator(twice, {"v": Scaled(scale=3.0)})(Scaled()) == (1.0, 0.75)
    assert replace_operator(model, {"w": Forbidden()})(Scaled(), 2.0) == 0.5


def test_without_solving_every_solution_is_zero():
    assert without_solving(twice)(Forbidden()) == (0.0, 0.0)


def test_without_solving_there_is_a_zero_for_every_component():
    class System(bilo.Problem):
        parameters = ("D",)
        components = 2
        domain = bilo.interval(0.0, 1.0)
        points = domain.grid(3)

    value = without_solving(model)(Forbidden(problem=System()), 1.0)
    np.testing.assert_array_equal(value, [0, 0])


def test_an_operator_of_the_wrong_type_is_an_error(small_operator):
    with pytest.raises(TypeError, match="wrap a LocalOperator in FineTuned"):
        inspect.unwrap(bilo.solution)("u", small_operator, {"D": 1.0})


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ({"k": 1.0}, r"missing \['D'\], unknown \['k'\]"),
        ({"D": 1.0, "k": 1.0}, r"unknown \['k'\]"),
        ({"D": float("inf")}, r"theta\['D'\] = inf is not finite"),
    ],
)
def test_wrong_theta_is_an_error_before_the_solve(theta, message):
    with pytest.raises(ValueError, match=message):
        bilo.solution("u", Forbidden(), theta)
