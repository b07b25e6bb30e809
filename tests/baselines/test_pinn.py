import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bilo_ppl as bilo
from bilo_ppl.baselines import FreeNetwork, fit_pinn

NOISE = 0.01


@pytest.fixture(scope="module")
def network(small_problem):
    return FreeNetwork(small_problem, {"D": 2.0}, key=jax.random.key(0), width=16)


def model(operator, x, y=None):
    D = numpyro.sample("D", dist.LogNormal(0.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), NOISE), obs=y)


def test_clean_data_give_the_parameter_back(network):
    x = np.linspace(0, 1, 11)[:, None]
    y = np.sin(np.pi * x[:, 0]) / 1.5
    found = fit_pinn(
        model, jax.random.key(1), network, x, y, data_weight=100.0, steps=4000, progress=False
    )
    assert found.values["D"] == pytest.approx(1.5, rel=0.02)
    u = found.solution(x, "u")
    np.testing.assert_allclose(u, y, atol=0.01)
    # Both parts are as written: the residual at the collocation points, the mean squared misfit.
    points = network.operator.points
    residual = jax.vmap(lambda p: network.problem.residual(found.solutions["u"], p, found.values))
    assert found.pde_loss == pytest.approx(float(jnp.mean(residual(points) ** 2)), rel=1e-3)
    gap = found.history[-1] - found.pde_loss - 100 * found.misfit
    assert abs(gap) < 1e-3 * abs(found.history[-1])


def test_misfit_is_the_mean_square_up_to_a_constant(network):
    """A datum moved by d changes the misfit by what it changes the mean square by."""
    x = np.linspace(0, 1, 5)[:, None]
    found = [
        fit_pinn(
            model,
            jax.random.key(1),
            network,
            x,
            np.full(5, far),
            data_weight=1.0,
            steps=1,
            progress=False,
        )
        for far in (100.0, 200.0)
    ]
    u = found[0].solution(x, "u")
    wanted = np.mean((u - 200) ** 2) - np.mean((u - 100) ** 2)
    assert found[1].misfit - found[0].misfit == pytest.approx(wanted, rel=1e-6)


def test_several_experiments_have_networks_of_their_own(network):
    def several(operator, x, y=None):
        with numpyro.plate("experiments", 2):
            D = numpyro.sample("D", dist.LogNormal(0.0, 1.0))
        us = bilo.solutions("u", operator, {"D": D})
        numpyro.sample("y", dist.Normal(us(x), NOISE), obs=y)

    x = np.linspace(0, 1, 11)[:, None]
    y = np.sin(np.pi * x[:, 0]) / np.array([1.0, 2.0])[:, None]
    found = fit_pinn(
        several, jax.random.key(1), network, x, y, data_weight=100.0, steps=3000, progress=False
    )
    np.testing.assert_allclose(found.values["D"], [1.0, 2.0], rtol=0.05)


def test_bad_arguments_are_refused(network):
    with pytest.raises(ValueError, match="data_weight is -1"):
        fit_pinn(model, jax.random.key(0), network, data_weight=-1, steps=1)
    with pytest.raises(ValueError, match="steps is 0"):
        fit_pinn(model, jax.random.key(0), network, data_weight=1, steps=0)
