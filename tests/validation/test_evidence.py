"""Evidences beside closed forms and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import multivariate_normal

import bilo_ppl as bilo
from models import poisson

X = np.linspace(0.1, 0.9, 5)[:, None]
SIGMA = 0.1


def linear(shift=0.0, unsolved_above=np.inf):
    """u(x) = D x + shift, an operator that is solved for D up to a limit."""
    return bilo.ClosedForm(
        poisson.problem,
        lambda x, theta: theta["D"] * x[0] + shift,
        valid=lambda theta: theta["D"] <= unsolved_above,
    )


def gaussian(operator, y):
    D = numpyro.sample("D", dist.Normal(1.0, 2.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(X), SIGMA), obs=y)


def draws_of_gaussian(y, count=1000):
    """From the posterior, which is Gaussian."""
    precision = 1 / 4 + X[:, 0] @ X[:, 0] / SIGMA**2
    mean = (1.0 / 4 + X[:, 0] @ y / SIGMA**2) / precision
    return {"D": np.random.default_rng(0).normal(mean, precision**-0.5, (2, count // 2))}


@pytest.fixture(scope="module")
def y():
    return 1.3 * X[:, 0] + SIGMA * np.random.default_rng(1).normal(size=len(X))


def exact_evidence(y):
    covariance = SIGMA**2 * np.eye(len(X)) + 4.0 * X @ X.T
    return float(multivariate_normal(X[:, 0], covariance).logpdf(y))


def test_of_a_linear_model_it_is_the_closed_form(y):
    found = bilo.log_evidence(gaussian, draws_of_gaussian(y), linear(), y, proposals=4000)
    assert found.log_evidence == pytest.approx(exact_evidence(y), abs=4 * found.standard_error)
    assert found.standard_error < 0.02
    assert found.trustworthy
    assert found.unsolved == 0
    assert "NOT" not in str(found)


def test_the_standard_error_is_that_of_repetitions(y):
    draws = draws_of_gaussian(y)
    found = [
        bilo.log_evidence(gaussian, draws, linear(), y, proposals=200, seed=seed)
        for seed in range(40)
    ]
    spread = np.std([each.log_evidence for each in found], ddof=1)
    assert spread == pytest.approx(np.mean([each.standard_error for each in found]), rel=0.4)


def test_the_draws_only_say_where_to_look(y):
    draws = {"D": draws_of_gaussian(y)["D"] * 1.03}
    found = bilo.log_evidence(gaussian, draws, linear(), y, proposals=4000)
    assert found.log_evidence == pytest.approx(exact_evidence(y), abs=4 * found.standard_error)


def test_a_positive_site_has_the_density_of_its_transform():
    def model(operator, y):
        D = numpyro.sample("D", dist.LogNormal(0.0, 0.5))
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        u = bilo.solution("u", operator, {"D": D})
        numpyro.sample("y", dist.Normal(jax.vmap(u)(X), SIGMA), obs=y)
        numpyro.sample("z", dist.Normal(w, 1.0).to_event(1), obs=jnp.ones(2))

    y = 1.3 * X[:, 0]
    grid = np.linspace(0.2, 4.0, 4001)
    log_likelihood = -0.5 * (((y - grid[:, None] * X[:, 0]) / SIGMA) ** 2).sum(axis=1)
    log_likelihood -= len(X) * np.log(SIGMA * np.sqrt(2 * np.pi))
    density = np.exp(np.asarray(dist.LogNormal(0.0, 0.5).log_prob(grid)) + log_likelihood)
    expected = np.log(np.trapezoid(density, grid))
    expected += 2 * float(dist.Normal(0.0, np.sqrt(2)).log_prob(1.0))
    random = np.random.default_rng(0)
    draws = {
        "D": random.normal(1.3, 0.06, (2, 500)),
        "w": random.normal(0.5, 0.7, (2, 500, 2)),
    }
    found = bilo.log_evidence(model, draws, linear(), y, proposals=4000)
    assert found.log_evidence == pytest.approx(expected, abs=4 * found.standard_error)
    assert found.standard_error < 0.03


def test_another_operator_may_stand_in(y):
    draws = draws_of_gaussian(y)
    found = bilo.log_evidence(gaussian, draws, linear(shift=0.5), y, reference=linear())
    same = bilo.log_evidence(gaussian, draws, linear(), y, reference={"u": linear()})
    wrong = bilo.log_evidence(gaussian, draws, linear(shift=0.5), y)
    assert found.log_evidence == same.log_evidence
    assert found.log_evidence == pytest.approx(exact_evidence(y), abs=4 * found.standard_error)
    assert wrong.log_evidence < found.log_evidence - 1


def test_what_is_not_solved_is_impossible_and_counted(y):
    draws = draws_of_gaussian(y)
    middle = float(draws["D"].mean())
    half = bilo.log_evidence(gaussian, draws, linear(unsolved_above=middle), y, proposals=4000)
    assert half.log_evidence == pytest.approx(exact_evidence(y) - np.log(2), abs=0.1)
    assert half.unsolved == pytest.approx(2000, rel=0.1)
    assert not half.trustworthy
    assert "NOT to be trusted" in str(half)
    with pytest.raises(ValueError, match="finite at none of the new draws"):
        bilo.log_evidence(gaussian, draws, linear(unsolved_above=-100.0), y)


def test_draws_from_elsewhere_are_seen_by_their_weights(y):
    far = {"D": 0.05 * np.random.default_rng(0).normal(size=(2, 500)) + 0.2}
    found = bilo.log_evidence(gaussian, far, linear(), y)
    assert found.pareto_k > 0.7
    assert not found.trustworthy


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        ({}, {}, "there are no draws"),
        ({"D": np.ones((2, 50))}, {}, "the draws have no covariance"),
        ({"D": np.ones((1, 2))}, {}, "2 draws are too few for the covariance of 1 unknowns"),
        ({"other": np.ones((2, 50))}, {}, r"no values for the sites \['D'\]"),
        ({"D": np.ones((2, 50))}, {"proposals": 0}, "proposals is 0"),
    ],
)
def test_what_cannot_be_estimated_is_refused(y, samples, options, message):
    with pytest.raises(ValueError, match=message):
        bilo.log_evidence(gaussian, samples, linear(), y, **options)


def test_a_flat_prior_has_no_evidence(y):
    def flat(operator, y):
        D = numpyro.sample("D", dist.ImproperUniform(dist.constraints.positive, (), ()))
        u = bilo.solution("u", operator, {"D": D})
        numpyro.sample("y", dist.Normal(jax.vmap(u)(X), SIGMA), obs=y)

    with pytest.raises(ValueError, match="'D' has a flat prior"):
        bilo.log_evidence(flat, draws_of_gaussian(y), linear(), y)
    with pytest.raises(ValueError, match="no solution"):
        bilo.log_evidence(lambda: numpyro.sample("D", dist.Normal()), draws_of_gaussian(y))
