"""The damped linear system of a Gauss-Newton step, dense and matrix-free."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bilo_ppl.inner import linearised
from bilo_ppl.inner.least_squares import LeastSquares, RowFamily
from bilo_ppl.inner.linearised import Dense, Gram, MatrixFree, linearise


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
    system = Dense(jnp.asarray(J))
    assert system.dual is dual
    np.testing.assert_allclose(system.scale, np.sum(J**2) / min(shape), rtol=1e-13)
    actual = system.solve(damping, jnp.asarray(rows))
    np.testing.assert_allclose(actual, damped(J, rows, damping), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("shape", "dual"), [((5, 12), True), ((12, 5), False)])
@pytest.mark.parametrize("damping", [1e-8, 1e-3, 2.0])
def test_a_normal_matrix_in_double_precision_solves_as_well(shape, dual, damping):
    rng = np.random.default_rng(0)
    J, rows = (rng.normal(size=n).astype(np.float32) for n in (shape, shape[0]))
    system = Gram(jnp.asarray(J))
    assert system.dual is dual
    actual = system.solve(damping, jnp.asarray(rows))
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, damped(J, rows, damping), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(system.apply(actual), J @ actual, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1100, 1200), (1300, 1025)])
def test_a_normal_matrix_is_made_by_halves(shape):
    J = jnp.asarray(np.random.default_rng(0).normal(size=shape))
    normal = np.asarray(Gram(J).normal)
    whole = np.asarray(J @ J.T if shape[0] <= shape[1] else J.T @ J)
    np.testing.assert_allclose(np.tril(normal), np.tril(whole), rtol=1e-9, atol=1e-9)
    assert (normal[0, -1], normal[-1, 0]) == (0.0, pytest.approx(whole[-1, 0]))


def test_damped_steps_of_single_precision_take_a_normal_matrix_where_it_is_large():
    def problem(dtype, count):
        items = jnp.linspace(0, 1, count, dtype=dtype)
        family = RowFamily(lambda w, x: {"r": jnp.atleast_1d(jnp.sum(w) * x)}, items, {})
        return LeastSquares((family,))

    size = linearised.GRAM_FROM
    weights = jnp.ones(size, jnp.float32)
    assert isinstance(linearise(problem(jnp.float32, size), weights, damped=True), Gram)
    assert isinstance(linearise(problem(jnp.float32, size), weights), Dense)
    assert isinstance(linearise(problem(jnp.float32, size - 1), weights, damped=True), Dense)
    double = weights.astype(jnp.float64)
    assert isinstance(linearise(problem(jnp.float64, size), double, damped=True), Dense)


def test_without_damping_the_solution_has_minimum_norm():
    rng = np.random.default_rng(1)
    J, rows = rng.normal(size=(4, 9)), rng.normal(size=4)
    expected = np.linalg.pinv(J) @ rows
    actual = Dense(jnp.asarray(J)).solve(1e-15, jnp.asarray(rows))
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
    step = Dense(jnp.asarray(J, jnp.float32)).solve(damping, jnp.asarray(rows, jnp.float32))
    assert step.dtype == jnp.float32
    error = J @ step - J @ damped(J, rows, damping)
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(rows)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3)])
def test_solve_is_linear_in_the_rows_in_both_modes(shape):
    rng = np.random.default_rng(3)
    system = Dense(jnp.asarray(rng.normal(size=shape)))
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
        system = Dense(jnp.asarray(J))
        normal = J @ J.T if system.dual else J.T @ J
        np.testing.assert_allclose(system.R.T @ system.R, normal, rtol=1e-10, atol=1e-13)


def test_the_jacobian_is_a_constant():
    def first(scale):
        return Dense(scale * jnp.eye(2)).solve(0.1, jnp.ones(2))[0]

    assert jax.grad(first)(2.0) == 0.0


def linear(J):
    """A problem whose rows are J w; one item, so that they are not scaled."""
    family = RowFamily(lambda w, item: {"r": item @ w}, jnp.asarray(J)[None], {})
    return LeastSquares((family,))


@pytest.mark.parametrize(("shape", "dual"), [((5, 12), True), ((12, 5), False)])
@pytest.mark.parametrize("damping", [1e-6, 1e-2])
def test_conjugate_gradients_find_the_dense_solution(shape, dual, damping):
    rng = np.random.default_rng(5)
    J, rows = rng.normal(size=shape), jnp.asarray(rng.normal(size=shape[0]))
    system = MatrixFree(linear(J), jnp.ones(shape[1]))
    assert system.dual is dual
    dense = Dense(jnp.asarray(J))
    unit = system.scale / dense.scale  # the trace is a random estimate
    assert 0.3 < unit < 3
    np.testing.assert_allclose(
        system.solve(damping / unit, rows), dense.solve(damping, rows), rtol=1e-5, atol=1e-7
    )
    step = jnp.asarray(rng.normal(size=shape[1]))
    np.testing.assert_allclose(system.apply(step), J @ step, rtol=1e-12)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3)])
def test_matrix_free_solve_is_linear_in_the_rows_in_both_modes(shape):
    rng = np.random.default_rng(6)
    system = MatrixFree(linear(rng.normal(size=shape)), jnp.ones(shape[1]))
    solve = eqx.filter_jit(lambda r: system.solve(0.1, r))
    matrix = np.stack([solve(e) for e in jnp.eye(shape[0])], axis=1)
    rows = jnp.asarray(rng.normal(size=shape[0]))
    np.testing.assert_allclose(jax.jacfwd(solve)(rows), matrix, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(jax.jacrev(solve)(rows), matrix, rtol=1e-6, atol=1e-8)


def test_batched_matrix_free_solves_are_those_one_by_one():
    rng = np.random.default_rng(7)
    J, rows = jnp.asarray(rng.normal(size=(3, 4, 9))), jnp.asarray(rng.normal(size=(3, 4)))

    def solve(J, rows):
        return MatrixFree(linear(J), jnp.ones(9)).solve(1e-3, rows)

    together = jax.jit(jax.vmap(solve))(J, rows)
    for i in range(3):
        np.testing.assert_allclose(together[i], solve(J[i], rows[i]), rtol=1e-6, atol=1e-9)


def test_matrix_free_precision_is_that_of_the_weights():
    J = jnp.asarray(np.random.default_rng(8).normal(size=(4, 9)), jnp.float32)
    system = MatrixFree(linear(J), jnp.ones(9, jnp.float32))
    step = system.solve(1e-3, jnp.ones(4, jnp.float32))
    assert step.dtype == jnp.float32
    np.testing.assert_allclose(system.apply(step), 1.0, atol=2e-2)


def test_large_systems_are_not_factored(monkeypatch):
    problem, weights = linear(np.ones((4, 9))), jnp.ones(9)
    assert isinstance(linearise(problem, weights), Dense)
    monkeypatch.setattr(linearised, "DENSE_UP_TO", 4**2 * 9 - 1)
    assert isinstance(linearise(problem, weights), MatrixFree)
