"""Preconditioned conjugate gradients that report, for arrays of any shape."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bilo_ppl._types import Count, Flag, Scalar

__all__ = ["LinearReport", "conjugate_gradients", "default_tolerance", "solve_symmetric"]

TOLERANCE_POWER = 0.65


def default_tolerance(dtype: Any) -> float:
    """A relative residual that the precision allows: 7e-11 in double, 3e-5 in single precision."""
    return float(jnp.finfo(dtype).eps) ** TOLERANCE_POWER


class LinearReport(NamedTuple):
    """What a linear solve reports."""

    steps: Count
    """Iterations taken."""
    converged: Flag
    """Whether the residual is below the tolerance, relative to the right side."""
    squares: Scalar
    """Sum of the squares of the residual."""


class _State(NamedTuple):
    x: Float[Array, "..."]
    residual: Float[Array, "..."]
    direction: Float[Array, "..."]
    product: Scalar
    """Of the residual with the preconditioned residual."""
    steps: Count


def conjugate_gradients(
    apply: Callable[[Array], Array],
    right_side: Float[Array, "..."],
    precondition: Callable[[Array], Array],
    tolerance: float,
    max_steps: int,
) -> tuple[Float[Array, "..."], LinearReport]:
    """Solve ``apply(x) = right_side`` for a symmetric positive definite ``apply``, from x = 0.

    ``precondition`` is a symmetric positive definite approximation of its inverse. It ends where the
    Euclidean norm of the residual is at most ``tolerance`` times that of the right side.
    """

    def unfinished(state: _State):
        return (norm(state.residual) > goal) & (state.steps < max_steps)

    def step(state: _State):
        image = apply(state.direction)
        length = state.product / jnp.vdot(state.direction, image)
        residual = state.residual - length * image
        preconditioned = precondition(residual)
        product = jnp.vdot(residual, preconditioned)
        direction = preconditioned + product / state.product * state.direction
        x = state.x + length * state.direction
        return _State(x, residual, direction, product, state.steps + 1)

    def norm(x):
        return jnp.sqrt(jnp.vdot(x, x))

    goal = tolerance * norm(right_side)
    first = precondition(right_side)
    start = _State(
        jnp.zeros_like(right_side), right_side, first, jnp.vdot(right_side, first), jnp.array(0)
    )
    end = jax.lax.while_loop(unfinished, step, start)
    left = norm(end.residual)
    return end.x, LinearReport(end.steps, left <= goal, left**2)


def solve_symmetric(
    apply: Callable[[Array], Array],
    right_side: Float[Array, "..."],
    solver: Callable[[Array], tuple[Array, LinearReport]],
) -> tuple[Float[Array, "..."], LinearReport]:
    """The solution of ``apply(x) = right_side``, differentiable in what ``apply`` and it depend on.

    ``solver`` maps a right side to the solution and a report; it is called again for every
    derivative, forward or reverse (the adjoint equation), and need not be differentiable.
    """

    def solve(_: Any, b: Array):
        return solver(b)

    return jax.lax.custom_linear_solve(apply, right_side, solve, symmetric=True, has_aux=True)
