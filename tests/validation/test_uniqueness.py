"""How far u can change within a tolerance, against eigenvalues of the equation."""

import math

import jax
import jax.numpy as jnp
import pytest

import bilo_ppl as bilo
from bilo_ppl.network.features import with_output_weights
from bilo_ppl.operators.random_features import random_features
from bilo_ppl.validation.uniqueness import loosest_change

TOLERANCE = 1e-4


class Heated(bilo.Problem):
    """r u'' = 1 with u = 0 at one end, and at the other one where ``fixed``."""

    fixed: bool

    parameters, components = ("r",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(101)

    def residual(self, u, x, theta):
        return theta["r"] * bilo.laplacian(u)(x) - 1

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw if self.fixed else x[0] * raw


def changed(problem, theta, held=False):
    """The rise of the loss and the root mean square of the change of u."""
    local = random_features(problem, theta, count=32, scale=1.5, key=jax.random.key(0))
    operator = bilo.OutputLayer(local, theta, tolerance=TOLERANCE)
    _, state, _ = operator.solve(theta, operator.init_state())
    change = loosest_change(operator, theta, state, held=held)
    rise = operator.loss_at(theta, state + change) - operator.loss_at(theta, state)
    before, after = (
        jax.vmap(with_output_weights(local, weights).field(theta))(problem.points)
        for weights in (state, state + change)
    )
    return float(rise), float(jnp.sqrt(jnp.mean((after - before) ** 2)))


@pytest.mark.parametrize("r", [1.0, 3.0])
def test_loosest_change_is_first_eigenfunction(r):
    # |r v''| = sqrt(tolerance) allows for v = sin(pi x) of the size sqrt(tolerance) / (r pi^2).
    rise, size = changed(Heated(True), {"r": r})
    assert rise == pytest.approx(TOLERANCE, rel=1e-3)
    assert size == pytest.approx(math.sqrt(TOLERANCE) / (r * math.pi**2), rel=0.01)


def test_forgotten_condition_leaves_u_free():
    # Any multiple of x may be added.
    assert changed(Heated(False), {"r": 1.0})[1] > 10


def test_u_held_at_the_ends_is_determined_again():
    # With v = 0 at both ends only the sine is left, as where the lift says so.
    free, held = (changed(Heated(False), {"r": 1.0}, held=held)[1] for held in (False, True))
    # They are held by rows, not exactly.
    assert held == pytest.approx(math.sqrt(TOLERANCE) / math.pi**2, rel=0.3)
    assert free > 1000 * held


def test_a_large_ridge_hides_no_forgotten_condition():
    problem, theta = Heated(False), {"r": 1.0}
    local = random_features(problem, theta, count=32, scale=1.5, key=jax.random.key(0))
    sizes = []
    for ridge in (1.0, 1e4):
        operator = bilo.OutputLayer(local, theta, tolerance=TOLERANCE, ridge=ridge)
        _, state, _ = operator.solve(theta, operator.init_state())
        change = with_output_weights(local, loosest_change(operator, theta, state))
        sizes.append(float(jnp.max(jnp.abs(jax.vmap(change.field(theta))(problem.points)))))
    assert sizes[1] > 0.5 * sizes[0] > 10
