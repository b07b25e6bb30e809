"""Rows, their Jacobian, and the damped Gauss-Newton solve against dense linear algebra."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from bilo_ppl.least_squares import GaussNewton, LeastSquares, RowFamily, linearise

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


def damped(J, rows, damping):
    """min |J d - rows|^2 + damping * mean eigenvalue * |d|^2, by NumPy's dense least squares."""
    mean = np.sum(J**2) / min(J.shape)
    system = np.vstack([J, np.sqrt(damping * mean) * np.eye(J.shape[1])])
    return np.linalg.lstsq(system, np.append(rows, np.zeros(J.shape[1])), rcond=None)[0]


@pytest.mark.parametrize(("shape", "dual"), [((5, 12), True), ((12, 5), False), ((6, 6), True)])
@pytest.mark.parametrize("damping", [1e-12, 1e-3, 2.0])
def test_solve_equals_dense_tikhonov_least_squares(shape, dual, damping):
    rng = np.random.default_rng(0)
    J, rows = rng.normal(size=shape), rng.normal(size=shape[0])
    system = linearise(jnp.asarray(J))
    assert system.dual is dual
    np.testing.assert_allclose(system.scale, np.sum(J**2) / min(shape), rtol=1e-13)
    actual = system.solve(damping, jnp.asarray(rows))
    np.testing.assert_allclose(actual, damped(J, rows, damping), rtol=1e-7, atol=1e-9)


def test_without_damping_the_solution_has_minimum_norm():
    rng = np.random.default_rng(1)
    J, rows = rng.normal(size=(4, 9)), rng.normal(size=4)
    expected = np.linalg.pinv(J) @ rows
    actual = linearise(jnp.asarray(J)).solve(1e-15, jnp.asarray(rows))
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


@pytest.mark.parametrize("shape", [(6, 15), (15, 6)])
def test_single_precision_survives_an_ill_conditioned_jacobian(shape):
    """Condition number 1e6: that of the normal matrix, 1e12, is beyond single precision."""
    rng = np.random.default_rng(2)
    left, _ = np.linalg.qr(rng.normal(size=(shape[0], 6)))
    right, _ = np.linalg.qr(rng.normal(size=(shape[1], 6)))
    J = (left * np.logspace(0, -6, 6)) @ right.T
    rows = J @ rng.normal(size=shape[1])
    damping = 1e-9
    step = linearise(jnp.asarray(J, jnp.float32)).solve(damping, jnp.asarray(rows, jnp.float32))
    assert step.dtype == jnp.float32
    error = J @ step - J @ damped(J, rows, damping)
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(rows)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3)])
def test_solve_is_linear_in_the_rows_in_both_modes(shape):
    rng = np.random.default_rng(3)
    system = linearise(jnp.asarray(rng.normal(size=shape)))
    matrix = np.stack([system.solve(0.1, e) for e in jnp.eye(shape[0])], axis=1)
    rows = jnp.asarray(rng.normal(size=shape[0]))
    forward = jax.jacfwd(lambda r: system.solve(0.1, r))(rows)
    reverse = jax.jacrev(lambda r: system.solve(0.1, r))(rows)
    np.testing.assert_allclose(forward, matrix, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(reverse, matrix, rtol=1e-10, atol=1e-14)


def test_the_factor_is_that_of_the_smaller_normal_matrix():
    rng = np.random.default_rng(4)
    for shape in ((3, 8), (8, 3)):
        J = rng.normal(size=shape)
        system: GaussNewton = linearise(jnp.asarray(J))
        normal = J @ J.T if system.dual else J.T @ J
        np.testing.assert_allclose(system.R.T @ system.R, normal, rtol=1e-10, atol=1e-13)


def test_the_jacobian_is_a_constant():
    def first(scale):
        return linearise(scale * jnp.eye(2)).solve(0.1, jnp.ones(2))[0]

    assert jax.grad(first)(2.0) == 0.0
