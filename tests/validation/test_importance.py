"""Pareto-smoothed importance weights, against ArviZ's and against closed forms."""

import warnings

import numpy as np
import pytest

from bilo_ppl.validation.importance import importance_weights, pareto_k

RNG = np.random.default_rng(0)


def arviz_psis(log_weights):
    """Normalised log weights and k-hat by ArviZ, of either generation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz as az
    if hasattr(az, "psislw"):
        smoothed, k = az.psislw(log_weights.copy())
        return smoothed, float(k)
    from arviz_stats.base import array_stats

    if len(log_weights) > 225:
        pytest.skip("ArviZ 1 takes a slightly larger tail of many weights than the paper's")
    smoothed, k = array_stats.psislw(-log_weights)
    return smoothed - np.log(np.exp(smoothed).sum()), float(k)


@pytest.mark.parametrize("n", [30, 200, 1000])
@pytest.mark.parametrize("kind", ["even", "normal", "wide", "heavy", "bounded"])
def test_weights_and_shape_are_arvizs(n, kind):
    log_weights = {
        "even": 1e-3 * RNG.normal(size=n),
        "normal": 0.3 * RNG.normal(size=n),
        "wide": 2 * RNG.normal(size=n),
        "heavy": np.log(RNG.pareto(1.2, size=n) + 1e-3),
        "bounded": -RNG.exponential(size=n),
    }[kind]
    smoothed, k = arviz_psis(log_weights)
    found = importance_weights(log_weights + 1e4)
    assert found.pareto_k == pytest.approx(k, abs=1e-9)
    np.testing.assert_allclose(found.weights, np.exp(smoothed), atol=1e-12)
    assert pareto_k(log_weights) == pytest.approx(k, abs=1e-9)


@pytest.mark.parametrize("k", [0.2, 0.6, 1.0])
def test_the_shape_of_pareto_weights_is_found(k):
    weights = RNG.pareto(1 / k, size=20000) + 1
    assert pareto_k(np.log(weights)) == pytest.approx(k, abs=0.1)


def test_kl_and_moments_of_two_normals():
    """q = N(0, 1), p = N(a, 1): log p/q = a x - a^2 / 2, KL = a^2 / 2, mean a."""
    a, x = 0.5, RNG.normal(size=100_000)
    found = importance_weights(a * x)
    assert found.kl_divergence == pytest.approx(a**2 / 2, rel=0.03)
    assert found.effective_fraction == pytest.approx(np.exp(-(a**2)), rel=0.03)
    assert found.weights.sum() == pytest.approx(1)
    assert found.weights @ x == pytest.approx(a, abs=0.02)


def test_even_weights_have_no_tail():
    found = importance_weights(np.full(100, 3.0))
    assert np.isnan(found.pareto_k)
    assert found.effective_fraction == pytest.approx(1)
    assert found.kl_divergence == pytest.approx(0, abs=1e-12)
    assert np.isnan(importance_weights(RNG.normal(size=20)).pareto_k), "too few"


def test_ratios_that_are_not_finite_have_no_weight():
    log_ratio = 0.1 * RNG.normal(size=100)
    log_ratio[[3, 50]] = np.nan, -np.inf
    found = importance_weights(log_ratio)
    rest = importance_weights(np.delete(log_ratio, [3, 50]))
    assert (found.weights[[3, 50]] == 0).all()
    np.testing.assert_allclose(np.delete(found.weights, [3, 50]), rest.weights)
    assert found[1:] == pytest.approx(rest[1:])
    with pytest.raises(ValueError, match="no log ratio is finite"):
        importance_weights(np.full(3, np.nan))
