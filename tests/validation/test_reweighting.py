"""Weights of all draws: they turn one Gaussian posterior into another one."""

import math

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bilo_ppl as bilo
from bilo_ppl.diagnostics import add_certificates
from bilo_ppl.mcmc import Draws
from bilo_ppl.validation.importance import weighted_quantiles
from models import poisson

SIGMA, Y = 0.5, 0.8
X = jnp.array([0.5])


def linear(slope, shift):
    return bilo.ClosedForm(poisson.problem, lambda x, theta: slope * theta["D"] + shift)


def model(operator):
    D = numpyro.sample("D", dist.Normal(0.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(u(X), SIGMA), obs=jnp.array(Y))


def posterior(slope, shift):
    precision = 1 + slope**2 / SIGMA**2
    return slope * (Y - shift) / SIGMA**2 / precision, precision**-0.5


CHEAP, DEAR = (1.0, 0.0), (0.9, 0.2)


@pytest.fixture(scope="module")
def samples():
    """Exact draws of the posterior of the cheap operator."""
    mean, sd = posterior(*CHEAP)
    return {"D": mean + sd * np.random.default_rng(0).normal(size=(2, 2000))}


@pytest.fixture(scope="module")
def certificate(samples):
    return bilo.certify(model, samples, linear(*CHEAP), reference=linear(*DEAR), draws="all")


def test_weighted_draws_are_those_of_the_better_solution(samples, certificate):
    mean, sd = posterior(*DEAR)
    assert certificate.draws == 4000
    assert certificate.weights.shape == (2, 2000)
    assert certificate.weights.sum() == pytest.approx(1)
    error = sd / math.sqrt(4000 * certificate.effective_fraction)
    assert abs(certificate.means["D"][1] - mean) < 4 * error
    assert abs(certificate.means["D"][0] - mean) > 8 * error
    assert certificate.sds["D"][1] == pytest.approx(sd, rel=0.06)
    np.testing.assert_allclose(
        certificate.weights.ravel() @ samples["D"].ravel(), mean, atol=4 * error
    )
    expected = [mean + sd * q for q in (-1.6449, 0.0, 1.6449)]
    np.testing.assert_allclose(certificate.quantiles["D"][1], expected, atol=8 * error)


def test_it_says_what_would_help(certificate):
    assert certificate.distorted
    assert certificate.can_reweight
    assert "Reweighting all draws would correct them" in certificate.advice
    predicted = math.erfc(certificate.energy_error_sd / 2)
    assert certificate.two_stage_acceptance == pytest.approx(predicted)
    assert "90 % in" in str(certificate)


def test_without_it_there_are_no_weights(samples):
    options = {"reference": linear(*DEAR), "subset": 50}
    assert bilo.certify(model, samples, linear(*CHEAP), **options).weights is None
    with pytest.raises(ValueError, match="draws is 'most'"):
        bilo.certify(model, samples, linear(*CHEAP), draws="most", **options)


def test_arviz_has_the_weights(samples, certificate):
    idata = bilo.to_arviz(Draws(model, (linear(*CHEAP),), {}, samples, {}), observed={})
    add_certificates(idata, {"numerical": certificate})
    group = idata["certificate"]
    assert group["weight"].dims == ("solution", "chain", "draw")
    np.testing.assert_allclose(group["weight"].sel(solution="numerical"), certificate.weights)
    found = group["corrected_quantile"].sel(solution="numerical", parameter="D", probability=0.5)
    assert float(found) == pytest.approx(certificate.quantiles["D"][1][1])
    assert "weights" not in certificate.as_dict()


def test_weighted_quantiles():
    values = np.random.default_rng(0).normal(size=20_001)
    even = np.full(len(values), 1 / len(values))
    probabilities = (0.1, 0.5, 0.9)
    np.testing.assert_allclose(
        weighted_quantiles(values, even, probabilities),
        np.quantile(values, probabilities),
        atol=1e-3,
    )
    # exp(v) of a standard normal is the one about 1.
    tilted = np.exp(values) / np.exp(values).sum()
    assert weighted_quantiles(values, tilted, (0.5,))[0] == pytest.approx(1.0, abs=0.05)
