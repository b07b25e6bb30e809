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
from bilo_ppl.baselines import (
    FreeNetwork,
    bpinn,
    mean_field,
    mode,
    solutions_at_draws,
    values_of,
)
from bilo_ppl.network.trainable import Frozen

RESIDUAL_SD, NOISE, THETA_SD, WEIGHT_SD = 0.3, 0.05, 2.0, 1.5
COUNT = 5


class Source(bilo.Problem):
    """u'' = theta on [0, 1], u(0) = u(1) = 0: u and the residual are linear in theta and in u."""

    parameters, components = ("theta",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(9)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) - theta["theta"]

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


class Cosines(eqx.Module):
    """sum_j w_j cos(j pi x): with it u and the residual are linear in the weights."""

    weights: jax.Array
    orders: Frozen

    def __call__(self, x, e):
        return (self.weights @ jnp.cos(self.orders.value * jnp.pi * (x[0] + 1) / 2))[None]


def model(operator, x, y=None):
    theta = numpyro.sample("theta", dist.Normal(0.0, THETA_SD))
    u = bilo.solution("u", operator, {"theta": theta})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), NOISE), obs=y)


@pytest.fixture(scope="module")
def linear():
    network = Cosines(0.1 * jnp.arange(COUNT), Frozen(jnp.arange(float(COUNT))))
    operator = FreeNetwork(
        Source(), {"theta": 1.0}, key=jax.random.key(0), network=network, dtype=np.float64
    )
    x = Source.domain.interior_grid(8)
    y = 3.0 * x[:, 0] * (x[:, 0] - 1) / 2 + NOISE * np.random.default_rng(0).normal(size=len(x))
    return operator, x, y


def gaussian(x, y):
    """Mean and covariance of (theta, weights), from least squares written out by hand."""
    j = np.arange(COUNT) * np.pi
    p = Source.points[:, 0][:, None]
    values = x * (1 - x) * np.cos(j * x)
    curvature = -2 * np.cos(j * p) + 2 * (1 - 2 * p) * (-j * np.sin(j * p))
    curvature += p * (1 - p) * (-(j**2) * np.cos(j * p))
    rows = np.block(
        [
            [np.zeros((len(x), 1)), values / NOISE],
            [-np.ones((len(p), 1)) / RESIDUAL_SD, curvature / RESIDUAL_SD],
            [np.ones((1, 1)) / THETA_SD, np.zeros((1, COUNT))],
            [np.zeros((COUNT, 1)), np.eye(COUNT) / WEIGHT_SD],
        ]
    )
    wanted = np.concatenate([y / NOISE, np.zeros(len(p) + 1 + COUNT)])
    covariance = np.linalg.inv(rows.T @ rows)
    return covariance @ rows.T @ wanted, covariance


def test_linear_problem_has_its_gaussian_posterior(linear):
    """The curvature and the minimum of the potential are those of the least-squares problem."""
    operator, x, y = linear
    joint = bpinn(model, residual_sd=RESIDUAL_SD, weight_sd=WEIGHT_SD)
    mean, covariance = gaussian(x, y)

    def energy(z):
        return potential_energy(joint, (operator, x, y), {}, {"theta": z[0], "u_network": z[1:]})

    np.testing.assert_allclose(jax.grad(energy)(jnp.asarray(mean)), 0, atol=1e-7)
    hessian = jax.hessian(energy)(jnp.zeros(1 + COUNT))
    np.testing.assert_allclose(hessian, np.linalg.inv(covariance), rtol=1e-8, atol=1e-8)


def test_nuts_samples_it(linear):
    operator, x, y = linear
    joint = bpinn(model, residual_sd=RESIDUAL_SD, weight_sd=WEIGHT_SD)
    z = mode(model, joint, jax.random.key(0), operator, x, y, steps=3000, progress=False)
    mean, covariance = gaussian(x, y)
    sd = np.sqrt(np.diag(covariance))
    kernel = NUTS(joint, init_strategy=init_to_value(values=values_of(joint, z, operator, x, y)))
    mcmc = MCMC(kernel, num_warmup=500, num_samples=2000, progress_bar=False)
    mcmc.run(jax.random.key(1), operator, x, y)
    draws = mcmc.get_samples()
    flat = np.concatenate([draws["theta"][:, None], draws["u_network"]], axis=1)
    assert np.abs((flat.mean(axis=0) - mean) / sd).max() < 0.15
    np.testing.assert_allclose(flat.std(axis=0), sd, rtol=0.1)

    points = np.array([[0.25], [0.5]])
    u = solutions_at_draws(model, draws, points, operator, x, y)["u"]
    j = np.arange(COUNT) * np.pi
    by_hand = draws["u_network"] @ (points * (1 - points) * np.cos(j * points)).T
    np.testing.assert_allclose(u, by_hand, atol=1e-10)


def test_mean_field_finds_the_conditional_deviations(linear):
    """The best uncorrelated Gaussian has the precisions of the diagonal."""
    operator, x, y = linear
    joint = bpinn(model, residual_sd=RESIDUAL_SD, weight_sd=WEIGHT_SD)
    mean, covariance = gaussian(x, y)
    z = {"theta": mean[0], "u_network": mean[1:]}
    means, variances = mean_field(
        joint, jax.random.key(2), z, operator, x, y, steps=6000, rate=1e-3
    )
    found = np.concatenate([means["theta"][None], means["u_network"]])
    precision = np.diag(np.linalg.inv(covariance))
    np.testing.assert_allclose(variances, 1 / precision, rtol=0.3)
    assert np.abs((found - mean) * np.sqrt(precision)).max() < 1


def test_bad_arguments_are_refused(linear):
    _, x, y = linear
    with pytest.raises(ValueError, match="residual_sd is 0"):
        bpinn(model, residual_sd=0)
    joint = bpinn(model, residual_sd=1.0)
    other = bilo.ClosedForm(Source(), lambda x, theta: x[0])
    with pytest.raises(TypeError, match="FreeNetwork"):
        potential_energy(joint, (other, x, y), {}, {"theta": 0.0})
