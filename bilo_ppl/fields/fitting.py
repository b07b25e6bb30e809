"""A field fitted to a first guess."""

import warnings
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from bilo_ppl._types import Field, Points
from bilo_ppl.inner.least_squares import LeastSquares, RowFamily
from bilo_ppl.inner.solvers import AbstractInnerSolver, LevenbergMarquardt, solve
from bilo_ppl.network.trainable import trainable

__all__ = ["fit_field"]

F = TypeVar("F")


def fit_field(
    field: F,
    guess: Field,
    points: Points,
    *,
    solver: AbstractInnerSolver | None = None,
) -> F:
    """The field fitted to a first guess: least mean square of ``field - guess`` over the points.

    ``guess`` is a function of a point, ``points`` are ``(n, d)``. The solver is by default
    Levenberg-Marquardt to a mean square of 1e-8. Warns, with the error that is left, where the
    tolerance is not reached; a guess with a kink cannot be met exactly. Raises a ``ValueError`` for
    a guess that is not a finite scalar at every point.

    Examples:
        >>> f = bilo.NetworkField(problem.domain, key=key, width=8)
        >>> f = bilo.fit_field(f, lambda x: 1 + x[0] ** 2, problem.points)
        >>> round(float(f(jnp.array([0.5]))), 2)
        1.25
    """
    solver = LevenbergMarquardt(tolerance=1e-8, max_steps=200) if solver is None else solver
    free, fixed = eqx.partition(field, trainable(field))
    dtype = jnp.result_type(*jax.tree.leaves(free))
    xs = jnp.asarray(points, dtype)
    values = jax.vmap(guess)(xs)
    if values.shape != xs.shape[:1] or not bool(jnp.isfinite(values).all()):
        raise ValueError(
            f"fit_field: guess must give a finite scalar at every point; its values have shape "
            f"{values.shape[1:]} at a point, {int(jnp.isfinite(values).sum())} finite."
        )

    def rows(weights, item):
        x, value = item
        return {"fit": jnp.atleast_1d(eqx.combine(weights, fixed)(x) - value)}

    problem = LeastSquares((RowFamily(rows, (xs, values.astype(dtype)), {}),))
    found = jax.jit(lambda w: solve(solver, problem, w))(free)
    if not bool(found.converged):
        warnings.warn(
            f"fit_field: the mean square error is {float(found.loss):.1e} after "
            f"{int(found.steps)} steps, above the tolerance {solver.tolerance:.0e}.",
            stacklevel=2,
        )
    return eqx.combine(found.value, fixed)
