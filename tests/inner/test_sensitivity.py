"""Derivatives of the solution with respect to theta: closed forms, finite differences, both modes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bilo_ppl as bilo
from bilo_ppl.inner import linearised

X = np.linspace(0.1, 0.9, 5)[:, None]
SINES = np.sin(np.pi * X * [1, 2])


class Series(eqx.Module):
    """A field given by the coefficients of two modes, as a Karhunen-Loeve expansion is."""

    coefficients: Any

    def __call__(self, x):
        return jnp.sum(self.coefficients * jnp.sin(jnp.pi * jnp.arange(1, 3) * x[0]))


class Loaded(bilo.Problem):
    """-(a / 1e-3) u'' = (b / 1e5) (pi^2 c_0 sin(pi x) + 4 pi^2 c_1 sin(2 pi x)) + f(x).

    u = 1e-3 / a ((b / 1e5) (c_0 s_1 + c_1 s_2) + sum f_k s_k / (k pi)^2) with s_k = sin(k pi x).
    """

    parameters = ("a", "b", "c", "f")
    components = 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(17)

    def residual(self, u, x, theta):
        mode = jnp.arange(1, 3) * jnp.pi
        load = theta["b"] / 1e5 * jnp.sum(mode**2 * theta["c"] * jnp.sin(mode * x[0]))
        return theta["a"] / 1e-3 * bilo.laplacian(u)(x) + load + theta["f"](x)

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


THETA = {
    "a": jnp.array(1e-3),
    "b": jnp.array(1e5),
    "c": jnp.array([1.0, 0.3]),
    "f": Series(jnp.array([2.0, -1.0])),
}


def exact(theta):
    modes = (np.pi * np.arange(1, 3)) ** 2
    c = theta["b"] / 1e5 * theta["c"] + theta["f"].coefficients / modes
    return 1e-3 / theta["a"] * SINES @ c


@pytest.fixture(scope="module")
def loaded():
    """An operator of `Loaded`, pretrained at `THETA`."""
    return bilo.pretrain(
        Loaded(),
        THETA,
        key=jax.random.key(1),
        solver=bilo.LevenbergMarquardt(tolerance=1e-10, max_steps=200),
        sensitivity=bilo.ImplicitDifferentiation(),
        width=16,
        dtype=np.float64,
        progress=False,
    ).operator


def values_of(solution_operator):
    """u at the points X as a function of theta, solved from the stored weights."""

    def values(theta):
        field, _, _ = solution_operator.solve(theta, solution_operator.init_state())
        return jax.vmap(field)(X)

    return values


def implicit(operator, tolerance=1e-14, **options):
    solver = bilo.LevenbergMarquardt(tolerance=tolerance, max_steps=50)
    return bilo.FineTuned(operator, solver, bilo.ImplicitDifferentiation(**options))


@pytest.fixture(scope="module")
def forward(loaded):
    return jax.jit(jax.jacfwd(values_of(implicit(loaded))))(THETA)


def in_units(theta):
    return {"a": theta["a"] * 1e-3, "b": theta["b"] * 1e5, "c": theta["c"], "f": theta["f"]}


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_residual_gradient_gives_the_derivative_at_fixed_weights(tuned, mode):
    slope = jax.jit(mode(lambda D: values_of(tuned)({"D": D})))
    for D in (1.0, 1.3):
        np.testing.assert_allclose(slope(D), -np.sin(np.pi * X[:, 0]) / D**2, atol=1e-3)


def test_without_the_gradient_rows_the_partial_derivative_is_wrong(loaded):
    """That the previous two tests can fail: the same partial derivative, rows left out."""
    partial = jax.jit(jax.jacfwd(lambda theta: jax.vmap(loaded.field(theta))(X)))(THETA)
    truth = jax.jacfwd(exact)(THETA)
    assert np.max(np.abs(partial["b"] - truth["b"])) > 0.1 * np.max(np.abs(truth["b"]))


def test_implicit_derivative_is_that_of_the_closed_form(forward):
    truth = jax.jacfwd(exact)(THETA)
    for name, derivative in in_units(forward).items():
        leaf, expected = (
            getattr(d, "coefficients", d) for d in (derivative, in_units(truth)[name])
        )
        assert np.abs(expected).max() > 0.02
        np.testing.assert_allclose(leaf, expected, atol=0.01 * np.abs(expected).max())


def test_implicit_derivative_is_that_of_solutions_solved_again(loaded, forward):
    values = jax.jit(values_of(implicit(loaded)))
    directions = {
        "a": {**THETA, "a": jnp.array(1e-6)},
        "b": {**THETA, "b": jnp.array(1e2)},
        "c": {**THETA, "c": jnp.array([1e-3, -1e-3])},
        "f": {**THETA, "f": Series(jnp.array([2e-2, 1e-2]))},
    }
    for name, direction in directions.items():
        step = direction[name]
        ahead = {**THETA, name: jax.tree.map(lambda a, b: a + b, THETA[name], step)}
        behind = {**THETA, name: jax.tree.map(lambda a, b: a - b, THETA[name], step)}
        difference = (values(ahead) - values(behind)) / 2
        h, derivative = (getattr(d, "coefficients", d) for d in (step, forward[name]))
        expected = derivative * h if h.ndim == 0 else derivative @ h
        np.testing.assert_allclose(difference, expected, atol=0.01 * np.abs(expected).max())


def test_forward_and_reverse_mode_agree(loaded, forward):
    reverse = jax.jit(jax.jacrev(values_of(implicit(loaded))))(THETA)
    for one, other in zip(jax.tree.leaves(forward), jax.tree.leaves(reverse), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-7 * np.abs(other).max())


def test_single_precision(loaded):
    network = jax.tree.map(lambda w: w.astype(np.float32), loaded.network)
    embedding = jax.tree.map(lambda w: w.astype(np.float32), loaded.embedding)
    single = eqx.tree_at(lambda o: (o.network, o.embedding), loaded, (network, embedding))
    slope = jax.jit(jax.jacrev(values_of(implicit(single, tolerance=1e-4))))(THETA)
    expected = jax.jacfwd(exact)(THETA)["c"]
    np.testing.assert_allclose(slope["c"], expected, atol=0.05 * np.abs(expected).max())


def primitives(jaxpr):
    """Names of all primitives of a jaxpr, those of inner ones included."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr"),
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


def test_the_jacobian_is_computed_only_where_a_derivative_is_asked_for(loaded):
    solver = bilo.OptaxSolver(optax.adam(1e-3), tolerance=1e-8, max_steps=5)
    values = values_of(bilo.FineTuned(loaded, solver, bilo.ImplicitDifferentiation()))

    def factorisations(function):
        return list(primitives(jax.make_jaxpr(function)(THETA).jaxpr)).count("qr")

    assert factorisations(values) == 0
    gradient = jax.grad(lambda theta: jnp.sum(values(theta)))
    assert factorisations(gradient) == 2


def test_the_neural_adjoint_by_conjugate_gradients_is_that_of_the_factorisation(
    loaded, monkeypatch
):
    """Systems too large to factor have the same gradient, also under vmap."""

    def slope(b):
        return jnp.sum(values_of(implicit(loaded))({**THETA, "b": b}) ** 2)

    at = jnp.array([0.9e5, 1.1e5])
    factored = jax.jit(jax.vmap(jax.grad(slope)))(at)
    monkeypatch.setattr(linearised, "DENSE_UP_TO", 0)
    iterative = jax.jit(jax.vmap(jax.grad(lambda b: slope(b))))(at)
    np.testing.assert_allclose(iterative, factored, rtol=1e-2)
