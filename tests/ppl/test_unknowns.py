"""The weight of a penalty beside the data: the objective of regularised least squares, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import potential_energy

import bilo_ppl as bilo
from models import variable_poisson

X = np.linspace(0.05, 0.95, 7)
Y = np.cos(X)
W = 0.3
SIGMAS = (0.2, np.linspace(0.1, 0.4, 7))


def u(a):
    return a[0] + a[1] * X + a[2] * X**2


def roughness(a):
    """R, the square of the highest coefficient."""
    return a[2] ** 2


def least_squares(a, sigma):
    """The mean squared misfit, weighted by 1 / sigma^2, and w R."""
    weights = 1 / np.broadcast_to(sigma, X.shape) ** 2
    return np.average((u(a) - Y) ** 2, weights=weights) + W * roughness(a)


def energy(a, sigma):
    def model():
        b = numpyro.sample("a", dist.ImproperUniform(dist.constraints.real_vector, (), (3,)))
        bilo.penalty("rough", bilo.weight_in_nats(W, sigma, len(X)), roughness(b))
        numpyro.sample("y", dist.Normal(jnp.asarray(u(b)), sigma), obs=Y)

    return float(potential_energy(model, (), {}, {"a": jnp.asarray(a)}))


@pytest.mark.parametrize("sigma", SIGMAS, ids=["one", "several"])
def test_the_energy_is_regularised_least_squares_in_nats(sigma):
    """Up to a constant; the factor is the number of nats of one unit of the mean."""
    first, second = np.array([0.9, 0.1, -0.7]), np.array([1.1, -0.4, 0.5])
    difference = energy(first, sigma) - energy(second, sigma)
    factor = np.sum(1 / np.broadcast_to(sigma, X.shape) ** 2) / 2
    wanted = factor * (least_squares(first, sigma) - least_squares(second, sigma))
    np.testing.assert_allclose(difference, wanted, rtol=1e-10)


def test_its_minimum_is_that_of_regularised_least_squares():
    """Of the model file too: the weight is n w / (2 sigma^2)."""
    np.testing.assert_allclose(bilo.weight_in_nats(W, 0.2, 7), 7 * W / (2 * 0.2**2), rtol=1e-12)
    data = variable_poisson.synthetic_data(0)
    operator = bilo.ClosedForm(variable_poisson.problem, lambda x, theta: theta["D"](x) - 1)

    def at(regularisation):
        z = {"D": bilo.field_weights(variable_poisson.unknown)}
        args = (operator, data["x"], data["y"], data["sigma"], regularisation)
        return potential_energy(variable_poisson.model, args, {}, z)

    points = np.linspace(0, 1, variable_poisson.ROUGHNESS_POINTS)[:, None]
    slopes = jax.vmap(bilo.grad(variable_poisson.unknown))(jnp.asarray(points))
    wanted = 0.2 * len(data["x"]) * np.mean(slopes**2) / (2 * data["sigma"] ** 2)
    np.testing.assert_allclose(at(0.2) - at(0.0), wanted, rtol=1e-6)


def test_a_sigma_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"sigma has shape \(3,\).*each of the 7 data"):
        bilo.weight_in_nats(W, np.ones(3), 7)
