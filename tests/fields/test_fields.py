"""Unknown functions: fields, their first guess and penalties, and the effect that infers them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from numpyro.infer import init_to_sample
from numpyro.infer.util import potential_energy

import bilo_ppl as bilo
from bilo_ppl.fields import (
    KarhunenLoeve,
    NetworkField,
    PiecewiseLinear,
    field_weights,
    fit_field,
    mean_squared_gradient,
    total_variation,
    with_field_weights,
)
from bilo_ppl.ppl.unknowns import penalty, unknown_function

INTERVAL = bilo.interval(0.0, 1.0)
POINTS = INTERVAL.grid(401)


def ends_at_one(x, raw):
    return 1 + x[0] * (1 - x[0]) * raw


def small(**options):
    settings = {"width": 8, "depth": 1, "dtype": np.float64, **options}
    return NetworkField(INTERVAL, key=jax.random.key(0), **settings)


@pytest.mark.parametrize(("ends", "wave"), [("neumann", np.cos), ("dirichlet", np.sin)])
def test_karhunen_loeve_is_its_series(ends, wave):
    a = np.array([0.3, -1.2, 0.5])
    x = 0.37
    series = sum(
        a[i - 1] * np.sqrt(2 / (np.pi**2 * i**2 + 9)) * wave(i * np.pi * x) for i in (1, 2, 3)
    )
    found = KarhunenLoeve(a, ends=ends)(jnp.array([x]))
    np.testing.assert_allclose(found, np.exp(series), rtol=1e-12)


def test_other_ends_are_refused():
    with pytest.raises(ValueError, match="ends='periodic' must be"):
        KarhunenLoeve(np.ones(2), ends="periodic")


@pytest.mark.parametrize("ends", [None, (0.5, 3.0)])
def test_a_piecewise_linear_field_is_what_numpy_interpolates(ends):
    values = np.array([1.0, 2.5, 0.5, 1.5])
    full = values if ends is None else np.array([ends[0], *values, ends[1]])
    field = PiecewiseLinear(values, -1.0, 2.0, ends=ends)
    x = np.linspace(-1.0, 2.0, 37)
    nodes = np.linspace(-1.0, 2.0, len(full))
    np.testing.assert_allclose(jax.vmap(field)(x[:, None]), np.interp(x, nodes, full), atol=1e-12)
    slope = jax.grad(lambda y: field(y))(0.3)
    np.testing.assert_allclose(slope, np.interp([0.3, 0.31], nodes, full) @ [-100, 100])
    assert field_weights(field).shape == (4,)


def test_a_function_without_pieces_is_refused():
    with pytest.raises(ValueError, match="give at least two"):
        PiecewiseLinear(np.ones(1))
    with pytest.raises(ValueError, match="lower below upper"):
        PiecewiseLinear(np.ones(3), 1.0, 0.0)


def test_the_lift_of_a_network_field_holds_for_any_weights():
    field = small(lift=ends_at_one)
    assert field(jnp.array([0.0])) == field(1.0) == 1.0
    assert field(0.3) != 1.0
    positive = small(lift=lambda x, raw: jax.nn.softplus(raw))
    assert np.all(jax.vmap(positive)(POINTS) > 0)


def test_a_field_of_x_can_be_evaluated_at_points_of_space_time():
    field = small()
    assert field(jnp.array([0.3, 0.9])) == field(jnp.array([0.3]))


def test_the_features_of_a_network_field_are_neither_odd_nor_even():
    """About the middle of the domain: features that are all odd leave an even function out of reach."""
    network = small(depth=2).network

    def last_features(x):
        h = x
        for layer in network.layers[:-1]:
            h = jnp.tanh(layer(h))
        return h

    h = np.asarray(jax.vmap(last_features)(np.linspace(-1, 1, 21)[:, None]))
    for part in (h + h[::-1], h - h[::-1]):
        assert np.linalg.norm(part) > 0.1 * np.linalg.norm(h)


def test_frequencies_are_frozen_and_all_layers_are_not():
    field = small(fourier=4)
    weights = field_weights(field)
    assert weights.size == (8 * 8 + 8) + (8 + 1)
    moved = with_field_weights(field, weights + 1)
    np.testing.assert_array_equal(moved.network.frequencies.value, field.network.frequencies.value)
    np.testing.assert_array_equal(field_weights(moved), weights + 1)
    assert moved(0.3) != field(0.3)


def test_wrong_weights_and_fields_without_any_are_errors():
    with pytest.raises(ValueError, match=r"25 trainable numbers; .* shape \(3,\)"):
        with_field_weights(small(), jnp.zeros(3))
    with pytest.raises(ValueError, match="no trainable arrays"):
        field_weights(lambda x: x[0])


def test_a_field_is_fitted_to_a_guess():
    def guess(x):
        return 1 + 0.3 * jnp.sin(jnp.pi * x[0])

    solver = bilo.LevenbergMarquardt(tolerance=1e-9, max_steps=100)
    field = fit_field(small(lift=ends_at_one), guess, POINTS[::10], solver=solver)
    np.testing.assert_allclose(jax.vmap(field)(POINTS), jax.vmap(guess)(POINTS), atol=3e-4)
    assert field(0.0) == 1.0


def test_a_guess_out_of_reach_is_warned_of_and_a_wrong_one_refused():
    solver = bilo.LevenbergMarquardt(tolerance=1e-9, max_steps=1)
    with pytest.warns(UserWarning, match=r"mean square error is .* after 1 steps"):
        fit_field(small(), lambda x: jnp.sin(20 * x[0]), POINTS[::10], solver=solver)
    with pytest.raises(ValueError, match=r"shape \(1,\) at a point"):
        fit_field(small(), lambda x: x, POINTS[::10])


def test_penalties_are_those_of_calculus():
    def field(x):
        return jnp.sin(2 * jnp.pi * x[0])

    np.testing.assert_allclose(mean_squared_gradient(field, POINTS), 2 * np.pi**2, rtol=5e-3)
    np.testing.assert_allclose(total_variation(field, POINTS), 4.0, rtol=5e-3)
    flat = jax.grad(lambda a: total_variation(lambda x: a * x[0], POINTS))(0.0)
    assert flat == 0.0


def test_penalties_in_two_dimensions_take_all_coordinates():
    points = bilo.Box((0.0, 0.0), (1.0, 1.0)).grid(5, 5)

    def plane(x):
        return 3 * x[0] - 4 * x[1]

    np.testing.assert_allclose(mean_squared_gradient(plane, points), 25.0)
    np.testing.assert_allclose(total_variation(plane, points), 5.0, rtol=1e-6)


def model(prior_sd=None):
    field = unknown_function("f", small(), prior_sd)
    numpyro.deterministic("value", field(0.3))
    penalty("rough", 2.0, field(0.3) ** 2)


def test_an_unknown_function_is_one_site_that_starts_at_the_given_field():
    field = small()
    trace = handlers.trace(handlers.seed(model, 0)).get_trace()
    np.testing.assert_array_equal(trace["f"]["value"], field_weights(field))
    site = {**trace["f"], "value": None, "kwargs": {"rng_key": None, "sample_shape": ()}}
    with jax.numpy_rank_promotion("allow"):
        np.testing.assert_array_equal(init_to_sample(site), field_weights(field))
    moved = handlers.substitute(model, {"f": field_weights(field) + 0.1})
    value = handlers.trace(moved).get_trace()["value"]["value"]
    np.testing.assert_allclose(value, with_field_weights(field, field_weights(field) + 0.1)(0.3))


def test_its_prior_is_flat_or_normal_and_the_penalty_is_energy():
    z = {"f": field_weights(small())}
    rough = 2.0 * small()(0.3) ** 2
    np.testing.assert_allclose(potential_energy(model, (), {}, z), rough)
    normal = 0.5 * np.sum(z["f"] ** 2) / 4 + z["f"].size * np.log(2 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(potential_energy(model, (2.0,), {}, z), rough + normal)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_a_penalty_that_would_reward_is_refused(weight):
    with pytest.raises(ValueError, match=r"penalty\('rough'\): the weight must be at least 0"):
        penalty("rough", weight, 1.0)


def test_a_prior_without_width_is_refused():
    with pytest.raises(ValueError, match="prior_sd must be positive, got 0"):
        unknown_function("f", small(), 0.0)
