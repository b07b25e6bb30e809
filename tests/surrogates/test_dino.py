import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bilo_ppl as bilo
from bilo_ppl._compile import jit_once
from bilo_ppl.surrogates import (
    DINO,
    derivative_errors,
    load_surrogate,
    relative_errors,
    save_surrogate,
    solve_all,
    solve_with_derivatives,
    train_dino,
)
from bilo_ppl.surrogates.reduced_basis import input_basis, output_basis

OPTIONS = {"steps": 2500, "progress": False, "width": 32, "depth": 2}


class Decay(bilo.Problem):
    """u'' = r u from a to 0: u = a sinh(sqrt(r) (1 - x)) / sinh(sqrt(r))."""

    parameters, components = ("a", "r"), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(21)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) - theta["r"] * u(x)

    def lift(self, x, raw, theta):
        return theta["a"] * (1 - x[0]) + x[0] * (1 - x[0]) * raw

    def boundary(self, theta):
        return np.array([[0.0], [1.0]]), jnp.stack([theta["a"], jnp.zeros_like(theta["a"])])


problem = Decay()
numerical = bilo.FiniteDifferences(problem, 201, theta={"a": 1.0, "r": 5.0})
grid = problem.domain.grid(65)


def thetas_of(count, seed):
    rng = np.random.default_rng(seed)
    return {"a": rng.uniform(0.5, 2.0, count), "r": rng.uniform(1.0, 30.0, count)}


@pytest.fixture(scope="module")
def few():
    return solve_with_derivatives(numerical, thetas_of(27, 0), grid, key=jax.random.key(0))


@pytest.fixture(scope="module")
def fresh():
    return solve_with_derivatives(numerical, thetas_of(100, 1), grid, key=jax.random.key(0))


@pytest.fixture(scope="module")
def trained(few):
    return train_dino(problem, few, key=jax.random.key(1), **OPTIONS)


def test_derivatives_are_those_of_the_solutions(few):
    """Against differences; each is in units of the sd of its number."""
    assert few.derivatives.changes.shape == (27, 2, 65, 1)
    moved = [
        few.thetas | {name: few.thetas[name] + side * few.thetas[name].std()}
        for name in ("a", "r")
        for side in (1e-4, -1e-4)
    ]
    together = {name: np.concatenate([thetas[name] for thetas in moved]) for name in ("a", "r")}
    found = solve_all(numerical, together, grid).values.reshape(2, 2, 27, 65, 1)
    wanted = (found[:, 0] - found[:, 1]) / 2e-4
    np.testing.assert_allclose(
        np.swapaxes(few.derivatives.changes, 0, 1), wanted, rtol=1e-5, atol=1e-8
    )


def test_it_is_right_in_distribution_with_its_derivatives(trained, fresh):
    """To what linear interpolation between 65 points allows there is room: the test is at the points."""
    errors = relative_errors(trained.surrogate, fresh)
    assert np.median(errors) < 0.005
    assert np.quantile(errors, 0.9) < 0.01
    assert np.median(derivative_errors(trained.surrogate, fresh)) < 0.02


def test_derivatives_make_the_derivatives_better(few, trained, fresh):
    """The same network, solutions and steps; what is left out is the derivatives' part of the loss."""
    without = train_dino(problem, few, key=jax.random.key(1), jacobian_weight=0.0, **OPTIONS)
    wanted, found = (np.median(derivative_errors(t.surrogate, fresh)) for t in (without, trained))
    assert found < 0.5 * wanted


def model(operator, x, y=None):
    theta = {
        "a": numpyro.sample("a", dist.Uniform(0.5, 2.0)),
        "r": numpyro.sample("r", dist.Uniform(1.0, 30.0)),
    }
    u = bilo.solution("u", operator, theta)
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), 0.1), obs=y)


def test_behind_solution_it_has_the_gradient_of_the_numerical_operator(trained):
    x = problem.domain.interior_grid(6)

    def energy(theta, operator):
        return numpyro.infer.util.log_density(model, (operator, x, np.full(4, 0.3)), {}, theta)[0]

    theta = {"a": jnp.array(1.3), "r": jnp.array(12.0)}

    @jit_once
    def known(operator):
        u = jax.vmap(operator.solve(theta, ())[0])(jnp.asarray(grid))
        return *jax.value_and_grad(energy)(theta, operator), u

    own, exact = known(trained.surrogate), known(numerical)
    assert float(own[0]) == pytest.approx(float(exact[0]), abs=0.05)
    for name, slope in exact[1].items():
        assert float(own[1][name]) == pytest.approx(float(slope), rel=0.03)
    np.testing.assert_allclose(own[2], exact[2], atol=0.01)


def test_a_file_gives_the_same_function(tmp_path, trained, fresh):
    path = tmp_path / "dino.eqx"
    save_surrogate(path, trained.surrogate)
    loaded = load_surrogate(path, problem)
    assert isinstance(loaded.network, DINO)
    np.testing.assert_array_equal(
        relative_errors(loaded, fresh), relative_errors(trained.surrogate, fresh)
    )


def test_bad_input_is_refused(few):
    options = {"key": jax.random.key(0), "steps": 1}
    with pytest.raises(ValueError, match="no derivatives in theta"):
        train_dino(problem, few._replace(derivatives=None), **options)
    with pytest.raises(ValueError, match="no tensor grid"):
        train_dino(problem, few._replace(points=few.points[::-1]), **options)
    with pytest.raises(ValueError, match="jacobian_weight is -1"):
        train_dino(problem, few, jacobian_weight=-1.0, **options)
    with pytest.raises(ValueError, match="rank 0"):
        train_dino(problem, few, rank=0, **options)
    same = {"a": np.ones(3), "r": np.full(3, 2.0)}
    with pytest.raises(ValueError, match="nothing to differentiate"):
        solve_with_derivatives(numerical, same, grid, key=jax.random.key(0))
    with pytest.raises(ValueError, match="directions is 0"):
        solve_with_derivatives(numerical, few.thetas, grid, key=jax.random.key(0), directions=0)


def test_unsolved_thetas_are_left_out_with_their_derivatives():
    partly = bilo.ClosedForm(
        problem, lambda x, theta: theta["a"] * x[0] * theta["r"], valid=lambda t: t["a"] < 2
    )
    thetas = {"a": np.array([1.0, 3.0, 1.5]), "r": np.array([1.0, 1.0, 4.0])}
    found = solve_with_derivatives(partly, thetas, problem.domain.grid(3), key=jax.random.key(0))
    assert (found.count, found.unsolved) == (2, 1)
    sd = thetas["a"].std()
    np.testing.assert_allclose(
        found.derivatives.changes[:, 0, :, 0], sd * np.array([[0, 0.5, 1], [0, 2, 4]]), rtol=1e-12
    )


def test_between_points_it_is_linear():
    """Two components on a plane with uneven axes: a bilinear function is met exactly."""
    axes = np.array([0.0, 0.2, 1.0]), np.array([-1.0, 0.0, 0.5, 2.0])
    x, y = np.meshgrid(*axes, indexing="ij")
    mean = np.stack([1 + x - 2 * y + x * y, 0 * x])
    modes = np.stack([[0 * x, y]])
    network = DINO(axes, np.eye(1), mean, modes, width=4, depth=1, key=jax.random.key(0))
    for at in ((0.1, -0.3), (0.2, 0.5), (0.9, 1.7), (0.0, -1.0), (1.0, 2.0)):
        found = network.value(jnp.array([3.0]), jnp.array(at))
        wanted = (1 + at[0] - 2 * at[1] + at[0] * at[1], 3 * at[1])
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    beyond = network.value(jnp.array([3.0]), jnp.array([2.0, 3.0]))
    np.testing.assert_allclose(beyond, (1 + 1 - 4 + 2, 6), atol=1e-5)


def test_modes_are_orthonormal_and_leave_little_out():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((30, 6)))[0].T
    values = 2 + rng.standard_normal((50, 6)) * 10.0 ** -np.arange(6) @ basis
    mean, modes, sds = output_basis(values, 64)
    np.testing.assert_allclose(modes @ modes.T, np.eye(len(modes)), atol=1e-12)
    coefficients = (values - mean) @ modes.T
    np.testing.assert_allclose(coefficients.std(axis=0), sds, rtol=1e-10)
    left = np.linalg.norm(values - mean - coefficients @ modes) / np.linalg.norm(values)
    assert len(modes) < 6
    assert left < 1e-4
    assert len(output_basis(values, 2)[1]) == 2
    with pytest.raises(ValueError, match="all solutions"):
        output_basis(np.ones((3, 4)), 8)


def test_inputs_are_those_that_matter():
    """40 correlated numbers, of which u depends on two combinations: random directions find them."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((40, 40))
    t = rng.standard_normal((3000, 40)) @ mix.T
    directions = np.einsum("nkj,ij->nki", rng.standard_normal((3000, 8, 40)), mix)
    slopes = rng.standard_normal((5, 2)) @ rng.standard_normal((2, 40))
    found = input_basis(t, directions, directions @ slopes.T, 2)
    assert found.shape == (2, 40)
    np.testing.assert_allclose(np.cov(found @ t.T), np.eye(2), atol=0.01)
    # What u changes by is a function of what is kept, but for the noise of so few directions.
    covariance = mix @ mix.T
    away = slopes - slopes @ covariance @ found.T @ found
    left_out, all_of_it = (np.trace(j @ covariance @ j.T) for j in (away, slopes))
    assert left_out < 0.05 * all_of_it
    with pytest.raises(ValueError, match="all thetas"):
        input_basis(np.ones((3, 2)), np.zeros((3, 1, 2)), np.zeros((3, 1, 1)), 2)


class Wave(eqx.Module):
    phases: jax.Array

    def __call__(self, x):
        return sum(jnp.sin((k + 1) * x[0] + self.phases[k]) for k in range(3))


def test_a_function_of_theta_is_learnt_along_random_directions():
    class Doubled(Decay):
        parameters = ("f",)

    own = Doubled()
    twice = bilo.ClosedForm(own, lambda x, theta: 2 * theta["f"](x))
    thetas = {"f": Wave(jax.random.uniform(jax.random.key(0), (60, 3), maxval=1.0))}
    solved = solve_with_derivatives(
        twice, thetas, own.domain.grid(17), key=jax.random.key(1), directions=2
    )
    assert solved.derivatives.changes.shape == (60, 2, 17, 1)
    # Directions have the spread of theta.
    along = solved.derivatives.directions["f"].phases
    sd = float(jnp.sqrt(jnp.mean(along**2)))
    assert sd == pytest.approx(float(jnp.std(thetas["f"].phases)), rel=0.15)
    found = train_dino(own, solved, key=jax.random.key(2), **{**OPTIONS, "steps": 300})
    assert found.median_error < 0.05
