"""Damped steps by a sketch of the normal matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bilo_ppl.inner import linearised, sketched
from bilo_ppl.inner.least_squares import LeastSquares, RowFamily
from bilo_ppl.inner.linearised import Dense, Gram, MatrixFree, linearise
from bilo_ppl.inner.sketched import Sketched
from bilo_ppl.inner.solvers import LevenbergMarquardt, solve


def system(shape, seed=0, decay=1.0):
    """A Jacobian in single precision whose singular values fall from 1 by powers, and rows."""
    rng = np.random.default_rng(seed)
    k = min(shape)
    left, right = (np.linalg.qr(rng.normal(size=(n, k)))[0] for n in shape)
    J = left @ np.diag(np.arange(1, k + 1.0) ** -decay) @ right.T
    return jnp.asarray(J, jnp.float32), jnp.asarray(rng.normal(size=shape[0]), jnp.float32)


@pytest.mark.parametrize(("shape", "dual"), [((300, 500), True), ((500, 300), False)])
@pytest.mark.parametrize("damping", [1e-4, 1e-2, 1.0])
def test_a_step_is_that_of_the_damped_system(shape, dual, damping):
    J, rows = system(shape)
    made = Sketched(J)
    assert made.dual is dual
    np.testing.assert_allclose(made.scale, Dense(J).scale, rtol=1e-5)
    wanted = Gram(J).solve(damping, rows)
    found = jax.jit(lambda r: Sketched(J).solve(damping, r))(rows)
    np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())
    np.testing.assert_allclose(made.apply(found), J @ found, rtol=1e-6)


@pytest.mark.parametrize("shape", [(300, 500), (500, 300)])
def test_the_sketch_has_the_leading_eigenvalues(shape):
    J, _ = system(shape)
    values = Sketched(J).values
    exact = np.linalg.svd(J, compute_uv=False) ** 2
    np.testing.assert_allclose(values[:30], exact[:30], rtol=0.2)
    assert (np.diff(values) <= 0).all()


def test_the_sketch_is_what_makes_few_iterations_enough(monkeypatch):
    J, rows = system((300, 500), decay=2.0)
    damping = 1e-3
    wanted = Gram(J).solve(damping, rows)
    monkeypatch.setattr(sketched, "MOST", 6)

    def off(step):
        return float(jnp.linalg.norm(step - wanted) / jnp.linalg.norm(wanted))

    assert off(Sketched(J).solve(damping, rows)) < 1e-2
    monkeypatch.setattr(sketched, "RANK", 1)
    assert off(Sketched(J).solve(damping, rows)) > 0.1


def rows_of(weights, item):
    return {"r": jnp.atleast_1d(jnp.sin(item @ weights) - 0.3)}


def problem(items, size):
    x = np.random.default_rng(1).normal(size=(items, size)) / np.sqrt(size)
    return LeastSquares((RowFamily(rows_of, jnp.asarray(x, jnp.float32), {}),))


def test_only_large_steps_in_single_precision_are_sketched(monkeypatch):
    monkeypatch.setattr(linearised, "SKETCHED_FROM", 40)
    large, weights = problem(50, 60), jnp.zeros(60, jnp.float32)

    def kind(problem, weights, **options):
        return type(linearise(problem, weights, **options))

    assert kind(large, weights, damped=True, exact=False) is Sketched
    assert kind(large, weights, damped=True) is Dense
    assert kind(large, weights) is Dense
    assert kind(problem(30, 60), weights, damped=True, exact=False) is Dense
    assert kind(problem(80, 60), weights, damped=True, exact=False) is Dense
    assert kind(large, jnp.zeros(60), damped=True, exact=False) is Dense
    monkeypatch.setattr(linearised, "FORMED_UP_TO", 1000)
    assert kind(large, weights, damped=True, exact=False) is Dense
    monkeypatch.setattr(linearised, "DENSE_UP_TO", 1000)
    assert kind(large, weights, damped=True, exact=False) is MatrixFree


def test_levenberg_marquardt_takes_them(monkeypatch):
    large, weights = problem(60, 80), 0.1 * jnp.ones(80, jnp.float32)
    solver = LevenbergMarquardt(tolerance=1e-8, max_steps=30)
    exact = solve(solver, large, weights)
    monkeypatch.setattr(linearised, "SKETCHED_FROM", 40)
    made = []
    monkeypatch.setattr(
        linearised, "Sketched", lambda J: made.append(J.shape) or sketched.Sketched(J)
    )
    solve(solver, large, weights)
    assert not made
    found = solve(LevenbergMarquardt(1e-8, 30, sketched=True), large, weights)
    assert made == [(60, 80)]
    assert exact.converged
    assert found.converged
    assert abs(int(found.steps) - int(exact.steps)) <= 1
