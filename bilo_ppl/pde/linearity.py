"""Whether an equation is linear in u, by the values of its rows at functions that no problem knows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Theta
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import theta_as

__all__ = ["is_linear_in_u"]

TRIED = 8
"""Collocation points at which the residual is looked at."""

UNITS = 5
"""Of tanh, which make a function."""


def is_linear_in_u(problem: Problem, theta: Theta) -> bool:
    """Whether residual, conditions and lift at ``theta`` are affine in what the network puts out.

    Then the lower level is a linear least-squares problem in the weights of an output layer. Decided in
    the default precision: what is smaller than its square root, of the largest row, is not seen.
    """
    points = np.asarray(problem.points, float)
    places = np.linspace(0, len(points) - 1, min(TRIED, len(points))).astype(int)
    return bool(_is_affine(problem, theta_as(theta, jnp.result_type(float)), points[places]))


@jit_once
def _is_affine(problem: Problem, theta: Theta, points: Any) -> Any:
    shape = (problem.components, UNITS)
    keys = jax.random.split(jax.random.key(0), 4)
    slopes = jax.random.normal(keys[0], (UNITS, points.shape[1]))
    shifts = jax.random.normal(keys[1], (UNITS,))
    first, second = (jax.random.normal(key, shape) for key in keys[2:])

    def rows(weights: Any) -> Any:
        def u(x: Any) -> Any:
            x = jnp.atleast_1d(x)
            raw = weights @ jnp.tanh(slopes @ problem.domain.normalise(x) + shifts)
            return problem.lift(x, raw if problem.components > 1 else raw[0], theta)

        residuals = jax.vmap(lambda x: jnp.atleast_1d(problem.residual(u, x, theta)))(points)
        conditions = problem.conditions(u, theta)
        more = [jnp.ravel(jnp.asarray(conditions[name])) for name in sorted(conditions)]
        return jnp.concatenate([residuals.ravel(), *more])

    at_first, at_second = rows(first), rows(second)
    bend = rows((first + second) / 2) - (at_first + at_second) / 2
    size = jnp.max(jnp.abs(at_first - at_second))
    return jnp.max(jnp.abs(bend)) <= jnp.sqrt(jnp.finfo(size.dtype).eps) * size
