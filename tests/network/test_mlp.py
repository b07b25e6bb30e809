"""The network: shapes, options, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bilo_ppl.network.mlp import MLP, Linear


def mlp(size_in=2, size_out=3, *, width=5, depth=2, dtype=np.float64, **options):
    key = jax.random.key(1)
    return MLP(size_in, size_out, width=width, depth=depth, key=key, dtype=dtype, **options)


X = jnp.array([0.3, -0.8])
E = jnp.linspace(-0.5, 0.5, 5)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_shapes(depth):
    network = mlp(depth=depth)
    shapes = [layer.weight.shape for layer in network.layers]
    assert shapes == [(5, 2), *[(5, 5)] * (depth - 1), (3, 5)]
    assert network(X, E).shape == (3,)


def test_value_is_the_formula():
    network = mlp()
    a, b, c = network.layers
    h = np.tanh(np.asarray(a.weight) @ X + E)
    expected = np.asarray(c.weight) @ np.tanh(np.asarray(b.weight) @ h)
    np.testing.assert_allclose(network(X, E), expected, rtol=1e-13)


def test_bias_is_added():
    layer = Linear(jnp.eye(2), jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(layer(jnp.array([3.0, 4.0])), [4.0, 6.0])


def test_residual_blocks_add_their_input():
    plain, blocks = mlp(), mlp(residual=True)
    a, b, c = blocks.layers
    h = jnp.tanh(a(X) + E)
    np.testing.assert_allclose(blocks(X, E) - plain(X, E), c.weight @ h, rtol=1e-12)
    np.testing.assert_allclose(blocks(X, E), c(jnp.tanh(b(h)) + h), rtol=1e-13)


def test_fourier_features_enter_as_sine_and_cosine():
    network = mlp(fourier=4, fourier_scale=3.0)
    assert network.frequencies.value.shape == (4, 2)
    assert network.layers[0].weight.shape == (5, 8)
    phase = np.asarray(network.frequencies.value) @ X
    a, b, c = network.layers
    h = jnp.tanh(a(jnp.concatenate([jnp.sin(phase), jnp.cos(phase)])) + E)
    np.testing.assert_allclose(network(X, E), c(jnp.tanh(b(h))), rtol=1e-13)


def test_fourier_scale_multiplies_the_frequencies():
    one, three = mlp(fourier=4), mlp(fourier=4, fourier_scale=3.0)
    np.testing.assert_allclose(three.frequencies.value, 3 * one.frequencies.value, rtol=1e-14)


def test_initial_weights_are_glorot_uniform():
    layer = Linear.glorot(100, 200, key=jax.random.key(0), dtype=np.float64)
    limit = np.sqrt(6 / 300)
    assert np.abs(layer.weight).max() <= limit
    np.testing.assert_allclose(np.std(layer.weight), limit / np.sqrt(3), rtol=0.02)
    assert not np.any(layer.bias)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision(dtype):
    network = mlp(fourier=3, dtype=dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(network)} == {np.dtype(dtype)}
    assert network(X.astype(dtype), E.astype(dtype)).dtype == dtype


@pytest.mark.parametrize("wrong", [{"width": 0}, {"depth": 0}, {"fourier": -1}])
def test_errors(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        mlp(**wrong)
