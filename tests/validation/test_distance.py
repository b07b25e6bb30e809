"""Distances of draws from an exact posterior: a normal density on a grid."""

import numpy as np
import pytest

from bilo_ppl.validation.distance import distances
from bilo_ppl.validation.posterior_grid import GridPosterior

MEAN, SD = 0.7, 0.25


@pytest.fixture(scope="module")
def posterior():
    x = np.linspace(-1, 2.5, 701)
    density = np.exp(-0.5 * ((x - MEAN) / SD) ** 2)
    return GridPosterior(("m",), {"m": x}, density / np.trapezoid(density, x))


def test_independent_draws_are_within_their_band(posterior):
    draws = posterior.sample("m", 3, 4000).reshape(4, 1000)
    d = distances(draws, posterior, "m")
    assert abs(d.mean_error) < 3
    assert abs(d.sd_error) < 3 * d.sd_error_se
    assert d.sd_error_se == pytest.approx((2 * 4000) ** -0.5, rel=0.15)
    assert d.ess == pytest.approx(4000, rel=0.15)
    assert 0.5 * d.total_variation_iid < d.total_variation < 1.1 * d.total_variation_iid95
    assert d.total_variation_iid < d.total_variation_iid95
    assert d.wasserstein < 3 * SD / 4000**0.5
    assert d.bins == 50


def test_the_band_holds_95_percent_of_the_time(posterior):
    found = [distances(posterior.sample("m", i, 500), posterior, "m", ess=500) for i in range(200)]
    inside = np.mean([d.total_variation <= d.total_variation_iid95 for d in found])
    assert 0.9 <= inside <= 0.99
    errors = np.array([d.mean_error for d in found])
    assert errors.std() == pytest.approx(1, abs=0.15)
    scaled = np.array([d.sd_error / d.sd_error_se for d in found])
    assert scaled.std() == pytest.approx(1, abs=0.15)


def test_wrong_draws_are_seen(posterior):
    exact = posterior.sample("m", 4, 4000)
    shifted = distances(exact + 0.3 * SD, posterior, "m")
    assert shifted.mean_error > 10
    assert shifted.total_variation > 2 * shifted.total_variation_iid95
    assert shifted.wasserstein == pytest.approx(0.3 * SD, rel=0.1)
    wide = distances(MEAN + 1.5 * (exact - MEAN), posterior, "m")
    assert wide.sd_error == pytest.approx(0.5, abs=0.05)
    assert wide.sd_error > 10 * wide.sd_error_se
    assert wide.total_variation > 2 * wide.total_variation_iid95


def test_correlated_draws_have_a_wider_band(posterior):
    rng = np.random.default_rng(0)
    z = np.zeros((2, 2000))
    for i in range(1, 2000):
        z[:, i] = 0.9 * z[:, i - 1] + (1 - 0.81) ** 0.5 * rng.normal(size=2)
    d = distances(MEAN + SD * z, posterior, "m")
    assert d.ess < 1000
    assert d.total_variation_ess95 > d.total_variation_iid95


def test_standard_errors_of_correlated_draws_are_those_of_the_effective_ones(posterior):
    """Draws of correlation 0.9 and their squares, of correlation 0.81, in closed form."""
    rng, rho = np.random.default_rng(0), 0.9
    z = np.zeros((4, 4000))
    for i in range(1, 4000):
        z[:, i] = rho * z[:, i - 1] + (1 - rho**2) ** 0.5 * rng.normal(size=4)
    draws = MEAN + SD * z
    d = distances(draws, posterior, "m")
    effective = z.size * (1 - rho) / (1 + rho)
    error = SD / effective**0.5
    assert (draws.mean() - MEAN) / d.mean_error == pytest.approx(error, rel=0.15)
    squares = z.size * (1 - rho**2) / (1 + rho**2)
    assert d.sd_error_se == pytest.approx((2 * squares) ** -0.5, rel=0.15)


def test_unsuitable_draws_are_refused(posterior):
    with pytest.raises(ValueError, match="finite"):
        distances(np.array([0.0, np.nan, 1.0, 2.0]), posterior, "m")
    with pytest.raises(ValueError, match="not 'k'"):
        distances(np.zeros(10), posterior, "k")


def test_the_effective_number_of_draws_is_at_least_one(posterior):
    """NumPyro's estimate is negative for antithetic draws, NaN for chains that never move."""
    antithetic = MEAN + SD * np.tile([[1.0, -1.0]], (2, 20))
    stuck = MEAN + np.array([[-SD], [SD]]) * np.ones((2, 20))
    for draws in (antithetic, stuck):
        d = distances(draws, posterior, "m")
        assert d.ess >= 1
        assert np.isfinite(d).all()
    assert distances(antithetic, posterior, "m", ess=-3.0).ess == 1
