"""Thetas of a solution site at given values and at draws from the prior."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import bilo_ppl as bilo
from bilo_ppl.adaptation.exploration import Site, prior_thetas
from models import poisson

OPERATOR = poisson.reference()


def model(prior, y=None):
    D = numpyro.sample("D", prior)
    u = bilo.solution("u", OPERATOR, {"D": 2 * D})
    numpyro.sample("y", dist.Normal(u(jnp.array([0.5])), 0.1), obs=y)


def site(prior, y=1.0):
    return Site(model, (prior,), {"y": y}, "u")


def test_theta_is_that_of_the_given_values():
    assert site(dist.Gamma(2.0, 1.0)).theta({"D": 1.5}) == {"D": 3.0}
    with pytest.raises(ValueError, match=r"no values for the latent sites \['y'\]"):
        site(dist.Gamma(2.0, 1.0), y=None).theta({"D": 1.5})


def test_prior_thetas_have_the_law_of_the_prior():
    thetas = prior_thetas(site(dist.Normal(1.0, 0.5)), jax.random.key(0), 4000)
    assert thetas["D"].shape == (4000,)
    assert np.mean(thetas["D"]) == pytest.approx(2.0, abs=0.06)
    assert np.std(thetas["D"]) == pytest.approx(1.0, rel=0.05)


def test_nothing_stands_in_for_an_improper_prior():
    improper = dist.ImproperUniform(constraints.positive, (), ())
    with pytest.raises(ValueError, match="drawn from the prior of 'D', an improper"):
        prior_thetas(site(improper), jax.random.key(0), 3)
