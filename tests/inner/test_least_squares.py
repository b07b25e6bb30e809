"""Rows, their Jacobian, and the damped Gauss-Newton solve against dense linear algebra."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from bilo_ppl.inner.least_squares import LeastSquares, RowFamily

ITEMS = jnp.linspace(0.0, 1.0, 4)
WEIGHTS = {"a": jnp.array([0.7, -0.2, 0.4]), "b": jnp.array(1.3), "frozen": None}


def curve(weights, t):
    wave = jnp.sin(weights["b"] * t)
    return {
        "zeta": jnp.stack([weights["a"][0] * wave, t + weights["a"][1] ** 2]),
        "alpha": jnp.stack([jnp.exp(-weights["b"] * t) * weights["a"][2]]),
    }


def ends(weights, item):
    s, t = item
    return {"ends": jnp.stack([s * weights["a"][1] - t, weights["b"] ** 2])}


PROBLEM = LeastSquares(
    (
        RowFamily(curve, ITEMS, {"zeta": 2.0, "alpha": 0.5}),
        RowFamily(ends, (jnp.array([1.0, 2.0, 3.0]), jnp.array([0.5, 0.1, 0.2])), {"ends": 10.0}),
    )
)


def test_named_rows_are_scaled_by_weight_and_number_of_items():
    named = PROBLEM.named(WEIGHTS)
    assert {k: v.shape for k, v in named.items()} == {
        "zeta": (4, 2),
        "alpha": (4, 1),
        "ends": (3, 2),
    }
    unscaled = curve(WEIGHTS, ITEMS[2])
    np.testing.assert_allclose(named["zeta"][2], np.sqrt(2 / 4) * unscaled["zeta"], rtol=1e-14)
    np.testing.assert_allclose(named["alpha"][2], np.sqrt(0.5 / 4) * unscaled["alpha"], rtol=1e-14)
    np.testing.assert_allclose(named["ends"][0, 1], np.sqrt(10 / 3) * 1.69, rtol=1e-14)


def test_weight_is_one_where_not_given():
    named = RowFamily(curve, ITEMS, {"zeta": 2.0}).named(WEIGHTS)
    expected = curve(WEIGHTS, ITEMS[1])["alpha"] / 2
    np.testing.assert_allclose(named["alpha"][1], expected, rtol=1e-14)


def test_loss_is_the_sum_of_weighted_mean_squares():
    rows = [curve(WEIGHTS, t) for t in ITEMS]
    zeta = np.mean([np.sum(r["zeta"] ** 2) for r in rows])
    alpha = np.mean([np.sum(r["alpha"] ** 2) for r in rows])
    end = np.mean([(s * -0.2 - t) ** 2 + 1.69**2 for s, t in [(1, 0.5), (2, 0.1), (3, 0.2)]])
    terms = PROBLEM.terms(WEIGHTS)
    expected = {"zeta": 2 * zeta, "alpha": 0.5 * alpha, "ends": 10 * end}
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-13)
    np.testing.assert_allclose(PROBLEM.loss(WEIGHTS), sum(expected.values()), rtol=1e-13)


def test_jacobian_is_the_derivative_of_the_rows_in_their_order():
    flat, unravel = ravel_pytree(WEIGHTS)
    expected = jax.jit(jax.jacfwd(lambda w: PROBLEM.rows(unravel(w))))(flat)
    assert expected.shape == (4 * 3 + 3 * 2, 4)
    actual = eqx.filter_jit(PROBLEM.jacobian)(WEIGHTS)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-15)
