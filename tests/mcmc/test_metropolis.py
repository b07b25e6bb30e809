import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC

import bilo_ppl as bilo
from bilo_ppl.mcmc import PCN, RandomWalk

MEAN, SD = np.array([1.0, -0.5]), np.array([0.5, 2.0])
NOISE = 0.4
ROWS = np.array([[1.0, 0.7], [0.2, 1.0], [-0.4, 0.3]])
Y = np.array([1.2, -0.8, 0.5])


def model():
    """Two unknowns with Gaussian priors, of which one is a logarithm, and data linear in z."""
    a = numpyro.sample("a", dist.LogNormal(MEAN[0], SD[0]))
    b = numpyro.sample("b", dist.Normal(MEAN[1], SD[1]))
    numpyro.sample("y", dist.Normal(ROWS @ jnp.stack([jnp.log(a), b]), NOISE), obs=Y)


def exact():
    precision = np.diag(SD**-2) + ROWS.T @ ROWS / NOISE**2
    covariance = np.linalg.inv(precision)
    return covariance @ (MEAN / SD**2 + ROWS.T @ Y / NOISE**2), covariance


KERNELS = {
    "random walk": lambda: RandomWalk(model),
    "pcn": lambda: PCN(model),
    "pcn about another Gaussian": lambda: PCN(model, mean=[0.0, 0.0], covariance=[1.0, 1.0]),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("method", ["sequential", "vectorized"])
def test_gaussian_posterior(name, method):
    mcmc = MCMC(
        KERNELS[name](),
        num_warmup=2000,
        num_samples=20_000,
        num_chains=2,
        chain_method=method,
        progress_bar=False,
    )
    mcmc.run(jax.random.key(3), extra_fields=("mean_accept_prob",))
    draws = mcmc.get_samples()
    z = np.stack([np.log(draws["a"]), draws["b"]], axis=1)
    mean, covariance = exact()
    sd = np.sqrt(np.diag(covariance))
    ess = min(numpyro.diagnostics.effective_sample_size(column.reshape(2, -1)) for column in z.T)
    assert ess > 1000
    assert np.abs((z.mean(axis=0) - mean) / sd).max() < 4.5 / ess**0.5
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=6 * covariance.max() / ess**0.5)
    accepted = mcmc.get_extra_fields(group_by_chain=True)["mean_accept_prob"][:, -1]
    np.testing.assert_allclose(accepted, 0.234 if name == "random walk" else 0.3, atol=0.06)


def test_pcn_without_data_accepts_everything():
    def prior():
        numpyro.sample("a", dist.LogNormal(MEAN[0], SD[0]))
        numpyro.sample("b", dist.Normal(MEAN[1], SD[1]).expand([3]))

    mcmc = MCMC(
        PCN(prior, step_size=0.7, adapt_step_size=False),
        num_warmup=0,
        num_samples=2000,
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0))
    np.testing.assert_allclose(mcmc.get_extra_fields()["accept_prob"], 1.0, atol=1e-6)
    draws = mcmc.get_samples()
    assert np.log(draws["a"]).std() == pytest.approx(SD[0], rel=0.15)
    assert draws["b"].mean() == pytest.approx(MEAN[1], abs=0.3)


def test_learned_covariance_follows_the_posterior():
    """Two unknowns with a correlation of 0.99 and scales that differ by twenty."""
    factor = np.array([[1.0, 0.0], [0.99, 0.141]]) * np.array([[20.0], [1.0]])

    def narrow():
        numpyro.sample("z", dist.MultivariateNormal(jnp.zeros(2), scale_tril=jnp.asarray(factor)))

    mcmc = MCMC(RandomWalk(narrow), num_warmup=8000, num_samples=8000, progress_bar=False)
    mcmc.run(jax.random.key(1))
    z = mcmc.get_samples()["z"]
    found = mcmc.last_state.factor @ mcmc.last_state.factor.T
    assert found[0, 1] / np.sqrt(found[0, 0] * found[1, 1]) == pytest.approx(0.99, abs=0.02)
    ess = [float(numpyro.diagnostics.effective_sample_size(z[None, :, i])) for i in (0, 1)]
    assert min(ess) > 300


def test_a_proposal_that_is_not_solved_is_rejected_and_flagged():
    def half_line():
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.factor("solved", jnp.where(z > 0, 0.0, jnp.nan))

    kernel = RandomWalk(half_line, init_strategy=bilo.init_near({"z": 1.0}))
    mcmc = MCMC(kernel, num_warmup=500, num_samples=4000, progress_bar=False)
    mcmc.run(jax.random.key(2))
    z = mcmc.get_samples()["z"]
    assert z.min() > 0
    assert z.mean() == pytest.approx((2 / np.pi) ** 0.5, abs=0.1)
    assert mcmc.get_extra_fields()["diverging"].any()


def test_bad_arguments_are_refused():
    def uniform():
        numpyro.sample("a", dist.Uniform(0.0, 1.0))

    with pytest.raises(ValueError, match="'a' is Uniform"):
        PCN(uniform).init(jax.random.key(0), 1)
    with pytest.raises(ValueError, match="both mean and covariance"):
        PCN(model, mean=[0.0, 0.0])
    with pytest.raises(ValueError, match="at most 1"):
        PCN(model, step_size=1.5)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        RandomWalk(model, covariance=np.ones(3)).init(jax.random.key(0), 1)
    with pytest.raises(ValueError, match="not positive definite"):
        RandomWalk(model, covariance=-np.ones(2)).init(jax.random.key(0), 1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        RandomWalk(model, target_accept_prob=1.0)

    def nowhere():
        numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.factor("never", jnp.nan)

    with pytest.raises(ValueError, match="potential energy is nan"):
        RandomWalk(nowhere).init(jax.random.key(0), 1)
