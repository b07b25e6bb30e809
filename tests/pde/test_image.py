"""Images and masks as domains: points inside, smooth functions, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

import bilo_ppl as bilo
from bilo_ppl.inner.adequacy import Adequate
from bilo_ppl.pde.data import Observations, check
from bilo_ppl.pde.image_function import ImageFunction

SPACING, ORIGIN = (0.5, 0.25), (-1.0, 2.0)


def l_shape(shape=(12, 16)):
    """All but a corner."""
    mask = np.ones(shape, bool)
    mask[shape[0] // 2 :, shape[1] // 2 :] = False
    return mask


@pytest.fixture
def domain():
    return bilo.image_domain(l_shape(), SPACING, ORIGIN)


def test_the_limits_are_the_faces_of_the_outermost_voxels(domain):
    assert domain.lower == (-1.25, 1.875)
    assert domain.upper == (4.75, 5.875)
    assert domain.spacing == SPACING
    assert domain.origin == ORIGIN
    assert domain.space == (0, 1)
    np.testing.assert_allclose(domain.volume, 0.75 * 6 * 4)
    assert domain.centres.shape == (144, 2)
    np.testing.assert_array_equal(domain.centres[1], [-1.0, 2.25])


def test_points_are_inside_up_to_the_faces(domain):
    points = np.array([[1.7, 3.8], [1.8, 3.8], [1.8, 3.9], [1.75, 5.0], [1.76, 5.0], [-1.3, 2.0]])
    assert domain.contains(points).tolist() == [True, True, False, True, False, False]
    assert domain.contains(domain.centres).all()
    assert not domain.contains(np.array([[np.nan, 3.0], [0.0, np.inf]])).any()


@pytest.mark.parametrize("time", [None, 1.0])
def test_random_and_scattered_points_fill_the_mask_evenly(domain, time):
    if time is not None:
        domain = bilo.space_time(domain, time)
        assert isinstance(domain, bilo.ImageDomain)
        assert domain.time == 2
    for points, slack in ((domain.sample(0, 3000), 0.03), (domain.scatter(300), 0.02)):
        assert domain.contains(points).all()
        assert points.shape[1] == domain.dimension
        # Each of the three quarters of the box has a third.
        left, low = points[:, 0] < 1.75, points[:, 1] < 3.875
        np.testing.assert_allclose(np.mean(left & low), 1 / 3, atol=slack)
        np.testing.assert_allclose(np.mean(left & ~low), 1 / 3, atol=slack)
        if time is not None:
            np.testing.assert_allclose(points[:, 2].mean(), time / 2, atol=slack)
    np.testing.assert_array_equal(domain.sample(1, 5), domain.sample(1, 5))
    assert (domain.sample(1, 5) != domain.sample(2, 5)).all()


def test_grids_and_refined_points_keep_to_the_mask(domain):
    own = domain.grid(9, 9)
    assert len(own) < 81
    assert domain.contains(own).all()
    more = bilo.refined(own, domain)
    assert len(more) >= 5 * len(own)
    assert domain.contains(more).all()


def test_domains_are_equal_where_limits_and_masks_are(domain):
    same = bilo.image_domain(l_shape(), SPACING, ORIGIN)
    assert domain == same
    assert hash(domain) == hash(same)
    other = l_shape()
    other[0, 0] = False
    assert domain != bilo.image_domain(other, SPACING, ORIGIN)
    assert domain != bilo.Box(domain.lower, domain.upper)
    with pytest.raises(ValueError, match="read-only"):
        domain.mask[0, 0] = False


def test_an_image_is_a_smooth_function_within_its_values(domain):
    rng = np.random.default_rng(0)
    image = rng.uniform(size=domain.mask.shape)
    f = domain.function(image)
    points = domain.sample(0, 200)
    values = jax.vmap(f)(points)
    assert values.min() >= image.min()
    assert values.max() <= image.max()
    h = 1e-5
    for axis in range(2):
        step = h * np.eye(2)[axis]
        slopes = jax.vmap(bilo.partial(f, axis))(points)
        difference = (jax.vmap(f)(points + step) - jax.vmap(f)(points - step)) / (2 * h)
        np.testing.assert_allclose(slopes, difference, atol=1e-8)
        curvatures = jax.vmap(bilo.partial(f, axis, axis))(points)
        difference = (
            jax.vmap(bilo.partial(f, axis))(points + step)
            - jax.vmap(bilo.partial(f, axis))(points - step)
        ) / (2 * h)
        np.testing.assert_allclose(curvatures, difference, atol=1e-3)


def test_a_linear_image_stays_linear_and_time_is_ignored():
    domain = bilo.image_domain(np.ones((6, 5, 7)), (1.0, 2.0, 0.5))
    image = domain.values(lambda x: 1 + 2 * x[0] - x[1] + 4 * x[2])
    f = domain.function(image)
    x = jnp.array([2.3, 4.1, 1.2])
    np.testing.assert_allclose(f(x), 1 + 4.6 - 4.1 + 4.8, rtol=1e-12)
    np.testing.assert_allclose(f(jnp.append(x, 9.0)), f(x))
    np.testing.assert_allclose(bilo.grad(f)(x), [2, -1, 4], rtol=1e-12)
    outside = f(jnp.array([50.0, 4.1, 1.2]))
    np.testing.assert_allclose(outside, 1 + 10 - 4.1 + 4.8, rtol=1e-12)


def test_a_smoothed_mask_falls_off_like_a_gaussian():
    mask = np.zeros((40, 8), bool)
    mask[:20] = True
    domain = bilo.image_domain(mask, 0.5)
    phi = domain.smoothed_mask(1.2)
    x = np.linspace(4.0, 15.0, 50)
    points = np.stack([x, np.full(50, 1.75)], axis=1)
    # The other axis is cut off at both borders of the image: 2 units from the middle.
    across = ndtr(2 / 1.2) - ndtr(-2 / 1.2)
    np.testing.assert_allclose(
        jax.vmap(phi)(points), across * ndtr((9.75 - x) / 1.2), atol=1e-2 * across
    )
    assert jax.vmap(bilo.partial(phi, 0))(points)[20:30].max() < 0
    far = phi(jnp.array([30.0, 1.75]))
    assert 0 <= far < 1e-4


class Decaying(bilo.Problem):
    """phi u_t = div(D P phi grad u) - phi u in a mask, from a bump: the diffuse-domain form."""

    phi: ImageFunction
    tissue: ImageFunction

    parameters = ("D",)
    components = 1
    domain = bilo.space_time(bilo.image_domain(l_shape((6, 8)), 0.2), 1.0)
    points = domain.scatter(40)

    def residual(self, u, x, theta):
        def flux(y):
            return self.tissue(y) * self.phi(y) * bilo.grad(u)(y)[:2]

        spread = theta["D"] * bilo.divergence(flux, axes=self.domain.space)(x)
        return self.phi(x) * (bilo.partial(u, 2)(x) + u(x)) - spread

    def lift(self, x, raw, theta):
        return jnp.exp(-jnp.sum(x[:2] ** 2)) + x[2] * raw


def decaying():
    tissue = Decaying.domain.probability(np.linspace(0.2, 1.0, 48).reshape(6, 8))
    return Decaying(Decaying.domain.smoothed_mask(0.2), tissue)


@pytest.mark.slow
def test_pretraining_and_its_points_keep_to_the_mask():
    problem, theta = decaying(), {"D": jnp.array([0.1])}
    operator, report = bilo.pretrain(
        problem,
        {"D": 0.1},
        key=jax.random.key(0),
        solver=bilo.LevenbergMarquardt(tolerance=1e-4, max_steps=60),
        sensitivity=bilo.ImplicitDifferentiation(),
        width=12,
        progress=False,
    )
    assert report.converged
    level = bilo.LowerLevel(operator, bilo.ImplicitDifferentiation())
    look = Adequate(level, 1e-12)(operator.weights, theta, problem.points)
    assert len(look.more) == 80
    assert problem.domain.contains(look.more).all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 4)), "no voxel of the"),
        (np.ones(4), "must have 2 or 3 axes"),
        (np.full((4, 4), 0.7), "compare with a threshold"),
        (np.full((4, 4), np.nan), "must hold True and False"),
    ],
)
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        bilo.image_domain(mask)


def test_images_that_do_not_fit_are_refused(domain):
    good = np.full((12, 16), 0.5)
    bad = good.copy()
    bad[3, 4] = np.nan
    with pytest.raises(ValueError, match=r"grey has shape \(16, 12\).*another order"):
        domain.function(good.T, "grey")
    with pytest.raises(ValueError, match="resample it"):
        domain.function(good[:-1])
    with pytest.raises(ValueError, match=r"not finite at 1 voxels, the first at \[3, 4\]"):
        domain.function(bad)
    with pytest.raises(ValueError, match="divide by 255"):
        domain.probability(255 * good)
    with pytest.raises(ValueError, match=r"between 0 and 1, but goes from -0\.5"):
        domain.probability(-good)
    with pytest.raises(ValueError, match="spacing must be positive"):
        bilo.image_domain(l_shape(), (1.0, -1.0))
    with pytest.raises(ValueError, match="one for each axis"):
        bilo.image_domain(l_shape(), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="the width must be at least"):
        domain.smoothed_mask(0.1)


def test_data_outside_the_mask_are_refused(domain):
    x = np.array([[0.0, 3.0], [4.0, 5.0]])
    with pytest.raises(ValueError, match=r"x = \(4, 5\) lies outside .* 144 of 192 voxels"):
        check(Observations(x, np.ones(2), 0.1), domain)
