"""A step of reaction and diffusion by Strang's splitting.

Half a step of the reaction, a step of Crank and Nicolson's for the diffusion, half a step of the reaction
(Strang, *SIAM J. Numer. Anal.* 5, 1968).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from bilo_ppl._types import Count, Flag, Scalar, Theta
from bilo_ppl.numerics.conjugate_gradients import conjugate_gradients, solve_symmetric
from bilo_ppl.numerics.image.diffusion import Diffusion
from bilo_ppl.numerics.image.reaction import Flow
from bilo_ppl.numerics.stencils import constant

__all__ = ["Equation", "Stepped", "strang_step"]


class Equation(NamedTuple):
    """What a step needs at one theta."""

    diffusion: Diffusion
    capacity: Float[Array, "..."]
    """The phase inside of the mask, 1 outside."""
    mask: Bool[Array, "..."]
    theta: Theta


class Stepped(NamedTuple):
    """What goes from one step to the next."""

    u: Float[Array, "..."]
    lowest: Scalar
    highest: Scalar
    """Extremes of all values so far."""
    converged: Flag
    steps: Count
    """Iterations of conjugate gradients so far."""
    squares: Scalar
    """Sum of the squared residuals of the linear systems, over the step's square."""


def strang_step(
    equation: Equation, flow: Flow, dt: Scalar, tolerance: float, max_steps: int, state: Stepped
) -> Stepped:
    """A step of length ``dt``; ``tolerance`` and ``max_steps`` are those of the linear system."""
    diffusion, capacity, mask, theta = equation
    u = flow(state.u, dt / 2, theta)
    fixed, half = constant(diffusion), dt / 2
    diagonal = capacity + half * fixed.diagonal

    def solver(b):
        return conjugate_gradients(
            lambda v: capacity * v + half * fixed.apply(v),
            b,
            lambda r: r / diagonal,
            tolerance,
            max_steps,
        )

    # For the change of u, so that the tolerance is relative to it.
    change, report = solve_symmetric(
        lambda v: capacity * v + half * diffusion.apply(v), -dt * diffusion.apply(u), solver
    )
    u = flow(u + change, half, theta)
    u = jnp.where(mask, u, jnp.zeros_like(u))
    now, squares = constant((u, report.squares))
    return Stepped(
        u,
        jnp.minimum(state.lowest, jnp.min(now)),
        jnp.maximum(state.highest, jnp.max(now)),
        state.converged & report.converged,
        state.steps + report.steps,
        state.squares + squares / dt**2,
    )
