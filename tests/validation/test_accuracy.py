"""Errors in units of the noise, of networks whose error is known from the exact solution."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bilo_ppl as bilo
from bilo_ppl.validation.accuracy import (
    NOISE_LIMIT,
    SAFE,
    SIZE_LIMIT,
    Accuracy,
    PredictionError,
    rounded,
)

X = np.linspace(0.05, 0.95, 7)[:, None]
SIGMA = 0.01


@pytest.fixture(scope="module")
def rough(small_operator):
    """A network whose solution is wrong by about a percent."""
    weights = jax.tree.map(lambda w: 1.003 * w, small_operator.weights)
    return small_operator.with_weights(weights)


def exact_distance(operator):
    """Of the predictions at the data, in sds of the noise."""
    u = np.asarray(jax.vmap(operator.field({"D": 1.0}))(X))
    return np.sqrt((((u - np.sin(np.pi * X[:, 0])) / SIGMA) ** 2).sum())


def error_of(operator, likelihood, **options):
    def model(x, y):
        D = numpyro.sample("D", dist.LogNormal(0.0, 1.0))
        fine = bilo.FineTuned(operator, bilo.LevenbergMarquardt(1e-6, 5), bilo.PartialDerivative())
        likelihood(jax.vmap(bilo.solution("u", fine, {"D": D}))(x), y)

    return PredictionError(model, (X, np.zeros(7)))(operator, {"D": 1.0}, **options)


def normal(u, y):
    numpyro.sample("y", dist.Normal(u, SIGMA), obs=y)


def test_the_error_is_that_of_the_exact_solution(small_operator, rough):
    wanted = exact_distance(rough)
    assert wanted > 0.5
    found = error_of(rough, normal)
    assert found.noise == pytest.approx(wanted, rel=0.1)
    assert error_of(small_operator, normal).noise < 0.02


def test_what_is_missing_or_masked_does_not_count(rough):
    """The error at the one point that has a value, and its model has a keyword."""
    y = np.where(np.arange(7) == 3, 0.9, np.nan)

    def model(x, y, sigma=None):
        D = numpyro.sample("D", dist.LogNormal(0.0, 1.0))
        fine = bilo.FineTuned(rough, bilo.LevenbergMarquardt(1e-6, 5), bilo.PartialDerivative())
        bilo.observed("y", dist.Normal(jax.vmap(bilo.solution("u", fine, {"D": D}))(x), sigma), y)

    found = PredictionError(model, (X, y), {"sigma": SIGMA})(rough, {"D": 1.0})
    u = float(rough.field({"D": 1.0})(jnp.array(X[3])))
    wanted = abs(u - np.sin(np.pi * X[3, 0])) / SIGMA
    assert found.noise == pytest.approx(wanted, rel=0.1)


def test_the_size_is_relative_to_u(rough):
    x = np.linspace(0, 1, 101)[:, None]
    u = np.asarray(jax.vmap(rough.field({"D": 1.0}))(x))
    exact = np.sin(np.pi * x[:, 0])
    wanted = np.sqrt(np.mean((u - exact) ** 2) / np.mean(exact**2))
    assert error_of(rough, normal).size == pytest.approx(wanted, rel=0.2)


def test_the_size_is_that_of_what_u_stands_for(rough):
    class Square(type(rough.problem)):
        """Its relative error is twice that of u."""

        def observable(self, x, u, theta):
            return u**2

    problem = Square(**{name: getattr(rough.problem, name) for name in vars(rough.problem)})
    squared = eqx.tree_at(lambda o: o.problem, rough, problem, is_leaf=lambda x: x is rough.problem)
    x = np.linspace(0, 1, 101)[:, None]
    u, exact = np.asarray(jax.vmap(rough.field({"D": 1.0}))(x)), np.sin(np.pi * x[:, 0])
    wanted = np.sqrt(np.mean((2 * u * (u - exact)) ** 2) / np.mean(exact**4))
    found, plain = error_of(squared, normal), error_of(rough, normal)
    assert found.size == pytest.approx(wanted, rel=0.2)
    assert found.size > 1.3 * plain.size
    assert found.noise == pytest.approx(plain.noise, rel=1e-3)


def test_the_noise_is_that_of_the_model(rough):
    """A latent noise level, and a likelihood without a mean, whose logarithm is in nats."""

    def latent(u, y):
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(u, noise), obs=y)

    known = error_of(rough, latent, values={"noise": 2 * SIGMA})
    assert known.noise == pytest.approx(error_of(rough, normal).noise / 2, rel=1e-4)

    def factor(u, y):
        numpyro.factor("sum", 3.0 * jnp.sum(u))

    u = np.asarray(jax.vmap(rough.field({"D": 1.0}))(X))
    wanted = 3 * abs((u - np.sin(np.pi * X[:, 0])).sum())
    assert error_of(rough, factor).noise == pytest.approx(wanted, rel=0.1)


def test_a_tolerance_follows_from_the_error():
    exact = Accuracy(noise=SAFE * NOISE_LIMIT, size=0.0)
    assert exact.tolerance(3.2e-6) == 2e-6
    assert Accuracy(10 * SAFE * NOISE_LIMIT, 0.0).tolerance(3.2e-6) == 2e-8
    assert Accuracy(0.0, 10 * SAFE * SIZE_LIMIT).tolerance(3.2e-6) == 2e-8
    # Not further than the square root of the loss can be trusted.
    assert Accuracy(0.0, 0.0).tolerance(3.2e-9) == 2e-5
    assert Accuracy(np.nan, 0.0).worst == np.inf
    assert "sigma" in str(exact)


@pytest.mark.parametrize(
    ("loss", "down", "up"),
    [(3.2e-6, 2e-6, 5e-6), (1e-6, 1e-6, 1e-6), (9.9e-7, 5e-7, 1e-6), (5.1e-3, 5e-3, 1e-2)],
)
def test_losses_are_rounded_to_few_different_ones(loss, down, up):
    assert rounded(loss) == down
    assert rounded(loss, up=True) == up


def test_rounding_errors_make_no_other_tolerance():
    for loss in (1e-6 * (1 - 1e-15), 1e-6 * (1 + 1e-15)):
        assert rounded(loss) == rounded(loss, up=True) == 1e-6


def test_a_loss_of_zero_has_a_tolerance():
    assert 0 < rounded(0.0) <= rounded(0.0, up=True) < 1e-37
