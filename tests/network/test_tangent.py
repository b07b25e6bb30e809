"""The operator with a linear correction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import bilo_ppl as bilo
from models import poisson

HOME, OTHER = {"D": jnp.array(1.5)}, {"D": jnp.array(1.7)}
POINTS = jnp.linspace(0.1, 0.9, 5)[:, None]


@pytest.fixture(scope="module")
def operator():
    """Random weights."""
    key = jax.random.key(3)
    return bilo.LocalOperator(poisson.problem, {"D": 1.0}, key=key, width=8, dtype=np.float64)


def values(operator, theta):
    return jax.vmap(operator.field(theta))(POINTS)


def stepped(operator, scale):
    """The operator corrected at `HOME`, and what a step of its weights does to the old one, per unit."""
    flat, unravel = ravel_pytree(operator.weights)
    step = unravel(jnp.asarray(np.random.default_rng(0).normal(size=flat.shape)))
    tangent = operator.tangent(HOME)
    scaled = jax.tree.map(lambda leaf: scale * leaf, step)
    weights = jax.tree.unflatten(jax.tree.structure(tangent.weights), jax.tree.leaves(scaled))

    def moved(w):
        return values(operator.with_weights(w), HOME)

    change = jax.jvp(moved, (operator.weights,), (step,))[1]
    return tangent.with_weights(weights), change


def test_without_a_step_it_is_the_same_function(operator):
    tangent = operator.tangent(HOME)
    assert ravel_pytree(tangent.weights)[0].size == ravel_pytree(operator.weights)[0].size
    for theta in (HOME, OTHER):
        np.testing.assert_array_equal(values(tangent, theta), values(operator, theta))


@pytest.mark.parametrize("theta", [HOME, OTHER])
@pytest.mark.parametrize("scale", [1e-3, 30.0])
def test_the_correction_is_linear_and_the_same_for_every_theta(operator, theta, scale):
    corrected, change = stepped(operator, scale)
    found = values(corrected, theta) - values(operator, theta)
    np.testing.assert_allclose(found, scale * change, rtol=1e-8, atol=1e-12)


def test_increments_and_modulations_are_corrected_alike(operator):
    wide = operator.about({"D": jnp.array([1.4, 1.6])}).with_lora(
        2, key=jax.random.key(1), many=True
    )
    corrected, change = stepped(wide, 0.1)
    np.testing.assert_allclose(
        values(corrected, OTHER) - values(wide, OTHER), 0.1 * change, rtol=1e-8, atol=1e-12
    )
