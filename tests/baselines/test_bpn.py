import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bilo_ppl.baselines import broyden_solve, fit_bpn, hypergradient

RNG = np.random.default_rng(0)
HALF = RNG.normal(size=(5, 5))
HESSIAN = jnp.asarray(HALF @ HALF.T + np.eye(5))
MAP, WANTED = jnp.asarray(RNG.normal(size=(5, 2))), jnp.asarray(RNG.normal(size=5))


def lower(weights, theta):
    """Smallest at w = M t."""
    off = weights - MAP @ theta["t"]
    return 0.5 * off @ HESSIAN @ off


def upper(weights, theta):
    return 0.5 * jnp.sum((weights - WANTED) ** 2) + 0.1 * jnp.sum(theta["t"] ** 2)


def test_broyden_solves_a_linear_system():
    right = jnp.arange(1.0, 6.0)
    exact = np.linalg.solve(HESSIAN, right)
    found = broyden_solve(lambda v: HESSIAN @ v, right, 12)
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    # With fewer steps it is the best on the way, never worse than nothing.
    few = broyden_solve(lambda v: HESSIAN @ v, right, 1)
    assert np.linalg.norm(HESSIAN @ few - right) < np.linalg.norm(right)


def test_hypergradient_is_that_of_the_reduced_problem():
    theta = {"t": jnp.array([0.3, -0.7])}
    found = hypergradient(lower, upper, MAP @ theta["t"], theta, 12)
    wanted = jax.grad(lambda t: upper(MAP @ t, {"t": t}))(theta["t"])
    np.testing.assert_allclose(found["t"], wanted, rtol=1e-6)


def test_the_bilevel_minimum_is_found():
    exact = np.linalg.solve(MAP.T @ MAP + 0.2 * np.eye(2), MAP.T @ WANTED)
    found = fit_bpn(
        lower,
        upper,
        jnp.zeros(5),
        {"t": jnp.zeros(2)},
        outer=150,
        inner=50,
        broyden=8,
        inner_rate=0.02,
    )
    np.testing.assert_allclose(found.thetas["t"][-1], exact, atol=0.02)
    assert found.thetas["t"].shape == (151, 2)
    assert found.upper.shape == found.lower.shape == (150,)
    first = found.inner_steps({"t": exact}, 0.5)
    near = np.linalg.norm(found.thetas["t"] - exact, axis=1) < 0.5
    assert first == 50 * int(np.argmax(near)) > 0
    assert found.inner_steps({"t": exact + 100}, 0.5) is None


def test_no_steps_is_refused():
    with pytest.raises(ValueError, match="broyden is 0"):
        fit_bpn(lower, upper, jnp.zeros(5), {"t": jnp.zeros(2)}, outer=1, broyden=0)


@pytest.mark.slow
def test_the_boundary_toy_takes_as_many_inner_iterations_as_published():
    """1728, to a factor of two: 27 outer iterations of 64."""
    from benchmarks.bpn import ERROR, run
    from models import boundary_toy

    found = run(0).inner_steps(boundary_toy.truth, ERROR)
    assert found is not None
    assert 1728 / 2 <= found <= 2 * 1728
