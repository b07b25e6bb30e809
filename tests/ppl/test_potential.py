"""The potential energy as a function of position and solver state."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import potential_energy

import bilo_ppl as bilo
from models import poisson

X = np.linspace(0.0, 1.0, 6)[:, None]
Y = np.sin(np.pi * X[:, 0]) / 1.2 + 0.1 * np.array([1, -1, 1, -1, 1, -1])
ARGS = (X, Y, 0.2)


def stateful(operator):
    potential = bilo.StatefulPotential(poisson.model, (operator, *ARGS))
    return potential, potential.init_state(jax.random.key(0))


def exact(z):
    """-log p(D) p(Y | D) D at D = exp(z), for the closed form of u."""
    D = jnp.exp(z)
    u = jnp.sin(jnp.pi * X[:, 0]) / D
    return -(dist.Gamma(2.0, 1.0).log_prob(D) + jnp.sum(dist.Normal(u, 0.2).log_prob(Y)) + z)


@pytest.fixture(scope="module")
def evaluate(tuned):
    potential, state = stateful(tuned)
    value_and_grad = jax.jit(
        lambda z, state: jax.value_and_grad(potential, has_aux=True)({"D": z}, state)
    )
    return value_and_grad, state


@pytest.fixture(scope="module")
def theirs(tuned):
    return jax.jit(lambda z: potential_energy(poisson.model, (tuned, *ARGS), {}, {"D": z}))


def test_initial_state_is_the_stored_weights(tuned, evaluate):
    _, state = evaluate
    assert state.keys() == {"u"}
    assert eqx.tree_equal(state["u"], tuned.operator.weights)


@pytest.mark.parametrize("z", [-0.3, 0.0, 0.25])
def test_value_is_numpyros_and_that_of_the_closed_form(evaluate, theirs, z):
    value_and_grad, state = evaluate
    (U, _), _ = value_and_grad(z, state)
    np.testing.assert_allclose(U, theirs(z), rtol=1e-9)
    np.testing.assert_allclose(U, exact(z), rtol=1e-3)


@pytest.mark.parametrize("z", [-0.3, 0.25])
def test_gradient_is_that_of_finite_differences(evaluate, z):
    value_and_grad, state = evaluate
    h = 1e-2
    (ahead, _), _ = value_and_grad(z + h, state)
    (behind, _), _ = value_and_grad(z - h, state)
    _, slope = value_and_grad(z, state)
    np.testing.assert_allclose(slope["D"], (ahead - behind) / (2 * h), rtol=1e-2)
    np.testing.assert_allclose(slope["D"], jax.grad(exact)(z), rtol=1e-2)


def test_state_is_carried(evaluate):
    value_and_grad, state = evaluate
    (U, (state, info)), _ = value_and_grad(0.25, state)
    assert info.steps > 0
    assert info.converged
    assert info.loss <= 1e-7
    (again, (same, info)), _ = value_and_grad(0.25, state)
    assert info.steps == 0
    np.testing.assert_allclose(again, U, rtol=1e-12)
    assert eqx.tree_equal(same, state)


@pytest.fixture(scope="module")
def stopped(small_operator):
    """Fine-tuning that may take no step: it converges at D = 1 only."""
    solver = bilo.LevenbergMarquardt(tolerance=1e-7, max_steps=0)
    return bilo.FineTuned(small_operator, solver, bilo.ResidualGradient())


def test_unconverged_solve_is_infinitely_unlikely(stopped):
    potential, state = stateful(stopped)
    call = jax.jit(lambda z: potential({"D": z}, state))
    U, (_, info) = call(0.5)
    assert np.inf == U
    assert not info.converged
    U, (_, info) = call(0.0)
    assert np.isfinite(U)
    assert info.converged


def test_report_covers_all_sites_and_an_unconverged_solve_may_be_accepted(tuned, stopped):
    def two(tuned, stopped):
        D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
        u = bilo.solution("u", tuned, {"D": D})
        v = bilo.solution("v", stopped, {"D": D})
        numpyro.factor("y", u(jnp.array([0.5])) + v(jnp.array([0.5])))

    potential = bilo.StatefulPotential(two, (tuned, stopped), accept_unconverged=True)
    state = potential.init_state(jax.random.key(0))
    assert state.keys() == {"u", "v"}
    U, (state, info) = jax.jit(lambda z: potential({"D": z}, state))(0.3)
    assert state.keys() == {"u", "v"}
    assert info.steps > 0
    assert info.loss > 1e-7
    assert not info.converged
    assert np.isfinite(U)


def test_model_without_a_solution_is_an_error():
    def plain():
        numpyro.sample("D", dist.Normal())

    with pytest.raises(ValueError, match=r"no solution.*numpyro\.infer\.NUTS"):
        bilo.StatefulPotential(plain).init_state(jax.random.key(0))
