"""Low-rank increments: what they change, what they leave, and what may be trained."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.network.lora import LowRankLinear, add_lora, merge_lora
from bilo_ppl.network.mlp import MLP, Linear
from bilo_ppl.network.trainable import count_parameters, trainable
from models import poisson

X = jnp.array([0.3])
KEY = jax.random.key(7)


def mlp(width=12, depth=3, **options):
    return MLP(1, 1, width=width, depth=depth, key=jax.random.key(0), dtype=np.float64, **options)


def evaluate(network):
    return network(X, jnp.linspace(-1, 1, 12))


def moved(module, amount=0.1):
    """The module with every trainable weight moved."""
    free = eqx.filter(module, trainable(module))
    return eqx.combine(jax.tree.map(lambda w: w + amount, free), module)


def test_increment_starts_at_zero():
    network = mlp()
    np.testing.assert_array_equal(evaluate(add_lora(network, 2, key=KEY)), evaluate(network))


def test_increment_reaches_the_value():
    adapted = add_lora(mlp(), 2, key=KEY)
    assert abs(evaluate(moved(adapted)) - evaluate(adapted)) > 1e-3


@pytest.mark.parametrize("rank", [1, 3])
def test_merged_equals_unmerged(rank):
    adapted = moved(add_lora(mlp(), rank, key=KEY))
    merged = merge_lora(adapted)
    assert all(isinstance(layer, Linear) for layer in merged.layers)
    np.testing.assert_allclose(evaluate(merged), evaluate(adapted), rtol=1e-13)


def test_increment_has_the_rank():
    network = mlp()
    adapted = add_lora(network, 2, key=KEY)
    B = jax.random.normal(KEY, adapted.layers[1].B.shape)
    merged = merge_lora(eqx.tree_at(lambda n: n.layers[1].B, adapted, B))
    change = merged.layers[1].weight - network.layers[1].weight
    assert np.linalg.matrix_rank(change) == 2


def test_only_layers_that_shrink_get_an_increment():
    kinds = [type(layer) for layer in add_lora(mlp(), 2, key=KEY).layers]
    assert kinds == [Linear, LowRankLinear, LowRankLinear, Linear]


def test_layers_get_different_increments():
    _, first, second, _ = add_lora(mlp(), 2, key=KEY).layers
    assert not np.allclose(first.A, second.A)


def test_filter_freezes_the_base():
    network = mlp()
    after = moved(add_lora(network, 2, key=KEY))
    for layer, original in zip(after.layers[1:3], network.layers[1:3], strict=True):
        np.testing.assert_array_equal(layer.base.value, original.weight)
        np.testing.assert_allclose(layer.bias - original.bias, 0.1)


def test_filter_freezes_frequencies_and_embedding():
    operator = LocalOperator(poisson.problem, {"D": 2.0}, key=KEY, width=8, fourier=3)
    weights = jax.tree.map(lambda w: w + 0.1, operator.weights)
    after = operator.with_weights(weights)
    np.testing.assert_array_equal(
        after.network.frequencies.value, operator.network.frequencies.value
    )
    for one, other in zip(
        jax.tree.leaves(after.embedding), jax.tree.leaves(operator.embedding), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert np.all(after.network.layers[0].weight != operator.network.layers[0].weight)


@pytest.mark.parametrize(("width", "depth", "rank"), [(12, 3, 2), (12, 2, 4), (10, 4, 1)])
def test_number_of_trainable_weights(width, depth, rank):
    network = mlp(width, depth)
    hidden, ends = depth - 1, 2 * width + width + 1
    assert count_parameters(network) == ends + hidden * (width**2 + width)
    adapted = add_lora(network, rank, key=KEY)
    assert count_parameters(adapted) == ends + hidden * (2 * rank * width + width)


def test_single_precision_is_kept():
    network = MLP(1, 1, width=8, depth=2, key=KEY, dtype=np.float32)
    adapted = add_lora(network, 2, key=KEY)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((adapted, merge_lora(adapted)))}
    assert dtypes == {np.dtype(np.float32)}


@pytest.mark.parametrize("rank", [0, -1, 13])
def test_rank_out_of_range(rank):
    with pytest.raises(ValueError, match=f"rank {rank} is not between 1 and 12"):
        add_lora(mlp(), rank, key=KEY)


def test_rank_larger_than_the_smaller_side_of_one_layer():
    layer = Linear.glorot(3, 8, key=KEY, dtype=np.float64)
    with pytest.raises(ValueError, match=r"rank 4 is not between 1 and 3.*8 x 3 layer"):
        LowRankLinear(layer, 4, key=KEY)


def test_adding_twice():
    adapted = add_lora(mlp(), 2, key=KEY)
    with pytest.raises(ValueError, match="already; merge_lora"):
        add_lora(adapted, 2, key=KEY)
