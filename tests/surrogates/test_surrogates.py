import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bilo_ppl as bilo
from bilo_ppl.surrogates import (
    FNO,
    TrainingSet,
    load_surrogate,
    prior_thetas,
    relative_errors,
    save_surrogate,
    solve_all,
    train_deeponet,
    train_fno,
)


class TwoTerms(bilo.Problem):
    """u = a sin(pi x) + x (1 - x) b^2, of which the lift has the factor x (1 - x)."""

    parameters, components = ("a", "b"), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(21)

    def residual(self, u, x, theta):
        return (
            bilo.laplacian(u)(x)
            + theta["a"] * jnp.pi**2 * jnp.sin(jnp.pi * x[0])
            + 2 * theta["b"] ** 2
        )

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


def formula(x, theta):
    return theta["a"] * jnp.sin(jnp.pi * x[0]) + x[0] * (1 - x[0]) * theta["b"] ** 2


problem = TwoTerms()
operator = bilo.ClosedForm(problem, formula, valid=lambda theta: theta["b"] < 2.8)


def model(operator, x, y=None):
    a = numpyro.sample("a", dist.Uniform(1.0, 2.0))
    b = numpyro.sample("b", dist.Uniform(1.0, 3.0))
    u = bilo.solution("u", operator, {"a": a, "b": b})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), 0.1), obs=y)


@pytest.fixture(scope="module")
def data():
    x = problem.domain.grid(5)
    thetas = prior_thetas(model, jax.random.key(0), 200, operator, x)
    return solve_all(operator, thetas, problem.domain.grid(33))


@pytest.fixture(scope="module")
def deeponet(data):
    return train_deeponet(
        problem,
        data,
        key=jax.random.key(1),
        steps=1500,
        progress=False,
        width=24,
        depth=2,
        terms=8,
    )


def test_thetas_are_from_the_prior_and_unsolved_ones_are_left_out(data):
    assert data.unsolved + data.count == 200
    assert 5 < data.unsolved < 40  # a tenth of the prior of b
    assert data.thetas["b"].max() < 2.8
    assert data.thetas["a"].mean() == pytest.approx(1.5, abs=0.1)
    wanted = jax.vmap(lambda x: formula(x, {n: v[3] for n, v in data.thetas.items()}))(data.points)
    np.testing.assert_allclose(data.values[3, :, 0], wanted, rtol=1e-12)


def test_nothing_solved_is_an_error():
    with pytest.raises(ValueError, match="none of the 2 thetas"):
        solve_all(operator, {"a": np.ones(2), "b": np.full(2, 3.0)}, data_points())


def data_points():
    return problem.domain.grid(3)


def test_deeponet_is_right_in_distribution_and_not_outside(data, deeponet):
    assert deeponet.median_error < 0.015
    far = solve_all(operator, {"a": np.full(3, 6.0), "b": np.full(3, 0.0)}, data.points)
    assert relative_errors(deeponet.surrogate, far).min() > 0.05


def test_fno_learns(data):
    """To one percent it takes ten times as many steps: see the slow test."""
    found = train_fno(
        problem,
        data,
        shape=(33,),
        key=jax.random.key(1),
        steps=300,
        progress=False,
        channels=8,
        modes=8,
        depth=2,
    )
    assert found.median_error < 0.15


def test_errors_are_relative_and_in_l2(data, deeponet):
    surrogate = deeponet.surrogate
    theta = {name: value[0] for name, value in data.thetas.items()}
    u = np.asarray(jax.vmap(surrogate.field(theta))(jnp.asarray(data.points)))
    wanted = np.linalg.norm(u - data.values[0, :, 0]) / np.linalg.norm(data.values[0, :, 0])
    assert relative_errors(surrogate, data)[0] == pytest.approx(wanted, rel=1e-5)


def test_behind_solution_it_has_a_gradient(deeponet):
    x, y = problem.domain.interior_grid(4), np.ones(2)

    def energy(a):
        values = {"a": a, "b": jnp.array(2.0)}
        return numpyro.infer.util.log_density(model, (deeponet.surrogate, x, y), {}, values)[0]

    step = 1e-3
    by_differences = (energy(1.5 + step) - energy(1.5 - step)) / (2 * step)
    assert float(jax.grad(energy)(1.5)) == pytest.approx(float(by_differences), rel=0.02)


def test_a_file_gives_the_same_function(tmp_path, data, deeponet):
    path = tmp_path / "surrogate.eqx"
    save_surrogate(path, deeponet.surrogate)
    loaded = load_surrogate(path, problem)
    np.testing.assert_array_equal(
        relative_errors(loaded, data), relative_errors(deeponet.surrogate, data)
    )

    class Other(TwoTerms):
        parameters = ("a", "c")

    with pytest.raises(ValueError, match="for the parameters"):
        load_surrogate(path, Other())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        load_surrogate(path, problem)


def test_a_function_is_seen_at_the_grid(tmp_path):
    """u is twice the function that is given: one channel, and a shift that an FNO must not mix up."""

    class Doubled(bilo.Problem):
        parameters, components = ("f",), 1
        domain = bilo.interval(0.0, 1.0)
        points = domain.grid(21)

        def residual(self, u, x, theta):
            return u(x) - 2 * theta["f"](x)

    class Wave(eqx.Module):
        phase: jax.Array

        def __call__(self, x):
            return jnp.sin(3 * x[0] + self.phase)

    own = Doubled()
    twice = bilo.ClosedForm(own, lambda x, theta: 2 * theta["f"](x))
    thetas = {"f": Wave(jnp.linspace(0, 6, 80))}
    solved = solve_all(twice, thetas, own.domain.grid(33))
    assert isinstance(solved, TrainingSet)
    found = train_fno(
        own,
        solved,
        shape=(33,),
        key=jax.random.key(0),
        steps=200,
        progress=False,
        channels=8,
        modes=6,
    )
    assert found.median_error < 0.2
    path = tmp_path / "fno.eqx"
    save_surrogate(path, found.surrogate)
    loaded = load_surrogate(path, own)
    np.testing.assert_array_equal(
        relative_errors(loaded, solved), relative_errors(found.surrogate, solved)
    )


def test_fno_in_the_plane_keeps_what_its_modes_can_hold():
    """With identity maps at entry and exit left to training, only shapes and modes are looked at."""
    network = FNO(
        (0, 0), (1, 2), (16, 12), 2, 1, channels=6, modes=4, depth=2, key=jax.random.key(0)
    )
    out = network.at(jnp.array([0.3, -1.0], jnp.float32))
    assert out.shape == (1, 16, 12)
    corner = network.value(out, jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(corner, out[:, -1, -1], rtol=1e-5)
    middle = network.value(out, jnp.array([0.5 / 15, 0.0]))
    np.testing.assert_allclose(middle, (out[:, 0, 0] + out[:, 1, 0]) / 2, rtol=1e-4)
    with pytest.raises(ValueError, match="no 9 modes"):
        FNO((0,), (1,), (16,), 2, 1, modes=9, key=jax.random.key(0))


@pytest.mark.slow
def test_gene_expression_is_learnt_to_one_percent():
    """In distribution, as the literature says: lambda in 200 to 800, mu in 4 to 16."""
    from models import gene_expression

    rng, problem = np.random.default_rng(0), gene_expression.problem
    thetas = {"lam": rng.uniform(200, 800, 400), "mu": rng.uniform(4, 16, 400)}
    solved = solve_all(gene_expression.reference(), thetas, problem.domain.grid(101))
    key = jax.random.key(0)
    deeponet = train_deeponet(problem, solved, key=key, steps=8000, progress=False)
    fno = train_fno(problem, solved, shape=(65,), key=key, steps=3000, progress=False)
    assert max(deeponet.median_error, fno.median_error) < 0.01
