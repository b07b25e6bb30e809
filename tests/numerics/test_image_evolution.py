"""Reaction and diffusion on masked images against exact solutions, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import potential_energy

import bilo_ppl as bilo
from bilo_ppl.numerics import ImageSeries
from bilo_ppl.numerics.image.diffusion import Diffusion
from bilo_ppl.numerics.image.image_series import continued, nearest_inside


class Growth(bilo.Problem):
    """u_t = div(D tissue grad u) + rho u (1 - u) inside of a mask."""

    domain: bilo.ImageDomain

    parameters = ("D", "rho")
    components = 1
    points = np.zeros((1, 3))


def no_reaction(u, theta):
    return jnp.zeros_like(u)


def growth(mask, spacing=1.0, origin=None, end=1.0, **options):
    domain = bilo.space_time(bilo.image_domain(mask, spacing, origin), end)
    tissue = options.pop("tissue", np.ones(mask.shape))
    initial = options.pop("initial")
    options.setdefault("theta", {"D": 1.0, "rho": 1.0})
    options.setdefault("flow", bilo.logistic_flow(lambda theta: theta["rho"]))
    return bilo.ReactionDiffusion(
        Growth(domain),
        diffusivity=lambda theta: theta["D"] * tissue,
        initial=lambda theta: initial,
        **options,
    )


def blob(mask, centre, width=2.0):
    index = np.stack(np.indices(mask.shape), axis=-1)
    return 0.5 * np.exp(-np.sum((index - np.array(centre)) ** 2, axis=-1) / width**2)


@pytest.fixture(scope="module")
def brain():
    """An irregular mask, two tissues, and a blob: an operator at D = 0.3, rho = 0.5 until 4."""
    i, j = np.indices((14, 12))
    mask = ((i - 6) ** 2 + 1.4 * (j - 5.5) ** 2 < 34) & ~((i > 5) & (j == 8))
    tissue = np.where(i + j > 11, 1.0, 0.1)
    tissue[~mask] = -7.0
    theta = {"D": 0.3, "rho": 0.5}
    return growth(
        mask, end=4.0, theta=theta, tissue=tissue, initial=blob(mask, (5, 5)), times=(2.0, 4.0)
    )


@pytest.mark.parametrize("dimension", [2, 3])
def test_diffusion_in_a_box_is_of_second_order_in_space(dimension):
    errors = []
    wave_numbers = np.array([1.0, 2.0, 1.0])[:dimension] * np.pi
    D, end = 0.02, 1.0

    def exact(x, t):
        decay = np.exp(-D * (wave_numbers**2).sum() * t)
        return 1 + decay * jnp.prod(jnp.cos(wave_numbers * x))

    for n in (8, 16):
        shape = (n, n + n // 2, n)[:dimension]
        spacing = 1 / np.array(shape)
        box = np.ones(shape), tuple(spacing), tuple(spacing / 2)
        domain = bilo.image_domain(*box)
        operator = growth(
            *box,
            end,
            theta={"D": D, "rho": 1.0},
            initial=domain.values(lambda x: exact(x, 0.0)),
            flow=bilo.runge_kutta(no_reaction),
            steps=40,
            times=5,
        )
        u, state, info = operator.solve({"D": D, "rho": 1.0}, operator.init_state())
        errors.append(np.abs(u.images[-1] - domain.values(lambda x: exact(x, end))).max())
        assert state == ()
        assert info.converged
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    points = jnp.asarray(domain.sample(0, 100))
    values = jax.vmap(u)(jnp.concatenate([points, jnp.full((100, 1), end)], axis=1))
    wanted = jax.vmap(lambda x: exact(x, end))(points)
    np.testing.assert_allclose(values, wanted, atol=2e-3)


def test_splitting_is_of_second_order_in_time():
    mask = np.ones((16, 12), bool)
    mask[9:, 7:] = False
    theta = {"D": 0.8, "rho": 1.5}

    def final(steps):
        operator = growth(
            mask, end=4.0, theta=theta, initial=blob(mask, (6, 5)), steps=steps, times=5
        )
        return operator.solve(theta, ())[0].images[-1]

    reference = final(256)
    errors = [np.abs(final(steps) - reference).max() for steps in (8, 16, 32)]
    np.testing.assert_allclose(np.log2(np.array(errors[:-1]) / errors[1:]), 2, atol=0.15)


def test_the_refined_operator_takes_twice_as_many_steps():
    mask = np.ones((6, 5), bool)
    options = {"end": 2.0, "initial": blob(mask, (2, 2)), "times": 3}
    theta = {"D": 0.8, "rho": 1.5}
    found = growth(mask, steps=8, **options).refined().solve(theta, ())[0]
    np.testing.assert_allclose(
        found.images, growth(mask, steps=16, **options).solve(theta, ())[0].images
    )


def test_without_diffusion_across_space_growth_is_logistic_to_rounding():
    mask = np.ones((5, 5), bool)
    operator = growth(mask, end=3.0, initial=np.full((5, 5), 0.1), steps=5, times=4)
    u, _, info = operator.solve({"D": 1.0, "rho": 0.7}, ())
    times = np.array([0.0, 1.0, 2.0, 3.0])
    exact = 0.1 / (0.1 + 0.9 * np.exp(-0.7 * times))
    np.testing.assert_allclose(u.images[:, 2, 2], exact, rtol=1e-12)
    assert info.converged
    other = growth(
        mask,
        end=3.0,
        initial=np.full((5, 5), 0.1),
        flow=bilo.runge_kutta(lambda u, theta: theta["rho"] * u * (1 - u)),
    )
    u = other.solve({"D": 1.0, "rho": 0.7}, ())[0]
    np.testing.assert_allclose(u.images[-1, 2, 2], exact[-1], rtol=1e-8)


def test_mass_changes_by_the_reaction_only_and_nothing_leaves_the_mask(brain):
    quiet = growth(
        brain.problem.domain.mask,
        end=4.0,
        tissue=np.where(brain.problem.domain.mask, 0.5, 100.0),
        initial=blob(brain.problem.domain.mask, (5, 5)),
        flow=bilo.runge_kutta(no_reaction),
        times=3,
    )
    images = quiet.solve({"D": 3.0, "rho": 1.0}, ())[0].images
    masses = [float(image[brain.problem.domain.mask].sum()) for image in images]
    np.testing.assert_allclose(masses, masses[0], rtol=1e-10)
    assert np.abs(images[-1] - images[0]).max() > 0.1


def test_a_phase_weighs_mass_and_flux():
    i, _ = np.indices((20, 9))
    phase = np.clip(1.2 - i / 12, 0.05, 1)
    mask = np.ones((20, 9), bool)
    options = {"end": 3.0, "initial": blob(mask, (9, 4)), "flow": bilo.runge_kutta(no_reaction)}
    operator = growth(mask, phase=phase, steps=64, times=3, **options)
    images = operator.solve({"D": 1.0, "rho": 1.0}, ())[0].images
    masses = np.sum(phase[None] * images, axis=(1, 2))
    np.testing.assert_allclose(masses, masses[0], rtol=1e-10)
    # div(phi grad u) = phi (u_xx + u_yy) + phi_x u_x: it drifts up the phase.
    u, x = images[0], 9
    diffusion = Diffusion.of(jnp.ones((20, 9)), mask, phase, (1.0, 1.0))
    middle = -diffusion.apply(u)[x, 4]
    slope = (u[x + 1, 4] - u[x - 1, 4]) / 2
    curvature = u[x + 1, 4] + u[x - 1, 4] + u[x, 5] + u[x, 3] - 4 * u[x, 4]
    np.testing.assert_allclose(middle, phase[x, 4] * curvature - slope / 12, rtol=1e-10)


def test_between_tissues_the_flux_is_that_of_layers():
    """Two layers of conductivities a and b in a row conduct like their harmonic mean."""
    diffusion = Diffusion.of(jnp.array([[1.0, 4.0]]), np.ones((1, 2), bool), None, (1.0, 0.5))
    flux = diffusion.apply(jnp.array([[1.0, 0.0]]))
    # The distance is 0.5, half of it in each layer; over the volume 0.5.
    np.testing.assert_allclose(flux[0, 0], 1 / (0.25 / 1 + 0.25 / 4) / 0.5, rtol=1e-12)
    np.testing.assert_allclose(flux.sum(), 0, atol=1e-14)


@pytest.fixture(scope="module")
def misfit(brain):
    """Of D and rho: a sum over the final image, compiled."""
    weights = np.cos(np.arange(14 * 12)).reshape(14, 12) * brain.problem.domain.mask

    def value(point):
        u, _, info = brain.solve({"D": point[0], "rho": point[1]}, ())
        return jnp.sum(weights * u.images[-1] ** 2) + jnp.sum(u.images[0] ** 3), info

    return jax.jit(value), jax.jit(jax.value_and_grad(value, has_aux=True))


def test_the_adjoint_gradient_matches_central_differences(misfit):
    value, value_and_gradient = misfit
    at = jnp.array([0.25, 0.6])
    (_, info), gradient = value_and_gradient(at)
    assert info.converged
    for i, e in enumerate(np.eye(2)):
        difference = (value(at + 1e-5 * e)[0] - value(at - 1e-5 * e)[0]) / 2e-5
        np.testing.assert_allclose(gradient[i], difference, rtol=1e-6)
        np.testing.assert_allclose(
            jax.jvp(lambda p: value(p)[0], (at,), (jnp.asarray(e),))[1], difference, rtol=1e-6
        )


def test_a_batch_is_what_single_solves_are(misfit):
    _, one = misfit
    batch = jnp.array([[0.25, 0.6], [0.4, 0.2], [0.1, 1.0]])
    (values, infos), gradients = jax.jit(jax.vmap(one))(batch)
    for i, point in enumerate(batch):
        (value, info), gradient = one(point)
        np.testing.assert_allclose(values[i], value, rtol=1e-11)
        np.testing.assert_allclose(gradients[i], gradient, rtol=1e-7)
        assert infos.steps[i] == info.steps


def test_memory_of_reverse_mode_grows_like_the_root_of_the_steps():
    mask = np.ones((24, 24), bool)

    def memory(steps):
        operator = growth(mask, initial=blob(mask, (9, 4)), steps=steps)

        def value(D):
            return jnp.sum(operator.solve({"D": D, "rho": 1.0}, ())[0].images[-1] ** 2)

        compiled = jax.jit(jax.grad(value)).lower(1.0).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(400) < 3 * memory(49)


def test_values_stay_positive_with_the_default_steps_and_long_ones_are_reported():
    mask = np.ones((15, 15), bool)
    spike = np.zeros((15, 15))
    spike[7, 7] = 1.0
    theta = {"D": 20.0, "rho": 0.0}
    operator = growth(mask, theta=theta, initial=spike)
    assert operator.steps * (len(operator.times) - 1) >= 40
    u, _, info = operator.solve(theta, ())
    assert u.images.min() >= 0
    assert info.converged
    u, _, info = growth(mask, theta=theta, initial=spike, steps=4, times=5).solve(theta, ())
    assert u.images.min() < -0.1
    assert bilo.StopReason(int(info.reason)) == bilo.StopReason.INVALID
    # A solution that may change its sign is none of this check's business.
    info = growth(mask, theta=theta, initial=-spike, steps=4, times=5).solve(theta, ())[2]
    assert info.converged


def test_what_it_cannot_solve_is_reported(brain):
    info = brain.solve({"D": -0.1, "rho": 0.5}, ())[2]
    assert bilo.StopReason(int(info.reason)) == bilo.StopReason.INVALID
    mask = np.ones((9, 9), bool)
    tight = growth(mask, initial=blob(mask, (3, 3)), max_steps=1)
    info = tight.solve({"D": 1.0, "rho": 1.0}, ())[2]
    assert bilo.StopReason(int(info.reason)) == bilo.StopReason.STEP_LIMIT


def test_it_works_in_single_precision():
    with jax.enable_x64(False):
        mask = np.ones((9, 9), bool)
        operator = growth(mask, initial=np.full((9, 9), 0.1))
        u, _, info = operator.solve({"D": 1.0, "rho": 0.7}, ())
        assert u.values.dtype == jnp.float32
        assert info.converged
        np.testing.assert_allclose(
            u(jnp.array([3.0, 3.0, 1.0])), 0.1 / (0.1 + 0.9 * np.exp(-0.7)), 1e-5
        )


def test_a_model_has_its_gradient(brain):
    x = np.concatenate([brain.problem.domain.sample(0, 8)[:, :2], np.full((8, 1), 4.0)], axis=1)

    def model():
        D = numpyro.sample("D", dist.LogNormal(-1.0, 0.5))
        rho = numpyro.sample("rho", dist.LogNormal(-1.0, 0.5))
        u = bilo.solution("u", brain, {"D": D, "rho": rho})
        numpyro.sample("y", dist.Normal(jax.vmap(u)(x), 0.05), obs=np.full(8, 0.4))

    @jax.jit
    def energy(z):
        return potential_energy(model, (), {}, {"D": z[0], "rho": z[1]})

    at, way = np.array([-1.2, -0.6]), np.array([0.6, 0.8])
    slope = jax.grad(energy)(at) @ way
    difference = (energy(at + 1e-5 * way) - energy(at - 1e-5 * way)) / 2e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_a_series_interpolates_in_space_and_time():
    mask = np.ones((7, 6, 5), bool)
    mask[5:] = False
    domain = bilo.image_domain(mask, (1.0, 0.5, 2.0), (1.0, 0.0, -1.0))
    times = (0.0, 0.5, 1.5, 2.0, 3.0)

    def polynomial(x, t):
        return (1 + x[0] - 0.5 * x[0] * x[1] ** 2 + x[2]) * (1 + t - t**3 / 3)

    images = jnp.stack([domain.values(lambda x, t=t: polynomial(x, t)) for t in times])
    series = ImageSeries(
        continued(images, nearest_inside(domain)), times, domain.origin, domain.spacing
    )
    inside = jnp.array([3.2, 0.7, 2.9])
    for t in (0.0, 0.4, 1.6, 2.9, 3.0):
        x = jnp.append(inside, t)
        np.testing.assert_allclose(series(x), polynomial(inside, t), rtol=1e-12)
        rate = bilo.partial(series, 3)(x)
        np.testing.assert_allclose(rate, jax.grad(polynomial, 1)(inside, t), atol=1e-10)
    np.testing.assert_allclose(
        bilo.grad(series)(jnp.append(inside, 1.0))[:3],
        jax.grad(polynomial)(inside, 1.0),
        rtol=1e-10,
    )
    assert np.isnan(series(jnp.append(inside, 3.1)))
    assert np.isnan(series(jnp.append(inside, -0.1)))
    np.testing.assert_allclose(series.images, jnp.where(mask, images, series.images))
    # Outside of the mask the nearest voxel inside counts.
    edge = jnp.array([5.0, 0.5, 3.0, 2.0])
    np.testing.assert_allclose(series(edge.at[0].set(8.0)), series(edge), rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tissue": np.ones((4, 5))}, r"diffusivity\(theta\) has shape \(4, 5\).*another order"),
        ({"tissue": -np.ones((5, 4))}, "must not be negative"),
        ({"tissue": np.zeros((5, 4))}, "nor zero everywhere"),
        ({"initial": np.full((5, 4), np.nan)}, r"initial\(theta\) is not finite at 20 voxels"),
        ({"flow": lambda u, t, theta: u[0]}, r"reaction\(theta\) has shape \(4,\)"),
        ({"phase": np.zeros((5, 4))}, "must be positive inside"),
        ({"phase": np.full((5, 4), 1.5)}, "between 0 and 1"),
        ({"times": (0.5, 0.2)}, "increasing ones"),
        ({"times": (0.5, 1.2)}, r"in \[0, 1\]"),
        ({"times": 1}, "at least 2 times"),
        ({"steps": -1}, "at least 1 iteration and 1 step"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        growth(np.ones((5, 4)), **{"initial": np.ones((5, 4)), **change})


def test_it_refuses_a_domain_that_is_no_image():
    with pytest.raises(ValueError, match="evolution problems on images"):
        bilo.ReactionDiffusion(
            Growth(bilo.image_domain(np.ones((4, 4)))),
            theta={"D": 1.0, "rho": 1.0},
            diffusivity=lambda theta: 1.0,
            initial=lambda theta: np.ones((4, 4)),
            flow=bilo.logistic_flow(lambda theta: 1.0),
        )
