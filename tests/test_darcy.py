"""Darcy flow: the equation, its data, and its density by finite volumes and by an output layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density

from bilo_ppl import LocalOperator, OutputLayer
from bilo_ppl.pde.checks import check_problem
from bilo_ppl.run.model_file import load_model
from models import darcy, darcy_estimate

WIDTH = 96


def permeability_by_hand(a, x, kind):
    """A, the double sum written out."""
    phi = sum(
        a[8 * (i - 1) + j - 1]
        * (np.pi**2 * (i**2 + j**2) + 9) ** -1
        * 2
        * np.cos(i * np.pi * x[0])
        * np.cos(j * np.pi * x[1])
        for i in range(1, 9)
        for j in range(1, 9)
    )
    return np.exp(phi) if kind is darcy.smooth else 3 + 9 / (1 + np.exp(-20 * phi))


@pytest.mark.parametrize("kind", [darcy.two_rocks, darcy.smooth])
def test_darcy_states_its_equation(kind):
    """For u = sin(pi x) y (1 - y); the flux is differentiated numerically."""
    a, problem, step = np.random.default_rng(3).normal(size=64), darcy.Darcy(kind), 1e-5

    def gradient(x):
        s, c = np.sin(np.pi * x[0]), np.cos(np.pi * x[0])
        return np.array([np.pi * c * x[1] * (1 - x[1]), s * (1 - 2 * x[1])])

    def flux(x, axis):
        return permeability_by_hand(a, x, kind) * gradient(x)[axis]

    def u(x):
        return jnp.sin(jnp.pi * x[0]) * x[1] * (1 - x[1])

    for x in np.random.default_rng(4).uniform(size=(3, 2)):
        ways = step * np.eye(2)
        wanted = 10 + sum(
            (flux(x + way, k) - flux(x - way, k)) / (2 * step) for k, way in enumerate(ways)
        )
        found = problem.residual(u, jnp.asarray(x), {"a": a})
        assert float(found) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("kind", [darcy.two_rocks, darcy.smooth])
def test_figures_of_darcy_show_the_permeability(kind):
    a, x = np.random.default_rng(3).normal(size=64), np.array([0.3, 0.8])
    (A,) = darcy.Darcy(kind).fields({"a": a}).values()
    assert float(A(x)) == pytest.approx(permeability_by_hand(a, x, kind))


def test_a_permeability_that_is_not_positive_is_refused():
    def shifted(phi):
        return phi - 1

    with pytest.raises(ValueError, match=r"A must be positive.* at 957 of 957 collocation points"):
        check_problem(darcy.Darcy(shifted), darcy.start)


def test_the_second_kind_has_a_model_file_of_its_own():
    file = load_model("darcy_smooth")
    assert file.problem.kind.__name__ == "smooth"
    first, second = file.observations(0), load_model("darcy").observations(0)
    np.testing.assert_array_equal(first.x, second.x)
    assert np.abs(first.y - second.y).max() > 0.05


def test_scores_of_an_estimate_are_those_of_the_truth_at_the_truth():
    found = darcy_estimate.scores(darcy_estimate.truth)
    assert found["accuracy"] == 1
    assert 1e-4 < found["misfit of u"] < 1e-2
    half = {"A": lambda x: jnp.where(x[0] > 0.5, 12.0, 3.0)}
    other = darcy_estimate.scores(half)
    assert 0.4 < other["accuracy"] < 0.95
    assert other["misfit of u"] > 0.05


def test_darcy_leaves_out_the_corners():
    for problem in (darcy.Darcy(n=5), darcy_estimate.DarcyEstimate(n=5)):
        points = {tuple(p) for p in problem.points}
        assert len(points) == 21
        assert not points & {(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)}


@pytest.fixture(scope="module")
def darcy_by_output_layer():
    """Random features; depth 1, so that their derivatives are quickly compiled."""
    local = LocalOperator(
        darcy.Darcy(n=15), darcy.start, key=jax.random.key(0), width=WIDTH, depth=1, embedded=()
    )
    drawn = np.random.default_rng(1).normal(size=(WIDTH, 3))
    local = eqx.tree_at(
        lambda o: (o.network.layers[0].weight, o.network.layers[0].bias),
        local,
        (jnp.asarray(2 * drawn[:, :2], local.dtype), jnp.asarray(drawn[:, 2], local.dtype)),
    )
    return OutputLayer(local, darcy.start, tolerance=100.0)


def test_finite_volumes_and_output_layer_agree_on_darcy(darcy_by_output_layer):
    a, x = np.random.default_rng(5).normal(size=64), darcy.problem.domain.interior_grid(7, 7)
    operators = darcy.reference(cells=32), darcy_by_output_layer
    one, two = (jax.vmap(op.solve({"a": a}, op.init_state())[0])(x) for op in operators)
    assert float(jnp.abs(one).max()) > 0.05
    np.testing.assert_allclose(one, two, atol=0.02 * float(jnp.abs(one).max()))


def test_the_density_of_darcy_by_an_output_layer_has_the_right_gradient(darcy_by_output_layer):
    """Also where the rows leave a loss; against central differences."""
    data = darcy.synthetic_data(0)
    args = (darcy_by_output_layer, *data.values())

    @jax.jit
    @jax.value_and_grad
    def density(a):
        return log_density(darcy.model, args, {}, {"a": a})[0]

    at, way = np.random.default_rng(6).normal(size=(2, 64))
    numeric = float(density(at + 1e-5 * way)[0] - density(at - 1e-5 * way)[0]) / 2e-5
    assert float(density(at)[1] @ way) == pytest.approx(numeric, rel=1e-5)


def test_darcy_estimate_has_two_rocks():
    """A Gaussian field of sd 1 and length 0.2 is positive on half of the square, on the average."""
    points = np.random.default_rng(0).uniform(size=(400, 2))
    values = np.asarray(jax.vmap(darcy_estimate.two_rocks)(points))
    assert set(np.unique(values)) == {3.0, 12.0}
    assert 0.2 < np.mean(values == 12) < 0.8
    far = np.array([0.0, 0.0]), np.array([0.2, 0.0])
    waves = [darcy_estimate.field_of_waves(seed) for seed in range(300)]
    drawn = np.array([[float(phi(x)) for x in far] for phi in waves])
    np.testing.assert_allclose(np.cov(drawn.T), [[1, 0.6065], [0.6065, 1]], atol=0.2)


@pytest.mark.parametrize("module", [darcy, pytest.param(darcy_estimate, marks=pytest.mark.slow)])
def test_the_data_of_darcy_come_from_a_fine_grid(module):
    """They differ from the grid of inference by its error, and by nothing else."""
    data = module.synthetic_data(0, noise=0.0)
    u, _, info = module.reference(32).solve(module.truth, ())
    assert info.converged
    error = np.abs(jax.vmap(u)(data["x"]) - data["y"]).max() / np.abs(data["y"]).max()
    assert 1e-4 < error < (3e-3 if module is darcy else 3e-2)
