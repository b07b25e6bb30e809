"""The closed form as an operator: values, derivatives, sampling, and where it does not hold."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS, init_to_value
from numpyro.infer.util import potential_energy

import bilo_ppl as bilo
from models import poisson

X = poisson.problem.domain.interior_grid(7)
Y = np.sin(np.pi * X[:, 0]) / 1.2
SIGMA = 0.1


def formula(x, theta):
    return jnp.sin(jnp.pi * x[0]) / theta["D"]


def exact():
    return bilo.ClosedForm(poisson.problem, formula)


class Scaled(eqx.Module):
    """A formula with numbers of its own."""

    scale: jax.Array

    def __call__(self, x, theta):
        return self.scale * formula(x, theta)


class Decay(bilo.Problem):
    """u' = -r u, v' = -s v in time."""

    parameters, components = ("r", "s"), 2
    domain = bilo.time_interval(0.0, 1.0)
    points = domain.grid(5)

    def residual(self, u, x, theta):
        return bilo.partial(u, self.domain.time)(x) + self.rates(theta) * u(x)

    def rates(self, theta):
        return jnp.stack([theta["r"], theta["s"]])


def test_it_is_the_formula_and_reports_an_exact_solve():
    operator = exact()
    u, state, info = operator.solve({"D": 2.0}, operator.init_state())
    np.testing.assert_allclose(jax.vmap(u)(X), np.sin(np.pi * X[:, 0]) / 2, rtol=1e-12)
    assert (state, int(info.steps), float(info.loss)) == ((), 0, 0.0)
    assert info.converged
    np.testing.assert_array_equal(operator.unsolved({"D": 2.0})(X[0]), u(X[0]))


def test_a_system_in_time_satisfies_its_equation():
    problem = Decay()

    def solution(x, theta):
        return jnp.exp(-problem.rates(theta) * x[0])

    theta = {"r": jnp.array(0.5), "s": jnp.array(2.0)}
    u = bilo.ClosedForm(problem, solution).solve(theta, ())[0]
    np.testing.assert_allclose(problem.residual(u, jnp.array([0.3]), theta), [0, 0], atol=1e-12)


def test_its_gradient_is_that_of_central_differences():
    def potential(z):
        return potential_energy(poisson.model, (exact(), X, Y, SIGMA), {}, {"D": z})

    for z in (-0.4, 0.3):
        slope = (potential(z + 1e-5) - potential(z - 1e-5)) / 2e-5
        np.testing.assert_allclose(jax.grad(potential)(z), slope, rtol=1e-7)


def test_operator_and_solution_are_pytrees():
    """They may be arguments and results of compiled functions, a module with numbers too."""

    @jax.jit
    def solve(operator, D):
        return operator.solve({"D": D}, ())[0]

    np.testing.assert_allclose(solve(exact(), 2.0)(jnp.array([0.5])), 0.5)
    for scale in (1.0, 3.0):
        operator = bilo.ClosedForm(poisson.problem, Scaled(jnp.array(scale)))
        np.testing.assert_allclose(solve(operator, 2.0)(jnp.array([0.5])), scale / 2)


def conjugate(operator):
    """y = a + noise: the posterior of a is normal."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    u = bilo.solution("u", operator, {"D": a})
    numpyro.sample("y", dist.Normal(u(X[0]), 0.5), obs=0.8)


def draws(operator):
    kernel = NUTS(conjugate, init_strategy=init_to_value(values={"a": 0.5}))
    mcmc = MCMC(kernel, num_warmup=200, num_samples=4000, progress_bar=False)
    mcmc.run(jax.random.key(0), operator, extra_fields=("diverging",))
    return np.asarray(mcmc.get_samples()["a"]), np.asarray(mcmc.get_extra_fields()["diverging"])


def test_nuts_samples_its_posterior():
    a, diverging = draws(bilo.ClosedForm(poisson.problem, lambda x, theta: theta["D"]))
    assert not diverging.any()
    assert a.mean() == pytest.approx(0.64, abs=0.05)
    assert a.std() == pytest.approx(0.2**0.5, rel=0.06)


def test_where_the_formula_does_not_hold_proposals_are_rejected():
    operator = bilo.ClosedForm(
        poisson.problem, lambda x, theta: theta["D"], valid=lambda theta: theta["D"] < 0.6
    )
    assert jax.vmap(lambda D: operator.solve({"D": D}, ())[2].reason)(
        jnp.array([0.5, 0.7])
    ).tolist() == [bilo.StopReason.CONVERGED, bilo.StopReason.INVALID]
    a, diverging = draws(operator)
    assert a.max() < 0.6
    assert diverging.any()


def test_a_formula_of_another_shape_is_refused():
    u = bilo.ClosedForm(poisson.problem, lambda x, theta: x / theta["D"]).solve({"D": 1.0}, ())[0]
    with pytest.raises(ValueError, match=r"gives shape \(1,\).*must give \(\) \(is x\[0\] meant"):
        u(X[0])
    with pytest.raises(ValueError, match="unknown"):
        exact().solve({"k": 1.0}, ())
