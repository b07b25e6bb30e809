"""What `FiniteVolumes` needs of a problem, checked before anything is solved."""

from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Field, Theta
from bilo_ppl.pde.calculus import divergence, grad
from bilo_ppl.pde.image import ImageDomain
from bilo_ppl.pde.problem import Problem

__all__ = ["Statement", "check_coefficient", "check_elliptic", "check_statement"]

Statement: TypeAlias = Callable[[Theta], tuple[Field, Field]]
"""A and g at a theta, both functions of a point."""

_PLACES = np.array([[0.31, 0.42], [0.64, 0.23], [0.47, 0.71], [0.83, 0.58]])


def check_elliptic(problem: Problem, cells: Any) -> None:
    """Refuse what is not a scalar problem on a rectangle of space, with a ``ValueError``."""
    name, domain = type(problem).__name__, problem.domain
    if domain.dimension != 2 or domain.time is not None or problem.components != 1:
        time = "" if domain.time is None else ", one of which is time"
        raise ValueError(
            f"FiniteVolumes solves scalar problems on a rectangle; {name} has {problem.components} "
            f"components in {domain.dimension} dimensions{time}."
        )
    if isinstance(domain, ImageDomain):
        raise ValueError(
            f"FiniteVolumes solves on a whole rectangle; the domain of {name} is an image with a mask. "
            "Give a Box."
        )
    if np.shape(cells) != (2,) or min(cells) < 4:
        raise ValueError(
            f"FiniteVolumes: cells={cells!r}; give their numbers along both axes, at least 4 each, "
            "such as (64, 64)."
        )


def check_coefficient(values: Any) -> None:
    """Refuse values of A that are not positive and finite, with a ``ValueError``."""
    values = np.concatenate([np.ravel(v) for v in values])
    wrong = ~(np.isfinite(values) & (values > 0))
    if wrong.any():
        raise ValueError(
            f"FiniteVolumes: the coefficient must be positive, but at the given theta it is not at "
            f"{wrong.sum()} of {wrong.size} faces, the first time {values[wrong][0]:g}."
        )


def check_statement(
    problem: Problem, statement: Statement, boundary: Any, theta: Theta, dtype: Any
) -> None:
    """Refuse a problem that says something else than ``-div(A grad u) = g`` with values in its lift.

    The residual may be a multiple of the difference of both sides, by a factor that depends on x.
    """
    name = type(problem).__name__
    met = problem.conditions(lambda x: jnp.zeros((), dtype), theta)
    if met:
        raise ValueError(
            f"FiniteVolumes imposes the residual and the lift of a problem, but {name} has further "
            f"conditions: {list(met)}."
        )
    lower, upper = np.array(problem.domain.lower), np.array(problem.domain.upper)
    places = jnp.asarray(lower + _PLACES * (upper - lower), dtype)
    ends = jnp.asarray(boundary, dtype)
    size = jnp.asarray(upper - lower, dtype)
    arrays, static = eqx.partition(theta, eqx.is_array)

    @jit_once
    def values(arrays):
        theta = eqx.combine(arrays, static)
        A, g = statement(theta)

        def lifted(raw):
            return jax.vmap(lambda x: problem.lift(x, jnp.asarray(raw, dtype), theta))(ends)

        def equation(u, x):
            return -divergence(lambda y: A(y) * grad(u)(y))(x) - g(x)

        def sides(shift):
            def u(y):
                return jnp.sin(shift + (y[0] / size[0] + 1.7 * y[1] / size[1]) * (1 + shift))

            theirs = jax.vmap(lambda x: problem.residual(u, x, theta))(places)
            return jax.vmap(lambda x: equation(u, x))(places), theirs

        return lifted(0.0), lifted(1.0), sides(0.3), sides(1.1)

    at_zero, at_one, *trials = jax.tree.map(np.asarray, values(arrays))
    if at_zero.shape != (len(boundary),):
        raise ValueError(f"FiniteVolumes: {name}.lift has shape {at_zero.shape[1:]}, not ().")
    moved = ~(np.abs(at_zero - at_one) <= 100 * np.finfo(at_zero.dtype).eps)
    if moved.any():
        raise ValueError(
            f"FiniteVolumes takes the boundary values from {name}.lift, but at "
            f"{boundary[np.argmax(moved)]} it depends on the raw network output (or is not finite)."
        )
    _compare(name, np.asarray(places), *trials)


def _compare(name: str, places: np.ndarray, one: Any, two: Any) -> None:
    """The equation ``(n,)`` and the residual ``(n,)`` for two functions: is their quotient the same?"""
    if one[1].shape != one[0].shape:
        raise ValueError(f"FiniteVolumes: {name}.residual has shape {one[1].shape[1:]}, not ().")
    products = one[0] * two[1], two[0] * one[1]
    scale = np.abs(products[0]) + np.abs(products[1])
    differs = ~(np.abs(products[0] - products[1]) <= np.finfo(scale.dtype).eps ** 0.5 * scale)
    if differs.any():
        i = np.argmax(differs)
        raise ValueError(
            f"FiniteVolumes: for two smooth functions, -div(A grad u) - g "
            f"is {one[0][i]:.6g} and {two[0][i]:.6g} at x = {places[i]}, but {name}.residual is "
            f"{one[1][i]:.6g} and {two[1][i]:.6g} there, no multiple: they state different equations."
        )
