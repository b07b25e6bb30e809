"""Checks of a problem's definition: what is right passes, what is wrong is named."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Shaped, jaxtyped

import bilo_ppl as bilo
from bilo_ppl.pde.checks import check_problem
from bilo_ppl.pde.theta import check_theta, theta_as
from models import heat_initial, nonlinear_poisson, poisson


class Source(eqx.Module):
    coefficients: Any

    def __call__(self, x):
        k = jnp.arange(1, 1 + len(self.coefficients))
        return jnp.sum(self.coefficients * jnp.sin(k * jnp.pi * x[0]))


class FromSource(bilo.Problem):
    parameters = ("f",)
    components = 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(9)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) + theta["f"](x)


class Oscillator(bilo.Problem):
    """u' = v, v' = -w u with u(0) = a, v(0) = 1: two components, an unknown initial value."""

    parameters = ("w", "a")
    components = 2
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(9)

    def residual(self, u, x, theta):
        rate = bilo.partial(u, 0)(x)
        return jnp.stack([rate[0] - u(x)[1], rate[1] + theta["w"] * u(x)[0]])

    def lift(self, x, raw, theta):
        return jnp.stack([theta["a"], jnp.ones_like(x[0])]) + x[0] * raw

    def boundary(self, theta):
        return np.zeros((1, 1)), np.array([[float(theta["a"]), 1.0]])


class Adjustable(bilo.Problem):
    """Poisson's equation with each part to be replaced by a wrong one."""

    parameters: tuple = ("D",)
    components: int = 1
    domain: bilo.Box = bilo.interval(0.0, 1.0)
    points: Any = eqx.field(default_factory=lambda: bilo.interval(0.0, 1.0).grid(9))
    wrong_residual: Any = None
    wrong_lift: Any = None
    ends: Any = (np.array([[0.0], [1.0]]), np.zeros(2))

    def residual(self, u, x, theta):
        value = theta["D"] * bilo.laplacian(u)(x) + 1.0
        return self.wrong_residual(value, x) if self.wrong_residual else value

    def lift(self, x, raw, theta):
        return self.wrong_lift(x, raw) if self.wrong_lift else x[0] * (1 - x[0]) * raw

    def boundary(self, theta):
        return self.ends


@pytest.mark.parametrize("module", [poisson, nonlinear_poisson])
def test_the_models_pass(module):
    check_problem(module.problem, module.start)
    check_problem(module.problem, module.truth)


def test_a_system_with_an_unknown_initial_value_passes():
    check_problem(Oscillator(), {"w": 4.0, "a": 0.5})


def test_components_may_have_names():
    class Named(Oscillator):
        component_names = ("u", "v")

    assert Oscillator().component_names == ()
    check_problem(Named(), {"w": 4.0, "a": 0.5})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("uv", "is 'uv'; it must hold a name of its own for each of the 2"),
        (("u",), r"is \('u',\); it must hold a name"),
        (("u", "u"), r"is \('u', 'u'\); it must hold a name of its own"),
        (("u", ""), "has ''"),
        (("u", "y1"), "has 'y1'; a column of data so named would be something else"),
        (("sigma_u", "u"), "has 'sigma_u'"),
        (("u", "experiment"), "has 'experiment'"),
    ],
)
def test_names_of_components_are_checked(names, message):
    class Named(Oscillator):
        component_names = names

    with pytest.raises(ValueError, match=r"Named\.component_names " + message):
        check_problem(Named(), {"w": 4.0, "a": 0.5})


def test_a_boundary_value_that_the_lift_ignores_is_found():
    class Deaf(Oscillator):
        def lift(self, x, raw, theta):
            return jnp.array([0.5, 1.0]) + x[0] * raw

    with pytest.raises(ValueError, match="the parameter 'a' has no part in"):
        check_problem(Deaf(), {"w": 4.0, "a": 0.5})
    with pytest.raises(ValueError, match="does not keep the boundary values"):
        check_problem(Deaf(), {"w": 4.0, "a": 0.6})


def test_an_unknown_function_without_the_end_value_it_must_have_is_found():
    """The initial value of the heat equation has to vanish at the ends, as u does."""
    with pytest.raises(ValueError, match=r"lift does not keep the boundary values.*x = \[0"):
        check_problem(heat_initial.problem, {"f": lambda x: jnp.cos(x[0])})


def test_a_field_in_theta_passes():
    check_problem(FromSource(), {"f": Source(jnp.array([1.0, 0.3]))})
    check_problem(FromSource(), {"f": lambda x: jnp.sin(x[0])})


def test_scales_far_apart_pass():
    class Stiff(Adjustable):
        parameters: tuple = ("a", "b")

        def residual(self, u, x, theta):
            return theta["a"] * bilo.laplacian(u)(x) + theta["b"]

    check_problem(Stiff(), {"a": 1e-3, "b": 1e5})


def test_a_problem_may_state_no_boundary_values():
    check_problem(Adjustable(ends=None, wrong_lift=lambda x, raw: raw), {"D": 1.0})


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ({}, r"missing \['D'\], unknown \[\]"),
        ({"D": 1.0, "k": 1.0}, r"unknown \['k'\].*exactly \['D'\]"),
        ({"D": float("nan")}, r"theta\['D'\] = nan is not finite"),
        ({"D": np.array([1.0, np.inf])}, r"theta\['D'\].*not finite"),
    ],
)
def test_errors_in_theta(theta, message):
    with pytest.raises(ValueError, match=message):
        check_theta(Adjustable(), theta)
    with pytest.raises(ValueError, match=message):
        check_problem(Adjustable(), theta)


def test_a_field_with_a_coefficient_that_is_not_finite():
    with pytest.raises(ValueError, match=r"theta\['f'\].*not finite"):
        check_theta(FromSource(), {"f": Source(jnp.array([1.0, jnp.nan]))})


def test_traced_values_are_left_alone():
    def checked(D):
        check_theta(Adjustable(), {"D": D})
        return D

    assert jnp.isnan(jax.jit(checked)(jnp.nan))


def test_attributes_that_are_not_given_are_named():
    class Bare(bilo.Problem):
        parameters = ("D",)
        points: Any

    with pytest.raises(ValueError, match=r"Bare does not give \['domain', 'components'\]"):
        check_problem(Bare(np.zeros((1, 1))), {"D": 1.0})


@pytest.mark.parametrize("typechecker", [None, beartype])
def test_points_may_be_a_field(typechecker):
    @jaxtyped(typechecker=typechecker)
    class Chosen(bilo.Problem):
        parameters = ("D",)
        components = 1
        domain = bilo.interval(0.0, 1.0)
        points: Shaped[Any, "n d"]

        def residual(self, u, x, theta):
            return theta["D"] * bilo.laplacian(u)(x) + 1.0

    problem = Chosen(np.array([[0.25], [0.5]]))
    check_problem(problem, {"D": 1.0})
    assert jax.tree.leaves(problem) == [problem.points]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": np.linspace(0, 1, 9)}, r"points has shape \(9,\); it must be \(n, 1\)"),
        ({"points": np.zeros((4, 2))}, r"must be \(n, 1\)"),
        ({"points": np.zeros((0, 1))}, r"shape \(0, 1\)"),
        ({"points": np.array([[0.5], [1.5]])}, r"1 points lie outside.*first at \[1.5\]"),
        ({"points": np.array([[0.5], [np.nan]])}, "outside the domain"),
        ({"wrong_residual": lambda r, x: r * jnp.ones((2, 2))}, r"residual returns shape \(2, 2\)"),
        (
            {"wrong_residual": lambda r, x: r / x[0]},
            r"residual is not finite at 1 of 9.*first at x = \[0.\]",
        ),
        ({"wrong_lift": lambda x, raw: x * (1 - x) * raw}, r"lift returns shape \(1,\).*\(\)"),
        ({"components": 2, "wrong_lift": lambda x, raw: raw[0]}, r"it must return \(2,\)"),
        ({"wrong_lift": lambda x, raw: raw * jnp.log(-1 - x[0])}, "lift is not finite at 9 of 9"),
        ({"wrong_lift": lambda x, raw: x[0] * raw}, r"boundary values: at x = \[1.\]"),
        (
            {"ends": (np.array([[0.0]]), np.array([0.25]))},
            r"at x = \[0.\] it is off by 0.25",
        ),
    ],
)
def test_errors_in_the_definition(changes, message):
    with pytest.raises(ValueError, match=message):
        check_problem(Adjustable(**changes), {"D": 1.0})


def test_a_problem_without_residual_says_so():
    class Empty(bilo.Problem):
        parameters = ("D",)
        components = 1
        domain = bilo.interval(0.0, 1.0)
        points = domain.grid(3)

    with pytest.raises(NotImplementedError, match="Empty must define residual"):
        check_problem(Empty(), {"D": 1.0})


def test_theta_as_casts_numbers_arrays_and_fields():
    theta = {"a": 1, "b": np.ones(2), "f": Source(jnp.ones(3))}
    cast = theta_as(theta, jnp.float32)
    assert cast["a"].dtype == cast["b"].dtype == cast["f"].coefficients.dtype == jnp.float32
    x = jnp.array([0.3], jnp.float32)
    np.testing.assert_allclose(cast["f"](x), theta["f"](x), atol=1e-6)


def test_network_inputs_are_normalised_by_default():
    np.testing.assert_allclose(
        nonlinear_poisson.problem.inputs(jnp.array([0.35]), {"k": 1.0}), [0.5], rtol=1e-15
    )


class Permeable(bilo.Problem):
    """-(A u')' = 1, A = 1 + c x by its coefficient."""

    parameters, components = ("c",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(9)
    positive = ("A",)

    def fields(self, theta):
        return {"A": lambda x: 1 + theta["c"] * x[0]}

    def residual(self, u, x, theta):
        A = self.fields(theta)["A"]
        return bilo.divergence(lambda y: A(y) * bilo.grad(u)(y))(x) + 1

    def lift(self, x, raw, theta):
        return bilo.bubble(self.domain, x) * raw


def test_what_must_be_positive_is_looked_at():
    check_problem(Permeable(), {"c": -0.5})
    with pytest.raises(ValueError, match=r"A must be positive.* at 2 of 9 collocation points"):
        check_problem(Permeable(), {"c": -1.2})

    class OfParameter(Permeable):
        positive = ("c",)

    with pytest.raises(ValueError, match=r"c must be positive.* at 1 of 1 entries.* time -0.5"):
        check_problem(OfParameter(), {"c": -0.5})

    class Misnamed(Permeable):
        positive = ("D",)

    with pytest.raises(ValueError, match=r"positive names 'D'; .* \['A', 'c'\]"):
        check_problem(Misnamed(), {"c": 0.5})


def test_fields_are_by_default_the_functions_of_theta():
    def f(x):
        return x[0]

    class Mixed(Permeable):
        parameters = ("f", "c")

        def fields(self, theta):
            return bilo.Problem.fields(self, theta)

    assert Mixed().fields({"f": f, "c": 1.0}) == {"f": f}
