"""Groups of what a model predicts: the laws they should have, and what ArviZ makes of them."""

import warnings

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import bilo_ppl as bilo
from bilo_ppl.diagnostics.predictive import GROUPS, add_groups
from bilo_ppl.mcmc.draws import Draws
from models import poisson

KEY = jax.random.key(3)
# Not at the ends, where u = 0 whatever D is: such a datum has nothing to say of D.
DATA = {"x": poisson.problem.domain.interior_grid(9), "sigma": poisson.synthetic_data(0)["sigma"]}
DATA["y"] = np.sin(np.pi * DATA["x"][:, 0]) + 0.2 * np.random.default_rng(5).normal(
    size=len(DATA["x"])
)
OBSERVED = DATA["x"], DATA["y"], DATA["sigma"]
D = np.exp(0.1 * np.random.default_rng(0).normal(size=(2, 300)))


def run(operator=None, model=poisson.model, args=OBSERVED):
    """Draws that no sampler has made."""
    put = operator or bilo.ClosedForm(
        poisson.problem, lambda x, theta: jnp.sin(jnp.pi * x[0]) / theta["D"]
    )
    return Draws(model, (put, *args), {}, {"D": D}, {})


def with_groups(draws, *groups, **more):
    idata = bilo.to_arviz(draws)
    add_groups(idata, draws, groups, key=KEY, **more)
    return idata


@pytest.fixture(scope="module")
def whole():
    constant = {"x": DATA["x"], "sigma": DATA["sigma"]}
    return with_groups(run(), *GROUPS, constant=constant)


def test_log_likelihoods_are_those_of_the_noise(whole):
    u = np.sin(np.pi * DATA["x"][:, 0]) / D[..., None]
    wanted = stats.norm.logpdf(DATA["y"], u, DATA["sigma"])
    np.testing.assert_allclose(whole["log_likelihood"]["y"].values, wanted, rtol=1e-5)


def test_replicated_data_have_the_spread_of_the_solution_and_of_the_noise(whole):
    y = whole["posterior_predictive"]["y"].values
    assert y.shape == (2, 300, len(DATA["x"]))
    u = np.sin(np.pi * DATA["x"][:, 0]) / D[..., None]
    errors = (y - u) / DATA["sigma"]
    assert stats.kstest(errors.ravel(), "norm").pvalue > 1e-3
    assert not np.allclose(y[0, 0], DATA["y"])


def test_the_prior_is_that_of_the_model_and_asks_for_no_solve(whole):
    prior = whole["prior"]["D"].values
    assert prior.shape == (1, 500)
    model = numpyro.handlers.seed(poisson.model, KEY)
    fn = numpyro.handlers.trace(model).get_trace(run().args[0], *OBSERVED)["D"]["fn"]
    assert stats.kstest(prior.ravel(), lambda q: np.asarray(fn.cdf(q))).pvalue > 1e-3

    class Refusing(bilo.AbstractSolutionOperator):
        problem: bilo.Problem

        def init_state(self):
            return ()

        def solve(self, theta, state):
            raise AssertionError("a solve")

    found = with_groups(run(Refusing(poisson.problem)), "prior", prior_draws=7)
    assert found["prior"]["D"].shape == (1, 7)


def test_data_before_any_data_are_those_of_the_prior_draws(whole):
    y, prior = whole["prior_predictive"]["y"].values[0], whole["prior"]["D"].values[0]
    middle = np.argmin(abs(DATA["x"][:, 0] - 0.5))
    errors = (y[:, middle] - 1 / prior) / DATA["sigma"]
    assert stats.kstest(errors, "norm").pvalue > 1e-3


def test_before_the_data_another_operator_may_solve():
    def model(operator, x, y=None, sigma=0.2):
        numpyro.sample("D", dist.LogNormal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(100.0, 1.0).expand([len(x)]), obs=y)

    found = with_groups(run(), "prior_predictive", prior_model=model, prior_draws=5)
    assert (found["prior_predictive"]["y"].values > 50).all()


def test_what_is_missing_in_the_data_is_missing_in_their_replicas():
    def model(operator, x, y=None, sigma=0.2):
        value = numpyro.sample("D", dist.LogNormal(0.0, 1.0))
        u = bilo.solution("u", operator, {"D": value})
        bilo.observed("y", dist.Normal(jax.vmap(u)(x), sigma), y)

    y = np.array(DATA["y"])
    y[2] = np.nan
    found = with_groups(run(model=model, args=(DATA["x"], y, 0.2)), "posterior_predictive")
    replicas = found["posterior_predictive"]["y"].values
    np.testing.assert_array_equal(np.isnan(replicas), np.broadcast_to(np.isnan(y), replicas.shape))


def test_arviz_works_with_them(whole):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = arviz.loo(whole, pointwise=True)
        assert np.isfinite(float(getattr(found, "elpd_loo", getattr(found, "elpd", np.nan))))
        arviz.plot_ppc(whole) if hasattr(arviz, "plot_ppc") else arviz.plot_ppc_dist(whole)
        arviz.plot_khat(found)
    assert whole["constant_data"]["x"].shape == DATA["x"].shape


@pytest.mark.parametrize(
    ("groups", "message"),
    [(["posteriors"], "no groups .'posteriors'"), (["constant_data"], "needs constant")],
)
def test_what_cannot_be_added_is_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        with_groups(run(), *groups)
