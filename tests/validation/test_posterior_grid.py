"""Grid posteriors against conjugate models."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from bilo_ppl.numerics import FiniteDifferences
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.validation.posterior_grid import grid_posterior
from models import nonlinear_poisson, poisson

Y = np.array([0.3, 1.1, 0.6, 0.8])


def normal(y):
    """Conjugate: m given y is normal with precision 1/4 + 4/0.25."""
    m = numpyro.sample("m", dist.Normal(1.0, 2.0))
    numpyro.sample("y", dist.Normal(m, 0.5).expand([len(y)]).to_event(1), obs=y)


PRECISION = 0.25 + 4 / 0.25
MEAN, SD = (0.25 * 1.0 + Y.sum() / 0.25) / PRECISION, PRECISION**-0.5


@pytest.fixture(scope="module")
def posterior():
    return grid_posterior(normal, {"m": np.linspace(-1, 2.5, 701)}, Y)


def test_conjugate_normal(posterior):
    assert posterior.mean("m") == pytest.approx(MEAN, abs=1e-9)
    assert posterior.sd("m") == pytest.approx(SD, rel=1e-9)
    exact = dist.Normal(MEAN, SD)
    x, density = posterior.marginal("m")
    np.testing.assert_allclose(density, np.exp(exact.log_prob(x)), atol=1e-10)
    some = np.array([-5.0, 0.4, MEAN, 1.2, 9.0])
    np.testing.assert_allclose(posterior.cdf("m", some), exact.cdf(some), atol=1e-4)


def test_uneven_grids_are_allowed():
    x = 0.75 + 1.8 * np.sinh(np.linspace(-3, 3, 901)) / np.sinh(3)
    posterior = grid_posterior(normal, {"m": x}, Y)
    assert posterior.mean("m") == pytest.approx(MEAN, abs=1e-4)
    assert posterior.sd("m") == pytest.approx(SD, rel=1e-4)


def test_quantile_inverts_the_distribution_function(posterior):
    q = np.linspace(0, 1, 101)
    np.testing.assert_allclose(posterior.cdf("m", posterior.quantile("m", q)), q, atol=1e-12)
    draws = posterior.sample("m", 1, 40000)
    assert draws.mean() == pytest.approx(MEAN, abs=4 * SD / 200)
    assert draws.std() == pytest.approx(SD, rel=0.02)
    np.testing.assert_array_equal(draws, posterior.sample("m", 1, 40000))


def plane(rate):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("b", dist.Normal(0.5 * a, 1.0))
    numpyro.factor("unused", 0.0 * rate)


def test_two_parameters():
    grid = {"b": np.linspace(-8, 8, 161), "a": np.linspace(-7, 7, 141)}
    posterior = grid_posterior(plane, grid, rate=1.0)
    assert posterior.density.shape == (161, 141)
    assert posterior.names == ("b", "a")
    assert posterior.mean("a") == pytest.approx(0, abs=1e-9)
    assert posterior.sd("a") == pytest.approx(1, rel=1e-6)
    assert posterior.sd("b") == pytest.approx(1.25**0.5, rel=1e-6)


def test_points_without_a_finite_density_have_no_mass():
    def half():
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.factor("no solution", jnp.where(a > 0, 0.0, jnp.nan))

    posterior = grid_posterior(half, {"a": np.linspace(-1, 8, 9001)})
    assert posterior.mean("a") == pytest.approx((2 / np.pi) ** 0.5, abs=1e-3)
    assert posterior.cdf("a", -0.1) == 0
    assert (posterior.sample("a", 0, 1000) >= -1e-3).all()


def test_the_support_of_the_prior_may_end_the_grid():
    def uniform():
        numpyro.sample("a", dist.Uniform(0.0, 3.0))

    assert grid_posterior(uniform, {"a": np.linspace(0, 3, 31)}).mean("a") == pytest.approx(1.5)
    with pytest.raises(ValueError, match="upper edge a = 2"):
        grid_posterior(uniform, {"a": np.linspace(0, 2, 31)})


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"m": np.linspace(0.5, 3, 100)}, "lower edge m = 0.5"),
        ({"m": np.linspace(-2, 1, 100)}, "upper edge m = 1"),
        ({"k": np.linspace(-1, 3, 100)}, "must be the same"),
        ({"m": np.linspace(-1, 3, 9), "k": np.linspace(0, 1, 9)}, "must be the same"),
        ({name: np.linspace(0, 1, 3) for name in "abc"}, "one or two"),
        ({"m": np.array([0.0, 2.0, 1.0])}, "increasing"),
    ],
)
def test_unsuitable_grids_are_refused(grid, message):
    with pytest.raises(ValueError, match=message):
        grid_posterior(normal, grid, Y)


def test_unsuitable_models_are_refused():
    def vector():
        numpyro.sample("m", dist.Normal(jnp.zeros(2), 1.0))

    def impossible():
        numpyro.sample("m", dist.Normal(0.0, 1.0))
        numpyro.factor("never", -jnp.inf)

    grid = {"m": np.linspace(-8, 8, 9)}
    with pytest.raises(ValueError, match="not a scalar"):
        grid_posterior(vector, grid)
    with pytest.raises(ValueError, match="not finite at any"):
        grid_posterior(impossible, grid)


def test_the_sites_are_checked_without_solving():
    class Forbidden(AbstractSolutionOperator):
        problem: Any = poisson.problem

        def init_state(self):
            return ()

        def solve(self, theta, state):
            raise AssertionError("solved")

    args = (Forbidden(), np.full((1, 1), 0.5), np.ones(1), 0.1)
    with pytest.raises(ValueError, match=r"grid has the names \['k'\].*are \['D'\]"):
        grid_posterior(poisson.model, {"k": np.linspace(0.5, 1, 9)}, *args)


DATA = pathlib.Path(__file__).parents[3] / "shared" / "data" / "poisson_inverse_thirdparty.json"


@pytest.mark.skipif(not DATA.exists(), reason="the third-party data are not part of the project")
def test_third_party_posterior_of_the_nonlinear_poisson_problem():
    data = json.loads(DATA.read_text())
    x, y = np.array(data["x_u"])[:, None], np.array(data["u_obs"])
    operator = FiniteDifferences(
        nonlinear_poisson.problem, 801, theta={"k": 0.7}, guess=nonlinear_poisson.exact
    )

    def model():
        k = numpyro.sample("k", dist.LogNormal(0.0, 1.0))
        u, _, info = operator.solve({"k": k}, ())
        numpyro.factor("solved", jnp.where(info.converged, 0.0, -jnp.inf))
        numpyro.sample("y", dist.Normal(jax.vmap(u)(x), data["sigma_u"]).to_event(1), obs=y)

    posterior = grid_posterior(model, {"k": np.linspace(0.49, 0.95, 231)})
    expected = data["derived_posterior_exact_f_exact_bc"]["log k~N(0,1)"]
    assert posterior.mean("k") == pytest.approx(expected["mean"], abs=2e-4)
    assert posterior.sd("k") == pytest.approx(expected["sd"], rel=5e-3)
