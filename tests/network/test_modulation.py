"""Modulation of the features by theta, and the operator about a region of thetas."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bilo_ppl as bilo
from bilo_ppl.network.mlp import MLP
from bilo_ppl.network.modulation import (
    Modulation,
    close_modulations,
    is_modulated,
    open_modulations,
)
from bilo_ppl.network.trainable import count_parameters
from models import poisson

KEY = jax.random.key(3)
HOME = {"D": jnp.array(1.5)}
POINT = jnp.array([0.3])


class Region(poisson.Poisson):
    """D and a field f, of which the residual makes nothing."""

    parameters = ("D", "f")


@pytest.fixture(scope="module")
def operator():
    """Pretrained nowhere: random weights, home at D = 1.5, first guess D = 1."""
    made = bilo.LocalOperator(poisson.problem, {"D": 1.0}, key=KEY, width=8, dtype=np.float64)
    return eqx.tree_at(lambda o: o.home, made, HOME)


def set_modulations(module):
    matrices = [m.matrix.value for m in module.modulations]
    drawn = [jax.random.normal(jax.random.key(i), m.shape) for i, m in enumerate(matrices)]
    return eqx.tree_at(lambda n: [m.matrix.value for m in n.modulations], module, drawn)


def test_features_are_scaled_by_an_affine_function_of_theta():
    network = set_modulations(MLP(1, 1, width=3, depth=2, inputs=2, key=KEY, dtype=np.float64))
    x, e, t = jnp.array([0.4]), jnp.array([0.1, 0.0, -0.2]), jnp.array([0.5, -2.0])
    a, b, c = network.layers
    first, second = (np.asarray(m.matrix.value) for m in network.modulations)
    h = np.tanh(a(x) + e) * (1 + first @ t)
    h = np.tanh(b(h)) * (1 + second @ t)
    np.testing.assert_allclose(network(x, e, t), c(h), rtol=1e-13)
    np.testing.assert_array_equal(network(x, e), network(x, e, jnp.zeros(2)))
    assert np.all(network(x, e, t) != network(x, e))


def test_modulations_are_weights_only_when_open():
    network = MLP(1, 1, width=8, depth=2, inputs=3, key=KEY, dtype=np.float64)
    opened = open_modulations(network)
    assert count_parameters(opened) - count_parameters(network) == 2 * 8 * 3
    assert count_parameters(close_modulations(opened)) == count_parameters(network)
    assert not is_modulated(network)
    assert is_modulated(set_modulations(network))
    assert is_modulated(open_modulations(set_modulations(network)))
    assert all(isinstance(m, Modulation) for m in opened.modulations)


def test_only_a_fit_to_many_thetas_has_modulations_among_its_weights(operator):
    one, many = operator.with_lora(2, key=KEY), operator.with_lora(2, key=KEY, many=True)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(o.weights)) for o in (one, many)]
    assert sizes[1] - sizes[0] == 2 * 8
    back = many.with_lora(2, key=KEY)
    assert sum(leaf.size for leaf in jax.tree.leaves(back.weights)) == sizes[0]


def test_about_a_region_the_solution_at_home_stays(operator):
    thetas = {"D": jnp.array([1.5, 1.2, 1.9, 1.4])}
    moved = operator.about(thetas)
    np.testing.assert_allclose(moved(POINT, HOME), operator(POINT, HOME), rtol=1e-12)
    away = np.sqrt(np.mean((np.asarray(thetas["D"]) - 1.5) ** 2))
    t = moved.embedding.normalised(POINT, {"D": jnp.array(1.9)})
    np.testing.assert_allclose(t, [0.4 / away], rtol=1e-12)
    # What is left of the embedding at one unit of the region is a fifteenth.
    ratio = moved.embedding.matrix / operator.embedding.matrix
    np.testing.assert_allclose(ratio, 1 / 15, rtol=1e-12)


def test_about_leaves_fields_and_what_does_not_vary_alone():
    theta = {"D": 1.0, "f": lambda x: x[0]}
    operator = bilo.LocalOperator(Region(), theta, key=KEY, width=8, dtype=np.float64)
    moved = operator.about({"D": jnp.ones(3)})
    for name in ("D", "f"):
        assert moved.embedding.scale[name] == operator.embedding.scale[name]
        assert moved.embedding.centre[name] == operator.embedding.centre[name]
    np.testing.assert_array_equal(moved.embedding.matrix[:, 1], operator.embedding.matrix[:, 1])
    np.testing.assert_allclose(moved(POINT, theta), operator(POINT, theta), rtol=1e-12)


def test_an_operator_that_knows_a_region_keeps_its_units(operator):
    known = eqx.tree_at(lambda o: o.network, operator, set_modulations(operator.network))
    assert known.about({"D": jnp.array([1.0, 2.0])}) is known


def test_modulations_are_kept_in_a_file(operator, tmp_path):
    known = eqx.tree_at(lambda o: o.network, operator, set_modulations(operator.network))
    opened = known.with_lora(2, key=KEY, many=True)
    bilo.save_operator(tmp_path / "operator.eqx", opened)
    loaded = bilo.load_operator(tmp_path / "operator.eqx", poisson.problem)
    theta = {"D": 2.0}
    np.testing.assert_allclose(loaded(POINT, theta), known(POINT, theta), rtol=1e-12)
    assert not np.allclose(loaded(POINT, theta), operator(POINT, theta))


def test_between_the_thetas_of_a_fit_the_operator_is_as_right_as_at_them(small_operator):
    """An embedding of the size of the region would be wrong by four orders of magnitude there."""
    fine = bilo.FineTuned(
        small_operator.with_lora(2, key=KEY),
        bilo.LevenbergMarquardt(tolerance=1e-5, max_steps=10),
        bilo.ImplicitDifferentiation(),
    )
    fitted = jnp.geomspace(1 / 1.5, 1.5, 7)
    thetas = {"D": jnp.concatenate([jnp.ones(1), fitted])}
    wide, report = fine.fitted_to(thetas, rank=4, steps=60, key=KEY, progress=False)
    assert report.loss < 1e-6
    between = jnp.sqrt(fitted[1:] * fitted[:-1])
    losses = jax.vmap(lambda D: wide.loss_of_home_state({"D": D}))(between)
    assert np.max(losses) < 1e-5
