"""Harmonic coordinates: straight where nothing varies, bent as the flux through layers asks for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bilo_ppl as bilo
from bilo_ppl.numerics.image.harmonic import harmonic_coordinates


def values(functions, x):
    return np.stack([np.asarray(jax.vmap(h)(jnp.asarray(x))) for h in functions], axis=1)


@pytest.mark.parametrize("shape", [(9, 12), (6, 7, 5)])
def test_in_one_tissue_they_are_those_of_the_point(shape):
    domain = bilo.image_domain(np.ones(shape), 0.5, 1.0)
    found = harmonic_coordinates(domain, np.full(shape, 3.0))
    np.testing.assert_allclose(values(found, domain.centres), domain.centres, atol=1e-7)


def test_through_layers_the_flux_is_the_same():
    """P h' is constant where P depends on one coordinate only, far from the rims beside the layers."""
    P = np.where(np.arange(40) < 20, 1.0, 0.1)[:, None] * np.ones((40, 140))
    domain = bilo.image_domain(np.ones(P.shape), 0.1)
    across = harmonic_coordinates(domain, P)[0]
    line = np.stack([0.1 * np.arange(40), np.full(40, 6.95)], axis=1)
    h = values((across,), line)[:, 0]
    before, after = (h[17] - h[3]) / 1.4, (h[36] - h[22]) / 1.4
    assert after / before == pytest.approx(10, rel=0.03)
    np.testing.assert_allclose(h[[0, -1]], [0.0, 3.9], atol=1e-3)


def test_the_flux_has_no_divergence_inside_of_a_mask_with_a_phase():
    i, j = np.indices((30, 26))
    mask = (i - 14) ** 2 + (j - 12) ** 2 < 120
    domain = bilo.image_domain(mask, 0.1, (-1.4, -1.2))
    P = 1.2 + np.sin(0.4 * i) * np.cos(0.3 * j)
    phase = 0.3 + 0.6 / (1 + np.exp((j - 16) / 1.5))
    product = domain.function(P * phase)
    for h in harmonic_coordinates(domain, P, phase):

        def divergence(x, h=h):
            way = bilo.grad(product)(x) @ bilo.grad(h)(x)
            return way + product(x) * bilo.laplacian(h)(x), product(x) * bilo.laplacian(h)(x)

        x = domain.centres[np.hypot(*domain.centres.T) < 0.7]
        rest, part = (np.asarray(a) for a in jax.jit(jax.vmap(divergence))(jnp.asarray(x)))
        assert np.sqrt(np.mean(rest**2)) < 0.15 * np.sqrt(np.mean(part**2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diffusivity": np.zeros((5, 5))}, "must be positive"),
        ({"phase": np.zeros((5, 5))}, "must be positive"),
        ({"diffusivity": np.ones((5, 4))}, r"shape \(5, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    domain = bilo.image_domain(np.ones((5, 5)))
    with pytest.raises(ValueError, match=message):
        harmonic_coordinates(domain, **{"diffusivity": np.ones((5, 5)), **change})
