"""What diffusion alone makes of a first distribution: Gaussians, and the other solver's solution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bilo_ppl as bilo
from bilo_ppl.numerics.image.spreading import spreading

WIDTH = 0.5


def gaussian(domain, height=0.2):
    return height * np.asarray(domain.values(lambda x: jnp.exp(-jnp.sum(x**2) / WIDTH)))


def plane(voxels, half=2.0):
    spacing = 2 * half / voxels
    return bilo.image_domain(np.ones((voxels, voxels)), spacing, -half + spacing / 2)


def in_the_plane(x, s, height=0.2, diffusivity=1.0):
    """logit of the Gaussian that spreads in the whole plane."""
    wider = 1 + 4 * diffusivity * s / WIDTH
    w = height / wider * np.exp(-np.sum(x**2, axis=1) / (WIDTH * wider))
    return np.log(w) - np.log1p(-w)


def table(voxels, diffusivity=1.0, **options):
    domain = plane(voxels)
    P = np.full(domain.mask.shape, diffusivity)
    return spreading(domain, gaussian(domain), diffusivity=P, end=0.4, scale=WIDTH / 4, **options)


def at(spread, x, s):
    return np.asarray(jax.vmap(lambda x: spread(x, s))(jnp.asarray(x)))


def test_a_gaussian_spreads_as_in_the_plane_to_second_order():
    x = np.random.default_rng(0).uniform(-0.8, 0.8, (40, 2))
    for diffusivity, s in ((1.0, 0.13), (0.7, 0.05)):
        errors = [
            np.abs(
                at(table(voxels, diffusivity), x, s) - in_the_plane(x, s, diffusivity=diffusivity)
            ).max()
            for voxels in (20, 40)
        ]
        assert errors[1] < 0.02
        assert 3 < errors[0] / errors[1] < 6


def test_it_begins_with_what_was_given_and_stays_after_the_end():
    spread, domain = table(30), plane(30)
    np.testing.assert_allclose(
        at(spread, domain.centres, 0.0), in_the_plane(domain.centres, 0.0), atol=1e-9
    )
    x = domain.centres[400:410]
    np.testing.assert_array_equal(at(spread, x, 0.5), at(spread, x, 0.4))


def test_derivatives_are_continuous_and_time_in_the_point_is_ignored():
    spread = table(30)
    x = jnp.array([0.31, -0.2])
    gradient = jax.grad(lambda x: spread(x, 0.1))
    step = 1e-4
    ends = [spread(x.at[0].add(by), 0.1) for by in (step, -step)]
    np.testing.assert_allclose(gradient(x)[0], (ends[0] - ends[1]) / (2 * step), rtol=1e-5)
    assert float(spread(jnp.append(x, 7.0), 0.1)) == float(spread(x, 0.1))
    rate = jax.grad(lambda s: spread(x, s))(0.1)
    exact = (in_the_plane(np.array(x)[None], 0.101) - in_the_plane(np.array(x)[None], 0.099)) / 2e-3
    np.testing.assert_allclose(rate, exact[0], rtol=0.02)


class Nothing(bilo.Problem):
    domain: bilo.ImageDomain
    parameters = ()
    components = 1
    points = np.zeros((1, 3))


def test_in_a_masked_image_with_tissues_and_a_phase_it_is_the_other_solver_s():
    i, j = np.indices((24, 20))
    mask = (i - 11) ** 2 + 1.3 * (j - 9) ** 2 < 90
    domain = bilo.image_domain(mask, 0.1, (-1.1, -0.9))
    P = np.where(i > 13, 0.1, 1.0)
    phase = np.clip(1.2 - np.hypot(i - 11, j - 9) / 10, 0.1, 1.0)
    options = {"scale": WIDTH / 4, "end": 0.4, "phase": phase}
    first = gaussian(domain)
    spread = spreading(domain, first, diffusivity=P, **options)
    other = bilo.ReactionDiffusion(
        Nothing(bilo.space_time(domain, 0.2)),
        theta={},
        diffusivity=lambda theta: P,
        initial=lambda theta: first,
        flow=lambda u, time, theta: u,
        phase=phase,
        steps=400,
        times=2,
    )
    u = other.solve({}, ())[0]
    x = np.concatenate([domain.centres, np.full((mask.sum(), 1), 0.2)], axis=1)
    w = np.asarray(jax.vmap(u)(jnp.asarray(x)))
    np.testing.assert_allclose(at(spread, domain.centres, 0.2), np.log(w / (1 - w)), atol=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"end": 0.0}, "positive end"),
        ({"scale": np.nan}, "positive end"),
        ({"nodes": 3}, "at least 8 nodes"),
        ({"initial": np.zeros((10, 10))}, "between 0 and 1"),
        ({"initial": np.full((10, 9), 0.1)}, r"initial has shape \(10, 9\)"),
        ({"diffusivity": np.full((10, 10), -1.0)}, "phase must be positive"),
        ({"phase": np.zeros((10, 10))}, "phase must be positive"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = {
        "initial": np.full((10, 10), 0.1),
        "diffusivity": np.ones((10, 10)),
        "end": 1.0,
        "scale": 0.1,
    }
    given |= change
    with pytest.raises(ValueError, match=message):
        spreading(plane(10), given.pop("initial"), **given)
