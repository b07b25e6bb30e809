"""The local operator: exact boundary values, the embedding of theta, precision, and its weights."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bilo_ppl as bilo
from models import nonlinear_poisson, poisson

KEY = jax.random.key(3)


class Field(eqx.Module):
    slope: Any

    def __call__(self, x):
        return self.slope * x[0]


class Several(bilo.Problem):
    """A system of two components whose parameters have very different scales."""

    parameters = ("small", "large", "vector", "f")
    components = 2
    domain = bilo.Box((0.0, 0.0), (1.0, 4.0))
    points = domain.grid(4, 4)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x)

    def lift(self, x, raw, theta):
        return jnp.array([theta["large"], 1.0]) + x[0] * raw


THETA = {
    "small": 1e-3,
    "large": 1e5,
    "vector": jnp.array([2.0, 0.0, -4.0]),
    "f": Field(jnp.array(3.0)),
}
POINT = jnp.array([0.5, 1.0])


@pytest.fixture(scope="module")
def several():
    return bilo.LocalOperator(Several(), THETA, key=KEY, width=8, dtype=np.float64)


def scrambled(operator):
    """The operator with large random weights everywhere."""
    leaves, structure = jax.tree.flatten(operator.weights)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    leaves = [3 * jax.random.normal(k, w.shape, w.dtype) for k, w in zip(keys, leaves, strict=True)]
    return operator.with_weights(jax.tree.unflatten(structure, leaves))


@pytest.mark.parametrize("module", [poisson, nonlinear_poisson])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lift_keeps_boundary_values_whatever_the_weights(module, dtype):
    operator = bilo.LocalOperator(module.problem, module.start, key=KEY, width=8, dtype=dtype)
    u = scrambled(operator).field(module.start)
    ends, values = module.problem.boundary(module.start)
    points = np.concatenate([ends, module.problem.points[10:20]]).astype(dtype)
    actual = jax.jit(jax.vmap(u))(points)
    np.testing.assert_allclose(actual[:2], values, atol=20 * np.finfo(dtype).eps)
    assert np.ptp(actual[2:]) > 0.01


def test_lift_with_an_unknown_boundary_value(several):
    u = scrambled(several).field({**THETA, "large": 7.0})
    np.testing.assert_allclose(u(jnp.array([0.0, 2.0])), [7.0, 1.0])


def test_embedding_is_zero_at_the_first_guess(several):
    at_mean = jnp.array([0.5, 2.0])
    np.testing.assert_allclose(
        several.embedding.normalised(at_mean, THETA), np.zeros(6), atol=1e-14
    )


@pytest.mark.parametrize(
    ("name", "value", "entry"),
    [
        ("small", 1.5e-3, 0),
        ("large", 1.5e5, 1),
        ("vector", jnp.array([2.0, 0.0, -6.0]), 4),
        ("vector", jnp.array([2.0, 0.5, -4.0]), 3),
    ],
)
def test_a_change_by_half_the_scale_moves_one_input_by_one_half(several, name, value, entry):
    moved = several.embedding.normalised(jnp.array([0.5, 2.0]), {**THETA, name: value})
    expected = np.zeros(6)
    expected[entry] = -0.5 if entry == 4 else 0.5
    np.testing.assert_allclose(moved, expected, atol=1e-12)


def test_a_field_enters_by_its_value_at_the_point(several):
    moved = several.embedding.normalised(jnp.array([1.0, 0.0]), THETA)
    np.testing.assert_allclose(moved[-1], (3.0 - 1.5) / np.sqrt(3.5), rtol=1e-14)


def test_the_scale_of_a_field_is_its_root_mean_square():
    """Its mean, which is next to zero here, would blow the field up in the network's eyes."""

    def field(x):
        return jnp.cos(jnp.pi * x[0])

    operator = bilo.LocalOperator(Several(), {**THETA, "f": field}, key=KEY, width=8)
    values = np.cos(np.pi * np.asarray(Several().points)[:, 0])
    assert abs(values.mean()) < 1e-6
    np.testing.assert_allclose(operator.embedding.scale["f"], np.std(values), rtol=1e-6)


def test_given_scales_take_the_place_of_the_first_guess():
    scales = {"small": 1e-2, "vector": np.array([1.0, 2.0, 4.0])}
    operator = bilo.LocalOperator(
        Several(), THETA, key=KEY, width=8, scales=scales, dtype=np.float64
    )
    theta = {**THETA, "small": 2e-3, "vector": jnp.array([3.0, 1.0, -3.0])}
    moved = operator.embedding.normalised(jnp.array([0.5, 2.0]), theta)
    np.testing.assert_allclose(moved, [0.1, 0.0, 1.0, 0.5, 0.25, 0.0], atol=1e-14)


def test_network_sees_only_the_embedded_entries():
    operator = bilo.LocalOperator(
        Several(), THETA, key=KEY, width=8, embedded=("small",), dtype=np.float64
    )
    assert operator.embedding.matrix.shape == (8, 1)
    u, same = operator.field(THETA), operator.field({**THETA, "vector": jnp.ones(3)})
    np.testing.assert_array_equal(u(POINT), same(POINT))
    assert np.all(operator.field({**THETA, "small": 2e-3})(POINT) != u(POINT))


def test_value_is_the_lifted_network(several):
    e = several.embedding.matrix @ several.embedding.normalised(POINT, THETA)
    raw = several.network(jnp.array([0.0, -0.5]), e)
    expected = np.array([1e5, 1.0]) + 0.5 * raw
    np.testing.assert_allclose(several(POINT, THETA), expected, rtol=1e-14)


def test_weights_round_trip(several):
    other = scrambled(several)
    back = other.with_weights(several.weights)
    np.testing.assert_array_equal(back(POINT, THETA), several(POINT, THETA))
    assert np.all(other(POINT, THETA)[1] != several(POINT, THETA)[1])


def test_with_lora_keeps_the_function_and_back(several):
    adapted = several.with_lora(2, key=KEY)
    assert (several.rank, adapted.rank) == (0, 2)
    np.testing.assert_array_equal(adapted(POINT, THETA), several(POINT, THETA))
    adapted = scrambled(adapted)
    for rank in (0, 1, 2):
        again = adapted.with_lora(rank, key=KEY)
        assert again.rank == rank
        np.testing.assert_allclose(again(POINT, THETA), adapted(POINT, THETA), rtol=1e-12)


def test_single_precision_stays_single_under_x64():
    operator = bilo.LocalOperator(Several(), THETA, key=KEY, width=8, fourier=2)
    assert operator.dtype == np.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((operator.network, operator.embedding))} == {
        np.dtype(np.float32)
    }
    theta = {**THETA, "small": jnp.array(1e-3)}
    u = operator.field(theta)
    for field in (u, lambda x: operator(x, theta), bilo.laplacian(u)):
        assert jax.eval_shape(field, POINT.astype(np.float32)).dtype == np.float32
    assert jax.eval_shape(u, POINT).dtype == np.float32


def test_a_scalar_point_in_one_dimension(small_operator):
    u = small_operator.field({"D": 1.0})
    assert u(0.3) == u(jnp.array([0.3]))
    assert u(0.3).shape == ()
    np.testing.assert_allclose(u(0.3), np.sin(0.3 * np.pi), atol=1e-3)


@pytest.mark.parametrize("options", [{"embedded": ("k",)}, {"scales": {"k": 1.0}}])
def test_unknown_names_are_an_error(options):
    with pytest.raises(ValueError, match=r"\['k'\] in embedded or scales.*\['D'\]"):
        bilo.LocalOperator(poisson.problem, {"D": 1.0}, key=KEY, **options)


def test_wrong_theta_is_an_error():
    with pytest.raises(ValueError, match=r"missing \['D'\], unknown \['k'\]"):
        bilo.LocalOperator(poisson.problem, {"k": 1.0}, key=KEY)
