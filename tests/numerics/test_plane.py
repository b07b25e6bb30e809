"""Finite volumes on a rectangle against manufactured solutions, and their derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import potential_energy

import bilo_ppl as bilo
from bilo_ppl.numerics.conjugate_gradients import conjugate_gradients
from bilo_ppl.numerics.plane.five_point import conductances, face_middles, on_points
from bilo_ppl.numerics.plane.sine_transform import poisson_eigenvalues, solve_poisson

LOWER, UPPER = np.array([0.0, -0.5]), np.array([1.0, 1.0])
SAMPLES = LOWER + np.random.default_rng(0).uniform(size=(200, 2)) * (UPPER - LOWER)


def exact(x):
    return jnp.sin(2 * x[0] + x[1]) * jnp.exp(x[1])


def coefficient(theta):
    return lambda x: jnp.exp(theta["c"] * jnp.sin(3 * x[0]) * jnp.cos(4 * x[1]))


def source(theta):
    """That for which `exact` is the solution."""
    A = coefficient(theta)
    return lambda x: -bilo.divergence(lambda y: A(y) * bilo.grad(exact)(y))(x)


class Manufactured(bilo.Problem):
    """The solution is `exact`, whose boundary values are in the lift."""

    parameters = ("c",)
    components = 1
    domain = bilo.Box((0.0, -0.5), (1.0, 1.0))
    points = domain.grid(5, 5)

    def residual(self, u, x, theta):
        A = coefficient(theta)
        return 3 * bilo.divergence(lambda y: A(y) * bilo.grad(u)(y))(x) + 3 * source(theta)(x)

    def lift(self, x, raw, theta):
        return exact(x) + x[0] * (1 - x[0]) * (x[1] + 0.5) * (1 - x[1]) * raw


def manufactured(cells=(16, 16), c=1.0, **options):
    return bilo.FiniteVolumes(
        Manufactured(), cells, theta={"c": c}, coefficient=coefficient, source=source, **options
    )


class Modes(eqx.Module):
    """exp of a sum of cosines: an unknown function."""

    a: jax.Array

    def __call__(self, x):
        i = jnp.arange(1, self.a.size + 1)
        return jnp.exp(jnp.sum(self.a * jnp.cos(i * jnp.pi * x[0]) * jnp.cos(i * jnp.pi * x[1])))


class Darcy(bilo.Problem):
    """-div(A grad u) = 10 on the unit square, u = 0 on its boundary."""

    parameters = ("A",)
    components = 1
    domain = bilo.Box((0.0, 0.0), (1.0, 1.0))
    points = domain.grid(5, 5)

    def residual(self, u, x, theta):
        return bilo.divergence(lambda y: theta["A"](y) * bilo.grad(u)(y))(x) + 10

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * x[1] * (1 - x[1]) * raw


def darcy(cells=(16, 16), modes=3, **options):
    return bilo.FiniteVolumes(
        options.pop("problem", Darcy()),
        cells,
        theta={"A": options.pop("A", Modes(jnp.zeros(modes)))},
        coefficient=lambda theta: theta["A"],
        source=lambda theta: 10.0,
        **options,
    )


@pytest.mark.parametrize("method", ["cg", "direct"])
def test_a_manufactured_solution_is_met_at_second_order(method):
    errors = []
    for n in (12, 24, 36):
        operator = manufactured((n, n), c=2.0, method=method)
        u, state, info = operator.solve({"c": 2.0}, operator.init_state())
        difference = jax.vmap(u)(SAMPLES) - jax.vmap(exact)(jnp.asarray(SAMPLES))
        errors.append(np.abs(difference).max())
        assert state == ()
        assert info.converged
        assert info.loss < 1e-9
    orders = np.diff(-np.log(errors)) / np.diff(np.log([12, 24, 36]))
    assert errors[-1] < 4e-3
    np.testing.assert_allclose(orders, 2, atol=0.1)


@pytest.mark.parametrize("method", ["cg", "direct"])
def test_the_refined_operator_has_twice_as_many_cells(method):
    found = manufactured((12, 10), c=2.0, method=method).refined()
    twice = manufactured((24, 20), c=2.0, method=method)
    np.testing.assert_allclose(
        found.solve({"c": 2.0}, ())[0].values, twice.solve({"c": 2.0}, ())[0].values
    )


@pytest.mark.parametrize("method", ["cg", "direct"])
def test_the_adjoint_gradient_matches_central_differences(method):
    operator = darcy(method=method)
    weights = np.cos(np.arange(len(SAMPLES)))
    points = (SAMPLES - LOWER) / (UPPER - LOWER)

    @jax.jit
    def misfit(a):
        u = operator.solve({"A": Modes(a)}, ())[0]
        return weights @ jax.vmap(u)(points) ** 2

    rng = np.random.default_rng(1)
    at, way = rng.normal(size=3), rng.normal(size=3)
    slope = jax.grad(misfit)(at) @ way
    difference = (misfit(at + 1e-5 * way) - misfit(at - 1e-5 * way)) / 2e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-7)
    np.testing.assert_allclose(slope, jax.jvp(misfit, (at,), (way,))[1], rtol=1e-7)


def test_sources_and_boundary_values_have_derivatives():
    operator = manufactured(method="cg")

    @jax.jit
    def total(c):
        return jnp.sum(operator.solve({"c": c}, ())[0].values ** 2)

    difference = (total(1.2 + 1e-5) - total(1.2 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(total)(1.2), difference, rtol=1e-5)


@pytest.mark.parametrize("method", ["cg", "direct"])
def test_a_batch_is_what_single_solves_are(method):
    operator = darcy(method=method)

    def value_and_info(a):
        u, _, info = operator.solve({"A": Modes(a)}, ())
        return jnp.sum(u.values**2), info

    batch = np.random.default_rng(2).normal(size=(3, 3))
    one = jax.jit(jax.value_and_grad(value_and_info, has_aux=True))
    (values, infos), gradients = jax.jit(jax.vmap(one))(batch)
    for i, a in enumerate(batch):
        (value, info), gradient = one(a)
        np.testing.assert_allclose(values[i], value, rtol=1e-12)
        np.testing.assert_allclose(gradients[i], gradient, rtol=1e-8)
        assert infos.steps[i] == info.steps


def smooth_contrast(x):
    """Between 1e-2 and 1e2, without jumps."""
    return jnp.exp(2 * jnp.log(10.0) * jnp.sin(5 * x[0] + 1) * jnp.cos(6 * x[1]))


def inclusion(x):
    """1e4 in a disk, 1 outside."""
    return jnp.where((x[0] - 0.4) ** 2 + (x[1] - 0.6) ** 2 < 0.06, 1e4, 1.0)


@pytest.mark.parametrize("A", [smooth_contrast, inclusion])
def test_four_decades_of_contrast_are_solved_by_both_methods(A):
    solutions = []
    for method in ("cg", "direct"):
        u, _, info = darcy((32, 32), A=A, method=method).solve({"A": A}, ())
        assert info.converged
        solutions.append(u.values)
    np.testing.assert_allclose(*solutions, rtol=1e-6, atol=1e-9)


def test_the_number_of_iterations_grows_neither_with_the_mesh_nor_with_a_smooth_contrast():
    steps = []
    for n in (16, 64):
        info = darcy((n, n), A=smooth_contrast, method="cg").solve({"A": smooth_contrast}, ())[2]
        steps.append(int(info.steps))
    assert max(steps) < 40
    assert abs(steps[1] - steps[0]) < 8


def test_the_method_follows_from_the_iterations_at_theta():
    assert darcy().method == "cg"

    def squares(x):
        return jnp.exp(5 * jnp.sign(jnp.sin(20 * x[0]) * jnp.sin(20 * x[1])))

    assert darcy(A=squares, problem=Darcy()).method == "direct"


def test_where_it_misses_its_tolerance_it_says_so():
    operator = darcy(max_steps=8)
    u, _, info = operator.solve({"A": Modes(jnp.full(3, 2.0))}, ())
    assert bilo.StopReason(int(info.reason)) == bilo.StopReason.STEP_LIMIT
    assert info.steps == 8
    assert np.isfinite(u.values).all()

    def negative(x):
        return 1 - 2 * x[0]

    for method in ("cg", "direct"):
        info = darcy(method=method).solve({"A": negative}, ())[2]
        assert bilo.StopReason(int(info.reason)) == bilo.StopReason.INVALID


def test_it_works_in_single_precision():
    with jax.enable_x64(False):
        operator = manufactured((32, 48))
        u, _, info = operator.solve({"c": 1.0}, ())
        assert u.values.dtype == jnp.float32
        assert info.converged
        points = jnp.asarray(SAMPLES, jnp.float32)
        np.testing.assert_allclose(jax.vmap(u)(points), jax.vmap(exact)(points), atol=1e-3)


def test_a_model_with_an_unknown_function_has_its_gradient():
    operator = darcy()
    x = np.random.default_rng(3).uniform(size=(12, 2))

    def model():
        a = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        u = bilo.solution("u", operator, {"A": Modes(a)})
        numpyro.sample("y", dist.Normal(jax.vmap(u)(x), 0.05), obs=np.full(12, 0.5))

    @jax.jit
    def energy(a):
        return potential_energy(model, (), {}, {"a": a})

    rng = np.random.default_rng(4)
    at, way = rng.normal(size=3), rng.normal(size=3)
    slope = jax.grad(energy)(at) @ way
    difference = (energy(at + 1e-5 * way) - energy(at - 1e-5 * way)) / 2e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_sine_transforms_solve_the_five_point_poisson_equation():
    nodes = np.linspace(0, 2, 9), np.linspace(-1, 0, 13)
    spacing = 0.25, 1 / 12
    scheme = conductances(
        tuple(on_points(1.0, middles, float) for middles in face_middles(*nodes)), spacing
    )
    wanted = jax.random.normal(jax.random.key(5), (7, 11))
    found = solve_poisson(scheme.apply(wanted), poisson_eigenvalues((8, 12), spacing))
    np.testing.assert_allclose(found, wanted, rtol=1e-11)


def test_conjugate_gradients_end_after_as_many_steps_as_there_are_unknowns():
    rng = np.random.default_rng(6)
    root = rng.normal(size=(5, 5))
    matrix, b = root @ root.T + np.eye(5), jnp.asarray(rng.normal(size=5))
    x, report = conjugate_gradients(lambda v: matrix @ v, b, lambda r: r, 1e-12, 20)
    np.testing.assert_allclose(x, np.linalg.solve(matrix, b), rtol=1e-9)
    assert report.converged
    assert report.steps <= 7
    early = conjugate_gradients(lambda v: matrix @ v, b, lambda r: r, 1e-12, 2)[1]
    assert not early.converged
    zero, report = conjugate_gradients(lambda v: matrix @ v, 0 * b, lambda r: r, 1e-12, 20)
    np.testing.assert_array_equal(zero, 0.0)
    assert report.converged


class Anisotropic(Darcy):
    def residual(self, u, x, theta):
        return super().residual(u, x, theta) + 0.1 * bilo.partial(u, 0)(x)


class Floating(Darcy):
    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


class Evolving(Darcy):
    domain = bilo.space_time(bilo.interval(0.0, 1.0), 1.0)


class Masked(Darcy):
    domain = bilo.image_domain(np.ones((4, 4)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem": Anisotropic()}, "they state different equations"),
        ({"problem": Floating()}, "it depends on the raw network output"),
        ({"problem": Evolving()}, "one of which is time"),
        ({"problem": Masked()}, "an image with a mask"),
        ({"A": lambda x: x[0] - 0.5}, "the coefficient must be positive"),
        ({"A": lambda x: jnp.where(x[0] > 0.5, jnp.nan, 1.0)}, "the coefficient must be positive"),
        ({"cells": (3, 8)}, "at least 4 each"),
        ({"method": "lu"}, "'cg', 'direct' or None"),
        ({"tolerance": 0.0}, "tolerance between 0 and 1"),
        ({"tolerance": 1e-12, "max_steps": 2, "method": "cg", "A": inclusion}, "all steps used up"),
    ],
)
def test_what_it_cannot_solve_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        darcy(**change)
