"""The lower-level loss against the formulas of the papers, computed by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import bilo_ppl as bilo
from bilo_ppl.inner.lower_level import LowerLevel

THETA = {"a": 1.4, "b": jnp.array([0.3, 1.2])}
VALUES, SCALES = (1.4, 0.3, 1.2), (2.0, 0.5, 4.0)


class Reaction(bilo.Problem):
    """a u'' - b_0 u^2 + b_1 x = 0, with two kinds of soft conditions on request."""

    parameters = ("a", "b")
    components = 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(5)
    soft: bool = False

    def residual(self, u, x, theta):
        b = theta["b"]
        return theta["a"] * bilo.laplacian(u)(x) - b[0] * u(x) ** 2 + b[1] * x[0]

    def conditions(self, u, theta):
        if not self.soft:
            return {}
        slope = bilo.grad(u)(jnp.array([0.0]))[0]
        ends = jnp.stack([u(jnp.array([0.0])), u(jnp.array([1.0]))])
        return {"flux": slope - theta["a"], "ends": ends}


@pytest.fixture(scope="module")
def plain():
    start = {"a": 2.0, "b": jnp.array([0.5, 4.0])}
    key = jax.random.key(5)
    return bilo.LocalOperator(Reaction(), start, key=key, width=6, depth=1, dtype=np.float64)


@pytest.fixture(scope="module")
def soft(plain):
    return eqx.tree_at(lambda o: o.problem, plain, Reaction(soft=True))


@eqx.filter_jit
def terms_at(operator, sensitivity, theta=THETA, row_weights=None, weights=None):
    problem = LowerLevel(operator, sensitivity, row_weights or {}).at(theta)
    return problem.terms(operator.weights if weights is None else weights)


@eqx.filter_jit
def by_hand(operator):
    """mean r^2 and mean |s dr/dtheta|^2, with s the magnitudes of the first guess."""

    def residual(x, a, b0, b1):
        def u(x):
            return operator(x[None], {"a": a, "b": jnp.stack([b0, b1])})

        return a * jax.hessian(u)(x) - b0 * u(x) ** 2 + b1 * x

    def squares(x):
        gradient = jax.grad(residual, argnums=(1, 2, 3))(x, *VALUES)
        scaled = [(s * g) ** 2 for s, g in zip(SCALES, gradient, strict=True)]
        return residual(x, *VALUES) ** 2, sum(scaled)

    r, gradient = jax.vmap(squares)(jnp.linspace(0, 1, 5))
    return r.mean(), gradient.mean()


@pytest.mark.parametrize(("weight", "own"), [(0.1, 1.0), (0.5, 3.0)])
def test_loss_of_the_papers(plain, weight, own):
    residual, gradient = by_hand(plain)
    row_weights = {} if own == 1.0 else {"residual": own}
    terms = terms_at(plain, bilo.ResidualGradient(weight), row_weights=row_weights)
    assert terms.keys() == {"residual", "residual_gradient"}
    np.testing.assert_allclose(terms["residual"], own * residual, rtol=1e-11)
    np.testing.assert_allclose(terms["residual_gradient"], weight * own * gradient, rtol=1e-11)


def test_default_weight_is_that_of_the_papers():
    assert bilo.ResidualGradient().weight == 0.1


@pytest.mark.parametrize("kind", [bilo.ImplicitDifferentiation, bilo.PartialDerivative])
def test_other_sensitivities_have_the_residual_alone(plain, kind):
    terms = terms_at(plain, kind())
    assert terms.keys() == {"residual"}
    np.testing.assert_allclose(terms["residual"], by_hand(plain)[0], rtol=1e-11)


def test_weights_are_the_argument_and_not_the_stored_ones(plain):
    doubled = jax.tree.map(lambda w: 2 * w, plain.weights)
    terms = terms_at(plain, bilo.ImplicitDifferentiation(), weights=doubled)
    expected, _ = by_hand(plain.with_weights(doubled))
    np.testing.assert_allclose(terms["residual"], expected, rtol=1e-11)
    assert abs(terms["residual"] - by_hand(plain)[0]) > 1e-3


def test_conditions_are_rows_of_their_own(soft):
    terms = terms_at(soft, bilo.ResidualGradient(), row_weights={"flux": 2.0, "ends": 5.0})
    names = ("residual", "flux", "ends")
    assert terms.keys() == {*names, *(f"{name}_gradient" for name in names)}

    def ends(a, b0, b1):
        u = soft.field({"a": a, "b": jnp.stack([b0, b1])})
        return jnp.stack([u(jnp.zeros(1)), u(jnp.ones(1))])

    @jax.jit
    def expected():
        slope = jax.grad(lambda x: soft.field(THETA)(x[None]))(0.0) - 1.4
        return slope, ends(*VALUES), jax.jacfwd(ends, argnums=(0, 1, 2))(*VALUES)

    flux, values, gradient = expected()
    squares = sum(np.sum((s * g) ** 2) for s, g in zip(SCALES, gradient, strict=True))
    np.testing.assert_allclose(terms["flux"], 2 * flux**2, rtol=1e-11)
    np.testing.assert_allclose(terms["ends"], 5 * np.sum(values**2), rtol=1e-11)
    np.testing.assert_allclose(terms["ends_gradient"], 0.1 * 5 * squares, rtol=1e-11)
    residual, residual_gradient = by_hand(soft)
    np.testing.assert_allclose(terms["residual"], residual, rtol=1e-11)
    np.testing.assert_allclose(terms["residual_gradient"], 0.1 * residual_gradient, rtol=1e-11)


def test_jacobian_has_the_order_of_the_rows(soft):
    problem = LowerLevel(soft, bilo.ResidualGradient()).at(THETA)
    flat, unravel = ravel_pytree(soft.weights)
    direction = jax.random.normal(jax.random.key(0), flat.shape)

    @jax.jit
    def compare(flat):
        rows, forward = jax.jvp(lambda w: problem.rows(unravel(w)), (flat,), (direction,))
        return rows, forward, problem.jacobian(unravel(flat))

    rows, forward, jacobian = compare(flat)
    assert jacobian.shape == (5 * 4 + 3 * 4, flat.size)
    assert rows.shape == (5 * 4 + 3 * 4,)
    np.testing.assert_allclose(jacobian @ direction, forward, rtol=1e-9, atol=1e-10)


def test_many_thetas_are_averaged(soft):
    lower_level = LowerLevel(soft, bilo.ResidualGradient(), {"flux": 2.0, "ends": 5.0})
    many = {"a": jnp.array([1.4, 0.9, 2.0]), "b": jnp.array([[0.3, 1.2], [0.1, 1.0], [0.5, 0.7]])}

    @jax.jit
    def compare(weights):
        together = lower_level.at_many(many)
        alone = jax.vmap(lambda theta: lower_level.at(theta).terms(weights))(many)
        return together.terms(weights), together.loss(weights), alone

    terms, loss, alone = compare(soft.weights)
    assert len(terms) == 6
    assert terms.keys() == alone.keys()
    for name, value in terms.items():
        np.testing.assert_allclose(value, alone[name].mean(), rtol=1e-11)
    np.testing.assert_allclose(loss, sum(terms.values()), rtol=1e-12)


def test_theta_may_be_in_another_precision():
    operator = bilo.LocalOperator(Reaction(), THETA, key=jax.random.key(0), width=6)
    problem = LowerLevel(operator, bilo.ResidualGradient()).at(THETA)
    for function in (problem.rows, problem.jacobian):
        assert eqx.filter_eval_shape(function, operator.weights).dtype == np.float32
