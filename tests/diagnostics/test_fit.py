"""Goodness of fit where chi-square and its law are known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import chi2

import bilo_ppl as bilo
from bilo_ppl.diagnostics import goodness_of_fit, inner_statistics, solves_and_fit
from models import poisson

EXACT = bilo.ClosedForm(poisson.problem, lambda x, theta: jnp.sin(jnp.pi * x[0]) / theta["D"])
X = np.linspace(0.05, 0.95, 40)[:, None]
NOISE = np.random.default_rng(0).normal(size=40)
SIGMA = 0.1
DRAWS = {"D": 1 + 0.02 * np.random.default_rng(1).normal(size=(2, 150))}


def model(operator, x, y, sigma):
    D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)
    numpyro.factor("none", 0.0 * D)


def data(noise):
    return np.sin(np.pi * X[:, 0]) + noise


def test_chi_square_and_its_p_value_are_those_of_the_draws():
    y = data(SIGMA * NOISE)
    (found,) = goodness_of_fit(model, DRAWS, EXACT, X, y, SIGMA).values()
    D = DRAWS["D"].ravel()[np.linspace(0, 299, 100).round().astype(int)]
    sums = np.sum((y - np.sin(np.pi * X[:, 0]) / D[:, None]) ** 2, axis=1) / SIGMA**2
    assert (found.data, found.draws) == (40, 100)
    assert found.chi_square == pytest.approx(sums.mean() / 40)
    assert found.p_value == pytest.approx(chi2.sf(sums, 40).mean())
    assert not found.contradicts
    assert found.warning is None
    assert str(found) == f"chi-square {found.chi_square:.3g} per datum, p = {found.p_value:.2g}"


@pytest.mark.parametrize(
    ("noise", "words"),
    [(0.3 * NOISE, "cannot explain them"), (0.01 * NOISE, "scatter less than their sigma")],
)
def test_data_of_other_noise_contradict_the_model(noise, words):
    found = goodness_of_fit(model, DRAWS, EXACT, X, data(noise), SIGMA)["y"]
    assert found.contradicts
    assert "contradict each other" in found.warning
    assert words in found.warning


def test_log_normal_sites_count_and_others_do_not():
    def several(operator, y):
        D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
        u = bilo.solution("u", operator, {"D": D})
        mean = jnp.log(jax.vmap(u)(X))
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.LogNormal(mean, 0.5), obs=y)
        numpyro.sample("rows", dist.Normal(mean, 0.5).to_event(1), obs=np.log(y))
        numpyro.sample("count", dist.Poisson(u(jnp.array([0.5]))), obs=1)

    y = np.sin(np.pi * X[:, 0]) * np.exp(0.5 * NOISE)
    found = goodness_of_fit(several, {"D": np.ones((1, 3))}, EXACT, y)
    assert set(found) == {"y", "rows"}
    assert found["y"].chi_square == pytest.approx(np.mean(NOISE**2))
    assert found["rows"].chi_square == pytest.approx(np.mean(NOISE**2))


def test_unsolved_draws_stand_and_bad_arguments_are_refused():
    never = bilo.ClosedForm(
        poisson.problem,
        lambda x, theta: jnp.sin(jnp.pi * x[0]) / theta["D"],
        valid=lambda theta: theta["D"] > 5,
    )
    y = data(SIGMA * NOISE)
    assert goodness_of_fit(model, DRAWS, never, X, y, SIGMA, max_draws=7)["y"].draws == 7
    with pytest.raises(ValueError, match="max_draws must be at least 1"):
        goodness_of_fit(model, DRAWS, EXACT, X, y, SIGMA, max_draws=0)


def test_solves_and_fit_in_one_pass_are_those_of_two():
    """Solves of few draws are tried at all of them, in the shape of the draws."""
    some = bilo.ClosedForm(EXACT.problem, EXACT.formula, valid=lambda theta: theta["D"] < 1.0)
    arguments = (model, DRAWS, some, X, data(SIGMA * NOISE), SIGMA)
    infos, fits = solves_and_fit(*arguments)
    wanted = inner_statistics(*arguments)
    assert infos.keys() == wanted.keys() == {"u"}
    np.testing.assert_array_equal(infos["u"].converged, wanted["u"].converged)
    np.testing.assert_array_equal(infos["u"].converged, DRAWS["D"] < 1.0)
    every = goodness_of_fit(*arguments, max_draws=300)
    assert fits.keys() == every.keys() == {"y"}
    np.testing.assert_allclose(fits["y"], every["y"], rtol=1e-10)
    assert fits["y"].draws == 300
