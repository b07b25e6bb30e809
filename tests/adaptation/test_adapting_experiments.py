"""Adaptation of one operator to several experiments, and the thetas that these ask for."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree

import bilo_ppl as bilo
from bilo_ppl.adaptation.batches import losses
from bilo_ppl.adaptation.exploration import Explorer
from bilo_ppl.adaptation.model_sites import find_sites
from bilo_ppl.adaptation.sources import FromPosterior
from models import poisson

COUNT = 3
TRUE = np.array([0.8, 1.0, 1.25])
TOLERANCE = 1e-5
X = np.linspace(0.1, 0.9, 9)[:, None]
Y = np.sin(np.pi * X[:, 0]) / TRUE[:, None]
KEY = jax.random.key(3)
EXACT = bilo.ClosedForm(poisson.problem, lambda x, theta: jnp.sin(jnp.pi * x[0]) / theta["D"])


def model(operator, x=X, y=Y, sigma=0.05):
    with numpyro.plate("experiments", COUNT):
        D = numpyro.sample("D", dist.LogNormal(0.0, 0.5))
    us = bilo.solutions("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(us(x), sigma), obs=y)


@pytest.fixture(scope="module")
def fine(small_operator):
    solver = bilo.LevenbergMarquardt(tolerance=TOLERANCE, max_steps=6)
    local = small_operator.with_lora(2, key=jax.random.key(1))
    return bilo.FineTuned(local, solver, bilo.PartialDerivative())


def mixed(operator):
    """Experiments and a single solution with the same operator."""
    D = numpyro.sample("D", dist.LogNormal(0.0, 0.5).expand([COUNT]).to_event(1))
    us = bilo.solutions("u", operator, {"D": D})
    v = bilo.solution("v", operator, {"D": 2 * D[0]})
    numpyro.sample("y", dist.Normal(us(X), 0.05), obs=Y)
    numpyro.sample("z", dist.Normal(jax.vmap(v)(X), 0.05), obs=Y[0])


def test_experiments_and_single_solutions_ask_together(fine):
    sites, _ = find_sites(mixed, KEY, (fine,), {}, None)
    assert sites.groups == (("u", "v"),)
    assert sites.batches == {"u": COUNT, "v": None}
    z = jnp.log(jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    np.testing.assert_allclose(sites.thetas(z, 0)["D"], [1, 2, 3, 2, 4, 5, 6, 8])
    states = Explorer(sites, [fine], 20)._states(_arrays(fine))
    single, several = (ravel_pytree(states[name])[0] for name in "vu")
    np.testing.assert_allclose(several.reshape(COUNT, -1).sum(), COUNT * single.sum())


def _arrays(fine):
    import equinox as eqx

    return eqx.partition([fine.relaxed()], eqx.is_array)[0]


def test_many_experiments_are_fitted_at_no_more_thetas_than_one_needs(fine):
    sites, _ = find_sites(model, KEY, (fine,), {}, None)
    source = FromPosterior(sites, 40, 2.0, KEY, False)
    source.region = _Region()
    (thetas,) = source.to_fit([fine], None)
    asked = source.sites.thetas(_Region().draw(0, 144, 2.0), 0)
    assert asked["D"].shape == (3 * 144,)
    assert thetas["D"].shape == (144,)
    # The thetas of all experiments are among them.
    for true in TRUE:
        assert np.abs(np.log(thetas["D"] / true)).min() < 0.1


class _Region:
    def draw(self, seed, count, spread):
        noise = np.random.default_rng(seed).normal(size=(count, COUNT))
        return np.log(TRUE) + 0.01 * spread * noise


def test_the_search_settles_at_an_experiment(fine):
    estimate = bilo.find_map(model, KEY, fine.searching(), steps=20, progress=False)
    np.testing.assert_allclose(estimate.values["D"], TRUE, rtol=0.05)
    assert estimate.experiments() == COUNT
    np.testing.assert_allclose(estimate.solution(X), Y, atol=0.03)
    from bilo_ppl.adaptation.region import _settled

    sites, operators = find_sites(model, KEY, (fine,), {}, None)
    (settled,) = _settled(sites, operators, estimate, KEY)
    np.testing.assert_allclose(settled.home["D"], estimate.values["D"][0])
    assert settled.loss_of_home_state({"D": estimate.values["D"][0]}) <= TOLERANCE


@pytest.mark.slow
def test_an_operator_is_adapted_to_all_experiments(fine):
    operator, report, _ = bilo.adapt(
        model, KEY, fine, rank=4, fit_steps=40, draws=60, progress=False
    )
    assert report.ready
    assert (losses(operator, {"D": jnp.asarray(TRUE)}) <= TOLERANCE).all()
    kernel = bilo.BiLONUTS(
        model, init_strategy=numpyro.infer.init_to_value(values={"D": jnp.asarray(TRUE)})
    )
    from numpyro.infer import MCMC

    mcmc = MCMC(kernel, num_warmup=100, num_samples=200, progress_bar=False)
    mcmc.run(KEY, operator)
    draws = mcmc.get_samples()["D"]
    np.testing.assert_allclose(draws.mean(axis=0), TRUE, atol=0.05)
    certificate = bilo.certify(model, {"D": draws[None]}, operator, reference=EXACT)
    assert certificate.kl_divergence < 0.02
