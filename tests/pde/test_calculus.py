"""Differential operators against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

import bilo_ppl as bilo

X = jnp.array([0.3, -0.7])
Y = jnp.array([0.4, 1.1, -0.2])


def wave(x):
    return jnp.sin(2 * x[0]) * jnp.exp(x[1])


def system(x):
    return jnp.stack([x[0] ** 3 * x[1], jnp.cos(x[0] + 2 * x[1])])


def test_grad_of_a_scalar_field():
    x, y = X
    expected = [2 * np.cos(2 * x) * np.exp(y), np.sin(2 * x) * np.exp(y)]
    np.testing.assert_allclose(bilo.grad(wave)(X), expected, rtol=1e-14)


def test_grad_of_a_system_has_one_row_a_component():
    x, y = X
    s = np.sin(x + 2 * y)
    expected = [[3 * x**2 * y, x**3], [-s, -2 * s]]
    np.testing.assert_allclose(bilo.grad(system)(X), expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("axes", "factor"), [((0,), 2.0), ((1,), None), ((0, 0), -4.0), ((0, 0, 0, 0), 16.0)]
)
def test_partial_repeated(axes, factor):
    x, y = X
    trig = np.sin(2 * x) if len(axes) % 2 == 0 or axes == (1,) else np.cos(2 * x)
    expected = (1.0 if factor is None else factor) * trig * np.exp(y)
    np.testing.assert_allclose(bilo.partial(wave, *axes)(X), expected, rtol=1e-13)


def test_mixed_partials_commute_and_are_exact():
    x, y = X
    expected = 2 * np.cos(2 * x) * np.exp(y)
    np.testing.assert_allclose(bilo.partial(wave, 0, 1)(X), expected, rtol=1e-14)
    np.testing.assert_allclose(bilo.partial(wave, 1, 0)(X), expected, rtol=1e-14)


def test_partial_of_a_system():
    x, y = X
    expected = [3 * x**2, 2 * -np.cos(x + 2 * y)]
    np.testing.assert_allclose(bilo.partial(system, 0, 1)(X), expected, rtol=1e-14)


def test_laplacian_of_a_scalar_field():
    np.testing.assert_allclose(bilo.laplacian(wave)(X), -3 * wave(X), rtol=1e-13)


def test_laplacian_of_a_system():
    x, y = X
    expected = [6 * x * y, -5 * np.cos(x + 2 * y)]
    np.testing.assert_allclose(bilo.laplacian(system)(X), expected, rtol=1e-13)


def test_laplacian_along_chosen_axes_leaves_the_others_out():
    def u(x):
        return x[0] ** 2 + 3 * x[1] ** 2 + 100 * x[2] ** 2

    np.testing.assert_allclose(bilo.laplacian(u)(Y), 208.0)
    np.testing.assert_allclose(bilo.laplacian(u, axes=(0, 1))(Y), 8.0)


def test_divergence_of_a_flux_with_a_variable_coefficient():
    def diffusion(x):
        return 1 + x[0] ** 2 * x[1]

    x, y = X
    u_x, u_y = bilo.grad(wave)(X)
    expected = 2 * x * y * u_x + x**2 * u_y + diffusion(X) * -3 * wave(X)
    actual = bilo.divergence(lambda x: diffusion(x) * bilo.grad(wave)(x))(X)
    np.testing.assert_allclose(actual, expected, rtol=1e-13)


def test_divergence_pairs_components_with_axes():
    def flux(x):
        return jnp.stack([x[0] ** 2, 5 * x[2] ** 3])

    x, _, z = Y
    expected = 2 * x + 15 * z**2
    np.testing.assert_allclose(bilo.divergence(flux, axes=(0, 2))(Y), expected, rtol=1e-14)


@pytest.mark.parametrize("operator", [bilo.grad, bilo.laplacian, lambda u: bilo.partial(u, 0, 1)])
def test_single_precision_is_kept(operator):
    assert operator(wave)(X.astype(jnp.float32)).dtype == jnp.float32


def test_partial_without_axis_is_an_error():
    with pytest.raises(ValueError, match="at least one axis"):
        bilo.partial(wave)


def test_time_is_the_axis_that_the_domain_says():
    domain = bilo.space_time(bilo.interval(0.0, 1.0), 2.0)
    x = jnp.array([0.3, 1.5])
    np.testing.assert_array_equal(bilo.partial(wave, domain.time)(x), bilo.partial(wave, 1)(x))
    np.testing.assert_array_equal(
        bilo.laplacian(wave, axes=domain.space)(x), bilo.partial(wave, 0, 0)(x)
    )
    with pytest.raises(ValueError, match="the domain has no time"):
        bilo.partial(wave, bilo.interval(0.0, 1.0).time)


@pytest.mark.parametrize("axis", [1, -2])
def test_an_axis_that_the_points_lack_is_an_error_and_no_zero(axis):
    with pytest.raises(ValueError, match=f"along axis {axis} was asked for, but the points have 1"):
        bilo.partial(lambda x: x[0] ** 2, axis)(jnp.array([0.5]))


@pytest.mark.parametrize("derivative", [lambda u: bilo.partial(u, 0), bilo.laplacian, bilo.grad])
def test_a_number_is_no_point_and_whole_numbers_are_coordinates(derivative):
    def u(x):
        return x[0] ** 3

    with pytest.raises(ValueError, match=r"at a number; a point is an array .d,., such as jnp"):
        derivative(u)(2.0)
    np.testing.assert_array_equal(derivative(u)(jnp.array([2])), derivative(u)(jnp.array([2.0])))
