"""Features and their derivatives at points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bilo_ppl as bilo
from bilo_ppl.network.features import Jets, blinded, features, taylor_value


class Square(bilo.Problem):
    parameters, components = ("k",), 1
    domain = bilo.Box((0.0, 1.0), (2.0, 4.0))
    points = domain.grid(3, 3)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) + theta["k"]


@pytest.fixture(scope="module")
def operator():
    made = bilo.LocalOperator(Square(), {"k": 1.0}, key=jax.random.key(0), width=5, dtype=float)
    return blinded(made)


def test_the_output_is_a_combination_of_the_features(operator):
    x, last = jnp.array([0.7, 2.0]), operator.network.layers[-1]
    seen = features(operator, x)
    by_features = last.weight @ seen[:-1] + last.bias * seen[-1]
    np.testing.assert_allclose(by_features[0], operator.field({"k": 1.0})(x), rtol=1e-12)


def test_every_derivative_is_kept_once(operator):
    jets = Jets.of(operator, Square.points, 3)
    assert jets.axes[:6] == ((), (0,), (1,), (0, 0), (0, 1), (1, 1))
    assert len(set(jets.axes)) == len(jets.axes) == 10
    x = jnp.asarray(Square.points[5])

    def seen(y):
        return features(operator, y)

    for number, axes in enumerate(jets.axes):
        wanted = bilo.partial(seen, *axes)(x) if axes else seen(x)
        np.testing.assert_allclose(jets.table[number, :, 5], wanted, atol=1e-12)


def test_a_taylor_polynomial_has_the_derivatives_that_it_is_made_of(operator):
    axes = Jets.of(operator, Square.points[:1], 4).axes
    jet = jax.random.normal(jax.random.key(0), (2, len(axes)))

    def u(step):
        return taylor_value(jet, axes, step)

    for number, along in enumerate(axes):
        found = bilo.partial(u, *along)(jnp.zeros(2)) if along else u(jnp.zeros(2))
        np.testing.assert_allclose(found, jet[:, number], atol=1e-12)
